//! The one place where failures of the runtime become HTTP answers of the OpenAI and LocalAI dialects.
use ingle_runtime::catalog::CatalogError;
use ingle_runtime::prompt::PromptError;
use ingle_runtime::sampling::SamplingError;
use ingle_runtime::{EngineError, GrammarError, RuntimeError};

use crate::error::ApiError;

/// When to try again after a fault that the next request repairs, in seconds.
const SOON_SECS: u64 = 1;

/// When to try again when other models must become idle first, in seconds.
const LATER_SECS: u64 = 30;

impl From<RuntimeError> for ApiError {
    /// A fault that will not go away by itself is a 4xx, since clients repeat what ends with a 5xx.
    fn from(error: RuntimeError) -> Self {
        let message = error.to_string();
        match error {
            RuntimeError::Catalog(error) => of_catalog(&error, message),
            RuntimeError::Prompt(error) => of_prompt(&error, message),
            RuntimeError::Engine(error) => of_engine(error, message),
            RuntimeError::UnknownBackend { .. } => Self::bad_request("unknown_backend", message),
            RuntimeError::Incapable { .. } => {
                Self { param: Some("model".into()), ..Self::bad_request("model_incapable", message) }
            }
            RuntimeError::OutOfMemory { n_busy: 1.., .. } => {
                Self::unavailable("insufficient_memory", message, LATER_SECS)
            }
            // Clients repeat what failed with 5xx, and waiting does not make the machine larger.
            RuntimeError::OutOfMemory { .. } => {
                Self { param: Some("model".into()), ..Self::bad_request("model_too_large", message) }
            }
            RuntimeError::Busy { retry_after_secs, .. } => Self::unavailable("overloaded", message, retry_after_secs),
            RuntimeError::CoolingDown { retry_after_secs, .. } => {
                Self::unavailable("model_load_failed", message, retry_after_secs)
            }
            RuntimeError::Input { error, .. } => of_engine(error, message),
            RuntimeError::NotANumber { .. } => {
                tracing::error!(error = message, "an answer failed");
                Self::internal(message)
            }
            RuntimeError::Media(_) => {
                Self { param: Some("file".into()), ..Self::bad_request("invalid_audio", message) }
            }
            RuntimeError::NoDetector => {
                Self { param: Some("vad_filter".into()), ..Self::bad_request("no_detector", message) }
            }
            RuntimeError::Grammar(error) => of_grammar(&error, message),
            RuntimeError::InvalidParameter { parameter, .. } => Self::invalid_value(parameter, message),
        }
    }
}

fn of_catalog(error: &CatalogError, message: String) -> ApiError {
    match error {
        CatalogError::NotFound { .. } => {
            ApiError::model_not_found(format!("{message}; GET /v1/models lists the models of this server"))
        }
        CatalogError::NoneSuits { .. } | CatalogError::UnsafeName { .. } | CatalogError::MissingFile { .. } => {
            ApiError::model_not_found(message)
        }
        CatalogError::Disabled { .. } => ApiError::model_disabled(message),
        CatalogError::Unsuited { .. } => {
            ApiError { param: Some("model".into()), ..ApiError::bad_request("model_incapable", message) }
        }
        CatalogError::BadConfig { .. } => ApiError::bad_request("invalid_model_config", message),
        // The rest concerns folders and downloads; the caller can do nothing about it and is told no paths.
        _ => {
            tracing::error!(error = message, "the models folder cannot be used");
            ApiError::internal("the models folder cannot be used; the server's log says more")
        }
    }
}

fn of_prompt(error: &PromptError, message: String) -> ApiError {
    match error {
        PromptError::Input { field, .. } => ApiError::invalid_value(field.clone(), message),
        PromptError::Syntax { .. } | PromptError::Go { .. } => ApiError::bad_request("invalid_model_config", message),
        PromptError::Refused { .. } | PromptError::Render { .. } => ApiError::invalid_value("messages", message),
        // A limit, or something newer: the conversation cannot be rendered.
        _ => ApiError::invalid_value("messages", message),
    }
}

fn of_engine(error: EngineError, message: String) -> ApiError {
    match error {
        EngineError::Overloaded { retry_after_secs, .. } => {
            ApiError::unavailable("overloaded", message, retry_after_secs)
        }
        EngineError::ContextLengthExceeded { .. }
        | EngineError::PromptTooLarge { .. }
        | EngineError::TextTooLong { .. } => {
            ApiError { param: Some("prompt".into()), ..ApiError::bad_request("context_length_exceeded", message) }
        }
        EngineError::EmptyPrompt
        | EngineError::Tokenize { .. }
        | EngineError::TokenOutOfRange { .. }
        | EngineError::TooMuchAtOnce { .. } => ApiError::invalid_value("prompt", message),
        EngineError::Sampling(error) => of_sampling(&error, message),
        EngineError::Load { .. } => {
            tracing::error!(error = message, "a model cannot be loaded");
            ApiError { param: Some("model".into()), ..ApiError::bad_request("model_load_failed", message) }
        }
        // Waiting does not make the machine larger, but models that are in memory now may go.
        EngineError::OutOfMemory { .. } => {
            tracing::error!(error = message, "a model finds no memory");
            ApiError::unavailable("insufficient_memory", message, LATER_SECS)
        }
        EngineError::Option { option, .. } => ApiError::invalid_value(option, message),
        // The same request would meet the same limit again: nothing to retry.
        EngineError::Constraint(_) => ApiError::bad_request("invalid_grammar", message),
        EngineError::Speak { .. } => ApiError::bad_request("cannot_be_spoken", message),
        EngineError::Decode { .. } => {
            tracing::error!(error = message, "an answer failed");
            ApiError::internal(message)
        }
        // Asked again, it would take as long.
        EngineError::TookTooLong { .. } => ApiError::bad_request("time_limit_exceeded", message),
        EngineError::Died { .. } => ApiError::unavailable("engine_died", message, SOON_SECS),
        EngineError::Unloaded { .. } => ApiError::unavailable("model_unloaded", message, SOON_SECS),
    }
}

fn of_grammar(error: &GrammarError, message: String) -> ApiError {
    let param = match error {
        GrammarError::Refused { kind, .. } | GrammarError::TooLarge { kind, .. } => match *kind {
            "GBNF grammar" => "grammar",
            "regular expression" => "regex",
            "Lark grammar" => "lark",
            "JSON schema of a tool" => "tools",
            _ => "response_format",
        },
        GrammarError::Vocabulary { .. } => "model",
    };
    ApiError { param: Some(param.into()), ..ApiError::bad_request("invalid_grammar", message) }
}

fn of_sampling(error: &SamplingError, message: String) -> ApiError {
    match error {
        SamplingError::OutOfRange { field, .. } | SamplingError::UnknownToken { field, .. } => {
            ApiError::invalid_value(*field, message)
        }
        SamplingError::NoCandidate => ApiError::invalid_value("logit_bias", message),
        SamplingError::RowLength { .. } | SamplingError::MaskLength { .. } | SamplingError::BadLogit { .. } => {
            tracing::error!(error = message, "an answer failed");
            ApiError::internal(message)
        }
    }
}
