//! Where in a recording the samples lie that are heard: all of them, or only those with speech, one behind the other.

use std::collections::VecDeque;

use ingle_engine::{HEARING_RATE, HeardSegment};

/// Samples of the recording that follow each other, and what was heard.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Run {
    /// Sample of the recording it begins with.
    from: u64,
    /// Place of that sample among those that are heard.
    heard: u64,
    /// Samples.
    len: u64,
}

impl Run {
    fn heard_end(&self) -> u64 {
        self.heard + self.len
    }
}

/// Maps what is heard to the recording. Pieces that follow each other without a gap are one run.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// In order; never empty once something is heard.
    runs: VecDeque<Run>,
}

impl Runs {
    /// Adds `len` samples of the recording from `from` on behind those before.
    pub(super) fn add(&mut self, from: u64, len: u64) {
        match self.runs.back_mut() {
            Some(last) if last.from + last.len == from => last.len += len,
            last => {
                let heard = last.map_or(0, |last| last.heard_end());
                self.runs.push_back(Run { from, heard, len });
            }
        }
    }

    /// Forgets what lies before `heard`, so that a long recording of short words takes no memory.
    pub(super) fn forget(&mut self, heard: u64) {
        while self.runs.len() > 1 && self.runs[0].heard_end() <= heard {
            self.runs.pop_front();
        }
    }

    /// The place in the recording, in seconds, of a sample that is heard.
    pub(super) fn secs(&self, heard: u64) -> f64 {
        let secs = heard as f64 / HEARING_RATE as f64;
        secs + self.silence_before(self.run_from(secs))
    }

    /// A segment whose times count what is heard, with times of the recording. A word lies where its middle lies; a
    /// segment begins and ends with its words. Without words, an end on a border belongs to the run before it.
    pub(super) fn moved(&self, mut segment: HeardSegment) -> HeardSegment {
        for word in &mut segment.words {
            let silence = self.silence_before(self.run_from((word.start_secs + word.end_secs) / 2.0));
            word.start_secs += silence;
            word.end_secs += silence;
        }
        match (segment.words.first(), segment.words.last()) {
            (Some(first), Some(last)) => {
                (segment.start_secs, segment.end_secs) = (first.start_secs, last.end_secs);
            }
            _ => {
                segment.start_secs += self.silence_before(self.run_from(segment.start_secs));
                segment.end_secs += self.silence_before(self.run_to(segment.end_secs));
            }
        }
        segment
    }

    /// The run that holds the sample at `secs`; behind the end the last.
    fn run_from(&self, secs: f64) -> usize {
        self.runs.partition_point(|run| run.heard_end() <= sample(secs))
    }

    /// The run that holds the sample before `secs`.
    fn run_to(&self, secs: f64) -> usize {
        self.runs.partition_point(|run| run.heard_end() < sample(secs))
    }

    /// Seconds of the recording before a run that are not heard.
    fn silence_before(&self, run: usize) -> f64 {
        let run = self.runs.get(run.min(self.runs.len().saturating_sub(1)));
        run.map_or(0.0, |run| (run.from - run.heard) as f64 / HEARING_RATE as f64)
    }
}

fn sample(secs: f64) -> u64 {
    (secs * HEARING_RATE as f64).round() as u64
}

#[cfg(test)]
mod tests {
    use ingle_engine::HeardWord;

    use super::*;

    const SECOND: u64 = HEARING_RATE as u64;

    /// 2 s from 10 s on, 3 s from 20 s on, 1 s from 30 s on, each in two pieces.
    fn runs() -> Runs {
        let mut runs = Runs::default();
        for (from, len) in [(10, 1), (11, 1), (20, 1), (21, 2), (30, 1)] {
            runs.add(from * SECOND, len * SECOND);
        }
        runs
    }

    fn segment(start_secs: f64, end_secs: f64, words: &[(f64, f64)]) -> HeardSegment {
        let word = |&(start_secs, end_secs): &(f64, f64)| HeardWord {
            text: " a".into(),
            start_secs,
            end_secs,
            probability: 1.0,
        };
        HeardSegment {
            start_secs,
            end_secs,
            text: " a".into(),
            tokens: Vec::new(),
            words: words.iter().map(word).collect(),
            temperature: 0.0,
            avg_logprob: 0.0,
            compression_ratio: 1.0,
            no_speech_prob: 0.0,
        }
    }

    #[test]
    fn places_are_those_of_the_recording() {
        for (heard, wanted) in [(0, 10), (1, 11), (2, 20), (4, 22), (5, 30), (6, 31), (9, 34)] {
            assert_eq!(runs().secs(heard * SECOND), wanted as f64, "{heard}");
        }
        assert_eq!(Runs::default().secs(0), 0.0);
        assert_eq!(runs().runs.len(), 3, "pieces without a gap are one run");
    }

    #[test]
    fn segments_and_words_keep_together() {
        for (heard, wanted) in [
            ((0.0, 1.5), (10.0, 11.5)),
            ((1.0, 2.0), (11.0, 12.0)),
            ((2.0, 5.0), (20.0, 23.0)),
            ((1.5, 5.5), (11.5, 30.5)),
        ] {
            let moved = runs().moved(segment(heard.0, heard.1, &[]));
            assert_eq!((moved.start_secs, moved.end_secs), wanted, "{heard:?}");
        }
        // The first word crosses the border before its middle, the second behind it.
        let moved = runs().moved(segment(0.0, 6.0, &[(1.75, 2.5), (4.0, 5.5), (5.0, 5.5)]));
        let times: Vec<(f64, f64)> = moved.words.iter().map(|word| (word.start_secs, word.end_secs)).collect();
        assert_eq!(times, [(19.75, 20.5), (22.0, 23.5), (30.0, 30.5)]);
        assert_eq!((moved.start_secs, moved.end_secs), (19.75, 30.5));
    }

    #[test]
    fn what_is_done_is_forgotten() {
        let mut runs = Runs::default();
        for at in 0..10_000 {
            runs.add(2 * at * SECOND, SECOND);
            runs.forget(at * SECOND);
            assert!(runs.runs.len() <= 2);
        }
        assert_eq!(runs.secs(9_999 * SECOND), 19_998.0);
        runs.forget(u64::MAX);
        assert_eq!(runs.secs(10_000 * SECOND), 19_999.0, "the last is kept");
    }
}
