//! Tool calls: from what a call may, must or must not do to the form of its answer.

use std::sync::Arc;

use ingle_catalog::ModelConfig;
use ingle_engine::ConstraintHandle;
use ingle_grammar::{Compiled, GrammarError, GrammarSource, Piece, Strictness};
use ingle_prompt::{
    CallCount, CallForm, CallFormat, CallRuleOptions, CallRules, CallSyntax, Conversation, ReasoningFormat, Tool,
};

use crate::{Lease, RuntimeError, grammar};

/// May, must or must not the model call a tool?
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// It must not.
    None,
    /// It may.
    #[default]
    Auto,
    /// It must call one or more.
    Required,
    /// It must call this one.
    Named(String),
}

/// How tools are used in an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolUse {
    /// May, must or must not a tool be called?
    pub choice: ToolChoice,
    /// How many calls an answer may have.
    pub count: ToolCallCount,
}

/// How many calls an answer may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ToolCallCount {
    /// One.
    One,
    /// As many as the model's call format has a place for.
    #[default]
    Several,
}

/// How calls are written and found: in the format of the model's template, unless its configuration says otherwise.
pub(crate) struct Reading {
    pub format: Arc<CallFormat>,
    /// What finds the calls in place of the format.
    pub rules: Option<Arc<CallRules>>,
    /// Free answers are held to the format where they call.
    holds_free_answers: bool,
    count: CallCount,
}

impl Reading {
    pub fn new(config: &ModelConfig, format: &Arc<CallFormat>, tool_use: &ToolUse) -> Result<Self, RuntimeError> {
        let function = &config.function;
        let options = CallRuleOptions {
            name_key: function.name_key.clone(),
            arguments_key: function.arguments_key.clone(),
            response_regex: function.response_regex.clone(),
            json_regex_match: function.json_regex_match.clone(),
            argument_regex: function.argument_regex.clone(),
            argument_key_group: function.argument_key_group.clone(),
            argument_value_group: function.argument_value_group.clone(),
            replace_results: function.replace_results.clone(),
            replace_text: function.replace_text.clone(),
            capture_text: function.capture_text.clone(),
        };
        let keys = |format: &CallFormat| {
            Arc::new(format.with_keys(function.name_key.as_deref(), function.arguments_key.as_deref()))
        };
        let is_forced = matches!(tool_use.choice, ToolChoice::Required | ToolChoice::Named(_));
        let is_ruled = options.find_calls();
        let format = match (is_ruled, &function.name_key, &function.arguments_key) {
            (true, _, _) => keys(&CallFormat::plain_object(&function.prefix)),
            (false, None, None) => Arc::clone(format),
            (false, _, _) => keys(format),
        };
        // A call that must be made is held to a form, and read by that.
        let rules = match is_ruled && !is_forced {
            true => Some(Arc::new(CallRules::new(&options)?)),
            false => None,
        };
        let several = tool_use.count == ToolCallCount::Several && function.parallel_calls != Some(false);
        Ok(Self {
            format,
            holds_free_answers: rules.is_none() && !function.is_unconstrained,
            rules,
            count: if several { CallCount::Several } else { CallCount::One },
        })
    }
}

/// What tools make of an answer.
pub(crate) struct Plan<'a> {
    pub reading: &'a Reading,
    pub reasoning: ReasoningFormat,
    pub tools: &'a [Tool],
    pub tool_use: &'a ToolUse,
}

/// The form of an answer and the constraint that holds it to that.
pub(crate) struct Held {
    pub form: Option<Arc<Compiled>>,
    pub constraint: Option<ConstraintHandle>,
}

/// Removes the tools from a conversation in which none may be called: what is not offered is not called.
pub(crate) fn offered(conversation: Conversation, tool_use: &ToolUse) -> Conversation {
    match tool_use.choice {
        ToolChoice::None => Conversation { tools: Vec::new(), ..conversation },
        ToolChoice::Auto | ToolChoice::Required | ToolChoice::Named(_) => conversation,
    }
}

impl Plan<'_> {
    /// Compiles what the answer is held to; `other` is a form that its text must have.
    pub fn hold(&self, lease: &Lease, other: Option<&GrammarSource>) -> Result<Held, RuntimeError> {
        let count = self.reading.count;
        let must_call: Vec<Tool> = match &self.tool_use.choice {
            ToolChoice::None => return self.never(lease, other),
            ToolChoice::Auto if self.tools.is_empty() || !self.reading.holds_free_answers => {
                return self.text(lease, other);
            }
            ToolChoice::Auto => return self.may_call(lease, other, count),
            ToolChoice::Required => self.tools.to_vec(),
            ToolChoice::Named(name) => self.tools.iter().filter(|tool| tool.name == *name).cloned().collect(),
        };
        if must_call.is_empty() {
            return Err(RuntimeError::InvalidParameter {
                parameter: "tool_choice",
                value: "a call of a tool that is not offered".into(),
                permitted: "a tool of `tools`".into(),
            });
        }
        let calls = self.reading.format.calls(&must_call, count);
        let form = compile(lease, source(calls, &must_call, None)?)?;
        let constraint = match self.reading.format.calls_hold_reasoning() {
            true => Some(ConstraintHandle(form.start())),
            false => Some(grammar::behind_reasoning(lease, form.start(), self.reasoning)?),
        };
        Ok(Held { form: Some(form), constraint })
    }

    /// An answer without calls.
    fn text(&self, lease: &Lease, other: Option<&GrammarSource>) -> Result<Held, RuntimeError> {
        let form = other.map(|source| compile(lease, source.clone())).transpose()?;
        let constraint = form.as_ref().map(|form| grammar::behind_reasoning(lease, form.start(), self.reasoning));
        Ok(Held { form, constraint: constraint.transpose()? })
    }

    /// An answer in which no call may begin.
    fn never(&self, lease: &Lease, other: Option<&GrammarSource>) -> Result<Held, RuntimeError> {
        let trigger = self.reading.format.call_trigger();
        // Without a mark of its own a call is text like any other.
        if other.is_some() || self.reading.rules.is_some() || self.tools.is_empty() || trigger.at_start {
            return self.text(lease, other);
        }
        let trigger = grammar::grammars(lease)?.trigger(&trigger.text, false);
        Ok(Held { form: None, constraint: trigger.map(|trigger| ConstraintHandle(trigger.never())) })
    }

    /// An answer that is text, or calls from their mark on.
    fn may_call(&self, lease: &Lease, other: Option<&GrammarSource>, count: CallCount) -> Result<Held, RuntimeError> {
        if let Some(other) = other {
            return match text_piece(other) {
                Some(piece) if !self.reading.format.calls_hold_reasoning() => {
                    let calls = self.reading.format.calls(self.tools, count);
                    let form = compile(lease, source(calls, self.tools, Some(piece))?)?;
                    let constraint = grammar::behind_reasoning(lease, form.start(), self.reasoning)?;
                    Ok(Held { form: Some(form), constraint: Some(constraint) })
                }
                _ => self.text(lease, Some(other)),
            };
        }
        let trigger = self.reading.format.call_trigger();
        let form = compile(lease, source(self.reading.format.behind_trigger(self.tools, count), self.tools, None)?)?;
        let Some(trigger) = grammar::grammars(lease)?.trigger(&trigger.text, trigger.at_start) else {
            return Ok(Held { form: Some(form), constraint: None });
        };
        let triggered = trigger.then(form.start());
        let constraint = match self.reading.format.calls_hold_reasoning() {
            true => ConstraintHandle(triggered),
            false => grammar::behind_reasoning(lease, triggered, self.reasoning)?,
        };
        Ok(Held { form: Some(form), constraint: Some(constraint) })
    }
}

fn compile(lease: &Lease, source: GrammarSource) -> Result<Arc<Compiled>, RuntimeError> {
    Ok(grammar::grammars(lease)?.get(&source)?)
}

/// A form of text that can stand beside calls.
fn text_piece(source: &GrammarSource) -> Option<Piece> {
    match source {
        GrammarSource::JsonSchema { schema, strictness } => {
            Some(Piece::Json { schema: schema.clone(), strictness: *strictness })
        }
        GrammarSource::JsonObject => {
            let schema = serde_json::json!({"type": "object"});
            Some(Piece::Json { schema, strictness: Strictness::Lenient })
        }
        GrammarSource::Regex(regex) => Some(Piece::Regex(regex.clone())),
        GrammarSource::Lark(_) | GrammarSource::Gbnf(_) | GrammarSource::Calls { .. } => None,
    }
}

/// The grammar of calls, or of calls and one other form.
fn source(calls: CallForm, tools: &[Tool], other: Option<Piece>) -> Result<GrammarSource, RuntimeError> {
    let refused = |tool: &Tool| calls.unenforced.iter().find(|(name, _)| tool.strict && *name == tool.name);
    if let Some((name, reason)) = tools.iter().find_map(refused) {
        let reason = format!("{name}: {reason}");
        return Err(GrammarError::Refused { kind: "JSON schema of a tool", reason }.into());
    }
    let unenforced = calls.unenforced.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
    let form = piece(calls.syntax);
    let form = match other {
        Some(other) => Piece::OneOf(vec![form, other]),
        None => form,
    };
    let schemas = tools.iter().map(|tool| (tool.name.clone(), tool.parameters.clone())).collect();
    Ok(GrammarSource::Calls { form, schemas, unenforced })
}

fn piece(syntax: CallSyntax) -> Piece {
    match syntax {
        CallSyntax::Text(text) => Piece::Text(text),
        CallSyntax::Pattern(regex) => Piece::Regex(regex.to_owned()),
        CallSyntax::Json { schema, strict } => {
            Piece::Json { schema, strictness: if strict { Strictness::Strict } else { Strictness::Lenient } }
        }
        CallSyntax::Until { end, length } => Piece::Until { end, length },
        CallSyntax::Sequence(parts) => Piece::Sequence(parts.into_iter().map(piece).collect()),
        CallSyntax::OneOf(parts) => Piece::OneOf(parts.into_iter().map(piece).collect()),
        CallSyntax::Optional(part) => Piece::Optional(Box::new(piece(*part))),
        CallSyntax::Repeated(part) => Piece::Repeated(Box::new(piece(*part))),
    }
}

#[cfg(test)]
mod tests;
