//! A constraint that begins behind a text: the answer of a model that thinks first.

use std::sync::Arc;

use ingle_engine::{Allowed, Constraint, ConstraintError, TokenId, TokenKind, TokenMask, Tokenizer};

/// Tokens of white space that may stand between the reasoning and the answer.
const MOST_BLANKS: u8 = 2;

/// What an answer behind some text looks like; made once for a model and a text.
pub struct Opening {
    text: Vec<u8>,
    tokenizer: Arc<dyn Tokenizer>,
    /// Every token but those that end the answer.
    going_on: TokenMask,
    /// Tokens of white space.
    blanks: TokenMask,
    /// The token that opens a reasoning which ends with the text, where one token does.
    opening_token: Option<TokenId>,
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").field("text", &String::from_utf8_lossy(&self.text)).finish_non_exhaustive()
    }
}

impl Opening {
    /// Looks at the whole vocabulary. `opening` is what opens a reasoning that ends with `text`.
    pub fn new(tokenizer: Arc<dyn Tokenizer>, text: &str, opening: Option<&str>) -> Self {
        let n_vocab = tokenizer.n_vocab();
        let mask = |is_in: &dyn Fn(TokenId) -> bool| -> TokenMask {
            let mut words = vec![0_u32; n_vocab.div_ceil(32)];
            let tokens = (0..u32::try_from(n_vocab).unwrap_or(u32::MAX)).filter(|&token| is_in(token));
            tokens.for_each(|token| words[token as usize / 32] |= 1 << (token % 32));
            words.into()
        };
        let ends = tokenizer.end_of_generation();
        let going_on = mask(&|token| !ends.contains(&token) && tokenizer.token_kind(token) != TokenKind::Unused);
        let blanks =
            mask(&|token| is_blank(tokenizer.token_bytes(token)) && tokenizer.token_kind(token) != TokenKind::Control);
        let is_opening = |token: &TokenId| opening.is_some_and(|text| tokenizer.token_bytes(*token) == text.as_bytes());
        let opening_token = (0..u32::try_from(n_vocab).unwrap_or(u32::MAX)).find(is_opening);
        Self { text: text.as_bytes().to_vec(), tokenizer, going_on, blanks, opening_token }
    }

    /// `constraint`, from behind the text on. Until then the answer may go on with anything, but not end.
    pub fn then(self: &Arc<Self>, constraint: Box<dyn Constraint>) -> Box<dyn Constraint> {
        self.begin(Phase::Waiting(Vec::new()), constraint)
    }

    /// `constraint`, at once or, where the answer begins by opening a reasoning, from behind that on.
    pub fn then_or_at_once(self: &Arc<Self>, constraint: Box<dyn Constraint>) -> Box<dyn Constraint> {
        match self.opening_token {
            Some(_) => self.begin(Phase::Start, constraint),
            None => constraint,
        }
    }

    fn begin(self: &Arc<Self>, phase: Phase, constraint: Box<dyn Constraint>) -> Box<dyn Constraint> {
        Box::new(After { opening: Arc::clone(self), phase, constraint, before: Vec::new() })
    }
}

fn is_blank(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_whitespace)
}

fn is_set(mask: &[u32], token: TokenId) -> bool {
    mask.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// The reasoning may be opened, or the answer begin.
    Start,
    /// The text has not come yet; its last bytes, fewer than the text has.
    Waiting(Vec<u8>),
    /// So many tokens of white space may still come before the answer.
    Between(u8),
    Inside,
}

struct After {
    opening: Arc<Opening>,
    phase: Phase,
    constraint: Box<dyn Constraint>,
    /// The phase before each accepted token, and how many tokens the constraint had got of it.
    before: Vec<(Phase, usize)>,
}

impl After {
    /// Hands tokens on that the constraint must allow; how many.
    fn hand_on(&mut self, tokens: &[TokenId]) -> Result<usize, ConstraintError> {
        for &token in tokens {
            self.constraint.accept(token)?;
        }
        self.phase = Phase::Inside;
        Ok(tokens.len())
    }

    fn wait(&mut self, mut seen: Vec<u8>, token: TokenId) -> Result<usize, ConstraintError> {
        let opening = Arc::clone(&self.opening);
        seen.extend(opening.tokenizer.token_bytes(token));
        let text = &opening.text;
        let Some(at) = seen.windows(text.len()).position(|window| window == text.as_slice()) else {
            let tail = seen.len().saturating_sub(text.len() - 1);
            self.phase = Phase::Waiting(seen.split_off(tail));
            return Ok(0);
        };
        // A token may reach beyond the text.
        let rest = &seen[at + text.len()..];
        let rest = rest.trim_ascii_start();
        self.phase = Phase::Between(MOST_BLANKS);
        if rest.is_empty() {
            return Ok(0);
        }
        let reason = || ConstraintError { reason: "the reasoning ends inside a token whose rest is no answer".into() };
        let text = std::str::from_utf8(rest).map_err(|_| reason())?;
        let segments = [ingle_engine::Segment::plain(text)];
        let tokens = opening.tokenizer.tokenize(&segments, ingle_engine::Surround::Nothing).map_err(|_| reason())?;
        self.hand_on(&tokens)
    }
}

impl After {
    /// What the constraint allows, and tokens of these besides.
    fn allowed_or(&mut self, others: &[u32], token: Option<TokenId>) -> Result<Allowed, ConstraintError> {
        Ok(match self.constraint.allowed()? {
            Allowed::These(mask) => {
                let both = mask.iter().zip(others).map(|(first, second)| first | second);
                let mut both: Vec<u32> = both.collect();
                token.into_iter().for_each(|token| both[token as usize / 32] |= 1 << (token % 32));
                Allowed::These(both.into())
            }
            other => other,
        })
    }

    /// Does the constraint itself allow the token?
    fn is_answer(&mut self, token: TokenId) -> Result<bool, ConstraintError> {
        Ok(match self.constraint.allowed()? {
            Allowed::All => true,
            Allowed::These(mask) => is_set(&mask, token),
            Allowed::Nothing => false,
        })
    }
}

impl Constraint for After {
    fn allowed(&mut self) -> Result<Allowed, ConstraintError> {
        let opening = Arc::clone(&self.opening);
        match self.phase {
            Phase::Start => self.allowed_or(&vec![0; opening.going_on.len()], opening.opening_token),
            Phase::Waiting(_) => Ok(Allowed::These(Arc::clone(&self.opening.going_on))),
            Phase::Between(1..) => self.allowed_or(&opening.blanks, None),
            Phase::Between(0) | Phase::Inside => self.constraint.allowed(),
        }
    }

    fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError> {
        let phase = self.phase.clone();
        let n_handed_on = match &phase {
            Phase::Waiting(seen) => self.wait(seen.clone(), token)?,
            Phase::Start if self.opening.opening_token == Some(token) => {
                self.phase = Phase::Waiting(Vec::new());
                0
            }
            Phase::Start => {
                // Blanks before a reasoning are no answer yet where the answer is free.
                let goes_on = is_set(&self.opening.blanks, token) && self.constraint.allowed()? == Allowed::All;
                let n_handed_on = self.hand_on(&[token])?;
                if goes_on {
                    self.phase = Phase::Start;
                }
                n_handed_on
            }
            Phase::Between(left) => match left.checked_sub(1).filter(|_| is_set(&self.opening.blanks, token)) {
                Some(left) if !self.is_answer(token)? => {
                    self.phase = Phase::Between(left);
                    0
                }
                _ => self.hand_on(&[token])?,
            },
            Phase::Inside => self.hand_on(&[token])?,
        };
        self.before.push((phase, n_handed_on));
        Ok(())
    }

    fn forced(&mut self) -> Vec<TokenId> {
        match self.phase {
            Phase::Inside => self.constraint.forced(),
            Phase::Start | Phase::Waiting(_) | Phase::Between(_) => Vec::new(),
        }
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(Self {
            opening: Arc::clone(&self.opening),
            phase: self.phase.clone(),
            constraint: self.constraint.fork(),
            before: self.before.clone(),
        })
    }

    fn rollback(&mut self, n_tokens: usize) -> Result<(), ConstraintError> {
        let reason = "fewer tokens were accepted";
        let at = self.before.len().checked_sub(n_tokens).ok_or_else(|| ConstraintError { reason: reason.into() })?;
        let undone: Vec<(Phase, usize)> = self.before.drain(at..).collect();
        self.constraint.rollback(undone.iter().map(|(_, n_handed_on)| n_handed_on).sum())?;
        if let Some((phase, _)) = undone.into_iter().next() {
            self.phase = phase;
        }
        Ok(())
    }
}
