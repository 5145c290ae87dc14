//! From the text of a GBNF grammar to rules: the language of llama.cpp's `grammars/README.md` and parser, read by
//! recursive descent with a bound on everything that recurses.
//!
//! It takes what llama.cpp takes, and a little more: `_` in names, and `[^]` for any character.

use std::collections::HashMap;

/// Nesting of groups.
const MAX_DEPTH: usize = 200;
/// Number of a repetition; larger ones would not fit into the automaton anyway.
const MAX_REPETITION: u32 = 100_000;

/// Why a text is no grammar, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
    /// What was expected, or what is wrong.
    pub(crate) reason: String,
}

impl std::fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.reason)
    }
}

/// A single token of the vocabulary, as a grammar names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TokenName {
    /// `<[123]>`
    Id(u32),
    /// `<think>`, brackets included.
    Text(String),
}

/// What a rule is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// One character after the other.
    Literal(String),
    /// One character out of sorted, disjoint ranges.
    Class(Vec<(char, char)>),
    /// One token, or any other one than that.
    Token { name: TokenName, is_negated: bool, at: usize },
    /// Another rule.
    Rule(usize),
    /// One after the other.
    Sequence(Vec<Node>),
    /// One of them.
    Choice(Vec<Node>),
    /// At least `min` times, at most `max` times if there is a limit.
    Repeat { node: Box<Node>, min: u32, max: Option<u32> },
}

/// A rule by its number.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) name: String,
    /// Where it is named first, as an offset.
    pub(crate) at: usize,
    /// None while it is only referred to.
    pub(crate) body: Option<Node>,
}

/// Rules of a grammar whose syntax is right.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    text: &'a str,
    pub(crate) rules: Vec<Rule>,
    by_name: HashMap<String, usize>,
}

impl<'a> Rules<'a> {
    /// Parses a whole grammar.
    pub(crate) fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        let rules = Rules { text, rules: Vec::new(), by_name: HashMap::new() };
        let mut parser = Parser { text, at: 0, depth: 0, rules };
        parser.skip_space(true);
        while parser.at < text.len() {
            parser.rule()?;
        }
        Ok(parser.rules)
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    fn number_of(&mut self, name: &str, at: usize) -> usize {
        if let Some(&number) = self.by_name.get(name) {
            return number;
        }
        self.by_name.insert(name.to_owned(), self.rules.len());
        self.rules.push(Rule { name: name.to_owned(), at, body: None });
        self.rules.len() - 1
    }

    pub(crate) fn error(&self, at: usize, reason: impl Into<String>) -> SyntaxError {
        error_at(self.text, at, reason)
    }
}

fn error_at(text: &str, at: usize, reason: impl Into<String>) -> SyntaxError {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    SyntaxError {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        reason: reason.into(),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    rules: Rules<'a>,
}

type Parsed<T> = Result<T, SyntaxError>;

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn eat(&mut self, expected: char) -> bool {
        let is_there = self.peek() == Some(expected);
        self.at += if is_there { expected.len_utf8() } else { 0 };
        is_there
    }

    fn error<T>(&self, reason: impl Into<String>) -> Parsed<T> {
        Err(error_at(self.text, self.at, reason))
    }

    /// What is there instead of something else, for messages.
    fn found(&self) -> String {
        self.peek().map_or_else(|| "the end of the grammar".to_owned(), |c| format!("{c:?}"))
    }

    fn skip_space(&mut self, newlines: bool) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => self.at += 1,
                '\r' | '\n' if newlines => self.at += 1,
                '#' => {
                    let rest = &self.text[self.at..];
                    self.at += rest.find(['\r', '\n']).unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    fn name(&mut self) -> Option<&str> {
        let rest = &self.text[self.at..];
        let len = rest.find(|c| !is_name_char(c)).unwrap_or(rest.len());
        self.at += len;
        (len > 0).then(|| &rest[..len])
    }

    fn rule(&mut self) -> Parsed<()> {
        let start = self.at;
        let Some(name) = self.name().map(str::to_owned) else {
            return self.error(format!("expected the name of a rule, found {}", self.found()));
        };
        let number = self.rules.number_of(&name, start);
        self.skip_space(false);
        if !self.text[self.at..].starts_with("::=") {
            return self.error(format!("expected \"::=\" behind the name {name:?}, found {}", self.found()));
        }
        self.at += 3;
        self.skip_space(true);
        let body = self.alternatives(false)?;
        // As in llama.cpp a later rule of the same name takes the place of an earlier one.
        self.rules.rules[number].body = Some(body);
        if self.at < self.text.len() && !self.eat('\n') && !self.eat('\r') {
            return self
                .error(format!("expected the end of the rule {name:?} or a further element, found {}", self.found()));
        }
        self.skip_space(true);
        Ok(())
    }

    fn alternatives(&mut self, is_nested: bool) -> Parsed<Node> {
        let mut choices = vec![self.sequence(is_nested)?];
        while self.eat('|') {
            self.skip_space(true);
            choices.push(self.sequence(is_nested)?);
        }
        Ok(if choices.len() == 1 { choices.remove(0) } else { Node::Choice(choices) })
    }

    fn sequence(&mut self, is_nested: bool) -> Parsed<Node> {
        let mut nodes = Vec::new();
        while let Some(c) = self.peek() {
            match c {
                '*' | '+' | '?' | '{' => {
                    let Some(node) = nodes.pop() else { return self.error(format!("nothing to repeat before {c:?}")) };
                    nodes.push(self.repetition(node, is_nested)?);
                }
                _ => match self.element()? {
                    Some(node) => nodes.push(node),
                    None => break,
                },
            }
            self.skip_space(is_nested);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Sequence(nodes) })
    }

    /// A literal, class, group, reference, token or dot; none where a sequence ends.
    fn element(&mut self) -> Parsed<Option<Node>> {
        let start = self.at;
        let node = match self.peek() {
            Some('"') => self.literal()?,
            Some('[') => self.class()?,
            Some('(') => self.group()?,
            Some('<' | '!') => self.token()?,
            Some('.') => {
                self.at += 1;
                Node::Class(vec![(char::MIN, char::MAX)])
            }
            Some(c) if is_name_char(c) => {
                let name = self.name().map(str::to_owned).unwrap_or_default();
                Node::Rule(self.rules.number_of(&name, start))
            }
            _ => return Ok(None),
        };
        Ok(Some(node))
    }

    fn group(&mut self) -> Parsed<Node> {
        if self.depth == MAX_DEPTH {
            return self.error(format!("groups nest deeper than {MAX_DEPTH}"));
        }
        let start = self.at;
        self.at += 1;
        self.depth += 1;
        self.skip_space(true);
        let node = self.alternatives(true)?;
        self.depth -= 1;
        if !self.eat(')') {
            let opened = error_at(self.text, start, "");
            return self.error(format!(
                "expected ')' for the group opened in line {}, column {}, found {}",
                opened.line,
                opened.column,
                self.found()
            ));
        }
        Ok(node)
    }

    fn literal(&mut self) -> Parsed<Node> {
        let start = self.at;
        self.at += 1;
        let mut literal = String::new();
        loop {
            match self.peek() {
                None => return Err(error_at(self.text, start, "this literal has no closing '\"'")),
                Some('"') => break,
                Some(_) => literal.push(self.character()?),
            }
        }
        self.at += 1;
        Ok(Node::Literal(literal))
    }

    fn class(&mut self) -> Parsed<Node> {
        let start = self.at;
        let unclosed = |text: &str| Err(error_at(text, start, "this class has no closing ']'"));
        self.at += 1;
        let is_negated = self.eat('^');
        let mut ranges = Vec::new();
        loop {
            match self.peek() {
                None => return unclosed(self.text),
                Some(']') => break,
                Some(_) => {
                    let range_start = self.at;
                    let first = self.character()?;
                    let rest = &self.text[self.at..];
                    let last = match rest.strip_prefix('-') {
                        Some("") => return unclosed(self.text),
                        Some(behind) if !behind.starts_with(']') => {
                            self.at += 1;
                            self.character()?
                        }
                        _ => first,
                    };
                    if last < first {
                        let reason = format!("the range from {first:?} to {last:?} is empty; swap its ends");
                        return Err(error_at(self.text, range_start, reason));
                    }
                    ranges.push((first, last));
                }
            }
        }
        self.at += 1;
        let ranges = normalized(ranges);
        let ranges = if is_negated { complement(&ranges) } else { ranges };
        match ranges.is_empty() {
            true => Err(error_at(self.text, start, "this class has no characters")),
            false => Ok(Node::Class(ranges)),
        }
    }

    /// One character of a literal or a class, with escapes.
    fn character(&mut self) -> Parsed<char> {
        let start = self.at;
        let Some(c) = self.peek() else { return self.error("the grammar ends in the middle") };
        self.at += c.len_utf8();
        if c != '\\' {
            return Ok(c);
        }
        let Some(escape) = self.peek() else { return self.error("the grammar ends in the middle of an escape") };
        self.at += escape.len_utf8();
        let n_digits = match escape {
            't' => return Ok('\t'),
            'r' => return Ok('\r'),
            'n' => return Ok('\n'),
            '\\' | '"' | '[' | ']' | '-' => return Ok(escape),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            other => return Err(error_at(self.text, start, format!("there is no escape \\{other}"))),
        };
        let digits = self.text.get(self.at..self.at + n_digits);
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let Some(digits) = digits else {
            return Err(error_at(
                self.text,
                start,
                format!("expected {n_digits} hexadecimal digits behind \\{escape}"),
            ));
        };
        self.at += n_digits;
        let code = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
        code.ok_or_else(|| error_at(self.text, start, format!("\\{escape}{digits} is no character")))
    }

    fn token(&mut self) -> Parsed<Node> {
        let at = self.at;
        let is_negated = self.eat('!');
        let start = self.at;
        if !self.eat('<') {
            return self.error(format!("expected '<' behind '!', found {}", self.found()));
        }
        let Some(len) = self.text[self.at..].find('>') else {
            return Err(error_at(self.text, start, "this token has no closing '>'"));
        };
        let inner = &self.text[self.at..self.at + len];
        self.at += len + 1;
        let name = match inner.strip_prefix('[').map(|id| id.strip_suffix(']').and_then(|id| id.parse().ok())) {
            Some(Some(id)) => TokenName::Id(id),
            Some(None) => return Err(error_at(self.text, start, "expected the number of a token, as in <[123]>")),
            None => TokenName::Text(self.text[start..self.at].to_owned()),
        };
        Ok(Node::Token { name, is_negated, at })
    }

    fn repetition(&mut self, node: Node, is_nested: bool) -> Parsed<Node> {
        let (min, max) = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            _ => return self.counted(node, is_nested),
        };
        self.at += 1;
        Ok(Node::Repeat { node: Box::new(node), min, max })
    }

    /// `{m}`, `{m,}` or `{m,n}`.
    fn counted(&mut self, node: Node, is_nested: bool) -> Parsed<Node> {
        let start = self.at;
        self.at += 1;
        self.skip_space(is_nested);
        let Some(min) = self.number()? else {
            return self.error(format!("expected a number of repetitions, found {}", self.found()));
        };
        self.skip_space(is_nested);
        let mut max = Some(min);
        if self.eat(',') {
            self.skip_space(is_nested);
            max = self.number()?;
            self.skip_space(is_nested);
        }
        if !self.eat('}') {
            return self.error(format!("expected ',' or '}}' in a repetition, found {}", self.found()));
        }
        match max.is_some_and(|max| max < min) {
            true => Err(error_at(self.text, start, "the most repetitions are fewer than the least")),
            false => Ok(Node::Repeat { node: Box::new(node), min, max }),
        }
    }

    fn number(&mut self) -> Parsed<Option<u32>> {
        let rest = &self.text[self.at..];
        let len = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if len == 0 {
            return Ok(None);
        }
        match rest[..len].parse().ok().filter(|&number| number <= MAX_REPETITION) {
            Some(number) => {
                self.at += len;
                Ok(Some(number))
            }
            None => self.error(format!("more than {MAX_REPETITION} repetitions")),
        }
    }
}

/// Sorted ranges that neither overlap nor touch.
fn normalized(mut ranges: Vec<(char, char)>) -> Vec<(char, char)> {
    ranges.sort_unstable();
    let mut merged: Vec<(char, char)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= next_char(before.1).unwrap_or(char::MAX) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn complement(ranges: &[(char, char)]) -> Vec<(char, char)> {
    let mut gaps = Vec::new();
    let mut next = Some(char::MIN);
    for &(first, last) in ranges {
        let gap = next.filter(|&start| start < first).zip(previous_char(first));
        gaps.extend(gap);
        next = next_char(last);
    }
    gaps.extend(next.map(|start| (start, char::MAX)));
    gaps
}

/// The next character, past the surrogates.
fn next_char(c: char) -> Option<char> {
    match c {
        '\u{D7FF}' => Some('\u{E000}'),
        c => char::from_u32(u32::from(c) + 1),
    }
}

fn previous_char(c: char) -> Option<char> {
    match c {
        '\u{E000}' => Some('\u{D7FF}'),
        c => u32::from(c).checked_sub(1).and_then(char::from_u32),
    }
}
