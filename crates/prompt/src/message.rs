//! A conversation in our own words: what every HTTP dialect converts into.

use serde_json::{Map, Value};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions of the operator.
    System,
    /// Instructions of the developer; a template without that role gets them as [`Role::System`].
    Developer,
    /// The person asking.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The name that templates compare with.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::Developer => "developer",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// One piece of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentPart {
    /// Text of the client.
    Text(String),
    /// A picture; the key finds its decoded form, and means nothing here.
    Image(String),
    /// A sound, by key.
    Audio(String),
    /// A film, by key.
    Video(String),
}

/// The arguments of a tool call.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolArguments {
    /// Parsed.
    Json(Value),
    /// What the client sent, where that is not JSON.
    Raw(String),
}

impl ToolArguments {
    /// From the JSON text that clients send; an empty text is an empty object, and what does not parse stays raw.
    pub fn from_text(text: &str) -> Self {
        if text.trim().is_empty() {
            return ToolArguments::Json(Value::Object(Map::new()));
        }
        match serde_json::from_str(text) {
            Ok(value) => ToolArguments::Json(value),
            Err(_) => ToolArguments::Raw(text.to_owned()),
        }
    }

    /// As JSON text.
    pub fn to_text(&self) -> String {
        match self {
            ToolArguments::Json(value) => value.to_string(),
            ToolArguments::Raw(text) => text.clone(),
        }
    }
}

/// A call that the model made in an earlier turn.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// What the tool's message refers to.
    pub id: String,
    /// Name of the function.
    pub name: String,
    /// Its arguments.
    pub arguments: ToolArguments,
}

/// One turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order; may be empty for an assistant that only calls tools.
    pub content: Vec<ContentPart>,
    /// Name of the participant, or of the tool.
    pub name: Option<String>,
    /// Calls of an assistant.
    pub tool_calls: Vec<ToolCall>,
    /// The call a tool message answers.
    pub tool_call_id: Option<String>,
    /// Reasoning of an assistant's earlier turn.
    pub reasoning: Option<String>,
}

impl Message {
    /// A message of text alone.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            content: vec![ContentPart::Text(text.into())],
            name: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            reasoning: None,
        }
    }
}

/// A function the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Name of the function.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON schema of its arguments.
    pub parameters: Value,
    /// Must calls satisfy the schema exactly?
    pub strict: bool,
    /// The tool as `{"type": "function", "function": {…}}`: what templates print, keys in the client's order.
    pub raw: Value,
}

/// What a prompt is made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// The turns, oldest first.
    pub messages: Vec<Message>,
    /// The functions on offer.
    pub tools: Vec<Tool>,
}

/// How a request wants its conversation rendered.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateOptions {
    /// Where the prompt ends.
    pub ending: PromptEnding,
    /// Further template variables (`enable_thinking` and the like), from the client.
    pub kwargs: Map<String, Value>,
    /// `low`, `medium`, `high` or what else the model knows.
    pub reasoning_effort: Option<String>,
    /// The local time that templates may print; none makes a template that asks for it fail.
    pub now: Option<chrono::NaiveDateTime>,
}

impl Default for TemplateOptions {
    fn default() -> Self {
        Self { ending: PromptEnding::AssistantTurn, kwargs: Map::new(), reasoning_effort: None, now: None }
    }
}

/// Where a prompt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptEnding {
    /// With the opening of an assistant's turn (`add_generation_prompt`).
    AssistantTurn,
    /// After the last message.
    LastMessage,
    /// Inside the last message, which the model continues (`continue_final_message`).
    InsideLastMessage,
}
