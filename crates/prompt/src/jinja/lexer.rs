//! From template source to tokens, with jinja2's whitespace rules (`trim_blocks` and `lstrip_blocks` on).

use super::text::is_space;
use crate::error::PromptError;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TokenKind {
    Data(String),
    VariableBegin,
    VariableEnd,
    BlockBegin,
    BlockEnd,
    Name(String),
    Str(String),
    Int(i128),
    Float(f64),
    Op(&'static str),
    End,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub kind: TokenKind,
    pub line: usize,
}

/// Longest first: the first one that matches is the token.
const OPERATORS: &[&str] = &[
    "**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";",
];

/// The three forms of a begin or end mark: `{%`, `{%-`, `{%+`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    None,
    Minus,
    Plus,
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    tokens: Vec<Token>,
    /// Line of `counted`, so that line numbers cost one pass.
    line: usize,
    counted: usize,
    /// Did the last consumed tag or data end with a newline (or is this the start)?
    line_starting: bool,
}

/// Tokens of `source`, ended by one [`TokenKind::End`].
pub(crate) fn tokenize(source: &str) -> Result<Vec<Token>, PromptError> {
    let mut normal = source.replace("\r\n", "\n").replace('\r', "\n");
    if normal.ends_with('\n') {
        normal.pop();
    }
    let mut lexer = Lexer { source: &normal, at: 0, tokens: Vec::new(), line: 1, counted: 0, line_starting: true };
    lexer.run()?;
    lexer.push(TokenKind::End);
    Ok(lexer.tokens)
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn push(&mut self, kind: TokenKind) {
        self.line += self.source[self.counted..self.at].matches('\n').count();
        self.counted = self.at;
        self.tokens.push(Token { kind, line: self.line });
    }

    fn fail<T>(&mut self, reason: impl Into<String>) -> Result<T, PromptError> {
        let line = self.line + self.source[self.counted..self.at].matches('\n').count();
        Err(PromptError::Syntax { line, reason: reason.into() })
    }

    fn run(&mut self) -> Result<(), PromptError> {
        while self.at < self.source.len() {
            let Some((offset, mark)) = next_mark(self.rest()) else {
                let data = self.rest().to_owned();
                self.at = self.source.len();
                self.push(TokenKind::Data(data));
                break;
            };
            let start = self.at;
            self.at += offset;
            match mark {
                '%' if raw_begin(self.rest()).is_some() => self.raw(start)?,
                '%' => self.tag(start, true)?,
                '{' => self.tag(start, false)?,
                _ => self.comment(start)?,
            }
        }
        Ok(())
    }

    /// Emits the data from `start` to here as the tag that begins here asks; returns nothing when empty.
    fn data_before_tag(&mut self, start: usize, sign: Sign, lstrip: bool) {
        let data = &self.source[start..self.at];
        let kept = match sign {
            Sign::Minus => data.trim_end_matches(is_space),
            Sign::None if lstrip => strip_line_indent(data, self.line_starting),
            Sign::None | Sign::Plus => data,
        };
        if !kept.is_empty() {
            let kept = kept.to_owned();
            self.push(TokenKind::Data(kept));
        }
    }

    /// Consumes the sign after a two-character begin mark.
    fn begin_sign(&mut self) -> Sign {
        self.at += 2;
        let sign = match self.rest().as_bytes().first() {
            Some(b'-') => Sign::Minus,
            Some(b'+') => Sign::Plus,
            _ => return Sign::None,
        };
        self.at += 1;
        sign
    }

    fn sign_at(&self, after: usize) -> Sign {
        match self.source.as_bytes().get(after) {
            Some(b'-') => Sign::Minus,
            Some(b'+') => Sign::Plus,
            _ => Sign::None,
        }
    }

    /// After an end mark: what the sign or `trim_blocks` removes.
    fn after_end(&mut self, minus: bool, trim_newline: bool) {
        if minus {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start_matches(is_space).len();
        } else if trim_newline && self.rest().starts_with('\n') {
            self.at += 1;
        }
        self.line_starting = self.source[..self.at].ends_with('\n');
    }

    fn comment(&mut self, start: usize) -> Result<(), PromptError> {
        let sign = self.sign_at(self.at + 2);
        self.data_before_tag(start, sign, true);
        let body = self.at + 2;
        let Some(end) = self.source[body..].find("#}") else {
            return self.fail("a comment has no end `#}`");
        };
        let before = self.source.as_bytes()[body..body + end].last().copied();
        self.at = body + end + 2;
        self.after_end(before == Some(b'-'), before != Some(b'+'));
        Ok(())
    }

    fn raw(&mut self, start: usize) -> Result<(), PromptError> {
        let sign = self.sign_at(self.at + 2);
        self.data_before_tag(start, sign, true);
        let (length, minus) = raw_begin(self.rest()).unwrap_or((0, false));
        self.at += length;
        self.after_end(minus, false);
        let from = self.at;
        let Some((offset, length, end_sign, minus_end, plus_end)) = raw_end(self.rest()) else {
            return self.fail("a raw block has no end `{% endraw %}`");
        };
        self.at = from + offset;
        self.data_before_tag(from, end_sign, true);
        self.at += length;
        self.after_end(minus_end, !plus_end);
        Ok(())
    }

    /// One `{% … %}` or `{{ … }}`.
    fn tag(&mut self, start: usize, block: bool) -> Result<(), PromptError> {
        let sign = self.sign_at(self.at + 2);
        // A plus is part of the mark for blocks only; `{{+ x }}` is the unary operator.
        self.data_before_tag(start, sign, block);
        if block || sign == Sign::Minus {
            self.begin_sign();
        } else {
            self.at += 2;
        }
        self.push(if block { TokenKind::BlockBegin } else { TokenKind::VariableBegin });
        let mut open: Vec<char> = Vec::new();
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start_matches(is_space).len();
            if self.rest().is_empty() {
                return self.fail("a tag has no end");
            }
            if open.is_empty() && self.end_of_tag(block) {
                return Ok(());
            }
            self.expression_token(&mut open)?;
        }
    }

    fn end_of_tag(&mut self, block: bool) -> bool {
        let rest = self.rest();
        let marks: [(&str, bool, bool); 3] = if block {
            [("%}", false, true), ("-%}", true, false), ("+%}", false, false)]
        } else {
            [("}}", false, false), ("-}}", true, false), ("-}}", true, false)]
        };
        for (mark, minus, trim) in marks {
            if rest.starts_with(mark) {
                self.at += mark.len();
                self.push(if block { TokenKind::BlockEnd } else { TokenKind::VariableEnd });
                self.after_end(minus, trim);
                return true;
            }
        }
        false
    }

    fn expression_token(&mut self, open: &mut Vec<char>) -> Result<(), PromptError> {
        let Some(first) = self.rest().chars().next() else { return self.fail("a tag has no end") };
        if first == '"' || first == '\'' {
            return self.string(first);
        }
        if first.is_ascii_digit() {
            return self.number();
        }
        if first.is_alphabetic() || first == '_' {
            let rest = self.rest();
            let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let name = rest[..length].to_owned();
            self.at += length;
            self.push(TokenKind::Name(name));
            return Ok(());
        }
        let Some(op) = OPERATORS.iter().find(|op| self.rest().starts_with(**op)) else {
            return self.fail(format!("unexpected character {first:?}"));
        };
        match first {
            '(' | '[' | '{' => open.push(first),
            ')' | ']' | '}' => {
                let expected = match first {
                    ')' => '(',
                    ']' => '[',
                    _ => '{',
                };
                if open.pop() != Some(expected) {
                    return self.fail(format!("unexpected {first:?}"));
                }
            }
            _ => {}
        }
        self.at += op.len();
        self.push(TokenKind::Op(op));
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<(), PromptError> {
        let body = &self.rest()[1..];
        let mut escaped = false;
        for (offset, c) in body.char_indices() {
            if escaped {
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == quote {
                let text = unescape(&body[..offset]);
                self.at += offset + 2;
                return match text {
                    Some(text) => {
                        self.push(TokenKind::Str(text));
                        Ok(())
                    }
                    None => self.fail("a string has a malformed escape"),
                };
            }
        }
        self.fail("a string has no end")
    }

    fn number(&mut self) -> Result<(), PromptError> {
        let rest = self.rest();
        let radix = match rest.as_bytes() {
            [b'0', b'x' | b'X', ..] => Some(16),
            [b'0', b'o' | b'O', ..] => Some(8),
            [b'0', b'b' | b'B', ..] => Some(2),
            _ => None,
        };
        if let Some(radix) = radix {
            let digits: String = rest[2..].chars().take_while(|c| c.is_digit(radix) || *c == '_').collect();
            self.at += 2 + digits.len();
            return match i128::from_str_radix(&digits.replace('_', ""), radix) {
                Ok(value) => {
                    self.push(TokenKind::Int(value));
                    Ok(())
                }
                Err(_) => self.fail("a number has no digits or too many"),
            };
        }
        // After a dot (`x.0.1`) a number is an index, never a float.
        let after_dot = matches!(self.tokens.last(), Some(Token { kind: TokenKind::Op("."), .. }));
        let length = if after_dot { digits_len(rest) } else { float_len(rest).unwrap_or_else(|| digits_len(rest)) };
        let digits = rest[..length].replace('_', "");
        let kind = match digits.parse::<i128>() {
            Ok(value) => Some(TokenKind::Int(value)),
            Err(_) => digits.parse::<f64>().ok().map(TokenKind::Float),
        };
        self.at += length;
        match kind {
            Some(kind) => {
                self.push(kind);
                Ok(())
            }
            None => self.fail("a malformed number"),
        }
    }
}

fn digits_len(text: &str) -> usize {
    text.find(|c: char| !(c.is_ascii_digit() || c == '_')).unwrap_or(text.len())
}

/// Length of a float literal (`1.5`, `1e3`, `1.5e-3`) at the start of `text`, if one is there.
fn float_len(text: &str) -> Option<usize> {
    let whole = digits_len(text);
    let bytes = text.as_bytes();
    let mut at = whole;
    if bytes.get(at) == Some(&b'.') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
        at += 1 + digits_len(&text[at + 1..]);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits_len(&text[at + 1 + sign..]);
        if exponent > 0 {
            at += 1 + sign + exponent;
        }
    }
    (at > whole).then_some(at)
}

/// First `{%`, `{{` or `{#` in `text`: where, and its second character.
fn next_mark(text: &str) -> Option<(usize, char)> {
    let mut from = 0;
    while let Some(offset) = text[from..].find('{') {
        let at = from + offset;
        match text.as_bytes().get(at + 1) {
            Some(c @ (b'%' | b'{' | b'#')) => return Some((at, char::from(*c))),
            _ => from = at + 1,
        }
    }
    None
}

/// `lstrip_blocks`: drops the white space between the last newline and the tag.
fn strip_line_indent(data: &str, line_starting: bool) -> &str {
    let line = data.rfind('\n').map_or(0, |at| at + 1);
    if (line > 0 || line_starting) && data[line..].chars().all(is_space) { &data[..line] } else { data }
}

/// Length of `{% raw %}` at the start of `text`, and whether it ends with a minus.
fn raw_begin(text: &str) -> Option<(usize, bool)> {
    let inner = text.strip_prefix("{%")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner.trim_start_matches(is_space).strip_prefix("raw")?.trim_start_matches(is_space);
    let (inner, minus) = match inner.strip_prefix("-%}") {
        Some(rest) => (rest, true),
        None => (inner.strip_prefix("%}")?, false),
    };
    Some((text.len() - inner.len(), minus))
}

/// Finds `{% endraw %}`: offset, length, its begin sign, ends with minus, ends with plus.
fn raw_end(text: &str) -> Option<(usize, usize, Sign, bool, bool)> {
    let mut from = 0;
    while let Some(found) = text[from..].find("{%") {
        let at = from + found;
        from = at + 2;
        let inner = &text[at + 2..];
        let (sign, inner) = match inner.as_bytes().first() {
            Some(b'-') => (Sign::Minus, &inner[1..]),
            Some(b'+') => (Sign::Plus, &inner[1..]),
            _ => (Sign::None, inner),
        };
        let Some(inner) = inner.trim_start_matches(is_space).strip_prefix("endraw") else { continue };
        let inner = inner.trim_start_matches(is_space);
        for (mark, minus, plus) in [("%}", false, false), ("-%}", true, false), ("+%}", false, true)] {
            if let Some(rest) = inner.strip_prefix(mark) {
                return Some((at, text.len() - at - rest.len(), sign, minus, plus));
            }
        }
    }
    None
}

/// Python's string escapes; an unknown one stays as written. `None` when digits are missing.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut high_surrogate: Option<u32> = None;
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let escape = chars.next()?;
        let code = match escape {
            'x' => hex(&mut chars, 2)?,
            'u' => hex(&mut chars, 4)?,
            'U' => hex(&mut chars, 8)?,
            '0'..='7' => octal(escape, &mut chars),
            other => {
                simple_escape(other, &mut out);
                continue;
            }
        };
        match (high_surrogate.take(), code) {
            (_, 0xD800..=0xDBFF) => high_surrogate = Some(code),
            (Some(high), 0xDC00..=0xDFFF) => {
                out.push(char::from_u32(0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00))?);
            }
            (_, code) => out.push(char::from_u32(code)?),
        }
    }
    Some(out)
}

fn simple_escape(escape: char, out: &mut String) {
    match escape {
        'n' => out.push('\n'),
        't' => out.push('\t'),
        'r' => out.push('\r'),
        'a' => out.push('\x07'),
        'b' => out.push('\x08'),
        'f' => out.push('\x0c'),
        'v' => out.push('\x0b'),
        '\n' => {}
        '\\' | '\'' | '"' => out.push(escape),
        other => {
            out.push('\\');
            out.push(other);
        }
    }
}

type Chars<'c> = std::iter::Peekable<std::str::Chars<'c>>;

fn hex(chars: &mut Chars<'_>, count: usize) -> Option<u32> {
    let mut code = 0u32;
    for _ in 0..count {
        code = code.checked_mul(16)? + chars.next()?.to_digit(16)?;
    }
    Some(code)
}

fn octal(first: char, chars: &mut Chars<'_>) -> u32 {
    let mut code = first.to_digit(8).unwrap_or(0);
    for _ in 0..2 {
        match chars.peek().and_then(|c| c.to_digit(8)) {
            Some(digit) => {
                code = code * 8 + digit;
                chars.next();
            }
            None => break,
        }
    }
    code
}
