//! From a rendered text with origins to segments for the tokenizer.

use aho_corasick::{AhoCorasick, MatchKind};
use ingle_engine::{Segment, SpecialTokens};

use crate::error::PromptError;
use crate::jinja::{Origin, Text};

/// The spellings of a vocabulary's control tokens.
#[derive(Debug, Clone, Default)]
pub struct ControlTokens {
    /// None while the spellings are unknown.
    finder: Option<AhoCorasick>,
    spellings: Vec<String>,
}

impl ControlTokens {
    /// Prepares the search for `spellings`, which may be thousands. Empty ones are ignored.
    ///
    /// # Errors
    /// [`PromptError::Input`] when there are too many to search for.
    pub fn new(spellings: &[String]) -> Result<Self, PromptError> {
        let spellings: Vec<String> = spellings.iter().filter(|text| !text.is_empty()).cloned().collect();
        if spellings.is_empty() {
            return Ok(Self::default());
        }
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&spellings);
        match finder {
            Ok(finder) => Ok(Self { finder: Some(finder), spellings }),
            Err(_) => {
                Err(PromptError::Input { field: "control_tokens".into(), expected: "fewer and shorter spellings" })
            }
        }
    }

    /// Is `spelling` one of them?
    pub fn contains(&self, spelling: &str) -> bool {
        self.spellings.iter().any(|known| known == spelling)
    }

    /// Is one of them spelled somewhere in `text`?
    pub fn occur_in(&self, text: &str) -> bool {
        self.finder.as_ref().is_some_and(|finder| finder.is_match(text))
    }

    /// Cuts `text` so that exactly the control tokens that its template wrote, character for character, may be parsed.
    ///
    /// Everything between two of them is one plain segment, template text and client text together, so that the tokenizer
    /// merges across their border as it does for the reference. Without known spellings every template run is parsed.
    pub(crate) fn segments(&self, text: &Text) -> Vec<Segment> {
        let mut segments = Vec::new();
        let whole = text.as_str();
        for (range, origin) in text.runs_in(0..text.len()) {
            let run = &whole[range];
            match (&self.finder, origin) {
                (_, Origin::Client) => push(&mut segments, run, SpecialTokens::Plain),
                (None, Origin::Template) => push(&mut segments, run, SpecialTokens::Parse),
                (Some(finder), Origin::Template) => {
                    let mut from = 0;
                    for found in finder.find_iter(run) {
                        push(&mut segments, &run[from..found.start()], SpecialTokens::Plain);
                        push(&mut segments, &run[found.range()], SpecialTokens::Parse);
                        from = found.end();
                    }
                    push(&mut segments, &run[from..], SpecialTokens::Plain);
                }
            }
        }
        segments
    }
}

fn push(segments: &mut Vec<Segment>, text: &str, special: SpecialTokens) {
    if text.is_empty() {
        return;
    }
    match segments.last_mut() {
        Some(last) if last.special == special => last.text.push_str(text),
        _ => segments.push(Segment { text: text.to_owned(), special }),
    }
}

/// A prompt, ready for the tokenizer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RenderedPrompt {
    /// The prompt in order. Only [`SpecialTokens::Parse`] segments may become control tokens, and no character of a
    /// client is in one.
    pub segments: Vec<Segment>,
}

impl RenderedPrompt {
    /// The whole prompt, byte for byte what the template renders.
    pub fn text(&self) -> String {
        self.segments.iter().map(|segment| segment.text.as_str()).collect()
    }
}
