//! Embeddings: texts to vectors.

use std::num::NonZeroU32;
use std::time::Duration;

use ingle_catalog::{ModelConfig, Usecase, WindowPooling};
use ingle_engine::{Answered, Dimensions, EmbedModel, EngineError, Sequence, TokenId};

use crate::complete::ALWAYS_COUNTED;
use crate::{Lease, Runtime, RuntimeError};

/// Over so many tokens a piece's weight halves when nobody says otherwise; LocalAI's number.
const HALF_LIFE_TOKENS: u32 = 256;

/// One thing to embed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbedInput {
    /// Text.
    Text(String),
    /// Tokens of the model.
    Tokens(Vec<TokenId>),
}

impl EmbedInput {
    /// About how many bytes it has, for whoever decides where to work on it.
    pub fn n_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Tokens(tokens) => size_of_val(tokens.as_slice()),
        }
    }
}

/// Which of the model's prompts goes in front of each text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EmbedPrompt {
    /// The model's default, if it has one.
    #[default]
    Default,
    /// The one of this name; an error where there is none.
    Named(String),
    /// The one for queries, if there is one.
    Query,
    /// The one for documents, if there is one.
    Document,
}

/// What becomes of texts that are longer than the model can look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LongTexts {
    /// As the model's configuration says; without a word there, the model's own way: to cut them or to refuse them.
    #[default]
    AsConfigured,
    /// The model's own way.
    AsModel,
    /// They are embedded piece by piece, and the pieces' vectors become one.
    Pieces {
        /// How.
        pooling: WindowPooling,
        /// For [`WindowPooling::DecayedMean`]; absent is the configuration's.
        half_life_tokens: Option<NonZeroU32>,
    },
}

/// Texts to embed.
#[derive(Debug, Clone, Default)]
pub struct EmbedCall {
    /// The model; absent is the first one that makes embeddings.
    pub model: Option<String>,
    /// What to embed.
    pub inputs: Vec<EmbedInput>,
    /// Numbers of each vector; absent is the model's own.
    pub dimensions: Option<usize>,
    /// What goes in front of each text; tokens stay as they are.
    pub prompt: EmbedPrompt,
    /// What becomes of long texts.
    pub long_texts: LongTexts,
}

/// The vectors of one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// The model that made them.
    pub model: String,
    /// One for each input, in order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens computed, special ones included.
    pub prompt_tokens: usize,
    /// Inputs that were cut to what the model takes.
    pub n_cut: usize,
    /// From submission to the first step.
    pub waited: Duration,
    /// From submission to the end.
    pub took: Duration,
}

/// How pieces become one.
#[derive(Debug, Clone, Copy)]
struct Merge {
    pooling: WindowPooling,
    half_life_tokens: u32,
}

/// What goes to the engine.
struct Prepared {
    sequences: Vec<Sequence>,
    /// Sequences of each input.
    n_pieces: Vec<usize>,
    n_cut: usize,
}

impl Runtime {
    /// Embeds every input.
    ///
    /// # Errors
    /// As [`Runtime::lease`]; [`RuntimeError::InvalidParameter`] for a number of dimensions or a prompt that the model
    /// does not have; [`RuntimeError::Input`] for an input that is empty, too long or out of range; the engine's own.
    pub async fn embed(&self, call: EmbedCall) -> Result<Embeddings, RuntimeError> {
        if call.inputs.is_empty() {
            return Err(invalid("input", "an empty list".into(), "at least one text or list of tokens"));
        }
        let lease = self.lease(call.model.as_deref(), Usecase::Embeddings).await?;
        let model = lease.embed()?;
        let n_embd = dimensions(model, call.dimensions)?;
        let prompt = prompt(model, &call.prompt)?;
        let merge = merge(lease.config(), call.long_texts);
        let prepared = prepare(model, &call.inputs, prompt, merge)?;
        let prompt_tokens = prepared.sequences.iter().map(|sequence| sequence.tokens.len()).sum();
        let lengths: Vec<usize> = prepared.sequences.iter().map(|sequence| sequence.tokens.len()).collect();
        let Answered { responses, waited, took } = model.thread.submit(prepared.sequences, self.time_limit())?.await?;
        let mut vectors = put_together(responses, &prepared.n_pieces, &lengths, merge);
        for vector in &mut vectors {
            finish(vector, n_embd, model, &lease)?;
        }
        let model = lease.model().to_owned();
        Ok(Embeddings { model, vectors, prompt_tokens, n_cut: prepared.n_cut, waited, took })
    }
}

fn invalid(parameter: &'static str, value: String, permitted: impl Into<String>) -> RuntimeError {
    RuntimeError::InvalidParameter { parameter, value, permitted: permitted.into() }
}

fn dimensions(model: &EmbedModel, asked: Option<usize>) -> Result<usize, RuntimeError> {
    let own = model.info.n_embd;
    let Some(asked) = asked.filter(|asked| *asked != own) else { return Ok(own) };
    let (fits, permitted) = match &model.info.dimensions {
        Dimensions::Any => ((1..own).contains(&asked), format!("1 to {own}")),
        Dimensions::Listed(sizes) => {
            let words: Vec<String> = sizes.iter().chain([&own]).map(ToString::to_string).collect();
            (sizes.contains(&asked) && asked < own, format!("one of {}", words.join(", ")))
        }
        Dimensions::Whole => (
            false,
            format!(
                "{own}: this model was not trained for shorter vectors (`options: [\"dimensions:…\"]` in its YAML)"
            ),
        ),
    };
    if fits { Ok(asked) } else { Err(invalid("dimensions", asked.to_string(), permitted)) }
}

/// Names that models give their prompts, the first one that is there counts.
const QUERY_PROMPTS: [&str; 2] = ["query", "search_query"];
const DOCUMENT_PROMPTS: [&str; 4] = ["document", "passage", "search_document", "corpus"];

fn prompt<'a>(model: &'a EmbedModel, asked: &EmbedPrompt) -> Result<&'a str, RuntimeError> {
    let prompts = &model.info.prompts;
    let first = |names: &[&str]| names.iter().find_map(|name| prompts.get(*name));
    let found = match asked {
        EmbedPrompt::Default => model.info.default_prompt.as_ref().and_then(|name| prompts.get(name)),
        EmbedPrompt::Query => first(&QUERY_PROMPTS),
        EmbedPrompt::Document => first(&DOCUMENT_PROMPTS),
        EmbedPrompt::Named(name) => match prompts.get(name) {
            Some(prompt) => Some(prompt),
            None => {
                let known: Vec<&str> = prompts.keys().map(String::as_str).collect();
                let permitted =
                    if known.is_empty() { "none, as this model has no prompts".into() } else { known.join(", ") };
                return Err(invalid("prompt_name", format!("{name:?}"), permitted));
            }
        },
    };
    Ok(found.map_or("", String::as_str))
}

fn merge(config: &ModelConfig, asked: LongTexts) -> Option<Merge> {
    let configured = config.embed.half_life_tokens;
    let of = |pooling, half_life: Option<NonZeroU32>| {
        let half_life_tokens = half_life.or(configured).map_or(HALF_LIFE_TOKENS, NonZeroU32::get);
        Merge { pooling, half_life_tokens }
    };
    match asked {
        LongTexts::AsConfigured => config.embed.long_texts.map(|pooling| of(pooling, None)),
        LongTexts::AsModel => None,
        LongTexts::Pieces { pooling, half_life_tokens } => Some(of(pooling, half_life_tokens)),
    }
}

fn prepare(
    model: &EmbedModel,
    inputs: &[EmbedInput],
    prompt: &str,
    merge: Option<Merge>,
) -> Result<Prepared, RuntimeError> {
    let mut prepared = Prepared { sequences: Vec::new(), n_pieces: Vec::new(), n_cut: 0 };
    let mut prompted = String::new();
    for (idx, input) in inputs.iter().enumerate() {
        let at = |error| RuntimeError::Input { idx, error };
        let encoded = match input {
            EmbedInput::Text(text) => {
                check_text(text).map_err(at)?;
                prompted.clear();
                prompted.push_str(prompt);
                prompted.push_str(text);
                if merge.is_some() {
                    let pieces = model.encoder.encode_windows(&prompted).map_err(at)?;
                    prepared.n_pieces.push(pieces.len());
                    prepared.sequences.extend(pieces);
                    continue;
                }
                model.encoder.encode(&prompted)
            }
            EmbedInput::Tokens(tokens) if tokens.is_empty() => Err(EngineError::EmptyPrompt),
            EmbedInput::Tokens(tokens) => model.encoder.encode_tokens(tokens),
        };
        let encoded = encoded.map_err(at)?;
        prepared.n_cut += usize::from(encoded.is_cut());
        prepared.n_pieces.push(1);
        prepared.sequences.push(encoded.sequence);
    }
    Ok(prepared)
}

/// Refuses what nobody can mean, before time is spent on it.
pub(crate) fn check_text(text: &str) -> Result<(), EngineError> {
    if text.is_empty() {
        return Err(EngineError::EmptyPrompt);
    }
    if text.len() > ALWAYS_COUNTED {
        let reason = format!("it has {} bytes, at most {ALWAYS_COUNTED} are taken; send it in parts", text.len());
        return Err(EngineError::Tokenize { reason });
    }
    Ok(())
}

/// The vectors of the inputs from those of their pieces.
fn put_together(
    responses: Vec<Vec<f32>>,
    n_pieces: &[usize],
    lengths: &[usize],
    merge: Option<Merge>,
) -> Vec<Vec<f32>> {
    let Some(merge) = merge else { return responses };
    let mut rest = (responses.as_slice(), lengths);
    let take = |&n_pieces: &usize| {
        let (pieces, others) = rest.0.split_at(n_pieces);
        let (lengths, other_lengths) = rest.1.split_at(n_pieces);
        rest = (others, other_lengths);
        merge.one(pieces, lengths)
    };
    n_pieces.iter().map(take).collect()
}

impl Merge {
    /// One vector of those of a text's pieces, `[n_embd]`, of the pieces' mean scale.
    fn one(&self, pieces: &[Vec<f32>], lengths: &[usize]) -> Vec<f32> {
        let Some((last, _)) = pieces.split_last() else { return Vec::new() };
        let behind = |idx: usize| lengths[idx + 1..].iter().sum::<usize>() as f64;
        let weight = |idx: usize| match self.pooling {
            WindowPooling::Mean => lengths[idx] as f64,
            WindowPooling::Last => f64::from(u8::from(idx + 1 == pieces.len())),
            WindowPooling::DecayedMean => {
                lengths[idx] as f64 * (-behind(idx) / f64::from(self.half_life_tokens)).exp2()
            }
        };
        let weights: Vec<f64> = (0..pieces.len()).map(weight).collect();
        let total: f64 = weights.iter().sum();
        let number = |dim: usize| {
            let sum: f64 = pieces.iter().zip(&weights).map(|(piece, weight)| f64::from(piece[dim]) * weight).sum();
            (sum / total) as f32
        };
        (0..last.len()).map(number).collect()
    }
}

/// Cuts a vector to the asked size and scales it to length 1 again where the model's vectors are.
fn finish(vector: &mut Vec<f32>, n_embd: usize, model: &EmbedModel, lease: &Lease) -> Result<(), RuntimeError> {
    if vector.iter().any(|number| !number.is_finite()) {
        return Err(RuntimeError::NotANumber { model: lease.model().to_owned() });
    }
    let is_cut = n_embd < vector.len();
    vector.truncate(n_embd);
    let length = vector.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
    // A vector that came normalized and whole is left as it is, to the last bit.
    let needs_it = is_cut || (model.info.is_normalized && (length - 1.0).abs() > 1e-4);
    if needs_it && length > 0.0 {
        vector.iter_mut().for_each(|number| *number = (f64::from(*number) / length) as f32);
    }
    Ok(())
}
