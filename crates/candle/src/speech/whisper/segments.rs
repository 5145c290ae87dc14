//! From the tokens of one recording to segments with times, and where to go on listening.

use super::vocabulary::{TIMESTAMP_SECS, Vocabulary};

/// A piece of text with its times, in seconds from the start of the recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// When it begins.
    pub start_secs: f64,
    /// When it ends.
    pub end_secs: f64,
    /// Its tokens, timestamps included.
    pub tokens: Vec<u32>,
}

/// The segments of a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Spans {
    /// In order.
    pub spans: Vec<Span>,
    /// From where to go on listening: what comes behind was cut off in the middle. None: all was written.
    pub resume_secs: Option<f64>,
}

/// Cuts `tokens` at pairs of timestamps; the recording has `duration_secs`.
pub fn spans(tokens: &[u32], vocabulary: &Vocabulary, duration_secs: f64) -> Spans {
    let first = vocabulary.first_timestamp();
    let is_time = |at: usize| tokens.get(at).is_some_and(|&token| token >= first);
    let secs = |token: u32| f64::from(token.saturating_sub(first)) * TIMESTAMP_SECS;
    let n = tokens.len();
    let ends_alone = n >= 2 && !is_time(n - 2) && is_time(n - 1);
    let mut cuts: Vec<usize> = (1..n).filter(|&at| is_time(at - 1) && is_time(at)).collect();
    if cuts.is_empty() {
        let last = tokens.iter().rev().find(|token| **token >= first).map(|&token| secs(token));
        let end_secs = last.filter(|&secs| secs > 0.0).unwrap_or(duration_secs);
        let span = Span { start_secs: 0.0, end_secs, tokens: tokens.to_vec() };
        return Spans { spans: vec![span], resume_secs: None };
    }
    if ends_alone {
        cuts.push(n);
    }
    let mut spans = Vec::new();
    let mut from = 0;
    for cut in cuts {
        let piece = &tokens[from..cut];
        let (start_secs, end_secs) = (secs(piece[0]), secs(piece[piece.len() - 1]));
        spans.push(Span { start_secs, end_secs, tokens: piece.to_vec() });
        from = cut;
    }
    let resume_secs = if ends_alone { None } else { spans.last().map(|span| span.end_secs) };
    // A recording that gives no progress would be heard for ever.
    Spans { spans, resume_secs: resume_secs.filter(|&secs| secs > 0.0) }
}

/// Bytes of a text for each byte of it compressed: high where it repeats itself.
pub fn compression_ratio(text: &str) -> f64 {
    use std::io::Write as _;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    let compressed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    compressed.map_or(1.0, |compressed| text.len() as f64 / compressed.len() as f64)
}

#[cfg(test)]
mod tests;
