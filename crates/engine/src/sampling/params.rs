//! What a request may say about sampling.

use super::dry::DryBreakers;
use super::error::SamplingError;

/// Largest history window, in tokens, that penalties and DRY may look back on.
pub const MAX_WINDOW: usize = 1 << 20;

/// Most alternatives per token that log probabilities are given for.
const MAX_TOP_LOGPROBS: u32 = 1000;

/// Most entries of an order of samplers.
const MAX_SAMPLERS: usize = 64;

/// One step of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SamplerKind {
    /// Repeat, presence and frequency penalties.
    Penalties,
    /// "Don't repeat yourself".
    Dry,
    /// Keeps logits within n standard deviations of the largest.
    TopNSigma,
    /// Keeps the k largest.
    TopK,
    /// Keeps the locally typical ones.
    TypicalP,
    /// Keeps the nucleus.
    TopP,
    /// Keeps what is not far less likely than the most likely.
    MinP,
    /// Excludes top choices.
    Xtc,
    /// Temperature, fixed or dynamic.
    Temperature,
}

/// The order of llama.cpp.
pub const DEFAULT_SAMPLERS: [SamplerKind; 9] = [
    SamplerKind::Penalties,
    SamplerKind::Dry,
    SamplerKind::TopNSigma,
    SamplerKind::TopK,
    SamplerKind::TypicalP,
    SamplerKind::TopP,
    SamplerKind::MinP,
    SamplerKind::Xtc,
    SamplerKind::Temperature,
];

/// Exclude top choices: with a probability, all but the least likely of the tokens above a threshold are dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Xtc {
    /// How often it acts, 0 to 1.
    pub probability: f32,
    /// What counts as a top choice, 0 to 1; above 0.5 there is never more than one, so nothing happens.
    pub threshold: f32,
}

/// "Don't repeat yourself": a token that would go on with a repetition of `repeated` tokens loses
/// `multiplier · base^(repeated − allowed_length)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dry {
    /// Strength; 0 does nothing.
    pub multiplier: f32,
    /// Growth per repeated token, at least 1.
    pub base: f32,
    /// Repetitions shorter than this are free, in tokens.
    pub allowed_length: u32,
    /// How far back to look, in tokens.
    pub penalty_last_n: usize,
    /// Token sequences a repetition does not extend over.
    pub breakers: DryBreakers,
}

impl Default for Dry {
    /// llama.cpp's numbers with strength 0 and no breakers (these need a tokenizer).
    fn default() -> Self {
        Self { multiplier: 0.0, base: 1.75, allowed_length: 2, penalty_last_n: 64, breakers: DryBreakers::default() }
    }
}

/// Which estimate Mirostat uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirostatVersion {
    /// Estimates the exponent of Zipf's law and keeps k tokens.
    V1,
    /// Keeps tokens below a surprise.
    V2,
}

/// Mirostat: keeps the surprise of the text near a target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mirostat {
    /// Which algorithm.
    pub version: MirostatVersion,
    /// Target surprise in bits.
    pub tau: f32,
    /// Learning rate.
    pub eta: f32,
}

/// How a token is chosen. [`Default`] is what LocalAI gives a text model: temperature 0.9 over the 40 most likely
/// tokens cut at a nucleus of 0.95, nothing else. [`Self::neutral`] leaves the model's distribution as it is and
/// [`Self::greedy`] takes the most likely token.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Logits are divided by it, 0 to 100; 0 takes the most likely token.
    pub temperature: f32,
    /// Dynamic temperature: entropy moves the temperature within ± this, 0 to 100; 0 leaves it fixed.
    pub dynatemp_range: f32,
    /// Dynamic temperature: how entropy maps to temperature, 0 to 100; 1 is linear.
    pub dynatemp_exponent: f32,
    /// How many tokens to keep, at least 1; absent keeps all.
    pub top_k: Option<u32>,
    /// Keep the most likely tokens that together reach this probability, 0 to 1; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this likely relative to the most likely, 0 to 1; 0 keeps all.
    pub min_p: f32,
    /// Keep the most typical tokens that together exceed this probability, 0 to 1; 1 keeps all.
    pub typical_p: f32,
    /// Keep logits within this many standard deviations of the largest, above 0; absent keeps all.
    pub top_n_sigma: Option<f32>,
    /// Exclude top choices; absent does nothing.
    pub xtc: Option<Xtc>,
    /// Truncating samplers keep at least this many tokens.
    pub min_keep: usize,
    /// Divides positive and multiplies negative logits of tokens in the window, 0.001 to 1000; 1 does nothing.
    pub repeat_penalty: f32,
    /// Subtracted once from the logit of a token in the window, −100 to 100.
    pub presence_penalty: f32,
    /// Subtracted for each time the token stands in the window, −100 to 100.
    pub frequency_penalty: f32,
    /// The window of these three, in tokens of prompt and answer; 0 switches them off.
    pub repeat_last_n: usize,
    /// "Don't repeat yourself"; absent does nothing.
    pub dry: Option<Dry>,
    /// Replaces the whole chain but biases and temperature, as in llama.cpp.
    pub mirostat: Option<Mirostat>,
    /// Added to the logits of tokens; −∞ excludes a token. A token named twice gets the sum.
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed of the random numbers; absent takes the one the caller of [`super::Sampler::new`] provides.
    pub seed: Option<u64>,
    /// Give the log probability of the chosen token and of this many of the most likely ones, 0 to 1000.
    pub top_logprobs: Option<u32>,
    /// The chain in order; a sampler that is not listed does not act (also temperature).
    pub samplers: Vec<SamplerKind>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self { temperature: 0.9, top_k: Some(40), top_p: 0.95, ..Self::neutral() }
    }
}

impl SamplingParams {
    /// Draws from the model's own distribution.
    pub fn neutral() -> Self {
        Self {
            temperature: 1.0,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            top_n_sigma: None,
            xtc: None,
            min_keep: 0,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repeat_last_n: 64,
            dry: None,
            mirostat: None,
            logit_bias: Vec::new(),
            seed: None,
            top_logprobs: None,
            samplers: DEFAULT_SAMPLERS.to_vec(),
        }
    }

    /// Takes the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::neutral() }
    }

    /// Checks every number.
    ///
    /// # Errors
    /// [`SamplingError::OutOfRange`] names the first field that is not within its range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        self.validate_truncation()?;
        self.validate_penalties()?;
        if let Some(mirostat) = self.mirostat {
            within("mirostat_tau", mirostat.tau, 0.0, 100.0, "from 0 to 100")?;
            within("mirostat_eta", mirostat.eta, 0.0, 10.0, "from 0 to 10")?;
        }
        for &(_, bias) in &self.logit_bias {
            check("logit_bias", f64::from(bias), bias < f32::INFINITY, "a number or −∞")?;
        }
        let n_logprobs = self.top_logprobs.unwrap_or(0);
        check("top_logprobs", f64::from(n_logprobs), n_logprobs <= MAX_TOP_LOGPROBS, "from 0 to 1000")?;
        check("samplers", self.samplers.len() as f64, self.samplers.len() <= MAX_SAMPLERS, "at most 64 entries")
    }

    fn validate_truncation(&self) -> Result<(), SamplingError> {
        within("temperature", self.temperature, 0.0, 100.0, "from 0 to 100")?;
        within("dynatemp_range", self.dynatemp_range, 0.0, 100.0, "from 0 to 100")?;
        within("dynatemp_exponent", self.dynatemp_exponent, 0.0, 100.0, "from 0 to 100")?;
        check("top_k", 0.0, self.top_k != Some(0), "at least 1 (leave it out to keep all)")?;
        within("top_p", self.top_p, 0.0, 1.0, "from 0 to 1")?;
        within("min_p", self.min_p, 0.0, 1.0, "from 0 to 1")?;
        within("typical_p", self.typical_p, 0.0, 1.0, "from 0 to 1")?;
        if let Some(n) = self.top_n_sigma {
            within("top_n_sigma", n, f32::MIN_POSITIVE, 1000.0, "above 0, up to 1000 (leave it out to keep all)")?;
        }
        if let Some(xtc) = self.xtc {
            within("xtc_probability", xtc.probability, 0.0, 1.0, "from 0 to 1")?;
            within("xtc_threshold", xtc.threshold, 0.0, 1.0, "from 0 to 1")?;
        }
        window("min_keep", self.min_keep)
    }

    fn validate_penalties(&self) -> Result<(), SamplingError> {
        within("repeat_penalty", self.repeat_penalty, 1e-3, 1e3, "from 0.001 to 1000")?;
        within("presence_penalty", self.presence_penalty, -100.0, 100.0, "from -100 to 100")?;
        within("frequency_penalty", self.frequency_penalty, -100.0, 100.0, "from -100 to 100")?;
        window("repeat_last_n", self.repeat_last_n)?;
        if let Some(dry) = &self.dry {
            within("dry_multiplier", dry.multiplier, 0.0, 1000.0, "from 0 to 1000")?;
            within("dry_base", dry.base, 1.0, 100.0, "from 1 to 100")?;
            window("dry_allowed_length", dry.allowed_length as usize)?;
            window("dry_penalty_last_n", dry.penalty_last_n)?;
        }
        Ok(())
    }

    /// Do the three penalties change anything?
    pub(super) fn has_penalties(&self) -> bool {
        let neutral = self.repeat_penalty == 1.0 && self.presence_penalty == 0.0 && self.frequency_penalty == 0.0;
        self.repeat_last_n > 0 && !neutral
    }

    /// The DRY settings when they change anything.
    pub(super) fn active_dry(&self) -> Option<&Dry> {
        self.dry.as_ref().filter(|dry| dry.multiplier > 0.0 && dry.penalty_last_n > 0)
    }

    /// Whether a step of the chain can change anything.
    pub(super) fn is_active(&self, kind: SamplerKind) -> bool {
        match kind {
            SamplerKind::Penalties => self.has_penalties(),
            SamplerKind::Dry => self.active_dry().is_some(),
            SamplerKind::TopNSigma => self.top_n_sigma.is_some(),
            SamplerKind::TopK => self.top_k.is_some(),
            SamplerKind::TypicalP => self.typical_p < 1.0,
            SamplerKind::TopP => self.top_p < 1.0,
            SamplerKind::MinP => self.min_p > 0.0,
            SamplerKind::Xtc => self.xtc.is_some_and(|xtc| xtc.probability > 0.0 && xtc.threshold <= 0.5),
            SamplerKind::Temperature => self.temperature != 1.0 || self.dynatemp_range > 0.0,
        }
    }
}

fn check(field: &'static str, value: f64, holds: bool, permitted: &'static str) -> Result<(), SamplingError> {
    if holds { Ok(()) } else { Err(SamplingError::OutOfRange { field, value, permitted }) }
}

fn within(field: &'static str, value: f32, low: f32, high: f32, permitted: &'static str) -> Result<(), SamplingError> {
    check(field, f64::from(value), (low..=high).contains(&value), permitted)
}

fn window(field: &'static str, n_tokens: usize) -> Result<(), SamplingError> {
    check(field, n_tokens as f64, n_tokens <= MAX_WINDOW, "at most 1048576")
}
