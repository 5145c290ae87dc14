//! A model's chat template, compiled once and rendered for every request.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::error::PromptError;
use crate::jinja::{self, Fault, Origin, Stmt, Text, Value};
use crate::message::{ContentPart, Conversation, Message, PromptEnding, TemplateOptions};
use crate::probe;
use crate::segments::{ControlTokens, RenderedPrompt};
use crate::tools::{self, CallFormat};
use crate::variables::{self, Shapes};

/// What a template is told of its model's vocabulary.
#[derive(Debug, Clone, Default)]
pub struct TemplateVocabulary {
    /// Spelling of the begin-of-sequence token: the variable `bos_token`.
    pub bos_token: Option<String>,
    /// Spelling of the end-of-sequence token: the variable `eos_token`.
    pub eos_token: Option<String>,
    /// Spellings of every control token.
    pub control_tokens: ControlTokens,
}

/// What a template can express; found by rendering small conversations with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TemplateSupport {
    /// It prints the tools on offer.
    pub tools: bool,
    /// It prints tool calls of earlier turns.
    pub tool_calls: bool,
    /// It prints system messages.
    pub system_role: bool,
    /// It walks content parts, so media have a place.
    pub content_parts: bool,
    /// The variable that switches thinking (`enable_thinking`, `thinking`), where there is one.
    pub thinking_kwarg: Option<&'static str>,
    /// It prints `reasoning_effort`.
    pub reasoning_effort: bool,
}

/// A compiled chat template. Cheap to share; rendering does not change it.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: Arc<str>,
    body: Arc<[Stmt]>,
    vocabulary: TemplateVocabulary,
    shapes: Shapes,
    supports: TemplateSupport,
    call_format: Arc<CallFormat>,
}

impl ChatTemplate {
    /// Parses `source` and finds out what it supports.
    ///
    /// # Errors
    /// [`PromptError::Syntax`] or [`PromptError::Limit`] for a source that no template should have.
    pub fn compile(source: &str, vocabulary: TemplateVocabulary) -> Result<Self, PromptError> {
        let body: Arc<[Stmt]> = jinja::parse(source)?.into();
        let shapes = probe::shapes(source);
        let (source, supports) = (Arc::from(source), TemplateSupport::default());
        let call_format = Arc::new(CallFormat::hermes());
        // A template is looked at with all tokens it may print, also where the model has none of them.
        let known = TemplateVocabulary {
            bos_token: Some(vocabulary.bos_token.clone().unwrap_or_default()),
            eos_token: Some(vocabulary.eos_token.clone().unwrap_or_default()),
            control_tokens: vocabulary.control_tokens.clone(),
        };
        let mut template = Self { source, body, vocabulary: known, shapes, supports, call_format };
        probe::probe(&mut template);
        match tools::call_format(&template) {
            Some(format) => template.call_format = Arc::new(format),
            // A model that is not told how to call is told so beside the tools.
            None => template.supports.tools = false,
        }
        template.vocabulary = vocabulary;
        Ok(template)
    }

    /// The source it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it can express.
    pub fn supports(&self) -> TemplateSupport {
        self.supports
    }

    /// How its model writes tool calls: as the template prints them, or else as the prompt asks for.
    pub fn call_format(&self) -> &Arc<CallFormat> {
        &self.call_format
    }

    /// Are control tokens among the marks of its tool calls? A text in which they are hidden has no calls then.
    pub fn calls_hold_control_tokens(&self) -> bool {
        self.call_format.marks().any(|mark| self.vocabulary.control_tokens.occur_in(mark))
    }

    pub(crate) fn control_tokens(&self) -> &ControlTokens {
        &self.vocabulary.control_tokens
    }

    pub(crate) fn set_findings(&mut self, shapes: Shapes, supports: TemplateSupport) {
        self.shapes = shapes;
        self.supports = supports;
    }

    pub(crate) fn shapes(&self) -> Shapes {
        self.shapes
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// [`PromptError::Refused`] when the template raises, [`PromptError::Render`] when it fails,
    /// [`PromptError::Limit`] when it works too long, [`PromptError::Input`] for data it has no place for.
    pub fn render(
        &self,
        conversation: &Conversation,
        options: &TemplateOptions,
    ) -> Result<RenderedPrompt, PromptError> {
        let text = self.render_text(&tools::adapt(conversation, self.supports, &self.call_format), options)?;
        let text = match (options.ending, conversation.messages.last()) {
            (PromptEnding::InsideLastMessage, Some(last)) => cut_after(&text, last)?,
            _ => text,
        };
        Ok(RenderedPrompt { segments: self.vocabulary.control_tokens.segments(&text) })
    }

    pub(crate) fn render_text(
        &self,
        conversation: &Conversation,
        options: &TemplateOptions,
    ) -> Result<Text, PromptError> {
        let mut variables = kwargs(&options.kwargs)?;
        if let Some(effort) = &options.reasoning_effort {
            set(&mut variables, "reasoning_effort", Value::Str(Text::new(effort.as_str(), Origin::Client)));
        }
        for (name, token) in [("bos_token", &self.vocabulary.bos_token), ("eos_token", &self.vocabulary.eos_token)] {
            if let Some(token) = token {
                set(&mut variables, name, Value::str(token.as_str()));
            }
        }
        set(&mut variables, "messages", variables::messages(conversation, self.shapes)?);
        set(&mut variables, "tools", variables::tools(&conversation.tools)?);
        let opens_turn = options.ending == PromptEnding::AssistantTurn;
        set(&mut variables, "add_generation_prompt", Value::Bool(opens_turn));
        let bytes = variables::size(conversation);
        jinja::render(&self.body, variables, options.now, bytes).map_err(error)
    }
}

fn set(variables: &mut Vec<(Arc<str>, Value)>, name: &str, value: Value) {
    variables.push((Arc::from(name), value));
}

fn kwargs(kwargs: &Map<String, Json>) -> Result<Vec<(Arc<str>, Value)>, PromptError> {
    let mut variables = Vec::with_capacity(kwargs.len() + 6);
    for (name, json) in kwargs {
        variables::measure(json, name)?;
        set(&mut variables, name, Value::from_json(json, Origin::Client));
    }
    Ok(variables)
}

/// The error that a failed rendering is for a caller.
pub(crate) fn error(fault: Fault) -> PromptError {
    match fault {
        Fault::Refused(message) => PromptError::Refused { message },
        Fault::Failed(reason) => PromptError::Render { reason },
        Fault::Limit { resource, limit } => PromptError::Limit { resource, limit },
    }
}

/// Cuts a prompt right after the text of its last message, so that the model goes on with it.
fn cut_after(text: &Text, last: &Message) -> Result<Text, PromptError> {
    let written = last.content.iter().rev().find_map(|part| match part {
        ContentPart::Text(text) => Some(text.as_str()),
        ContentPart::Image(_) | ContentPart::Audio(_) | ContentPart::Video(_) => None,
    });
    let written = written.unwrap_or_default();
    let Some(start) = text.as_str().rfind(written.trim()) else {
        return Err(PromptError::Input {
            field: "messages".into(),
            expected: "ended by a message that the template prints unchanged, to be continued",
        });
    };
    let rest = &text.as_str()[start..];
    let kept = if rest.starts_with(written.trim_start()) { written.trim_start() } else { written.trim() };
    Ok(text.slice(0..start + kept.len()))
}
