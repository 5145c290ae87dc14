//! Splits generated text into reasoning and answer while it streams.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// A piece of generated text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReasoningDelta {
    /// Part of the answer.
    Text(String),
    /// Part of the reasoning before it.
    Reasoning(String),
}

/// How a model marks its reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasoningFormat {
    /// It does not: all text is answer.
    None,
    /// Between two tags at the start of the text.
    Tags {
        /// What opens it.
        open: &'static str,
        /// What closes it.
        close: &'static str,
        /// Did the prompt open it already?
        opened: bool,
    },
    /// Messages with channels, as gpt-oss writes them.
    Harmony,
}

const TAGS: [(&str, &str); 6] = [
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<reasoning>", "</reasoning>"),
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
];

const CHANNEL: &str = "<|channel|>";

/// Tags of an operator, beside those that are known.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReasoningTags<'a> {
    /// What opens and closes a reasoning.
    pub pairs: &'a [(String, String)],
    /// What opens a reasoning where a prompt ends with it.
    pub start_tokens: &'a [String],
}

impl ReasoningFormat {
    /// Reads the format off a template's source and the end of the prompt it rendered.
    pub fn detect(template_source: &str, rendered_tail: &str) -> Self {
        Self::detect_with(template_source, rendered_tail, ReasoningTags::default())
    }

    /// As [`ReasoningFormat::detect`]; the operator's tags are looked at first, and need not be in the template.
    pub fn detect_with(template_source: &str, rendered_tail: &str, own: ReasoningTags<'_>) -> Self {
        let pairs: Vec<_> = own.pairs.iter().map(|(open, close)| (kept(open), kept(close))).collect();
        if pairs.is_empty() && template_source.contains(CHANNEL) && template_source.contains("analysis") {
            return ReasoningFormat::Harmony;
        }
        let tail = rendered_tail.trim_end();
        let known = |(open, close): &(&str, &str)| template_source.contains(open) || template_source.contains(close);
        // A prompt that ends by opening a block settles it; else the source tells.
        let opened = pairs.iter().copied().chain(TAGS).find(|(open, _)| tail.ends_with(open.trim_end()));
        let started = || {
            let open =
                own.start_tokens.iter().find(|token| !token.trim().is_empty() && tail.ends_with(token.trim_end()));
            let close =
                || pairs.first().copied().or_else(|| TAGS.into_iter().find(known)).map_or("</think>", |pair| pair.1);
            open.map(|open| (kept(open), close()))
        };
        let opened = opened.or_else(started);
        match opened.or_else(|| pairs.first().copied()).or_else(|| TAGS.into_iter().find(known)) {
            Some((open, close)) => ReasoningFormat::Tags { open, close, opened: opened.is_some() },
            None => ReasoningFormat::None,
        }
    }
}

/// `text` for as long as the process lives: the tags of configurations are few, and none comes from a client.
fn kept(text: &str) -> &'static str {
    static KEPT: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = kept.get(text) {
        return known;
    }
    let text: &'static str = Box::leak(text.to_owned().into_boxed_str());
    kept.insert(text);
    text
}

impl ReasoningFormat {
    /// The text behind which the answer begins; `None` where the answer may begin at once.
    pub fn answer_begins_behind(self) -> Option<&'static str> {
        match self {
            ReasoningFormat::Harmony => Some("<|channel|>final<|message|>"),
            ReasoningFormat::Tags { opened: true, close, .. } => Some(close),
            ReasoningFormat::Tags { opened: false, .. } | ReasoningFormat::None => None,
        }
    }
}

/// Where in the text the splitter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but white space so far.
    Start,
    /// Inside the reasoning; white space before its first character is dropped.
    Reasoning,
    /// Between reasoning and answer: white space is dropped.
    Between,
    /// In the answer: everything goes through.
    Answer,
}

/// Splits one generated text. Feed it every delta, then [`ReasoningSplitter::finish`].
///
/// Text that may be the beginning of a tag, and white space that may end the reasoning, is held back.
#[derive(Debug, Clone)]
pub struct ReasoningSplitter {
    format: ReasoningFormat,
    state: State,
    held: String,
    /// Has this reasoning block shown a character yet?
    begun: bool,
}

impl ReasoningSplitter {
    /// A splitter at the start of a text.
    pub fn new(format: ReasoningFormat) -> Self {
        let state = match format {
            ReasoningFormat::None | ReasoningFormat::Harmony => State::Answer,
            ReasoningFormat::Tags { opened: true, .. } => State::Reasoning,
            ReasoningFormat::Tags { opened: false, .. } => State::Start,
        };
        Self { format, state, held: String::new(), begun: false }
    }

    /// Takes a delta and gives back what is certain.
    pub fn push(&mut self, delta: &str) -> Vec<ReasoningDelta> {
        self.held.push_str(delta);
        let mut out = Vec::new();
        while self.step(&mut out) {}
        out
    }

    /// Is the text inside the reasoning right now?
    pub fn is_reasoning(&self) -> bool {
        self.state == State::Reasoning
    }

    /// The text has ended: gives back what was held.
    pub fn finish(&mut self) -> Vec<ReasoningDelta> {
        let held = std::mem::take(&mut self.held);
        let mut out = Vec::new();
        match self.state {
            State::Start | State::Answer => emit(&mut out, ReasoningDelta::Text, &held),
            State::Reasoning => self.reasoning(held.trim_end(), &mut out),
            State::Between => emit(&mut out, ReasoningDelta::Text, held.trim_start()),
        }
        out
    }

    /// One transition; true when there may be another.
    fn step(&mut self, out: &mut Vec<ReasoningDelta>) -> bool {
        match self.state {
            State::Start => self.start(),
            State::Reasoning => self.in_reasoning(out),
            State::Between => self.between(),
            State::Answer => {
                emit(out, ReasoningDelta::Text, &std::mem::take(&mut self.held));
                false
            }
        }
    }

    fn tags(&self) -> Option<(&'static str, &'static str)> {
        match self.format {
            ReasoningFormat::Tags { open, close, .. } => Some((open, close)),
            ReasoningFormat::None | ReasoningFormat::Harmony => None,
        }
    }

    fn start(&mut self) -> bool {
        let text = self.held.trim_start();
        let open = self.tags().map_or("", |(open, _)| open);
        if let Some(inside) = text.strip_prefix(open) {
            self.held = inside.to_owned();
            self.state = State::Reasoning;
            return true;
        }
        let undecided = open.starts_with(text);
        if !undecided {
            self.state = State::Answer;
        }
        !undecided
    }

    fn in_reasoning(&mut self, out: &mut Vec<ReasoningDelta>) -> bool {
        let close = self.tags().map_or("", |(_, close)| close);
        match self.held.find(close) {
            Some(at) => {
                let held = std::mem::take(&mut self.held);
                self.reasoning(held[..at].trim_end(), out);
                self.begun = false;
                self.state = State::Between;
                self.held = held[at + close.len()..].to_owned();
                true
            }
            None => {
                let certain = self.held.len() - partial(&self.held, close);
                let certain = self.held[..certain].trim_end().len();
                let rest = self.held.split_off(certain);
                let text = std::mem::replace(&mut self.held, rest);
                self.reasoning(&text, out);
                false
            }
        }
    }

    fn reasoning(&mut self, text: &str, out: &mut Vec<ReasoningDelta>) {
        let text = if self.begun { text } else { text.trim_start() };
        self.begun |= !text.is_empty();
        emit(out, ReasoningDelta::Reasoning, text);
    }

    fn between(&mut self) -> bool {
        self.held = self.held.trim_start().to_owned();
        if self.held.is_empty() {
            return false;
        }
        self.state = State::Answer;
        true
    }
}

fn emit(out: &mut Vec<ReasoningDelta>, kind: fn(String) -> ReasoningDelta, text: &str) {
    if !text.is_empty() {
        out.push(kind(text.to_owned()));
    }
}

/// Bytes at the end of `text` that may begin `mark`.
fn partial(text: &str, mark: &str) -> usize {
    let begins = |len: &usize| mark.is_char_boundary(*len) && text.ends_with(&mark[..*len]);
    (1..mark.len()).rev().find(begins).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reasoning and the answer, fed in pieces of `size` characters.
    fn split(format: ReasoningFormat, text: &str, size: usize) -> (String, String) {
        let mut splitter = ReasoningSplitter::new(format);
        let chars: Vec<char> = text.chars().collect();
        let mut deltas: Vec<ReasoningDelta> =
            chars.chunks(size).flat_map(|piece| splitter.push(&piece.iter().collect::<String>())).collect();
        deltas.extend(splitter.finish());
        let (mut reasoning, mut answer) = (String::new(), String::new());
        for delta in deltas {
            match delta {
                ReasoningDelta::Text(text) => answer.push_str(&text),
                ReasoningDelta::Reasoning(text) => reasoning.push_str(&text),
            }
        }
        (reasoning, answer)
    }

    #[test]
    fn splits_alike_however_the_text_is_cut() {
        let think = |opened| ReasoningFormat::Tags { open: "<think>", close: "</think>", opened };
        let seed = ReasoningFormat::detect("x '</seed:think>' y", "");
        let cases = [
            (think(false), "<think>\nwhy\n\nso\n</think>\n\nYes <b>.", "why\n\nso", "Yes <b>."),
            (think(false), " \n<think></think>ok", "", "ok"),
            (think(false), "no tags </think> here", "", "no tags </think> here"),
            (think(false), "  <thin air", "", "  <thin air"),
            (think(true), "because\n</think>\n4", "because", "4"),
            (think(true), "never closed </thi", "never closed </thi", ""),
            (ReasoningFormat::None, "<think>a</think>", "", "<think>a</think>"),
            (seed, "<seed:think>s</seed:think>t", "s", "t"),
        ];
        for (format, text, reasoning, answer) in cases {
            for size in [1, 2, 3, 7, 1000] {
                let expected = (reasoning.to_owned(), answer.to_owned());
                assert_eq!(split(format, text, size), expected, "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn the_prompt_may_have_opened_the_block() {
        let opened = ReasoningFormat::detect("'<think>\\n'", "<|Assistant|><think>\n");
        assert!(matches!(opened, ReasoningFormat::Tags { opened: true, .. }));
        let closed = ReasoningFormat::detect("'<think>\\n'", "<think>\n\n</think>\n\n");
        assert!(matches!(closed, ReasoningFormat::Tags { opened: false, .. }));
        assert_eq!(ReasoningFormat::detect("plain", "tail"), ReasoningFormat::None);
    }

    #[test]
    fn an_operator_may_name_the_tags() {
        let pairs = [("<plan>".to_owned(), "</plan>".to_owned())];
        let tags = ReasoningTags { pairs: &pairs, start_tokens: &[] };
        let found = ReasoningFormat::detect_with("plain", "tail", tags);
        assert_eq!(found, ReasoningFormat::Tags { open: "<plan>", close: "</plan>", opened: false });
        let opened = ReasoningFormat::detect_with("<think>", "tail<plan>\n", tags);
        assert_eq!(opened, ReasoningFormat::Tags { open: "<plan>", close: "</plan>", opened: true });
        let start = ["Thoughts:".to_owned()];
        let tags = ReasoningTags { pairs: &[], start_tokens: &start };
        let started = ReasoningFormat::detect_with("plain", "tail Thoughts:", tags);
        assert_eq!(started, ReasoningFormat::Tags { open: "Thoughts:", close: "</think>", opened: true });
        assert_eq!(ReasoningFormat::detect_with("plain", "tail", tags), ReasoningFormat::None);
    }
}
