//! Edits: a text, changed as an instruction says.

use ingle_catalog::Usecase;
use ingle_prompt::{AnswerParser, Conversation, Message, ReasoningFormat, Role, TemplateOptions};

use crate::answer::AnswerShape;
use crate::complete::{generation_request, repeat, tokenize_prompt};
use crate::{AnswerOptions, ChatCall, ChatStream, Runtime, RuntimeError, TextStream, ToolUse, prompter};

/// A text to change.
#[derive(Debug, Clone)]
pub struct EditCall {
    /// The model; absent is the first one that edits.
    pub model: Option<String>,
    /// The text; may be empty.
    pub input: String,
    /// What to do with it.
    pub instruction: String,
    /// How to answer.
    pub options: AnswerOptions,
}

impl Runtime {
    /// Starts `options.n` edits of one text: by the template of the model's configuration, or else as a chat.
    ///
    /// # Errors
    /// As [`Runtime::chat`].
    pub async fn edit(&self, call: EditCall) -> Result<Vec<ChatStream>, RuntimeError> {
        let lease = self.lease(call.model.as_deref(), Usecase::Edit).await?;
        let Some(prompt) = prompter::edit_prompt(&lease, &call.input, &call.instruction)? else {
            let text = match call.input.is_empty() {
                true => call.instruction,
                false => format!("{}\n\n{}", call.instruction, call.input),
            };
            let conversation = Conversation { messages: vec![Message::text(Role::User, text)], tools: Vec::new() };
            let chat = ChatCall {
                model: call.model,
                conversation,
                tool_use: ToolUse::default(),
                template: TemplateOptions::default(),
                options: call.options,
            };
            return self.chat_as(chat, Usecase::Edit).await;
        };
        let model = lease.text()?;
        let tokens = tokenize_prompt(model, &prompt.segments)?;
        let mut request = generation_request(model, lease.config(), tokens, &call.options)?;
        request.time_limit = self.time_limit();
        let shape = AnswerShape::of(lease.config(), false)?;
        let wants_tokens = call.options.top_logprobs.is_some();
        let generations = model.submit_all(repeat(request, call.options.n)?)?;
        let stream = |generation| {
            let text = TextStream::new(generation, lease.clone(), None);
            ChatStream::new(text, AnswerParser::new(ReasoningFormat::None), wants_tokens, shape.clone())
        };
        Ok(generations.into_iter().map(stream).collect())
    }
}
