//! The sampler of one sequence.

use std::collections::HashMap;

use ingle_kernels::{RowFault, argmax};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

use super::dry::{self, DryScratch};
use super::error::SamplingError;
use super::history::History;
use super::logprobs::{RawLogprobs, TokenLogprob};
use super::mirostat::MirostatState;
use super::params::{SamplerKind, SamplingParams};
use super::pool::{Pool, Scratch};
use super::{penalties, temperature, truncate};

/// A chosen token.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: u32,
    /// Its log probability, if the parameters ask for it.
    pub logprob: Option<TokenLogprob>,
}

/// How the token is taken from what the chain leaves.
#[derive(Debug, Clone)]
enum Finish {
    /// The most likely.
    Peak,
    /// A draw.
    Draw,
    /// A draw after Mirostat's truncation.
    Mirostat(MirostatState),
}

/// Chooses the tokens of one sequence. A clone goes on from the same state with the same random numbers.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    /// The steps that can change the outcome.
    chain: Vec<SamplerKind>,
    finish: Finish,
    biases: HashMap<u32, f32>,
    n_vocab: usize,
    seed: u64,
    rng: Pcg64Mcg,
    history: History,
    dry: DryScratch,
    scratch: Scratch,
}

impl Sampler {
    /// A sampler for rows of `n_vocab` logits. `fallback_seed` is used when the parameters have no seed; the caller
    /// makes it random.
    ///
    /// # Errors
    /// What [`SamplingParams::validate`] finds, or a bias for a token outside the vocabulary.
    pub fn new(params: SamplingParams, n_vocab: usize, fallback_seed: u64) -> Result<Self, SamplingError> {
        params.validate()?;
        let mut biases = HashMap::with_capacity(params.logit_bias.len());
        for &(token, bias) in &params.logit_bias {
            if token as usize >= n_vocab {
                return Err(SamplingError::UnknownToken { field: "logit_bias", token, n_vocab });
            }
            let sum = biases.entry(token).or_insert(0.0f32);
            *sum = (*sum + bias).min(f32::MAX);
        }
        let (chain, finish) = plan(&params);
        let penalty_window = if params.has_penalties() { params.repeat_last_n } else { 0 };
        let dry_window = params.active_dry().map_or(0, |dry| dry.penalty_last_n);
        let seed = params.seed.unwrap_or(fallback_seed);
        Ok(Self {
            chain,
            finish,
            biases,
            n_vocab,
            seed,
            rng: Pcg64Mcg::seed_from_u64(seed),
            history: History::new(penalty_window, penalty_window.max(dry_window)),
            dry: DryScratch::default(),
            scratch: Scratch::default(),
            params,
        })
    }

    /// The seed in use.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The parameters in use.
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// Takes the tokens of the prompt into the history of penalties and DRY: as in llama.cpp's server, a token of the
    /// prompt counts like one of the answer.
    pub fn prime(&mut self, prompt: &[u32]) {
        self.history.extend_from_prompt(prompt);
    }

    /// Takes a token into the sequence: the one sampled last, or one that was forced.
    pub fn accept(&mut self, token: u32) {
        self.history.push(token);
        if let Finish::Mirostat(state) = &mut self.finish {
            state.accept(token);
        }
    }

    /// Chooses a token from `logits`, `[n_vocab]`. `mask`, `[n_vocab / 32 rounded up]`, allows token `i` by bit
    /// `i % 32` of word `i / 32`. Changes nothing but the random numbers until [`Self::accept`].
    ///
    /// # Errors
    /// A row or a mask of the wrong length, a NaN or +∞ in the row, no token left.
    pub fn sample(&mut self, logits: &[f32], mask: Option<&[u32]>) -> Result<Sampled, SamplingError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let sampled = self.sample_with(&mut scratch, logits, mask);
        self.scratch = scratch;
        sampled
    }

    /// As [`Self::sample`] with buffers of the caller, so that many sequences on one thread share them: a buffer is as
    /// large as a row once a sampler has edited one.
    ///
    /// # Errors
    /// As [`Self::sample`].
    pub fn sample_with(
        &mut self,
        scratch: &mut Scratch,
        logits: &[f32],
        mask: Option<&[u32]>,
    ) -> Result<Sampled, SamplingError> {
        self.check_row(logits)?;
        let raw = match self.params.top_logprobs {
            Some(n_top) => Some(RawLogprobs::of(logits, n_top as usize, scratch)?),
            None if self.takes_raw_peak() && mask.is_none() => {
                return Ok(Sampled { token: raw_peak(logits)?, logprob: None });
            }
            None => None,
        };
        let token = self.choose(scratch, logits, mask)?;
        Ok(Sampled { token, logprob: raw.map(|raw| raw.about(logits[token as usize])) })
    }

    /// The probabilities from which [`Self::sample`] would draw, likeliest first; excluded tokens are left out. For
    /// tests and inspection: leaves no trace in the sampler.
    ///
    /// # Errors
    /// As [`Self::sample`].
    pub fn distribution(&mut self, logits: &[f32], mask: Option<&[u32]>) -> Result<Vec<(u32, f32)>, SamplingError> {
        self.check_row(logits)?;
        let (mut scratch, rng) = (Scratch::default(), self.rng.clone());
        let mut pool = Pool::open(logits, mask, &mut scratch)?;
        let peak = self.run_chain(&mut pool)?;
        self.rng = rng;
        Ok(match peak {
            Some(token) => vec![(token, 1.0)],
            None => pool.distribution(),
        })
    }

    fn check_row(&self, logits: &[f32]) -> Result<(), SamplingError> {
        if logits.len() == self.n_vocab {
            return Ok(());
        }
        Err(SamplingError::RowLength { row_len: logits.len(), n_vocab: self.n_vocab })
    }

    fn takes_raw_peak(&self) -> bool {
        matches!(self.finish, Finish::Peak) && self.chain.is_empty() && self.biases.is_empty()
    }

    fn choose(&mut self, scratch: &mut Scratch, logits: &[f32], mask: Option<&[u32]>) -> Result<u32, SamplingError> {
        let mut pool = Pool::open(logits, mask, scratch)?;
        if let Some(token) = self.run_chain(&mut pool)? {
            return Ok(token);
        }
        let (token, probability) = pool.draw(self.uniform()).ok_or(SamplingError::NoCandidate)?;
        if let Finish::Mirostat(state) = &mut self.finish {
            state.note(token, probability);
        }
        Ok(token)
    }

    /// Runs biases and chain over the pool. Answers the token when there is nothing to draw.
    fn run_chain(&mut self, pool: &mut Pool) -> Result<Option<u32>, SamplingError> {
        pool.change(&self.biases, |logit, bias| logit + bias);
        if pool.max() == f32::NEG_INFINITY {
            return Err(SamplingError::NoCandidate);
        }
        for step in 0..self.chain.len() {
            self.run_step(self.chain[step], pool);
        }
        match &self.finish {
            Finish::Peak => pool.peak().map(|peak| Some(peak.index)).ok_or(SamplingError::NoCandidate),
            Finish::Draw => Ok(None),
            Finish::Mirostat(state) => {
                temperature::apply_fixed(pool, self.params.temperature);
                state.truncate(pool);
                Ok(None)
            }
        }
    }

    fn run_step(&mut self, kind: SamplerKind, pool: &mut Pool) {
        let params = &self.params;
        match kind {
            SamplerKind::Penalties => penalties::penalise(pool, params, &self.history),
            SamplerKind::Dry => {
                if let Some(dry) = params.active_dry() {
                    dry::penalise(pool, dry, &self.history, &mut self.dry);
                }
            }
            SamplerKind::TopNSigma => {
                if let Some(n) = params.top_n_sigma {
                    truncate::top_n_sigma(pool, n);
                }
            }
            SamplerKind::TopK => {
                if let Some(k) = params.top_k {
                    truncate::top_k(pool, k as usize);
                }
            }
            SamplerKind::TypicalP => truncate::typical_p(pool, params.typical_p, params.min_keep),
            SamplerKind::TopP => truncate::top_p(pool, params.top_p, params.min_keep),
            SamplerKind::MinP => truncate::min_p(pool, params.min_p, params.min_keep),
            SamplerKind::Xtc => {
                if let Some(xtc) = params.xtc {
                    truncate::xtc(pool, xtc, params.min_keep, uniform(&mut self.rng) as f32);
                }
            }
            SamplerKind::Temperature => temperature::apply(pool, params),
        }
    }

    fn uniform(&mut self) -> f64 {
        uniform(&mut self.rng)
    }
}

/// Uniform in [0, 1).
fn uniform(rng: &mut Pcg64Mcg) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

fn raw_peak(logits: &[f32]) -> Result<u32, SamplingError> {
    match argmax(logits) {
        Ok(peak) if peak.value == f32::INFINITY => Err(SamplingError::BadLogit { index: peak.index }),
        Ok(peak) if peak.value == f32::NEG_INFINITY => Err(SamplingError::NoCandidate),
        Ok(peak) => Ok(peak.index as u32),
        Err(RowFault::NotANumber { index }) => Err(SamplingError::BadLogit { index }),
        Err(RowFault::Empty) => Err(SamplingError::NoCandidate),
    }
}

/// The steps that matter, and the finish. Temperature 0 takes the largest logit; what only drops smaller ones before
/// that is left out.
fn plan(params: &SamplingParams) -> (Vec<SamplerKind>, Finish) {
    if let Some(settings) = params.mirostat {
        let is_greedy = params.temperature == 0.0;
        let finish = if is_greedy { Finish::Peak } else { Finish::Mirostat(MirostatState::new(settings)) };
        return (Vec::new(), finish);
    }
    let active = |kind: &SamplerKind| params.is_active(*kind);
    let mut chain: Vec<SamplerKind> = params.samplers.iter().copied().filter(active).collect();
    let is_greedy = params.temperature == 0.0 && params.dynatemp_range == 0.0;
    if !is_greedy || !chain.contains(&SamplerKind::Temperature) {
        return (chain, Finish::Draw);
    }
    let n_edits = chain.iter().take_while(|kind| is_edit(**kind)).count();
    if chain[n_edits..].iter().all(|kind| keeps_peak(*kind)) {
        chain.truncate(n_edits);
    }
    (chain, Finish::Peak)
}

fn is_edit(kind: SamplerKind) -> bool {
    matches!(kind, SamplerKind::Penalties | SamplerKind::Dry)
}

/// Whether the largest logit stays, and stays the largest.
fn keeps_peak(kind: SamplerKind) -> bool {
    match kind {
        SamplerKind::TopNSigma | SamplerKind::TopK | SamplerKind::TopP | SamplerKind::MinP => true,
        SamplerKind::Temperature => true,
        SamplerKind::Penalties | SamplerKind::Dry | SamplerKind::TypicalP | SamplerKind::Xtc => false,
    }
}
