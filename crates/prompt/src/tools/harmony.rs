//! Messages with channels, as gpt-oss models write them: reasoning, text and calls in one stream.
//!
//! A message is `<|start|>assistant<|channel|>NAME to=WHOM<|message|>…<|end|>`; the prompt has written the first of its
//! header. `analysis` is reasoning, what is addressed to `functions.NAME` is a call, all else is text.

use super::parser::AnswerDelta;
use super::scan::{JsonScan, first_of, partial};

const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const START: &str = "<|start|>";
const BODY_ENDS: [&str; 4] = ["<|end|>", "<|return|>", "<|call|>", START];
/// What a text that begins with a header may begin with.
const HEADERS: [&str; 3] = [CHANNEL, START, "to="];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Text,
    Reasoning,
    Call,
    /// A call of something that is no function: nothing that a client could answer.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but white space so far.
    Start,
    /// In a header, up to its `<|message|>`.
    Header,
    Body(Body),
}

/// Splits a text of messages. Feed it every delta, then [`HarmonyParser::finish`].
#[derive(Debug, Clone)]
pub(super) struct HarmonyParser {
    state: State,
    held: String,
    ends: Vec<String>,
    /// Looks for the end of a call's arguments.
    arguments: JsonScan,
    /// The arguments of this call are whole.
    is_whole: bool,
    /// Has this body shown a character yet?
    begun: bool,
    has_text: bool,
}

impl HarmonyParser {
    pub fn new() -> Self {
        let ends = BODY_ENDS.map(String::from).to_vec();
        let (state, held, arguments) = (State::Start, String::new(), JsonScan::default());
        Self { state, held, ends, arguments, is_whole: false, begun: false, has_text: false }
    }

    pub fn is_reasoning(&self) -> bool {
        self.state == State::Body(Body::Reasoning)
    }

    pub fn push(&mut self, delta: &str) -> Vec<AnswerDelta> {
        self.held.push_str(delta);
        let mut out = Vec::new();
        while self.step(&mut out) {}
        out
    }

    /// The text has ended. Arguments that are a whole object end their call, also without its end mark.
    pub fn finish(&mut self) -> Vec<AnswerDelta> {
        let mut out = Vec::new();
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Start => self.emit(Body::Text, &held, &mut out),
            State::Header => {}
            State::Body(body) => {
                self.emit(body, held.trim_end(), &mut out);
                if body == Body::Call && self.is_whole {
                    out.push(AnswerDelta::CallEnd);
                }
            }
        }
        out
    }

    fn step(&mut self, out: &mut Vec<AnswerDelta>) -> bool {
        match self.state {
            State::Start => self.start(),
            State::Header => self.header(out),
            State::Body(body) => self.body(body, out),
        }
    }

    fn start(&mut self) -> bool {
        let text = self.held.trim_start();
        if HEADERS.iter().any(|mark| text.starts_with(mark)) {
            self.state = State::Header;
            return true;
        }
        let undecided = HEADERS.iter().any(|mark| mark.starts_with(text));
        if !undecided {
            self.state = State::Body(Body::Text);
        }
        !undecided
    }

    fn header(&mut self, out: &mut Vec<AnswerDelta>) -> bool {
        let Some(at) = self.held.find(MESSAGE) else { return false };
        let body = self.held.split_off(at + MESSAGE.len());
        let header = std::mem::replace(&mut self.held, body);
        let channel = header.split(CHANNEL).nth(1).unwrap_or_default().trim_start();
        let words = header.split(|c: char| c.is_whitespace() || c == '<');
        let addressee = words.into_iter().find_map(|word| word.strip_prefix("to="));
        self.begun = false;
        let kind = match addressee {
            Some(addressee) => match addressee.strip_prefix("functions.") {
                Some(name) if !name.is_empty() => {
                    (self.arguments, self.is_whole) = (JsonScan::default(), false);
                    out.push(AnswerDelta::CallStart { name: name.to_owned() });
                    Body::Call
                }
                None if addressee == "user" || addressee == "all" => Body::Text,
                Some(_) | None => Body::Other,
            },
            None if channel.starts_with("analysis") => Body::Reasoning,
            None => Body::Text,
        };
        self.state = State::Body(kind);
        true
    }

    fn body(&mut self, body: Body, out: &mut Vec<AnswerDelta>) -> bool {
        if let Some((at, idx)) = first_of(&self.held, &self.ends) {
            let text = self.held[..at].trim_end().to_owned();
            self.emit(body, &text, out);
            if body == Body::Call {
                if !self.begun {
                    self.emit(body, "{}", out);
                }
                out.push(AnswerDelta::CallEnd);
            }
            // The start of the next message belongs to its header.
            let passed = if self.ends[idx] == START { at } else { at + self.ends[idx].len() };
            self.held.drain(..passed);
            self.state = State::Header;
            return true;
        }
        let certain = self.held.len() - partial(&self.held, &self.ends);
        let certain = self.held[..certain].trim_end().len();
        let rest = self.held.split_off(certain);
        let text = std::mem::replace(&mut self.held, rest);
        self.emit(body, &text, out);
        false
    }

    fn emit(&mut self, body: Body, text: &str, out: &mut Vec<AnswerDelta>) {
        let text = if self.begun { text } else { text.trim_start() };
        if text.is_empty() || body == Body::Other {
            return;
        }
        if body == Body::Call && self.arguments.end(text).is_some() {
            self.is_whole = true;
        }
        // Several messages to the reader are paragraphs of one.
        let gap = if !self.begun && body == Body::Text && self.has_text { "\n\n" } else { "" };
        let text = format!("{gap}{text}");
        self.begun = true;
        self.has_text |= body == Body::Text;
        out.push(match body {
            Body::Reasoning => AnswerDelta::Reasoning(text),
            Body::Call => AnswerDelta::CallArguments(text),
            Body::Text | Body::Other => AnswerDelta::Text(text),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str, size: usize) -> (String, String, Vec<(String, String)>) {
        let mut parser = HarmonyParser::new();
        let chars: Vec<char> = text.chars().collect();
        let mut deltas: Vec<AnswerDelta> =
            chars.chunks(size).flat_map(|piece| parser.push(&piece.iter().collect::<String>())).collect();
        deltas.extend(parser.finish());
        let (mut content, mut reasoning, mut calls) = (String::new(), String::new(), Vec::new());
        for delta in deltas {
            match delta {
                AnswerDelta::Text(text) => content.push_str(&text),
                AnswerDelta::Reasoning(text) => reasoning.push_str(&text),
                AnswerDelta::CallStart { name } => calls.push((name, String::new())),
                AnswerDelta::CallArguments(text) => calls.last_mut().expect("a call has begun").1.push_str(&text),
                AnswerDelta::CallEnd => {}
            }
        }
        (content, reasoning, calls)
    }

    #[test]
    fn channels_are_told_apart_however_the_text_is_cut() {
        let call = |name: &str, arguments: &str| vec![(name.to_owned(), arguments.to_owned())];
        let cases = [
            (
                "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>4 < 5<|return|>",
                ("4 < 5", "hm", vec![]),
            ),
            ("<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>", ("", "", call("f", "{}"))),
            (" to=functions.f<|channel|>commentary json<|message|>{\"a\": 1}", ("", "", call("f", "{\"a\": 1}"))),
            (
                "<|channel|>commentary<|message|>Look.<|end|><|start|>assistant<|channel|>commentary to=functions.f\
                 <|message|><|call|>",
                ("Look.", "", call("f", "{}")),
            ),
            ("<|channel|>analysis to=python<|message|>1+1<|call|>", ("", "", vec![])),
            ("plain", ("plain", "", vec![])),
            ("token <b>", ("token <b>", "", vec![])),
        ];
        for (text, (content, reasoning, calls)) in cases {
            for size in [1, 2, 3, 7, 1000] {
                let expected = (content.to_owned(), reasoning.to_owned(), calls.clone());
                assert_eq!(parts(text, size), expected, "{text:?} in pieces of {size}");
            }
        }
    }
}
