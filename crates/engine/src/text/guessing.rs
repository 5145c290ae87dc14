//! Where the guesses of a step come from: each answer's own text, and a draft model where there is one.

use super::draft::{Drafter, Proposal};
use super::lookup::{GOOD_RATE, GuessMeter, Lookup, MOST_GUESSES, Offer};
use crate::TokenId;
use crate::scheduler::RequestId;

/// What may follow one answer.
#[derive(Debug)]
pub(super) struct Guesses {
    lookup: Lookup,
    /// What the draft model proposed last.
    proposed: Proposal,
    /// Tokens of it that have come true.
    n_true: usize,
}

impl Guesses {
    pub(super) fn new(lookup: Lookup) -> Self {
        Self { lookup, proposed: Proposal::default(), n_true: 0 }
    }

    /// Takes a token into the text; was it what the draft model proposed? `None` where it proposed nothing.
    pub(super) fn push(&mut self, token: TokenId) -> Option<bool> {
        self.lookup.push(token);
        let is_right = self.proposed.tokens.get(self.n_true).map(|&proposed| proposed == token)?;
        if is_right {
            self.n_true += 1;
        } else {
            self.propose(Proposal::default());
        }
        Some(is_right)
    }

    fn propose(&mut self, proposal: Proposal) {
        self.proposed = proposal;
        self.n_true = 0;
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

    /// The better of both: tokens, and how likely they are.
    fn best(&self) -> (&[TokenId], Offer) {
        let (copied, proposed) = (self.lookup.offer(), self.offer_of_draft());
        if copied.chances.first() >= proposed.chances.first() {
            (self.lookup.guesses(MOST_GUESSES), copied)
        } else {
            (self.left(), proposed)
        }
    }
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

    /// Learns whether a token that the draft model proposed was right.
    pub(super) fn learn(&mut self, is_right: bool) {
        if let Some(drafter) = &mut self.drafter {
            drafter.learn(is_right);
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
        let best = answers.iter().map(|(id, guesses)| (*id, guesses.best()));
        let best: Vec<_> = best.filter(|(_, (tokens, _))| !tokens.is_empty()).collect();
        let (tokens, offers): (Vec<_>, Vec<_>) =
            best.into_iter().map(|(id, (tokens, offer))| ((id, tokens), offer)).unzip();
        let mut counts = self.meter.share(plain_secs, n_answers, &offers);
        if let Some(first) = counts.first_mut().filter(|_| is_trial) {
            *first = (*first).max(1);
        }
        let chosen = tokens.into_iter().zip(counts).filter(|&(_, n)| n > 0);
        chosen.map(|((id, tokens), n)| (id, tokens[..n].to_vec())).collect()
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
