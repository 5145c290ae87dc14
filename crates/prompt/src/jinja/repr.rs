//! How values print: Python's `str`, `repr` and `json.dumps`.

use std::cmp::Ordering;

use super::budget::Budget;
use super::ops;
use super::text::{Origin, Text, TextBuilder};
use super::value::{Dict, Fault, Key, Outcome, SeqKind, Value, fail};

/// `str(value)`. A string comes back as it is.
pub(crate) fn to_text(value: &Value, budget: &Budget) -> Outcome<Text> {
    match value {
        Value::Str(text) => Ok(text.clone()),
        Value::Undefined(_) => Ok(Text::template("")),
        _ => {
            let mut out = TextBuilder::new();
            write_repr(value, budget, &mut out)?;
            Ok(out.finish())
        }
    }
}

/// `repr(value)`.
pub(crate) fn repr(value: &Value, budget: &Budget) -> Outcome<Text> {
    let mut out = TextBuilder::new();
    write_repr(value, budget, &mut out)?;
    Ok(out.finish())
}

/// Printed numbers, constants and the marks of containers count as the client's, since they print its data or what was
/// computed from it: they never make a control token.
const MARKS: Origin = Origin::Client;

fn write_repr(value: &Value, budget: &Budget, out: &mut TextBuilder) -> Outcome<()> {
    budget.text(out.len() / 64)?;
    match value {
        Value::Undefined(_) => out.push_str("Undefined", MARKS),
        Value::None => out.push_str("None", MARKS),
        Value::Bool(value) => out.push_str(if *value { "True" } else { "False" }, MARKS),
        Value::Int(value) => out.push_str(&value.to_string(), MARKS),
        Value::Float(value) => out.push_str(&float_repr(*value), MARKS),
        Value::Str(text) => {
            if text.markup {
                out.push_str("Markup(", MARKS);
            }
            write_str_repr(text, out);
            if text.markup {
                out.push_str(")", MARKS);
            }
        }
        Value::Seq(kind, items) => write_seq_repr(*kind, items, budget, out)?,
        Value::Dict(entries) => {
            out.push_str("{", MARKS);
            for (idx, (key, item)) in entries.values().enumerate() {
                if idx > 0 {
                    out.push_str(", ", MARKS);
                }
                write_repr(key, budget, out)?;
                out.push_str(": ", MARKS);
                write_repr(item, budget, out)?;
            }
            out.push_str("}", MARKS);
        }
        Value::Generator(_)
        | Value::Namespace(_)
        | Value::Macro(_)
        | Value::Loop(_)
        | Value::Helper(_)
        | Value::Function(_)
        | Value::Method(_) => out.push_str(&format!("<{} object>", value.type_name()), MARKS),
    }
    Ok(())
}

/// `pprint.pformat(value)` on one line, however long: dictionaries sorted, texts as `repr` prints them.
pub(crate) fn pretty(value: &Value, budget: &Budget) -> Outcome<Text> {
    repr(&key_sorted(value, budget)?, budget)
}

fn key_sorted(value: &Value, budget: &Budget) -> Outcome<Value> {
    budget.charge(1)?;
    match value {
        Value::Seq(kind @ (SeqKind::List | SeqKind::Tuple), items) => {
            let items = items.iter().map(|item| key_sorted(item, budget)).collect::<Outcome<Vec<Value>>>()?;
            Ok(Value::Seq(*kind, items.into()))
        }
        Value::Dict(entries) => {
            let mut pairs = Vec::with_capacity(entries.len());
            for (key, (name, item)) in entries.iter() {
                pairs.push((key.clone(), (name.clone(), key_sorted(item, budget)?)));
            }
            let less = |(_, (a, _)): &(Key, (Value, Value)), (_, (b, _)): &(Key, (Value, Value))| match ops::compare(
                a, b, "<", budget,
            ) {
                Ok(order) => Ok(order == Some(Ordering::Less)),
                Err(Fault::Failed(_)) => Ok(a.type_name() < b.type_name()),
                Err(fault) => Err(fault),
            };
            let sorted: Dict = ops::merge_sort(pairs, &less)?.into_iter().collect();
            Ok(Value::Dict(sorted.into()))
        }
        other => Ok(other.clone()),
    }
}

fn write_seq_repr(kind: SeqKind, items: &[Value], budget: &Budget, out: &mut TextBuilder) -> Outcome<()> {
    let (open, close) = match kind {
        SeqKind::List => ("[", "]"),
        SeqKind::Tuple if items.len() == 1 => ("(", ",)"),
        SeqKind::Tuple => ("(", ")"),
        SeqKind::Keys => ("dict_keys([", "])"),
        SeqKind::Values => ("dict_values([", "])"),
        SeqKind::Items => ("dict_items([", "])"),
        SeqKind::Range { start, stop, step: 1 } => {
            out.push_str(&format!("range({start}, {stop})"), MARKS);
            return Ok(());
        }
        SeqKind::Range { start, stop, step } => {
            out.push_str(&format!("range({start}, {stop}, {step})"), MARKS);
            return Ok(());
        }
    };
    out.push_str(open, MARKS);
    for (idx, item) in items.iter().enumerate() {
        if idx > 0 {
            out.push_str(", ", MARKS);
        }
        write_repr(item, budget, out)?;
    }
    out.push_str(close, MARKS);
    Ok(())
}

fn write_str_repr(text: &Text, out: &mut TextBuilder) {
    let raw = text.as_str();
    let quote = if raw.contains('\'') && !raw.contains('"') { '"' } else { '\'' };
    let mark = if quote == '"' { "\"" } else { "'" };
    out.push_str(mark, MARKS);
    for (range, origin) in text.runs_in(0..text.len()) {
        let mut escaped = String::with_capacity(range.len());
        for c in raw[range].chars() {
            match c {
                '\\' => escaped.push_str("\\\\"),
                '\n' => escaped.push_str("\\n"),
                '\r' => escaped.push_str("\\r"),
                '\t' => escaped.push_str("\\t"),
                c if c == quote => {
                    escaped.push('\\');
                    escaped.push(c);
                }
                c if is_printable(c) => escaped.push(c),
                c if (c as u32) < 0x100 => escaped.push_str(&format!("\\x{:02x}", c as u32)),
                c if (c as u32) < 0x10000 => escaped.push_str(&format!("\\u{:04x}", c as u32)),
                c => escaped.push_str(&format!("\\U{:08x}", c as u32)),
            }
        }
        out.push_str(&escaped, origin);
    }
    out.push_str(mark, MARKS);
}

/// `str.isprintable`, for the characters that occur: controls, separators, surrogates-in-waiting and private use are not.
fn is_printable(c: char) -> bool {
    c == ' '
        || !(c.is_control()
            || c.is_whitespace()
            || matches!(c as u32, 0xAD | 0x600..=0x605 | 0x61C | 0x6DD | 0x180E | 0x200B..=0x200F | 0x202A..=0x202E
                | 0x2060..=0x206F | 0xE000..=0xF8FF | 0xFEFF | 0xFFF9..=0xFFFB | 0xFFFE..=0xFFFF | 0xE0000..=0x10FFFF))
}

/// `repr(float)`.
pub(crate) fn float_repr(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// How `json.dumps` lays out its result.
#[derive(Debug, Clone)]
pub(crate) struct JsonStyle {
    pub ensure_ascii: bool,
    /// One level of indentation; none for a single line.
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
}

/// `json.dumps(value)`.
pub(crate) fn to_json(value: &Value, style: &JsonStyle, budget: &Budget) -> Outcome<Text> {
    let mut out = TextBuilder::new();
    write_json(value, style, 0, budget, &mut out)?;
    Ok(out.finish())
}

fn write_json(value: &Value, style: &JsonStyle, level: usize, budget: &Budget, out: &mut TextBuilder) -> Outcome<()> {
    budget.text(out.len() / 64)?;
    match value {
        Value::None => out.push_str("null", MARKS),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }, MARKS),
        Value::Int(value) => out.push_str(&value.to_string(), MARKS),
        Value::Float(value) => out.push_str(&json_float(*value), MARKS),
        Value::Str(text) => write_json_str(text, style.ensure_ascii, out),
        Value::Seq(SeqKind::List | SeqKind::Tuple, items) => {
            if items.is_empty() {
                out.push_str("[]", MARKS);
                return Ok(());
            }
            out.push_str("[", MARKS);
            for (idx, item) in items.iter().enumerate() {
                between(style, idx, level + 1, out);
                write_json(item, style, level + 1, budget, out)?;
            }
            close(style, level, "]", out);
        }
        Value::Dict(entries) => {
            if entries.is_empty() {
                out.push_str("{}", MARKS);
                return Ok(());
            }
            let mut sorted: Vec<(&Key, &(Value, Value))> = entries.iter().collect();
            if style.sort_keys {
                sort_by_key(&mut sorted)?;
            }
            out.push_str("{", MARKS);
            for (idx, (_, (key, item))) in sorted.into_iter().enumerate() {
                between(style, idx, level + 1, out);
                write_json_key(key, style, out)?;
                out.push_str(&style.key_separator, MARKS);
                write_json(item, style, level + 1, budget, out)?;
            }
            close(style, level, "}", out);
        }
        other => return fail(format!("Object of type {} is not JSON serializable", other.type_name())),
    }
    Ok(())
}

fn sort_by_key(entries: &mut [(&Key, &(Value, Value))]) -> Outcome<()> {
    let all_strings = entries.iter().all(|(key, _)| matches!(key, Key::Str(_)));
    let all_ints = entries.iter().all(|(key, _)| matches!(key, Key::Int(_)));
    if !all_strings && !all_ints {
        return fail("'<' not supported between instances of the keys");
    }
    entries.sort_by(|(a, _), (b, _)| match (a, b) {
        (Key::Str(a), Key::Str(b)) => a.cmp(b),
        (Key::Int(a), Key::Int(b)) => a.cmp(b),
        _ => std::cmp::Ordering::Equal,
    });
    Ok(())
}

fn write_json_key(key: &Value, style: &JsonStyle, out: &mut TextBuilder) -> Outcome<()> {
    let plain = match key {
        Value::Str(text) => {
            write_json_str(text, style.ensure_ascii, out);
            return Ok(());
        }
        Value::None => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => json_float(*value),
        other => {
            let found = other.type_name();
            return fail(format!("keys must be str, int, float, bool or None, not {found}"));
        }
    };
    out.push_str(&format!("\"{plain}\""), MARKS);
    Ok(())
}

fn json_float(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else {
        float_repr(value)
    }
}

fn between(style: &JsonStyle, idx: usize, level: usize, out: &mut TextBuilder) {
    if idx > 0 {
        out.push_str(&style.item_separator, MARKS);
    }
    new_line(style, level, out);
}

fn close(style: &JsonStyle, level: usize, mark: &str, out: &mut TextBuilder) {
    new_line(style, level, out);
    out.push_str(mark, MARKS);
}

fn new_line(style: &JsonStyle, level: usize, out: &mut TextBuilder) {
    if let Some(indent) = &style.indent {
        out.push_str("\n", MARKS);
        for _ in 0..level {
            out.push_str(indent, MARKS);
        }
    }
}

fn write_json_str(text: &Text, ensure_ascii: bool, out: &mut TextBuilder) {
    out.push_str("\"", MARKS);
    for (range, origin) in text.runs_in(0..text.len()) {
        let run = &text.as_str()[range];
        let mut escaped = String::with_capacity(run.len());
        for c in run.chars() {
            match c {
                '"' => escaped.push_str("\\\""),
                '\\' => escaped.push_str("\\\\"),
                '\n' => escaped.push_str("\\n"),
                '\r' => escaped.push_str("\\r"),
                '\t' => escaped.push_str("\\t"),
                '\x08' => escaped.push_str("\\b"),
                '\x0c' => escaped.push_str("\\f"),
                c if (c as u32) < 0x20 => escaped.push_str(&format!("\\u{:04x}", c as u32)),
                c if ensure_ascii && !c.is_ascii() => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        escaped.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => escaped.push(c),
            }
        }
        out.push_str(&escaped, origin);
    }
    out.push_str("\"", MARKS);
}
