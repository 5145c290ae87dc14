//! DRY: tokens that would go on with a repetition lose probability the faster the longer it already is.

use std::collections::HashMap;
use std::sync::Arc;

use super::history::History;
use super::params::Dry;
use super::pool::Pool;

/// A breaker is cut to this many bytes.
const MAX_BREAKER_BYTES: usize = 40;

/// The rest of a breaker after its first token is cut to this many tokens.
const MAX_TAIL_TOKENS: usize = 20;

/// ln of the largest f32: keeps the power below infinity.
const LN_F32_MAX: f32 = 88.722_84;

/// Token sequences over which a repetition does not extend, by first token. Making them looks at the whole vocabulary,
/// so a caller makes them once for a model and a list of breakers; a clone is cheap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DryBreakers {
    tails_by_head: Arc<HashMap<u32, Vec<Vec<u32>>>>,
}

impl DryBreakers {
    /// From token sequences as they are; empty ones are skipped.
    pub fn from_sequences(sequences: &[Vec<u32>]) -> Self {
        let mut tails_by_head: HashMap<u32, Vec<Vec<u32>>> = HashMap::new();
        for sequence in sequences {
            if let Some((&head, tail)) = sequence.split_first() {
                tails_by_head.entry(head).or_default().push(tail.to_vec());
            }
        }
        Self { tails_by_head: Arc::new(tails_by_head) }
    }

    /// From text. A token that contains a breaker breaks by itself; a token that ends with the beginning of a breaker
    /// breaks when the rest of it follows.
    ///
    /// `token_text` appends the text of a token, special tokens included, to a buffer. `tokenize` gives the tokens of a
    /// rest, without special tokens; the rest may begin or end within a character.
    pub fn from_text<S: AsRef<str>>(
        breakers: &[S],
        n_vocab: usize,
        mut token_text: impl FnMut(u32, &mut Vec<u8>),
        mut tokenize: impl FnMut(&[u8]) -> Vec<u32>,
    ) -> Self {
        let mut tails_by_head: HashMap<u32, Vec<Vec<u32>>> = HashMap::new();
        let mut text = Vec::new();
        let breakers: Vec<&[u8]> = breakers
            .iter()
            .map(|breaker| breaker.as_ref().as_bytes())
            .filter(|breaker| !breaker.is_empty())
            .map(|breaker| &breaker[..breaker.len().min(MAX_BREAKER_BYTES)])
            .collect();
        for token in 0..n_vocab as u32 {
            text.clear();
            token_text(token, &mut text);
            for breaker in &breakers {
                for rest in rests_of(&text, breaker) {
                    let mut tail = if rest.is_empty() { Vec::new() } else { tokenize(rest) };
                    tail.truncate(MAX_TAIL_TOKENS);
                    let tails = tails_by_head.entry(token).or_default();
                    if !tails.contains(&tail) {
                        tails.push(tail);
                    }
                }
            }
        }
        Self { tails_by_head: Arc::new(tails_by_head) }
    }

    /// Whether no sequence is known.
    pub fn is_empty(&self) -> bool {
        self.tails_by_head.is_empty()
    }

    /// Whether the token breaks all by itself.
    fn is_single(&self, token: u32) -> bool {
        self.tails_by_head.get(&token).is_some_and(|tails| tails.iter().any(Vec::is_empty))
    }

    /// Longest tail that follows the token `age` back in the history, if the token begins a breaker there.
    fn longest_match(&self, history: &History, age: usize) -> Option<usize> {
        let tails = self.tails_by_head.get(&history.recent(age))?;
        let follows = |tail: &&Vec<u32>| {
            tail.len() <= age && tail.iter().zip(1..).all(|(&token, ahead)| token == history.recent(age - ahead))
        };
        tails.iter().filter(follows).map(Vec::len).max()
    }
}

/// What must follow `text` to complete `breaker`: nothing when `text` contains it, else the rest of the breaker for
/// each end of `text` that is a beginning of it.
fn rests_of<'b>(text: &[u8], breaker: &'b [u8]) -> Vec<&'b [u8]> {
    if text.windows(breaker.len()).any(|window| window == breaker) {
        return vec![&[]];
    }
    let overlaps = 1..breaker.len().min(text.len() + 1);
    overlaps.rev().filter(|&n| text.ends_with(&breaker[..n])).map(|n| &breaker[n..]).collect()
}

/// Buffers of DRY, reused from token to token.
#[derive(Debug, Clone, Default)]
pub(super) struct DryScratch {
    /// By age: how many of the newest tokens also stand before the token of that age, itself included.
    repeats: Vec<usize>,
    /// Longest repetition that each token would go on with.
    longest: HashMap<u32, usize>,
}

/// Lowers the logits of the tokens that would go on with a repetition.
pub(super) fn penalise(pool: &mut Pool, dry: &Dry, history: &History, scratch: &mut DryScratch) {
    let n_tokens = history.len().min(dry.penalty_last_n);
    let allowed = dry.allowed_length as usize;
    if n_tokens <= allowed {
        return;
    }
    let limit = unbroken_len(&dry.breakers, history, n_tokens);
    if limit < allowed {
        return;
    }
    count_repeats(history, n_tokens, limit, &mut scratch.repeats);
    scratch.longest.clear();
    for age in 1..n_tokens {
        let repeated = scratch.repeats[age];
        let next = history.recent(age - 1);
        if repeated >= allowed && !dry.breakers.is_single(next) {
            let longest = scratch.longest.entry(next).or_insert(repeated);
            *longest = repeated.max(*longest);
        }
    }
    let max_exponent = if dry.base > 1.000_001 { (LN_F32_MAX / dry.base.ln()) as usize } else { 0 };
    pool.penalise(&scratch.longest, |logit, &repeated| {
        let exponent = repeated - allowed;
        let exponent = if max_exponent > 0 { exponent.min(max_exponent) } else { exponent };
        logit - (f64::from(dry.multiplier) * f64::from(dry.base).powf(exponent as f64)) as f32
    });
}

/// How many of the newest tokens follow the last breaker.
fn unbroken_len(breakers: &DryBreakers, history: &History, n_tokens: usize) -> usize {
    if breakers.is_empty() {
        return n_tokens;
    }
    (0..n_tokens).find_map(|age| Some(age - breakers.longest_match(history, age)?)).unwrap_or(n_tokens)
}

/// The Z-algorithm over the reversed history: linear in `n_tokens`. Counts are cut to `limit`, also where the algorithm
/// reads them back, as llama.cpp does.
fn count_repeats(history: &History, n_tokens: usize, limit: usize, repeats: &mut Vec<usize>) {
    repeats.clear();
    repeats.resize(n_tokens, 0);
    let common_len = |mut at: usize, age: usize| {
        while at < n_tokens && history.recent(at) == history.recent(at - age) {
            at += 1;
        }
        at - age
    };
    // The box [box_start, box_end) is the match that reaches furthest back.
    let (mut box_start, mut box_end) = (0, 1);
    for age in 1..n_tokens {
        if age >= box_end {
            let n = common_len(age, age);
            repeats[age] = n.min(limit);
            if n > 0 {
                (box_start, box_end) = (age, age + n);
            }
        } else if repeats[age - box_start] < box_end - age {
            repeats[age] = repeats[age - box_start].min(limit);
        } else {
            let n = common_len(box_end, age);
            repeats[age] = n.min(limit);
            (box_start, box_end) = (age, age + n);
        }
    }
}
