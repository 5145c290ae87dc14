//! Texts with forms in them, such as tool calls: turned into a grammar for llguidance.
//!
//! Control tokens in a text are those tokens and nothing that is spelled like them.

use std::collections::HashMap;
use std::fmt::Write as _;

use ingle_engine::TokenKind;
use serde_json::Value;

use crate::compile::{CALL_WHITESPACE, Strictness, schema_with_options};
use crate::{Environment, GrammarError};

/// A form made of texts, patterns and schemas.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Exactly this. What follows a token that ends an answer is cut off: it cannot come.
    Text(String),
    /// Text without control tokens that matches a regular expression (Rust's syntax).
    Regex(String),
    /// JSON in one line that satisfies a schema.
    Json {
        /// The schema.
        schema: Value,
        /// Must every keyword be enforced?
        strictness: Strictness,
    },
    /// Any text up to and with a mark.
    Until {
        /// The mark, not empty.
        end: String,
        /// Least and most characters before it.
        length: (u64, Option<u64>),
    },
    /// One after the other.
    Sequence(Vec<Piece>),
    /// One of these.
    OneOf(Vec<Piece>),
    /// This or nothing.
    Optional(Box<Piece>),
    /// Any number of these, also none.
    Repeated(Box<Piece>),
}

impl Piece {
    /// Bytes of what its caller wrote.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Text(text) | Self::Regex(text) => text.len(),
            Self::Json { schema, .. } => schema.to_string().len(),
            Self::Until { end, .. } => end.len(),
            Self::Sequence(pieces) | Self::OneOf(pieces) => pieces.iter().map(Self::size).sum(),
            Self::Optional(piece) | Self::Repeated(piece) => piece.size(),
        }
    }
}

/// The grammar of `piece` in llguidance's dialect of Lark.
pub(crate) fn lark(piece: &Piece, environment: &Environment) -> Result<String, Box<dyn std::error::Error>> {
    let mut writer = Writer { environment, rules: String::new(), n_rules: 0, schemas: HashMap::new() };
    let start = writer.expression(piece)?;
    Ok(format!("start: {start}\n{}", writer.rules))
}

struct Writer<'e> {
    environment: &'e Environment,
    rules: String,
    n_rules: usize,
    /// The rule of each schema: the first call and those behind it have the same.
    schemas: HashMap<String, String>,
}

/// A part of a text.
enum Segment<'t> {
    Plain(&'t str),
    Control(u32),
}

impl Writer<'_> {
    fn expression(&mut self, piece: &Piece) -> Result<String, Box<dyn std::error::Error>> {
        Ok(match piece {
            Piece::Text(text) => self.text(text),
            Piece::Regex(regex) => self.terminal(regex),
            Piece::Json { schema, strictness } => {
                let schema = schema_with_options(schema, *strictness, CALL_WHITESPACE)?;
                let body = format!("%json {schema}");
                match self.schemas.get(&body) {
                    Some(rule) => rule.clone(),
                    None => {
                        let rule = self.rule("", &body);
                        self.schemas.insert(body, rule.clone());
                        rule
                    }
                }
            }
            Piece::Until { end, length } => self.until(end, *length),
            Piece::Sequence(pieces) => {
                let parts = pieces.iter().map(|piece| self.expression(piece)).collect::<Result<Vec<_>, _>>()?;
                let parts: Vec<String> = parts.into_iter().filter(|part| part != "\"\"").collect();
                match parts.is_empty() {
                    true => "\"\"".into(),
                    false => format!("({})", parts.join(" ")),
                }
            }
            Piece::OneOf(pieces) => {
                let parts = pieces.iter().map(|piece| self.expression(piece)).collect::<Result<Vec<_>, _>>()?;
                if parts.is_empty() {
                    return Err("a choice among nothing".into());
                }
                format!("({})", parts.join(" | "))
            }
            Piece::Optional(piece) => format!("({})?", self.expression(piece)?),
            Piece::Repeated(piece) => format!("({})*", self.expression(piece)?),
        })
    }

    /// A rule of its own, and its name.
    fn rule(&mut self, options: &str, body: &str) -> String {
        self.n_rules += 1;
        let name = format!("r{}", self.n_rules);
        // Writing to a string does not fail.
        let _ = writeln!(self.rules, "{name}{options}: {body}");
        name
    }

    fn terminal(&mut self, regex: &str) -> String {
        self.n_rules += 1;
        let name = format!("T{}", self.n_rules);
        let _ = writeln!(self.rules, "{name}: /{}/", regex.replace('/', "\\/"));
        name
    }

    fn text(&self, text: &str) -> String {
        let mut parts = Vec::new();
        for segment in self.segments(text) {
            match segment {
                Segment::Plain(text) => parts.push(Value::String(text.to_owned()).to_string()),
                Segment::Control(token) if self.environment.ends.contains(&token) => break,
                Segment::Control(token) => parts.push(format!("<[{token}]>")),
            }
        }
        match parts.is_empty() {
            true => "\"\"".into(),
            false => parts.join(" "),
        }
    }

    fn until(&mut self, end: &str, (least, most): (u64, Option<u64>)) -> String {
        let count = most.map_or_else(|| format!("{least},"), |most| format!("{least},{}", most.max(least)));
        let any = if (least, most) == (0, None) { "(?s:.*)".to_owned() } else { format!("(?s:.{{{count}}})\\n?") };
        let mut segments = self.segments(end).into_iter();
        let Some(Segment::Plain(first)) = segments.next() else {
            // No text holds a control token, so the token alone ends it.
            return self.terminal(&any) + " " + &self.text(end);
        };
        let suffix = Value::String(first.to_owned()).to_string();
        let body = any.replace('/', "\\/");
        let name = self.rule(&format!("[suffix={suffix}]"), &format!("/{body}/"));
        match &end[first.len()..] {
            "" => name,
            rest => name + " " + &self.text(rest),
        }
    }

    fn segments<'t>(&self, text: &'t str) -> Vec<Segment<'t>> {
        let controls = self.environment.controls();
        let mut segments = Vec::new();
        let (mut plain, mut at) = (0, 0);
        while at < text.len() {
            let found = controls.longest_at(&text[at..]).filter(|_| text.is_char_boundary(at));
            match found {
                Some((token, len)) => {
                    if plain < at {
                        segments.push(Segment::Plain(&text[plain..at]));
                    }
                    segments.push(Segment::Control(token));
                    at += len;
                    plain = at;
                }
                None => at += text[at..].chars().next().map_or(1, char::len_utf8),
            }
        }
        if plain < text.len() {
            segments.push(Segment::Plain(&text[plain..]));
        }
        segments
    }
}

/// The spellings of a vocabulary's control tokens.
#[derive(Debug, Default)]
pub(crate) struct Controls {
    /// Longest first among those with the same first character.
    spellings: HashMap<char, Vec<(String, u32)>>,
}

impl Controls {
    pub fn new(tokenizer: &dyn ingle_engine::Tokenizer) -> Self {
        let mut controls = Self::default();
        let n_vocab = u32::try_from(tokenizer.n_vocab()).unwrap_or(u32::MAX);
        for token in (0..n_vocab).filter(|&token| tokenizer.token_kind(token) == TokenKind::Control) {
            let Ok(spelling) = std::str::from_utf8(tokenizer.token_bytes(token)) else { continue };
            let Some(first) = spelling.chars().next() else { continue };
            controls.spellings.entry(first).or_default().push((spelling.to_owned(), token));
        }
        controls.spellings.values_mut().for_each(|list| list.sort_by_key(|(text, _)| std::cmp::Reverse(text.len())));
        controls
    }

    /// The control token that `text` begins with, and the length of its spelling.
    pub fn longest_at(&self, text: &str) -> Option<(u32, usize)> {
        let list = self.spellings.get(&text.chars().next()?)?;
        let found = list.iter().find(|(spelling, _)| text.starts_with(spelling.as_str()));
        found.map(|(spelling, token)| (*token, spelling.len()))
    }
}

/// Whole values against their schemas, by name: what a lenient call is looked at with afterwards.
pub(crate) fn validators(schemas: &[(String, Value)]) -> Result<Vec<(String, jsonschema::Validator)>, GrammarError> {
    let kind = "JSON schema";
    let one = |(name, schema): &(String, Value)| {
        let validator = crate::compile::validator(schema);
        let validator = validator.map_err(|reason| GrammarError::Refused { kind, reason: format!("{name}: {reason}") });
        Ok((name.clone(), validator?))
    };
    schemas.iter().map(one).collect()
}
