//! The filters of `x | filter`.

use super::interp::Interp;
use super::methods::{self, Args};
use super::ops::{self, iterate};
use super::repr::{JsonStyle, pretty, to_json, to_text};
use super::text::{Text, TextBuilder};
use super::value::{Outcome, Value, fail};

/// Names that filters go by.
pub(super) const FILTERS: &[&str] = &[
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
];

impl Interp {
    /// `value | name(args)`
    pub(super) fn filter(&mut self, name: &str, value: Value, args: Args) -> Outcome<Value> {
        self.budget.charge(1)?;
        match name {
            "default" | "d" => Ok(default(value, &args)),
            "length" | "count" => length(&value).map(|len| Value::Int(len as i128)),
            "tojson" => self.tojson(&value, &args),
            "items" => self.items(&value),
            "list" => iterate(&value, &self.budget).map(Value::list),
            "first" | "last" => self.end(name, &value),
            "attr" => match args.text(0, "name")?.cloned() {
                Some(attr) => {
                    value.defined()?;
                    let missing = || Value::undefined(format!("no attribute '{}'", attr.as_str()));
                    Ok(self.python_attribute(&value, attr.as_str()).unwrap_or_else(missing))
                }
                None => fail("filter 'attr' needs a name"),
            },
            "abs" | "int" | "float" | "round" => number_filter(name, &value, &args),
            "map" | "select" | "reject" | "selectattr" | "rejectattr" => self.lazy_filter(name, &value, args),
            "join" | "sort" | "unique" | "min" | "max" | "sum" | "groupby" | "dictsort" | "batch" | "slice"
            | "reverse" => self.sequence_filter(name, value, &args),
            _ => self.text_filter(name, &value, &args),
        }
    }

    fn text_filter(&mut self, name: &str, value: &Value, args: &Args) -> Outcome<Value> {
        let text = to_text(value, &self.budget)?;
        self.budget.text(text.len())?;
        Ok(Value::Str(match name {
            "string" => text,
            "safe" => text.with_markup(true),
            "escape" | "e" => text.escaped(),
            "forceescape" => text.with_markup(false).escaped(),
            "trim" => methods::strip(&text, "strip", args.text(0, "chars")?),
            "upper" => text.map_runs(str::to_uppercase),
            "lower" => text.map_runs(str::to_lowercase),
            "capitalize" => methods::capitalize(&text),
            "title" => methods::title(&text, |c| !(super::text::is_space(c) || "-({[<".contains(c))),
            "replace" => self.replace(&text, args)?,
            "indent" => self.indent(&text, args)?,
            "truncate" => truncate(&text, args)?,
            "pprint" => pretty(value, &self.budget)?,
            "center" => {
                let width = args.get(0, "width").cloned().unwrap_or(Value::Int(80));
                let args = Args { positional: vec![width], named: Vec::new() };
                return methods::call_str(&text, "center", &args, &self.budget);
            }
            "format" => {
                let values = if args.named.is_empty() {
                    Value::tuple(args.positional.clone())
                } else {
                    super::expr::dict_of(args.named.clone())?
                };
                super::format::percent(&text, &values, &self.budget)?
            }
            "urlencode" if matches!(value, Value::Dict(_) | Value::Seq(..)) => {
                return fail("filter 'urlencode' takes a text here");
            }
            "urlencode" => text.map_runs(url_encode),
            "wordcount" => {
                let words = text.as_str().split(|c: char| !(c.is_alphanumeric() || c == '_'));
                return Ok(Value::Int(words.filter(|word| !word.is_empty()).count() as i128));
            }
            _ => return fail(format!("No filter named '{name}' found.")),
        }))
    }

    fn replace(&self, text: &Text, args: &Args) -> Outcome<Text> {
        let (Some(old), Some(new)) = (args.get(0, "old"), args.get(1, "new")) else {
            return fail("filter 'replace' needs what to replace and by what");
        };
        let (old, new) = (to_text(old, &self.budget)?, to_text(new, &self.budget)?);
        let count = args.int(2, "count")?;
        if !self.autoescape {
            let plain = text.clone().with_markup(false);
            return methods::replace(&plain, &old, &new, count, &self.budget);
        }
        let text = if old.markup || new.markup { text.escaped() } else { text.clone() };
        let new = if text.markup { new.escaped() } else { new };
        methods::replace(&text, &old, &new, count, &self.budget)
    }

    fn tojson(&self, value: &Value, args: &Args) -> Outcome<Value> {
        let indent = match args.some(1, "indent") {
            None => None,
            Some(Value::Str(text)) => Some(text.as_str().to_owned()),
            Some(other) => match other.as_int() {
                Some(width) => Some(" ".repeat(usize::try_from(width.clamp(0, 64)).unwrap_or(0))),
                None => return fail("`indent` must be an integer or a string"),
            },
        };
        let default_item = if indent.is_some() { "," } else { ", " };
        let mut style = JsonStyle {
            ensure_ascii: args.flag(0, "ensure_ascii", false),
            indent,
            item_separator: default_item.to_owned(),
            key_separator: ": ".to_owned(),
            sort_keys: args.flag(3, "sort_keys", false),
        };
        if let Some(separators) = args.some(2, "separators") {
            let parts = iterate(separators, &self.budget)?;
            let [Value::Str(item), Value::Str(key)] = parts.as_slice() else {
                return fail("`separators` must be two strings");
            };
            style.item_separator = item.as_str().to_owned();
            style.key_separator = key.as_str().to_owned();
        }
        to_json(value, &style, &self.budget).map(Value::Str)
    }

    fn items(&self, value: &Value) -> Outcome<Value> {
        match value {
            Value::Undefined(_) => Ok(Value::generator(Vec::new())),
            Value::Dict(entries) => {
                self.budget.charge(entries.len() * 2)?;
                let pair = |(key, item): &(Value, Value)| Value::tuple(vec![key.clone(), item.clone()]);
                Ok(Value::generator(entries.values().map(pair).collect()))
            }
            _ => fail("Can only get item pairs from a mapping."),
        }
    }

    fn end(&self, name: &str, value: &Value) -> Outcome<Value> {
        if name == "last" && matches!(value, Value::Generator(_)) {
            return fail("'generator' object is not reversible");
        }
        let items = iterate(value, &self.budget)?;
        let found = if name == "first" { items.first() } else { items.last() };
        Ok(found.cloned().unwrap_or_else(|| Value::undefined(format!("No {name} item, sequence was empty."))))
    }

    /// The filters that make a generator.
    fn lazy_filter(&mut self, name: &str, value: &Value, args: Args) -> Outcome<Value> {
        if !value.truth() {
            return Ok(Value::generator(Vec::new()));
        }
        let mut out = Vec::new();
        for item in iterate(value, &self.budget)? {
            match name {
                "map" => out.push(self.map_one(item, &args)?),
                _ => {
                    let keep = self.selects(name, &item, &args)?;
                    if keep != name.starts_with("reject") {
                        out.push(item);
                    }
                }
            }
        }
        Ok(Value::generator(out))
    }

    fn map_one(&mut self, item: Value, args: &Args) -> Outcome<Value> {
        let named = |name: &str| args.named.iter().find(|(found, _)| **found == *name).map(|(_, value)| value);
        if let (true, Some(path)) = (args.positional.is_empty(), named("attribute")) {
            let fallback = named("default").cloned();
            return self.follow(item, path, fallback.as_ref());
        }
        let Some(Value::Str(filter)) = args.positional.first() else {
            return fail("map requires a filter argument");
        };
        let rest = Args { positional: args.positional[1..].to_vec(), named: args.named.clone() };
        self.filter(filter.as_str(), item, rest)
    }

    fn selects(&mut self, name: &str, item: &Value, args: &Args) -> Outcome<bool> {
        let by_attribute = name.ends_with("attr");
        let (subject, rest) = if by_attribute {
            let Some((path, rest)) = args.positional.split_first() else {
                return fail("Missing parameter for attribute name");
            };
            (self.follow(item.clone(), path, None)?, rest)
        } else {
            (item.clone(), args.positional.as_slice())
        };
        match rest.split_first() {
            None => Ok(subject.truth()),
            Some((Value::Str(test), rest)) => {
                let args = Args { positional: rest.to_vec(), named: args.named.clone() };
                self.test(test.as_str(), &subject, &args)
            }
            Some((other, _)) => fail(format!("No test named '{}' found.", other.type_name())),
        }
    }

    /// Follows a dotted path of attributes.
    pub(super) fn follow(&mut self, mut item: Value, path: &Value, fallback: Option<&Value>) -> Outcome<Value> {
        if path.as_int().is_some() {
            return self.item(&item, path);
        }
        let path = to_text(path, &self.budget)?;
        for part in path.as_str().split('.') {
            let key = part.parse::<i128>().map_or_else(|_| Value::str(part), Value::Int);
            item = self.item(&item, &key)?;
            if let (true, Some(fallback)) = (item.is_undefined(), fallback) {
                item = fallback.clone();
            }
        }
        Ok(item)
    }

    fn indent(&self, text: &Text, args: &Args) -> Outcome<Text> {
        let indention = match args.some(0, "width") {
            Some(Value::Str(text)) => text.clone(),
            Some(other) => match other.as_int() {
                Some(width) => Text::template(" ".repeat(usize::try_from(width.clamp(0, 1000)).unwrap_or(0))),
                None => return fail("`width` must be an integer or a string"),
            },
            None => Text::template("    "),
        };
        let (first, blank) = (args.flag(1, "first", false), args.flag(2, "blank", false));
        let with_end = ops::join(&[text.clone(), Text::template("\n")], &self.budget)?;
        let lines = methods::split_lines(&with_end, false, &self.budget)?;
        self.budget.text(text.len().saturating_add(lines.len().saturating_mul(indention.len())))?;
        let mut out = TextBuilder::new();
        for (idx, line) in lines.iter().enumerate() {
            let Value::Str(line) = line else { continue };
            if idx > 0 {
                out.push(&Text::template("\n"));
            }
            let indents = if idx == 0 { first } else { blank || !line.is_empty() };
            if indents {
                out.push(&indention);
            }
            out.push(line);
        }
        Ok(out.finish().with_markup(text.markup))
    }
}

fn default(value: Value, args: &Args) -> Value {
    let replaced = value.is_undefined() || (args.flag(1, "boolean", false) && !value.truth());
    if replaced { args.get(0, "default_value").cloned().unwrap_or_else(|| Value::str("")) } else { value }
}

fn length(value: &Value) -> Outcome<usize> {
    match value {
        Value::Undefined(_) => Ok(0),
        Value::Str(text) => Ok(text.as_str().chars().count()),
        Value::Seq(_, items) => Ok(items.len()),
        Value::Dict(entries) => Ok(entries.len()),
        Value::Loop(state) => Ok(state.items.len()),
        other => fail(format!("object of type '{}' has no len()", other.type_name())),
    }
}

fn number_filter(name: &str, value: &Value, args: &Args) -> Outcome<Value> {
    value.defined()?;
    match name {
        "abs" => match (value.as_int(), value.as_float()) {
            (Some(value), _) => Ok(Value::Int(value.saturating_abs())),
            (None, Some(value)) => Ok(Value::Float(value.abs())),
            (None, None) => fail(format!("bad operand type for abs(): '{}'", value.type_name())),
        },
        "int" => Ok(to_int(value, args).unwrap_or_else(|| args.get(0, "default").cloned().unwrap_or(Value::Int(0)))),
        "float" => {
            let parsed = match value {
                Value::Str(text) => parse_float(text.as_str()),
                other => other.as_float(),
            };
            let fallback = || args.get(0, "default").cloned().unwrap_or(Value::Float(0.0));
            Ok(parsed.map_or_else(fallback, Value::Float))
        }
        _ => round(value, args),
    }
}

fn parse_float(text: &str) -> Option<f64> {
    text.trim_matches(super::text::is_space).replace('_', "").parse().ok()
}

fn to_int(value: &Value, args: &Args) -> Option<Value> {
    let base = args.int(1, "base").ok().flatten().and_then(|base| u32::try_from(base).ok()).unwrap_or(10);
    match value {
        Value::Str(text) => {
            let digits = text.as_str().trim_matches(super::text::is_space).to_lowercase().replace('_', "");
            let prefix = match base {
                16 => "0x",
                8 => "0o",
                2 => "0b",
                _ => "",
            };
            let stripped = digits.strip_prefix(prefix).unwrap_or(&digits);
            let whole = (2..=36).contains(&base).then(|| i128::from_str_radix(stripped, base).ok()).flatten();
            whole.or_else(|| float_to_int(parse_float(&digits)?)).map(Value::Int)
        }
        Value::Float(value) => float_to_int(*value).map(Value::Int),
        other => other.as_int().map(Value::Int),
    }
}

fn float_to_int(value: f64) -> Option<i128> {
    value.is_finite().then_some(value as i128)
}

fn round(value: &Value, args: &Args) -> Outcome<Value> {
    let Some(number) = value.as_float() else { return fail("filter 'round' needs a number") };
    let precision = args.int(0, "precision")?.unwrap_or(0).clamp(-300, 300) as i32;
    let scale = 10f64.powi(precision);
    let method = args.text(1, "method")?.map_or("common", Text::as_str);
    let rounded = match method {
        "ceil" => (number * scale).ceil() / scale,
        "floor" => (number * scale).floor() / scale,
        "common" if precision >= 0 => {
            // Decimal printing rounds the exact value, ties to even, as Python's round does.
            format!("{number:.*}", precision.unsigned_abs() as usize).parse().unwrap_or(number)
        }
        "common" => (number * scale).round_ties_even() / scale,
        _ => return fail("method must be common, ceil or floor"),
    };
    match (value.as_int(), method) {
        (Some(_), "common") => Ok(Value::Int(rounded as i128)),
        _ => Ok(Value::Float(rounded)),
    }
}

fn truncate(text: &Text, args: &Args) -> Outcome<Text> {
    let length = usize::try_from(args.int(0, "length")?.unwrap_or(255)).unwrap_or(0);
    let killwords = args.flag(1, "killwords", false);
    let end = args.text(2, "end")?.cloned().unwrap_or_else(|| Text::template("..."));
    let leeway = usize::try_from(args.int(3, "leeway")?.unwrap_or(5)).unwrap_or(0);
    let end_len = end.as_str().chars().count();
    if length < end_len {
        return fail(format!("expected length >= {end_len}, got {length}"));
    }
    let raw = text.as_str();
    if raw.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.clone());
    }
    let cut = raw.char_indices().nth(length - end_len).map_or(raw.len(), |(at, _)| at);
    let kept = if killwords { cut } else { raw[..cut].rfind(' ').unwrap_or(cut) };
    let mut out = TextBuilder::new();
    out.push_range(text, 0..kept);
    out.push(&end);
    Ok(out.finish())
}

fn url_encode(run: &str) -> String {
    let mut out = String::with_capacity(run.len());
    for byte in run.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' | b'/' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Filters over whole sequences.
impl Interp {
    fn sequence_filter(&mut self, name: &str, value: Value, args: &Args) -> Outcome<Value> {
        match name {
            "join" => self.join(&value, args),
            "dictsort" => self.dictsort(&value, args),
            "reverse" => self.reverse(&value),
            "batch" | "slice" => self.chunks(name, &value, args),
            "groupby" => self.groupby(&value, args),
            "sum" => {
                let mut total = args.get(1, "start").cloned().unwrap_or(Value::Int(0));
                for mut item in iterate(&value, &self.budget)? {
                    if let Some(path) = args.some(0, "attribute") {
                        item = self.follow(item, path, None)?;
                    }
                    total = ops::binary(super::ast::BinaryOp::Add, &total, &item, &self.budget)?;
                }
                Ok(total)
            }
            "sort" => {
                let (reverse, case_sensitive) = (args.flag(0, "reverse", false), args.flag(1, "case_sensitive", false));
                let items = iterate(&value, &self.budget)?;
                let sorted = self.sorted(items, args.some(2, "attribute"), case_sensitive, reverse)?;
                Ok(Value::list(sorted))
            }
            _ => self.distinct(name, &value, args),
        }
    }

    fn join(&mut self, value: &Value, args: &Args) -> Outcome<Value> {
        let separator = match args.some(0, "d") {
            Some(value) => to_text(value, &self.budget)?,
            None => Text::template(""),
        };
        let mut texts = Vec::new();
        for (idx, mut item) in iterate(value, &self.budget)?.into_iter().enumerate() {
            if let Some(path) = args.some(1, "attribute") {
                item = self.follow(item, path, None)?;
            }
            if idx > 0 {
                texts.push(separator.clone());
            }
            texts.push(to_text(&item, &self.budget)?);
        }
        let markup = self.autoescape && texts.iter().any(|text| text.markup);
        if markup {
            texts = texts.iter().map(Text::escaped).collect();
        }
        ops::join(&texts, &self.budget).map(|text| Value::Str(text.with_markup(markup)))
    }

    fn reverse(&self, value: &Value) -> Outcome<Value> {
        match value {
            Value::Str(text) => ops::slice_text(text, [None, None, Some(-1)], &self.budget).map(Value::Str),
            Value::Generator(_) | Value::Undefined(_) => iterate(value, &self.budget).map(|mut items| {
                items.reverse();
                Value::list(items)
            }),
            other => iterate(other, &self.budget).map(|mut items| {
                items.reverse();
                Value::generator(items)
            }),
        }
    }

    fn dictsort(&mut self, value: &Value, args: &Args) -> Outcome<Value> {
        value.defined()?;
        let Value::Dict(entries) = value else {
            return fail(format!("'{} object' has no attribute 'items'", value.type_name()));
        };
        let place = match args.text(1, "by")?.map_or("key", Text::as_str) {
            "key" => 0,
            "value" => 1,
            _ => return fail("You can only sort by either \"key\" or \"value\""),
        };
        let pairs = entries.values().map(|(key, item)| Value::tuple(vec![key.clone(), item.clone()])).collect();
        let (case_sensitive, reverse) = (args.flag(0, "case_sensitive", false), args.flag(2, "reverse", false));
        self.sorted(pairs, Some(&Value::Int(place)), case_sensitive, reverse).map(Value::list)
    }

    /// Sorts by the values that `paths` (comma-separated) lead to, or by the items themselves.
    fn sorted(
        &mut self,
        items: Vec<Value>,
        paths: Option<&Value>,
        case_sensitive: bool,
        reverse: bool,
    ) -> Outcome<Vec<Value>> {
        self.budget.charge(items.len().saturating_mul(4))?;
        let mut keyed = Vec::with_capacity(items.len());
        for item in items {
            let key = self.sort_key(&item, paths, case_sensitive)?;
            keyed.push((key, item));
        }
        let less = |(a, _): &(Value, Value), (b, _): &(Value, Value)| {
            let (a, b) = if reverse { (b, a) } else { (a, b) };
            Ok(ops::compare(a, b, "<", &self.budget)? == Some(std::cmp::Ordering::Less))
        };
        Ok(ops::merge_sort(keyed, &less)?.into_iter().map(|(_, item)| item).collect())
    }

    fn sort_key(&mut self, item: &Value, paths: Option<&Value>, case_sensitive: bool) -> Outcome<Value> {
        let fold = |value: Value| match value {
            Value::Str(text) if !case_sensitive => Value::Str(text.map_runs(str::to_lowercase)),
            other => other,
        };
        match paths {
            None => Ok(fold(item.clone())),
            Some(Value::Str(paths)) if paths.as_str().contains(',') => {
                let mut keys = Vec::new();
                for path in paths.as_str().split(',') {
                    keys.push(fold(self.follow(item.clone(), &Value::str(path.trim()), None)?));
                }
                Ok(Value::tuple(keys))
            }
            Some(path) => self.follow(item.clone(), path, None).map(fold),
        }
    }

    /// `unique`, `min` and `max`.
    fn distinct(&mut self, name: &str, value: &Value, args: &Args) -> Outcome<Value> {
        let case_sensitive = args.flag(0, "case_sensitive", false);
        let path = args.some(1, "attribute").cloned();
        let items = iterate(value, &self.budget)?;
        if name != "unique" {
            if items.is_empty() {
                return Ok(Value::undefined("No aggregated item, sequence was empty."));
            }
            let mut sorted = self.sorted(items, path.as_ref(), case_sensitive, name == "max")?;
            return Ok(sorted.swap_remove(0));
        }
        let mut seen = std::collections::HashSet::new();
        let mut kept = Vec::new();
        for item in items {
            if seen.insert(self.sort_key(&item, path.as_ref(), case_sensitive)?.key()?) {
                kept.push(item);
            }
        }
        Ok(Value::generator(kept))
    }

    fn groupby(&mut self, value: &Value, args: &Args) -> Outcome<Value> {
        let Some(path) = args.some(0, "attribute") else { return fail("filter 'groupby' needs an attribute") };
        let case_sensitive = args.flag(2, "case_sensitive", false);
        let fallback = args.some(1, "default");
        let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
        let mut rows = Vec::new();
        for item in iterate(value, &self.budget)? {
            let label = self.follow(item.clone(), path, fallback)?;
            rows.push(Value::tuple(vec![label, item]));
        }
        for row in self.sorted(rows, Some(&Value::Int(0)), case_sensitive, false)? {
            let Value::Seq(_, pair) = &row else { continue };
            let (label, item) = (pair[0].clone(), pair[1].clone());
            let key = self.sort_key(&label, None, case_sensitive)?;
            match groups.last_mut() {
                Some((last, _, members)) if ops::equal(last, &key, &self.budget)? => members.push(item),
                _ => groups.push((key, label, vec![item])),
            }
        }
        let group = |(_, label, members)| Value::tuple(vec![label, Value::list(members)]);
        self.budget.shallow(Value::list(groups.into_iter().map(group).collect()))
    }

    /// `batch` (rows of so many) and `slice` (so many columns).
    fn chunks(&mut self, name: &str, value: &Value, args: &Args) -> Outcome<Value> {
        let count = usize::try_from(args.int(0, "count")?.unwrap_or(0)).unwrap_or(0);
        if count == 0 || count > super::budget::MAX_RANGE {
            return fail(format!("filter '{name}' needs a count from 1 to {}", super::budget::MAX_RANGE));
        }
        let fill = args.some(1, "fill_with");
        let items = iterate(value, &self.budget)?;
        self.budget.charge(items.len() + count)?;
        let mut rows: Vec<Vec<Value>> = if name == "batch" {
            items.chunks(count).map(<[Value]>::to_vec).collect()
        } else {
            let (each, extra) = (items.len() / count, items.len() % count);
            let mut rest = items.into_iter();
            (0..count).map(|row| rest.by_ref().take(each + usize::from(row < extra)).collect()).collect()
        };
        if let Some(fill) = fill {
            pad_rows(&mut rows, name, count, fill);
        }
        self.budget.shallow(Value::generator(rows.into_iter().map(Value::list).collect()))
    }
}

fn pad_rows(rows: &mut [Vec<Value>], name: &str, count: usize, fill: &Value) {
    if name == "batch" {
        if let Some(last) = rows.last_mut() {
            last.resize(count, fill.clone());
        }
        return;
    }
    let total: usize = rows.iter().map(Vec::len).sum();
    let (longest, extra) = (rows.iter().map(Vec::len).max().unwrap_or(0), total % count);
    if extra > 0 {
        rows.iter_mut().skip(extra).for_each(|row| row.resize(longest, fill.clone()));
    }
}
