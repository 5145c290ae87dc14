//! Where the guesses of a step come from: each answer's own text, and a draft model where there is one.

use super::draft::{Drafter, Proposal};
use super::lookup::{GOOD_RATE, GuessMeter, Lookup, Offer};
use crate::TokenId;
use crate::scheduler::RequestId;

/// What may follow one answer.
#[derive(Debug)]
pub(super) struct Guesses {
    lookup: Lookup,
    /// What the draft model proposed last.
    proposed: Proposal,
    /// Tokens of it that have come true, and that were checked or are now.
    n_true: usize,
    n_checked: usize,
}

impl Guesses {
    pub(super) fn new(lookup: Lookup) -> Self {
        Self { lookup, proposed: Proposal::default(), n_true: 0, n_checked: 0 }
    }

    /// Takes a token into the text, and says what that says of the draft model; `None` where it proposed nothing.
    pub(super) fn push(&mut self, token: TokenId) -> Option<Verdict> {
        self.lookup.push(token);
        let is_right = self.proposed.tokens.get(self.n_true).map(|&proposed| proposed == token)?;
        let was_checked = self.n_true < self.n_checked;
        if is_right {
            self.n_true += 1;
        } else {
            self.propose(Proposal::default());
        }
        Some(Verdict { is_right, was_checked })
    }

    fn propose(&mut self, proposal: Proposal) {
        self.proposed = proposal;
        (self.n_true, self.n_checked) = (0, 0);
    }

    /// What is left of the proposal.
    fn left(&self) -> &[TokenId] {
        &self.proposed.tokens[self.n_true..]
    }

    fn offer_of_draft(&self) -> Offer {
        let so_far = self.n_true.checked_sub(1).map_or(1.0, |last| self.proposed.chances[last]);
        Offer { chances: self.proposed.chances[self.n_true..].iter().map(|chance| chance / so_far).collect() }
    }

    /// Does the answer copy its own text just now, so that nobody needs to be asked?
    fn copies(&self) -> bool {
        self.lookup.offer().chances.first() >= Some(&GOOD_RATE)
    }

    /// The better of both, and whether it is the draft model's.
    fn best(&self) -> (Source, Offer) {
        let (copied, proposed) = (self.lookup.offer(), self.offer_of_draft());
        match copied.chances.first() >= proposed.chances.first() {
            true => (Source::Text, copied),
            false => (Source::Draft, proposed),
        }
    }

    /// The first `n` guesses, which are checked now.
    fn take(&mut self, source: Source, n: usize) -> Vec<TokenId> {
        match source {
            Source::Text => self.lookup.guesses(n).to_vec(),
            Source::Draft => {
                self.n_checked = self.n_true + n;
                self.left()[..n].to_vec()
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Text,
    Draft,
}

/// What became of a token that the draft model proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    is_right: bool,
    was_checked: bool,
}

/// Decides what is guessed.
pub(super) struct Guessing {
    meter: GuessMeter,
    drafter: Option<Drafter>,
}

impl Guessing {
    pub(super) fn new(drafter: Option<Drafter>) -> Self {
        Self { meter: GuessMeter::default(), drafter }
    }

    /// Of what checks cost.
    pub(super) fn meter(&mut self) -> &mut GuessMeter {
        &mut self.meter
    }

    /// Learns what became of a proposal.
    pub(super) fn learn(&mut self, verdict: Verdict) {
        if let Some(drafter) = &mut self.drafter {
            drafter.learn(verdict.is_right, verdict.was_checked);
        }
    }

    /// The request has ended.
    pub(super) fn release(&mut self, request: RequestId) {
        if let Some(drafter) = &mut self.drafter {
            drafter.release(request);
        }
    }

    /// The guesses that the next step should check, of `n_answers` that take `plain_secs` without.
    pub(super) fn choose(
        &mut self,
        model: &str,
        plain_secs: f64,
        n_answers: usize,
        mut answers: Vec<(RequestId, &mut Guesses)>,
    ) -> Vec<(RequestId, Vec<TokenId>)> {
        let is_trial = self.draft(model, plain_secs, n_answers, &mut answers);
        let checks_all = self.drafter.as_ref().is_some_and(Drafter::is_always_asked);
        let (mut answers, mut offers, mut sources) = (answers, Vec::new(), Vec::new());
        answers.retain(|(_, guesses)| {
            let (source, offer) = guesses.best();
            let is_offered = !offer.chances.is_empty();
            if is_offered {
                offers.push(offer);
                sources.push(source);
            }
            is_offered
        });
        let mut counts = self.meter.share(plain_secs, n_answers, &offers);
        if let Some(first) = counts.first_mut().filter(|_| is_trial) {
            *first = (*first).max(1);
        }
        let wanted = answers.into_iter().zip(sources).zip(counts).zip(offers);
        let chosen = wanted.filter_map(|((((id, guesses), source), n), offer)| {
            let n = if checks_all && source == Source::Draft { offer.chances.len() } else { n };
            (n > 0).then(|| (id, guesses.take(source, n)))
        });
        chosen.collect()
    }

    /// Has the draft model propose something where nothing is known, if that is expected to pay; is it a trial?
    fn draft(
        &mut self,
        model: &str,
        plain_secs: f64,
        n_answers: usize,
        answers: &mut [(RequestId, &mut Guesses)],
    ) -> bool {
        let Some(drafter) = &mut self.drafter else { return false };
        let wanted = answers.iter().filter(|(_, guesses)| guesses.left().is_empty() && !guesses.copies());
        let texts: Vec<(RequestId, &[TokenId])> = wanted.map(|(id, guesses)| (*id, guesses.lookup.text())).collect();
        if texts.is_empty() {
            return false;
        }
        let meter = &self.meter;
        let depth = drafter.depth(plain_secs, n_answers, texts.len(), &|n_rows| meter.row_secs(n_rows, plain_secs));
        if depth.n_tokens == 0 {
            return false;
        }
        match drafter.propose(&texts, depth.n_tokens, plain_secs) {
            Ok(found) => {
                for (id, proposal) in found {
                    if let Some((_, guesses)) = answers.iter_mut().find(|(other, _)| *other == id) {
                        guesses.propose(proposal);
                    }
                }
            }
            Err(error) => {
                tracing::error!(model, %error, "the draft model failed and is not asked any more");
                self.drafter = None;
            }
        }
        depth.is_trial
    }
}
