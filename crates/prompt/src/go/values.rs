//! Between our data and the values of Go templates.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use gotmpl::Value;
use serde_json::Value as Json;

use super::marks::Marks;

/// A map with these entries.
pub(super) fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(Arc::new(entries.into_iter().map(|(key, value)| (Arc::from(key), value)).collect()))
}

/// Text of the operator.
pub(super) fn own(text: &str) -> Value {
    Value::String(text.into())
}

/// JSON that came with a request. Keys that are more than a word are marked like every string: they may spell a control
/// token, while a word must stay one for `index` and `.key` to find it.
pub(super) fn from_json(json: &Json, marks: Marks) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), _, _) => Value::Int(value),
            (_, Some(value), _) => Value::Uint(value),
            (_, _, Some(value)) => Value::Float(value),
            _ => Value::String(marks.put_around(&number.to_string()).into()),
        },
        Json::String(text) => Value::String(marks.put_around(text).into()),
        Json::Array(items) => Value::List(items.iter().map(|item| from_json(item, marks)).collect()),
        Json::Object(entries) => {
            let is_word = |key: &str| key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-' || c == '$');
            let key = |key: &String| match is_word(key) {
                true => Arc::from(key.as_str()),
                false => Arc::from(marks.put_around(key)),
            };
            let entries: BTreeMap<Arc<str>, Value> =
                entries.iter().map(|(name, value)| (key(name), from_json(value, marks))).collect();
            Value::Map(Arc::new(entries))
        }
    }
}

/// Go structs that LocalAI hands to templates: their fields in order, and what they are called in JSON.
const STRUCTS: [&[(&str, &str)]; 3] = [
    &[("Name", "name"), ("Description", "description"), ("Strict", "strict"), ("Parameters", "parameters")],
    &[("Index", "index"), ("ID", "id"), ("Type", "type"), ("FunctionCall", "function")],
    &[("Name", "name"), ("Arguments", "arguments")],
];

/// How JSON is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct JsonStyle {
    /// `<`, `>` and `&` as `\u003c` and so on: what Go does unless told otherwise.
    pub(super) escapes_html: bool,
    /// Two blanks for each level, on lines of their own.
    pub(super) is_pretty: bool,
}

/// `value` as Go's `encoding/json` writes it.
pub(super) fn to_json(value: &Value, style: JsonStyle) -> String {
    let mut out = String::new();
    write_json(&mut out, value, style, 0);
    out
}

fn write_json(out: &mut String, value: &Value, style: JsonStyle, depth: usize) {
    match value {
        Value::Nil | Value::Function(_) => out.push_str("null"),
        Value::Bool(value) => drop(write!(out, "{value}")),
        Value::Int(value) => drop(write!(out, "{value}")),
        Value::Uint(value) => drop(write!(out, "{value}")),
        Value::Float(value) => drop(write!(out, "{value}")),
        Value::String(text) => write_text(out, text, style),
        Value::List(items) => {
            write_all(out, ['[', ']'], items.iter(), style, depth, |out, item| write_json(out, item, style, depth + 1));
        }
        Value::Map(entries) => {
            let is_struct = |fields: &&&[(&str, &str)]| {
                fields.len() == entries.len() && fields.iter().all(|(field, _)| entries.contains_key(*field))
            };
            let pairs: Vec<(&str, &Value)> = match STRUCTS.iter().find(is_struct) {
                Some(fields) => fields
                    .iter()
                    .filter_map(|(field, name)| Some((*name, entries.get(*field)?)))
                    // Few tools say it, and no prompt needs to hear that they do not.
                    .filter(|(name, value)| *name != "strict" || value.is_truthy())
                    .collect(),
                None => entries.iter().map(|(key, value)| (key.as_ref(), value)).collect(),
            };
            write_all(out, ['{', '}'], pairs.into_iter(), style, depth, |out, (key, value)| {
                write_text(out, key, style);
                out.push_str(if style.is_pretty { ": " } else { ":" });
                write_json(out, value, style, depth + 1);
            });
        }
    }
}

fn write_all<T>(
    out: &mut String,
    [open, close]: [char; 2],
    items: impl ExactSizeIterator<Item = T>,
    style: JsonStyle,
    depth: usize,
    mut write_one: impl FnMut(&mut String, T),
) {
    let line = |out: &mut String, depth: usize| {
        if style.is_pretty {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth));
        }
    };
    let is_empty = items.len() == 0;
    out.push(open);
    for (idx, item) in items.enumerate() {
        if idx > 0 {
            out.push(',');
        }
        line(out, depth + 1);
        write_one(out, item);
    }
    if !is_empty {
        line(out, depth);
    }
    out.push(close);
}

fn write_text(out: &mut String, text: &str, style: JsonStyle) {
    let quoted = Json::String(text.to_owned()).to_string();
    for c in quoted.chars() {
        match c {
            '<' | '>' | '&' if style.escapes_html => drop(write!(out, "\\u{:04x}", u32::from(c))),
            '\u{2028}' | '\u{2029}' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
}
