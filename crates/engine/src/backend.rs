//! What a backend is and what it gives: a loaded model as a set of optional handles.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::{
    BatchHandle, EmbedModel, EngineError, Hardware, Health, RerankModel, SpeakModel, TextModel, TranscribeModel,
    VoiceModel,
};

/// How many layers go to a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GpuLayers {
    /// As many as fit.
    #[default]
    Auto,
    /// Exactly this many, 0 for none.
    Count(u32),
}

/// How a model is spread over several GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SplitMode {
    /// Whole layers.
    #[default]
    Layer,
    /// Rows of every matrix.
    Row,
    /// Not at all: one GPU takes everything.
    None,
}

/// Number format of the key or value cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    #[default]
    F16,
    /// 16-bit brain floats.
    Bf16,
    /// 8-bit blocks.
    Q8_0,
    /// 4-bit blocks.
    Q4_0,
    /// 4-bit blocks with offset.
    Q4_1,
    /// 5-bit blocks.
    Q5_0,
    /// 5-bit blocks with offset.
    Q5_1,
    /// 4-bit non-linear blocks.
    Iq4Nl,
}

impl CacheType {
    /// Every type with its name.
    pub const ALL: [(&'static str, Self); 9] = [
        ("f32", Self::F32),
        ("f16", Self::F16),
        ("bf16", Self::Bf16),
        ("q8_0", Self::Q8_0),
        ("q5_1", Self::Q5_1),
        ("q5_0", Self::Q5_0),
        ("q4_1", Self::Q4_1),
        ("q4_0", Self::Q4_0),
        ("iq4_nl", Self::Iq4Nl),
    ];

    /// The type with this name, in whatever case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|&(_, found)| found)
    }

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|&&(_, known)| known == self).map_or("f16", |&(name, _)| name)
    }
}

/// Whether the fused attention kernel is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlashAttention {
    /// The backend decides.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// What a request may do when it reaches the end of the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContextOverflow {
    /// The answer ends with [`crate::FinishReason::Length`].
    #[default]
    Stop,
    /// The oldest half behind the first `keep` tokens is forgotten and the answer goes on.
    Shift {
        /// Tokens at the start that are never forgotten.
        keep: usize,
    },
}

/// Whether tokens are guessed and checked several at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speculation {
    /// Never.
    Off,
    /// From what followed the same tokens before in the same text, where that is quicker.
    #[default]
    PromptLookup,
}

/// How rotary embeddings are stretched over a longer context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Evenly.
    Linear,
    /// By frequency, after YaRN (arXiv:2309.00071).
    Yarn,
}

/// Numbers of YaRN; absent ones are the model's.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Yarn {
    /// Mix of extrapolation.
    pub ext_factor: Option<f32>,
    /// Factor of the attention's magnitude.
    pub attn_factor: Option<f32>,
    /// Low correction dimension.
    pub beta_fast: Option<f32>,
    /// High correction dimension.
    pub beta_slow: Option<f32>,
}

/// A low-rank adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// The file.
    pub path: PathBuf,
    /// Its weight, usually 1.
    pub scale: f32,
}

/// What a model is loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Generating text.
    Text,
    /// Turning text into vectors.
    Embed,
    /// Scoring documents by a query.
    Rerank,
}

/// How the vectors of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first one's.
    Cls,
    /// The last one's.
    Last,
    /// The largest number of each dimension.
    Max,
    /// Their mean, later ones weighing more: the n-th weighs n.
    WeightedMean,
    /// Their sum by the square root of their count.
    MeanSqrtLen,
}

/// Number format of the computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit weights and products, sums in 32 bit; an error on a processor that has none.
    Bf16,
}

/// What concerns embeddings and reranking.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EmbedOptions {
    /// In place of the model's own.
    pub pooling: Option<Pooling>,
    /// Are vectors scaled to length 1? Absent is the model's own way.
    pub is_normalized: Option<bool>,
    /// Shorter vectors that may be asked for, in place of what the model declares; empty is none in addition.
    pub dimensions: Vec<usize>,
    /// Number format of the computation.
    pub precision: Precision,
}

/// What concerns models that hear and speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpeechOptions {
    /// Beams of the search where a request does not say; absent: one, the likeliest words.
    pub n_beams: Option<usize>,
    /// Compute with 8-bit weights and products.
    pub is_int8: bool,
}

/// What to load and how; every `None` is the backend's own choice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadOptions {
    /// Name under which the model is served.
    pub name: String,
    /// The weights (first file of a split set).
    pub path: PathBuf,
    /// Total cells of the context, shared by all requests of the model.
    pub context_size: Option<usize>,
    /// Requests that run at the same time.
    pub parallel: Option<usize>,
    /// Compute threads.
    pub threads: Option<usize>,
    /// Tokens per step at most.
    pub batch: Option<usize>,
    /// Requests that may wait.
    pub max_waiting: Option<usize>,
    /// Layers on the GPU.
    pub gpu_layers: GpuLayers,
    /// Index of the GPU that holds what is not split.
    pub main_gpu: Option<usize>,
    /// Shares of the GPUs.
    pub tensor_split: Vec<f32>,
    /// How the model is spread over several GPUs.
    pub split_mode: SplitMode,
    /// Layers, from the first on, whose experts stay in main memory; `None` is as many as it takes to fit the rest.
    pub n_cpu_experts: Option<u32>,
    /// Map the file instead of reading it.
    pub mmap: Option<bool>,
    /// Lock the weights in memory.
    pub mlock: bool,
    /// Format of the key cache.
    pub cache_type_k: CacheType,
    /// Format of the value cache.
    pub cache_type_v: CacheType,
    /// Fused attention.
    pub flash_attention: FlashAttention,
    /// Keep the whole context of sliding-window layers, so that any prefix can be reused, at the price of memory.
    pub swa_full: bool,
    /// Base frequency of rotary embeddings.
    pub rope_freq_base: Option<f32>,
    /// Scale of rotary embeddings.
    pub rope_freq_scale: Option<f32>,
    /// How rotary embeddings are stretched; absent is the model's own way.
    pub rope_scaling: Option<RopeScaling>,
    /// Numbers of YaRN.
    pub yarn: Yarn,
    /// Keep the key-value cache in main memory although layers are on the GPU.
    pub no_kv_offload: bool,
    /// Tokens computed at once at most; larger steps are taken apart.
    pub physical_batch: Option<usize>,
    /// Compute threads for prompts, where they differ from those for answers.
    pub prompt_threads: Option<usize>,
    /// Look for invalid numbers in the weights while loading.
    pub check_tensors: bool,
    /// Low-rank adapters on top of the weights.
    pub loras: Vec<Lora>,
    /// Values in place of those in the file's header, as `key=type:value`.
    pub header_overrides: Vec<String>,
    /// What happens at the end of the context.
    pub overflow: ContextOverflow,
    /// What the model is loaded for; empty is what it is made for.
    pub tasks: BTreeSet<Task>,
    /// What concerns embeddings and reranking.
    pub embed: EmbedOptions,
    /// What concerns models that hear and speak.
    pub speech: SpeechOptions,
    /// Whether tokens are guessed.
    pub speculation: Speculation,
    /// A smaller model that guesses, too; without effect where nothing is guessed.
    pub draft: Option<DraftOptions>,
}

/// A draft model, and how it is used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DraftOptions {
    /// Its weights.
    pub path: PathBuf,
    /// How it is used.
    pub config: crate::DraftConfig,
}

/// Memory a model will take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryEstimate {
    /// Weights.
    pub weight_bytes: u64,
    /// Key-value cache and recurrent state.
    pub cache_bytes: u64,
    /// Compute buffers and the rest.
    pub compute_bytes: u64,
}

impl MemoryEstimate {
    /// Both together, where both are of the same weights: those are in memory once.
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        Self {
            weight_bytes: self.weight_bytes.max(other.weight_bytes),
            cache_bytes: self.cache_bytes + other.cache_bytes,
            compute_bytes: self.compute_bytes + other.compute_bytes,
        }
    }

    /// Both together, of two models.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            weight_bytes: self.weight_bytes + other.weight_bytes,
            cache_bytes: self.cache_bytes + other.cache_bytes,
            compute_bytes: self.compute_bytes + other.compute_bytes,
        }
    }

    /// Everything together.
    pub fn total_bytes(&self) -> u64 {
        self.weight_bytes + self.cache_bytes + self.compute_bytes
    }
}

/// Something that can turn a file into an [`Engine`]. Calls block and may take minutes.
pub trait Backend: Send + Sync {
    /// Name as configurations spell it, such as `llama-cpp`.
    fn name(&self) -> &str;

    /// Other names in configurations whose models it runs; none unless it says so.
    fn other_names(&self) -> &[&str] {
        &[]
    }

    /// Does it put a model with these options onto GPUs where there are any? Else only main memory counts for it, and no
    /// other one leaves a GPU for it.
    fn uses_gpus(&self, _options: &LoadOptions) -> bool {
        false
    }

    /// Why it can load and compute nothing any more in this process, such as a GPU whose state is broken; only another
    /// process can.
    fn poison(&self) -> Option<String> {
        None
    }

    /// Bytes the model will take, from its header alone.
    ///
    /// # Errors
    /// [`EngineError::Load`] when the file is missing or not valid, [`EngineError::Option`] for an impossible option.
    fn estimate(&self, options: &LoadOptions) -> Result<MemoryEstimate, EngineError>;

    /// Loads the model.
    ///
    /// # Errors
    /// As [`Backend::estimate`], and whatever goes wrong while weights are read and the first step is run.
    fn load(&self, options: &LoadOptions, hardware: &Hardware) -> Result<Engine, EngineError>;
}

/// One loaded model. A capability is a handle that is there or not.
#[derive(Clone, Default)]
pub struct Engine {
    /// Generates text.
    pub text: Option<TextModel>,
    /// Turns text into vectors.
    pub embed: Option<EmbedModel>,
    /// Scores documents by a query.
    pub rerank: Option<RerankModel>,
    /// Writes down what it hears.
    pub transcribe: Option<TranscribeModel>,
    /// Hears whether anybody speaks.
    pub voice: Option<VoiceModel>,
    /// Speaks.
    pub speak: Option<SpeakModel>,
    /// The devices it runs on, for logs and reports, such as `CUDA0 (25/25 layers)` or `CPU`.
    pub placement: String,
    /// What it really takes, where the backend can tell.
    pub memory: MemoryEstimate,
    /// How much of that is on GPUs, in bytes; the rest is in main memory.
    pub gpu_bytes: u64,
}

impl Engine {
    /// The handles that work off batches, each with the task it is for.
    pub fn batched(&self) -> Vec<(&'static str, &dyn BatchHandle)> {
        let embed = self.embed.as_ref().map(|model| ("embed", &model.thread as &dyn BatchHandle));
        let rerank = self.rerank.as_ref().map(|model| ("rerank", &model.thread as &dyn BatchHandle));
        let transcribe = self.transcribe.as_ref().map(|model| ("transcribe", &model.thread as &dyn BatchHandle));
        let voice = self.voice.as_ref().map(|model| ("vad", &model.thread as &dyn BatchHandle));
        let speak = self.speak.as_ref().map(|model| ("speak", &model.thread as &dyn BatchHandle));
        embed.into_iter().chain(rerank).chain(transcribe).chain(voice).chain(speak).collect()
    }

    /// Is every part of it alive?
    pub fn health(&self) -> Health {
        let text = self.text.as_ref().map(TextModel::health);
        let mut parts = text.into_iter().chain(self.batched().into_iter().map(|(_, handle)| handle.health()));
        parts.find(|health| *health != Health::Alive).unwrap_or(Health::Alive)
    }

    /// Ends it whoever still has a handle: requests that run or wait end with [`EngineError::Unloaded`].
    pub fn close(&self) {
        self.text.iter().for_each(TextModel::close);
        self.batched().into_iter().for_each(|(_, handle)| handle.close());
    }
}
