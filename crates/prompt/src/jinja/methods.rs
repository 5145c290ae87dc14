//! Methods of Python's strings, dictionaries, lists and numbers that a sandboxed template may call.

use std::sync::Arc;

use super::budget::Budget;
use super::format::pad_both;
use super::ops::{equal, iterate, join};
use super::text::{Text, TextBuilder, is_space};
use super::value::{Outcome, SeqKind, Value, dict_get, fail};

/// Arguments of a call, evaluated.
#[derive(Debug, Default, Clone)]
pub(crate) struct Args {
    pub positional: Vec<Value>,
    pub named: Vec<(Arc<str>, Value)>,
}

impl Args {
    /// The argument at `place` or called `name`.
    pub fn get(&self, place: usize, name: &str) -> Option<&Value> {
        self.positional
            .get(place)
            .or_else(|| self.named.iter().find(|(found, _)| **found == *name).map(|(_, value)| value))
    }

    /// As `get`, with an explicit `None` the same as absent.
    pub fn some(&self, place: usize, name: &str) -> Option<&Value> {
        self.get(place, name).filter(|value| !matches!(value, Value::None))
    }

    pub fn text(&self, place: usize, name: &str) -> Outcome<Option<&Text>> {
        match self.some(place, name) {
            None => Ok(None),
            Some(Value::Str(text)) => Ok(Some(text)),
            Some(other) => fail(format!("`{name}` must be str, not {}", other.type_name())),
        }
    }

    pub fn int(&self, place: usize, name: &str) -> Outcome<Option<i128>> {
        match self.some(place, name) {
            None => Ok(None),
            Some(value) => match value.as_int() {
                Some(value) => Ok(Some(value)),
                None => fail(format!("'{}' object cannot be interpreted as an integer", value.type_name())),
            },
        }
    }

    pub fn flag(&self, place: usize, name: &str, default: bool) -> bool {
        self.get(place, name).map_or(default, Value::truth)
    }

    fn required(&self, method: &str) -> Outcome<&Text> {
        match self.positional.first() {
            Some(Value::Str(text)) => Ok(text),
            Some(other) => fail(format!("{method}() argument must be str, not {}", other.type_name())),
            None => fail(format!("{method}() takes at least one argument")),
        }
    }
}

const STR_METHODS: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];
const DICT_METHODS: &[&str] =
    &["clear", "copy", "fromkeys", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"];
const LIST_METHODS: &[&str] =
    &["append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"];
const NUMBER_METHODS: &[&str] = &["is_integer", "bit_length", "conjugate"];
/// Methods that jinja2's immutable sandbox withholds.
const MUTATING: &[&str] =
    &["append", "clear", "extend", "insert", "pop", "popitem", "remove", "reverse", "setdefault", "sort", "update"];

/// What a Python attribute lookup of a method finds.
pub(crate) enum Lookup {
    Missing,
    Method,
    /// The sandbox refuses it.
    Unsafe,
}

/// Has a value's Python type such an attribute?
pub(crate) fn lookup(value: &Value, name: &str) -> Lookup {
    let methods: &[&str] = match value {
        Value::Str(_) => STR_METHODS,
        Value::Dict(_) => DICT_METHODS,
        Value::Seq(SeqKind::List, _) => LIST_METHODS,
        Value::Seq(..) => &["count", "index"],
        Value::Int(_) | Value::Float(_) | Value::Bool(_) => NUMBER_METHODS,
        _ => &[],
    };
    let mutable = matches!(value, Value::Dict(_) | Value::Seq(SeqKind::List, _));
    if name.starts_with("__") && name.ends_with("__") && name.len() > 4 {
        return if is_dunder(value, name) { Lookup::Unsafe } else { Lookup::Missing };
    }
    if !methods.contains(&name) {
        Lookup::Missing
    } else if mutable && MUTATING.contains(&name) {
        Lookup::Unsafe
    } else {
        Lookup::Method
    }
}

fn is_dunder(value: &Value, name: &str) -> bool {
    matches!(name, "__class__" | "__doc__" | "__init__" | "__eq__" | "__hash__" | "__repr__" | "__str__")
        || (matches!(value, Value::Str(_) | Value::Dict(_) | Value::Seq(..))
            && matches!(name, "__len__" | "__getitem__" | "__iter__" | "__contains__"))
}

/// Calls a method of a dictionary, list or number.
pub(crate) fn call_container(receiver: &Value, name: &str, args: &Args, budget: &Budget) -> Outcome<Value> {
    match (receiver, name) {
        (Value::Dict(entries), "get") => {
            let Some(key) = args.positional.first() else { return fail("get expected at least 1 argument, got 0") };
            let found = entries.get(&key.key()?).map(|(_, value)| value.clone());
            Ok(found.or_else(|| args.positional.get(1).cloned()).unwrap_or(Value::None))
        }
        (Value::Dict(entries), "keys") => {
            budget.charge(entries.len())?;
            Ok(Value::Seq(SeqKind::Keys, entries.values().map(|(key, _)| key.clone()).collect::<Vec<_>>().into()))
        }
        (Value::Dict(entries), "values") => {
            budget.charge(entries.len())?;
            Ok(Value::Seq(SeqKind::Values, entries.values().map(|(_, item)| item.clone()).collect::<Vec<_>>().into()))
        }
        (Value::Dict(entries), "items") => {
            budget.charge(entries.len() * 2)?;
            let pair = |(key, item): &(Value, Value)| Value::tuple(vec![key.clone(), item.clone()]);
            Ok(Value::Seq(SeqKind::Items, entries.values().map(pair).collect::<Vec<_>>().into()))
        }
        (Value::Dict(_) | Value::Seq(..), "copy") => Ok(receiver.clone()),
        (Value::Seq(_, items), "count" | "index") => {
            let Some(wanted) = args.positional.first() else { return fail(format!("{name} expected an argument")) };
            let mut count = 0;
            for (idx, item) in items.iter().enumerate() {
                if equal(item, wanted, budget)? {
                    if name == "index" {
                        return Ok(Value::Int(idx as i128));
                    }
                    count += 1;
                }
            }
            if name == "index" { fail("the value is not in the list") } else { Ok(Value::Int(count)) }
        }
        (Value::Float(value), "is_integer") => Ok(Value::Bool(value.fract() == 0.0)),
        (Value::Int(_) | Value::Bool(_), "is_integer") => Ok(Value::Bool(true)),
        (Value::Int(value), "bit_length") => Ok(Value::Int((128 - value.unsigned_abs().leading_zeros()).into())),
        (other, name) => fail(format!("'{}.{name}' cannot be called from a template", other.type_name())),
    }
}

/// Calls a method of a string, but for `format`, which needs the interpreter.
pub(crate) fn call_str(text: &Text, name: &str, args: &Args, budget: &Budget) -> Outcome<Value> {
    budget.text(text.len())?;
    let raw = text.as_str();
    let result = match name {
        "upper" => text.map_runs(str::to_uppercase),
        "lower" => text.map_runs(str::to_lowercase),
        "casefold" => text.map_runs(case_fold),
        "capitalize" => capitalize(text),
        "title" => title(text, |c| c.is_alphabetic()),
        "swapcase" => text.map_runs(swap_case),
        "strip" | "lstrip" | "rstrip" => strip(text, name, args.text(0, "chars")?),
        "replace" => replace_method(text, args, budget)?,
        "removeprefix" => text.slice_of(raw.strip_prefix(args.required(name)?.as_str()).unwrap_or(raw)),
        "removesuffix" => text.slice_of(raw.strip_suffix(args.required(name)?.as_str()).unwrap_or(raw)),
        "center" | "ljust" | "rjust" | "zfill" => justify(text, name, args, budget)?,
        "join" => join_method(text, args, budget)?,
        "expandtabs" => expand_tabs(text, args.int(0, "tabsize")?.unwrap_or(8), budget)?,
        "split" | "rsplit" => return split(text, name == "rsplit", args, budget),
        "splitlines" => return Ok(Value::list(split_lines(text, args.flag(0, "keepends", false), budget)?)),
        "partition" | "rpartition" => return partition(text, name == "rpartition", args),
        "startswith" | "endswith" => return affix(text, name == "startswith", args),
        "find" | "rfind" | "index" | "rindex" => return find(text, name, args),
        "count" => {
            let part = args.required(name)?.as_str();
            let count = if part.is_empty() { raw.chars().count() + 1 } else { raw.matches(part).count() };
            return Ok(Value::Int(count as i128));
        }
        _ => {
            return match character_class(raw, name) {
                Some(value) => Ok(Value::Bool(value)),
                None => fail(format!("'str.{name}' cannot be called from a template")),
            };
        }
    };
    Ok(Value::Str(result))
}

fn character_class(raw: &str, name: &str) -> Option<bool> {
    let all = |class: fn(char) -> bool| !raw.is_empty() && raw.chars().all(class);
    let cased = raw.chars().any(|c| c.is_lowercase() || c.is_uppercase());
    Some(match name {
        "isdigit" | "isdecimal" => all(char::is_numeric),
        "isnumeric" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(is_space),
        "isascii" => raw.is_ascii(),
        "isprintable" => !raw.chars().any(char::is_control),
        "islower" => cased && !raw.chars().any(char::is_uppercase),
        "isupper" => cased && !raw.chars().any(char::is_lowercase),
        "istitle" => cased && title(&Text::template(raw), |c| c.is_alphabetic()).as_str() == raw,
        "isidentifier" => {
            raw.starts_with(|c: char| c.is_alphabetic() || c == '_')
                && raw.chars().all(|c| c.is_alphanumeric() || c == '_')
        }
        _ => return None,
    })
}

/// First character upper, the others lower.
pub(crate) fn capitalize(text: &Text) -> Text {
    let first = text.as_str().chars().next().map_or(0, char::len_utf8);
    let mut out = TextBuilder::new();
    out.push(&text.slice(0..first).map_runs(str::to_uppercase));
    out.push(&text.slice(first..text.len()).map_runs(str::to_lowercase));
    out.finish().with_markup(text.markup)
}

/// Upper after a character outside words, lower inside them.
pub(crate) fn title(text: &Text, in_word: impl Fn(char) -> bool) -> Text {
    let mut out = TextBuilder::new();
    let mut inside = false;
    for (at, c) in text.as_str().char_indices() {
        let piece = text.slice(at..at + c.len_utf8());
        let mapped = piece.map_runs(|run| if inside { run.to_lowercase() } else { run.to_uppercase() });
        out.push(&mapped);
        inside = in_word(c);
    }
    out.finish().with_markup(text.markup)
}

fn case_fold(run: &str) -> String {
    run.chars()
        .flat_map(char::to_lowercase)
        .flat_map(|c| if c == 'ı' { vec![c] } else { c.to_uppercase().flat_map(char::to_lowercase).collect() })
        .collect()
}

fn expand_tabs(text: &Text, size: i128, budget: &Budget) -> Outcome<Text> {
    let size = usize::try_from(size.max(0)).unwrap_or(usize::MAX);
    let tabs = text.as_str().matches('\t').count();
    budget.text(text.len().saturating_add(tabs.saturating_mul(size)))?;
    let mut out = TextBuilder::new();
    let mut column = 0;
    for (at, c) in text.as_str().char_indices() {
        if c == '\t' {
            let spaces = size.saturating_sub(column % size.max(1));
            out.push(&Text::template(" ".repeat(spaces)));
            column += spaces;
            continue;
        }
        out.push_range(text, at..at + c.len_utf8());
        column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
    }
    Ok(out.finish().with_markup(text.markup))
}

fn swap_case(run: &str) -> String {
    run.chars()
        .flat_map(|c| if c.is_uppercase() { c.to_lowercase().collect::<Vec<_>>() } else { c.to_uppercase().collect() })
        .collect()
}

/// `strip`, `lstrip` and `rstrip`, of white space or of the characters of `chars`.
pub(crate) fn strip(text: &Text, side: &str, chars: Option<&Text>) -> Text {
    let strips = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.as_str().contains(c));
    let raw = text.as_str();
    text.slice_of(match side {
        "lstrip" => raw.trim_start_matches(strips),
        "rstrip" => raw.trim_end_matches(strips),
        _ => raw.trim_matches(strips),
    })
}

fn replace_method(text: &Text, args: &Args, budget: &Budget) -> Outcome<Text> {
    let old = args.required("replace")?;
    let Some(new) = args.text(1, "new")? else { return fail("replace expected at least 2 arguments") };
    replace(text, old, new, args.int(2, "count")?, budget)
}

/// `text.replace(old, new, count)`; a negative count is no limit.
pub(crate) fn replace(text: &Text, old: &Text, new: &Text, count: Option<i128>, budget: &Budget) -> Outcome<Text> {
    let limit = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let raw = text.as_str();
    let places: Vec<usize> = if old.is_empty() {
        let all = raw.char_indices().map(|(at, _)| at).chain(std::iter::once(raw.len()));
        all.take(limit).collect()
    } else {
        raw.match_indices(old.as_str()).map(|(at, _)| at).take(limit).collect()
    };
    budget.text(text.len().saturating_add(places.len().saturating_mul(new.len())))?;
    let mut out = TextBuilder::new();
    let mut from = 0;
    for at in places {
        out.push_range(text, from..at);
        out.push(new);
        from = at + old.len();
    }
    out.push_range(text, from..raw.len());
    Ok(out.finish().with_markup(text.markup))
}

fn justify(text: &Text, name: &str, args: &Args, budget: &Budget) -> Outcome<Text> {
    let width = usize::try_from(args.int(0, "width")?.unwrap_or(0)).unwrap_or(0);
    let fill = args.text(1, "fillchar")?.and_then(|fill| fill.as_str().chars().next()).unwrap_or(' ');
    let missing = width.saturating_sub(text.as_str().chars().count());
    budget.text(text.len().saturating_add(missing))?;
    Ok(match name {
        "ljust" => pad_both(text, fill, 0, missing),
        "rjust" => pad_both(text, fill, missing, 0),
        "zfill" => {
            let sign = usize::from(text.as_str().starts_with(['+', '-']));
            let mut out = TextBuilder::new();
            out.push_range(text, 0..sign);
            out.push(&pad_both(&text.slice(sign..text.len()), '0', missing, 0));
            out.finish()
        }
        _ => {
            let before = missing / 2 + (missing & width & 1);
            pad_both(text, fill, before, missing - before)
        }
    })
}

fn join_method(separator: &Text, args: &Args, budget: &Budget) -> Outcome<Text> {
    let Some(items) = args.positional.first() else { return fail("join() takes exactly one argument") };
    let mut texts = Vec::new();
    for (idx, item) in iterate(items, budget)?.into_iter().enumerate() {
        let Value::Str(text) = item else {
            return fail(format!("sequence item {idx}: expected str instance, {} found", item.type_name()));
        };
        if idx > 0 {
            texts.push(separator.clone());
        }
        texts.push(text);
    }
    join(&texts, budget)
}

fn split(text: &Text, from_right: bool, args: &Args, budget: &Budget) -> Outcome<Value> {
    let limit = args.int(1, "maxsplit")?.and_then(|count| usize::try_from(count).ok());
    let raw = text.as_str();
    let parts: Vec<&str> = match args.text(0, "sep")? {
        Some(separator) if separator.is_empty() => return fail("empty separator"),
        Some(separator) => {
            let separator = separator.as_str();
            match (from_right, limit) {
                (false, None) | (true, None) => raw.split(separator).collect(),
                (false, Some(limit)) => raw.splitn(limit.saturating_add(1), separator).collect(),
                (true, Some(limit)) => {
                    let mut parts: Vec<&str> = raw.rsplitn(limit.saturating_add(1), separator).collect();
                    parts.reverse();
                    parts
                }
            }
        }
        None => split_space(raw, from_right, limit.unwrap_or(usize::MAX)),
    };
    budget.charge(parts.len() * 2)?;
    Ok(Value::list(parts.into_iter().map(|part| Value::Str(text.slice_of(part))).collect()))
}

fn split_space(raw: &str, from_right: bool, limit: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = raw;
    if from_right {
        rest = rest.trim_end_matches(is_space);
        while !rest.is_empty() {
            let cut = match rest.rfind(is_space) {
                Some(at) if parts.len() < limit => at + rest[at..].chars().next().map_or(1, char::len_utf8),
                _ => 0,
            };
            parts.push(&rest[cut..]);
            rest = rest[..cut].trim_end_matches(is_space);
        }
        parts.reverse();
        return parts;
    }
    rest = rest.trim_start_matches(is_space);
    while !rest.is_empty() {
        let cut = if parts.len() < limit { rest.find(is_space).unwrap_or(rest.len()) } else { rest.len() };
        parts.push(&rest[..cut]);
        rest = rest[cut..].trim_start_matches(is_space);
    }
    parts
}

/// `str.splitlines`, at every line end Python knows.
pub(crate) fn split_lines(text: &Text, keep_ends: bool, budget: &Budget) -> Outcome<Vec<Value>> {
    let raw = text.as_str();
    let mut lines = Vec::new();
    let mut start = 0;
    let mut chars = raw.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if !matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}') {
            continue;
        }
        let mut end = at + c.len_utf8();
        if c == '\r' && chars.next_if(|(_, next)| *next == '\n').is_some() {
            end += 1;
        }
        lines.push(Value::Str(text.slice(start..if keep_ends { end } else { at })));
        start = end;
    }
    if start < raw.len() {
        lines.push(Value::Str(text.slice(start..raw.len())));
    }
    budget.charge(lines.len() * 2)?;
    Ok(lines)
}

fn partition(text: &Text, from_right: bool, args: &Args) -> Outcome<Value> {
    let separator = args.required("partition")?;
    let raw = text.as_str();
    let at = if from_right { raw.rfind(separator.as_str()) } else { raw.find(separator.as_str()) };
    let empty = Text::template("");
    let parts = match at {
        Some(at) => {
            let end = at + separator.len();
            [text.slice(0..at), text.slice(at..end), text.slice(end..raw.len())]
        }
        None if from_right => [empty.clone(), empty, text.clone()],
        None => [text.clone(), empty.clone(), empty],
    };
    Ok(Value::tuple(parts.into_iter().map(Value::Str).collect()))
}

fn affix(text: &Text, start: bool, args: &Args) -> Outcome<Value> {
    let raw = text.as_str();
    let matches = |affix: &Text| if start { raw.starts_with(affix.as_str()) } else { raw.ends_with(affix.as_str()) };
    match args.positional.first() {
        Some(Value::Str(affix)) => Ok(Value::Bool(matches(affix))),
        Some(Value::Seq(SeqKind::Tuple, items)) => {
            Ok(Value::Bool(items.iter().any(|item| matches!(item, Value::Str(affix) if matches(affix)))))
        }
        other => fail(format!(
            "{} first arg must be str or a tuple of str, not {}",
            if start { "startswith" } else { "endswith" },
            other.map_or("nothing", Value::type_name)
        )),
    }
}

fn find(text: &Text, name: &str, args: &Args) -> Outcome<Value> {
    let part = args.required(name)?.as_str();
    let raw = text.as_str();
    let length = raw.chars().count();
    let bound = |value: Option<i128>, default: usize| match value {
        None => default,
        Some(at) if at < 0 => usize::try_from(at + length as i128).unwrap_or(0),
        Some(at) => usize::try_from(at).unwrap_or(usize::MAX),
    };
    let byte_of = |place: usize| raw.char_indices().nth(place).map_or(raw.len(), |(at, _)| at);
    let (from, to) = (bound(args.int(1, "start")?, 0), bound(args.int(2, "end")?, length));
    let window = if from > length || to < from { None } else { raw.get(byte_of(from)..byte_of(to)) };
    let at = window.and_then(|window| if name.starts_with('r') { window.rfind(part) } else { window.find(part) });
    match at {
        Some(at) => Ok(Value::Int((from + raw[byte_of(from)..byte_of(from) + at].chars().count()) as i128)),
        None if name.ends_with("index") => fail("substring not found"),
        None => Ok(Value::Int(-1)),
    }
}

/// Used by the `get` of templates that index with a default.
pub(crate) fn dict_field(value: &Value, key: &str) -> Option<Value> {
    match value {
        Value::Dict(entries) => dict_get(entries, key).cloned(),
        _ => None,
    }
}
