//! Messages and tools, as requests carry them.
use serde::de::{Deserialize, Deserializer, Error};
use serde::{Deserialize as DeriveDeserialize, Serialize, Serializer};
use serde_json::Value;
use serde_with::skip_serializing_none;

use super::content::Content;

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    System,
    /// Instructions, by their newer name.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
    /// The result of a call in the old form.
    Function,
    /// Any other word; only the model's template knows whether it means something.
    #[serde(untagged)]
    Other(String),
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Ok(match word.as_str() {
            "system" => Self::System,
            "developer" => Self::Developer,
            "user" => Self::User,
            "assistant" => Self::Assistant,
            "tool" => Self::Tool,
            "function" => Self::Function,
            _ => Self::Other(word),
        })
    }
}

/// One message of a conversation.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, DeriveDeserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said; absent in an assistant's message that only calls tools.
    #[serde(default)]
    pub content: Option<Content>,
    /// The speaker's name, or the function's in the old form.
    #[serde(default)]
    pub name: Option<String>,
    /// The calls an assistant made.
    #[serde(default)]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// Which call a tool's message answers.
    #[serde(default)]
    pub tool_call_id: Option<String>,
    /// The call an assistant made, in the old form.
    #[serde(default)]
    pub function_call: Option<FunctionCall>,
    /// The reasoning that led to the answer.
    #[serde(default)]
    pub reasoning_content: Option<String>,
    /// The same by LocalAI's name.
    #[serde(default)]
    pub reasoning: Option<String>,
    /// An assistant's refusal.
    #[serde(default)]
    pub refusal: Option<String>,
}

impl ChatMessage {
    /// A message that says something and nothing else.
    pub fn new(role: Role, content: Content) -> Self {
        Self {
            role,
            content: Some(content),
            name: None,
            tool_calls: None,
            tool_call_id: None,
            function_call: None,
            reasoning_content: None,
            reasoning: None,
            refusal: None,
        }
    }
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Serialize, DeriveDeserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ToolCall {
    /// Names the call, so that its result can be told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Always `function`.
    #[serde(rename = "type", default = "function_kind")]
    pub kind: String,
    /// What is called.
    pub function: FunctionCall,
}

fn function_kind() -> String {
    "function".into()
}

/// A function's name and arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FunctionCall {
    /// The function's name.
    pub name: String,
    /// The arguments as JSON text, as the model wrote them; an object is taken too and turned into text.
    #[serde(default, deserialize_with = "arguments")]
    pub arguments: String,
}

fn arguments<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Null => String::new(),
        Value::String(text) => text,
        other => other.to_string(),
    })
}

/// A tool the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// What can be called.
    pub function: FunctionDefinition,
    /// The tool as it was sent, keys in their order: templates print it.
    pub raw: Value,
}

impl Tool {
    /// A tool of this function.
    pub fn new(function: FunctionDefinition) -> Self {
        let raw = serde_json::json!({"type": "function", "function": function});
        Self { function, raw }
    }
}

impl<'de> Deserialize<'de> for Tool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Value::deserialize(deserializer)?;
        let kind = raw.get("type").and_then(Value::as_str).unwrap_or("function");
        if kind != "function" {
            let kind = kind.escape_debug();
            return Err(D::Error::custom(format!("unknown tool type `{kind}`; only function is understood")));
        }
        let function = raw.get("function").ok_or_else(|| D::Error::missing_field("function"))?;
        let function = FunctionDefinition::deserialize(function)
            .map_err(|error| D::Error::custom(format!("function: {error}")))?;
        Ok(Self { function, raw })
    }
}

impl Serialize for Tool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw.serialize(serializer)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Tool {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Tool".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let function = generator.subschema_for::<FunctionDefinition>();
        schemars::json_schema!({
            "description": "A tool the model may call",
            "type": "object",
            "required": ["type", "function"],
            "properties": {"type": {"const": "function"}, "function": function},
        })
    }
}

/// What a function is and takes.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, DeriveDeserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FunctionDefinition {
    /// The function's name.
    pub name: String,
    /// What it does, for the model to read.
    #[serde(default)]
    pub description: Option<String>,
    /// JSON Schema of the arguments.
    #[serde(default)]
    pub parameters: Option<Value>,
    /// Must the arguments satisfy the schema exactly?
    #[serde(default)]
    pub strict: Option<bool>,
}
