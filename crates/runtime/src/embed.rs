//! Embeddings: texts to vectors.

use std::num::NonZeroU32;
use std::task::Poll;
use std::time::Duration;

use ingle_catalog::{ModelConfig, Usecase, WindowPooling};
use ingle_engine::{Answered, BatchConfig, Dimensions, EmbedModel, Encoded, EngineError, Pending, Sequence, TokenId};

use crate::complete::ALWAYS_COUNTED;
use crate::{Lease, Runtime, RuntimeError};

/// Over so many tokens a piece's weight halves when nobody says otherwise; LocalAI's number.
const HALF_LIFE_TOKENS: u32 = 256;

/// Numbers in all vectors of one call at most: 256 MiB of them, and several times that as text in a response.
const MOST_NUMBERS: usize = 64 << 20;

/// Inputs that are tokenized in one go; then whoever drives the call may find that nobody waits for it.
const INPUTS_AT_ONCE: usize = 64;

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
#[derive(Default)]
struct Prepared {
    sequences: Vec<Sequence>,
    /// Tokens of all sequences.
    n_tokens: usize,
    /// Sequences of each input.
    n_pieces: Vec<usize>,
    n_cut: usize,
}

/// A call whose texts are tokenized and queued; dropping it cancels the call.
#[must_use = "dropping it cancels the call"]
pub struct PendingEmbeddings {
    pending: Pending<Vec<f32>>,
    lease: Lease,
    n_embd: usize,
    merge: Option<Merge>,
    n_pieces: Vec<usize>,
    /// Tokens of each sequence.
    lengths: Vec<usize>,
    n_tokens: usize,
    n_cut: usize,
}

impl PendingEmbeddings {
    /// Waits for the vectors.
    ///
    /// # Errors
    /// [`RuntimeError::NotANumber`], and the engine's own.
    pub async fn finish(self) -> Result<Embeddings, RuntimeError> {
        let Self { pending, lease, n_embd, merge, n_pieces, lengths, n_tokens, n_cut } = self;
        let Answered { responses, waited, took } = pending.await?;
        let mut vectors = put_together(responses, &n_pieces, &lengths, merge);
        for vector in &mut vectors {
            finish(vector, n_embd, lease.embed()?, &lease)?;
        }
        let model = lease.model().to_owned();
        Ok(Embeddings { model, vectors, prompt_tokens: n_tokens, n_cut, waited, took })
    }
}

impl Runtime {
    /// Embeds every input.
    ///
    /// # Errors
    /// As [`Runtime::begin_embed`] and [`PendingEmbeddings::finish`].
    pub async fn embed(&self, call: EmbedCall) -> Result<Embeddings, RuntimeError> {
        self.begin_embed(call).await?.finish().await
    }

    /// Tokenizes every input and queues the call: the part that keeps a thread busy. It lets go of the thread for a
    /// moment now and then, so that dropping it ends it.
    ///
    /// # Errors
    /// As [`Runtime::lease`]; [`RuntimeError::InvalidParameter`] for a number of dimensions or a prompt that the model
    /// does not have, and for more inputs than one call may have; [`RuntimeError::Input`] for an input that is empty,
    /// too long or out of range; the engine's own.
    pub async fn begin_embed(&self, call: EmbedCall) -> Result<PendingEmbeddings, RuntimeError> {
        if call.inputs.is_empty() {
            return Err(invalid("input", "an empty list".into(), "at least one text or list of tokens"));
        }
        let lease = self.lease(call.model.as_deref(), Usecase::Embeddings).await?;
        let model = lease.embed()?;
        let n_embd = dimensions(model, call.dimensions)?;
        let prompt = prompt(model, &call.prompt)?;
        let merge = merge(lease.config(), call.long_texts);
        check_count(model.info.n_embd, call.inputs.len())?;
        let mut prepared = Prepared::default();
        for (part_idx, inputs) in call.inputs.chunks(INPUTS_AT_ONCE).enumerate() {
            if part_idx > 0 {
                breathe().await;
            }
            prepared.add(model, (part_idx * INPUTS_AT_ONCE, inputs), prompt, merge)?;
        }
        let Prepared { sequences, n_tokens, n_pieces, n_cut } = prepared;
        let lengths = sequences.iter().map(|sequence| sequence.tokens.len()).collect();
        let pending = model.thread.submit(sequences, self.time_limit())?;
        Ok(PendingEmbeddings { pending, lease, n_embd, merge, n_pieces, lengths, n_tokens, n_cut })
    }
}

/// Lets go of the thread once, so that a call that nobody waits for can be dropped in the middle of long work.
pub(crate) async fn breathe() {
    let mut has_let_go = false;
    std::future::poll_fn(|context| match std::mem::replace(&mut has_let_go, true) {
        true => Poll::Ready(()),
        false => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// Refuses more vectors than fit into memory beside those of other calls.
fn check_count(n_embd: usize, n_vectors: usize) -> Result<(), RuntimeError> {
    let most = MOST_NUMBERS / n_embd.max(1);
    if n_vectors <= most {
        return Ok(());
    }
    let permitted =
        format!("at most {most} inputs (or pieces of long ones) in a call, as each becomes {n_embd} numbers");
    Err(invalid("input", format!("a list of {n_vectors}"), permitted))
}

/// Refuses a call whose tokens can never wait together, before more of it is tokenized.
pub(crate) fn check_cost(config: &BatchConfig, cost: usize) -> Result<(), EngineError> {
    let (limit, unit) = (config.max_waiting_cost, config.unit);
    if cost > limit { Err(EngineError::TooMuchAtOnce { cost, limit, unit }) } else { Ok(()) }
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

impl Prepared {
    /// Adds inputs, the first of which has the index `first_idx` in the call.
    fn add(
        &mut self,
        model: &EmbedModel,
        (first_idx, inputs): (usize, &[EmbedInput]),
        prompt: &str,
        merge: Option<Merge>,
    ) -> Result<(), RuntimeError> {
        for (idx, input) in (first_idx..).zip(inputs) {
            let at = |error| RuntimeError::Input { idx, error };
            match input {
                EmbedInput::Text(text) => {
                    check_text(text).map_err(at)?;
                    let text = [prompt, text.as_str()].concat();
                    match merge {
                        Some(_) => self.push_pieces(model.encoder.encode_windows(&text).map_err(at)?),
                        None => self.push(model.encoder.encode(&text).map_err(at)?),
                    }
                }
                EmbedInput::Tokens(tokens) if tokens.is_empty() => return Err(at(EngineError::EmptyPrompt)),
                EmbedInput::Tokens(tokens) => self.push(model.encoder.encode_tokens(tokens).map_err(at)?),
            }
            check_count(model.info.n_embd, self.sequences.len())?;
            check_cost(model.thread.config(), self.n_tokens)?;
        }
        Ok(())
    }

    fn push(&mut self, encoded: Encoded) {
        self.n_cut += usize::from(encoded.is_cut());
        self.push_pieces(vec![encoded.sequence]);
    }

    fn push_pieces(&mut self, pieces: Vec<Sequence>) {
        self.n_pieces.push(pieces.len());
        self.n_tokens += pieces.iter().map(|piece| piece.tokens.len()).sum::<usize>();
        self.sequences.extend(pieces);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_only_so_many_vectors() {
        assert!(check_count(384, 174_762).is_ok());
        let error = check_count(384, 174_763).unwrap_err();
        assert!(matches!(error, RuntimeError::InvalidParameter { parameter: "input", .. }), "{error}");
        assert!(error.to_string().contains("input is a list of 174763; use at most 174762 inputs"), "{error}");
    }
}
