//! A free answer that is constrained from a text on: tool calls that a model may make or not.

use std::collections::HashMap;
use std::sync::Arc;

use ingle_engine::{Allowed, Constraint, ConstraintError, Segment, Surround, TokenId, TokenKind, TokenMask, Tokenizer};

/// What an answer looks like in which a text may come: made once for a model and a text.
///
/// The text is found wherever tokens put it together. A token that reaches beyond it is allowed only where the constraint
/// takes the rest.
pub struct Trigger {
    text: Vec<u8>,
    /// Longest prefix of the text that ends with its first `i` bytes and is shorter (Knuth, Morris and Pratt, "Fast
    /// pattern matching in strings", 1977).
    failure: Vec<usize>,
    at_start: bool,
    tokenizer: Arc<dyn Tokenizer>,
    /// Every token but unused ones.
    known: TokenMask,
    /// By bytes of the text that have come: tokens that complete it, with the bytes of each that lie beyond.
    completing: HashMap<usize, Vec<(TokenId, usize)>>,
}

impl std::fmt::Debug for Trigger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trigger").field("text", &String::from_utf8_lossy(&self.text)).finish_non_exhaustive()
    }
}

impl Trigger {
    /// Looks at the whole vocabulary. `text` is not empty; with `at_start` it counts only as the first of the answer.
    pub fn new(tokenizer: Arc<dyn Tokenizer>, text: &str, at_start: bool) -> Self {
        let text = text.as_bytes().to_vec();
        let failure = failure(&text);
        let n_vocab = tokenizer.n_vocab();
        let mut words = vec![0_u32; n_vocab.div_ceil(32)];
        let mut completing: HashMap<usize, Vec<(TokenId, usize)>> = HashMap::new();
        for token in 0..u32::try_from(n_vocab).unwrap_or(u32::MAX) {
            if tokenizer.token_kind(token) == TokenKind::Unused {
                continue;
            }
            words[token as usize / 32] |= 1 << (token % 32);
            let bytes = tokenizer.token_bytes(token);
            // Only a token with the text's last byte can complete it.
            if !text.last().is_some_and(|last| bytes.contains(last)) {
                continue;
            }
            for matched in 0..text.len() {
                if let Progress::Complete { beyond } = advance(&text, &failure, matched, bytes) {
                    completing.entry(matched).or_default().push((token, beyond));
                }
            }
        }
        Self { text, failure, at_start, tokenizer, known: words.into(), completing }
    }

    /// A free answer that follows `constraint` from behind the text on.
    pub fn then(self: &Arc<Self>, constraint: Box<dyn Constraint>) -> Box<dyn Constraint> {
        self.begin(Some(constraint))
    }

    /// A free answer in which the text never comes.
    pub fn never(self: &Arc<Self>) -> Box<dyn Constraint> {
        self.begin(None)
    }

    fn begin(self: &Arc<Self>, constraint: Option<Box<dyn Constraint>>) -> Box<dyn Constraint> {
        let trigger = Arc::clone(self);
        Box::new(Triggered { trigger, phase: Phase::Free(0), begun: false, constraint, before: Vec::new() })
    }
}

fn failure(text: &[u8]) -> Vec<usize> {
    let mut failure = vec![0; text.len() + 1];
    let mut matched = 0;
    for at in 1..text.len() {
        while matched > 0 && text[at] != text[matched] {
            matched = failure[matched];
        }
        matched += usize::from(text[at] == text[matched]);
        failure[at + 1] = matched;
    }
    failure
}

enum Progress {
    /// So many bytes of the text have come.
    Matched(usize),
    /// All of it, and so many bytes more.
    Complete { beyond: usize },
}

fn advance(text: &[u8], failure: &[usize], mut matched: usize, bytes: &[u8]) -> Progress {
    for (at, &byte) in bytes.iter().enumerate() {
        while matched > 0 && text[matched] != byte {
            matched = failure[matched];
        }
        matched += usize::from(text[matched] == byte);
        if matched == text.len() {
            return Progress::Complete { beyond: bytes.len() - at - 1 };
        }
    }
    Progress::Matched(matched)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// So many bytes of the text have come.
    Free(usize),
    /// The text cannot come any more.
    Past,
    Inside,
}

struct Triggered {
    trigger: Arc<Trigger>,
    phase: Phase,
    /// Something other than white space has come.
    begun: bool,
    /// None where the text must not come.
    constraint: Option<Box<dyn Constraint>>,
    /// Phase and `begun` before each accepted token, and how many tokens the constraint had got of it.
    before: Vec<(Phase, bool, usize)>,
}

impl Triggered {
    /// The tokens of what lies beyond the text in `token`.
    fn rest_of(&self, token: TokenId, beyond: usize) -> Option<Vec<TokenId>> {
        if beyond == 0 {
            return Some(Vec::new());
        }
        let tokenizer = &self.trigger.tokenizer;
        let bytes = tokenizer.token_bytes(token);
        let rest = std::str::from_utf8(&bytes[bytes.len() - beyond..]).ok()?;
        tokenizer.tokenize(&[Segment::plain(rest)], Surround::Nothing).ok()
    }

    /// May `token` complete the text and go `beyond` it?
    fn may_complete(&self, token: TokenId, beyond: usize) -> bool {
        let Some(constraint) = &self.constraint else { return false };
        let Some(rest) = self.rest_of(token, beyond) else { return false };
        let mut trial = constraint.fork();
        rest.into_iter().all(|token| {
            let is_allowed = match trial.allowed() {
                Ok(Allowed::All) => true,
                Ok(Allowed::These(mask)) => {
                    mask.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
                }
                Ok(Allowed::Nothing) | Err(_) => false,
            };
            is_allowed && trial.accept(token).is_ok()
        })
    }

    /// How far the text has come, for one that counts only at the start.
    fn progress(&self, matched: usize, bytes: &[u8]) -> Progress {
        let trigger = &self.trigger;
        if !trigger.at_start {
            return advance(&trigger.text, &trigger.failure, matched, bytes);
        }
        let bytes = if self.begun || matched > 0 { bytes } else { bytes.trim_ascii_start() };
        let left = &trigger.text[matched..];
        if bytes.len() >= left.len() && bytes.starts_with(left) {
            return Progress::Complete { beyond: bytes.len() - left.len() };
        }
        Progress::Matched(if left.starts_with(bytes) { matched + bytes.len() } else { usize::MAX })
    }
}

impl Constraint for Triggered {
    fn allowed(&mut self) -> Result<Allowed, ConstraintError> {
        let matched = match self.phase {
            Phase::Free(matched) => matched,
            Phase::Past => return Ok(Allowed::All),
            Phase::Inside => return self.constraint.as_mut().map_or(Ok(Allowed::All), |inner| inner.allowed()),
        };
        let Some(completing) = self.trigger.completing.get(&matched) else {
            return Ok(Allowed::All);
        };
        let refused: Vec<TokenId> = completing
            .iter()
            .filter(|&&(token, beyond)| (beyond > 0 || self.constraint.is_none()) && !self.may_complete(token, beyond))
            .map(|&(token, _)| token)
            .collect();
        if refused.is_empty() {
            return Ok(Allowed::All);
        }
        let mut words = self.trigger.known.to_vec();
        refused.iter().for_each(|token| words[*token as usize / 32] &= !(1 << (token % 32)));
        Ok(Allowed::These(words.into()))
    }

    fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError> {
        let (phase, begun) = (self.phase, self.begun);
        let mut handed_on = Vec::new();
        match phase {
            Phase::Past => {}
            Phase::Inside => handed_on.push(token),
            Phase::Free(matched) => {
                let trigger = Arc::clone(&self.trigger);
                let bytes = trigger.tokenizer.token_bytes(token);
                match self.progress(matched, bytes) {
                    Progress::Matched(usize::MAX) => self.phase = Phase::Past,
                    Progress::Matched(matched) => self.phase = Phase::Free(matched),
                    Progress::Complete { beyond } => {
                        let reason = || ConstraintError { reason: "a call begins inside a token".into() };
                        handed_on = self.rest_of(token, beyond).ok_or_else(reason)?;
                        self.phase = Phase::Inside;
                    }
                }
                self.begun |= !bytes.trim_ascii().is_empty();
            }
        }
        if let Some(constraint) = &mut self.constraint {
            handed_on.iter().try_for_each(|&token| constraint.accept(token))?;
        }
        self.before.push((phase, begun, handed_on.len()));
        Ok(())
    }

    fn forced(&mut self) -> Vec<TokenId> {
        match (self.phase, &mut self.constraint) {
            (Phase::Inside, Some(constraint)) => constraint.forced(),
            _ => Vec::new(),
        }
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(Self {
            trigger: Arc::clone(&self.trigger),
            phase: self.phase,
            begun: self.begun,
            constraint: self.constraint.as_ref().map(|constraint| constraint.fork()),
            before: self.before.clone(),
        })
    }

    fn rollback(&mut self, n_tokens: usize) -> Result<(), ConstraintError> {
        let reason = "fewer tokens were accepted";
        let at = self.before.len().checked_sub(n_tokens).ok_or_else(|| ConstraintError { reason: reason.into() })?;
        let undone: Vec<(Phase, bool, usize)> = self.before.drain(at..).collect();
        if let Some(constraint) = &mut self.constraint {
            constraint.rollback(undone.iter().map(|(_, _, n_handed_on)| n_handed_on).sum())?;
        }
        if let Some((phase, begun, _)) = undone.into_iter().next() {
            (self.phase, self.begun) = (phase, begun);
        }
        Ok(())
    }
}
