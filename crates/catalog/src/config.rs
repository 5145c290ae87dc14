//! A model's configuration, resolved: no sentinels, every value in range, old names replaced.

mod resolve;

pub(crate) use resolve::{current_backend_name, text_usecases};

use crate::Usecase;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

/// One model, validated. Absent values are the backend's or the server's business.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelConfig {
    /// Public id.
    pub name: String,
    /// The model that requests go to instead.
    pub alias: Option<String>,
    /// Today's name of the backend, e.g. `llama-cpp`.
    pub backend: Option<String>,
    /// `parameters.model` as written: a path inside the models folder, or a URI.
    pub model: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// For people.
    pub usage: Option<String>,
    /// What a request gets when it does not say.
    pub defaults: RequestDefaults,
    /// How the model is put into memory.
    pub load: LoadConfig,
    /// Prompt templates, as text.
    pub template: TemplateConfig,
    /// What is done to the output.
    pub output: OutputConfig,
    /// How tool calls are found in the output.
    pub function: FunctionConfig,
    /// What the model may be asked for.
    pub usecases: BTreeSet<Usecase>,
    /// Whether requests are refused.
    pub availability: Availability,
    /// Whether the model may be evicted from memory.
    pub residency: Residency,
    /// How reasoning is found and whether it is shown.
    pub reasoning: ReasoningConfig,
    /// Kinds of media that requests bring and answers hold, as declared.
    pub modalities: Modalities,
    /// Files that are fetched when the program starts.
    pub download_files: Vec<DownloadFile>,
    /// Models of one group are not in memory together.
    pub concurrency_groups: Vec<String>,
    /// How many requests are answered at once.
    pub limits: Limits,
    /// What a request for embeddings gets when it does not say.
    pub embed: EmbedDefaults,
    /// What a request that hears or speaks gets when it does not say.
    pub speech: SpeechDefaults,
}

/// What a request that hears or speaks gets when it does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpeechDefaults {
    /// Language of what is heard; absent: it is detected.
    pub language: Option<String>,
    /// Write in English whatever is heard.
    pub is_translation: bool,
    /// The speaker.
    pub voice: Option<String>,
}

/// What a request for embeddings gets when it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EmbedDefaults {
    /// How vectors are written.
    pub encoding: Option<VectorEncoding>,
    /// How a text that is too long becomes one vector; absent is the model's own way, to cut it or to refuse it.
    pub long_texts: Option<WindowPooling>,
    /// Tokens over which a weight halves in [`WindowPooling::DecayedMean`].
    pub half_life_tokens: Option<NonZeroU32>,
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorEncoding {
    /// A list of numbers.
    Float,
    /// 32-bit floats, low byte first, in base64.
    Base64,
}

/// How the vectors of the pieces of a long text become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowPooling {
    /// Their mean, each weighing as its tokens.
    Mean,
    /// The last one's.
    Last,
    /// Their mean, earlier ones weighing less.
    DecayedMean,
}

/// How reasoning is found and whether it is shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReasoningConfig {
    /// The template is told not to think.
    pub is_disabled: bool,
    /// Reasoning is taken out of the answer and not shown.
    pub is_hidden: bool,
    /// What opens a reasoning that a prompt may end with.
    pub start_tokens: Vec<String>,
    /// What opens and closes a reasoning, before those that are known.
    pub tag_pairs: Vec<(String, String)>,
    /// Effort of requests that name none.
    pub effort: Option<String>,
    /// Variables of the chat template; a request's own win.
    pub template_kwargs: serde_json::Map<String, serde_json::Value>,
}

/// Kinds of media, as declared; empty is "not declared".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Modalities {
    /// Of requests.
    pub input: Vec<String>,
    /// Of answers.
    pub output: Vec<String>,
}

/// A file that is fetched when the program starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadFile {
    /// Path inside the models folder.
    pub filename: String,
    /// Where from.
    pub uri: String,
    /// 64 lower-case hex digits.
    pub sha256: Option<String>,
}

impl DownloadFile {
    /// The file that an address leads to; `None` for what is no address.
    #[must_use]
    pub fn of_uri(uri: &str) -> Option<Self> {
        let filename = crate::uri::file_name_of_uri(uri)?.ok()?;
        Some(Self { filename, uri: uri.to_owned(), sha256: None })
    }
}

/// How many requests are answered at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Others are refused.
    pub max_concurrent: Option<NonZeroU32>,
    /// Seconds that these are told to wait.
    pub retry_after_secs: Option<u32>,
}

/// Whether a model may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// Yes.
    Enabled,
    /// Its configuration says `disabled: true`.
    Disabled,
}

/// Whether a model may leave memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// When room is needed.
    Evictable,
    /// Never.
    Pinned,
}

/// Defaults for requests; a request's own value wins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestDefaults {
    /// ≥ 0; 0 is greedy.
    pub temperature: Option<f32>,
    /// In [0, 1].
    pub top_p: Option<f32>,
    /// 0 is off.
    pub top_k: Option<u32>,
    /// In [0, 1].
    pub min_p: Option<f32>,
    /// In [0, 1].
    pub typical_p: Option<f32>,
    /// Tokens of an answer.
    pub max_tokens: Option<NonZeroU32>,
    /// > 0; 1 is off.
    pub repeat_penalty: Option<f32>,
    /// How far back the penalties look.
    pub repeat_last_n: Option<TokenCount>,
    /// In [-2, 2].
    pub presence_penalty: Option<f32>,
    /// In [-2, 2].
    pub frequency_penalty: Option<f32>,
    /// Absent is random.
    pub seed: Option<u64>,
    /// Go on after the end token.
    pub ignore_eos: Option<bool>,
    /// Tokens of the prompt kept when the context shifts.
    pub n_keep: Option<TokenCount>,
    /// Choices per request.
    pub n: Option<NonZeroU32>,
    /// Repeat the prompt in the answer.
    pub echo: Option<bool>,
    /// Token (as text) to bias.
    pub logit_bias: BTreeMap<String, f32>,
    /// Adaptive sampling in place of the chain.
    pub mirostat: Option<Mirostat>,
    /// GBNF.
    pub grammar: Option<String>,
    /// A file with GBNF, in the models folder.
    pub grammar_file: Option<String>,
}

/// A number of tokens, or all there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenCount {
    /// The whole context.
    All,
    /// So many.
    Tokens(u32),
}

/// Mirostat and its two numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mirostat {
    /// Which of the two algorithms.
    pub version: MirostatVersion,
    /// Learning rate.
    pub eta: f32,
    /// Target entropy.
    pub tau: f32,
}

/// The two mirostat algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirostatVersion {
    /// The first, with its estimate of the distribution's tail.
    V1,
    /// The second.
    V2,
}

/// How the model is loaded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadConfig {
    /// Cells of the context.
    pub context_size: Option<ContextSize>,
    /// Compute threads.
    pub threads: Option<NonZeroU32>,
    /// Map the file.
    pub mmap: Option<bool>,
    /// Lock the file in memory.
    pub mmlock: Option<bool>,
    /// Layers on the GPU.
    pub gpu_layers: Option<GpuLayers>,
    /// GPU for what is not split.
    pub main_gpu: Option<u32>,
    /// Share of each GPU, any positive scale.
    pub tensor_split: Vec<f32>,
    /// Tokens of one decode call.
    pub batch: Option<NonZeroU32>,
    /// Fused attention.
    pub flash_attention: Option<FlashAttention>,
    /// ggml type of the cached keys, lower case, e.g. `q8_0`.
    pub cache_type_k: Option<String>,
    /// ggml type of the cached values.
    pub cache_type_v: Option<String>,
    /// Base frequency of the rotary embedding.
    pub rope_freq_base: Option<f32>,
    /// Frequency scale of the rotary embedding.
    pub rope_freq_scale: Option<f32>,
    /// Projector file, inside the models folder.
    pub mmproj: Option<String>,
    /// Draft model file, inside the models folder.
    pub draft_model: Option<String>,
    /// Tokens that the draft model proposes at a time at most.
    pub n_draft: Option<NonZeroU32>,
    /// Adapters, each a file inside the models folder and its weight.
    pub loras: Vec<(String, f32)>,
    /// How rotary embeddings are stretched.
    pub rope_scaling: Option<RopeScaling>,
    /// YaRN's numbers: extrapolation mix, attention factor, low and high correction dimension.
    pub yarn: Yarn,
    /// The key/value cache stays in main memory.
    pub no_kv_offload: bool,
    /// `key=type:value` each, in place of what the GGUF header says.
    pub overrides: Vec<String>,
    /// The `options:` that we understand.
    pub options: BackendOptions,
}

/// Cells of the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContextSize {
    /// As many as the model was trained with.
    Trained,
    /// So many tokens.
    Tokens(NonZeroU32),
}

/// Layers on the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuLayers {
    /// All of them.
    All,
    /// The last so many; 0 stays on the CPU.
    Count(u32),
}

/// How a model is spread over several GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitMode {
    /// One GPU takes everything.
    None,
    /// Whole layers.
    Layer,
    /// Rows of every matrix.
    Row,
}

/// How rotary embeddings are stretched over a longer context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Evenly.
    Linear,
    /// By frequency.
    Yarn,
}

/// YaRN's numbers; absent ones are the model's.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Yarn {
    /// Extrapolation mix.
    pub ext_factor: Option<f32>,
    /// Attention factor.
    pub attn_factor: Option<f32>,
    /// Low correction dimension.
    pub beta_fast: Option<f32>,
    /// High correction dimension.
    pub beta_slow: Option<f32>,
}

/// Fused attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlashAttention {
    /// Always.
    On,
    /// Never.
    Off,
    /// Where the device can.
    Auto,
}

/// The `options:` of llama-cpp that have an effect; the others are warnings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BackendOptions {
    /// `parallel`: sequences at once.
    pub parallel: Option<NonZeroU32>,
    /// `swa_full`: a full cache for sliding-window layers.
    pub swa_full: Option<bool>,
    /// `spec_p_min`: least probability of a token that a draft model proposes.
    pub least_draft_chance: Option<f32>,
    /// `spec_type`: false for `none`, true for every other kind.
    pub speculation: Option<bool>,
    /// `context_shift`: drop old tokens at the edge instead of ending.
    pub context_shift: Option<bool>,
    /// `n_ubatch`: tokens of one graph.
    pub n_ubatch: Option<NonZeroU32>,
    /// `threads_batch`: threads for prompts.
    pub threads_batch: Option<NonZeroU32>,
    /// `split_mode`: how the model is spread over several GPUs.
    pub split_mode: Option<SplitMode>,
    /// `n_cpu_moe`, `cpu_moe`: layers, from the first on, whose experts stay in main memory.
    pub n_cpu_moe: Option<u32>,
    /// `check_tensors`: look for invalid numbers when loading.
    pub check_tensors: Option<bool>,
    /// `pooling`: how the vectors of a text's tokens become one.
    pub pooling: Option<TokenPooling>,
    /// `embd_normalize`: are vectors scaled to length 1?
    pub is_normalized: Option<bool>,
    /// `dimensions`: shorter vectors that may be asked for.
    pub dimensions: Vec<NonZeroU32>,
    /// `precision:bf16`: compute with 16-bit weights.
    pub is_bf16: bool,
    /// `beam_size`: beams of speech recognition.
    pub beam_size: Option<NonZeroU32>,
    /// `compute_type:int8`: speech recognition with 8-bit weights.
    pub is_int8: bool,
    /// Whether speech recognition leaves out what is no speech.
    pub voice_filter: VoiceFilterConfig,
}

/// What speech recognition leaves out of a recording before it writes it down, with faster-whisper's names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VoiceFilterConfig {
    /// `vad_filter`: what is no speech is left out.
    pub is_on: bool,
    /// `vad_model`: the model that finds speech; absent is the first one.
    pub model: Option<String>,
    /// `vad_threshold`: from this probability on it is speech; 0 to 1.
    pub threshold: Option<f32>,
    /// `min_silence_duration_ms`: silence of so many milliseconds ends speech.
    pub min_silence_ms: Option<u32>,
    /// `speech_pad_ms`: milliseconds of silence that stay at each end of speech.
    pub pad_ms: Option<u32>,
}

/// How the vectors of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenPooling {
    /// Their mean.
    Mean,
    /// The first one's.
    Cls,
    /// The last one's.
    Last,
    /// The score of a reranker.
    Rank,
}

/// Prompt templates as text; `prompt` makes sense of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateConfig {
    /// Around all messages.
    pub chat: Option<String>,
    /// For one message.
    pub chat_message: Option<String>,
    /// For completions.
    pub completion: Option<String>,
    /// For edits.
    pub edit: Option<String>,
    /// In place of `chat` with tools.
    pub function: Option<String>,
    /// Whether the model's own template is used; absent means where no other template is given.
    pub use_tokenizer_template: Option<bool>,
    /// Between messages.
    pub join_chat_messages_by_character: Option<String>,
    /// In front of the answer.
    pub reply_prefix: Option<String>,
    /// Role to prefix, for chat without any template.
    pub roles: BTreeMap<String, String>,
    /// For conversations that bring none.
    pub system_prompt: Option<String>,
}

/// What is done to the output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputConfig {
    /// Stop strings.
    pub stopwords: Vec<String>,
    /// Regular expressions to remove.
    pub cutstrings: Vec<String>,
    /// Regular expressions to keep.
    pub extract_regex: Vec<String>,
    /// Prefixes to trim, and the spaces after.
    pub trimspace: Vec<String>,
    /// Suffixes to trim.
    pub trimsuffix: Vec<String>,
}

/// How tool calls are found in the output, where the model's own call format is not it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FunctionConfig {
    /// Key of the name in JSON calls.
    pub name_key: Option<String>,
    /// Key of the arguments in JSON calls.
    pub arguments_key: Option<String>,
    /// Expressions with the groups `name` and `arguments`.
    pub response_regex: Vec<String>,
    /// Expressions whose first group is a JSON call.
    pub json_regex_match: Vec<String>,
    /// Expressions that find one argument each.
    pub argument_regex: Vec<String>,
    /// Group of an argument's name; empty is `key`.
    pub argument_key_group: String,
    /// Group of an argument's value; empty is `value`.
    pub argument_value_group: String,
    /// Expressions and what takes the place of their matches before calls are looked for.
    pub replace_results: Vec<(String, String)>,
    /// The same for text without calls.
    pub replace_text: Vec<(String, String)>,
    /// Expressions whose first group is text beside calls.
    pub capture_text: Vec<String>,
    /// Free answers are not held to the form of calls.
    pub is_unconstrained: bool,
    /// May an answer hold several calls? Absent is yes.
    pub parallel_calls: Option<bool>,
    /// Text before the JSON of a call.
    pub prefix: String,
}

impl ModelConfig {
    /// The configuration of a bare GGUF file called `name`.
    #[must_use]
    pub fn bare(name: &str, model: &str) -> Self {
        Self {
            name: name.to_owned(),
            alias: None,
            backend: Some(LLAMA_CPP.to_owned()),
            model: Some(model.to_owned()),
            description: None,
            usage: None,
            defaults: RequestDefaults::default(),
            load: LoadConfig::default(),
            template: TemplateConfig::default(),
            output: OutputConfig::default(),
            function: FunctionConfig::default(),
            usecases: resolve::text_usecases(),
            availability: Availability::Enabled,
            residency: Residency::Evictable,
            reasoning: ReasoningConfig::default(),
            modalities: Modalities::default(),
            download_files: Vec::new(),
            concurrency_groups: Vec::new(),
            limits: Limits::default(),
            embed: EmbedDefaults::default(),
            speech: SpeechDefaults::default(),
        }
    }

    /// Whether the model may be asked for `usecase`.
    #[must_use]
    pub fn suits(&self, usecase: Usecase) -> bool {
        self.usecases.contains(&usecase)
    }
}

/// The backend of GGUF files.
pub const LLAMA_CPP: &str = "llama-cpp";

/// The backend of folders with `config.json` and safetensors.
pub const CANDLE: &str = "candle";

/// Backends of LocalAI's whose models hear.
pub const HEARING: [&str; 3] = ["whisper", "faster-whisper", "whisperx"];

/// Backends of LocalAI's whose models speak.
pub const SPEAKING: [&str; 3] = ["piper", "kokoro", "kokoros"];

/// The backend that hears whether anybody speaks.
pub const SILERO_VAD: &str = "silero-vad";

#[cfg(test)]
mod tests;
