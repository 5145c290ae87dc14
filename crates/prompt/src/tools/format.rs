//! How a model writes tool calls.

use serde_json::Value;

/// A piece of the text around a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// This text.
    Text(String),
    /// The place of the call in its answer: 0, 1, 2.
    Index,
    /// The id of the call.
    Id,
}

/// What a call looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallBody {
    /// A JSON object with the name under one key and the arguments under another.
    Object {
        /// Key of the name.
        name: String,
        /// Key of the arguments.
        arguments: String,
    },
    /// A JSON object whose only key is the name.
    Keyed,
    /// The name, then the arguments as JSON.
    Named,
    /// The name, then each argument between tags.
    Tagged(Tags),
    /// The name, then an object with bare keys and quotes of its own.
    Bare {
        /// What stands before and behind a string.
        quote: String,
    },
    /// A call as Python writes it.
    Python,
    /// The name in a line of its own; text for the reader is addressed to `all`.
    Recipient,
    /// A message whose header says to whom it goes, see [`super::harmony`].
    Harmony,
}

/// The marks around tagged arguments, as their template writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tags {
    /// Before a key.
    pub key_open: String,
    /// Between a key and a string.
    pub before_string: String,
    /// Between a key and any other value.
    pub before_other: String,
    /// Behind a value.
    pub value_close: String,
}

/// The call format of one chat template: how calls are written, read and held to.
///
/// A text with calls is `open call (separator call)* close`, a call is `before name between arguments after`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFormat {
    /// Once before the first call.
    pub(crate) open: String,
    /// Once behind the last call; what ends the turn is not part of it.
    pub(crate) close: String,
    /// Between two calls.
    pub(crate) separator: String,
    pub(crate) before: Vec<Part>,
    pub(crate) between: Vec<Part>,
    pub(crate) after: Vec<Part>,
    pub(crate) body: CallBody,
    /// The template has no place for a second call in a turn.
    pub(crate) single: bool,
    /// Marks that end a turn or wrap its text; they are no text.
    pub(crate) noise: Vec<String>,
}

impl CallFormat {
    /// Calls as Hermes models write them: also what a model without a format of its own is told to write.
    pub(crate) fn hermes() -> Self {
        Self {
            open: String::new(),
            close: String::new(),
            separator: "\n".into(),
            before: text("<tool_call>\n{\"name\": \""),
            between: text("\", \"arguments\": "),
            after: text("}\n</tool_call>"),
            body: CallBody::Object { name: "name".into(), arguments: "arguments".into() },
            single: false,
            noise: Vec::new(),
        }
    }

    /// A JSON list of calls behind a mark.
    pub(crate) fn list(open: &str, close: &str) -> Self {
        Self {
            open: format!("{open}["),
            close: format!("]{close}"),
            separator: ", ".into(),
            before: text("{\"name\": \""),
            after: text("}"),
            ..Self::hermes()
        }
    }

    /// A list of calls in Python between two marks, as LFM2 models write it.
    pub(crate) fn python(open: &str, close: &str) -> Self {
        Self {
            open: format!("{open}["),
            close: format!("]{close}"),
            separator: ", ".into(),
            before: Vec::new(),
            between: text("("),
            after: text(")"),
            body: CallBody::Python,
            ..Self::hermes()
        }
    }

    /// Calls as Kimi models write them; some of their templates name a function by the id of its call.
    pub(crate) fn kimi() -> Self {
        Self {
            open: "<|tool_calls_section_begin|>".into(),
            close: "<|tool_calls_section_end|>".into(),
            separator: String::new(),
            before: text("<|tool_call_begin|>functions."),
            between: vec![Part::Text(":".into()), Part::Index, Part::Text("<|tool_call_argument_begin|>".into())],
            after: text("<|tool_call_end|>"),
            body: CallBody::Named,
            ..Self::hermes()
        }
    }

    /// Messages to functions, as gpt-oss models write them.
    pub(crate) fn harmony() -> Self {
        Self {
            separator: String::new(),
            before: text("<|channel|>commentary to=functions."),
            between: text(" <|constrain|>json<|message|>"),
            after: Vec::new(),
            body: CallBody::Harmony,
            single: true,
            ..Self::hermes()
        }
    }

    /// Lines that name whom they are for, as functionary 3.2 writes them.
    pub(crate) fn recipient() -> Self {
        Self {
            separator: ">>>".into(),
            before: Vec::new(),
            between: text("\n"),
            after: Vec::new(),
            body: CallBody::Recipient,
            ..Self::hermes()
        }
    }

    /// The same with other keys, where calls are JSON objects with a key for the name.
    pub fn with_keys(&self, name_key: Option<&str>, arguments_key: Option<&str>) -> Self {
        let CallBody::Object { name, arguments } = &self.body else { return self.clone() };
        let quoted = |key: &str| Value::String(key.to_owned()).to_string();
        let renamed = |parts: &[Part], old: &str, new: &str| -> Vec<Part> {
            let rename = |part: &Part| match part {
                Part::Text(text) => Part::Text(text.replace(&quoted(old), &quoted(new))),
                other => other.clone(),
            };
            parts.iter().map(rename).collect()
        };
        let (new_name, new_arguments) = (name_key.unwrap_or(name), arguments_key.unwrap_or(arguments));
        Self {
            before: renamed(&self.before, name, new_name),
            between: renamed(&self.between, arguments, new_arguments),
            body: CallBody::Object { name: new_name.to_owned(), arguments: new_arguments.to_owned() },
            ..self.clone()
        }
    }

    /// A JSON object and nothing else, behind `prefix`.
    pub fn plain_object(prefix: &str) -> Self {
        Self { before: text(&format!("{prefix}{{\"name\": \"")), after: text("}"), ..Self::hermes() }
    }

    /// Has the template a place for several calls in a turn?
    pub fn takes_several(&self) -> bool {
        !self.single
    }

    /// All marks of the format, to see whether control tokens are among them.
    pub fn marks(&self) -> impl Iterator<Item = &str> {
        let parts = self.before.iter().chain(&self.between).chain(&self.after);
        let texts = parts.filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Index | Part::Id => None,
        });
        let tags = match &self.body {
            CallBody::Tagged(tags) => {
                vec![&tags.key_open, &tags.before_string, &tags.before_other, &tags.value_close]
            }
            CallBody::Bare { quote } => vec![quote],
            _ => Vec::new(),
        };
        let around = [self.open.as_str(), &self.close, &self.separator];
        around.into_iter().chain(texts).chain(tags.into_iter().map(String::as_str))
    }

    /// What stands before the name of the first call, placeholders left out.
    pub(crate) fn opening(&self) -> String {
        self.open.clone() + &literal(&self.before)
    }

    /// The text at which a call begins, whatever follows; `None` where only the whole answer can be a call.
    pub fn trigger(&self) -> Option<String> {
        if self.body == CallBody::Recipient {
            return Some(">>>".into());
        }
        let opening = self.opening();
        let json = match self.body {
            CallBody::Object { .. } | CallBody::Keyed => opening.find('{').unwrap_or(opening.len()),
            _ => opening.len(),
        };
        let mark = opening[..json].trim().trim_end_matches('[').trim_end();
        (!mark.is_empty()).then(|| mark.to_owned())
    }
}

/// One part of plain text, or none.
pub(crate) fn text(text: &str) -> Vec<Part> {
    match text.is_empty() {
        true => Vec::new(),
        false => vec![Part::Text(text.to_owned())],
    }
}

/// The text of parts, placeholders left out.
pub(crate) fn literal(parts: &[Part]) -> String {
    let texts = parts.iter().map(|part| match part {
        Part::Text(text) => text.as_str(),
        Part::Index | Part::Id => "",
    });
    texts.collect()
}

/// Types that a schema allows, by JSON Schema's names; `None` where it does not say.
pub(crate) fn types_of<'s>(schema: &'s Value, root: &'s Value) -> Option<Vec<&'s str>> {
    types_within(schema, root, 8)
}

fn types_within<'s>(schema: &'s Value, root: &'s Value, depth: usize) -> Option<Vec<&'s str>> {
    let below = depth.checked_sub(1)?;
    let schema = resolved(schema, root);
    if let Some(constant) = schema.get("const") {
        return Some(vec![type_name(constant)]);
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return Some(values.iter().map(type_name).collect());
    }
    match schema.get("type") {
        Some(Value::String(name)) => return Some(vec![name]),
        Some(Value::Array(names)) => return Some(names.iter().filter_map(Value::as_str).collect()),
        _ => {}
    }
    let choices = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(*key)?.as_array())?;
    let types: Option<Vec<Vec<&str>>> = choices.iter().map(|choice| types_within(choice, root, below)).collect();
    Some(types?.concat())
}

/// What a reference inside the same schema stands for.
pub(crate) fn resolved<'s>(schema: &'s Value, root: &'s Value) -> &'s Value {
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
    target.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
