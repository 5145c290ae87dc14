//! A conversation with one model, for callers that block.

use std::path::Path;

use ingle_runtime::catalog::Usecase;
use ingle_runtime::prompt::{Conversation, Message, Role, TemplateOptions};
use ingle_runtime::{AnswerOptions, ChatCall, ChatEvent, ChatStream, LoadDefaults, Runtime, RuntimeError, ToolUse};

use crate::Setup;

/// Loads a GGUF file for a conversation; blocks while it loads.
///
/// # Errors
/// When the file cannot be read or cannot be run as a model.
pub fn chat_model(file: impl AsRef<Path>) -> Result<ChatModel, RuntimeError> {
    let (runtime, model) = Setup::for_file(file.as_ref(), LoadDefaults::default())?;
    ChatModel::new(runtime, model)
}

/// A model and the conversation with it. Calls block the thread; use [`Runtime::chat`] from async code.
#[derive(Debug)]
pub struct ChatModel {
    runtime: Runtime,
    model: String,
    /// The conversation so far, open to be edited: a system message in front, turns removed.
    pub messages: Vec<Message>,
    /// How to answer.
    pub options: AnswerOptions,
}

impl ChatModel {
    /// A conversation with a model of `runtime`, which is loaded now.
    ///
    /// # Errors
    /// When there is no such model, or it cannot be loaded.
    pub fn new(runtime: Runtime, model: impl Into<String>) -> Result<Self, RuntimeError> {
        let model = model.into();
        // The lease is given back at once: nothing else can evict the model but a load in the same runtime.
        futures_executor::block_on(runtime.lease(Some(&model), Usecase::Chat))?;
        Ok(Self { runtime, model, messages: Vec::new(), options: AnswerOptions::default() })
    }

    /// Says something and streams the answer. Dropping the answer early stops it; what came is kept as its text.
    ///
    /// # Errors
    /// As [`Runtime::chat`]; what was said is then not part of the conversation.
    pub fn ask(&mut self, text: impl Into<String>) -> Result<ChatAnswer<'_>, RuntimeError> {
        self.messages.push(Message::text(Role::User, text));
        let call = ChatCall {
            model: Some(self.model.clone()),
            conversation: Conversation { messages: self.messages.clone(), tools: Vec::new() },
            tool_use: ToolUse::default(),
            template: TemplateOptions::default(),
            options: AnswerOptions { n: 1, ..self.options.clone() },
        };
        match futures_executor::block_on(self.runtime.chat(call)) {
            Ok(streams) => Ok(ChatAnswer { stream: streams.into_iter().next(), text: String::new(), chat: self }),
            Err(error) => {
                self.messages.pop();
                Err(error)
            }
        }
    }
}

/// One answer as it is made: an iterator that blocks, ends with [`ChatEvent::Done`] or one error, and adds the answer to
/// the conversation when it is dropped.
#[derive(Debug)]
pub struct ChatAnswer<'a> {
    stream: Option<ChatStream>,
    text: String,
    chat: &'a mut ChatModel,
}

impl Iterator for ChatAnswer<'_> {
    type Item = Result<ChatEvent, RuntimeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let event = self.stream.as_mut()?.wait_next();
        if let Some(Ok(ChatEvent::Content(text))) = &event {
            self.text.push_str(text);
        }
        event
    }
}

impl Drop for ChatAnswer<'_> {
    fn drop(&mut self) {
        self.chat.messages.push(Message::text(Role::Assistant, std::mem::take(&mut self.text)));
    }
}
