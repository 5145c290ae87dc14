//! What an answer that calls tools must look like, so that it can be held to it.

use serde_json::{Map, Value, json};

use super::format::{CallBody, CallFormat, Part, Tags, resolved, text, types_of};
use crate::message::Tool;

/// Levels of an argument that are spelled out where a format has no JSON.
const MAX_DEPTH: usize = 8;

/// Arguments of a tool that can all be left out: each may be the first, so their form grows with the square of their
/// number. Those beyond are left out, which they may be.
const MOST_FIRST: usize = 24;

/// The form of a text that holds calls. Control tokens in it are spelled out.
#[derive(Debug, Clone, PartialEq)]
pub enum CallSyntax {
    /// Exactly this.
    Text(String),
    /// Text without control tokens that matches a regular expression.
    Pattern(&'static str),
    /// JSON that satisfies a schema.
    Json {
        /// The schema.
        schema: Value,
        /// Must every keyword be enforced?
        strict: bool,
    },
    /// Text as it is up to and with a mark.
    Until {
        /// The mark.
        end: String,
        /// Least and most characters before it.
        length: (u64, Option<u64>),
    },
    /// One after the other.
    Sequence(Vec<CallSyntax>),
    /// One of these.
    OneOf(Vec<CallSyntax>),
    /// This or nothing.
    Optional(Box<CallSyntax>),
    /// Any number of these, also none.
    Repeated(Box<CallSyntax>),
}

/// How many calls an answer may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallCount {
    /// One.
    One,
    /// One or more, where the format has a place for more.
    Several,
}

/// The text that begins calls in a free answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallTrigger {
    /// The text.
    pub text: String,
    /// Does it begin calls only as the first of the answer?
    pub at_start: bool,
}

/// The form of calls, and what of the tools' schemas it cannot hold them to.
#[derive(Debug, Clone, PartialEq)]
pub struct CallForm {
    /// The form.
    pub syntax: CallSyntax,
    /// By tool: keyword and place, in words.
    pub unenforced: Vec<(String, String)>,
}

impl CallFormat {
    /// Does an answer that must call begin with its reasoning, as part of [`CallFormat::calls`]?
    pub fn calls_hold_reasoning(&self) -> bool {
        self.body == CallBody::Harmony
    }

    /// What begins calls in an answer that may also be text.
    pub fn call_trigger(&self) -> CallTrigger {
        match self.trigger() {
            Some(text) => CallTrigger { text, at_start: false },
            None => CallTrigger { text: self.opening().trim_start().to_owned(), at_start: true },
        }
    }

    /// An answer that is nothing but calls of `tools`.
    pub fn calls(&self, tools: &[Tool], count: CallCount) -> CallForm {
        let mut opening = text(&self.open);
        opening.extend(self.before.iter().cloned());
        let mut form = self.form(opening, tools, count);
        if self.body == CallBody::Harmony {
            let reasoning = ["<|channel|>analysis<|message|>", "<|end|><|start|>assistant"].map(String::from);
            let [open, close] = reasoning.map(CallSyntax::Text);
            let reasoning = CallSyntax::Sequence(vec![open, CallSyntax::Pattern("(?s:.*)"), close]);
            form.syntax = CallSyntax::Sequence(vec![CallSyntax::Optional(Box::new(reasoning)), form.syntax]);
        }
        form
    }

    /// What follows [`CallFormat::call_trigger`].
    pub fn behind_trigger(&self, tools: &[Tool], count: CallCount) -> CallForm {
        let trigger = self.call_trigger().text;
        let mut opening = text(&self.open);
        opening.extend(self.before.iter().cloned());
        if self.body == CallBody::Recipient {
            return self.form(Vec::new(), tools, count);
        }
        // The trigger is the first text of what opens a call, blanks aside.
        let mut left = trigger.len();
        let mut begun = false;
        let mut rest = Vec::new();
        for part in opening {
            match part {
                Part::Text(text) if left > 0 => {
                    let text = if begun { text.as_str() } else { text.trim_start() };
                    begun |= !text.is_empty();
                    let cut = left.min(text.len());
                    left -= cut;
                    rest.extend(super::format::text(&text[cut..]));
                }
                other => rest.push(other),
            }
        }
        self.form(rest, tools, count)
    }

    fn form(&self, opening: Vec<Part>, tools: &[Tool], count: CallCount) -> CallForm {
        let mut unenforced = Vec::new();
        let choices = tools.iter().map(|tool| {
            let mut builder = Builder { tool, unenforced: Vec::new() };
            let arguments = builder.arguments(self);
            unenforced.extend(builder.unenforced.into_iter().map(|what| (tool.name.clone(), what)));
            let mut parts = vec![CallSyntax::Text(written_name(self, &tool.name))];
            parts.extend(self.between.iter().map(part));
            parts.extend(arguments);
            CallSyntax::Sequence(parts)
        });
        let choice = CallSyntax::OneOf(choices.collect());
        let after = self.after.iter().map(part);
        let mut call: Vec<CallSyntax> = opening.iter().map(part).collect();
        call.push(choice.clone());
        call.extend(after.clone());
        if count == CallCount::Several && !self.single {
            let mut next = vec![CallSyntax::Text(self.separator.clone())];
            next.extend(self.before.iter().map(part));
            next.push(choice);
            next.extend(after);
            call.push(CallSyntax::Repeated(Box::new(CallSyntax::Sequence(next))));
        }
        call.push(CallSyntax::Text(self.close.clone()));
        CallForm { syntax: CallSyntax::Sequence(call), unenforced }
    }

    /// Calls of an earlier turn as text, for a template that does not print them.
    pub(crate) fn write<'c>(&self, calls: impl IntoIterator<Item = (&'c str, &'c Value)>) -> String {
        let mut out = self.open.clone();
        for (idx, (name, arguments)) in calls.into_iter().enumerate() {
            if idx > 0 {
                out += &self.separator;
            }
            let written = |parts: &[Part]| -> String {
                let texts = parts.iter().map(|part| match part {
                    Part::Text(text) => text.clone(),
                    Part::Index => idx.to_string(),
                    Part::Id => format!("{idx:09}"),
                });
                texts.collect()
            };
            out += &(written(&self.before) + name + &written(&self.between));
            match (&self.body, arguments) {
                (CallBody::Python, Value::Object(arguments)) => {
                    let pairs: Vec<String> = arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
                    out += &pairs.join(", ");
                }
                (CallBody::Tagged(tags), Value::Object(arguments)) => {
                    for (name, value) in arguments {
                        let (before, value) = match value {
                            Value::String(text) => (&tags.before_string, text.clone()),
                            other => (&tags.before_other, other.to_string()),
                        };
                        out.extend([&tags.key_open, name, before, &value, &tags.value_close].map(String::as_str));
                    }
                }
                (_, arguments) => out += &arguments.to_string(),
            }
            out += &written(&self.after);
        }
        out + &self.close
    }
}

/// A name as it stands in the format: inside a JSON string where it does.
fn written_name(format: &CallFormat, name: &str) -> String {
    match format.body {
        CallBody::Object { .. } | CallBody::Keyed => {
            let quoted = Value::String(name.to_owned()).to_string();
            quoted[1..quoted.len() - 1].to_owned()
        }
        _ => name.to_owned(),
    }
}

fn part(part: &Part) -> CallSyntax {
    match part {
        Part::Text(text) => CallSyntax::Text(text.clone()),
        Part::Index => CallSyntax::Pattern("[0-9]{1,2}"),
        Part::Id => CallSyntax::Pattern("[a-zA-Z0-9]{9}"),
    }
}

/// Makes the form of one tool's arguments.
struct Builder<'t> {
    tool: &'t Tool,
    unenforced: Vec<String>,
}

impl Builder<'_> {
    fn arguments(&mut self, format: &CallFormat) -> Vec<CallSyntax> {
        match &format.body {
            CallBody::Tagged(tags) => {
                let properties = self.properties();
                properties.into_iter().map(|property| self.tagged(tags, property)).collect()
            }
            CallBody::Bare { quote } => {
                let properties = self.properties();
                vec![self.bare_object(quote, properties, MAX_DEPTH)]
            }
            CallBody::Python => {
                let properties = self.properties();
                let pairs = properties.into_iter().map(|property| {
                    let value = self.json(property.schema);
                    let pair = CallSyntax::Sequence(vec![CallSyntax::Text(property.name + "="), value]);
                    (pair, property.required)
                });
                vec![separated(pairs.collect(), ", ")]
            }
            _ => vec![CallSyntax::Json { schema: whole_schema(&self.tool.parameters), strict: self.tool.strict }],
        }
    }

    /// The arguments that are known by name, in the schema's order.
    fn properties(&mut self) -> Vec<Property> {
        let root = &self.tool.parameters;
        properties_of(resolved(root, root))
    }

    fn json(&self, mut schema: Value) -> CallSyntax {
        // References inside point to the whole schema.
        if let (Some(object), Some(root)) = (schema.as_object_mut(), self.tool.parameters.as_object()) {
            for key in ["$defs", "definitions"] {
                if let Some(definitions) = root.get(key) {
                    object.entry(key).or_insert_with(|| definitions.clone());
                }
            }
        }
        CallSyntax::Json { schema, strict: self.tool.strict }
    }

    fn tagged(&mut self, tags: &Tags, property: Property) -> CallSyntax {
        let Property { name, schema, required } = property;
        let root = &self.tool.parameters;
        let schema = resolved(&schema, root).clone();
        let types = types_of(&schema, root);
        let is_text = types.as_ref().is_none_or(|types| types.contains(&"string"));
        let strings = schema.get("enum").and_then(Value::as_array).cloned();
        let constant = schema.get("const").cloned().map(|constant| vec![constant]);
        let key = |before: &str| CallSyntax::Text(tags.key_open.clone() + &name + before);
        let close = || CallSyntax::Text(tags.value_close.clone());
        let argument = match strings.or(constant) {
            Some(values) if is_text => {
                let raw = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let choices = values.iter().map(|value| CallSyntax::Text(raw(value))).collect();
                vec![key(&tags.before_string), CallSyntax::OneOf(choices), close()]
            }
            _ if is_text => {
                self.note_unenforced(&name, &schema, types.as_deref());
                let size = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
                let length = (size("minLength").unwrap_or(0), size("maxLength"));
                let mark = tags.value_close.trim();
                let blanks = &tags.value_close[tags.value_close.trim_end().len()..];
                let until = CallSyntax::Until { end: mark.to_owned(), length };
                vec![key(&tags.before_string), until, CallSyntax::Text(blanks.to_owned())]
            }
            _ => vec![key(&tags.before_other), self.json(schema), close()],
        };
        let argument = CallSyntax::Sequence(argument);
        if required { argument } else { CallSyntax::Optional(Box::new(argument)) }
    }

    /// Text as it is cannot be held to these.
    fn note_unenforced(&mut self, name: &str, schema: &Value, types: Option<&[&str]>) {
        for keyword in ["pattern", "format", "not", "allOf", "if"] {
            if schema.get(keyword).is_some() {
                self.unenforced.push(format!("{keyword} at /properties/{name}, in this model's call format"));
            }
        }
        if types.is_some_and(|types| types.iter().any(|kind| *kind != "string")) {
            self.unenforced.push(format!("type at /properties/{name}, in this model's call format"));
        }
    }

    fn bare_object(&mut self, quote: &str, properties: Vec<Property>, depth: usize) -> CallSyntax {
        let pairs = properties.into_iter().map(|property| {
            let value = self.bare(quote, property.schema, depth);
            (CallSyntax::Sequence(vec![CallSyntax::Text(property.name + ":"), value]), property.required)
        });
        let pairs: Vec<(CallSyntax, bool)> = pairs.collect();
        CallSyntax::Sequence(vec![CallSyntax::Text("{".into()), separated(pairs, ","), CallSyntax::Text("}".into())])
    }

    fn bare(&mut self, quote: &str, schema: Value, depth: usize) -> CallSyntax {
        let root = &self.tool.parameters;
        let schema = resolved(&schema, root).clone();
        let types = types_of(&schema, root);
        let values = schema.get("enum").and_then(Value::as_array);
        if let Some(values) = values {
            let raw = |value: &Value| match value.as_str() {
                Some(text) => format!("{quote}{text}{quote}"),
                None => value.to_string(),
            };
            return CallSyntax::OneOf(values.iter().map(|value| CallSyntax::Text(raw(value))).collect());
        }
        match (types.as_deref(), depth.checked_sub(1)) {
            (Some(["string"]), _) => {
                let size = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
                let length = (size("minLength").unwrap_or(0), size("maxLength"));
                let until = CallSyntax::Until { end: quote.to_owned(), length };
                CallSyntax::Sequence(vec![CallSyntax::Text(quote.to_owned()), until])
            }
            (Some(["object"]), Some(below)) if schema.get("properties").is_some() => {
                let properties = properties_of(&schema);
                self.bare_object(quote, properties, below)
            }
            (Some(["array"]), Some(below)) if schema.get("items").is_some_and(Value::is_object) => {
                let item = self.bare(quote, schema["items"].clone(), below);
                let next = CallSyntax::Sequence(vec![CallSyntax::Text(",".into()), item.clone()]);
                let items = CallSyntax::Sequence(vec![item, CallSyntax::Repeated(Box::new(next))]);
                let (open, close) = (CallSyntax::Text("[".into()), CallSyntax::Text("]".into()));
                CallSyntax::Sequence(vec![open, CallSyntax::Optional(Box::new(items)), close])
            }
            _ => self.json(schema),
        }
    }
}

#[derive(Debug, Clone)]
struct Property {
    name: String,
    schema: Value,
    required: bool,
}

fn properties_of(schema: &Value) -> Vec<Property> {
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let known = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let unknown = required.iter().filter(|name| !known.contains_key(**name)).map(|name| Property {
        name: (*name).to_owned(),
        schema: json!({}),
        required: true,
    });
    let unknown: Vec<Property> = unknown.collect();
    let property = |(name, schema): (String, Value)| {
        let required = required.contains(&name.as_str());
        Property { name, schema, required }
    };
    known.clone().into_iter().map(property).chain(unknown).collect()
}

/// Items with a separator between those that are there, in order; the second of a pair says that it must be.
fn separated(items: Vec<(CallSyntax, bool)>, separator: &str) -> CallSyntax {
    // What must be there comes first, so that the separator is decided soon.
    let (must, may): (Vec<_>, Vec<_>) = items.into_iter().partition(|(_, required)| *required);
    let behind = |item: CallSyntax| CallSyntax::Sequence(vec![CallSyntax::Text(separator.to_owned()), item]);
    let optional = |item: CallSyntax| CallSyntax::Optional(Box::new(behind(item)));
    let most = if must.is_empty() { MOST_FIRST } else { usize::MAX };
    let may: Vec<CallSyntax> = may.into_iter().map(|(item, _)| item).take(most).collect();
    let mut must = must.into_iter().map(|(item, _)| item);
    if let Some(first) = must.next() {
        let rest = must.map(behind).chain(may.into_iter().map(optional));
        return CallSyntax::Sequence(std::iter::once(first).chain(rest).collect());
    }
    let starts = (0..may.len()).map(|from| {
        let rest = may[from + 1..].iter().cloned().map(optional);
        CallSyntax::Sequence(std::iter::once(may[from].clone()).chain(rest).collect())
    });
    match may.is_empty() {
        true => CallSyntax::Text(String::new()),
        false => CallSyntax::Optional(Box::new(CallSyntax::OneOf(starts.collect()))),
    }
}

/// The schema of all arguments: an object. Arguments that it does not name are allowed unless it says otherwise.
fn whole_schema(parameters: &Value) -> Value {
    let Some(parameters) = parameters.as_object() else { return json!({"type": "object"}) };
    let mut schema: Map<String, Value> = parameters.clone();
    if !["type", "allOf", "anyOf", "oneOf", "$ref"].iter().any(|key| schema.contains_key(*key)) {
        schema.insert("type".into(), json!("object"));
    }
    Value::Object(schema)
}
