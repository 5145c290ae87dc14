//! Takes the calls out of a generated text while it streams.

use std::sync::Arc;

use serde_json::Value;

use super::atoms;
use super::format::{CallBody, CallFormat, Tags, literal, types_of};
use super::literal as literals;
use super::object::{ObjectCall, Progress};
use super::scan::{JsonScan, begins, first_of, partial};
use crate::message::Tool;

/// A piece of a generated answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerDelta {
    /// Text for the reader.
    Text(String),
    /// Reasoning before it.
    Reasoning(String),
    /// A call begins.
    CallStart {
        /// Name of the function, whole.
        name: String,
    },
    /// More of the JSON text of the call's arguments.
    CallArguments(String),
    /// The call is whole, and so are its arguments.
    CallEnd,
}

/// Where in the text the parser is.
#[derive(Debug, Clone)]
enum State {
    /// In text for the reader.
    Text,
    /// Behind the mark of a call, before its name or object.
    Opened,
    /// In a JSON object that is a call.
    Object(ObjectCall),
    /// Behind the name, before the arguments.
    Named,
    /// In JSON arguments.
    Arguments(JsonScan),
    /// Between tagged arguments.
    Between(TaggedCall),
    /// In the text of a tagged argument.
    Value(TaggedCall, TaggedValue),
    /// Behind a call.
    After,
}

#[derive(Debug, Clone)]
struct TaggedCall {
    name: String,
    n_arguments: usize,
}

/// An argument whose value is being read.
#[derive(Debug, Clone)]
struct TaggedValue {
    key: String,
    /// Its text goes out as a string, as it comes.
    streams: bool,
    /// The line end before it was passed over, where there is one.
    begun: bool,
    /// Some of it is out.
    has_streamed: bool,
}

/// Splits a text into text and calls. Feed it every delta, then [`CallParser::finish`].
///
/// Blanks do not matter between the marks of a format, and marks that end a turn are dropped. What begins like a call and
/// turns out to be none is text.
#[derive(Debug, Clone)]
pub(super) struct CallParser {
    format: Arc<CallFormat>,
    tools: Arc<[Tool]>,
    /// Marks at which a call begins.
    openers: Vec<String>,
    /// `openers` and the marks to drop from text.
    in_text: Vec<String>,
    /// Words between an opener and the name.
    before: Vec<String>,
    /// Words behind a call that are passed over.
    after: Vec<String>,
    state: State,
    held: String,
    /// What was read of the current call, until its name is known.
    raw: String,
    ended: bool,
    n_calls: usize,
    has_text: bool,
    /// Blanks are dropped until text comes: at the start, and behind a mark.
    drops_blanks: bool,
}

impl CallParser {
    /// Passes over marks behind a call: control marks are no text, as some templates close a section they never opened,
    /// and any mark that ends the text is what ended the turn. `None` where there is no such mark.
    fn mark_behind_call(&mut self) -> Option<bool> {
        let inside = self.held.strip_prefix('<')?;
        let Some(end) = inside.find(|c: char| c == '>' || c == '<' || c.is_whitespace()) else {
            return (!self.ended).then(|| self.wait(State::After));
        };
        if !inside[end..].starts_with('>') || end == 0 {
            return None;
        }
        let len = end + 2;
        if inside.starts_with(['|', '｜']) {
            self.held.drain(..len);
            return Some(self.go(State::After));
        }
        self.held[len..].trim().is_empty().then(|| self.wait(State::After))
    }

    pub fn new(format: Arc<CallFormat>, tools: Arc<[Tool]>) -> Self {
        let is_json = matches!(format.body, CallBody::Object { .. } | CallBody::Keyed);
        let marks_before = |text: String| match text.find('{').filter(|_| is_json) {
            Some(at) => text[..at].to_owned(),
            None => text,
        };
        let before = [atoms::words(&format.open), atoms::words(&marks_before(literal(&format.before)))].concat();
        let is_opener = |word: &&String| word.len() > 2 && (word.starts_with(['<', '[']) || word.ends_with('['));
        let mut openers: Vec<String> = before.iter().filter(is_opener).cloned().collect();
        openers.extend(format.trigger().filter(|_| openers.is_empty()));
        if is_json && openers.is_empty() {
            // Llama 3 writes this before calls of its own tools, and at times before others.
            openers.push("<|python_tag|>".into());
        }
        let around = literal(&format.after) + " " + &format.close + " " + &format.separator;
        let after: Vec<String> = atoms::words(&around).into_iter().filter(|word| !openers.contains(word)).collect();
        let closing = atoms::marks(&format.close).map(str::to_owned);
        let noise: Vec<String> =
            format.noise.iter().cloned().chain(closing).filter(|mark| !openers.contains(mark)).collect();
        let in_text: Vec<String> = [openers.clone(), noise.clone()].concat();
        let after = after.into_iter().chain(noise).chain([",".into(), "]".into()]).collect();
        let state = if format.body == CallBody::Recipient { State::Opened } else { State::Text };
        let (held, raw) = (String::new(), String::new());
        let (ended, n_calls, has_text, drops_blanks) = (false, 0, false, true);
        Self {
            format,
            tools,
            openers,
            in_text,
            before,
            after,
            state,
            held,
            raw,
            ended,
            n_calls,
            has_text,
            drops_blanks,
        }
    }

    /// Takes a delta and gives back what is certain.
    pub fn push(&mut self, delta: &str) -> Vec<AnswerDelta> {
        self.held.push_str(delta);
        let mut out = Vec::new();
        while self.step(&mut out) {}
        out
    }

    /// The text has ended: gives back what was held. A call that is not whole stays so.
    pub fn finish(&mut self) -> Vec<AnswerDelta> {
        self.ended = true;
        let mut out = Vec::new();
        while self.step(&mut out) {}
        let held = std::mem::take(&mut self.held);
        match &mut self.state {
            State::Text if self.n_calls == 0 => self.text(&held, &mut out),
            State::Text | State::After | State::Between(_) | State::Named => {}
            State::Object(call) if call.is_named() => {}
            State::Opened | State::Object(_) => {
                self.raw.push_str(&held);
                self.give_up(&mut out);
            }
            State::Arguments(_) => emit_arguments(&held, &mut out),
            State::Value(_, value) if value.streams => emit_arguments(&escaped(&held), &mut out),
            State::Value(..) => {}
        }
        out
    }

    /// One transition; true when there may be another.
    fn step(&mut self, out: &mut Vec<AnswerDelta>) -> bool {
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text => self.in_text(out),
            State::Opened => self.opened(out),
            State::Object(call) => self.object(call, out),
            State::Named => self.named(out),
            State::Arguments(scan) => self.arguments(scan, out),
            State::Between(call) => self.between(call, out),
            State::Value(call, value) => self.value(call, value, out),
            State::After => self.after(),
        }
    }

    /// Stays in `state` until more has come.
    fn wait(&mut self, state: State) -> bool {
        self.state = state;
        false
    }

    fn go(&mut self, state: State) -> bool {
        self.state = state;
        true
    }

    /// Drops the first `len` bytes held, remembering them as part of the call.
    fn pass(&mut self, len: usize) {
        self.raw.extend(self.held.drain(..len));
    }

    fn skip_blanks(&mut self) {
        self.pass(self.held.len() - self.held.trim_start().len());
    }

    fn in_text(&mut self, out: &mut Vec<AnswerDelta>) -> bool {
        if !self.has_text && self.begins_with_object() {
            let call = ObjectCall::tentative(&self.format.body, &self.tools);
            self.raw.clear();
            return self.go(State::Object(call));
        }
        if let Some((at, idx)) = first_of(&self.held, &self.in_text) {
            let text = self.held[..at].trim_end().to_owned();
            self.text(&text, out);
            let rest = self.held.split_off(at + self.in_text[idx].len());
            self.raw = std::mem::replace(&mut self.held, rest).split_off(at);
            if idx < self.openers.len() {
                return self.go(State::Opened);
            }
            self.drops_blanks = true;
            return true;
        }
        let certain = self.held.len() - if self.ended { 0 } else { partial(&self.held, &self.in_text) };
        let certain = self.held[..certain].trim_end().len();
        if certain > 0 {
            let rest = self.held.split_off(certain);
            let text = std::mem::replace(&mut self.held, rest);
            self.text(&text, out);
        }
        if self.drops_blanks && self.ended {
            self.held = self.held.trim().to_owned();
        }
        self.wait(State::Text)
    }

    /// Emits text; the first of it loses its leading blanks.
    fn text(&mut self, text: &str, out: &mut Vec<AnswerDelta>) {
        let text = if self.drops_blanks { text.trim_start() } else { text };
        if text.is_empty() {
            return;
        }
        self.drops_blanks = false;
        self.has_text = true;
        match out.last_mut() {
            Some(AnswerDelta::Text(last)) => last.push_str(text),
            _ => out.push(AnswerDelta::Text(text.to_owned())),
        }
    }

    /// Is the whole text an object, which may be a call without its marks?
    fn begins_with_object(&self) -> bool {
        let may_be = matches!(self.format.body, CallBody::Object { .. }) && self.n_calls == 0;
        may_be && self.held.trim_start().starts_with('{')
    }

    /// What looked like a call is text, but for a mark that may also end a turn.
    fn give_up(&mut self, out: &mut Vec<AnswerDelta>) -> bool {
        let raw = std::mem::take(&mut self.raw);
        let noise = self.format.noise.iter().find(|mark| raw.starts_with(mark.as_str()));
        let text = noise.map_or(raw.as_str(), |mark| raw[mark.len()..].trim());
        self.text(text, out);
        self.has_text = true;
        self.go(State::Text)
    }

    fn opened(&mut self, out: &mut Vec<AnswerDelta>) -> bool {
        self.skip_blanks();
        for word in &self.before {
            match begins(&self.held, word) {
                Some(true) => {
                    let len = word.len();
                    self.pass(len);
                    return self.go(State::Opened);
                }
                Some(false) if !self.ended => return self.wait(State::Opened),
                _ => {}
            }
        }
        match self.held.chars().next() {
            None => self.wait(State::Opened),
            Some('[') => {
                self.pass(1);
                self.go(State::Opened)
            }
            Some('{') => self.go(State::Object(ObjectCall::certain(&self.format.body))),
            Some(_) if matches!(self.format.body, CallBody::Object { .. } | CallBody::Keyed) => self.give_up(out),
            Some(_) => self.name(out),
        }
    }

    fn name(&mut self, out: &mut Vec<AnswerDelta>) -> bool {
        let first = literal(&self.format.between).chars().next();
        let ends = |c: char| c.is_whitespace() || "<>{}[]()\"'".contains(c) || Some(c) == first;
        let Some(len) = self.held.find(ends).or(self.ended.then_some(self.held.len())) else {
            return self.wait(State::Opened);
        };
        let name = self.held[..len].trim_start_matches("functions.").to_owned();
        if self.format.body == CallBody::Recipient && name == "all" {
            self.held.drain(..len);
            self.raw.clear();
            return self.go(State::Text);
        }
        // Any line may stand where this format has its names.
        let is_text = self.format.body == CallBody::Recipient && !self.tools.iter().any(|tool| tool.name == name);
        if name.is_empty() || is_text {
            return self.give_up(out);
        }
        self.held.drain(..len);
        let state = match self.format.body {
            CallBody::Tagged(_) => State::Between(TaggedCall { name: name.clone(), n_arguments: 0 }),
            _ => State::Named,
        };
        self.begin(name, out);
        self.go(state)
    }

    fn begin(&mut self, name: String, out: &mut Vec<AnswerDelta>) {
        self.raw.clear();
        self.n_calls += 1;
        out.push(AnswerDelta::CallStart { name });
    }

    fn end(&mut self, out: &mut Vec<AnswerDelta>) -> bool {
        out.push(AnswerDelta::CallEnd);
        self.go(State::After)
    }

    fn object(&mut self, mut call: ObjectCall, out: &mut Vec<AnswerDelta>) -> bool {
        let was_named = call.is_named();
        let progress = call.step(&mut self.held, &mut self.raw, out);
        if !was_named && call.is_named() {
            self.raw.clear();
            self.n_calls += 1;
        }
        match progress {
            Progress::More => self.go(State::Object(call)),
            Progress::Wait => self.wait(State::Object(call)),
            Progress::Done => self.end(out),
            Progress::NoCall => self.give_up(out),
        }
    }

    /// Behind a name: JSON, a bare object or Python's arguments, or nothing where the call has none.
    fn named(&mut self, out: &mut Vec<AnswerDelta>) -> bool {
        match &self.format.body {
            CallBody::Bare { quote } => {
                let quote = quote.clone();
                self.literal('{', out, |text| literals::value(text, Some(&quote)))
            }
            CallBody::Python => self.literal('(', out, |text| {
                let blanks = text.len() - text.trim_start().len();
                let inner = text.trim_start().strip_prefix('(')?;
                let (arguments, end) = literals::keyword_arguments(inner)?;
                Some((Value::Object(arguments), blanks + 1 + end))
            }),
            _ => self.before_json(out),
        }
    }

    /// Arguments that `read` takes once they are whole; they begin with `open`.
    fn literal(
        &mut self,
        open: char,
        out: &mut Vec<AnswerDelta>,
        read: impl Fn(&str) -> Option<(Value, usize)>,
    ) -> bool {
        if self.held.trim_start().chars().next().is_some_and(|first| first != open) {
            emit_arguments("{}", out);
            return self.end(out);
        }
        let Some((value, len)) = read(&self.held) else { return self.wait(State::Named) };
        self.held.drain(..len);
        emit_arguments(&value.to_string(), out);
        self.end(out)
    }

    fn before_json(&mut self, out: &mut Vec<AnswerDelta>) -> bool {
        let is_mark = |word: &&String| word.len() > 1 && word.starts_with(['<', '[']);
        let marks: Vec<String> = self.openers.iter().chain(&self.after).filter(is_mark).cloned().collect();
        let ends_at = first_of(&self.held, &marks).map(|(at, _)| at);
        match (self.held.find('{'), ends_at) {
            (Some(brace), end) if end.is_none_or(|end| brace < end) => {
                self.held.drain(..brace);
                self.go(State::Arguments(JsonScan::default()))
            }
            (_, Some(end)) => {
                self.held.drain(..end);
                emit_arguments("{}", out);
                self.end(out)
            }
            _ => self.wait(State::Named),
        }
    }

    fn arguments(&mut self, mut scan: JsonScan, out: &mut Vec<AnswerDelta>) -> bool {
        match scan.end(&self.held) {
            Some(len) => {
                let rest = self.held.split_off(len);
                emit_arguments(&std::mem::replace(&mut self.held, rest), out);
                self.end(out)
            }
            None => {
                emit_arguments(&std::mem::take(&mut self.held), out);
                self.wait(State::Arguments(scan))
            }
        }
    }

    fn tags(&self) -> Option<&Tags> {
        match &self.format.body {
            CallBody::Tagged(tags) => Some(tags),
            _ => None,
        }
    }

    /// Before a key, or at the end of a tagged call.
    fn between(&mut self, mut call: TaggedCall, out: &mut Vec<AnswerDelta>) -> bool {
        let Some(tags) = self.tags().cloned() else { return self.end(out) };
        let blanks = self.held.len() - self.held.trim_start().len();
        let mut rest = &self.held[blanks..];
        // Behind the name stand the words that belong to it.
        let between = literal(&self.format.between);
        if call.n_arguments == 0 && !between.trim().is_empty() {
            match begins(rest, between.trim()) {
                Some(true) => rest = rest[between.trim().len()..].trim_start(),
                Some(false) => return self.wait(State::Between(call)),
                None => {}
            }
        }
        let key_open = tags.key_open.trim();
        if rest.is_empty() {
            return self.wait(State::Between(call));
        }
        match begins(rest, key_open) {
            Some(false) if !self.ended => self.wait(State::Between(call)),
            Some(true) => {
                let inside = &rest[key_open.len()..];
                let marks = [tags.before_string.trim_end().to_owned(), tags.before_other.trim_end().to_owned()];
                let Some((at, idx)) = first_of(inside, &marks) else { return self.wait(State::Between(call)) };
                // The whole of both marks must have come, to tell one from the other.
                let key = inside[..at].trim().to_owned();
                let says_string = (marks[0] != marks[1]).then_some(idx == 0);
                let taken = self.held.len() - inside.len() + at + marks[idx].len();
                self.held.drain(..taken);
                let streams = says_string.unwrap_or_else(|| self.is_string(&call.name, &key));
                let lead = if call.n_arguments == 0 { "{" } else { ", " };
                emit_arguments(&format!("{lead}{}: ", Value::String(key.clone())), out);
                call.n_arguments += 1;
                self.go(State::Value(call, TaggedValue { key, streams, begun: false, has_streamed: false }))
            }
            _ => {
                let passed = self.held.len() - rest.len();
                self.held.drain(..passed);
                emit_arguments(if call.n_arguments == 0 { "{}" } else { "}" }, out);
                self.end(out)
            }
        }
    }

    fn schema(&self, name: &str, key: &str) -> Option<(&Value, &Value)> {
        let tool = self.tools.iter().find(|tool| tool.name == name)?;
        Some((tool.parameters.get("properties")?.get(key)?, &tool.parameters))
    }

    /// Can the argument be nothing but a string?
    fn is_string(&self, name: &str, key: &str) -> bool {
        let types = self.schema(name, key).and_then(|(schema, root)| types_of(schema, root));
        types.is_some_and(|types| !types.is_empty() && types.iter().all(|kind| *kind == "string"))
    }

    fn value(&mut self, call: TaggedCall, mut value: TaggedValue, out: &mut Vec<AnswerDelta>) -> bool {
        let Some(tags) = self.tags().cloned() else { return self.end(out) };
        let has_lines = tags.before_string.ends_with('\n');
        if has_lines && !value.begun {
            if self.held.is_empty() {
                return self.wait(State::Value(call, value));
            }
            let line_end = usize::from(self.held.starts_with('\n'));
            self.held.drain(..line_end);
            value.begun = true;
        }
        let close = [tags.value_close.trim().to_owned()];
        match first_of(&self.held, &close) {
            Some((at, _)) => {
                let text = &self.held[..at];
                let text = text.strip_suffix('\n').filter(|_| has_lines).unwrap_or(text).to_owned();
                self.held.drain(..at + close[0].len());
                let end = match value.streams {
                    true => escaped(&text) + "\"",
                    false => self.typed(&call.name, &value.key, &text).to_string(),
                };
                let quote = if value.streams && !value.has_streamed { "\"" } else { "" };
                emit_arguments(&format!("{quote}{end}"), out);
                self.go(State::Between(call))
            }
            None => {
                if value.streams && !self.ended {
                    let certain = self.held.len() - partial(&self.held, &close);
                    let certain = self.held[..certain].trim_end_matches('\n').len();
                    let rest = self.held.split_off(certain);
                    let text = std::mem::replace(&mut self.held, rest);
                    let quote = if value.has_streamed { "" } else { "\"" };
                    if !text.is_empty() {
                        emit_arguments(&format!("{quote}{}", escaped(&text)), out);
                        value.has_streamed = true;
                    }
                }
                self.wait(State::Value(call, value))
            }
        }
    }

    /// The value that a tagged text means under the schema of its argument.
    fn typed(&self, name: &str, key: &str, text: &str) -> Value {
        let types = self.schema(name, key).and_then(|(schema, root)| types_of(schema, root));
        let string = || Value::String(text.to_owned());
        let Some(read) = literals::whole(text.trim()) else { return string() };
        let is_kind = |kind: &&str| match &read {
            Value::Null => *kind == "null",
            Value::Bool(_) => *kind == "boolean",
            Value::Number(_) => *kind == "number" || *kind == "integer",
            Value::String(_) => false,
            Value::Array(_) => *kind == "array",
            Value::Object(_) => *kind == "object",
        };
        match types {
            Some(types) if types.contains(&"string") && !types.iter().any(is_kind) => string(),
            None if read.is_string() => string(),
            _ => read,
        }
    }

    fn after(&mut self) -> bool {
        let blanks = self.held.len() - self.held.trim_start().len();
        self.held.drain(..blanks);
        self.raw.clear();
        if self.held.is_empty() {
            return self.wait(State::After);
        }
        if let Some(opener) = self.openers.iter().find(|opener| self.held.starts_with(opener.as_str())) {
            let len = opener.len();
            self.pass(len);
            return self.go(State::Opened);
        }
        if let Some(word) = self.after.iter().find(|word| self.held.starts_with(word.as_str())) {
            self.held.drain(..word.len());
            return self.go(State::After);
        }
        let may_begin = |word: &String| word.starts_with(&self.held);
        if !self.ended && (self.openers.iter().any(may_begin) || self.after.iter().any(may_begin)) {
            return self.wait(State::After);
        }
        if let Some(state) = self.mark_behind_call() {
            return state;
        }
        let is_json = matches!(self.format.body, CallBody::Object { .. } | CallBody::Keyed);
        if is_json && self.held.starts_with('{') {
            return self.go(State::Object(ObjectCall::certain(&self.format.body)));
        }
        if self.format.body == CallBody::Python && !self.held.starts_with('<') {
            return self.go(State::Opened);
        }
        self.drops_blanks = !self.has_text;
        self.go(State::Text)
    }
}

fn emit_arguments(text: &str, out: &mut Vec<AnswerDelta>) {
    if text.is_empty() {
        return;
    }
    match out.last_mut() {
        Some(AnswerDelta::CallArguments(last)) => last.push_str(text),
        _ => out.push(AnswerDelta::CallArguments(text.to_owned())),
    }
}

/// `text` as the inside of a JSON string.
fn escaped(text: &str) -> String {
    let quoted = Value::String(text.to_owned()).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}
