use super::*;
use crate::voice::segments;

const FRAME: usize = 512;

/// Pieces of a recording whose sample `n` is the number `n`, pushed in parts of `lengths` in turn; and the most samples
/// that were held.
fn pieces(rule: VoiceRule, probabilities: &[f32], n_samples: usize, lengths: &[usize]) -> (Vec<Piece>, usize) {
    let mut sieve = Sieve::new(rule, FRAME);
    let (mut found, mut most_held, mut at, mut n_seen) = (Vec::new(), 0, 0, 0);
    let mut lengths = lengths.iter().cycle();
    let mut step = |sieve: &mut Sieve, reach: Reach| {
        let n_frames = sieve.unseen(reach).len().div_ceil(FRAME);
        n_seen += n_frames;
        sieve.take(&probabilities[n_seen - n_frames..n_seen], reach)
    };
    while at < n_samples {
        let to = n_samples.min(at + lengths.next().copied().unwrap_or(FRAME).max(1));
        sieve.push(&(at..to).map(|sample| sample as f32).collect::<Vec<_>>());
        found.extend(step(&mut sieve, Reach::WholeFrames));
        most_held = most_held.max(sieve.held.len());
        at = to;
    }
    found.extend(step(&mut sieve, Reach::End));
    (found, most_held)
}

/// Their ranges, joined, with a check of their samples.
fn ranges(pieces: &[Piece]) -> Vec<(usize, usize)> {
    let range = |piece: &Piece| {
        let wanted = (0..piece.samples.len()).map(|at| (piece.from as usize + at) as f32);
        assert!(piece.samples.iter().copied().eq(wanted), "the samples of {}", piece.from);
        piece.from..piece.from + piece.samples.len() as u64
    };
    joined(pieces.iter().map(range).collect()).iter().map(|range| (range.start as usize, range.end as usize)).collect()
}

/// What the offline rule finds, touching segments joined.
fn offline(rule: VoiceRule, probabilities: &[f32], n_samples: usize) -> Vec<(usize, usize)> {
    let found = segments(probabilities, FRAME, n_samples, &rule);
    let found = found.into_iter().map(|(from, to)| from as u64..to as u64).collect();
    joined(found).iter().map(|range| (range.start as usize, range.end as usize)).collect()
}

#[test]
fn a_stream_is_cut_as_the_whole_is() {
    let mut random = fastrand::Rng::with_seed(8);
    for round in 0..400 {
        let n_samples = random.usize(0..200 * FRAME);
        // Stretches of speech, silence and doubt, of any lengths.
        let mut probabilities = Vec::new();
        while probabilities.len() < n_samples.div_ceil(FRAME) {
            let level = [0.05, 0.3, 0.4, 0.7, 0.95][random.usize(..5)];
            probabilities.extend(std::iter::repeat_n(level, random.usize(1..30)));
        }
        probabilities.truncate(n_samples.div_ceil(FRAME));
        let rule = VoiceRule {
            threshold: 0.5,
            end_threshold: 0.35,
            min_speech: 0,
            min_silence: random.usize(0..20 * FRAME),
            pad: random.usize(0..15 * FRAME),
        };
        let lengths: Vec<usize> = (0..5).map(|_| random.usize(1..10 * FRAME)).collect();
        let wanted = offline(rule, &probabilities, n_samples);
        for lengths in [&lengths[..], &[1], &[usize::MAX / 2]] {
            if lengths == [1] && round % 20 != 0 {
                continue;
            }
            let (found, _) = pieces(rule, &probabilities, n_samples, lengths);
            assert_eq!(ranges(&found), wanted, "{rule:?} in parts of {lengths:?}");
        }
    }
}

#[test]
fn little_is_held_however_long_it_is_silent_or_speech() {
    let rule = rule(&VoiceFilterConfig::default(), VoiceFilterOptions::default()).unwrap();
    let n_frames = 2 * 3600 * HEARING_RATE / FRAME;
    for probability in [0.0, 1.0, 0.4] {
        let probabilities = vec![probability; n_frames];
        let (found, held) = pieces(rule, &probabilities, n_frames * FRAME, &[HEARING_RATE]);
        assert!(held <= 4 * HEARING_RATE, "{held} samples held at {probability}");
        let longest = found.iter().map(|piece| piece.samples.len()).max().unwrap_or(0);
        assert!(longest <= 4 * HEARING_RATE, "a piece of {longest} samples");
    }
    // Speech that may have ended at any time: as much as may turn out to be silence.
    let probabilities: Vec<f32> = (0..n_frames).map(|frame| if frame % 62 == 0 { 0.9 } else { 0.1 }).collect();
    let (found, held) = pieces(rule, &probabilities, n_frames * FRAME, &[HEARING_RATE]);
    assert!(held <= 5 * HEARING_RATE, "{held} samples held");
    assert_eq!(ranges(&found), offline(rule, &probabilities, n_frames * FRAME));
}

#[test]
fn settings_are_checked() {
    let with = |threshold, min_silence_ms, pad_ms| {
        rule(&VoiceFilterConfig::default(), VoiceFilterOptions { threshold, min_silence_ms, pad_ms })
    };
    let usual = with(None, None, None).unwrap();
    assert_eq!((usual.threshold, usual.end_threshold, usual.min_speech), (0.5, 0.35, 0));
    assert_eq!((usual.min_silence, usual.pad), (32_000, 6_400));
    assert_eq!(with(Some(0.1), Some(200), Some(300)).unwrap().end_threshold, 0.01);
    for wrong in [with(Some(1.5), None, None), with(Some(f32::NAN), None, None)] {
        assert!(matches!(wrong, Err(RuntimeError::InvalidParameter { parameter: "vad_threshold", .. })));
    }
    assert!(with(None, Some(60_000), None).is_err() && with(None, None, Some(5_000)).is_err());
}
