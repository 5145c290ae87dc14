//! Values as models write them that are not quite JSON: Python's literals, bare keys, quotes made of marks.

use serde_json::{Map, Number, Value};

/// Levels a value may nest.
const MAX_DEPTH: usize = 64;

/// The value that `text` begins with and the bytes it takes; `None` where it is none, or not yet whole.
///
/// Takes JSON, Python's `None`, `True`, `False`, single quotes and trailing commas, and bare keys. `quote` is a mark that
/// stands around strings.
pub(crate) fn value(text: &str, quote: Option<&str>) -> Option<(Value, usize)> {
    let mut reader = Reader { text, at: 0, quote };
    let value = reader.value(MAX_DEPTH)?;
    Some((value, reader.at))
}

/// The value that is all of `text`.
pub(crate) fn whole(text: &str) -> Option<Value> {
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    let (value, end) = value(text, None)?;
    text[end..].trim().is_empty().then_some(value)
}

/// The arguments of a Python call, from behind its `(`, and the bytes up to and with its `)`.
pub(crate) fn keyword_arguments(text: &str) -> Option<(Map<String, Value>, usize)> {
    let mut reader = Reader { text, at: 0, quote: None };
    let arguments = reader.entries(MAX_DEPTH, ')', '=')?;
    Some((arguments, reader.at))
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    quote: Option<&'t str>,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn takes(&mut self, mark: &str) -> bool {
        let found = self.rest().starts_with(mark);
        self.at += if found { mark.len() } else { 0 };
        found
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let below = depth.checked_sub(1)?;
        self.skip_blanks();
        if let Some(quote) = self.quote.filter(|quote| self.rest().starts_with(quote)) {
            return self.quoted(quote).map(Value::String);
        }
        match self.rest().chars().next()? {
            '{' => {
                self.at += 1;
                self.entries(below, '}', ':').map(Value::Object)
            }
            '[' | '(' => {
                let close = if self.takes("[") { ']' } else { ')' };
                self.at += if close == ')' { 1 } else { 0 };
                self.items(below, close).map(Value::Array)
            }
            '"' | '\'' => self.string().map(Value::String),
            _ => self.word(),
        }
    }

    fn items(&mut self, depth: usize, close: char) -> Option<Vec<Value>> {
        let mut items = Vec::new();
        loop {
            self.skip_blanks();
            if self.rest().starts_with(close) {
                self.at += 1;
                return Some(items);
            }
            items.push(self.value(depth)?);
            self.skip_blanks();
            if !self.takes(",") && !self.rest().starts_with(close) {
                return None;
            }
        }
    }

    fn entries(&mut self, depth: usize, close: char, between: char) -> Option<Map<String, Value>> {
        let mut entries = Map::new();
        loop {
            self.skip_blanks();
            if self.rest().starts_with(close) {
                self.at += 1;
                return Some(entries);
            }
            let key = self.key(between)?;
            self.skip_blanks();
            if !self.rest().starts_with(between) {
                return None;
            }
            self.at += 1;
            entries.insert(key, self.value(depth)?);
            self.skip_blanks();
            if !self.takes(",") && !self.rest().starts_with(close) {
                return None;
            }
        }
    }

    fn key(&mut self, between: char) -> Option<String> {
        if let Some(quote) = self.quote.filter(|quote| self.rest().starts_with(quote)) {
            return self.quoted(quote);
        }
        if self.rest().starts_with(['"', '\'']) {
            return self.string();
        }
        let end = self.rest().find(|c: char| c == between || c.is_whitespace() || "{}[](),".contains(c))?;
        let key = self.rest()[..end].to_owned();
        self.at += end;
        (!key.is_empty()).then_some(key)
    }

    fn quoted(&mut self, quote: &str) -> Option<String> {
        let inner = self.rest().get(quote.len()..)?;
        let end = inner.find(quote)?;
        self.at += 2 * quote.len() + end;
        Some(inner[..end].to_owned())
    }

    /// A string of JSON or Python. Escapes of both are read alike; one that neither knows stays as it is.
    fn string(&mut self) -> Option<String> {
        let quote = self.rest().chars().next()?;
        let mut chars = self.rest().char_indices().skip(1);
        let mut out = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                _ if c == quote => {
                    self.at += at + 1;
                    return Some(out);
                }
                '\\' => {
                    let (_, escaped) = chars.next()?;
                    match escaped {
                        'n' => out.push('\n'),
                        't' => out.push('\t'),
                        'r' => out.push('\r'),
                        'b' => out.push('\u{8}'),
                        'f' => out.push('\u{c}'),
                        'u' => out.push(code_point(&mut chars)?),
                        '"' | '\'' | '\\' | '/' => out.push(escaped),
                        other => out.extend(['\\', other]),
                    }
                }
                _ => out.push(c),
            }
        }
        None
    }

    fn word(&mut self) -> Option<Value> {
        let end = self.rest().find(|c: char| c.is_whitespace() || "{}[](),<".contains(c)).unwrap_or(self.rest().len());
        let word = &self.rest()[..end];
        let value = match word {
            "null" | "None" => Value::Null,
            "true" | "True" => Value::Bool(true),
            "false" | "False" => Value::Bool(false),
            number => Value::Number(number.parse::<Number>().ok()?),
        };
        self.at += end;
        Some(value)
    }
}

/// The character of `\uXXXX`, of two of them where they are a pair.
fn code_point(chars: &mut impl Iterator<Item = (usize, char)>) -> Option<char> {
    fn unit(chars: &mut impl Iterator<Item = (usize, char)>) -> Option<u32> {
        (0..4).try_fold(0, |unit, _| Some(unit * 16 + chars.next()?.1.to_digit(16)?))
    }
    let first = unit(chars)?;
    if !(0xD800..0xDC00).contains(&first) {
        return char::from_u32(first);
    }
    let follows = chars.next()?.1 == '\\' && chars.next()?.1 == 'u';
    let second = unit(chars).filter(|second| follows && (0xDC00..0xE000).contains(second))?;
    char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_what_models_write() {
        let cases = [
            ("{'a': [1, 2.5, None, {'k': 'v'}], 'b': {}}", json!({"a": [1, 2.5, null, {"k": "v"}], "b": {}})),
            ("True", json!(true)),
            ("(1, 'x',)", json!([1, "x"])),
            (r#""\ud83d\ude00 \q""#, json!("😀 \\q")),
            ("{a:1,b:null}", json!({"a": 1, "b": null})),
        ];
        for (text, expected) in cases {
            assert_eq!(whole(text), Some(expected), "{text}");
        }
        for text in ["{'a': ", "[1", "'open", "word", "{a}", "", r#""\ud83d""#] {
            assert_eq!(whole(text), None, "{text}");
        }
        assert_eq!(whole(&"[".repeat(100_000)), None);
        let (bare, end) = value("{q:<|x|>a, }b<|x|>,l:[<|x|><|x|>]}tail", Some("<|x|>")).expect("it is whole");
        assert_eq!((bare, end), (json!({"q": "a, }b", "l": [""]}), 34));
        let (arguments, end) = keyword_arguments("city=\"a)b\", n=3) x").expect("it is whole");
        assert_eq!((Value::Object(arguments), end), (json!({"city": "a)b", "n": 3}), 16));
    }
}
