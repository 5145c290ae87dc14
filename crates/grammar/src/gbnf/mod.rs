//! GBNF, llama.cpp's grammar language: parser, automaton and matcher of our own.
//!
//! llama.cpp's own matcher looks at the whole vocabulary for every token, its parser hangs or crashes on some texts, and
//! it cannot be shared between backends. Here a grammar becomes an automaton over bytes ([`automaton`]) whose reachable
//! states are numbered as answers visit them ([`memo`]); the tokens allowed in a state are found by one walk over the
//! vocabulary's trie and kept. A token is allowed exactly when its bytes lead somewhere, since everything that can never
//! be completed was taken out before.

mod automaton;
mod memo;
mod parse;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ingle_engine::{Allowed, Constraint, ConstraintError, TokenId};
use toktrie::{Recognizer, TokTrie};

use self::automaton::Automaton;
use self::memo::{Id, Memo, NOWHERE};
use crate::Environment;

/// Positions looked at for one mask before it is given up; a fraction of a second.
const MAX_WORK: u64 = 8_000_000;
/// Bytes of forced text that are looked for at once.
const MAX_FORCED: usize = 256;
/// How many accepted tokens can be taken back after the table was begun afresh.
const MAX_KEPT_HISTORY: usize = 64;

type Shared = Arc<Mutex<Memo>>;

/// A grammar that was understood; shared by all its answers.
pub(crate) struct Gbnf {
    automaton: Arc<Automaton>,
    /// The table in use; a full one is replaced.
    current: Mutex<Shared>,
    n_masks_found: AtomicU64,
}

impl std::fmt::Debug for Gbnf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gbnf").field("states", &self.automaton.states.len()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half-done: entries are added after what they point to.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far a text follows a grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextMatch {
    /// All of it, and it is complete.
    Complete,
    /// All of it, but more is needed.
    Incomplete,
    /// The byte at this offset is not allowed.
    Refused {
        /// From 0.
        at: usize,
    },
}

impl Gbnf {
    /// Parses and checks a grammar; `lookup` finds a token that the grammar names by its text.
    ///
    /// # Errors
    /// A sentence with line and column.
    pub(crate) fn new(text: &str, n_vocab: u32, lookup: &dyn Fn(&str) -> Option<u32>) -> Result<Self, String> {
        let parse = || Automaton::new(&parse::Rules::parse(text)?, n_vocab, lookup);
        let automaton = Arc::new(parse().map_err(|error: parse::SyntaxError| error.to_string())?);
        let memo = Arc::new(Mutex::new(Memo::new(Arc::clone(&automaton))));
        Ok(Self { automaton, current: Mutex::new(memo), n_masks_found: AtomicU64::new(0) })
    }

    /// Follows a text byte by byte; tokens that the grammar names are no text.
    pub(crate) fn follow(&self, text: &[u8]) -> TextMatch {
        // A table of its own: that of running answers must keep its numbers when this one is begun afresh.
        let mut memo = Memo::new(Arc::clone(&self.automaton));
        let mut id = memo.start;
        for (at, &byte) in text.iter().enumerate() {
            if memo.is_full() {
                let mut fresh = Memo::new(Arc::clone(&self.automaton));
                id = fresh.import(&memo, id);
                memo = fresh;
            }
            id = memo.step(id, byte);
            if id == NOWHERE {
                return TextMatch::Refused { at };
            }
        }
        if memo.may_end(id) { TextMatch::Complete } else { TextMatch::Incomplete }
    }

    /// Masks that had to be found, not looked up.
    pub(crate) fn n_masks_found(&self) -> u64 {
        self.n_masks_found.load(Ordering::Relaxed)
    }

    fn current(&self) -> Shared {
        let mut current = lock(&self.current);
        if lock(&current).is_full() {
            *current = Arc::new(Mutex::new(Memo::new(Arc::clone(&self.automaton))));
        }
        Arc::clone(&current)
    }

    /// The constraint of a new answer.
    pub(crate) fn start(self: &Arc<Self>, environment: &Arc<Environment>) -> GbnfMatcher {
        let memo = self.current();
        let state = lock(&memo).start;
        GbnfMatcher { grammar: Arc::clone(self), environment: Arc::clone(environment), memo, state, before: Vec::new() }
    }
}

/// One answer on its way through a grammar.
pub(crate) struct GbnfMatcher {
    grammar: Arc<Gbnf>,
    environment: Arc<Environment>,
    memo: Shared,
    state: Id,
    /// States before each accepted token.
    before: Vec<Id>,
}

fn failed(reason: impl Into<String>) -> ConstraintError {
    ConstraintError { reason: reason.into() }
}

impl GbnfMatcher {
    /// Moves to a fresh table when this one is full.
    fn renew(&mut self) {
        if !lock(&self.memo).is_full() {
            return;
        }
        let fresh = self.grammar.current();
        if Arc::ptr_eq(&fresh, &self.memo) {
            return;
        }
        let (mut to, from) = (lock(&fresh), lock(&self.memo));
        self.before.drain(..self.before.len().saturating_sub(MAX_KEPT_HISTORY));
        self.before.iter_mut().for_each(|id| *id = to.import(&from, *id));
        self.state = to.import(&from, self.state);
        drop((to, from));
        self.memo = fresh;
    }

    fn find_mask(&self, memo: &mut Memo) -> Result<Option<Arc<[u32]>>, ConstraintError> {
        if let Some(mask) = memo.mask(self.state) {
            return Ok(Some(mask));
        }
        self.grammar.n_masks_found.fetch_add(1, Ordering::Relaxed);
        let trie = self.environment.trie();
        let mut tokens = trie.alloc_token_set();
        let limit = memo.work + MAX_WORK;
        let mut walk = Walk { memo: &mut *memo, path: vec![self.state], limit };
        trie.add_bias(&mut walk, &mut tokens, &[]);
        if memo.work > limit {
            return Err(failed("the grammar is too ambiguous here: finding the tokens that may follow takes too long"));
        }
        let mut words = tokens.as_slice().to_vec();
        words.resize(self.environment.n_vocab.div_ceil(32), 0);
        let ends = &self.environment.ends;
        ends.iter().for_each(|&end| words[end as usize / 32] &= !(1 << (end % 32)));
        for (token, is_negated) in memo.named_tokens(self.state) {
            let (word, bit) = (token as usize / 32, 1 << (token % 32));
            // The vocabulary of bytes has no such token.
            let Some(was_set) = words.get(word).map(|word| word & bit != 0) else { continue };
            if is_negated {
                fill(&mut words, self.environment.n_vocab);
                ends.iter().for_each(|&end| words[end as usize / 32] &= !(1 << (end % 32)));
            }
            match is_negated && !was_set {
                true => words[word] &= !bit,
                false => words[word] |= bit,
            }
        }
        match (words.iter().all(|&word| word == 0), memo.may_end(self.state)) {
            (true, true) => return Ok(None),
            (true, false) => return Err(failed("no token of the vocabulary continues the text")),
            (false, true) => ends.iter().for_each(|&end| words[end as usize / 32] |= 1 << (end % 32)),
            (false, false) => {}
        }
        let mask: Arc<[u32]> = words.into();
        memo.keep_mask(self.state, Arc::clone(&mask));
        Ok(Some(mask))
    }
}

/// Sets the first `n` bits.
fn fill(words: &mut [u32], n: usize) {
    words.fill(u32::MAX);
    if let (Some(last), rest @ 1..) = (words.last_mut(), n % 32) {
        *last = (1 << rest) - 1;
    }
}

impl Constraint for GbnfMatcher {
    fn allowed(&mut self) -> Result<Allowed, ConstraintError> {
        self.renew();
        let mask = self.find_mask(&mut lock(&self.memo))?;
        Ok(mask.map_or(Allowed::Nothing, Allowed::These))
    }

    fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError> {
        let mut memo = lock(&self.memo);
        let named = memo.step_token(self.state, token);
        let bytes = self.environment.trie().token(token);
        let is_text = !bytes.is_empty() && bytes[0] != TokTrie::SPECIAL_TOKEN_MARKER;
        let mut spelled = if is_text { self.state } else { NOWHERE };
        for &byte in bytes {
            spelled = memo.step(spelled, byte);
        }
        let next = memo.union(named, spelled);
        drop(memo);
        if next == NOWHERE {
            return Err(failed(format!("the token {token} is not allowed here")));
        }
        self.before.push(self.state);
        self.state = next;
        Ok(())
    }

    fn forced(&mut self) -> Vec<TokenId> {
        let mut memo = lock(&self.memo);
        let (mut state, mut bytes) = (self.state, Vec::new());
        while let Some((byte, next)) = memo.only_step(state).filter(|_| bytes.len() < MAX_FORCED) {
            bytes.push(byte);
            state = next;
        }
        if bytes.is_empty() {
            return Vec::new();
        }
        let mut tokens = self.environment.vocabulary.tokenize_bytes(&bytes);
        // What follows may change how the last ones are split.
        let limit = memo.work + MAX_WORK;
        let mut walk = Walk { memo: &mut memo, path: vec![state], limit };
        let (n_chopped, _) = self.environment.trie().chop_tokens(&mut walk, &tokens);
        tokens.truncate(tokens.len() - n_chopped);
        tokens
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(Self {
            grammar: Arc::clone(&self.grammar),
            environment: Arc::clone(&self.environment),
            memo: Arc::clone(&self.memo),
            state: self.state,
            before: self.before.clone(),
        })
    }

    fn rollback(&mut self, n_tokens: usize) -> Result<(), ConstraintError> {
        if n_tokens == 0 {
            return Ok(());
        }
        let at = self.before.len().checked_sub(n_tokens).ok_or_else(|| failed("fewer tokens were accepted"))?;
        self.state = self.before[at];
        self.before.truncate(at);
        Ok(())
    }
}

/// A walk over the trie of the vocabulary.
struct Walk<'a> {
    memo: &'a mut Memo,
    /// States after each byte of the path, the first one before it.
    path: Vec<Id>,
    limit: u64,
}

impl Recognizer for Walk<'_> {
    fn cancellation_enabled(&self) -> bool {
        true
    }

    fn cancellation_requested(&self) -> bool {
        self.memo.work > self.limit
    }

    #[inline(always)]
    fn pop_bytes(&mut self, num: usize) {
        self.path.truncate(self.path.len() - num);
    }

    fn collapse(&mut self) {
        let last = self.path.pop();
        self.path.clear();
        self.path.extend(last);
    }

    fn trie_finished(&mut self) {
        self.path.truncate(1);
    }

    #[inline(always)]
    fn try_push_byte(&mut self, byte: u8) -> bool {
        let from = *self.path.last().unwrap_or(&NOWHERE);
        let to = self.memo.step(from, byte);
        if to != NOWHERE {
            self.path.push(to);
        }
        to != NOWHERE
    }
}
