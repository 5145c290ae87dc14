//! From the messages of a request to the conversation that a prompt is made of.
use ingle_api::openai::{ChatMessage, ChatRequest, Content, ContentPart, Role, ToolCall};
use ingle_runtime::prompt::{self, Conversation, Message, PromptEnding, TemplateOptions, ToolArguments};
use serde_json::{Map, Value};

use crate::error::ApiError;

/// Keys of `metadata` that LocalAI uses for other things than template variables.
const RESERVED_METADATA: [&str; 4] = ["mcp_servers", "mcp_prompt", "mcp_resources", "localai_assistant"];

/// The conversation of a request.
///
/// # Errors
/// Names the message that cannot be honoured.
pub(super) fn conversation(request: &ChatRequest, tools: Vec<prompt::Tool>) -> Result<Conversation, ApiError> {
    if request.messages.is_empty() {
        return Err(ApiError::invalid_value("messages", "`messages` is empty; send at least one message"));
    }
    let messages = request.messages.iter().enumerate().map(|(idx, message)| self::message(idx, message));
    Ok(Conversation { messages: messages.collect::<Result<_, _>>()?, tools })
}

fn message(idx: usize, message: &ChatMessage) -> Result<Message, ApiError> {
    let mut tool_calls: Vec<prompt::ToolCall> = message.tool_calls.iter().flatten().map(tool_call).collect();
    // The old form has one call and no id.
    tool_calls.extend(message.function_call.iter().map(|function| prompt::ToolCall {
        id: String::new(),
        name: function.name.clone(),
        arguments: ToolArguments::from_text(&function.arguments),
    }));
    Ok(Message {
        role: role(idx, &message.role)?,
        content: content(idx, message.content.as_ref())?,
        name: message.name.clone(),
        tool_calls,
        tool_call_id: message.tool_call_id.clone(),
        reasoning: message.reasoning_content.clone().or_else(|| message.reasoning.clone()),
    })
}

fn role(idx: usize, role: &Role) -> Result<prompt::Role, ApiError> {
    match role {
        Role::System => Ok(prompt::Role::System),
        Role::Developer => Ok(prompt::Role::Developer),
        Role::User => Ok(prompt::Role::User),
        Role::Assistant => Ok(prompt::Role::Assistant),
        Role::Tool | Role::Function => Ok(prompt::Role::Tool),
        Role::Other(word) => {
            let param = format!("messages[{idx}].role");
            let message = format!("`{param}` is {word:?}; use system, developer, user, assistant or tool");
            Err(ApiError::invalid_value(param, message))
        }
    }
}

fn content(idx: usize, content: Option<&Content>) -> Result<Vec<prompt::ContentPart>, ApiError> {
    match content {
        None => Ok(Vec::new()),
        Some(Content::Text(text)) => Ok(vec![prompt::ContentPart::Text(text.clone())]),
        Some(Content::Parts(parts)) => {
            parts.iter().enumerate().map(|(part_idx, part)| content_part(idx, part_idx, part)).collect()
        }
    }
}

fn content_part(idx: usize, part_idx: usize, part: &ContentPart) -> Result<prompt::ContentPart, ApiError> {
    let kind = match part {
        ContentPart::Text { text } | ContentPart::Refusal { refusal: text } => {
            return Ok(prompt::ContentPart::Text(text.clone()));
        }
        ContentPart::ImageUrl { .. } => "images",
        ContentPart::AudioUrl { .. } | ContentPart::InputAudio { .. } => "sounds",
        ContentPart::VideoUrl { .. } => "films",
    };
    let param = format!("messages[{idx}].content[{part_idx}]");
    let message = format!("`{param}` is not text; this version does not read {kind}");
    Err(ApiError::unsupported(param, message))
}

fn tool_call(call: &ToolCall) -> prompt::ToolCall {
    prompt::ToolCall {
        id: call.id.clone().unwrap_or_default(),
        name: call.function.name.clone(),
        arguments: ToolArguments::from_text(&call.function.arguments),
    }
}

/// What the request tells the model's template.
pub(super) fn template_options(request: &ChatRequest) -> TemplateOptions {
    let mut kwargs = metadata_kwargs(request.metadata.as_ref());
    kwargs.extend(request.chat_template_kwargs.clone().unwrap_or_default());
    let mut reasoning_effort = request.reasoning_effort.clone();
    if reasoning_effort.as_deref() == Some("none") {
        kwargs.entry("enable_thinking").or_insert(Value::Bool(false));
        reasoning_effort = None;
    }
    let ending = match (request.continue_final_message, request.add_generation_prompt) {
        (Some(true), _) => PromptEnding::InsideLastMessage,
        (Some(false) | None, Some(false)) => PromptEnding::LastMessage,
        (Some(false) | None, Some(true) | None) => PromptEnding::AssistantTurn,
    };
    TemplateOptions { ending, kwargs, reasoning_effort, now: None }
}

/// LocalAI's way to set template variables: texts, of which `true` and `false` are meant as booleans.
fn metadata_kwargs(metadata: Option<&Map<String, Value>>) -> Map<String, Value> {
    let pairs = metadata.into_iter().flatten().filter(|(key, _)| !RESERVED_METADATA.contains(&key.as_str()));
    pairs
        .map(|(key, value)| {
            let value = match value.as_str() {
                Some("true") => Value::Bool(true),
                Some("false") => Value::Bool(false),
                Some(_) | None => value.clone(),
            };
            (key.clone(), value)
        })
        .collect()
}
