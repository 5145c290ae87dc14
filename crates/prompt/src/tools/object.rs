//! A call that is a JSON object, read while it arrives.

use std::sync::Arc;

use serde_json::Value;

use super::format::CallBody;
use super::parser::AnswerDelta;
use super::scan::{JsonScan, value_end};
use crate::message::Tool;

/// Keys under which models put the name, whatever their template says.
const NAME_KEYS: [&str; 3] = ["name", "tool_name", "function"];
/// Keys under which they put the arguments.
const ARGUMENT_KEYS: [&str; 4] = ["arguments", "parameters", "args", "input"];

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// There may be more to do.
    More,
    /// More text is needed.
    Wait,
    /// The call is whole.
    Done,
    /// It is no call.
    NoCall,
}

#[derive(Debug, Clone)]
enum Place {
    /// Before the `{`.
    Before,
    /// Before a key, a comma or the `}`.
    Keys,
    /// In the arguments, that go out as they come.
    Arguments(JsonScan),
}

/// A call in a JSON object.
#[derive(Debug, Clone)]
pub(super) struct ObjectCall {
    /// The object's only key is the name.
    keyed: bool,
    name_key: String,
    arguments_key: String,
    /// Names that the call may have; `None` where it is certainly a call.
    names: Option<Arc<[Tool]>>,
    place: Place,
    /// Objects around the current one that belong to the call.
    depth: usize,
    name: Option<String>,
    /// Arguments that came before the name.
    early: Option<String>,
    has_arguments: bool,
}

impl ObjectCall {
    /// An object behind the mark of a call.
    pub fn certain(body: &CallBody) -> Self {
        let (keyed, name_key, arguments_key) = match body {
            CallBody::Object { name, arguments } => (false, name.clone(), arguments.clone()),
            CallBody::Keyed => (true, String::new(), String::new()),
            _ => (false, NAME_KEYS[0].into(), ARGUMENT_KEYS[0].into()),
        };
        let (name, early) = (None, None);
        let (names, place) = (None, Place::Before);
        Self { keyed, name_key, arguments_key, names, place, depth: 0, name, early, has_arguments: false }
    }

    /// An object that is a call if it names one of `tools`.
    pub fn tentative(body: &CallBody, tools: &Arc<[Tool]>) -> Self {
        Self { names: Some(Arc::clone(tools)), ..Self::certain(body) }
    }

    /// Is the name known, and out?
    pub fn is_named(&self) -> bool {
        self.name.is_some()
    }

    /// Takes what it can from the front of `held` and remembers it in `raw`.
    pub fn step(&mut self, held: &mut String, raw: &mut String, out: &mut Vec<AnswerDelta>) -> Progress {
        let blanks = held.len() - held.trim_start().len();
        match &mut self.place {
            Place::Arguments(scan) => {
                let mut scan = scan.clone();
                let end = scan.end(held);
                self.place = if end.is_some() { Place::Keys } else { Place::Arguments(scan) };
                emit(&take(held, end.unwrap_or(held.len())), out);
                if end.is_some() { Progress::More } else { Progress::Wait }
            }
            Place::Before => {
                raw.push_str(&take(held, blanks));
                match held.chars().next() {
                    None => Progress::Wait,
                    Some('{') => {
                        raw.push_str(&take(held, 1));
                        self.place = Place::Keys;
                        Progress::More
                    }
                    Some(_) => Progress::NoCall,
                }
            }
            Place::Keys => {
                raw.push_str(&take(held, blanks));
                match held.chars().next() {
                    None => Progress::Wait,
                    Some(',') => {
                        raw.push_str(&take(held, 1));
                        Progress::More
                    }
                    Some('}') => self.close(held, raw, out),
                    Some('"') => self.key(held, raw, out),
                    Some(_) => self.torn(out),
                }
            }
        }
    }

    /// The object is broken: no call, unless its name is out already.
    fn torn(&mut self, out: &mut Vec<AnswerDelta>) -> Progress {
        if !self.is_named() {
            return Progress::NoCall;
        }
        self.give_no_arguments(out);
        Progress::Done
    }

    /// A call that says nothing of its arguments has none.
    fn give_no_arguments(&mut self, out: &mut Vec<AnswerDelta>) {
        if !std::mem::replace(&mut self.has_arguments, true) {
            emit("{}", out);
        }
    }

    fn close(&mut self, held: &mut String, raw: &mut String, out: &mut Vec<AnswerDelta>) -> Progress {
        raw.push_str(&take(held, 1));
        if self.depth > 0 {
            self.depth -= 1;
            return Progress::More;
        }
        if !self.is_named() {
            return Progress::NoCall;
        }
        self.give_no_arguments(out);
        Progress::Done
    }

    /// A key and the beginning of its value.
    fn key(&mut self, held: &mut String, raw: &mut String, out: &mut Vec<AnswerDelta>) -> Progress {
        let Some(key_end) = value_end(held) else { return Progress::Wait };
        let Ok(key) = serde_json::from_str::<String>(&held[..key_end]) else { return self.torn(out) };
        let rest = held[key_end..].trim_start();
        let Some(value) = rest.strip_prefix(':').map(str::trim_start) else {
            return if rest.is_empty() { Progress::Wait } else { self.torn(out) };
        };
        let Some(first) = value.chars().next() else { return Progress::Wait };
        let value_at = held.len() - value.len();
        if self.keyed && key.is_empty() {
            return Progress::NoCall;
        }
        if self.keyed && self.depth == 0 {
            if first != '{' && value_end(value).is_none() {
                return Progress::Wait;
            }
            raw.push_str(&take(held, value_at));
            self.named(key, out);
            return self.arguments(first, held, raw, out);
        }
        let is_name = key == self.name_key || NAME_KEYS.contains(&key.as_str());
        if is_name && first == '"' && !self.is_named() {
            return self.name(value_at, held, raw, out);
        }
        let is_wrapper = (key == "function" || key == "tool_call") && first == '{' && !self.is_named();
        if is_wrapper {
            raw.push_str(&take(held, value_at + 1));
            self.depth += 1;
            return Progress::More;
        }
        let is_arguments = key == self.arguments_key || ARGUMENT_KEYS.contains(&key.as_str());
        if is_arguments && !self.has_arguments {
            if self.names.is_some() && !self.is_named() && value_end(value).is_none() {
                return Progress::Wait;
            }
            return self.arguments_at(value_at, first, held, raw, out);
        }
        match value_end(value) {
            // What is no part of a call is passed over; in an object that may be none, it shows that it is none.
            Some(_) if self.names.is_some() && !self.is_named() && key != "type" && key != "id" => Progress::NoCall,
            Some(len) => {
                raw.push_str(&take(held, value_at + len));
                Progress::More
            }
            None => Progress::Wait,
        }
    }

    fn name(&mut self, value_at: usize, held: &mut String, raw: &mut String, out: &mut Vec<AnswerDelta>) -> Progress {
        let Some(len) = value_end(&held[value_at..]) else { return Progress::Wait };
        let Ok(name) = serde_json::from_str::<String>(&held[value_at..value_at + len]) else { return self.torn(out) };
        if name.is_empty() {
            return Progress::NoCall;
        }
        if self.names.as_ref().is_some_and(|tools| !tools.iter().any(|tool| tool.name == name)) {
            return Progress::NoCall;
        }
        raw.push_str(&take(held, value_at + len));
        self.named(name, out);
        if let Some(early) = self.early.take() {
            emit(&early, out);
        }
        Progress::More
    }

    fn named(&mut self, name: String, out: &mut Vec<AnswerDelta>) {
        self.name = Some(name.clone());
        out.push(AnswerDelta::CallStart { name });
    }

    fn arguments_at(
        &mut self,
        value_at: usize,
        first: char,
        held: &mut String,
        raw: &mut String,
        out: &mut Vec<AnswerDelta>,
    ) -> Progress {
        if first == '{' && self.is_named() {
            raw.push_str(&take(held, value_at));
            return self.arguments(first, held, raw, out);
        }
        // Before the name, and text that holds the object: kept until it is whole.
        let Some(len) = value_end(&held[value_at..]) else { return Progress::Wait };
        raw.push_str(&take(held, value_at));
        let whole = take(held, len);
        raw.push_str(&whole);
        let arguments = unwrapped(&whole);
        self.has_arguments = true;
        match self.is_named() {
            true => emit(&arguments, out),
            false => self.early = Some(arguments),
        }
        Progress::More
    }

    /// Arguments of a named call, at the front of `held`.
    fn arguments(&mut self, first: char, held: &mut String, raw: &mut String, out: &mut Vec<AnswerDelta>) -> Progress {
        if first != '{' {
            return self.arguments_at(0, first, held, raw, out);
        }
        self.has_arguments = true;
        self.place = Place::Arguments(JsonScan::default());
        Progress::More
    }
}

/// Arguments as an object, also when they were written as text of one, or as nothing.
fn unwrapped(text: &str) -> String {
    match serde_json::from_str(text) {
        Ok(Value::String(inner)) if inner.trim().is_empty() => "{}".into(),
        Ok(Value::String(inner)) => inner,
        Ok(Value::Null) => "{}".into(),
        _ => text.to_owned(),
    }
}

fn take(held: &mut String, len: usize) -> String {
    let rest = held.split_off(len);
    std::mem::replace(held, rest)
}

fn emit(text: &str, out: &mut Vec<AnswerDelta>) {
    if text.is_empty() {
        return;
    }
    match out.last_mut() {
        Some(AnswerDelta::CallArguments(last)) => last.push_str(text),
        _ => out.push(AnswerDelta::CallArguments(text.to_owned())),
    }
}
