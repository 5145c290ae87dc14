//! What a call may ask for, and how it is merged with a model's configuration.

use std::collections::BTreeSet;

use ingle_catalog::{BackendOptions, LoadConfig, ModelConfig, TokenCount, TokenPooling, Usecase};
use ingle_engine::sampling::{self, Dry, DryBreakers, Mirostat, SamplerKind, SamplingParams, Xtc};
use ingle_engine::{
    CacheType, ContextOverflow, DraftConfig, DraftOptions, EmbedOptions, EngineError, FlashAttention, GpuLayers,
    LoadOptions, Lora, Pooling, Precision, PrefixReuse, RopeScaling, Segment, Speculation, SpeechOptions, SplitMode,
    Surround, Task, TokenId, Tokenizer, Yarn,
};

use ingle_grammar::GrammarSource;

use crate::RuntimeError;

/// Sampling as a request spells it; what is absent comes from the model's configuration, then from LocalAI's defaults.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SamplingOverrides {
    /// 0 takes the most likely token.
    pub temperature: Option<f32>,
    /// Half width of the dynamic temperature.
    pub dynatemp_range: Option<f32>,
    /// Exponent of the dynamic temperature.
    pub dynatemp_exponent: Option<f32>,
    /// Tokens to keep; 0 keeps all.
    pub top_k: Option<u32>,
    /// Nucleus.
    pub top_p: Option<f32>,
    /// Least probability relative to the most likely token.
    pub min_p: Option<f32>,
    /// Locally typical sampling.
    pub typical_p: Option<f32>,
    /// Standard deviations below the largest logit; 0 or less switches it off.
    pub top_n_sigma: Option<f32>,
    /// How often top choices are excluded.
    pub xtc_probability: Option<f32>,
    /// What counts as a top choice.
    pub xtc_threshold: Option<f32>,
    /// Strength of DRY; 0 switches it off.
    pub dry_multiplier: Option<f32>,
    /// Growth of DRY per token.
    pub dry_base: Option<f32>,
    /// Length of a free repetition.
    pub dry_allowed_length: Option<u32>,
    /// How far DRY looks back.
    pub dry_penalty_last_n: Option<TokenWindow>,
    /// Texts that DRY does not look across.
    pub dry_sequence_breakers: Option<Vec<String>>,
    /// 0 is off, 1 and 2 are the versions.
    pub mirostat: Option<u32>,
    /// Target surprise in bits.
    pub mirostat_tau: Option<f32>,
    /// Learning rate.
    pub mirostat_eta: Option<f32>,
    /// Multiplicative penalty of repeated tokens.
    pub repeat_penalty: Option<f32>,
    /// Window of the three penalties.
    pub repeat_last_n: Option<TokenWindow>,
    /// Additive penalty of tokens that occur.
    pub presence_penalty: Option<f32>,
    /// Additive penalty for each occurrence.
    pub frequency_penalty: Option<f32>,
    /// Added to logits.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Seed.
    pub seed: Option<u64>,
    /// Least tokens that truncation keeps.
    pub min_keep: Option<usize>,
    /// Order of the chain by llama.cpp's names.
    pub samplers: Option<Vec<SamplerKind>>,
}

/// How far back to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenWindow {
    /// This many tokens.
    Last(usize),
    /// The whole context.
    All,
}

impl TokenWindow {
    fn tokens(self) -> usize {
        match self {
            Self::Last(n_tokens) => n_tokens,
            Self::All => sampling::MAX_WINDOW,
        }
    }
}

/// What every kind of text answer may be asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerOptions {
    /// Answers to the same prompt, at least 1.
    pub n: usize,
    /// How tokens are chosen.
    pub sampling: SamplingOverrides,
    /// Most tokens of one answer.
    pub max_tokens: Option<usize>,
    /// Texts that end an answer, added to the model's own.
    pub stop: Vec<String>,
    /// Go on behind the end-of-sequence token.
    pub ignore_eos: Option<bool>,
    /// Log-probabilities of the token and of this many alternatives.
    pub top_logprobs: Option<u32>,
    /// What happens at the end of the context; absent is the model's setting.
    pub overflow: Option<ContextOverflow>,
    /// What may be taken from the prefix cache.
    pub prefix_reuse: PrefixReuse,
    /// What the answer must look like.
    pub grammar: Option<GrammarSource>,
}

impl Default for AnswerOptions {
    fn default() -> Self {
        Self {
            n: 1,
            sampling: SamplingOverrides::default(),
            max_tokens: None,
            stop: Vec::new(),
            ignore_eos: None,
            top_logprobs: None,
            overflow: None,
            prefix_reuse: PrefixReuse::Allowed,
            grammar: None,
        }
    }
}

/// Settings for models whose configuration does not say otherwise: the flags of `ingle run`.
#[derive(Debug, Clone, Default)]
pub struct LoadDefaults {
    /// Cells of the context.
    pub context_size: Option<usize>,
    /// Compute threads.
    pub threads: Option<usize>,
    /// Requests that run at the same time.
    pub parallel: Option<usize>,
    /// Requests that may wait.
    pub max_waiting: Option<usize>,
    /// Layers on the GPU.
    pub gpu_layers: Option<GpuLayers>,
}

/// Merges request, configuration and LocalAI's defaults into sampling parameters.
pub(crate) fn sampling_params(
    options: &AnswerOptions,
    config: &ModelConfig,
    tokenizer: &dyn Tokenizer,
) -> Result<SamplingParams, EngineError> {
    let (asked, yaml) = (&options.sampling, &config.defaults);
    let base = SamplingParams::default();
    let window = |asked: Option<TokenWindow>, otherwise| asked.map_or(otherwise, TokenWindow::tokens);
    let yaml_window = yaml.repeat_last_n.map_or(base.repeat_last_n, |count| match count {
        TokenCount::Tokens(n_tokens) => n_tokens as usize,
        TokenCount::All => sampling::MAX_WINDOW,
    });
    let top_k = asked.top_k.or(yaml.top_k).map_or(base.top_k, |k| (k > 0).then_some(k));
    Ok(SamplingParams {
        temperature: asked.temperature.or(yaml.temperature).unwrap_or(base.temperature),
        dynatemp_range: asked.dynatemp_range.unwrap_or(base.dynatemp_range),
        dynatemp_exponent: asked.dynatemp_exponent.unwrap_or(base.dynatemp_exponent),
        top_k,
        top_p: asked.top_p.or(yaml.top_p).unwrap_or(base.top_p),
        min_p: asked.min_p.or(yaml.min_p).unwrap_or(base.min_p),
        typical_p: asked.typical_p.or(yaml.typical_p).unwrap_or(base.typical_p),
        top_n_sigma: asked.top_n_sigma.filter(|&n| n.is_nan() || n > 0.0),
        xtc: xtc(asked),
        min_keep: asked.min_keep.unwrap_or(base.min_keep),
        repeat_penalty: asked.repeat_penalty.or(yaml.repeat_penalty).unwrap_or(base.repeat_penalty),
        presence_penalty: asked.presence_penalty.or(yaml.presence_penalty).unwrap_or(base.presence_penalty),
        frequency_penalty: asked.frequency_penalty.or(yaml.frequency_penalty).unwrap_or(base.frequency_penalty),
        repeat_last_n: window(asked.repeat_last_n, yaml_window),
        dry: dry(asked, tokenizer)?,
        mirostat: mirostat(asked, config)?,
        logit_bias: asked.logit_bias.clone(),
        seed: asked.seed.or(yaml.seed),
        top_logprobs: options.top_logprobs,
        samplers: asked.samplers.clone().unwrap_or(base.samplers),
    })
}

fn xtc(asked: &SamplingOverrides) -> Option<Xtc> {
    let probability = asked.xtc_probability?;
    Some(Xtc { probability, threshold: asked.xtc_threshold.unwrap_or(0.1) })
}

fn dry(asked: &SamplingOverrides, tokenizer: &dyn Tokenizer) -> Result<Option<Dry>, EngineError> {
    // Breakers cost a look at the whole vocabulary: none of that for a penalty that does nothing.
    let Some(multiplier) = asked.dry_multiplier.filter(|&multiplier| multiplier != 0.0) else { return Ok(None) };
    let base = Dry::default();
    let usual = ["\n", ":", "\"", "*"].map(String::from).to_vec();
    let breakers = asked.dry_sequence_breakers.as_ref().unwrap_or(&usual);
    Ok(Some(Dry {
        multiplier,
        base: asked.dry_base.unwrap_or(base.base),
        allowed_length: asked.dry_allowed_length.unwrap_or(base.allowed_length),
        penalty_last_n: asked.dry_penalty_last_n.unwrap_or(TokenWindow::All).tokens(),
        breakers: dry_breakers(breakers, tokenizer)?,
    }))
}

fn dry_breakers(texts: &[String], tokenizer: &dyn Tokenizer) -> Result<DryBreakers, EngineError> {
    const MOST_BREAKERS: usize = 16;
    if texts.len() > MOST_BREAKERS {
        let reason = format!("{} texts were given, at most {MOST_BREAKERS} are possible", texts.len());
        return Err(EngineError::Option { option: "dry_sequence_breakers".into(), reason });
    }
    let token_text = |token, text: &mut Vec<u8>| text.extend_from_slice(tokenizer.token_bytes(token));
    let tokenize = |rest: &[u8]| {
        let text = String::from_utf8_lossy(rest);
        tokenizer.tokenize(&[Segment::plain(text)], Surround::Nothing).unwrap_or_default()
    };
    Ok(DryBreakers::from_text(texts, tokenizer.n_vocab(), token_text, tokenize))
}

fn mirostat(asked: &SamplingOverrides, config: &ModelConfig) -> Result<Option<Mirostat>, EngineError> {
    let version = match asked.mirostat {
        None => {
            return Ok(config.defaults.mirostat.as_ref().map(|yaml| Mirostat {
                version: match yaml.version {
                    ingle_catalog::MirostatVersion::V1 => sampling::MirostatVersion::V1,
                    ingle_catalog::MirostatVersion::V2 => sampling::MirostatVersion::V2,
                },
                tau: asked.mirostat_tau.unwrap_or(yaml.tau),
                eta: asked.mirostat_eta.unwrap_or(yaml.eta),
            }));
        }
        Some(0) => return Ok(None),
        Some(1) => sampling::MirostatVersion::V1,
        Some(2) => sampling::MirostatVersion::V2,
        Some(other) => {
            let reason = format!("{other} is not a version; use 0 (off), 1 or 2");
            return Err(EngineError::Option { option: "mirostat".into(), reason });
        }
    };
    let (tau, eta) = (asked.mirostat_tau.unwrap_or(5.0), asked.mirostat_eta.unwrap_or(0.1));
    Ok(Some(Mirostat { version, tau, eta }))
}

/// Turns a model's configuration into what a backend needs; files it names lie in `folder`.
pub(crate) fn load_options(
    config: &ModelConfig,
    path: std::path::PathBuf,
    folder: &std::path::Path,
    defaults: &LoadDefaults,
) -> Result<LoadOptions, RuntimeError> {
    let load = &config.load;
    let gpu_layers = load.gpu_layers.map(|layers| match layers {
        ingle_catalog::GpuLayers::All => GpuLayers::Auto,
        ingle_catalog::GpuLayers::Count(n_layers) => GpuLayers::Count(n_layers),
    });
    let overflow = match load.options.context_shift {
        Some(true) => ContextOverflow::Shift { keep: keep(config) },
        Some(false) | None => ContextOverflow::Stop,
    };
    let number = |n: Option<std::num::NonZeroU32>| n.map(|n| n.get() as usize);
    Ok(LoadOptions {
        name: config.name.clone(),
        path,
        context_size: load.context_size.map(n_cells).or(defaults.context_size),
        parallel: number(load.options.parallel).or(defaults.parallel),
        threads: number(load.threads).or(defaults.threads),
        batch: number(load.batch),
        max_waiting: defaults.max_waiting,
        gpu_layers: gpu_layers.or(defaults.gpu_layers).unwrap_or_default(),
        main_gpu: load.main_gpu.map(|gpu| gpu as usize),
        tensor_split: load.tensor_split.clone(),
        split_mode: load.options.split_mode.map(split_mode).unwrap_or_default(),
        n_cpu_experts: load.options.n_cpu_moe,
        mmap: load.mmap,
        mlock: load.mmlock.unwrap_or(false),
        cache_type_k: cache_type("cache_type_k", &load.cache_type_k)?,
        cache_type_v: cache_type("cache_type_v", &load.cache_type_v)?,
        flash_attention: match load.flash_attention {
            Some(ingle_catalog::FlashAttention::On) => FlashAttention::On,
            Some(ingle_catalog::FlashAttention::Off) => FlashAttention::Off,
            Some(ingle_catalog::FlashAttention::Auto) | None => FlashAttention::Auto,
        },
        swa_full: load.options.swa_full.unwrap_or(false),
        rope_freq_base: load.rope_freq_base,
        rope_freq_scale: load.rope_freq_scale,
        rope_scaling: load.rope_scaling.map(rope_scaling),
        yarn: yarn(load.yarn),
        no_kv_offload: load.no_kv_offload,
        physical_batch: number(load.options.n_ubatch),
        prompt_threads: number(load.options.threads_batch),
        check_tensors: load.options.check_tensors.unwrap_or(false),
        loras: load.loras.iter().map(|(file, scale)| Lora { path: folder.join(file), scale: *scale }).collect(),
        header_overrides: load.overrides.clone(),
        overflow,
        tasks: tasks(config),
        embed: embed_options(&load.options),
        speech: speech_options(config),
        speculation: speculation(load.options.speculation),
        draft: load
            .draft_model
            .as_ref()
            .map(|file| DraftOptions { path: folder.join(file), config: draft_config(load) }),
    })
}

fn cache_type(option: &'static str, name: &Option<String>) -> Result<CacheType, EngineError> {
    let Some(name) = name else { return Ok(CacheType::default()) };
    CacheType::from_name(name).ok_or_else(|| EngineError::Option {
        option: option.into(),
        reason: format!("{name:?} is not a cache type; use {}", CacheType::ALL.map(|(name, _)| name).join(", ")),
    })
}

fn split_mode(mode: ingle_catalog::SplitMode) -> SplitMode {
    match mode {
        ingle_catalog::SplitMode::None => SplitMode::None,
        ingle_catalog::SplitMode::Layer => SplitMode::Layer,
        ingle_catalog::SplitMode::Row => SplitMode::Row,
    }
}

fn n_cells(size: ingle_catalog::ContextSize) -> usize {
    match size {
        ingle_catalog::ContextSize::Tokens(n_tokens) => n_tokens.get() as usize,
        // More than any model has: the backend cuts it down to what this one was trained with.
        ingle_catalog::ContextSize::Trained => usize::MAX,
    }
}

/// LocalAI's faster-whisper searches with five beams.
fn speech_options(config: &ModelConfig) -> SpeechOptions {
    let usual = matches!(config.backend.as_deref(), Some("faster-whisper" | "whisperx")).then_some(5);
    let options = &config.load.options;
    SpeechOptions { n_beams: options.beam_size.map(|n| n.get() as usize).or(usual), is_int8: options.is_int8 }
}

/// What the configuration wants the model for; nothing is "what it is made for".
fn tasks(config: &ModelConfig) -> BTreeSet<Task> {
    let task = |usecase: &Usecase| match usecase {
        Usecase::Chat | Usecase::Completion | Usecase::Edit | Usecase::Vision => Some(Task::Text),
        Usecase::Embeddings => Some(Task::Embed),
        Usecase::Rerank => Some(Task::Rerank),
        _ => None,
    };
    config.usecases.iter().filter_map(task).collect()
}

fn embed_options(from: &BackendOptions) -> EmbedOptions {
    EmbedOptions {
        pooling: from.pooling.and_then(|pooling| match pooling {
            TokenPooling::Mean => Some(Pooling::Mean),
            TokenPooling::Cls => Some(Pooling::Cls),
            TokenPooling::Last => Some(Pooling::Last),
            // A reranker's own; `reranking: true` decides.
            TokenPooling::Rank => None,
        }),
        is_normalized: from.is_normalized,
        dimensions: from.dimensions.iter().map(|size| size.get() as usize).collect(),
        precision: if from.is_bf16 { Precision::Bf16 } else { Precision::F32 },
    }
}

fn draft_config(load: &LoadConfig) -> DraftConfig {
    let usual = DraftConfig::default();
    DraftConfig {
        most: load.n_draft.map_or(usual.most, |n| n.get() as usize),
        least_chance: load.options.least_draft_chance.unwrap_or(usual.least_chance),
        ..usual
    }
}

fn speculation(is_on: Option<bool>) -> Speculation {
    if is_on == Some(false) { Speculation::Off } else { Speculation::PromptLookup }
}

fn rope_scaling(scaling: ingle_catalog::RopeScaling) -> RopeScaling {
    match scaling {
        ingle_catalog::RopeScaling::None => RopeScaling::None,
        ingle_catalog::RopeScaling::Linear => RopeScaling::Linear,
        ingle_catalog::RopeScaling::Yarn => RopeScaling::Yarn,
    }
}

fn yarn(from: ingle_catalog::Yarn) -> Yarn {
    let ingle_catalog::Yarn { ext_factor, attn_factor, beta_fast, beta_slow } = from;
    Yarn { ext_factor, attn_factor, beta_fast, beta_slow }
}

fn keep(config: &ModelConfig) -> usize {
    match config.defaults.n_keep {
        Some(TokenCount::Tokens(n_tokens)) => n_tokens as usize,
        Some(TokenCount::All) => usize::MAX,
        None => 0,
    }
}
