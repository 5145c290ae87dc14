//! The small languages inside a request: which tool, which format.
use serde::de::{Deserialize, Deserializer, Error};
use serde::{Deserialize as DeriveDeserialize, Serialize, Serializer};
use serde_json::{Map, Value, json};

/// May, must or must not the model call a tool?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// It must not.
    None,
    /// It may.
    Auto,
    /// It must call one or more.
    Required,
    /// It must call this one.
    Function(String),
    /// It may (`auto`) or must (`required`) call one of these.
    Allowed {
        /// Must one be called?
        required: bool,
        /// Names of the tools that may be called.
        names: Vec<String>,
    },
}

impl ToolChoice {
    fn from_value(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Self::from_text(&text),
            Value::Object(object) => Self::from_object(&object),
            other => Err(format!("expected a string or an object, found {}", kind_of(&other))),
        }
    }

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "auto" => Ok(Self::Auto),
            "required" | "any" => Ok(Self::Required),
            // Some clients put the JSON form into a string.
            _ => match serde_json::from_str(text) {
                Ok(Value::Object(object)) => Self::from_object(&object),
                _ => Err(format!(
                    "unknown choice `{}`; use none, auto, required or {{\"type\":\"function\",\"function\":{{\"name\":…}}}}",
                    text.escape_debug()
                )),
            },
        }
    }

    fn from_object(object: &Map<String, Value>) -> Result<Self, String> {
        match object.get("type").and_then(Value::as_str) {
            Some("function") | None => {
                Ok(Self::Function(name_in(object).ok_or("a choice of type `function` needs `function.name`")?))
            }
            Some("allowed_tools") => Self::from_allowed(object),
            Some("none" | "auto" | "required") => Self::from_text(object["type"].as_str().unwrap_or_default()),
            Some(other) => {
                Err(format!("unknown choice type `{}`; use function or allowed_tools", other.escape_debug()))
            }
        }
    }

    fn from_allowed(object: &Map<String, Value>) -> Result<Self, String> {
        let inner = object.get("allowed_tools").and_then(Value::as_object).unwrap_or(object);
        let tools = inner.get("tools").and_then(Value::as_array).ok_or("`allowed_tools` needs the list `tools`")?;
        let names = tools.iter().map(|tool| {
            tool.as_object().and_then(name_in).ok_or_else(|| "each of `tools` needs `function.name`".to_owned())
        });
        let required = match inner.get("mode").and_then(Value::as_str) {
            Some("required") => true,
            Some("auto") | None => false,
            Some(other) => return Err(format!("unknown mode `{}`; use auto or required", other.escape_debug())),
        };
        Ok(Self::Allowed { required, names: names.collect::<Result<_, _>>()? })
    }

    fn to_value(&self) -> Value {
        match self {
            Self::None => json!("none"),
            Self::Auto => json!("auto"),
            Self::Required => json!("required"),
            Self::Function(name) => json!({"type": "function", "function": {"name": name}}),
            Self::Allowed { required, names } => {
                let mode = if *required { "required" } else { "auto" };
                let tools: Vec<Value> =
                    names.iter().map(|name| json!({"type": "function", "function": {"name": name}})).collect();
                json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}})
            }
        }
    }
}

/// The name in `{"function":{"name"}}` or, flat, in `{"name"}`.
fn name_in(object: &Map<String, Value>) -> Option<String> {
    let nested = object.get("function").and_then(|function| function.get("name"));
    nested.or_else(|| object.get("name")).and_then(Value::as_str).map(str::to_owned)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_value(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Serialize for ToolChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

/// The old form of [`ToolChoice`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FunctionCallChoice {
    /// The model must not call a function.
    None,
    /// It may.
    Auto,
    /// It must call this one.
    Function(String),
}

impl<'de> Deserialize<'de> for FunctionCallChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) if text == "none" => Ok(Self::None),
            Value::String(text) if text == "auto" => Ok(Self::Auto),
            Value::Object(object) => {
                name_in(&object).map(Self::Function).ok_or_else(|| D::Error::custom("needs `name`"))
            }
            _ => Err(D::Error::custom("expected none, auto or {\"name\":…}")),
        }
    }
}

impl Serialize for FunctionCallChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => "none".serialize(serializer),
            Self::Auto => "auto".serialize(serializer),
            Self::Function(name) => json!({"name": name}).serialize(serializer),
        }
    }
}

/// What form the answer must have.
#[derive(Debug, Clone, PartialEq)]
pub enum ResponseFormat {
    /// Free text.
    Text,
    /// Any JSON object, or one that satisfies a schema.
    JsonObject {
        /// JSON Schema (the form of llama.cpp and others).
        schema: Option<Value>,
    },
    /// JSON that satisfies a schema.
    JsonSchema {
        /// The schema's name.
        name: Option<String>,
        /// The schema itself.
        schema: Value,
        /// Must it be satisfied exactly?
        strict: Option<bool>,
        /// What the answer is, for the model to read.
        description: Option<String>,
    },
}

#[derive(DeriveDeserialize)]
struct RawFormat {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    schema: Option<Value>,
    #[serde(default)]
    json_schema: Option<RawSchema>,
}

#[derive(DeriveDeserialize)]
struct RawSchema {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    schema: Option<Value>,
    #[serde(default)]
    strict: Option<bool>,
    #[serde(default)]
    description: Option<String>,
}

impl ResponseFormat {
    fn from_raw(raw: RawFormat) -> Result<Self, String> {
        match raw.kind.as_str() {
            "text" => Ok(Self::Text),
            "json_object" => Ok(Self::JsonObject { schema: raw.schema }),
            "json_schema" => {
                let named = raw.json_schema;
                let (name, schema, strict, description) = match named {
                    Some(named) => (named.name, named.schema, named.strict, named.description),
                    None => (None, raw.schema, None, None),
                };
                let schema = schema.ok_or("a format of type `json_schema` needs `json_schema.schema`")?;
                Ok(Self::JsonSchema { name, schema, strict, description })
            }
            other => Err(format!("unknown format `{}`; use text, json_object or json_schema", other.escape_debug())),
        }
    }
}

impl<'de> Deserialize<'de> for ResponseFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = match Value::deserialize(deserializer)? {
            Value::String(kind) => json!({"type": kind}),
            other => other,
        };
        let raw: RawFormat = serde_json::from_value(value).map_err(D::Error::custom)?;
        Self::from_raw(raw).map_err(D::Error::custom)
    }
}

impl Serialize for ResponseFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = match self {
            Self::Text => json!({"type": "text"}),
            Self::JsonObject { schema: None } => json!({"type": "json_object"}),
            Self::JsonObject { schema: Some(schema) } => json!({"type": "json_object", "schema": schema}),
            Self::JsonSchema { name, schema, strict, description } => {
                let mut inner = json!({"name": name.as_deref().unwrap_or("answer"), "schema": schema});
                if let Some(strict) = strict {
                    inner["strict"] = json!(strict);
                }
                if let Some(description) = description {
                    inner["description"] = json!(description);
                }
                json!({"type": "json_schema", "json_schema": inner})
            }
        };
        value.serialize(serializer)
    }
}

#[cfg(feature = "schema")]
mod schema {
    use super::{FunctionCallChoice, ResponseFormat, ToolChoice};
    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    impl JsonSchema for ToolChoice {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "ToolChoice".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({
                "description": "May, must or must not the model call a tool?",
                "anyOf": [{"enum": ["none", "auto", "required"]}, {"type": "object"}],
            })
        }
    }

    impl JsonSchema for FunctionCallChoice {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "FunctionCallChoice".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({
                "description": "The old form of ToolChoice",
                "anyOf": [{"enum": ["none", "auto"]}, {"type": "object", "required": ["name"]}],
            })
        }
    }

    impl JsonSchema for ResponseFormat {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "ResponseFormat".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({
                "description": "What form the answer must have",
                "type": "object",
                "required": ["type"],
                "properties": {
                    "type": {"enum": ["text", "json_object", "json_schema"]},
                    "schema": {"description": "JSON Schema, with type json_object"},
                    "json_schema": {
                        "type": "object",
                        "required": ["schema"],
                        "properties": {
                            "name": {"type": "string"},
                            "schema": {},
                            "strict": {"type": "boolean"},
                            "description": {"type": "string"},
                        },
                    },
                },
            })
        }
    }
}
