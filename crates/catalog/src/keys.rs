//! What becomes of every key of LocalAI's model YAML: the table behind warnings at load and behind the compatibility page.
//!
//! Keys that work are those `ModelYaml` has a place for; a test holds the two together.

/// What Ingle does with a key, a flag or an endpoint of LocalAI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does what it does in LocalAI.
    Works,
    /// It is accepted and changes nothing; why.
    NoEffect(&'static str),
    /// It is an error; what to do instead.
    Refused(&'static str),
    /// It will work when the engine it belongs to is there; which.
    Planned(&'static str),
}

use crate::config::{CANDLE, HEARING, LLAMA_CPP, SILERO_VAD, SPEAKING};
use Standing::{NoEffect, Planned, Refused, Works};

const IMAGES: &str = "image generation";
const VISION: &str = "vision";
const PYTHON: &str = "it is for LocalAI's Python backends";
const AGENTS: &str = "Ingle runs no agents; use an agent framework as a client";
const MIDDLEWARE: &str = "Ingle does not filter or route the traffic of clients; put a gateway in front";
const VLLM: &str = "it is for vLLM; GGUF models are tuned by context_size, gpu_layers and cache_type_k/v";
const GONE: &str = "llama.cpp no longer has it";

/// Every key of a model's YAML, nested ones with their parents; a key that is not listed below a listed one shares its
/// standing. In the order of LocalAI's documentation.
pub const MODEL_KEYS: &[(&str, Standing)] = &[
    ("name", Works),
    ("alias", Works),
    ("backend", Works),
    ("description", Works),
    ("usage", Works),
    ("f16", NoEffect("the cache is f16 unless cache_type_k and cache_type_v say otherwise")),
    ("threads", Works),
    ("debug", NoEffect("one log level holds for the whole program: --log-level debug")),
    ("embeddings", Works),
    ("reranking", Works),
    ("roles", Works),
    ("reasoning", Works),
    ("reasoning.disable", Works),
    ("reasoning.strip_reasoning_only", Works),
    ("reasoning.tag_pairs", Works),
    ("reasoning.thinking_start_tokens", Works),
    (
        "reasoning.disable_reasoning_tag_prefill",
        NoEffect("whether a prompt opens the reasoning is read off the prompt"),
    ),
    ("reasoning_effort", Works),
    ("chat_template_kwargs", Works),
    ("known_usecases", Works),
    ("known_input_modalities", Works),
    ("known_output_modalities", Works),
    ("pipeline", NoEffect("there are no realtime voice pipelines")),
    ("tts", Works),
    ("tts.voice", Works),
    ("tts.audio_path", NoEffect("voices lie beside the model: parameters.model")),
    ("tts.voice_cloning", NoEffect("no voice here copies another")),
    ("diffusers", Planned(IMAGES)),
    ("cuda", NoEffect(PYTHON)),
    ("step", Planned(IMAGES)),
    ("cfg_scale", Planned(IMAGES)),
    ("grpc", NoEffect("backends run in process, without gRPC")),
    ("download_files", Works),
    ("artifacts", NoEffect("list the files under download_files")),
    ("options", Works),
    ("overrides", Works),
    ("feature_flags", NoEffect("no behaviour hangs on feature flags")),
    ("disabled", Works),
    ("pinned", Works),
    ("concurrency_groups", Works),
    ("limits", Works),
    ("limits.max_concurrent", Works),
    ("limits.retry_after_seconds", Works),
    ("mcp", NoEffect(AGENTS)),
    ("agent", NoEffect(AGENTS)),
    ("compression", NoEffect("conversations are never shortened behind the client's back")),
    ("pii", NoEffect(MIDDLEWARE)),
    ("pii_detection", NoEffect(MIDDLEWARE)),
    ("router", NoEffect(MIDDLEWARE)),
    ("proxy", NoEffect(MIDDLEWARE)),
    ("mitm", NoEffect(MIDDLEWARE)),
    ("system_prompt", Works),
    ("context_size", Works),
    ("gpu_layers", Works),
    ("mmap", Works),
    ("mmlock", Works),
    ("low_vram", NoEffect(GONE)),
    ("numa", NoEffect("threads are placed by the operating system")),
    ("no_mulmatq", NoEffect(GONE)),
    ("no_kv_offloading", Works),
    ("main_gpu", Works),
    ("tensor_split", Works),
    ("mmproj", Planned(VISION)),
    ("draft_model", Works),
    ("n_draft", Works),
    ("lora_adapter", Works),
    ("lora_base", NoEffect(GONE)),
    ("lora_scale", Works),
    ("lora_adapters", Works),
    ("lora_scales", Works),
    ("flash_attention", Works),
    ("cache_type_k", Works),
    ("cache_type_v", Works),
    ("rope_scaling", Works),
    ("yarn_ext_factor", Works),
    ("yarn_attn_factor", Works),
    ("yarn_beta_fast", Works),
    ("yarn_beta_slow", Works),
    ("mirostat", Works),
    ("mirostat_eta", Works),
    ("mirostat_tau", Works),
    ("grammar", Works),
    ("grammar_file", Works),
    ("stopwords", Works),
    ("cutstrings", Works),
    ("extract_regex", Works),
    ("trimspace", Works),
    ("trimsuffix", Works),
    ("prompt_cache_path", NoEffect("prompts are cached in memory, always")),
    ("prompt_cache_all", NoEffect("prompts are cached in memory, always")),
    ("prompt_cache_ro", NoEffect("prompts are cached in memory, always")),
    ("rms_norm_eps", NoEffect("it is read from the GGUF file")),
    ("ngqa", NoEffect("it is read from the GGUF file")),
    ("type", NoEffect(PYTHON)),
    ("quantization", NoEffect(VLLM)),
    ("load_format", NoEffect(VLLM)),
    ("gpu_memory_utilization", NoEffect(VLLM)),
    ("trust_remote_code", NoEffect("no model brings code along")),
    ("enforce_eager", NoEffect(VLLM)),
    ("swap_space", NoEffect(VLLM)),
    ("max_model_len", NoEffect(VLLM)),
    ("tensor_parallel_size", NoEffect(VLLM)),
    ("disable_log_stats", NoEffect(VLLM)),
    ("dtype", NoEffect(VLLM)),
    ("limit_mm_per_prompt", NoEffect(VLLM)),
    ("engine_args", NoEffect(VLLM)),
    ("parameters", Works),
    ("parameters.model", Works),
    ("parameters.language", Works),
    ("parameters.translate", Works),
    ("parameters.n", Works),
    ("parameters.top_p", Works),
    ("parameters.top_k", Works),
    ("parameters.min_p", Works),
    ("parameters.temperature", Works),
    ("parameters.max_tokens", Works),
    ("parameters.echo", Works),
    ("parameters.batch", Works),
    ("parameters.ignore_eos", Works),
    ("parameters.repeat_penalty", Works),
    ("parameters.repeat_last_n", Works),
    ("parameters.n_keep", Works),
    ("parameters.frequency_penalty", Works),
    ("parameters.presence_penalty", Works),
    ("parameters.tfz", NoEffect(GONE)),
    ("parameters.typical_p", Works),
    ("parameters.seed", Works),
    ("parameters.logprobs", NoEffect("requests ask for log-probabilities themselves")),
    ("parameters.top_logprobs", NoEffect("requests ask for log-probabilities themselves")),
    ("parameters.logit_bias", Works),
    ("parameters.negative_prompt", Planned(IMAGES)),
    ("parameters.negative_prompt_scale", Planned(IMAGES)),
    ("parameters.rope_freq_base", Works),
    ("parameters.rope_freq_scale", Works),
    ("parameters.clip_skip", Planned(IMAGES)),
    ("parameters.tokenizer", NoEffect("the tokenizer is the model file's own")),
    ("parameters.encoding_format", Works),
    ("parameters.pooling", Works),
    ("parameters.pooling_half_life_tokens", Works),
    ("parameters.voice", Works),
    ("template", Works),
    ("template.chat", Works),
    ("template.chat_message", Works),
    ("template.completion", Works),
    ("template.edit", Works),
    ("template.function", Works),
    ("template.multimodal", Planned(VISION)),
    ("template.use_tokenizer_template", Works),
    ("template.join_chat_messages_by_character", Works),
    ("template.reply_prefix", Works),
    ("function", Works),
    ("function.disable_no_action", NoEffect(NO_ACTION)),
    ("function.no_action_function_name", NoEffect(NO_ACTION)),
    ("function.no_action_description_name", NoEffect(NO_ACTION)),
    ("function.function_name_key", Works),
    ("function.function_arguments_key", Works),
    ("function.response_regex", Works),
    ("function.json_regex_match", Works),
    ("function.argument_regex", Works),
    ("function.argument_regex_key_name", Works),
    ("function.argument_regex_value_name", Works),
    ("function.replace_function_results", Works),
    ("function.replace_llm_results", Works),
    ("function.capture_llm_results", Works),
    ("function.xml_format_preset", NoEffect(OWN_FORMAT)),
    ("function.xml_format", NoEffect(OWN_FORMAT)),
    ("function.automatic_tool_parsing_fallback", NoEffect(OWN_FORMAT)),
    ("function.return_name_in_function_response", NoEffect("LocalAI no longer has it")),
    ("function.disable_peg_parser", NoEffect(OWN_FORMAT)),
    ("function.grammar", Works),
    ("function.grammar.parallel_calls", Works),
    ("function.grammar.disable_parallel_new_lines", NoEffect(HELD)),
    ("function.grammar.mixed_mode", NoEffect("text and calls may always stand in one answer")),
    ("function.grammar.no_mixed_free_string", NoEffect("text and calls may always stand in one answer")),
    ("function.grammar.disable", Works),
    ("function.grammar.prefix", Works),
    ("function.grammar.expect_strings_after_json", NoEffect("text and calls may always stand in one answer")),
    ("function.grammar.properties_order", NoEffect(HELD)),
    ("function.grammar.schema_type", NoEffect(OWN_FORMAT)),
    ("function.grammar.triggers", NoEffect(OWN_FORMAT)),
];

const NO_ACTION: &str = "a free answer is text: no pseudo-tool is needed";
const OWN_FORMAT: &str = "the form of calls is read off the model's own chat template";
const HELD: &str = "calls are held to the form of the model's own chat template";

/// Every `options:` string of llama-cpp; the key before the colon.
pub const LLAMA_OPTIONS: &[(&str, Standing)] = &[
    ("context_shift", Works),
    ("parallel", Works),
    ("n_parallel", Works),
    ("swa_full", Works),
    ("n_ubatch", Works),
    ("threads_batch", Works),
    ("check_tensors", Works),
    ("use_jinja", NoEffect("template.use_tokenizer_template decides")),
    ("jinja", NoEffect("template.use_tokenizer_template decides")),
    ("kv_unified", NoEffect("one pool of cells is shared by all sequences")),
    ("cont_batching", NoEffect("requests are always batched together")),
    ("warmup", NoEffect("every model runs once when it is loaded")),
    ("cache_reuse", NoEffect("prefixes are found and reused without it")),
    ("cache_ram", NoEffect("finished prefixes take at most an eighth of the free memory")),
    ("cache_idle_slots", NoEffect("finished prefixes are kept without it")),
    ("sps", NoEffect("requests are not bound to slots")),
    ("slot_prompt_similarity", NoEffect("requests are not bound to slots")),
    ("n_rs_seq", NoEffect("states of recurrent models are saved without it")),
    ("ctx_checkpoints", NoEffect("states of recurrent models are saved without it")),
    ("checkpoint_min_step", NoEffect("states of recurrent models are saved without it")),
    ("fit_params", NoEffect("sizes are always fitted to the memory there is")),
    ("fit_params_target", NoEffect("sizes are always fitted to the memory there is")),
    ("fit_params_min_ctx", NoEffect("sizes are always fitted to the memory there is")),
    ("gpu", NoEffect("gpu_layers decides")),
    ("device", NoEffect("main_gpu and tensor_split decide")),
    ("devices", NoEffect("main_gpu and tensor_split decide")),
    ("split_mode", Works),
    ("sm", Works),
    ("no_op_offload", NoEffect("llama.cpp decides which operations go to the GPU")),
    ("override_tensor", NoEffect("gpu_layers and n_cpu_moe decide what stays in main memory")),
    ("cpu_moe", Works),
    ("n_cpu_moe", Works),
    ("verbosity", NoEffect("one log level holds for the whole program: --log-level debug")),
    ("direct_io", NoEffect("mmap decides how the file is read")),
    ("reasoning_format", NoEffect("reasoning is always told apart from the answer")),
    ("reasoning_budget", NoEffect("requests switch thinking off: reasoning_effort none")),
    ("prefill_assistant", NoEffect("requests ask for it: continue_final_message")),
    ("pooling", Works),
    ("embd_normalize", Works),
    ("dimensions", Works),
    ("mmproj_use_gpu", Planned(VISION)),
    ("image_min_tokens", Planned(VISION)),
    ("image_max_tokens", Planned(VISION)),
    ("spec_type", Works),
    ("spec_n_max", Works),
    ("spec_n_min", NoEffect("how many tokens are proposed depends on what they cost and how often they are right")),
    ("spec_p_min", Works),
    ("spec_model", Works),
    ("grpc_servers", Refused(ONE_PROCESS)),
    ("rpc_servers", Refused(ONE_PROCESS)),
];

/// Every `options:` string of embedding models and rerankers from safetensors.
pub const ENCODER_OPTIONS: &[(&str, Standing)] =
    &[("pooling", Works), ("embd_normalize", Works), ("dimensions", Works), ("precision", Works)];

/// Every `options:` string of models that hear.
pub const HEARING_OPTIONS: &[(&str, Standing)] = &[
    ("beam_size", Works),
    ("compute_type", Works),
    ("vad_filter", Works),
    ("vad_model", Works),
    ("vad_threshold", Works),
    ("min_silence_duration_ms", Works),
    ("speech_pad_ms", Works),
];

/// Every `options:` string of Kokoro's voices.
pub const KOKORO_OPTIONS: &[(&str, Standing)] =
    &[("lang_code", NoEffect("the first letter of a voice's name tells its language"))];

pub(crate) const ONE_PROCESS: &str = "a model runs in one process; remove the option, or use a smaller model";

/// A key of a configuration that does not do what its author may expect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyWarning {
    /// The key with its parents, e.g. `parameters.colour`.
    pub key: String,
    /// 1-based line in the file; 0 when the place is not known.
    pub line: u64,
    /// What becomes of it.
    pub reason: String,
}

impl std::fmt::Display for KeyWarning {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line > 0 {
            write!(formatter, "line {}: ", self.line)?;
        }
        write!(formatter, "`{}` {}", self.key, self.reason)
    }
}

fn standing_of(key: &str) -> Option<Standing> {
    let found = MODEL_KEYS.iter().find(|(known, _)| *known == key);
    found.map(|(_, standing)| *standing)
}

/// What a person is told of a key that no configuration has a place for.
pub(crate) fn warning(key: &str, line: u64) -> KeyWarning {
    // List indexes are no part of a key's name.
    let named: Vec<&str> = key.split('.').filter(|step| step.parse::<usize>().is_err()).collect();
    let listed = (1..=named.len()).rev().find_map(|n_steps| standing_of(&named[..n_steps].join(".")));
    let reason = match listed {
        Some(Standing::NoEffect(why)) => format!("has no effect: {why}"),
        Some(Standing::Planned(what)) => format!("has no effect yet: it belongs to {what}, which is not there yet"),
        Some(Standing::Refused(instead)) => format!("is refused: {instead}"),
        Some(Standing::Works) | None => match misplaced(&named).or_else(|| nearest(&named.join("."))) {
            Some(near) => format!("is not known; is `{near}` meant?"),
            None => "is not known and has no effect".to_owned(),
        },
    };
    KeyWarning { key: key.to_owned(), line, reason }
}

/// The options that a backend knows; `None` for one that is not there yet.
pub(crate) fn options_of(backend: &str) -> Option<&'static [(&'static str, Standing)]> {
    match backend {
        LLAMA_CPP => Some(LLAMA_OPTIONS),
        CANDLE | "transformers" | "rerankers" => Some(ENCODER_OPTIONS),
        name if HEARING.contains(&name) => Some(HEARING_OPTIONS),
        "kokoro" | "kokoros" => Some(KOKORO_OPTIONS),
        name if SPEAKING.contains(&name) || name == SILERO_VAD => Some(&[]),
        _ => None,
    }
}

/// What a person is told of an option of `table` that does nothing; `None` for one that works.
pub(crate) fn option_warning(table: &[(&str, Standing)], written: &str, line: u64) -> Option<KeyWarning> {
    let key = written.split(':').next().unwrap_or_default().trim();
    let listed = table.iter().find(|(known, _)| *known == key).map(|(_, standing)| *standing);
    let reason = match listed {
        Some(Standing::Works | Standing::Refused(_)) => return None,
        Some(Standing::NoEffect(why)) => format!("has no effect: {why}"),
        Some(Standing::Planned(what)) => format!("has no effect yet: it belongs to {what}, which is not there yet"),
        None if key.starts_with('-') => {
            "has no effect: flags of llama.cpp's own programs are not read; use the key of the YAML".to_owned()
        }
        None => "is not known and has no effect".to_owned(),
    };
    Some(KeyWarning { key: format!("options: {written}"), line, reason })
}

/// The known key of the same name that stands elsewhere, when there is just one.
fn misplaced(named: &[&str]) -> Option<&'static str> {
    let last = named.last()?;
    let mut namesakes =
        MODEL_KEYS.iter().map(|(known, _)| *known).filter(|known| known.rsplit('.').next() == Some(last));
    namesakes.next().filter(|_| namesakes.next().is_none())
}

/// The known key that `key` is a misspelling of.
fn nearest(key: &str) -> Option<&'static str> {
    let best = MODEL_KEYS.iter().map(|(known, _)| (strsim::osa_distance(key, known), *known)).min()?;
    (best.0 <= 1 + key.len() / 8).then_some(best.1)
}

#[cfg(test)]
mod tests;
