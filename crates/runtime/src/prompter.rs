//! What makes prompts of conversations: the template of the model's file, or those of its configuration.

use std::sync::{Arc, Mutex, PoisonError};

use ingle_catalog::{ModelConfig, TemplateConfig};
use ingle_engine::{TextModel, TokenKind};
use ingle_prompt::{
    CallFormat, ChatTemplate, ControlTokens, Conversation, GoSources, GoTemplates, Message, PromptError,
    RenderedPrompt, Role, TemplateOptions, TemplateVocabulary,
};

use crate::{Lease, RuntimeError};

/// Makes prompts.
pub(crate) enum Prompter {
    /// A Jinja template, and the operator's instructions for conversations that bring none.
    Jinja { template: Box<ChatTemplate>, system_prompt: Option<String> },
    /// Go templates of the configuration.
    Go(Box<GoTemplates>),
}

/// The prompter of a loaded model, made anew when its configuration has changed.
#[derive(Default)]
pub(crate) struct PrompterCache(Mutex<Option<(TemplateConfig, Made)>>);

type Made = Result<Arc<Prompter>, PromptError>;

impl Prompter {
    /// The model's, as its configuration has it now.
    pub(crate) fn of(lease: &Lease) -> Result<Arc<Self>, RuntimeError> {
        let config = &lease.config().template;
        let mut held = lease.resident().prompter.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, made)) = held.as_ref().filter(|(made_for, _)| made_for == config) {
            return Ok(made.clone()?);
        }
        let made = Self::compile(lease.text()?, lease.config()).map(Arc::new);
        *held = Some((config.clone(), made.clone()));
        Ok(made?)
    }

    fn compile(model: &TextModel, config: &ModelConfig) -> Result<Self, PromptError> {
        let vocabulary = vocabulary(model)?;
        let from = &config.template;
        let has_go = from.chat.is_some() || from.chat_message.is_some() || from.function.is_some();
        let wants_own = from.use_tokenizer_template == Some(true);
        // Prefixes for roles are for models whose file says nothing of a chat.
        let only_roles = !from.roles.is_empty() && model.config().chat_template.is_none();
        if !wants_own && (has_go || only_roles) {
            let templates = GoTemplates::compile(go_sources(from), vocabulary.control_tokens)?;
            return Ok(Self::Go(Box::new(templates)));
        }
        let template = match &model.config().chat_template {
            Some(source) => ChatTemplate::compile(source, vocabulary)?,
            None => {
                tracing::warn!(
                    model = model.config().name,
                    architecture = model.config().architecture,
                    "the file has no chat template; one that fits its architecture is used"
                );
                ingle_prompt::fallback_for(&model.config().architecture, vocabulary)
            }
        };
        Ok(Self::Jinja { template: Box::new(template), system_prompt: from.system_prompt.clone() })
    }

    /// The prompt of a conversation.
    pub(crate) fn render(
        &self,
        conversation: &Conversation,
        options: &TemplateOptions,
    ) -> Result<RenderedPrompt, PromptError> {
        match self {
            Self::Jinja { template, system_prompt } => match system_prompt {
                Some(text) if !has_instructions(conversation) => {
                    let mut with_prompt = conversation.clone();
                    with_prompt.messages.insert(0, Message::text(Role::System, text.as_str()));
                    template.render(&with_prompt, options)
                }
                Some(_) | None => template.render(conversation, options),
            },
            Self::Go(templates) => templates.render_chat(conversation, options),
        }
    }

    /// Sources of the templates, in which the marks of a reasoning are looked for.
    pub(crate) fn source(&self) -> &str {
        match self {
            Self::Jinja { template, .. } => template.source(),
            Self::Go(templates) => templates.source(),
        }
    }

    /// How the model writes tool calls.
    pub(crate) fn call_format(&self) -> &Arc<CallFormat> {
        match self {
            Self::Jinja { template, .. } => template.call_format(),
            Self::Go(templates) => templates.call_format(),
        }
    }

    /// Are control tokens among the marks of tool calls?
    pub(crate) fn calls_hold_control_tokens(&self) -> bool {
        match self {
            Self::Jinja { template, .. } => template.calls_hold_control_tokens(),
            Self::Go(templates) => templates.calls_hold_control_tokens(),
        }
    }
}

/// The prompt of a completion, as the configuration's template makes it of the request's.
pub(crate) fn completion_prompt(config: &ModelConfig, prompt: String) -> Result<String, PromptError> {
    let from = &config.template;
    if from.completion.is_none() {
        return Ok(prompt);
    }
    let sources = GoSources {
        completion: from.completion.clone(),
        system_prompt: from.system_prompt.clone(),
        ..GoSources::default()
    };
    let templates = GoTemplates::compile(sources, ControlTokens::default())?;
    Ok(templates.render_completion(&prompt, &now())?.unwrap_or(prompt))
}

/// The prompt of an edit; `None` when the configuration has no template for that.
pub(crate) fn edit_prompt(
    lease: &Lease,
    input: &str,
    instruction: &str,
) -> Result<Option<RenderedPrompt>, RuntimeError> {
    let from = &lease.config().template;
    if from.edit.is_none() {
        return Ok(None);
    }
    let sources =
        GoSources { edit: from.edit.clone(), system_prompt: from.system_prompt.clone(), ..GoSources::default() };
    let templates = GoTemplates::compile(sources, vocabulary(lease.text()?)?.control_tokens)?;
    Ok(templates.render_edit(input, instruction, &now())?)
}

fn now() -> TemplateOptions {
    TemplateOptions { now: Some(chrono::Local::now().naive_local()), ..TemplateOptions::default() }
}

fn has_instructions(conversation: &Conversation) -> bool {
    conversation.messages.iter().any(|message| matches!(message.role, Role::System | Role::Developer))
}

/// The templates of chats; a broken one for completions or edits is no reason to refuse a chat.
fn go_sources(from: &TemplateConfig) -> GoSources {
    GoSources {
        chat: from.chat.clone(),
        chat_message: from.chat_message.clone(),
        function: from.function.clone(),
        join: from.join_chat_messages_by_character.clone(),
        roles: from.roles.clone(),
        system_prompt: from.system_prompt.clone(),
        ..GoSources::default()
    }
}

fn vocabulary(model: &TextModel) -> Result<TemplateVocabulary, PromptError> {
    let tokenizer = model.tokenizer();
    let spelling = |token: u32| String::from_utf8_lossy(tokenizer.token_bytes(token)).into_owned();
    let is_control = |&token: &u32| tokenizer.token_kind(token) == TokenKind::Control;
    let control_tokens: Vec<String> =
        (0..tokenizer.n_vocab() as u32).filter(is_control).map(spelling).filter(|text| !text.is_empty()).collect();
    Ok(TemplateVocabulary {
        bos_token: tokenizer.beginning_of_sequence().map(spelling),
        eos_token: tokenizer.end_of_sequence().map(spelling),
        control_tokens: ControlTokens::new(&control_tokens)?,
    })
}
