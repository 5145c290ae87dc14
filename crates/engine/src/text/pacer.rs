//! How many prompt tokens a step may carry without slowing running answers down too much.
//!
//! What a prompt token costs grows with its position, and depends on how many of them a step has: attention kernels work
//! row by row below a tile's height and by tiles above it, and on a GPU the first tokens cost almost as much as hundreds.
//! So straight lines over the position are learnt for several sizes, and there are two ways to spend the allowance: some
//! in every step, or whole tiles in a step of their own (on processors, rows of answers make ggml's tiles look at every
//! cell) followed by steps with answers only until these are back at their pace. The way that gets more done is taken.
//!
//! While no answer goes on there is nobody to spare. Prompts that come at the same time then begin their answers in one
//! step, if that is not far off: the first ones would only be slowed down by the prompts of the others.

use std::time::Duration;

use crate::scheduler::PromptShare;

/// Answers may take this many times the time of a step without prompt tokens, on average.
const SLOWDOWN: f64 = 2.75;
/// The gap around a step of tiles should be at most this many times as long…
const LONGEST: f64 = 6.0;
/// …or this, if no tile could be used otherwise.
const LIMIT: f64 = 7.25;
/// Large steps must get this much more done to be worth their unevenness, and this much more to be worth any length:
/// far into a long context even one tile takes longer, and the prompt would hardly get on without.
const WORTH: f64 = 1.3;
const WORTH_ANY_LENGTH: f64 = 3.0;
/// Prompt tokens in a step before anything was measured, at the beginning of a prompt; half as many this far behind it.
const FIRST_GUESS: usize = 16;
const FIRST_GUESS_HALVES: usize = 256;
/// Weight of a new measurement.
const NEW: f64 = 0.25;
/// Most steps without prompt tokens after a large one.
const MOST_RESTS: usize = 8;
/// From so many rows on attention is computed in tiles, by ggml and by our own loops.
const TILE: usize = 64;
/// Fewest prompt tokens of each size beside answers that is learnt apart, from a tile on.
const SIZES: [usize; 4] = [TILE, 128, 256, 512];
/// The first answer of several that begin together waits at most about this long for the others' prompts.
const MOST_TOGETHER_SECS: f64 = 3.5;
/// An engine with nothing to do waits for more requests for this part of the time that the first one's prompt takes…
const GATHER_PART: f64 = 0.02;
/// …and at most so long after each.
const MOST_GATHER_SECS: f64 = 0.004;
/// After so many steps the time of a step without prompt tokens is measured again.
const MOST_UNMEASURED: usize = 100;

/// Prompt tokens of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PromptPart {
    /// How many.
    pub(super) n_tokens: usize,
    /// The sum of their positions.
    pub(super) positions: usize,
    /// Is the last one of a prompt among them?
    pub(super) begins_answer: bool,
}

/// The prompts that are being computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PromptOutlook {
    /// Where the one that has come furthest goes on.
    pub(super) position: usize,
    /// Tokens left of all of them.
    pub(super) n_tokens: usize,
    /// Answers that go on.
    pub(super) n_answers: usize,
}

/// The time of steps with answers only, by the number of answers in powers of two.
#[derive(Debug, Default)]
struct Plain {
    /// Seconds, smoothed.
    secs: [Option<f64>; 10],
    /// Steps since one of this size was measured.
    age: [usize; 10],
}

impl Plain {
    fn size(&self, n_answers: usize) -> usize {
        (n_answers.max(1).ilog2() as usize).min(self.secs.len() - 1)
    }

    fn record(&mut self, n_answers: usize, secs: f64) {
        let size = self.size(n_answers);
        self.secs[size] = Some(self.secs[size].map_or(secs, |old| old + NEW * (secs - old)));
        self.age[size] = 0;
    }

    /// Seconds with `n_answers`, or with the nearest number that was measured.
    fn secs(&self, n_answers: usize) -> Option<f64> {
        let size = self.size(n_answers);
        let below = self.secs[..=size].iter().rev().find_map(|&secs| secs);
        below.or_else(|| self.secs[size..].iter().find_map(|&secs| secs))
    }

    /// Counts a step that has prompt tokens, too.
    fn grow_old(&mut self, n_answers: usize) {
        self.age[self.size(n_answers)] += 1;
    }

    /// Is a measurement due?
    fn is_old(&self, n_answers: usize) -> bool {
        let size = self.size(n_answers);
        self.age[size] > MOST_UNMEASURED || (self.secs[size].is_none() && self.secs.iter().any(Option::is_some))
    }
}

/// Learns what steps cost and derives the budget of prompt tokens.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    /// Seconds of a step with answers only.
    plain: Plain,
    /// Seconds of a prompt token by its position, in steps with less than a tile of them.
    by_row: Line,
    /// The same in steps with a tile or more.
    by_tile: Line,
    /// The same in steps with a tile or more and answers, for each of [`SIZES`].
    mixed: [Line; SIZES.len()],
    /// Seconds of a prompt token where many are computed at once, smoothed.
    token_secs: Option<f64>,
    /// Steps without prompt tokens that are due.
    n_rests: usize,
    /// Seconds of steps since there was the last answer to spare.
    together_secs: f64,
}

/// A number of prompt tokens and the seconds they are expected to add.
#[derive(Debug, Clone, Copy)]
struct Portion {
    n_tokens: usize,
    secs: f64,
}

impl Pacer {
    /// Records a step of `n_answers` answers and some prompt tokens. `answers_waited` while it was computed.
    pub(super) fn record(&mut self, n_answers: usize, prompt: PromptPart, took: Duration, answers_waited: bool) {
        let secs = took.as_secs_f64();
        let is_spared = n_answers > 0 || answers_waited || prompt.begins_answer;
        self.together_secs = if is_spared { 0.0 } else { self.together_secs + secs };
        if prompt.n_tokens == 0 {
            if n_answers > 0 {
                self.plain.record(n_answers, secs);
                self.n_rests = self.n_rests.saturating_sub(1);
            }
            return;
        }
        self.plain.grow_old(n_answers);
        let plain = self.plain.secs(n_answers).unwrap_or(0.0);
        let beside = if n_answers > 0 { plain } else { 0.0 };
        let extra = (secs - beside).max(0.0);
        let n = prompt.n_tokens as f64;
        let (mean_position, token_secs) = (prompt.positions as f64 / n, extra / n);
        let line = match (prompt.n_tokens < TILE, n_answers) {
            (true, _) => &mut self.by_row,
            (false, 0) => &mut self.by_tile,
            (false, _) => &mut self.mixed[SIZES.partition_point(|&least| least <= prompt.n_tokens) - 1],
        };
        line.record(mean_position, token_secs);
        if prompt.n_tokens >= TILE {
            self.token_secs = Some(self.token_secs.map_or(token_secs, |old| old + NEW * (token_secs - old)));
        }
        self.n_rests = if answers_waited || n_answers > 0 { n_rests(extra, plain) } else { 0 };
    }

    /// Seconds of a step with `n_answers` answers and nothing else; none when nothing is known.
    pub(super) fn plain_secs(&self, n_answers: usize) -> Option<f64> {
        self.plain.secs(n_answers)
    }

    /// Is it time for a step without anything beside answers, to measure it?
    pub(super) fn wants_plain(&self, n_answers: usize) -> bool {
        self.plain.is_old(n_answers)
    }

    /// A step had more than answers and prompts.
    pub(super) fn grow_old(&mut self, n_answers: usize) {
        self.plain.grow_old(n_answers);
    }

    /// Seconds that a prompt token takes where many are computed at once; none before that happened.
    pub(super) fn token_secs(&self) -> Option<f64> {
        self.token_secs
    }

    /// How long an engine with nothing to do waits for more requests behind the first one, whose prompt has `n_tokens`.
    pub(super) fn gather(&self, n_tokens: usize) -> Duration {
        let secs = self.token_secs.map_or(0.0, |token_secs| GATHER_PART * token_secs * n_tokens as f64);
        Duration::from_secs_f64(secs.min(MOST_GATHER_SECS))
    }

    /// What prompts get of the next step beside answers that go on.
    pub(super) fn share(&self, outlook: PromptOutlook) -> PromptShare {
        if outlook.n_answers == 0 {
            let secs = (MOST_TOGETHER_SECS - self.together_secs).max(0.0);
            return PromptShare::Together(
                self.token_secs.map_or(usize::MAX, |token_secs| (secs / token_secs) as usize),
            );
        }
        if self.n_rests > 0 || (outlook.n_tokens > 0 && self.plain.is_old(outlook.n_answers)) {
            return PromptShare::Beside(0);
        }
        let position = outlook.position;
        let guess = || PromptShare::Beside((FIRST_GUESS * FIRST_GUESS_HALVES / (FIRST_GUESS_HALVES + position)).max(1));
        let Some(plain) = self.plain.secs(outlook.n_answers).filter(|&plain| plain > 0.0) else { return guess() };
        let Some(beside) = self.beside(position, (SLOWDOWN - 1.0) * plain) else { return guess() };
        let Some(tiles) = self.tiles(position, plain) else { return PromptShare::Beside(beside.n_tokens) };
        let tile_rate = tiles.n_tokens as f64 / (tiles.secs + plain * n_rests(tiles.secs, plain).max(1) as f64);
        let beside_rate = beside.n_tokens as f64 / (plain + beside.secs);
        let worth = if tiles.secs <= (LIMIT - 1.0) * plain { WORTH } else { WORTH_ANY_LENGTH };
        if outlook.n_tokens < TILE || tile_rate <= worth * beside_rate {
            return PromptShare::Beside(beside.n_tokens);
        }
        // What does not fill a tile is computed first: row by row, a token is cheapest where its position is lowest.
        match outlook.n_tokens % TILE {
            0 => PromptShare::Alone(tiles.n_tokens),
            n_odd => PromptShare::Beside(n_odd.min(beside.n_tokens)),
        }
    }

    /// As many tokens as take `secs` beside answers, at least one; none when nothing is known. A size that was never
    /// tried is expected to cost per token what the next smaller one does.
    fn beside(&self, position: usize, secs: f64) -> Option<Portion> {
        let by_row = self.by_row.most(position, secs)?;
        let mut best = Portion { n_tokens: by_row.n_tokens.clamp(1, TILE - 1), ..by_row };
        let mut hoped = by_row.n_tokens;
        for (size, &least) in SIZES.iter().enumerate() {
            let limit = SIZES.get(size + 1).map_or(usize::MAX, |&next| next - 1);
            let known = self.mixed[size].most(position, secs);
            let portion = known.unwrap_or(Portion { n_tokens: hoped, secs });
            if portion.n_tokens >= least {
                best = Portion { n_tokens: portion.n_tokens.min(limit), ..portion };
            }
            match known {
                Some(known) => hoped = known.n_tokens,
                // One size is tried at a time.
                None => break,
            }
        }
        Some(best)
    }

    /// As many whole tiles as a large step may have, at least one; none when nothing is known.
    fn tiles(&self, position: usize, plain: f64) -> Option<Portion> {
        let most = self.by_tile.most(position, (LONGEST - 1.0) * plain)?;
        Some(self.by_tile.portion(position, (most.n_tokens / TILE).max(1) * TILE))
    }
}

/// Steps with answers only due after prompt tokens that took `secs`, for the average to be right.
fn n_rests(secs: f64, plain: f64) -> usize {
    let due = secs / ((SLOWDOWN - 1.0) * plain);
    // The tolerance keeps an even pace even.
    if due.is_nan() || due <= 1.3 { 0 } else { (due.ceil() as usize).min(MOST_RESTS) }
}

/// Seconds by position: a regression line whose points are forgotten by and by.
#[derive(Debug, Default)]
struct Line {
    /// Smoothed position, seconds, position², position × seconds; none before the first point.
    moments: Option<[f64; 4]>,
}

impl Line {
    fn record(&mut self, position: f64, secs: f64) {
        let new = [position, secs, position * position, position * secs];
        match &mut self.moments {
            None => self.moments = Some(new),
            Some(moments) => moments.iter_mut().zip(new).for_each(|(old, new)| *old += NEW * (new - *old)),
        }
    }

    /// Seconds at position 0 and what each position adds; neither is negative.
    fn coefficients(&self) -> Option<(f64, f64)> {
        let [position, secs, position_2, product] = self.moments?;
        let variance = position_2 - position * position;
        // Without points far enough apart half of the cost is taken to grow.
        let is_spread = variance > 0.01 * position_2 && variance > 1.0;
        let slope = if is_spread { (product - position * secs) / variance } else { 0.5 * secs / position.max(1.0) };
        let slope = slope.clamp(0.0, secs / position.max(1.0));
        Some((secs - slope * position, slope))
    }

    /// `n_tokens` from `position` on.
    fn portion(&self, position: usize, n_tokens: usize) -> Portion {
        let (start, slope) = self.coefficients().unwrap_or_default();
        let n = n_tokens as f64;
        Portion { n_tokens, secs: n * (start + slope * (position as f64 + n / 2.0)) }
    }

    /// The most tokens from `position` on that take `secs`; none when nothing is known.
    fn most(&self, position: usize, secs: f64) -> Option<Portion> {
        let (start, slope) = self.coefficients()?;
        // n × (start + slope × (position + n / 2)) = secs
        let first = (start + slope * position as f64).max(1e-9);
        let n = 2.0 * secs / (first + (first * first + 2.0 * slope * secs).sqrt());
        Some(self.portion(position, n as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds that prompt tokens add, in milliseconds: for each token at position 0, and more for each position.
    #[derive(Clone, Copy)]
    struct Machine {
        by_row: (f64, f64),
        by_tile: (f64, f64),
    }

    /// Milliseconds of a step with answers only.
    const PLAIN_MS: f64 = 55.0;
    /// Every token costs the same.
    const EVEN: Machine = Machine { by_row: (4.0, 0.0), by_tile: (4.0, 0.0) };
    /// As measured with SmolLM2 on a processor with matrix units of four answers.
    const TILED: Machine = Machine { by_row: (1.6, 0.0147), by_tile: (1.7, 0.0016) };

    impl Machine {
        fn ms(self, part: PromptPart) -> f64 {
            let (start, slope) = if part.n_tokens < TILE { self.by_row } else { self.by_tile };
            part.n_tokens as f64 * start + part.positions as f64 * slope
        }
    }

    fn part(position: usize, n_tokens: usize) -> PromptPart {
        PromptPart { n_tokens, positions: (position..position + n_tokens).sum(), begins_answer: false }
    }

    fn millis(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1e3)
    }

    /// A prompt alone, then answers alone.
    fn warm_up(pacer: &mut Pacer, machine: Machine) {
        for position in (0..2048).step_by(512) {
            let part = part(position, 512);
            pacer.record(0, part, millis(machine.ms(part)), false);
        }
        (0..20).for_each(|_| pacer.record(4, part(0, 0), millis(PLAIN_MS), false));
    }

    /// Computes a prompt beside four answers; the gaps between their tokens, in times of a plain step.
    fn prompt(pacer: &mut Pacer, machine: Machine, n_tokens: usize) -> Vec<f64> {
        let (mut gaps, mut gap, mut position) = (Vec::new(), 0.0, 0);
        while position < n_tokens {
            let share = pacer.share(PromptOutlook { position, n_tokens: n_tokens - position, n_answers: 4 });
            let (n, n_answers) = match share {
                PromptShare::Beside(n) => (n, 4),
                PromptShare::Alone(n) => (n, 0),
                PromptShare::Together(_) => unreachable!("there are answers"),
            };
            let part = part(position, n.min(n_tokens - position));
            let ms = machine.ms(part) + if n_answers > 0 { PLAIN_MS } else { 0.0 };
            pacer.record(n_answers, part, millis(ms), n_answers == 0);
            gap += ms / PLAIN_MS;
            if n_answers > 0 {
                gaps.push(std::mem::take(&mut gap));
            }
            position += part.n_tokens;
        }
        gaps.push(gap + 1.0);
        gaps
    }

    fn mean(times: &[f64]) -> f64 {
        times.iter().sum::<f64>() / times.len() as f64
    }

    #[test]
    fn where_tokens_cost_the_same_every_step_takes_some() {
        let mut pacer = Pacer::default();
        assert_eq!(
            pacer.share(PromptOutlook { position: 0, n_tokens: 2000, n_answers: 4 }),
            PromptShare::Beside(FIRST_GUESS)
        );
        warm_up(&mut pacer, EVEN);
        prompt(&mut pacer, EVEN, 200);
        let times = prompt(&mut pacer, EVEN, 2000);
        assert!(times.iter().all(|&times| times <= 1.2 * SLOWDOWN), "{times:?}");
        assert!(mean(&times) >= SLOWDOWN - 0.5, "the allowance is wasted: {times:?}");
    }

    #[test]
    fn where_tiles_are_cheap_they_are_taken_in_turns_with_rests() {
        let mut pacer = Pacer::default();
        warm_up(&mut pacer, TILED);
        for (round, n_tokens) in [2000, 2030, 1999].into_iter().enumerate() {
            let mut times = prompt(&mut pacer, TILED, n_tokens);
            assert!(times.iter().all(|&times| times <= 8.0), "round {round}: {times:?}");
            let whole: f64 = times.iter().sum();
            // Row by row it would be 2,000 × (1.6 + 0.0147 × 1,000) ms and more: over 800 plain steps.
            assert!(whole < 350.0, "round {round}: the prompt took {whole} plain steps");
            assert!(mean(&times) <= 1.2 * SLOWDOWN, "round {round}: {times:?}");
            times.sort_by(f64::total_cmp);
            assert!(times[times.len() / 2] <= 3.5, "round {round}: {times:?}");
        }
    }

    /// As measured with 8 billion weights on an H100: the first prompt token of a step costs as much as dozens.
    #[test]
    fn where_many_tokens_cost_little_more_than_one_a_step_takes_hundreds() {
        let (plain_ms, extra_ms) = (|n_answers: usize| 8.0 + 0.3 * n_answers as f64, |n: usize| 4.0 + 0.06 * n as f64);
        let mut pacer = Pacer::default();
        let mut run = |n_answers: usize, n_tokens: usize| {
            let (mut n_steps, mut left, mut ms) = (0, n_tokens, 0.0);
            while left > 0 {
                let share = pacer.share(PromptOutlook { position: 0, n_tokens: left, n_answers });
                let (n, answers) = match share {
                    PromptShare::Beside(n) => (n.min(left).min(512), n_answers),
                    PromptShare::Alone(n) => (n.min(left).min(512), 0),
                    PromptShare::Together(_) => unreachable!("there are answers"),
                };
                let step_ms = if answers > 0 { plain_ms(answers) } else { 0.0 } + if n > 0 { extra_ms(n) } else { 0.0 };
                pacer.record(answers, part(0, n), millis(step_ms), answers == 0);
                (n_steps, left, ms) = (n_steps + 1, left - n, ms + step_ms);
                assert!(n_steps < 10_000, "the prompts do not get on");
            }
            ms / n_steps as f64 / plain_ms(n_answers)
        };
        run(8, 4096);
        let slowdown = run(8, 8192);
        assert!((2.0..=SLOWDOWN + 0.2).contains(&slowdown), "8 answers were slowed down {slowdown} times");
        // More answers at once, whose steps take longer: the allowance grows with them.
        run(64, 4096);
        let slowdown = run(64, 16_384);
        assert!((1.9..=SLOWDOWN + 0.2).contains(&slowdown), "64 answers were slowed down {slowdown} times");
    }

    #[test]
    fn prompts_begin_together_only_where_that_is_not_far_off() {
        let mut pacer = Pacer::default();
        let outlook = PromptOutlook { position: 0, n_tokens: 4096, n_answers: 0 };
        assert_eq!(pacer.share(outlook), PromptShare::Together(usize::MAX), "nothing is known");
        assert_eq!(pacer.gather(1000), Duration::ZERO);
        // A millisecond a token; 3.5 s less what has passed.
        pacer.record(0, part(0, 500), millis(500.0), false);
        assert_eq!(pacer.share(outlook), PromptShare::Together(3000));
        assert_eq!((pacer.gather(50), pacer.gather(5000)), (Duration::from_millis(1), Duration::from_millis(4)));
        (0..9).for_each(|_| pacer.record(0, part(0, 500), millis(500.0), false));
        assert_eq!(pacer.share(outlook), PromptShare::Together(0), "the first one has waited long enough");
        pacer.record(0, PromptPart { begins_answer: true, ..part(0, 500) }, millis(500.0), false);
        assert_eq!(pacer.share(outlook), PromptShare::Together(3500));
    }

    #[test]
    fn an_expensive_prompt_still_makes_progress() {
        let mut pacer = Pacer::default();
        let outlook = PromptOutlook { position: 1, n_tokens: 2000, n_answers: 1 };
        pacer.record(1, part(0, 0), Duration::from_millis(1), false);
        pacer.record(1, part(0, 1), Duration::from_secs(1), false);
        let rests = (0..100).find(|_| {
            pacer.record(1, part(0, 0), Duration::from_millis(1), false);
            pacer.share(outlook) != PromptShare::Beside(0)
        });
        assert!(rests.is_some_and(|n| n <= MOST_RESTS));
        assert_eq!(pacer.share(outlook), PromptShare::Beside(1));
    }
}
