//! Plain text completion.

use ingle_catalog::{ModelConfig, Usecase};
use ingle_engine::{
    ConstraintHandle, ControlTokens, EndOfGeneration, EngineError, GenerationRequest, Segment, Surround, TextModel,
    TokenId,
};

use crate::answer::AnswerShape;
use crate::options::sampling_params;
use crate::{AnswerOptions, Runtime, RuntimeError, TextStream, grammar, prompter};

/// Text up to here is always counted exactly; it takes a fraction of a second.
pub(crate) const ALWAYS_COUNTED: usize = 4 << 20;

/// Most answers one call may ask for.
const MAX_ANSWERS: usize = 128;

/// What to complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptInput {
    /// Text; control tokens spelled in it are recognised, as the caller writes the whole prompt.
    Text(String),
    /// Tokens of the model.
    Tokens(Vec<TokenId>),
}

/// A completion to make.
#[derive(Debug, Clone)]
pub struct CompletionCall {
    /// The model; absent is the first one that completes text.
    pub model: Option<String>,
    /// What to complete.
    pub prompt: PromptInput,
    /// How.
    pub options: AnswerOptions,
}

impl Runtime {
    /// Starts `options.n` completions of one prompt. Everything that can be checked is checked before it returns.
    ///
    /// # Errors
    /// As [`Runtime::lease`]; [`EngineError`]s for a prompt that does not fit, parameters out of range, a full queue.
    pub async fn complete(&self, call: CompletionCall) -> Result<Vec<TextStream>, RuntimeError> {
        let lease = self.lease(call.model.as_deref(), Usecase::Completion).await?;
        let model = lease.text()?;
        let prompt = match call.prompt {
            PromptInput::Text(text) => {
                let text = prompter::completion_prompt(lease.config(), text)?;
                tokenize_prompt(model, &[Segment::parse(text)])?
            }
            PromptInput::Tokens(tokens) => tokens,
        };
        let mut request = generation_request(model, lease.config(), prompt, &call.options)?;
        request.time_limit = self.time_limit();
        let own = grammar::of_config(self.catalog(), lease.config())?;
        let form = grammar::form(&lease, call.options.grammar.as_ref().or(own.as_ref()))?;
        request.constraint = form.as_ref().map(|form| ConstraintHandle(form.start()));
        let generations = model.submit_all(repeat(request, call.options.n)?)?;
        let shape = AnswerShape::of(lease.config(), form.is_some())?;
        let stream = |generation| TextStream::new(generation, lease.clone(), form.clone()).edited(&shape);
        Ok(generations.into_iter().map(stream).collect())
    }
}

/// Tokens of a prompt; refuses text that cannot fit before spending time on it.
pub(crate) fn tokenize_prompt(model: &TextModel, segments: &[Segment]) -> Result<Vec<TokenId>, EngineError> {
    /// No common vocabulary has longer entries, but for runs of blanks.
    const MOST_BYTES_PER_TOKEN: usize = 128;
    let context_tokens = model.limits().n_sequence_tokens;
    let prompt_bytes = segments.iter().map(|segment| segment.text.len()).sum::<usize>();
    let least_tokens = prompt_bytes / MOST_BYTES_PER_TOKEN;
    if prompt_bytes > ALWAYS_COUNTED && least_tokens >= context_tokens {
        return Err(EngineError::PromptTooLarge { prompt_bytes, least_tokens, context_tokens });
    }
    model.tokenizer().tokenize(segments, Surround::AsModelWants)
}

/// One request with everything merged in.
pub(crate) fn generation_request(
    model: &TextModel,
    config: &ModelConfig,
    prompt: Vec<TokenId>,
    options: &AnswerOptions,
) -> Result<GenerationRequest, RuntimeError> {
    let yaml = &config.defaults;
    let ignores_end = options.ignore_eos.or(yaml.ignore_eos).unwrap_or(false);
    Ok(GenerationRequest {
        prompt,
        sampling: sampling_params(options, config, model.tokenizer().as_ref())?,
        max_tokens: options.max_tokens.or(yaml.max_tokens.map(|n| n.get() as usize)),
        stop: config.output.stopwords.iter().chain(&options.stop).cloned().collect(),
        end_of_generation: if ignores_end { EndOfGeneration::Ignored } else { EndOfGeneration::Stops },
        control_tokens: ControlTokens::Hide,
        overflow: options.overflow,
        prefix_reuse: options.prefix_reuse,
        constraint: None,
        time_limit: None,
    })
}

/// `n` requests that differ in their seed only.
pub(crate) fn repeat(request: GenerationRequest, n: usize) -> Result<Vec<GenerationRequest>, RuntimeError> {
    if n == 0 || n > MAX_ANSWERS {
        return Err(RuntimeError::InvalidParameter {
            parameter: "n",
            value: n.to_string(),
            permitted: format!("1 to {MAX_ANSWERS}"),
        });
    }
    let with_seed = |idx: usize| {
        let mut request = request.clone();
        request.sampling.seed = request.sampling.seed.map(|seed| seed.wrapping_add(idx as u64));
        request
    };
    Ok((0..n).map(with_seed).collect())
}
