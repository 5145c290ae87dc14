//! Where control tokens stand in a prompt.
//!
//! llama.cpp's tokenizer can read control tokens in a whole text or in none of it. Here every byte of a prompt has an
//! origin, and a control token counts only where all of its spelling comes from a template. What lies between the
//! special tokens is then plain text whose border the joined text would have as well, so that splitting a prompt into
//! segments changes nothing about its tokens.

use std::ops::Range;

use aho_corasick::{AhoCorasick, BuildError};
use ingle_engine::{Segment, SpecialTokens, TokenId};

/// A vocabulary entry that is matched whole, before anything else is done to a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpecialToken {
    pub id: TokenId,
    /// Not empty.
    pub spelling: Vec<u8>,
    /// Only text from a template may become this token; others are matched everywhere.
    pub needs_template: bool,
    /// White space before it belongs to it.
    pub strips_left: bool,
    /// White space behind it belongs to it.
    pub strips_right: bool,
}

/// A part of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// A special token.
    Token(TokenId),
    /// Bytes of the joined text that hold no special token.
    Text(Range<usize>),
}

/// Finds special tokens as llama.cpp does: the longest spelling first, over the whole text, then the next.
#[derive(Debug)]
pub(crate) struct Partitioner {
    /// By length of the spelling, the longest first.
    tokens: Vec<SpecialToken>,
    /// Pattern `i` is the spelling of `tokens[i]`.
    finder: AhoCorasick,
}

impl Partitioner {
    /// A partitioner for these tokens.
    pub(crate) fn new(mut tokens: Vec<SpecialToken>) -> Result<Self, BuildError> {
        tokens.retain(|token| !token.spelling.is_empty());
        tokens.sort_by_key(|token| std::cmp::Reverse(token.spelling.len()));
        let finder = AhoCorasick::new(tokens.iter().map(|token| &token.spelling))?;
        Ok(Self { tokens, finder })
    }

    /// Splits the join of `segments`, which is `text`.
    pub(crate) fn split(&self, segments: &[Segment], text: &str) -> Vec<Part> {
        let mut parts = vec![Part::Text(0..text.len())];
        let templates = template_ranges(segments);
        for (token_idx, starts) in self.occurrences(text, &templates) {
            let token = &self.tokens[token_idx];
            parts = parts.into_iter().flat_map(|part| cut(part, token, &starts, text.as_bytes())).collect();
        }
        parts.retain(|part| !matches!(part, Part::Text(range) if range.is_empty()));
        parts
    }

    /// Every place where a token may stand, by token, the longest first; places ascend and may overlap.
    fn occurrences(&self, text: &str, templates: &[Range<usize>]) -> Vec<(usize, Vec<usize>)> {
        let mut found: Vec<(usize, usize)> = self
            .finder
            .find_overlapping_iter(text)
            .filter(|hit| {
                !self.tokens[hit.pattern().as_usize()].needs_template || is_within(templates, hit.start()..hit.end())
            })
            .map(|hit| (hit.pattern().as_usize(), hit.start()))
            .collect();
        found.sort_unstable();
        let group = |group: &[(usize, usize)]| (group[0].0, group.iter().map(|&(_, start)| start).collect());
        found.chunk_by(|a, b| a.0 == b.0).map(group).collect()
    }
}

/// Ranges of the joined text that come from a template, neighbours merged.
fn template_ranges(segments: &[Segment]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    for segment in segments {
        let end = start + segment.text.len();
        match (segment.special, ranges.last_mut()) {
            (SpecialTokens::Plain, _) => {}
            (SpecialTokens::Parse, Some(last)) if last.end == start => last.end = end,
            (SpecialTokens::Parse, _) => ranges.push(start..end),
        }
        start = end;
    }
    ranges
}

fn is_within(ranges: &[Range<usize>], inner: Range<usize>) -> bool {
    let after = ranges.partition_point(|range| range.start <= inner.start);
    after.checked_sub(1).is_some_and(|idx| inner.end <= ranges[idx].end)
}

/// Cuts `token` out of a part at those of its `starts` that lie inside.
fn cut(part: Part, token: &SpecialToken, starts: &[usize], text: &[u8]) -> Vec<Part> {
    let Part::Text(range) = part else { return vec![part] };
    let mut parts = Vec::new();
    let mut rest = range;
    let first = starts.partition_point(|&start| start < rest.start);
    for &start in &starts[first..] {
        let end = start + token.spelling.len();
        if start < rest.start {
            continue;
        }
        if end > rest.end {
            break;
        }
        let left_end = if token.strips_left { skip_back(text, rest.start, start) } else { start };
        parts.push(Part::Text(rest.start..left_end));
        parts.push(Part::Token(token.id));
        rest.start = if token.strips_right { skip_ahead(text, end, rest.end) } else { end };
    }
    parts.push(Part::Text(rest));
    parts
}

/// White space as C's `isspace` has it.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn skip_back(text: &[u8], start: usize, mut end: usize) -> usize {
    while end > start && is_space(text[end - 1]) {
        end -= 1;
    }
    end
}

fn skip_ahead(text: &[u8], mut start: usize, end: usize) -> usize {
    while start < end && is_space(text[start]) {
        start += 1;
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: TokenId, spelling: &str, needs_template: bool) -> SpecialToken {
        let spelling = spelling.as_bytes().to_vec();
        SpecialToken { id, spelling, needs_template, strips_left: false, strips_right: false }
    }

    fn partitioner() -> Partitioner {
        let mut mask = token(4, "[MASK]", false);
        (mask.strips_left, mask.strips_right) = (true, true);
        let tokens = vec![token(1, "<s>", true), token(2, "<think>", false), token(3, "<s><s>", true), mask];
        Partitioner::new(tokens).unwrap()
    }

    /// Parts as text: tokens as their id in brackets.
    fn check(segments: &[Segment], expected: &str) {
        let text: String = segments.iter().map(|segment| segment.text.as_str()).collect();
        let parts = partitioner().split(segments, &text);
        let shown = parts.into_iter().map(|part| match part {
            Part::Token(id) => format!("[{id}]"),
            Part::Text(range) => format!("({})", &text[range]),
        });
        assert_eq!(shown.collect::<String>(), expected, "for {segments:?}");
    }

    #[test]
    fn special_tokens_are_found_where_they_may_be() {
        let parse = |text: &str| Segment::parse(text);
        let plain = |text: &str| Segment::plain(text);
        check(&[], "");
        check(&[parse("a<s>b")], "(a)[1](b)");
        check(&[plain("a<s>b")], "(a<s>b)");
        check(&[parse("<s>"), plain("<s>"), parse("<s>")], "[1](<s>)[1]");
        check(&[parse("a<"), parse("s>b")], "(a)[1](b)");
        check(&[parse("a<"), plain("s>b")], "(a<s>b)");
        check(&[plain("a<"), parse("s>b")], "(a<s>b)");
        check(&[plain("x<think>y")], "(x)[2](y)");
        check(&[plain("<thi"), parse("nk>")], "[2]");
        check(&[parse("<s><s><s>")], "[3][1]");
        check(&[parse("a"), plain("b"), parse("c")], "(abc)");
        check(&[plain("a \n[MASK]\t b")], "(a)[4](b)");
        check(&[parse("é<s>ü")], "(é)[1](ü)");
    }
}
