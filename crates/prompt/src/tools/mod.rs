//! Tool calls: the format a template implies, and taking calls out of generated text.

mod atoms;
mod derive;
mod format;
#[cfg(test)]
mod fuzz;
mod generic;
mod harmony;
mod literal;
mod object;
mod parser;
mod rules;
mod scan;
mod syntax;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use format::CallFormat;
pub use parser::AnswerDelta;
pub use rules::{CallRuleOptions, CallRules};
pub use syntax::{CallCount, CallForm, CallSyntax, CallTrigger};

pub(crate) use derive::call_format;
pub(crate) use generic::adapt;

use harmony::HarmonyParser;
use parser::CallParser;

use crate::message::Tool;
use crate::reasoning::{ReasoningDelta, ReasoningFormat, ReasoningSplitter};

/// Splits one generated text into text, reasoning and calls while it streams. Feed it every delta, then
/// [`AnswerParser::finish`].
#[derive(Debug, Clone)]
pub struct AnswerParser(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Harmony(HarmonyParser),
    Tagged {
        reasoning: ReasoningSplitter,
        calls: Option<Box<CallParser>>,
    },
    /// Answer text is kept until its end.
    Ruled {
        reasoning: ReasoningSplitter,
        rules: Arc<CallRules>,
        answer: String,
    },
}

impl AnswerParser {
    /// For text alone: what looks like a call stays text.
    pub fn new(reasoning: ReasoningFormat) -> Self {
        Self(match reasoning {
            ReasoningFormat::Harmony => Kind::Harmony(HarmonyParser::new()),
            _ => Kind::Tagged { reasoning: ReasoningSplitter::new(reasoning), calls: None },
        })
    }

    /// For text in which `tools` may be called. Tagged arguments get their types from the tools.
    pub fn with_calls(reasoning: ReasoningFormat, format: Arc<CallFormat>, tools: Arc<[Tool]>) -> Self {
        let mut parser = Self::new(reasoning);
        if let Kind::Tagged { calls, .. } = &mut parser.0 {
            *calls = Some(Box::new(CallParser::new(format, tools)));
        }
        parser
    }

    /// For text in which an operator's rules find the calls.
    pub fn with_rules(reasoning: ReasoningFormat, rules: Arc<CallRules>) -> Self {
        let reasoning = ReasoningSplitter::new(reasoning);
        Self(Kind::Ruled { reasoning, rules, answer: String::new() })
    }

    /// Is the text inside the reasoning right now?
    pub fn is_reasoning(&self) -> bool {
        match &self.0 {
            Kind::Harmony(parser) => parser.is_reasoning(),
            Kind::Tagged { reasoning, .. } | Kind::Ruled { reasoning, .. } => reasoning.is_reasoning(),
        }
    }

    /// Takes a delta and gives back what is certain.
    pub fn push(&mut self, delta: &str) -> Vec<AnswerDelta> {
        match &mut self.0 {
            Kind::Harmony(parser) => parser.push(delta),
            Kind::Tagged { reasoning, calls } => through(reasoning.push(delta), calls),
            Kind::Ruled { reasoning, answer, .. } => kept(reasoning.push(delta), answer),
        }
    }

    /// The text has ended: gives back what was held.
    pub fn finish(&mut self) -> Vec<AnswerDelta> {
        match &mut self.0 {
            Kind::Harmony(parser) => parser.finish(),
            Kind::Tagged { reasoning, calls } => {
                let mut out = through(reasoning.finish(), calls);
                out.extend(calls.iter_mut().flat_map(|calls| calls.finish()));
                out
            }
            Kind::Ruled { reasoning, rules, answer } => {
                let mut out = kept(reasoning.finish(), answer);
                out.extend(rules.split(&std::mem::take(answer)));
                out
            }
        }
    }
}

/// Lets reasoning through and keeps the rest.
fn kept(deltas: Vec<ReasoningDelta>, answer: &mut String) -> Vec<AnswerDelta> {
    let mut out = Vec::new();
    for delta in deltas {
        match delta {
            ReasoningDelta::Reasoning(text) => out.push(AnswerDelta::Reasoning(text)),
            ReasoningDelta::Text(text) => answer.push_str(&text),
        }
    }
    out
}

/// Takes the calls out of the text between reasoning.
fn through(deltas: Vec<ReasoningDelta>, calls: &mut Option<Box<CallParser>>) -> Vec<AnswerDelta> {
    let mut out = Vec::new();
    for delta in deltas {
        match (delta, &mut *calls) {
            (ReasoningDelta::Reasoning(text), _) => out.push(AnswerDelta::Reasoning(text)),
            (ReasoningDelta::Text(text), Some(calls)) => out.extend(calls.push(&text)),
            (ReasoningDelta::Text(text), None) => out.push(AnswerDelta::Text(text)),
        }
    }
    out
}
