//! The functions of the sprig library that templates of prompts use.
//!
//! Names, orders of arguments and results are sprig's. What reads the environment, the network or random numbers, and
//! what decodes text that a client may have written, is left out: a template that asks for it is refused when it is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::{FuncMap, Template, TemplateError, Value};

use super::values::{JsonStyle, to_json};
use super::{clock, marks};

type Outcome = Result<Value, TemplateError>;
type Function = fn(&Arguments) -> Outcome;

/// Longest text that one call may make, in bytes.
const MAX_MADE: usize = 16 << 20;

/// The arguments of a call, without marks.
struct Arguments(Vec<Value>);

/// Registers every function.
pub(super) fn register(template: Template) -> Template {
    let mut all = FuncMap::new();
    for (name, function) in TABLE.iter().copied() {
        all.insert(name.into(), Arc::new(move |given: &[Value]| unmarked(given, function)));
    }
    // White space stands outside the marks, so trimming it needs no look inside.
    all.insert(
        "trim".into(),
        Arc::new(|given: &[Value]| match given {
            [text] => Ok(Value::String(text.to_string().trim().into())),
            _ => Err(wrong("trim", "one text")),
        }),
    );
    template.funcs(all)
}

/// The language's own functions that are used as the library has them.
const BUILT_IN: [&str; 16] = [
    "and", "call", "ge", "gt", "html", "index", "js", "le", "lt", "not", "or", "print", "printf", "println", "slice",
    "urlquery",
];

/// Is there a function called `name`?
pub(super) fn is_known(name: &str) -> bool {
    name == "trim" || BUILT_IN.contains(&name) || TABLE.iter().any(|(known, _)| *known == name)
}

/// Calls `function` with its arguments as the client wrote them; its result is the client's if one of them was.
fn unmarked(given: &[Value], function: impl Fn(&Arguments) -> Outcome) -> Outcome {
    let Some(marks) = marks::current() else { return function(&Arguments(given.to_vec())) };
    let mut is_client = false;
    let arguments = given.iter().map(|value| {
        each_text(value, &mut |text| {
            let (plain, had_any) = marks.take_from(text);
            is_client |= had_any;
            plain
        })
    });
    let arguments = Arguments(arguments.collect());
    let result = function(&arguments)?;
    Ok(if is_client { each_text(&result, &mut |text| marks.put_around(text)) } else { result })
}

/// `value` with every text in it changed. Keys lose their marks and do not get them back: they are looked up.
fn each_text(value: &Value, change: &mut impl FnMut(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(change(text).into()),
        Value::List(items) => Value::List(items.iter().map(|item| each_text(item, change)).collect()),
        Value::Map(entries) => {
            let entry = |(key, item): (&Arc<str>, &Value)| (Arc::clone(key), each_text(item, change));
            Value::Map(Arc::new(entries.iter().map(entry).collect()))
        }
        Value::Nil | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Float(_) | Value::Function(_) => {
            value.clone()
        }
    }
}

fn wrong(name: &str, expected: &str) -> TemplateError {
    TemplateError::Exec(format!("{name} wants {expected}"))
}

impl Arguments {
    fn at(&self, idx: usize) -> &Value {
        self.0.get(idx).unwrap_or(&Value::Nil)
    }

    fn last(&self) -> &Value {
        self.0.last().unwrap_or(&Value::Nil)
    }

    /// The argument as text, as Go's `strval` sees it.
    fn text(&self, idx: usize) -> String {
        match self.at(idx) {
            Value::String(text) => text.to_string(),
            Value::Nil => String::new(),
            other => other.to_string(),
        }
    }

    fn int(&self, idx: usize) -> i64 {
        to_int(self.at(idx))
    }

    fn list(&self, name: &str, idx: usize) -> Result<Vec<Value>, TemplateError> {
        match self.at(idx) {
            Value::List(items) => Ok(items.to_vec()),
            Value::Nil => Ok(Vec::new()),
            _ => Err(wrong(name, "a list")),
        }
    }

    fn map(&self, name: &str, idx: usize) -> Result<BTreeMap<Arc<str>, Value>, TemplateError> {
        match self.at(idx) {
            Value::Map(entries) => Ok(entries.as_ref().clone()),
            _ => Err(wrong(name, "a dict")),
        }
    }

    fn has(&self, name: &str, count: usize) -> Result<(), TemplateError> {
        match self.0.len() >= count {
            true => Ok(()),
            false => Err(TemplateError::ArgCount { name: name.into(), expected: count, got: self.0.len() }),
        }
    }
}

fn to_int(value: &Value) -> i64 {
    match value {
        Value::Int(value) => *value,
        Value::Uint(value) => i64::try_from(*value).unwrap_or(i64::MAX),
        Value::Float(value) => *value as i64,
        Value::Bool(value) => i64::from(*value),
        Value::String(text) => text.trim().parse().unwrap_or(0),
        Value::Nil | Value::List(_) | Value::Map(_) | Value::Function(_) => 0,
    }
}

fn to_float(value: &Value) -> f64 {
    match value {
        Value::Float(value) => *value,
        Value::String(text) => text.trim().parse().unwrap_or(0.0),
        other => to_int(other) as f64,
    }
}

fn string(text: impl AsRef<str>) -> Outcome {
    Ok(Value::String(text.as_ref().into()))
}

fn list(items: Vec<Value>) -> Outcome {
    Ok(Value::List(items.into()))
}

fn bounded(name: &str, bytes: usize) -> Result<(), TemplateError> {
    match bytes <= MAX_MADE {
        true => Ok(()),
        false => Err(TemplateError::Exec(format!("{name} would make more than {MAX_MADE} bytes"))),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil => "invalid",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Uint(_) => "uint",
        Value::Float(_) => "float64",
        Value::String(_) => "string",
        Value::List(_) => "slice",
        Value::Map(_) => "map",
        Value::Function(_) => "func",
    }
}

fn json(arguments: &Arguments, escapes_html: bool, is_pretty: bool) -> Outcome {
    string(to_json(arguments.at(0), JsonStyle { escapes_html, is_pretty }))
}

fn indented(name: &str, arguments: &Arguments, before: &str) -> Outcome {
    let width = usize::try_from(arguments.int(0)).unwrap_or(0);
    let text = arguments.text(1);
    bounded(name, text.len().saturating_add(width.saturating_mul(text.lines().count() + 1)))?;
    let pad = " ".repeat(width);
    string(format!("{before}{pad}{}", text.replace('\n', &format!("\n{pad}"))))
}

fn title(text: &str, to: fn(char) -> String) -> String {
    let mut at_start = true;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if at_start {
            out.push_str(&to(c));
        } else {
            out.push(c);
        }
        at_start = c.is_whitespace();
    }
    out
}

/// Characters `start..end` of `text`; negative ends mean the whole rest, as in sprig.
fn substr(text: &str, start: i64, end: i64) -> String {
    let n_chars = text.chars().count();
    let start = usize::try_from(start).unwrap_or(0);
    let end = usize::try_from(end).ok().filter(|end| *end <= n_chars).unwrap_or(n_chars);
    text.chars().skip(start).take(end.saturating_sub(start)).collect()
}

fn trunc(text: &str, width: i64) -> String {
    let n_chars = text.chars().count();
    match usize::try_from(width) {
        Ok(width) => text.chars().take(width).collect(),
        Err(_) => {
            let kept = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
            text.chars().skip(n_chars.saturating_sub(kept)).collect()
        }
    }
}

fn joined(values: &[Value], between: &str) -> String {
    let texts: Vec<String> = values.iter().filter(|value| !matches!(value, Value::Nil)).map(Value::to_string).collect();
    texts.join(between)
}

fn quoted(arguments: &Arguments, mark: char) -> Outcome {
    let given = arguments.0.iter().filter(|value| !matches!(value, Value::Nil));
    let texts: Vec<String> = match mark {
        '"' => given.map(|value| format!("{:?}", value.to_string())).collect(),
        _ => given.map(|value| format!("{mark}{value}{mark}")).collect(),
    };
    string(texts.join(" "))
}

fn regex(text: &str) -> Result<regex::Regex, TemplateError> {
    let built = regex::RegexBuilder::new(text).size_limit(1 << 20).build();
    built.map_err(|error| TemplateError::Exec(format!("the regular expression {text:?}: {error}")))
}

fn arithmetic(arguments: &Arguments, name: &str, fold: fn(i64, i64) -> Option<i64>) -> Outcome {
    arguments.has(name, 1)?;
    let numbers: Vec<i64> = arguments.0.iter().map(to_int).collect();
    let result = numbers[1..].iter().try_fold(numbers[0], |sum, number| fold(sum, *number));
    result.map(Value::Int).ok_or_else(|| TemplateError::Exec(format!("{name} of {numbers:?} has no result")))
}

fn until(name: &str, start: i64, end: i64, step: i64) -> Outcome {
    const MOST: i64 = 100_000;
    if step == 0 || (end > start) != (step > 0) {
        return list(Vec::new());
    }
    if end.abs_diff(start) / step.unsigned_abs() > MOST.unsigned_abs() {
        return Err(TemplateError::Exec(format!("{name} would make more than {MOST} numbers")));
    }
    let mut numbers = Vec::new();
    let mut number = start;
    while (step > 0 && number < end) || (step < 0 && number > end) {
        numbers.push(Value::Int(number));
        number = number.saturating_add(step);
    }
    list(numbers)
}

fn round(arguments: &Arguments, to: fn(f64) -> f64) -> Outcome {
    Ok(Value::Float(to(to_float(arguments.at(0)))))
}

fn filtered(arguments: &Arguments, name: &str, keeps: bool) -> Outcome {
    let mut entries = arguments.map(name, 0)?;
    let named: Vec<String> = (1..arguments.0.len()).map(|idx| arguments.text(idx)).collect();
    entries.retain(|key, _| named.iter().any(|name| **name == **key) == keeps);
    Ok(Value::Map(Arc::new(entries)))
}

fn dict(arguments: &Arguments) -> Outcome {
    let pairs = arguments.0.chunks(2);
    let entries = pairs.map(|pair| (Arc::from(pair[0].to_string()), pair.get(1).cloned().unwrap_or(Value::Nil)));
    Ok(Value::Map(Arc::new(entries.collect())))
}

fn merged(arguments: &Arguments) -> Outcome {
    let mut entries = arguments.map("merge", 0)?;
    for idx in 1..arguments.0.len() {
        for (key, value) in arguments.map("merge", idx)? {
            entries.entry(key).or_insert(value);
        }
    }
    Ok(Value::Map(Arc::new(entries)))
}

fn split_map(arguments: &Arguments) -> Outcome {
    let (between, text) = (arguments.text(0), arguments.text(1));
    let parts = text.split(between.as_str());
    let entries = parts.enumerate().map(|(idx, part)| (Arc::from(format!("_{idx}")), Value::String(part.into())));
    Ok(Value::Map(Arc::new(entries.collect())))
}

fn replace_all(arguments: &Arguments) -> Outcome {
    let regex = regex(&arguments.text(0))?;
    let text = arguments.text(1);
    // Go writes the groups `${1}`, as the library does.
    let replaced = regex.replace_all(&text, arguments.text(2).as_str()).into_owned();
    bounded("regexReplaceAll", replaced.len())?;
    string(replaced)
}

/// Go's `eq`: is the first equal to one of the others?
fn equals(arguments: &Arguments) -> Result<bool, TemplateError> {
    arguments.has("eq", 2)?;
    let is_number = |value: &Value| matches!(value, Value::Int(_) | Value::Uint(_) | Value::Float(_));
    let first = arguments.at(0);
    Ok(arguments.0[1..].iter().any(|other| match is_number(first) && is_number(other) {
        true => to_float(first) == to_float(other),
        false => first == other,
    }))
}

fn length(arguments: &Arguments) -> Outcome {
    let length = arguments.at(0).len().ok_or_else(|| wrong("len", "a text, a list or a dict"))?;
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

/// Names and what they do; the order of the arguments is sprig's. The first three are the language's own, which must
/// not see marks.
const TABLE: &[(&str, Function)] = &[
    ("eq", |a| equals(a).map(Value::Bool)),
    ("ne", |a| equals(a).map(|is_equal| Value::Bool(!is_equal))),
    ("len", length),
    ("toJson", |a| json(a, true, false)),
    ("mustToJson", |a| json(a, true, false)),
    ("toRawJson", |a| json(a, false, false)),
    ("mustToRawJson", |a| json(a, false, false)),
    ("toPrettyJson", |a| json(a, true, true)),
    ("mustToPrettyJson", |a| json(a, true, true)),
    ("trimAll", |a| string(a.text(1).trim_matches(|c| a.text(0).contains(c)))),
    ("trimall", |a| string(a.text(1).trim_matches(|c| a.text(0).contains(c)))),
    ("trimPrefix", |a| string(a.text(1).strip_prefix(a.text(0).as_str()).unwrap_or(&a.text(1)))),
    ("trimSuffix", |a| string(a.text(1).strip_suffix(a.text(0).as_str()).unwrap_or(&a.text(1)))),
    ("upper", |a| string(a.text(0).to_uppercase())),
    ("lower", |a| string(a.text(0).to_lowercase())),
    ("title", |a| string(title(&a.text(0), |c| c.to_uppercase().collect()))),
    ("untitle", |a| string(title(&a.text(0), |c| c.to_lowercase().collect()))),
    ("contains", |a| Ok(Value::Bool(a.text(1).contains(a.text(0).as_str())))),
    ("hasPrefix", |a| Ok(Value::Bool(a.text(1).starts_with(a.text(0).as_str())))),
    ("hasSuffix", |a| Ok(Value::Bool(a.text(1).ends_with(a.text(0).as_str())))),
    ("replace", |a| {
        let made = a.text(2).replace(a.text(0).as_str(), &a.text(1));
        bounded("replace", made.len())?;
        string(made)
    }),
    ("repeat", |a| {
        let count = usize::try_from(a.int(0)).unwrap_or(0);
        bounded("repeat", a.text(1).len().saturating_mul(count))?;
        string(a.text(1).repeat(count))
    }),
    ("substr", |a| string(substr(&a.text(2), a.int(0), a.int(1)))),
    ("trunc", |a| string(trunc(&a.text(1), a.int(0)))),
    ("nospace", |a| string(a.text(0).split_whitespace().collect::<String>())),
    ("indent", |a| indented("indent", a, "")),
    ("nindent", |a| indented("nindent", a, "\n")),
    ("quote", |a| quoted(a, '"')),
    ("squote", |a| quoted(a, '\'')),
    ("cat", |a| string(joined(&a.0, " "))),
    ("toString", |a| string(a.text(0))),
    ("toStrings", |a| list(a.list("toStrings", 0)?.iter().map(|v| Value::String(v.to_string().into())).collect())),
    ("atoi", |a| Ok(Value::Int(a.int(0)))),
    ("int", |a| Ok(Value::Int(a.int(0)))),
    ("int64", |a| Ok(Value::Int(a.int(0)))),
    ("float64", |a| Ok(Value::Float(to_float(a.at(0))))),
    ("default", |a| Ok(if a.0.len() > 1 && a.last().is_truthy() { a.last() } else { a.at(0) }.clone())),
    ("empty", |a| Ok(Value::Bool(!a.at(0).is_truthy()))),
    ("coalesce", |a| Ok(a.0.iter().find(|value| value.is_truthy()).cloned().unwrap_or(Value::Nil))),
    ("all", |a| Ok(Value::Bool(a.0.iter().all(Value::is_truthy)))),
    ("any", |a| Ok(Value::Bool(a.0.iter().any(Value::is_truthy)))),
    ("ternary", |a| Ok(if a.at(2).is_truthy() { a.at(0) } else { a.at(1) }.clone())),
    ("kindOf", |a| string(type_name(a.at(0)))),
    ("typeOf", |a| string(type_name(a.at(0)))),
    ("kindIs", |a| Ok(Value::Bool(a.text(0) == type_name(a.at(1))))),
    ("typeIs", |a| Ok(Value::Bool(a.text(0) == type_name(a.at(1))))),
    ("fail", |a| Err(TemplateError::Exec(a.text(0)))),
    ("list", |a| list(a.0.clone())),
    ("first", |a| Ok(a.list("first", 0)?.first().cloned().unwrap_or(Value::Nil))),
    ("last", |a| Ok(a.list("last", 0)?.last().cloned().unwrap_or(Value::Nil))),
    ("rest", |a| list(a.list("rest", 0)?.into_iter().skip(1).collect())),
    ("initial", |a| {
        let mut items = a.list("initial", 0)?;
        items.pop();
        list(items)
    }),
    ("reverse", |a| list(a.list("reverse", 0)?.into_iter().rev().collect())),
    ("uniq", |a| {
        let mut seen: Vec<Value> = Vec::new();
        for item in a.list("uniq", 0)? {
            if !seen.contains(&item) {
                seen.push(item);
            }
        }
        list(seen)
    }),
    ("has", |a| Ok(Value::Bool(a.list("has", 1)?.contains(a.at(0))))),
    ("without", |a| list(a.list("without", 0)?.into_iter().filter(|item| !a.0[1..].contains(item)).collect())),
    ("append", |a| list(a.list("append", 0)?.into_iter().chain(a.0.get(1).cloned()).collect())),
    ("prepend", |a| list(a.0.get(1).cloned().into_iter().chain(a.list("prepend", 0)?).collect())),
    ("concat", |a| {
        let lists: Result<Vec<_>, _> = (0..a.0.len()).map(|idx| a.list("concat", idx)).collect();
        list(lists?.concat())
    }),
    ("compact", |a| list(a.list("compact", 0)?.into_iter().filter(Value::is_truthy).collect())),
    ("sortAlpha", |a| {
        let mut texts: Vec<String> = a.list("sortAlpha", 0)?.iter().map(Value::to_string).collect();
        texts.sort();
        list(texts.into_iter().map(|text| Value::String(text.into())).collect())
    }),
    ("join", |a| match a.at(1) {
        Value::List(items) => string(joined(items, &a.text(0))),
        other => string(other.to_string()),
    }),
    ("splitList", |a| list(a.text(1).split(a.text(0).as_str()).map(|part| Value::String(part.into())).collect())),
    ("split", split_map),
    ("dict", dict),
    ("get", |a| Ok(a.map("get", 0)?.get(a.text(1).as_str()).cloned().unwrap_or(Value::String("".into())))),
    ("set", |a| {
        let mut entries = a.map("set", 0)?;
        entries.insert(a.text(1).into(), a.at(2).clone());
        Ok(Value::Map(Arc::new(entries)))
    }),
    ("unset", |a| {
        let mut entries = a.map("unset", 0)?;
        entries.remove(a.text(1).as_str());
        Ok(Value::Map(Arc::new(entries)))
    }),
    ("hasKey", |a| Ok(Value::Bool(a.map("hasKey", 0)?.contains_key(a.text(1).as_str())))),
    ("keys", |a| list(a.map("keys", 0)?.into_keys().map(Value::String).collect())),
    ("values", |a| list(a.map("values", 0)?.into_values().collect())),
    ("pick", |a| filtered(a, "pick", true)),
    ("omit", |a| filtered(a, "omit", false)),
    ("merge", merged),
    ("add", |a| arithmetic(a, "add", i64::checked_add)),
    ("add1", |a| Ok(Value::Int(a.int(0).saturating_add(1)))),
    ("sub", |a| arithmetic(a, "sub", i64::checked_sub)),
    ("mul", |a| arithmetic(a, "mul", i64::checked_mul)),
    ("div", |a| arithmetic(a, "div", i64::checked_div)),
    ("mod", |a| arithmetic(a, "mod", i64::checked_rem)),
    ("max", |a| arithmetic(a, "max", |x, y| Some(x.max(y)))),
    ("min", |a| arithmetic(a, "min", |x, y| Some(x.min(y)))),
    ("floor", |a| round(a, f64::floor)),
    ("ceil", |a| round(a, f64::ceil)),
    ("round", |a| round(a, f64::round)),
    ("until", |a| until("until", 0, a.int(0), if a.int(0) < 0 { -1 } else { 1 })),
    ("untilStep", |a| until("untilStep", a.int(0), a.int(1), a.int(2))),
    ("seq", |a| until("seq", 1, a.int(0).saturating_add(1), 1)),
    ("plural", |a| Ok(if a.int(2) == 1 { a.at(0) } else { a.at(1) }.clone())),
    ("regexMatch", |a| Ok(Value::Bool(regex(&a.text(0))?.is_match(&a.text(1))))),
    ("regexFind", |a| string(regex(&a.text(0))?.find(&a.text(1)).map_or("", |found| found.as_str()))),
    ("regexReplaceAll", replace_all),
    ("now", |_| match clock::now() {
        Some(now) => string(now),
        None => Err(TemplateError::Exec("the time is not known here".into())),
    }),
    ("date", |a| match clock::date(&a.text(0), &a.text(1)) {
        Some(text) => string(text),
        None => Err(wrong("date", "a layout and a moment from `now`")),
    }),
];
