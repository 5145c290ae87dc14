//! Chat: from a conversation to streams of answers.

use ingle_catalog::Usecase;
use ingle_engine::{ControlTokens, TextModel, TokenKind};
use ingle_prompt::{
    AnswerParser, ChatTemplate, ControlTokens as ControlSpellings, Conversation, PromptError, ReasoningFormat,
    TemplateOptions, TemplateVocabulary,
};

use crate::complete::{generation_request, repeat, tokenize_prompt};
use crate::tools::{Held, Plan, Reading, ToolUse, offered};
use crate::{AnswerOptions, ChatStream, Lease, Runtime, RuntimeError, grammar};

/// A conversation to answer.
#[derive(Debug, Clone)]
pub struct ChatCall {
    /// The model; absent is the first one that chats.
    pub model: Option<String>,
    /// Messages and tools.
    pub conversation: Conversation,
    /// Whether the tools may or must be called.
    pub tool_use: ToolUse,
    /// What the template is told; an absent time is now.
    pub template: TemplateOptions,
    /// How to answer.
    pub options: AnswerOptions,
}

impl Runtime {
    /// Starts `options.n` answers to one conversation. Everything that can be checked is checked before it returns.
    ///
    /// # Errors
    /// As [`Runtime::lease`]; [`PromptError`] when the template refuses the conversation; engine errors for a prompt
    /// that does not fit, parameters out of range and a full queue.
    pub async fn chat(&self, call: ChatCall) -> Result<Vec<ChatStream>, RuntimeError> {
        let lease = self.lease(call.model.as_deref(), Usecase::Chat).await?;
        let model = lease.text()?;
        let template = template_of(&lease)?;
        let now = call.template.now.or_else(|| Some(chrono::Local::now().naive_local()));
        let options = TemplateOptions { now, ..call.template };
        let tools = call.conversation.tools.clone();
        let conversation = offered(call.conversation, &call.tool_use);
        let rendered = template.render(&conversation, &options)?;
        let prompt = tokenize_prompt(model, &rendered.segments)?;
        let format = ReasoningFormat::detect(template.source(), &rendered.text());
        let mut request = generation_request(model, lease.config(), prompt, &call.options)?;
        let may_call = !conversation.tools.is_empty();
        let reading = Reading::new(lease.config(), template.call_format(), &call.tool_use)?;
        if format == ReasoningFormat::Harmony || (may_call && template.calls_hold_control_tokens()) {
            request.control_tokens = ControlTokens::Show;
        }
        let own = match may_call {
            true => None,
            false => grammar::of_config(self.catalog(), lease.config())?,
        };
        let plan = Plan { reading: &reading, reasoning: format, tools: &tools, tool_use: &call.tool_use };
        let Held { form, constraint } = plan.hold(&lease, call.options.grammar.as_ref().or(own.as_ref()))?;
        request.constraint = constraint;
        let parser = match (may_call, reading.rules) {
            (true, Some(rules)) => AnswerParser::with_rules(format, rules),
            (true, None) => AnswerParser::with_calls(format, reading.format, tools.into()),
            (false, _) => AnswerParser::new(format),
        };
        let wants_tokens = call.options.top_logprobs.is_some();
        let generations = model.submit_all(repeat(request, call.options.n)?)?;
        let stream = |generation| {
            let text = crate::TextStream::new(generation, lease.clone(), form.clone());
            ChatStream::new(text, parser.clone(), wants_tokens)
        };
        Ok(generations.into_iter().map(stream).collect())
    }
}

/// The template of the model's file, or one that fits its kind; compiled once.
fn template_of(lease: &Lease) -> Result<&ChatTemplate, RuntimeError> {
    let model = lease.text()?;
    let compiled = lease.resident().template.get_or_init(|| compile(model));
    compiled.as_ref().map_err(|error| RuntimeError::from(error.clone()))
}

fn compile(model: &TextModel) -> Result<ChatTemplate, PromptError> {
    let tokenizer = model.tokenizer();
    let spelling = |token: u32| String::from_utf8_lossy(tokenizer.token_bytes(token)).into_owned();
    let is_control = |&token: &u32| tokenizer.token_kind(token) == TokenKind::Control;
    let control_tokens: Vec<String> =
        (0..tokenizer.n_vocab() as u32).filter(is_control).map(spelling).filter(|text| !text.is_empty()).collect();
    let vocabulary = TemplateVocabulary {
        bos_token: tokenizer.beginning_of_sequence().map(spelling),
        eos_token: tokenizer.end_of_sequence().map(spelling),
        control_tokens: ControlSpellings::new(&control_tokens)?,
    };
    match &model.config().chat_template {
        Some(source) => ChatTemplate::compile(source, vocabulary),
        None => {
            tracing::warn!(
                model = model.config().name,
                architecture = model.config().architecture,
                "the file has no chat template; one that fits its architecture is used"
            );
            Ok(ingle_prompt::fallback_for(&model.config().architecture, vocabulary))
        }
    }
}
