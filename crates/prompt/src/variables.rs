//! From a conversation to the variables that templates read.
//!
//! Roles, keys and types are our own words and count as the template's; every other string came from a client.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::error::PromptError;
use crate::jinja::{Dict, Key, MAX_VALUE_DEPTH, Origin, Text, Value};
use crate::message::{ContentPart, Conversation, Message, Role, Tool, ToolArguments, ToolCall};

/// What shapes of data a template takes; found by trying at compile time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shapes {
    /// Does it walk a list of content parts?
    pub content_parts: bool,
    /// Does it take content that is a plain string?
    pub content_text: bool,
    /// Does it take tool call arguments as a dictionary? Else as JSON text.
    pub arguments_object: bool,
    /// Must a message that only calls tools have no content at all, for its calls to be printed?
    pub null_content: bool,
    /// Must ids of calls be nine letters and digits?
    pub short_ids: bool,
    /// Does it know the role `developer`?
    pub developer_role: bool,
    /// Under which key it reads earlier reasoning.
    pub reasoning_key: &'static str,
}

/// Refuses JSON that nests too deeply, and counts its bytes of text.
pub(crate) fn measure(json: &Json, field: &str) -> Result<usize, PromptError> {
    fn walk(json: &Json, levels: usize) -> Option<usize> {
        let below = levels.checked_sub(1)?;
        match json {
            Json::Null | Json::Bool(_) | Json::Number(_) => Some(8),
            Json::String(text) => Some(text.len()),
            Json::Array(items) => items.iter().map(|item| walk(item, below)).sum::<Option<usize>>(),
            Json::Object(map) => {
                map.iter().map(|(key, item)| walk(item, below).map(|size| size + key.len())).sum::<Option<usize>>()
            }
        }
    }
    // A message puts arguments a few levels below the top.
    walk(json, MAX_VALUE_DEPTH - 20)
        .ok_or(PromptError::Input { field: field.to_owned(), expected: "nested at most 110 levels deep" })
}

fn dict(entries: Vec<(&str, Value)>) -> Value {
    let entry = |(name, value): (&str, Value)| {
        let key: Arc<str> = Arc::from(name);
        (Key::Str(key.clone()), (Value::str(key), value))
    };
    Value::Dict(Rc::new(entries.into_iter().map(entry).collect::<Dict>()))
}

fn client(text: &str) -> Value {
    Value::Str(Text::new(text, Origin::Client))
}

/// The `messages` variable.
///
/// # Errors
/// [`PromptError::Input`] when a message holds media and the template takes text alone.
pub(crate) fn messages(conversation: &Conversation, shapes: Shapes) -> Result<Value, PromptError> {
    let all = &conversation.messages;
    let values = all.iter().enumerate().map(|(idx, message)| message_value(message, &all[..idx], shapes));
    Ok(Value::list(values.collect::<Result<Vec<Value>, PromptError>>()?))
}

fn message_value(message: &Message, before: &[Message], shapes: Shapes) -> Result<Value, PromptError> {
    let role = match message.role {
        Role::Developer if !shapes.developer_role => Role::System,
        role => role,
    };
    let mut entries = vec![("role", Value::str(role.as_str())), ("content", content(message, shapes)?)];
    if let Some(name) = message.name.as_deref().or_else(|| called_name(message, before)) {
        entries.push(("name", client(name)));
    }
    if let Some(id) = &message.tool_call_id {
        entries.push(("tool_call_id", client(&call_id(id, shapes))));
    }
    if let Some(reasoning) = &message.reasoning {
        entries.push((shapes.reasoning_key, client(reasoning)));
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| tool_call(call, shapes)).collect::<Result<Vec<_>, _>>()?;
        entries.push(("tool_calls", Value::list(calls)));
    }
    Ok(dict(entries))
}

/// The function whose result a tool message without a name brings.
fn called_name<'m>(message: &Message, before: &'m [Message]) -> Option<&'m str> {
    let id = message.tool_call_id.as_deref().filter(|_| message.role == Role::Tool)?;
    let calls = before.iter().rev().flat_map(|earlier| &earlier.tool_calls);
    calls.into_iter().find(|call| call.id == id).map(|call| call.name.as_str())
}

fn content(message: &Message, shapes: Shapes) -> Result<Value, PromptError> {
    let parts = &message.content;
    let is_empty = parts.iter().all(|part| matches!(part, ContentPart::Text(text) if text.is_empty()));
    if shapes.null_content && is_empty && !message.tool_calls.is_empty() {
        return Ok(Value::None);
    }
    let texts: Option<Vec<&str>> = parts
        .iter()
        .map(|part| match part {
            ContentPart::Text(text) => Some(text.as_str()),
            ContentPart::Image(_) | ContentPart::Audio(_) | ContentPart::Video(_) => None,
        })
        .collect();
    match texts {
        Some(texts) if shapes.content_text && (texts.len() <= 1 || !shapes.content_parts) => {
            Ok(client(&texts.join("\n")))
        }
        None if !shapes.content_parts => Err(PromptError::Input {
            field: "messages[].content".into(),
            expected: "text alone: the template of this model has no place for pictures or sound",
        }),
        _ => Ok(Value::list(parts.iter().map(part_value).collect())),
    }
}

fn part_value(part: &ContentPart) -> Value {
    match part {
        ContentPart::Text(text) => dict(vec![("type", Value::str("text")), ("text", client(text))]),
        ContentPart::Image(_) => dict(vec![("type", Value::str("image"))]),
        ContentPart::Audio(_) => dict(vec![("type", Value::str("audio"))]),
        ContentPart::Video(_) => dict(vec![("type", Value::str("video"))]),
    }
}

/// The id of a call, made short where the template takes no other; the same for a call and its result.
fn call_id(id: &str, shapes: Shapes) -> Cow<'_, str> {
    const LEN: usize = 9;
    let is_short = id.len() == LEN && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_short || !shapes.short_ids {
        return Cow::Borrowed(id);
    }
    // FNV-1a: the same in every run, so that a cached prefix stays one.
    let mut hash = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let digit = |_| {
        let digit = char::from_digit((hash % 36) as u32, 36).unwrap_or('0');
        hash /= 36;
        digit
    };
    Cow::Owned((0..LEN).map(digit).collect())
}

fn tool_call(call: &ToolCall, shapes: Shapes) -> Result<Value, PromptError> {
    let arguments = match &call.arguments {
        ToolArguments::Json(json) if shapes.arguments_object => {
            measure(json, "tool_calls[].function.arguments")?;
            Value::from_json(json, Origin::Client)
        }
        other => client(&other.to_text()),
    };
    let function = dict(vec![("name", client(&call.name)), ("arguments", arguments)]);
    Ok(dict(vec![("id", client(&call_id(&call.id, shapes))), ("type", Value::str("function")), ("function", function)]))
}

/// The `tools` variable: `None` when there are none.
///
/// # Errors
/// [`PromptError::Input`] when a schema nests too deeply.
pub(crate) fn tools(tools: &[Tool]) -> Result<Value, PromptError> {
    if tools.is_empty() {
        return Ok(Value::None);
    }
    let value = |tool: &Tool| measure(&tool.raw, "tools").map(|_| Value::from_json(&tool.raw, Origin::Client));
    Ok(Value::list(tools.iter().map(value).collect::<Result<Vec<Value>, PromptError>>()?))
}

/// Bytes of client text in a conversation, which the limits of rendering follow.
pub(crate) fn size(conversation: &Conversation) -> usize {
    let part = |part: &ContentPart| match part {
        ContentPart::Text(text) => text.len(),
        ContentPart::Image(_) | ContentPart::Audio(_) | ContentPart::Video(_) => 64,
    };
    let message = |message: &Message| {
        let calls: usize = message.tool_calls.iter().map(|call| call.arguments.to_text().len() + 64).sum();
        64 + message.content.iter().map(part).sum::<usize>() + calls + message.reasoning.as_ref().map_or(0, String::len)
    };
    let tools: usize = conversation.tools.iter().map(|tool| tool.raw.to_string().len()).sum();
    conversation.messages.iter().map(message).sum::<usize>() + tools
}
