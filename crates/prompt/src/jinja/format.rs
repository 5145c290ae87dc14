//! Python's two string formatting languages: `"%s" % x` and `"{}".format(x)`.

use super::budget::Budget;
use super::repr::{float_repr, repr, to_text};
use super::text::{Origin, Text, TextBuilder};
use super::value::{Outcome, SeqKind, Value, dict_get, fail};

/// Widest field and highest precision that a format may ask for.
const MAX_WIDTH: usize = 10_000;

/// One conversion: how a value is padded and printed.
#[derive(Debug, Default, Clone)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

/// `format % args`
pub(crate) fn percent(format: &Text, args: &Value, budget: &Budget) -> Outcome<Text> {
    budget.text(format.len())?;
    let positional: Vec<Value> = match args {
        Value::Seq(SeqKind::Tuple, items) => items.to_vec(),
        other => vec![other.clone()],
    };
    let raw = format.as_str();
    let mut out = TextBuilder::new();
    let (mut at, mut used) = (0, 0);
    while let Some(offset) = raw[at..].find('%') {
        out.push_range(format, at..at + offset);
        let mut rest = Cursor { text: raw, at: at + offset + 1 };
        let named = rest.percent_key()?;
        let spec = percent_spec(&mut rest, &positional, &mut used)?;
        at = rest.at;
        if spec.kind == Some('%') {
            out.push_range(format, at - 1..at);
            continue;
        }
        let value = match (named, args) {
            (Some(key), Value::Dict(entries)) => match dict_get(entries, key) {
                Some(value) => value.clone(),
                None => return fail(format!("'{key}'")),
            },
            (Some(_), _) => return fail("format requires a mapping"),
            (None, _) => next_argument(&positional, &mut used)?,
        };
        let piece = percent_one(&value, &spec, budget)?;
        budget.text(out.len() / 64 + piece.len())?;
        out.push(&if format.markup { piece.escaped() } else { piece });
    }
    out.push_range(format, at..raw.len());
    let whole = matches!(args, Value::Seq(SeqKind::Tuple, _)) || !matches!(args, Value::Dict(_) | Value::Seq(..));
    if whole && used < positional.len() {
        return fail("not all arguments converted during string formatting");
    }
    Ok(out.finish().with_markup(format.markup))
}

fn next_argument(positional: &[Value], used: &mut usize) -> Outcome<Value> {
    let Some(value) = positional.get(*used) else { return fail("not enough arguments for format string") };
    *used += 1;
    Ok(value.clone())
}

fn percent_spec(rest: &mut Cursor<'_>, positional: &[Value], used: &mut usize) -> Outcome<Spec> {
    let mut spec = Spec { align: Some('>'), ..Spec::default() };
    while let Some(flag) = rest.take_if(|c| "#0- +".contains(c)) {
        match flag {
            '#' => spec.alternate = true,
            '0' => spec.zero = true,
            '-' => spec.align = Some('<'),
            sign => spec.sign = Some(sign),
        }
    }
    spec.width = match rest.take_if(|c| c == '*') {
        Some(_) => usize::try_from(next_argument(positional, used)?.as_int().unwrap_or(0)).unwrap_or(0),
        None => rest.number().unwrap_or(0),
    };
    if rest.take_if(|c| c == '.').is_some() {
        spec.precision = Some(rest.number().unwrap_or(0));
    }
    while rest.take_if(|c| "hlL".contains(c)).is_some() {}
    spec.kind = rest.take_if(|_| true);
    if spec.kind.is_none() {
        return fail("incomplete format");
    }
    limit_width(&spec)?;
    Ok(spec)
}

fn limit_width(spec: &Spec) -> Outcome<()> {
    if spec.width > MAX_WIDTH || spec.precision.unwrap_or(0) > MAX_WIDTH {
        return fail(format!("a format may be at most {MAX_WIDTH} wide"));
    }
    Ok(())
}

fn percent_one(value: &Value, spec: &Spec, budget: &Budget) -> Outcome<Text> {
    match spec.kind {
        Some('s') => Ok(pad(truncated(to_text(value, budget)?, spec), &unzeroed(spec), '>')),
        Some('r' | 'a') => Ok(pad(truncated(repr(value, budget)?, spec), &unzeroed(spec), '>')),
        Some('c') => match value {
            Value::Str(text) => Ok(pad(text.clone(), &unzeroed(spec), '>')),
            other => match other.as_int().and_then(|code| u32::try_from(code).ok()).and_then(char::from_u32) {
                Some(c) => Ok(pad(Text::new(c.to_string(), Origin::Client), &unzeroed(spec), '>')),
                None => fail("%c requires int or char"),
            },
        },
        Some(kind @ ('d' | 'i' | 'u' | 'x' | 'X' | 'o' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G')) => {
            value.defined()?;
            let kind = if matches!(kind, 'i' | 'u') { 'd' } else { kind };
            let value = match (kind, value) {
                ('d', Value::Float(value)) => Value::Int(*value as i128),
                (_, value) => value.clone(),
            };
            if value.as_float().is_none() {
                return fail(format!("%{kind} format: a real number is required, not {}", value.type_name()));
            }
            number(&value, &Spec { kind: Some(kind), ..spec.clone() })
        }
        other => fail(format!("unsupported format character {other:?}")),
    }
}

fn unzeroed(spec: &Spec) -> Spec {
    Spec { zero: false, ..spec.clone() }
}

fn truncated(text: Text, spec: &Spec) -> Text {
    let Some(precision) = spec.precision else { return text };
    match text.as_str().char_indices().nth(precision) {
        Some((end, _)) => text.slice(0..end),
        None => text,
    }
}

/// `format.format(*args, **kwargs)`; `lookup` follows `.name` and `[key]` of a field.
pub(crate) fn braces(
    format: &Text,
    args: &[Value],
    named: &[(std::sync::Arc<str>, Value)],
    lookup: &dyn Fn(&Value, &str, bool) -> Outcome<Value>,
    budget: &Budget,
) -> Outcome<Text> {
    budget.text(format.len())?;
    let raw = format.as_str();
    let mut out = TextBuilder::new();
    let (mut at, mut auto) = (0, 0);
    while let Some(offset) = raw[at..].find(['{', '}']) {
        let brace = at + offset;
        out.push_range(format, at..brace);
        if raw[brace..].starts_with("{{") || raw[brace..].starts_with("}}") {
            out.push_range(format, brace..brace + 1);
            at = brace + 2;
            continue;
        }
        if raw[brace..].starts_with('}') {
            return fail("Single '}' encountered in format string");
        }
        let Some(length) = raw[brace..].find('}') else { return fail("expected '}' before end of string") };
        let field = &raw[brace + 1..brace + length];
        at = brace + length + 1;
        let (path, rest) = field.find([':', '!']).map_or((field, ""), |cut| field.split_at(cut));
        let value = field_value(path, args, named, &mut auto, lookup)?;
        let piece = brace_one(value, rest, budget)?;
        budget.text(out.len() / 64 + piece.len())?;
        out.push(&piece);
    }
    out.push_range(format, at..raw.len());
    Ok(out.finish().with_markup(format.markup))
}

fn field_value(
    path: &str,
    args: &[Value],
    named: &[(std::sync::Arc<str>, Value)],
    auto: &mut usize,
    lookup: &dyn Fn(&Value, &str, bool) -> Outcome<Value>,
) -> Outcome<Value> {
    let head_end = path.find(['.', '[']).unwrap_or(path.len());
    let (head, mut rest) = path.split_at(head_end);
    let numbered = head.bytes().all(|b| b.is_ascii_digit());
    if !head.is_empty() && numbered && *auto > 0 {
        return fail("cannot switch from automatic field numbering to manual field specification");
    }
    let mut value = if numbered {
        let place = head.parse().unwrap_or_else(|_| {
            *auto += 1;
            *auto - 1
        });
        match args.get(place) {
            Some(value) => value.clone(),
            None => {
                return fail(format!("Replacement index {place} out of range for positional args tuple"));
            }
        }
    } else {
        match named.iter().find(|(name, _)| **name == *head) {
            Some((_, value)) => value.clone(),
            None => return fail(format!("'{head}'")),
        }
    };
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            value = lookup(&value, &after[..end], true)?;
            rest = &after[end..];
        } else {
            let Some(end) = rest.find(']') else { return fail("Missing ']' in format string") };
            value = lookup(&value, &rest[1..end], false)?;
            rest = &rest[end + 1..];
        }
        value.defined()?;
    }
    Ok(value)
}

fn brace_one(value: Value, rest: &str, budget: &Budget) -> Outcome<Text> {
    let (conversion, spec) = match rest.strip_prefix('!') {
        Some(after) => match after.split_once(':') {
            Some((conversion, spec)) => (conversion, spec),
            None => (after, ""),
        },
        None => ("", rest.strip_prefix(':').unwrap_or(rest)),
    };
    let value = match conversion {
        "" => value,
        "s" => Value::Str(to_text(&value, budget)?),
        "r" | "a" => Value::Str(repr(&value, budget)?),
        other => return fail(format!("Unknown conversion specifier {other}")),
    };
    let spec = brace_spec(spec)?;
    match (&value, spec.kind) {
        (Value::Int(_) | Value::Float(_), _) => number(&value, &spec),
        (Value::Bool(_), Some(kind)) if kind != 's' => number(&value, &spec),
        (_, None | Some('s')) => Ok(pad(truncated(to_text(&value, budget)?, &spec), &unzeroed(&spec), '<')),
        (_, Some(kind)) => fail(format!("Unknown format code '{kind}' for object of type '{}'", value.type_name())),
    }
}

fn brace_spec(text: &str) -> Outcome<Spec> {
    let mut spec = Spec::default();
    let mut rest = Cursor { text, at: 0 };
    let is_align = |c: char| "<>=^".contains(c);
    let mut head = text.chars();
    match (head.next(), head.next()) {
        (Some(fill), Some(align)) if is_align(align) => {
            spec.fill = Some(fill);
            spec.align = Some(align);
            rest.at = fill.len_utf8() + 1;
        }
        _ => spec.align = rest.take_if(is_align),
    }
    spec.sign = rest.take_if(|c| "+- ".contains(c));
    spec.alternate = rest.take_if(|c| c == '#').is_some();
    spec.zero = rest.take_if(|c| c == '0').is_some();
    spec.width = rest.number().unwrap_or(0);
    spec.grouping = rest.take_if(|c| ",_".contains(c));
    if rest.take_if(|c| c == '.').is_some() {
        spec.precision = Some(rest.number().unwrap_or(0));
    }
    spec.kind = rest.take_if(|_| true);
    if rest.at < text.len() {
        return fail("Invalid format specifier");
    }
    limit_width(&spec)?;
    Ok(spec)
}

fn number(value: &Value, spec: &Spec) -> Outcome<Text> {
    let (negative, digits) = match (value.as_int(), spec.kind) {
        (Some(value), None | Some('d' | 'n' | 'x' | 'X' | 'o' | 'b')) => {
            let magnitude = value.unsigned_abs();
            let digits = match spec.kind {
                Some('x') => format!("{}{magnitude:x}", if spec.alternate { "0x" } else { "" }),
                Some('X') => format!("{}{magnitude:X}", if spec.alternate { "0X" } else { "" }),
                Some('o') => format!("{}{magnitude:o}", if spec.alternate { "0o" } else { "" }),
                Some('b') => format!("{}{magnitude:b}", if spec.alternate { "0b" } else { "" }),
                _ => magnitude.to_string(),
            };
            (value < 0, digits)
        }
        _ => {
            let value = value.as_float().unwrap_or(0.0);
            (value.is_sign_negative() && !value.is_nan(), float_digits(value.abs(), spec)?)
        }
    };
    let digits = match spec.grouping {
        Some(mark) => grouped(&digits, mark),
        None => digits,
    };
    let sign = match (negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(' ')) => " ",
        (false, _) => "",
    };
    let zero_padded = (spec.zero && spec.align.is_none_or(|align| align == '>')) || spec.align == Some('=');
    if zero_padded {
        let fill = if spec.zero { '0' } else { spec.fill.unwrap_or(' ') };
        let missing = spec.width.saturating_sub(sign.len() + digits.len());
        let padding: String = std::iter::repeat_n(fill, missing).collect();
        return Ok(Text::new(format!("{sign}{padding}{digits}"), Origin::Client));
    }
    Ok(pad(Text::new(format!("{sign}{digits}"), Origin::Client), spec, '>'))
}

fn float_digits(value: f64, spec: &Spec) -> Outcome<String> {
    let precision = spec.precision.unwrap_or(6);
    Ok(match spec.kind {
        Some('f' | 'F') => format!("{value:.precision$}"),
        Some('%') => format!("{:.precision$}%", value * 100.0),
        Some(kind @ ('e' | 'E')) => exponent(value, precision, kind),
        Some(kind @ ('g' | 'G')) => general(value, precision, kind),
        None if spec.precision.is_some() => general(value, precision, 'g'),
        None => float_repr(value),
        Some(kind) => return fail(format!("Unknown format code '{kind}' for object of type 'float'")),
    })
}

fn exponent(value: f64, precision: usize, kind: char) -> String {
    let text = format!("{value:.precision$e}");
    let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    let sign = if power < 0 { '-' } else { '+' };
    format!("{mantissa}{kind}{sign}{:02}", power.abs())
}

fn general(value: f64, precision: usize, kind: char) -> String {
    let precision = precision.max(1);
    let rounded = format!("{:.*e}", precision - 1, value);
    let power: i32 = rounded.split_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or(0);
    if power < -4 || power >= precision as i32 {
        let text = exponent(value, precision - 1, if kind == 'G' { 'E' } else { 'e' });
        let (mantissa, rest) = text.split_at(text.find(['e', 'E']).unwrap_or(text.len()));
        return format!("{}{rest}", trim_zeros(mantissa));
    }
    let decimals = usize::try_from(precision as i32 - 1 - power).unwrap_or(0);
    trim_zeros(&format!("{value:.decimals$}")).to_owned()
}

fn trim_zeros(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

fn grouped(digits: &str, mark: char) -> String {
    let whole = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let mut out = String::with_capacity(digits.len() + whole / 3);
    for (idx, c) in digits[..whole].chars().enumerate() {
        if idx > 0 && (whole - idx) % 3 == 0 {
            out.push(mark);
        }
        out.push(c);
    }
    out + &digits[whole..]
}

fn pad(text: Text, spec: &Spec, default_align: char) -> Text {
    let missing = spec.width.saturating_sub(text.as_str().chars().count());
    if missing == 0 {
        return text;
    }
    let before = match spec.align.unwrap_or(default_align) {
        '<' => 0,
        '^' => missing / 2,
        _ => missing,
    };
    pad_both(&text, spec.fill.unwrap_or(' '), before, missing - before)
}

/// `text` between so many fill characters, which count as the client's: it may have chosen them.
pub(crate) fn pad_both(text: &Text, fill: char, before: usize, after: usize) -> Text {
    let run = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
    let mut out = TextBuilder::new();
    out.push_str(&run(before), Origin::Client);
    out.push(text);
    out.push_str(&run(after), Origin::Client);
    out.finish().with_markup(text.markup)
}

/// A place in a format string.
struct Cursor<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Cursor<'t> {
    fn take_if(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        let c = self.text[self.at..].chars().next().filter(|c| wanted(*c))?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn number(&mut self) -> Option<usize> {
        let rest = &self.text[self.at..];
        let length = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        self.at += length;
        if length == 0 { None } else { Some(rest[..length].parse().unwrap_or(usize::MAX)) }
    }

    /// `(name)` of `%(name)s`.
    fn percent_key(&mut self) -> Outcome<Option<&'t str>> {
        let rest = &self.text[self.at..];
        let Some(inner) = rest.strip_prefix('(') else { return Ok(None) };
        let Some(end) = inner.find(')') else { return fail("incomplete format key") };
        self.at += end + 2;
        Ok(Some(&inner[..end]))
    }
}
