//! Guesses the next tokens of an answer from what followed the same tokens before (prompt lookup decoding, Saxena 2023),
//! and how many guesses are worth a row each.
//!
//! Guessing costs nothing; checking a guess costs a row of the step. So guesses are compared with what was sampled
//! whether they were checked or not, and rows are spent only where guesses have been right of late. How long a copy has
//! lasted tells most about whether it goes on, so that is learnt by its length: where one copy ends says little about the
//! middle of the next.

use std::collections::HashMap;
use std::time::Duration;

use crate::TokenId;

/// Tokens that must have occurred in this order for a guess.
const PATTERN: usize = 3;
/// Most guesses that a step checks for one answer.
pub(super) const MOST_GUESSES: usize = 16;
/// Right guesses in a row from which on a copy counts as longer.
const RUNS: [usize; 3] = [1, 4, 16];
/// By the length of a copy: right and wrong guesses that are believed to have been seen before the first one.
const BELIEFS: [(f64, f64); RUNS.len() + 1] = [(0.5, 1.5), (1.0, 1.0), (3.0, 0.5), (8.0, 0.4)];
/// What a guess seen before the last one counts for.
const FADE: f64 = 0.95;
/// Weight of a new measurement.
const NEW: f64 = 0.25;
/// Guesses have to promise this much more speed before they are checked.
const MARGIN: f64 = 1.08;
/// What their time counts where other answers wait for them: one gains and all pay. Answers that came together would end one
/// by one, too, and whoever follows the first of them holds up the rest with a prompt.
const PRICE_IN_COMPANY: f64 = 3.0;
/// Steps are lengthened to at most this many times their time, by the guesses of all answers: each waits as long.
const MOST_STRETCH: f64 = 2.0;
/// The same for an answer that is alone: nobody else waits, and its guesses come with the step.
const MOST_STRETCH_ALONE: f64 = 5.0;
/// Fewest guesses of a step of each size that is learnt apart.
const SIZES: [usize; 4] = [1, 2, 4, 8];
/// A row of a size that was never tried is hoped to cost this part of one of the next smaller size: it is tried once.
const HOPE: f64 = 0.6;
/// Part of a plain step that a row is expected to add before it was measured.
const FIRST_GUESS: f64 = 0.5;
/// Guesses of an answer that are right this often should be checked now and then, to see whether a row is still as dear…
pub(super) const GOOD_RATE: f64 = 0.75;
/// …as it is believed to be: with every step that checks none of them, less by this part.
const DOUBT: f64 = 1.0 / 256.0;

/// One answer's text and where it has been here before.
#[derive(Debug)]
pub(super) struct Lookup {
    tokens: Vec<TokenId>,
    /// For tokens in a row: the place behind their last occurrence.
    places: HashMap<[TokenId; PATTERN], usize>,
    /// Place of the token that is expected next.
    expected: Option<usize>,
    /// Right guesses in a row.
    run: usize,
    /// Right and wrong guesses by length of the copy, the older ones faded.
    seen: [(f64, f64); RUNS.len() + 1],
}

/// Which of the lengths of copies this is.
fn length(run: usize) -> usize {
    RUNS.partition_point(|&from| from <= run)
}

impl Lookup {
    /// Begins with the tokens of the prompt.
    pub(super) fn new(prompt: &[TokenId]) -> Self {
        let mut places = HashMap::with_capacity(prompt.len());
        for (idx, pattern) in prompt.windows(PATTERN).enumerate() {
            let pattern: [TokenId; PATTERN] = pattern.try_into().expect("windows have this length");
            places.insert(pattern, idx + PATTERN);
        }
        // The end of the prompt is its own last occurrence; what it may continue shows with the next token.
        Self { tokens: prompt.to_vec(), places, expected: None, run: 0, seen: BELIEFS }
    }

    /// Takes a token into the text, and learns whether it was expected.
    pub(super) fn push(&mut self, token: TokenId) {
        if let Some(place) = self.expected {
            let is_right = self.tokens[place] == token;
            let (right, wrong) = &mut self.seen[length(self.run)];
            (*right, *wrong) = (FADE * *right, FADE * *wrong);
            *(if is_right { right } else { wrong }) += 1.0;
            self.run = if is_right { self.run + 1 } else { 0 };
            self.expected = is_right.then_some(place + 1);
        }
        self.tokens.push(token);
        let Some(pattern) = self.tokens.last_chunk::<PATTERN>() else { return };
        let before = self.places.insert(*pattern, self.tokens.len());
        if self.expected.is_none() {
            self.expected = before;
        }
    }

    /// Prompt and answer so far.
    pub(super) fn text(&self) -> &[TokenId] {
        &self.tokens
    }

    /// At most `n` tokens that are expected next.
    pub(super) fn guesses(&self, n: usize) -> &[TokenId] {
        match self.expected {
            Some(place) => &self.tokens[place..self.tokens.len().min(place + n)],
            None => &[],
        }
    }

    /// What the next step may check.
    pub(super) fn offer(&self) -> Offer {
        let mut all_right = 1.0;
        let chance = |run: usize| {
            let (right, wrong) = self.seen[length(run)];
            all_right *= right / (right + wrong);
            all_right
        };
        Offer { chances: (self.run..self.run + self.guesses(MOST_GUESSES).len()).map(chance).collect() }
    }
}

/// Guesses of one answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Offer {
    /// For each guess, in order: how likely it is right together with all before it.
    pub(super) chances: Vec<f64>,
}

/// What rows for guesses cost, as measured. Two rows can cost almost as much as eight, so it is learnt by their number.
#[derive(Debug, Default)]
pub(super) struct GuessMeter {
    /// Seconds a row for each of [`SIZES`], smoothed; none before the first one.
    row_secs: [Option<f64>; SIZES.len()],
}

/// Which of [`SIZES`] has `n_guesses`.
fn size(n_guesses: usize) -> usize {
    SIZES.partition_point(|&least| least <= n_guesses).saturating_sub(1)
}

impl GuessMeter {
    /// A step that takes `plain_secs` without guesses took `took` with `n_guesses` of them and nothing else.
    pub(super) fn record(&mut self, plain_secs: f64, n_guesses: usize, took: Duration) {
        let secs = (took.as_secs_f64() - plain_secs).max(0.0) / n_guesses as f64;
        // A row is never dearer than a step for it. What took longer was held up by something else.
        let secs = secs.min(plain_secs);
        let known = &mut self.row_secs[size(n_guesses)];
        *known = Some(known.map_or(secs, |old| old + NEW * (secs - old)));
    }

    /// Seconds of each of `n_guesses` rows. Sizes that were never tried are hoped to cost a little less than smaller ones.
    pub(super) fn row_secs(&self, n_guesses: usize, plain_secs: f64) -> f64 {
        let (smaller, larger) = self.row_secs.split_at(size(n_guesses) + 1);
        let below = smaller.iter().rev().zip(0..).find_map(|(&secs, n)| secs.map(|secs| secs * HOPE.powi(n)));
        below.or_else(|| larger.iter().find_map(|&secs| secs)).unwrap_or(FIRST_GUESS * plain_secs)
    }

    /// What is not tried now, as it is believed to be too dear, is believed so a little less. `n_checked` guesses are.
    fn doubt(&mut self, n_checked: usize, plain_secs: f64) {
        if self.row_secs == [None; SIZES.len()] {
            self.row_secs[0] = Some(FIRST_GUESS * plain_secs);
        }
        let from = if n_checked == 0 { 0 } else { size(n_checked) + 1 };
        self.row_secs[from..].iter_mut().flatten().for_each(|secs| *secs *= 1.0 - DOUBT);
    }

    /// How many guesses of each answer that has some to check in a step that takes `plain_secs` and has `n_answers`: those
    /// with the most tokens a second, none where they do not promise enough more. In company their time counts more.
    pub(super) fn share(&mut self, plain_secs: f64, n_answers: usize, offers: &[Offer]) -> Vec<usize> {
        let n_answers = n_answers as f64;
        // A guess counts if all before it are right, too. One that cannot pay in any company is not looked at.
        let cheapest = SIZES.iter().map(|&size| self.row_secs(size, plain_secs)).fold(f64::INFINITY, f64::min);
        let least = cheapest * n_answers / plain_secs;
        let mut chances: Vec<(f64, usize)> = Vec::new();
        for (idx, offer) in offers.iter().enumerate() {
            chances.extend(offer.chances.iter().map(|&chance| (chance, idx)).take_while(|&(chance, _)| chance > least));
        }
        chances.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let (stretch, price) =
            if n_answers > 1.0 { (MOST_STRETCH, PRICE_IN_COMPANY) } else { (MOST_STRETCH_ALONE, 1.0) };
        let longest = plain_secs * stretch;
        let (mut n_best, mut most) = (0, MARGIN * n_answers / plain_secs);
        let mut extra = 0.0;
        for (n, (chance, _)) in (1..).zip(&chances) {
            extra += chance;
            let row_secs = n as f64 * self.row_secs(n, plain_secs);
            let speed = (n_answers + extra) / (plain_secs + price * row_secs);
            if speed > most && plain_secs + row_secs <= longest {
                (n_best, most) = (n, speed);
            }
        }
        if offers.iter().any(|offer| offer.chances.first() >= Some(&GOOD_RATE)) {
            self.doubt(n_best, plain_secs);
        }
        let mut n_guesses = vec![0; offers.len()];
        chances[..n_best].iter().for_each(|&(_, idx)| n_guesses[idx] += 1);
        n_guesses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How likely the next guess is right.
    fn rate(lookup: &Lookup) -> f64 {
        lookup.offer().chances.first().copied().unwrap_or(0.0)
    }

    #[test]
    fn copies_are_expected_and_the_rate_follows() {
        let text: Vec<TokenId> = (100..140).collect();
        let mut lookup = Lookup::new(&text);
        assert!(lookup.guesses(4).is_empty());
        // The answer copies the text from its fifth token on.
        for (idx, token) in (104..107).enumerate() {
            assert!(lookup.guesses(4).is_empty(), "{idx}");
            lookup.push(token);
        }
        assert_eq!(lookup.guesses(4), [107, 108, 109, 110]);
        assert!(rate(&lookup) < 0.3, "a beginning says little: {}", rate(&lookup));
        (107..113).for_each(|token| lookup.push(token));
        assert!(rate(&lookup) > 0.8, "{}", rate(&lookup));
        (113..130).for_each(|token| lookup.push(token));
        let long = rate(&lookup);
        assert!(long > 0.95, "{long}");
        lookup.push(7);
        assert!(lookup.guesses(4).is_empty());
        // Where one copy ends says little about the middle of the next.
        (104..128).for_each(|token| lookup.push(token));
        assert!(rate(&lookup) > 0.9 * long, "{}", rate(&lookup));
    }

    #[test]
    fn short_copies_are_not_trusted() {
        let text: Vec<TokenId> = (100..1000).collect();
        let mut lookup = Lookup::new(&text);
        for from in (100..900).step_by(20) {
            // Three tokens as in the text, one more that is guessed right, then another text.
            (from..from + 4).for_each(|token| lookup.push(token));
            lookup.push(5000 + from);
        }
        (200..203).for_each(|token| lookup.push(token));
        assert!(lookup.offer().chances[1] < 0.2, "{:?}", lookup.offer());
    }

    #[test]
    fn a_text_that_repeats_itself_expects_itself() {
        let mut lookup = Lookup::new(&[1, 2]);
        (0..30).for_each(|n| lookup.push(10 + n % 5));
        assert_eq!(lookup.guesses(3), [10, 11, 12]);
        assert!(rate(&lookup) > 0.9);
    }

    #[test]
    fn text_without_repetition_has_no_guesses() {
        let mut lookup = Lookup::new(&[]);
        (0..1000).for_each(|token| lookup.push(token));
        assert!(lookup.guesses(9).is_empty());
        assert_eq!(lookup.offer().chances, []);
    }

    fn ms(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1e3)
    }

    fn offer(rate: f64, n_guesses: usize) -> Offer {
        Offer { chances: (1..).map(|n| rate.powi(n)).take(n_guesses).collect() }
    }

    /// Guesses of one answer whose guesses are right so often.
    fn of_one(meter: &mut GuessMeter, plain_secs: f64, n_answers: usize, rate: f64) -> usize {
        meter.share(plain_secs, n_answers, &[offer(rate, MOST_GUESSES)])[0]
    }

    #[test]
    fn guesses_are_checked_where_they_pay() {
        let mut meter = GuessMeter::default();
        // A plain step of 10 ms, 4 ms a row, as SmolLM2 on two cores.
        meter.record(0.010, 5, ms(30.0));
        assert_eq!(of_one(&mut meter, 0.010, 1, 0.0), 0);
        assert_eq!(of_one(&mut meter, 0.010, 1, 0.3), 0, "0.3 tokens for 4 ms are fewer than 1 for 10 ms");
        assert!(of_one(&mut meter, 0.010, 1, 0.95) >= 4);
        // With eight answers in a step of 40 ms each of them costs 5 ms already.
        assert_eq!(of_one(&mut meter, 0.040, 8, 0.6), 0);
        // Rows that are almost free, as on a GPU.
        let mut cheap = GuessMeter::default();
        cheap.record(0.010, 10, ms(10.5));
        assert!(of_one(&mut cheap, 0.010, 8, 0.6) >= 3);
    }

    /// As SmolLM2 on two cores: eight rows are multiplied at once.
    #[test]
    fn where_eight_rows_cost_little_more_than_two_many_are_checked() {
        let mut meter = GuessMeter::default();
        let plain = 0.0064;
        let took = |n: usize| ms(6.4 + 4.0 + 1.0 * n as f64);
        let counts: Vec<usize> = (0..40)
            .map(|_| {
                let n = of_one(&mut meter, plain, 1, 0.95);
                meter.record(plain, n.max(1), took(n.max(1)));
                n
            })
            .collect();
        assert!(counts[20..].iter().all(|n| (6..=16).contains(n)), "{counts:?}");
    }

    #[test]
    fn answers_that_are_never_alone_try_guesses_too() {
        let mut meter = GuessMeter::default();
        let offers = [offer(0.97, MOST_GUESSES), offer(0.97, MOST_GUESSES)];
        let waits = (0..1000).position(|_| meter.share(0.010, 2, &offers) != [0, 0]);
        assert!(waits.is_some_and(|n| n < 200), "{waits:?} steps until the first try");
    }

    /// A hiccup in the first step with many guesses is not believed for ever, although fewer pay all the while.
    #[test]
    fn many_guesses_are_tried_again() {
        let mut meter = GuessMeter::default();
        meter.record(0.010, 4, ms(14.0));
        meter.record(0.010, 9, ms(1000.0));
        let first = of_one(&mut meter, 0.010, 1, 0.97);
        assert!((1..8).contains(&first), "{first}");
        let waits = (0..2000).position(|_| of_one(&mut meter, 0.010, 1, 0.97) >= 8);
        assert!(waits.is_some_and(|n| n > 20), "{waits:?} steps until the next try");
    }

    #[test]
    fn the_stretch_is_shared_by_all_answers() {
        let mut meter = GuessMeter::default();
        meter.record(0.010, 10, ms(15.0));
        // A row takes half a millisecond, so a step has 20 of them at most; the likeliest are taken.
        let offers = [0.99, 0.95, 0.99, 0.5].map(|rate| offer(rate, MOST_GUESSES));
        let n_guesses = meter.share(0.010, 4, &offers);
        let total: usize = n_guesses.iter().sum();
        assert!((10..=20).contains(&total), "{n_guesses:?}");
        assert!(n_guesses[0] > n_guesses[3] && n_guesses[0].abs_diff(n_guesses[2]) <= 1, "{n_guesses:?}");
        let few = meter.share(0.010, 1, &[offer(0.99, 2)]);
        assert_eq!(few, [2], "no more than there are");
    }

    #[test]
    fn slow_steps_do_not_end_guessing_for_good() {
        let mut meter = GuessMeter::default();
        meter.record(0.010, 5, ms(12.0));
        assert!(of_one(&mut meter, 0.010, 1, 0.95) > 0);
        // The machine was busy with something else for a second, time and again.
        (0..40).for_each(|_| meter.record(0.010, 5, ms(1000.0)));
        let waits = (0..1000).position(|_| of_one(&mut meter, 0.010, 1, 0.95) > 0);
        assert!(waits.is_some_and(|n| (10..200).contains(&n)), "{waits:?} steps until the next try");
        // What is bad is not tried again.
        let mut dear = GuessMeter::default();
        (0..40).for_each(|_| dear.record(0.010, 5, ms(60.0)));
        assert!((0..1000).all(|_| of_one(&mut dear, 0.010, 1, 0.3) == 0));
    }
}
