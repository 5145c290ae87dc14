//! The backend: which loader a model's files need.

use ingle_engine::{Backend, Engine, EngineError, Hardware, LoadOptions, MemoryEstimate};

use crate::{device, embed};

/// Names of LocalAI's backends whose models are run here.
const OTHER_NAMES: [&str; 4] = ["transformers", "rerankers", "sentencetransformers", "huggingface-embeddings"];

/// Loads models from safetensors.
#[derive(Debug, Clone, Copy, Default)]
pub struct CandleBackend;

impl Backend for CandleBackend {
    fn name(&self) -> &str {
        "candle"
    }

    fn other_names(&self) -> &[&str] {
        &OTHER_NAMES
    }

    fn uses_gpus(&self, options: &LoadOptions) -> bool {
        device::may_use_gpu(options)
    }

    fn poison(&self) -> Option<String> {
        device::poison()
    }

    fn estimate(&self, options: &LoadOptions) -> Result<MemoryEstimate, EngineError> {
        embed::estimate(options)
    }

    fn load(&self, options: &LoadOptions, hardware: &Hardware) -> Result<Engine, EngineError> {
        embed::load(options, hardware)
    }
}
