//! From aligned words to the words of segments, by the rules of faster-whisper (`add_word_timestamps`): attention likes to
//! rest in the silence around speech, and words at the borders become too long for it.

use ingle_engine::{HeardSegment, HeardWord};

use super::align::{Aligned, TimedWord};

/// A segment's own time is taken where its word lies further off, in seconds.
const TOLERANCE_SECS: f64 = 0.5;
/// Silence of so many usual words is a pause.
const PAUSE_WORDS: f64 = 4.0;

/// Hands the words out to the segments whose tokens they are; tokens from `end` on are no text. `last_speech_secs` is when
/// the last segment before these ended.
pub fn give_words(segments: &mut [HeardSegment], aligned: Aligned, end: u32, mut last_speech_secs: f64) {
    let usual_secs = aligned.usual_secs;
    let mut words = aligned.words.into_iter().peekable();
    let (mut n_tokens, mut n_given) = (0, 0);
    for segment in segments {
        n_tokens += segment.tokens.iter().filter(|&&token| token < end).count();
        while let Some(word) = words.next_if(|_| n_given < n_tokens) {
            n_given += word.tokens.len();
            let TimedWord { text, start_secs, end_secs, probability, .. } = word;
            segment.words.push(HeardWord { text, start_secs, end_secs, probability });
        }
        if segment.words.is_empty() {
            continue;
        }
        shorten_after_pause(&mut segment.words, usual_secs, last_speech_secs);
        fit_times(segment, usual_secs);
        last_speech_secs = segment.end_secs;
    }
}

/// The first and the second word after a pause must not be longer than twice the usual.
fn shorten_after_pause(words: &mut [HeardWord], usual_secs: f64, last_speech_secs: f64) {
    let most = 2.0 * usual_secs;
    let secs = |word: &HeardWord| word.end_secs - word.start_secs;
    let (first, second) = match words {
        [] => return,
        [first] => (first, None),
        [first, second, ..] => (first, Some(second)),
    };
    let both_secs = second.as_ref().map_or(0.0, |second| second.end_secs - first.start_secs);
    let is_after_pause = first.end_secs - last_speech_secs > PAUSE_WORDS * usual_secs;
    if !is_after_pause || (secs(first) <= most && both_secs <= 2.0 * most) {
        return;
    }
    if let Some(second) = second.filter(|second| secs(second) > most) {
        let border = (second.end_secs / 2.0).max(second.end_secs - most);
        (first.end_secs, second.start_secs) = (border, border);
    }
    first.start_secs = (first.end_secs - most).max(0.0);
}

/// A segment begins and ends with its words, unless a word reaches far beyond the segment's own times.
fn fit_times(segment: &mut HeardSegment, usual_secs: f64) {
    let (start, end) = (segment.start_secs, segment.end_secs);
    let Some(first) = segment.words.first_mut() else { return };
    if start < first.end_secs && start - TOLERANCE_SECS > first.start_secs {
        first.start_secs = (first.end_secs - usual_secs).min(start).max(0.0);
    } else {
        segment.start_secs = first.start_secs;
    }
    let Some(last) = segment.words.last_mut() else { return };
    if end > last.start_secs && end + TOLERANCE_SECS < last.end_secs {
        last.end_secs = (last.start_secs + usual_secs).max(end);
    } else {
        segment.end_secs = last.end_secs;
    }
}

#[cfg(test)]
mod tests;
