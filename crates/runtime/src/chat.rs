//! Chat: from a conversation to streams of answers.

use ingle_catalog::{ModelConfig, Usecase};
use ingle_engine::ControlTokens;
use ingle_prompt::{AnswerParser, Conversation, ReasoningFormat, ReasoningTags, TemplateOptions};

use crate::answer::AnswerShape;
use crate::complete::{generation_request, repeat, tokenize_prompt};
use crate::prompter::Prompter;
use crate::tools::{Held, Plan, Reading, ToolUse, offered};
use crate::{AnswerOptions, ChatStream, Runtime, RuntimeError, grammar};

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
    /// As [`Runtime::lease`]; [`ingle_prompt::PromptError`] when the template refuses the conversation; engine errors for a prompt
    /// that does not fit, parameters out of range and a full queue.
    pub async fn chat(&self, call: ChatCall) -> Result<Vec<ChatStream>, RuntimeError> {
        self.chat_as(call, Usecase::Chat).await
    }

    pub(crate) async fn chat_as(&self, call: ChatCall, usecase: Usecase) -> Result<Vec<ChatStream>, RuntimeError> {
        let lease = self.lease(call.model.as_deref(), usecase).await?;
        let model = lease.text()?;
        let template = Prompter::of(&lease)?;
        let options = template_options(call.template, lease.config());
        let tools = call.conversation.tools.clone();
        let conversation = offered(call.conversation, &call.tool_use);
        let rendered = template.render(&conversation, &options)?;
        let prompt = tokenize_prompt(model, &rendered.segments)?;
        let own = &lease.config().reasoning;
        let tags = ReasoningTags { pairs: &own.tag_pairs, start_tokens: &own.start_tokens };
        let format = ReasoningFormat::detect_with(template.source(), &rendered.text(), tags);
        let mut request = generation_request(model, lease.config(), prompt, &call.options)?;
        request.time_limit = self.time_limit();
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
        let shape = AnswerShape::of(lease.config(), form.is_some())?;
        let generations = model.submit_all(repeat(request, call.options.n)?)?;
        let stream = |generation| {
            let text = crate::TextStream::new(generation, lease.clone(), form.clone());
            ChatStream::new(text, parser.clone(), wants_tokens, shape.clone())
        };
        Ok(generations.into_iter().map(stream).collect())
    }
}

/// What the template is told: the request's own words, then those of the configuration.
fn template_options(asked: TemplateOptions, config: &ModelConfig) -> TemplateOptions {
    let own = &config.reasoning;
    let now = asked.now.or_else(|| Some(chrono::Local::now().naive_local()));
    let mut kwargs = own.template_kwargs.clone();
    // An operator's word on thinking stands until the request speaks of it.
    if own.is_disabled && asked.reasoning_effort.is_none() {
        kwargs.entry("enable_thinking").or_insert(false.into());
        kwargs.entry("thinking").or_insert(false.into());
    }
    kwargs.extend(asked.kwargs);
    let has_no_thinking = kwargs.get("enable_thinking").is_some_and(|value| *value == false);
    let effort = own.effort.clone().filter(|effort| effort != "none" && !has_no_thinking);
    if own.effort.as_deref() == Some("none") && asked.reasoning_effort.is_none() {
        kwargs.entry("enable_thinking").or_insert(false.into());
    }
    TemplateOptions { kwargs, now, reasoning_effort: asked.reasoning_effort.or(effort), ..asked }
}
