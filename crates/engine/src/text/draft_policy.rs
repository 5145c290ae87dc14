//! Whether a draft model is asked, and how far ahead: arithmetic over what was measured, without clock or model.
//!
//! Within a period it is asked as far ahead as the rate of right proposals and the costs of its steps and of the check make
//! worth while. Each period is judged by what it took and what it saved, reading and empty answers included; behind one
//! that did not pay the draft model rests, longer each time.

/// Right and wrong proposals that are believed to have been seen before the first one of a period.
const BELIEF: (f64, f64) = (3.0, 1.5);
/// What a proposal seen before the last one counts for.
const FADE: f64 = 0.98;
/// Weight of a new measurement.
const NEW: f64 = 0.25;
/// Proposals have to promise this much more speed before they are made.
const MARGIN: f64 = 1.08;
/// A chain of proposals that is less likely to be right is not made longer.
const LEAST_CHAIN: f64 = 0.02;
/// Times that the draft model is asked in a period.
const PERIOD: usize = 64;
/// At the beginning of a period it is asked so often whatever it promises: what a check costs shows only then.
const N_TRIALS: usize = 2;
/// Steps of the first rest and of the longest.
const RESTS: (usize, usize) = (64, 1024);
/// Part of a step of the model that the draft model may take to read what it has not seen of the texts.
const READ_PART: f64 = 0.5;
/// Tokens that it reads at a time at least, and at once before anything was measured.
const LEAST_READ: usize = 32;
/// A text that takes longer to read than so many steps of the model is left alone.
const MOST_READ_STEPS: f64 = 24.0;

/// What the model's next step is like without guesses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outlook {
    /// Seconds it takes.
    pub(super) secs: f64,
    /// Answers in it.
    pub(super) n_answers: usize,
    /// Guesses that it can check at most.
    pub(super) most_rows: usize,
}

/// How far to look ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Depth {
    /// Tokens for each text.
    pub(super) n_tokens: usize,
    /// One proposal is to be checked whatever it promises.
    pub(super) is_trial: bool,
}

/// What was measured of a draft model, and what follows.
#[derive(Debug)]
pub(super) struct DraftPolicy {
    most: usize,
    /// Seconds of a step that gives each text one more token, and of a token that is read; smoothed.
    step_secs: Option<f64>,
    read_secs: Option<f64>,
    /// Right and wrong proposals of the period, the older ones faded.
    seen: (f64, f64),
    n_asks: usize,
    /// Seconds of the period that the draft model took, and that it saved.
    spent_secs: f64,
    saved_secs: f64,
    /// Seconds that a right proposal saves in the next step.
    worth_secs: f64,
    /// Steps left to rest, and the length of the next rest.
    n_rest: usize,
    next_rest: usize,
}

impl DraftPolicy {
    /// For at most `most` tokens ahead.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            step_secs: None,
            read_secs: None,
            seen: BELIEF,
            n_asks: 0,
            spent_secs: 0.0,
            saved_secs: 0.0,
            worth_secs: 0.0,
            n_rest: 0,
            next_rest: RESTS.0,
        }
    }

    /// How many tokens to propose for each of `n_texts`; `row_secs(n)` is what each of `n` rows of a check costs.
    pub(super) fn depth(&mut self, next: Outlook, n_texts: usize, row_secs: &dyn Fn(usize) -> f64) -> Depth {
        const NONE: Depth = Depth { n_tokens: 0, is_trial: false };
        if self.n_rest > 0 {
            self.n_rest -= 1;
            return NONE;
        }
        let most = self.most.min(next.most_rows / n_texts.max(1));
        let n_tokens = match self.step_secs {
            Some(step_secs) => self.best_depth(most, step_secs, next, n_texts, row_secs),
            None => most.min(2),
        };
        self.worth_secs = (next.secs / next.n_answers as f64 - row_secs(n_tokens.max(1) * n_texts)).max(0.0);
        let is_trial = self.n_asks < N_TRIALS;
        match n_tokens {
            0 if is_trial => Depth { n_tokens: most.min(1), is_trial },
            0 => {
                self.rest();
                NONE
            }
            n_tokens => Depth { n_tokens, is_trial },
        }
    }

    fn best_depth(
        &self,
        most: usize,
        step_secs: f64,
        next: Outlook,
        n_texts: usize,
        row_secs: &dyn Fn(usize) -> f64,
    ) -> usize {
        let (right, wrong) = self.seen;
        let rate = right / (right + wrong);
        let (n_answers, n_texts) = (next.n_answers as f64, n_texts as f64);
        let (mut n_best, mut best) = (0, MARGIN * n_answers / next.secs);
        let (mut all_right, mut extra) = (1.0, 0.0);
        for n in 1..=most {
            all_right *= rate;
            if all_right < LEAST_CHAIN {
                break;
            }
            extra += all_right * n_texts;
            let n_rows = n as f64 * n_texts;
            let secs = next.secs + n as f64 * step_secs + n_rows * row_secs(n_rows as usize);
            let speed = (n_answers + extra) / secs;
            if speed > best {
                (n_best, best) = (n, speed);
            }
        }
        n_best
    }

    /// A proposed token was right or wrong; a right one that was checked has saved something.
    pub(super) fn learn(&mut self, is_right: bool, was_checked: bool) {
        let (right, wrong) = &mut self.seen;
        (*right, *wrong) = (FADE * *right, FADE * *wrong);
        *(if is_right { right } else { wrong }) += 1.0;
        if is_right && was_checked {
            self.saved_secs += self.worth_secs;
        }
    }

    /// The draft model was asked and took so long, whatever came of it.
    pub(super) fn asked(&mut self, secs: f64) {
        self.spent_secs += secs;
        self.n_asks += 1;
        if self.n_asks < PERIOD {
            return;
        }
        if self.saved_secs < self.spent_secs {
            return self.rest();
        }
        self.next_rest = RESTS.0;
        (self.n_asks, self.spent_secs, self.saved_secs) = (N_TRIALS, 0.0, 0.0);
    }

    /// A new period begins behind a rest.
    pub(super) fn rest(&mut self) {
        self.n_rest = self.next_rest;
        self.next_rest = (2 * self.next_rest).min(RESTS.1);
        self.seen = BELIEF;
        (self.n_asks, self.spent_secs, self.saved_secs) = (0, 0.0, 0.0);
    }

    /// A step that gave each text a token took so long.
    pub(super) fn stepped(&mut self, secs: f64) {
        smooth(&mut self.step_secs, secs);
    }

    /// A step that read `n_tokens` took so long.
    pub(super) fn read(&mut self, n_tokens: usize, secs: f64) {
        if n_tokens >= LEAST_READ {
            smooth(&mut self.read_secs, secs / n_tokens as f64);
        }
    }

    /// Tokens to read at once, beside steps of the model that take `plain_secs`.
    pub(super) fn n_read(&self, plain_secs: f64) -> usize {
        self.read_secs.map_or(LEAST_READ, |secs| (READ_PART * plain_secs / secs) as usize).max(LEAST_READ)
    }

    /// Is a text that lacks so many tokens worth reading?
    pub(super) fn is_worth_reading(&self, n_missing: usize, plain_secs: f64) -> bool {
        let secs = self.read_secs.map_or(0.0, |secs| secs * n_missing as f64);
        secs <= MOST_READ_STEPS * plain_secs
    }
}

fn smooth(known: &mut Option<f64>, secs: f64) {
    *known = Some(known.map_or(secs, |old| old + NEW * (secs - old)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Outlook = Outlook { secs: 0.020, n_answers: 1, most_rows: 64 };

    /// Asks for so many steps of the model; of the proposals this part is right. How often the draft model was asked, and
    /// the depth of the last time.
    fn run(policy: &mut DraftPolicy, next: Outlook, step_secs: f64, rate: f64, n_steps: usize) -> (usize, usize) {
        let row_secs = |_: usize| 0.001;
        let (mut n_asks, mut last, mut luck) = (0, 0, 0.0);
        for _ in 0..n_steps {
            let depth = policy.depth(next, next.n_answers, &row_secs).n_tokens;
            if depth == 0 {
                continue;
            }
            (n_asks, last) = (n_asks + 1, depth);
            policy.stepped(step_secs);
            policy.asked(depth as f64 * step_secs);
            for _ in 0..next.n_answers {
                for _ in 0..depth {
                    luck += rate;
                    let is_right = luck >= 1.0;
                    luck -= f64::from(u8::from(is_right));
                    policy.learn(is_right, true);
                    if !is_right {
                        break;
                    }
                }
            }
        }
        (n_asks, last)
    }

    #[test]
    fn a_cheap_draft_model_that_is_right_looks_far_ahead() {
        let (n_asks, depth) = run(&mut DraftPolicy::new(8), ALONE, 0.002, 0.9, 1000);
        assert_eq!(n_asks, 1000);
        assert!(depth >= 5, "{depth}");
        let among = Outlook { n_answers: 8, most_rows: 24, ..ALONE };
        let (n_asks, depth) = run(&mut DraftPolicy::new(8), among, 0.002, 0.9, 1000);
        assert!(n_asks > 900 && depth <= 3, "{n_asks}, {depth}: the step has room for three each");
    }

    #[test]
    fn what_does_not_pay_is_left_and_tried_again() {
        for (step_secs, rate) in [(0.002, 0.05), (0.020, 0.7), (0.100, 0.99)] {
            let (n_asks, _) = run(&mut DraftPolicy::new(8), ALONE, step_secs, rate, 10_000);
            assert!((4..1000).contains(&n_asks), "{n_asks} of 10,000 at {step_secs} s and {rate}");
        }
        // A hard text does not spoil the next one.
        let mut policy = DraftPolicy::new(8);
        run(&mut policy, ALONE, 0.002, 0.05, 500);
        let (n_asks, depth) = run(&mut policy, ALONE, 0.002, 0.9, 5000);
        assert!(n_asks > 3000 && depth >= 5, "{n_asks}, {depth}");
    }

    #[test]
    fn asking_for_nothing_is_noticed() {
        let mut policy = DraftPolicy::new(8);
        let mut n_asks = 0;
        // It is never sure enough to propose anything, or still reads.
        for _ in 0..10_000 {
            if policy.depth(ALONE, 1, &|_| 0.001).n_tokens > 0 {
                policy.stepped(0.002);
                policy.asked(0.002);
                n_asks += 1;
            }
        }
        assert!(n_asks < 1000, "{n_asks}");
    }

    #[test]
    fn long_texts_are_read_in_pieces_or_not_at_all() {
        let mut policy = DraftPolicy::new(8);
        assert_eq!(policy.n_read(0.020), LEAST_READ);
        assert!(policy.is_worth_reading(100_000, 0.020), "nothing is known yet");
        policy.read(100, 0.010);
        assert_eq!(policy.n_read(0.020), 100);
        assert!(policy.is_worth_reading(4000, 0.020) && !policy.is_worth_reading(8000, 0.020));
    }
}
