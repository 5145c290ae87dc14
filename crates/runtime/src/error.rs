//! What can go wrong between a call and its answer.

use ingle_catalog::CatalogError;
use ingle_engine::EngineError;
use ingle_prompt::PromptError;

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RuntimeError {
    /// The model does not exist, is disabled, or its files are not there.
    #[error(transparent)]
    Catalog(#[from] std::sync::Arc<CatalogError>),
    /// The conversation cannot become a prompt.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// No backend of this name is part of the program.
    #[error("model {model} asks for backend {backend:?}; this program has {available}{}", advice(backend))]
    UnknownBackend {
        /// The model.
        model: String,
        /// What its configuration says.
        backend: String,
        /// What there is, comma separated.
        available: String,
    },
    /// The model cannot do what the call asks of it.
    #[error("model {model} cannot {capability}; choose another model")]
    Incapable {
        /// The model.
        model: String,
        /// What was asked, as a verb.
        capability: &'static str,
    },
    /// It does not fit beside what is in use.
    #[error(
        "model {model} needs about {needed_mib} MiB and {free_mib} MiB are free beside models in use; use a smaller \
         context_size or a smaller model, or try again when other models are idle"
    )]
    OutOfMemory {
        /// The model.
        model: String,
        /// Estimate in MiB.
        needed_mib: u64,
        /// What could be made free, in MiB.
        free_mib: u64,
        /// Models that are in use now and may be idle later.
        n_busy: usize,
    },
    /// As many requests run as may run at once.
    #[error("{what} answers {limit} requests at once and has them; try again in {retry_after_secs} s")]
    Busy {
        /// The server, or a model.
        what: String,
        /// The limit.
        limit: usize,
        /// When to try again, in seconds.
        retry_after_secs: u64,
    },
    /// Loading it failed a moment ago.
    #[error("model {model} could not be loaded a moment ago and is not tried again for {retry_after_secs} s: {reason}")]
    CoolingDown {
        /// The model.
        model: String,
        /// Why it could not be loaded.
        reason: String,
        /// When it is tried again, in seconds.
        retry_after_secs: u64,
    },
    /// The answer cannot be made to look as asked.
    #[error(transparent)]
    Grammar(#[from] ingle_grammar::GrammarError),
    /// An input of a call that cannot be worked on.
    #[error("input {idx}: {error}")]
    Input {
        /// Its place in the call, from 0.
        idx: usize,
        /// What is wrong with it.
        error: EngineError,
    },
    /// A score that is not a number.
    #[error("model {model} gave a score or vector that is not a number; its weights may be damaged")]
    NotANumber {
        /// The model.
        model: String,
    },
    /// A recording that cannot be heard.
    #[error(transparent)]
    Media(#[from] crate::media::MediaError),
    /// Silence should be left out of a recording and nothing can find it.
    #[error("no model finds speech; install silero-vad")]
    NoDetector,
    /// A number in the call that makes no sense.
    #[error("{parameter} is {value}; use {permitted}")]
    InvalidParameter {
        /// Its name.
        parameter: &'static str,
        /// What was sent.
        value: String,
        /// What is permitted.
        permitted: String,
    },
}

impl From<CatalogError> for RuntimeError {
    fn from(error: CatalogError) -> Self {
        Self::Catalog(std::sync::Arc::new(error))
    }
}

/// What to do about a backend that is not there.
fn advice(backend: &str) -> &'static str {
    match backend {
        "transformers" | "vllm" | "vllm-omni" | "sglang" | "mlx" | "mlx-vlm" | "exllama2" | "autogptq" => {
            ": for a chat model take its GGUF file with `backend: llama-cpp`, such as `ingle models install \
             hf://owner/name-GGUF`; embeddings and rerankers are `backend: transformers` and a folder with safetensors"
        }
        "stablediffusion-ggml" | "diffusers" => ": image generation is not there yet",
        "coqui" | "bark" | "chatterbox" | "kitten-tts" => {
            ": voices are Piper's (`backend: piper`, an .onnx file with its .onnx.json beside it) or Kokoro's \
             (`backend: kokoro`, an .onnx file with voices*.bin beside it)"
        }
        "moonshine" | "nemo" | "parakeet-cpp" | "qwen-asr" | "voxtral" => {
            ": speech is written down by Whisper (`backend: whisper`)"
        }
        _ => "",
    }
}
