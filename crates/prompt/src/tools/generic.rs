//! Tools for models whose template has no place for them: as text in the conversation.

use serde_json::{Value, json};

use super::format::CallFormat;
use crate::message::{ContentPart, Conversation, Message, Role, Tool, ToolArguments};
use crate::template::TemplateSupport;

const BEFORE_TOOLS: &str = "You can call functions. Here they are as JSON, one in a line:";
const BEHIND_TOOLS: &str = "To call a function, answer with its name and its arguments in exactly this form:";

/// `conversation` as a template of this `support` can print it: tools, calls and their results that it has no place for
/// become text. `format` is how the model writes calls.
pub(crate) fn adapt(conversation: &Conversation, support: TemplateSupport, format: &CallFormat) -> Conversation {
    let mut adapted = conversation.clone();
    if !support.tool_calls {
        adapted.messages = calls_as_text(&conversation.messages, format);
    }
    if !support.tools && !conversation.tools.is_empty() {
        describe(&mut adapted, support, format);
        adapted.tools.clear();
    }
    adapted
}

fn description(tools: &[Tool], format: &CallFormat) -> String {
    let lines: Vec<String> = tools.iter().map(|tool| tool.raw.to_string()).collect();
    let example = format.write([("function_name", &json!({"argument_name": "value"}))]);
    format!("{BEFORE_TOOLS}\n{}\n\n{BEHIND_TOOLS}\n{}", lines.join("\n"), example.trim())
}

/// Puts the tools into the system message, or before the first message where a template prints no system message.
fn describe(conversation: &mut Conversation, support: TemplateSupport, format: &CallFormat) {
    let text = description(&conversation.tools, format);
    let first = conversation.messages.first_mut();
    let has_place = |message: &Message| !support.system_role || matches!(message.role, Role::System | Role::Developer);
    match first.filter(|message| has_place(message)) {
        Some(message) if matches!(message.role, Role::System | Role::Developer) => {
            message.content.push(ContentPart::Text(format!("\n{text}")));
            merge_text(message);
        }
        Some(message) => {
            message.content.insert(0, ContentPart::Text(format!("{text}\n\n")));
            merge_text(message);
        }
        None => conversation.messages.insert(0, Message::text(Role::System, text)),
    }
}

/// Makes one part of a message's text, where it is nothing but text.
fn merge_text(message: &mut Message) {
    let texts: Option<Vec<&str>> = message
        .content
        .iter()
        .map(|part| match part {
            ContentPart::Text(text) => Some(text.as_str()),
            ContentPart::Image(_) | ContentPart::Audio(_) | ContentPart::Video(_) => None,
        })
        .collect();
    if let Some(texts) = texts {
        message.content = vec![ContentPart::Text(texts.concat())];
    }
}

fn calls_as_text(messages: &[Message], format: &CallFormat) -> Vec<Message> {
    let mut out: Vec<Message> = Vec::with_capacity(messages.len());
    for (idx, message) in messages.iter().enumerate() {
        let mut message = message.clone();
        if !message.tool_calls.is_empty() {
            let calls: Vec<(String, Value)> = message
                .tool_calls
                .drain(..)
                .map(|call| match call.arguments {
                    ToolArguments::Json(arguments) => (call.name, arguments),
                    ToolArguments::Raw(text) => (call.name, Value::String(text)),
                })
                .collect();
            let text = format.write(calls.iter().map(|(name, arguments)| (name.as_str(), arguments)));
            let gap = if message.content.is_empty() { "" } else { "\n" };
            message.content.push(ContentPart::Text(format!("{gap}{text}")));
            merge_text(&mut message);
        }
        if message.role == Role::Tool {
            message.content.insert(0, ContentPart::Text("<tool_response>\n".into()));
            message.content.push(ContentPart::Text("\n</tool_response>".into()));
            merge_text(&mut message);
            message = Message { role: Role::User, name: None, tool_call_id: None, ..message };
            // Results of one turn stand together: many templates want the roles to alternate.
            let follows = idx > 0 && messages[idx - 1].role == Role::Tool;
            if let Some(last) = out.last_mut().filter(|_| follows) {
                last.content.push(ContentPart::Text("\n".into()));
                last.content.extend(message.content);
                merge_text(last);
                continue;
            }
        }
        out.push(message);
    }
    out
}
