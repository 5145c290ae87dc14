//! From the fields of a request to the runtime's options; what cannot be honoured is refused here.
use ingle_api::openai::{LogprobsRequest, SamplingFields};
use ingle_runtime::{AnswerOptions, PrefixReuse, SamplingOverrides, TokenWindow};

use super::form::Asked;
use crate::error::ApiError;

/// Most answers one request may ask for.
pub(crate) const MAX_ANSWERS: usize = 128;

/// Most alternatives to list for a token.
const MAX_TOP_LOGPROBS: i64 = 20;

/// Most strings that may end an answer; the text is searched for each of them.
const MAX_STOPS: usize = 256;

/// Bytes of all these strings together.
const MAX_STOP_BYTES: usize = 16 << 10;

/// Most biases of all answers of a request together; each answer has its own copy.
const MAX_BIASES: usize = 1 << 16;

/// Options of an answer.
///
/// # Errors
/// Names the parameter that is out of range or asks for something that is not there.
pub(crate) fn answer_options(
    fields: SamplingFields,
    max_completion_tokens: Option<i64>,
    top_logprobs: Option<u32>,
    asked: Asked,
) -> Result<AnswerOptions, ApiError> {
    let sampling = overrides(&fields)?;
    let max_tokens = match max_completion_tokens {
        Some(_) => limit("max_completion_tokens", max_completion_tokens)?,
        None => limit("max_tokens", fields.max_tokens)?,
    };
    let n = n_answers(fields.n)?;
    if sampling.logit_bias.len().saturating_mul(n) > MAX_BIASES {
        let permitted = format!("at most {} entries for {n} answers", MAX_BIASES / n);
        return Err(out_of_range("logit_bias", sampling.logit_bias.len(), &permitted));
    }
    let options = AnswerOptions {
        n,
        sampling,
        max_tokens,
        stop: stops(fields.stop.map(|stop| stop.0).unwrap_or_default())?,
        ignore_eos: fields.ignore_eos,
        top_logprobs,
        overflow: None,
        prefix_reuse: match fields.cache_prompt {
            Some(false) => PrefixReuse::Never,
            Some(true) | None => PrefixReuse::Allowed,
        },
        grammar: asked.map(|(_, source)| source),
    };
    Ok(options)
}

fn n_answers(n: Option<i64>) -> Result<usize, ApiError> {
    match n {
        None => Ok(1),
        Some(n) => usize::try_from(n)
            .ok()
            .filter(|n| (1..=MAX_ANSWERS).contains(n))
            .ok_or_else(|| out_of_range("n", n, &format!("from 1 to {MAX_ANSWERS}"))),
    }
}

/// A number of tokens; 0 and −1 mean none.
fn limit(param: &'static str, value: Option<i64>) -> Result<Option<usize>, ApiError> {
    match value {
        None | Some(0 | -1) => Ok(None),
        Some(value) => match usize::try_from(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(out_of_range(param, value, "above 0; leave it out for as many as there is room for")),
        },
    }
}

fn stops(stop: Vec<String>) -> Result<Vec<String>, ApiError> {
    if stop.len() > MAX_STOPS {
        return Err(out_of_range("stop", stop.len(), &format!("a list of at most {MAX_STOPS} strings")));
    }
    let n_bytes = stop.iter().map(String::len).sum::<usize>();
    if n_bytes > MAX_STOP_BYTES {
        return Err(out_of_range(
            "stop",
            format!("{n_bytes} bytes"),
            &format!("at most {MAX_STOP_BYTES} bytes in all"),
        ));
    }
    Ok(stop.into_iter().filter(|stop| !stop.is_empty()).collect())
}

fn overrides(fields: &SamplingFields) -> Result<SamplingOverrides, ApiError> {
    Ok(SamplingOverrides {
        temperature: fields.temperature,
        dynatemp_range: fields.dynatemp_range,
        dynatemp_exponent: fields.dynatemp_exponent,
        top_k: unsigned("top_k", fields.top_k.map(|k| if k == -1 { 0 } else { k }))?,
        top_p: fields.top_p,
        min_p: fields.min_p,
        typical_p: fields.typical_p,
        top_n_sigma: fields.top_n_sigma,
        xtc_probability: fields.xtc_probability,
        xtc_threshold: fields.xtc_threshold,
        dry_multiplier: fields.dry_multiplier,
        dry_base: fields.dry_base,
        dry_allowed_length: unsigned("dry_allowed_length", fields.dry_allowed_length)?,
        dry_penalty_last_n: window("dry_penalty_last_n", fields.dry_penalty_last_n)?,
        dry_sequence_breakers: fields.dry_sequence_breakers.clone(),
        mirostat: mirostat(fields.mirostat)?,
        mirostat_tau: fields.mirostat_tau,
        mirostat_eta: fields.mirostat_eta,
        repeat_penalty: fields.repeat_penalty,
        repeat_last_n: window("repeat_last_n", fields.repeat_last_n)?,
        presence_penalty: fields.presence_penalty,
        frequency_penalty: fields.frequency_penalty,
        logit_bias: biases(fields)?,
        // Every other negative seed is as good as a positive one.
        seed: fields.seed.filter(|&seed| seed != -1).map(|seed| seed as u64),
        min_keep: unsigned::<usize>("min_keep", fields.min_keep)?,
        samplers: None,
    })
}

fn unsigned<T: TryFrom<i64>>(param: &'static str, value: Option<i64>) -> Result<Option<T>, ApiError> {
    let permitted = |value: i64| if value < 0 { "0 or more" } else { "smaller" };
    value.map(|value| T::try_from(value).map_err(|_| out_of_range(param, value, permitted(value)))).transpose()
}

fn mirostat(version: Option<i64>) -> Result<Option<u32>, ApiError> {
    match version {
        Some(version) if !(0..=2).contains(&version) => Err(out_of_range("mirostat", version, "0 (off), 1 or 2")),
        other => unsigned("mirostat", other),
    }
}

fn window(param: &'static str, value: Option<i64>) -> Result<Option<TokenWindow>, ApiError> {
    match value {
        Some(-1) => Ok(Some(TokenWindow::All)),
        other => Ok(unsigned(param, other)?.map(TokenWindow::Last)),
    }
}

fn biases(fields: &SamplingFields) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(biases) = &fields.logit_bias else { return Ok(Vec::new()) };
    match biases.0.values().find(|bias| !(-100.0..=100.0).contains(*bias)) {
        Some(bias) => Err(out_of_range("logit_bias", bias, "from -100 to 100")),
        None => Ok(biases.0.iter().map(|(&token, &bias)| (token, bias)).collect()),
    }
}

/// How many alternatives a chat asks for; `None` is no log probabilities at all.
pub(crate) fn chat_logprobs(
    logprobs: Option<LogprobsRequest>,
    top_logprobs: Option<i64>,
) -> Result<Option<u32>, ApiError> {
    match logprobs {
        None | Some(LogprobsRequest::Flag(false) | LogprobsRequest::Count(0)) => Ok(None),
        Some(LogprobsRequest::Flag(true)) => alternatives("top_logprobs", top_logprobs.unwrap_or(0)).map(Some),
        Some(LogprobsRequest::Count(n)) => {
            alternatives("logprobs", n)?;
            alternatives("top_logprobs", top_logprobs.unwrap_or(0)).map(Some)
        }
    }
}

/// How many alternatives a completion asks for; `None` is no log probabilities at all.
pub(crate) fn completion_logprobs(logprobs: Option<LogprobsRequest>) -> Result<Option<u32>, ApiError> {
    match logprobs {
        None | Some(LogprobsRequest::Flag(false)) => Ok(None),
        Some(LogprobsRequest::Flag(true)) => Ok(Some(0)),
        Some(LogprobsRequest::Count(n)) => alternatives("logprobs", n).map(Some),
    }
}

fn alternatives(param: &'static str, n: i64) -> Result<u32, ApiError> {
    let is_possible = (0..=MAX_TOP_LOGPROBS).contains(&n);
    let refused = || out_of_range(param, n, &format!("from 0 to {MAX_TOP_LOGPROBS}"));
    u32::try_from(n).ok().filter(|_| is_possible).ok_or_else(refused)
}

fn out_of_range(param: &'static str, value: impl std::fmt::Display, permitted: &str) -> ApiError {
    ApiError::invalid_value(param, format!("`{param}` is {value}, it must be {permitted}"))
}
