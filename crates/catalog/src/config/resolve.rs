//! From what the YAML says to what it means.

use super::{
    Availability, BackendOptions, ContextSize, FlashAttention, FunctionConfig, GpuLayers, HEARING, LLAMA_CPP,
    LoadConfig, Mirostat, MirostatVersion, ModelConfig, OutputConfig, RequestDefaults, Residency, SILERO_VAD, SPEAKING,
    SplitMode, TemplateConfig, TokenCount,
};
use crate::model_yaml::{
    Flag, FunctionYaml, ModelYaml, ParametersYaml, Real, ReplacementYaml, TemplateYaml, Text, Whole, read_flag,
};
use crate::{Usecase, keys, names, uri};
use std::collections::BTreeSet;
use std::num::NonZeroU32;

mod more;

/// A key whose value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadValue {
    pub key: &'static str,
    pub message: String,
}

type Resolved<T> = Result<T, BadValue>;

fn bad<T>(key: &'static str, message: impl Into<String>) -> Resolved<T> {
    Err(BadValue { key, message: message.into() })
}

impl ModelConfig {
    /// Checks every value; `fallback_name` is used when the YAML has no name.
    pub(crate) fn resolve(yaml: ModelYaml, fallback_name: Option<&str>) -> Resolved<Self> {
        let name = match (text(yaml.name.clone()), fallback_name) {
            (Some(name), _) => name,
            (None, Some(name)) => name.to_owned(),
            (None, None) => return bad("name", "a configuration in a list needs a name"),
        };
        names::check_model_name(&name).or_else(|error| bad("name", error.to_string()))?;
        let parameters = yaml.parameters.clone().unwrap_or_default();
        let model = text(parameters.model.clone());
        if let Some(model) = &model {
            check_model_reference(model)?;
        }
        let backend = backend(&yaml, model.as_deref())?;
        let alias = text(yaml.alias.clone());
        if let Some(alias) = &alias {
            names::check_model_name(alias).or_else(|error| bad("alias", error.to_string()))?;
        }
        Ok(Self {
            usecases: usecases(&yaml, backend.as_deref())?,
            defaults: request_defaults(&yaml, &parameters)?,
            load: load_config(&yaml, &parameters)?,
            template: template_config(&yaml),
            output: output_config(&yaml),
            function: function_config(&yaml),
            availability: if on(yaml.disabled) { Availability::Disabled } else { Availability::Enabled },
            residency: if on(yaml.pinned) { Residency::Pinned } else { Residency::Evictable },
            reasoning: more::reasoning(&yaml),
            modalities: more::modalities(&yaml),
            download_files: more::download_files(&yaml)?,
            concurrency_groups: texts(&yaml.concurrency_groups),
            limits: more::limits(&yaml)?,
            embed: more::embed(&parameters)?,
            speech: more::speech(&yaml, &parameters),
            description: text(yaml.description),
            usage: text(yaml.usage),
            name,
            alias,
            backend,
            model,
        })
    }
}

fn text(value: Option<Text>) -> Option<String> {
    value.map(|text| text.0).filter(|text| !text.is_empty())
}

fn texts(value: &Option<Vec<Text>>) -> Vec<String> {
    value.iter().flatten().map(|text| text.0.clone()).collect()
}

fn on(value: Option<Flag>) -> bool {
    value.is_some_and(|flag| flag.0)
}

fn check_model_reference(model: &str) -> Resolved<()> {
    match uri::file_name_of_uri(model) {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => bad("parameters.model", error.to_string()),
        None => names::check("parameters.model", model).or_else(|error| bad("parameters.model", error.to_string())),
    }
}

fn backend(yaml: &ModelYaml, model: Option<&str>) -> Resolved<Option<String>> {
    let Some(written) = text(yaml.backend.clone()) else {
        let is_gguf = model.is_some_and(|model| names::without_gguf(model).len() < model.len());
        return Ok(is_gguf.then(|| LLAMA_CPP.to_owned()));
    };
    let plain = written.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_');
    if !plain {
        return bad("backend", format!("{written:?} may hold letters, digits, - and _ only"));
    }
    Ok(Some(current_backend_name(&written).to_owned()))
}

/// Old names of backends, as LocalAI rewrites them.
pub(crate) fn current_backend_name(written: &str) -> &str {
    match written {
        "llama" | "go-llama" | "llama-stable" | "llama-ggml" | "llama-grpc" | "bert-embeddings" | "bert-cpp" => {
            LLAMA_CPP
        }
        // Forks of llama.cpp, for the same files.
        "ik_llama" | "ik-llama" | "ik-llama-cpp" | "turboquant" | "bonsai" | "ds4" => LLAMA_CPP,
        "stablediffusion" => "stablediffusion-ggml",
        "sentencetransformers" | "huggingface-embeddings" | "mamba" | "transformers-musicgen" => "transformers",
        other => other,
    }
}

/// What a text model may be asked for when its configuration does not say.
pub(crate) fn text_usecases() -> BTreeSet<Usecase> {
    BTreeSet::from([Usecase::Chat, Usecase::Completion, Usecase::Edit, Usecase::Tokenize])
}

fn usecases(yaml: &ModelYaml, backend: Option<&str>) -> Resolved<BTreeSet<Usecase>> {
    let mut found = BTreeSet::new();
    for word in texts(&yaml.known_usecases) {
        // LocalAI knows more words than we do; a word that we do not know takes nothing away.
        if let Some(usecase) = Usecase::parse(&word) {
            found.insert(usecase);
        }
    }
    let written = text(yaml.backend.clone()).unwrap_or_default();
    let embeds = on(yaml.embeddings)
        || ["bert-embeddings", "bert-cpp", "sentencetransformers", "huggingface-embeddings"].contains(&&*written);
    if embeds {
        found.insert(Usecase::Embeddings);
    }
    let reranks = on(yaml.reranking) || written == "rerankers";
    if reranks {
        found.insert(Usecase::Rerank);
    }
    if yaml.mmproj.is_some() {
        found.insert(Usecase::Vision);
    }
    let is_text = matches!(backend, None | Some(LLAMA_CPP)) && !embeds && !reranks;
    if is_text && yaml.known_usecases.is_none() {
        found.extend(text_usecases());
    }
    if matches!(backend, None | Some(LLAMA_CPP)) {
        found.insert(Usecase::Tokenize);
    }
    found.extend(speech_usecase(backend));
    Ok(found)
}

/// What the models of a speech backend do.
fn speech_usecase(backend: Option<&str>) -> Option<Usecase> {
    match backend? {
        name if HEARING.contains(&name) => Some(Usecase::Transcript),
        name if SPEAKING.contains(&name) => Some(Usecase::Tts),
        SILERO_VAD => Some(Usecase::Vad),
        _ => None,
    }
}

fn request_defaults(yaml: &ModelYaml, from: &ParametersYaml) -> Resolved<RequestDefaults> {
    Ok(RequestDefaults {
        temperature: real("parameters.temperature", from.temperature, 0.0, 100.0)?,
        top_p: real("parameters.top_p", from.top_p, 0.0, 1.0)?,
        top_k: from.top_k.map(|value| clamp_negative("parameters.top_k", value)).transpose()?,
        min_p: real("parameters.min_p", from.min_p, 0.0, 1.0)?,
        typical_p: real("parameters.typical_p", from.typical_p, 0.0, 1.0)?,
        max_tokens: positive("parameters.max_tokens", from.max_tokens)?,
        repeat_penalty: real("parameters.repeat_penalty", from.repeat_penalty, 0.0, 100.0)?
            .filter(|value| *value > 0.0),
        repeat_last_n: token_count("parameters.repeat_last_n", from.repeat_last_n)?,
        presence_penalty: real("parameters.presence_penalty", from.presence_penalty, -2.0, 2.0)?,
        frequency_penalty: real("parameters.frequency_penalty", from.frequency_penalty, -2.0, 2.0)?,
        seed: from.seed.and_then(|seed| u64::try_from(seed.0).ok()),
        ignore_eos: from.ignore_eos.map(|flag| flag.0),
        n_keep: token_count("parameters.n_keep", from.n_keep)?,
        n: positive("parameters.n", from.n)?,
        echo: from.echo.map(|flag| flag.0),
        logit_bias: from.logit_bias.iter().flatten().map(|(token, bias)| (token.clone(), bias.0 as f32)).collect(),
        mirostat: mirostat(yaml)?,
        grammar: text(yaml.grammar.clone()),
        grammar_file: grammar_file(yaml)?,
    })
}

fn mirostat(yaml: &ModelYaml) -> Resolved<Option<Mirostat>> {
    let version = match yaml.mirostat.map_or(0, |value| value.0) {
        0 => return Ok(None),
        1 => MirostatVersion::V1,
        2 => MirostatVersion::V2,
        other => return bad("mirostat", format!("{other} is not one of 0, 1, 2")),
    };
    let eta = real("mirostat_eta", yaml.mirostat_eta, 0.0, 10.0)?.unwrap_or(0.1);
    let tau = real("mirostat_tau", yaml.mirostat_tau, 0.0, 100.0)?.unwrap_or(5.0);
    Ok(Some(Mirostat { version, eta, tau }))
}

fn load_config(yaml: &ModelYaml, parameters: &ParametersYaml) -> Resolved<LoadConfig> {
    let (options, of_options) = backend_options(&texts(&yaml.options))?;
    Ok(LoadConfig {
        context_size: context_size(yaml.context_size)?,
        threads: positive("threads", yaml.threads)?,
        mmap: yaml.mmap.map(|flag| flag.0),
        mmlock: yaml.mmlock.map(|flag| flag.0),
        gpu_layers: gpu_layers(yaml.gpu_layers)?,
        main_gpu: main_gpu(yaml)?,
        tensor_split: tensor_split(yaml)?,
        batch: positive("parameters.batch", parameters.batch)?,
        flash_attention: flash_attention(yaml)?,
        cache_type_k: cache_type("cache_type_k", &yaml.cache_type_k)?,
        cache_type_v: cache_type("cache_type_v", &yaml.cache_type_v)?,
        rope_freq_base: real("parameters.rope_freq_base", parameters.rope_freq_base, 0.0, 1e12)?
            .filter(|base| *base > 0.0),
        rope_freq_scale: real("parameters.rope_freq_scale", parameters.rope_freq_scale, 0.0, 1e6)?
            .filter(|scale| *scale > 0.0),
        mmproj: inner_file("mmproj", &yaml.mmproj)?,
        draft_model: inner_file("draft_model", &yaml.draft_model)?.or(of_options.draft_model),
        n_draft: positive("n_draft", yaml.n_draft)?.or(of_options.n_draft),
        loras: more::loras(yaml)?,
        rope_scaling: more::rope_scaling(yaml)?,
        yarn: more::yarn(yaml)?,
        no_kv_offload: on(yaml.no_kv_offloading),
        overrides: more::overrides(yaml)?,
        options,
    })
}

fn inner_file(key: &'static str, value: &Option<Text>) -> Resolved<Option<String>> {
    let Some(path) = text(value.clone()) else { return Ok(None) };
    names::check(key, &path).or_else(|error| bad(key, error.to_string()))?;
    Ok(Some(path))
}

fn context_size(value: Option<Whole>) -> Resolved<Option<ContextSize>> {
    match value {
        Some(Whole(-1)) => Ok(Some(ContextSize::Trained)),
        other => Ok(positive("context_size", other)?.map(ContextSize::Tokens)),
    }
}

fn gpu_layers(value: Option<Whole>) -> Resolved<Option<GpuLayers>> {
    // LocalAI writes "all" as a number that no model reaches.
    const ALL_FROM: i64 = 99_999;
    match value {
        None => Ok(None),
        Some(Whole(-1)) => Ok(Some(GpuLayers::All)),
        Some(Whole(count)) if count >= ALL_FROM => Ok(Some(GpuLayers::All)),
        Some(count) => Ok(Some(GpuLayers::Count(clamp_negative("gpu_layers", count)?))),
    }
}

fn main_gpu(yaml: &ModelYaml) -> Resolved<Option<u32>> {
    let Some(written) = text(yaml.main_gpu.clone()) else { return Ok(None) };
    match written.trim().parse() {
        Ok(index) => Ok(Some(index)),
        Err(_) => bad("main_gpu", format!("{written:?} is not the index of a GPU")),
    }
}

fn tensor_split(yaml: &ModelYaml) -> Resolved<Vec<f32>> {
    const MAX_DEVICES: usize = 64;
    let Some(written) = text(yaml.tensor_split.clone()) else { return Ok(Vec::new()) };
    let shares: Vec<Option<f32>> = written.split([',', '/']).map(|share| share.trim().parse().ok()).collect();
    let shares: Option<Vec<f32>> = shares.into_iter().collect();
    match shares {
        Some(shares)
            if shares.len() <= MAX_DEVICES && shares.iter().all(|share| share.is_finite() && *share >= 0.0) =>
        {
            Ok(shares)
        }
        _ => bad("tensor_split", format!("{written:?} is not a list of shares such as 3,1")),
    }
}

fn flash_attention(yaml: &ModelYaml) -> Resolved<Option<FlashAttention>> {
    let Some(written) = text(yaml.flash_attention.clone()) else { return Ok(None) };
    match (read_flag(&written), written.trim().to_ascii_lowercase().as_str()) {
        (Some(true), _) => Ok(Some(FlashAttention::On)),
        (Some(false), _) => Ok(Some(FlashAttention::Off)),
        (None, "auto") => Ok(Some(FlashAttention::Auto)),
        (None, _) => bad("flash_attention", format!("{written:?} is not one of on, off, auto")),
    }
}

fn cache_type(key: &'static str, value: &Option<Text>) -> Resolved<Option<String>> {
    const TYPES: [&str; 9] = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"];
    let Some(written) = text(value.clone()) else { return Ok(None) };
    let lower = written.trim().to_ascii_lowercase();
    if TYPES.contains(&lower.as_str()) {
        return Ok(Some(lower));
    }
    bad(key, format!("{written:?} is not one of {}", TYPES.join(", ")))
}

/// What `options:` say about the draft model, which has keys of its own, too.
#[derive(Default)]
struct DraftOptions {
    draft_model: Option<String>,
    n_draft: Option<NonZeroU32>,
}

fn backend_options(written: &[String]) -> Resolved<(BackendOptions, DraftOptions)> {
    let (mut options, mut draft) = (BackendOptions::default(), DraftOptions::default());
    for line in written {
        let (key, value) = match line.split_once(':') {
            Some((key, value)) => (key.trim(), Some(value.trim())),
            None => (line.trim(), None),
        };
        match key {
            "grpc_servers" | "rpc_servers" if value.is_some_and(|value| !value.is_empty()) => {
                return bad("options", format!("{line:?}: {}", keys::ONE_PROCESS));
            }
            "parallel" | "n_parallel" => options.parallel = option_count(line, value)?,
            "swa_full" => options.swa_full = Some(option_flag(line, value)?),
            "spec_model" => draft.draft_model = inner_file("options", &value.map(|value| Text(value.to_owned())))?,
            "spec_n_max" => draft.n_draft = option_count(line, value)?,
            "spec_p_min" => options.least_draft_chance = Some(more::probability(line, value)?),
            "spec_type" => options.speculation = Some(speculation(line, value)?),
            "context_shift" => options.context_shift = Some(option_flag(line, value)?),
            "check_tensors" => options.check_tensors = Some(option_flag(line, value)?),
            "n_ubatch" => options.n_ubatch = option_count(line, value)?,
            "threads_batch" => options.threads_batch = option_count(line, value)?,
            "split_mode" | "sm" => options.split_mode = Some(split_mode(line, value)?),
            "cpu_moe" if option_flag(line, value)? => options.n_cpu_moe = Some(u32::MAX),
            "n_cpu_moe" => options.n_cpu_moe = Some(option_number(line, value)?),
            "pooling" => options.pooling = more::token_pooling(line, value)?,
            "embd_normalize" => options.is_normalized = Some(more::normalizes(line, value)?),
            "dimensions" => options.dimensions = more::dimensions(line, value)?,
            "precision" => options.is_bf16 = more::is_bf16(line, value)?,
            "beam_size" => options.beam_size = option_count(line, value)?,
            "compute_type" => options.is_int8 = more::is_int8(line, value)?,
            "vad_filter" => options.voice_filter.is_on = option_flag(line, value)?,
            "vad_model" => options.voice_filter.model = Some(more::option_model(line, value)?),
            "vad_threshold" => options.voice_filter.threshold = Some(more::probability(line, value)?),
            "min_silence_duration_ms" => options.voice_filter.min_silence_ms = Some(option_number(line, value)?),
            "speech_pad_ms" => options.voice_filter.pad_ms = Some(option_number(line, value)?),
            // What else there may be is a warning; see `keys`.
            _ => {}
        }
    }
    Ok((options, draft))
}

/// Whether tokens are guessed: from the text itself and by the draft model where there is one, or not at all.
fn speculation(line: &str, value: Option<&str>) -> Resolved<bool> {
    match value {
        Some("none") => Ok(false),
        Some("draft" | "draft-simple") => Ok(true),
        Some(kind) if kind.starts_with("ngram") => Ok(true),
        Some(_) | None => {
            let kinds = "spec_type:none, spec_type:ngram or, with a draft_model, spec_type:draft";
            bad("options", format!("{line:?}: use {kinds}; no other kind is there"))
        }
    }
}

fn option_flag(line: &str, value: Option<&str>) -> Resolved<bool> {
    match value.map_or(Some(true), read_flag) {
        Some(flag) => Ok(flag),
        None => bad("options", format!("{line:?} should be true or false")),
    }
}

/// A count; 0 is "automatic".
fn option_count(line: &str, value: Option<&str>) -> Resolved<Option<NonZeroU32>> {
    option_number(line, value).map(NonZeroU32::new)
}

fn option_number(line: &str, value: Option<&str>) -> Resolved<u32> {
    match value.and_then(|value| value.parse().ok()) {
        Some(number) => Ok(number),
        None => bad("options", format!("{line:?} should have a number")),
    }
}

fn split_mode(line: &str, value: Option<&str>) -> Resolved<SplitMode> {
    match value.unwrap_or_default().to_ascii_lowercase().as_str() {
        "none" => Ok(SplitMode::None),
        "layer" => Ok(SplitMode::Layer),
        "row" => Ok(SplitMode::Row),
        _ => bad("options", format!("{line:?} should be none, layer or row")),
    }
}

fn template_config(yaml: &ModelYaml) -> TemplateConfig {
    let from: TemplateYaml = yaml.template.clone().unwrap_or_default();
    TemplateConfig {
        chat: text(from.chat),
        chat_message: text(from.chat_message),
        completion: text(from.completion),
        edit: text(from.edit),
        function: text(from.function),
        use_tokenizer_template: from.use_tokenizer_template.map(|flag| flag.0),
        join_chat_messages_by_character: from.join_chat_messages_by_character.map(|text| text.0),
        reply_prefix: text(from.reply_prefix),
        roles: yaml.roles.iter().flatten().map(|(role, prefix)| (role.clone(), prefix.0.clone())).collect(),
        system_prompt: text(yaml.system_prompt.clone()),
    }
}

/// A file inside the models folder.
fn grammar_file(yaml: &ModelYaml) -> Resolved<Option<String>> {
    let Some(file) = text(yaml.grammar_file.clone()) else { return Ok(None) };
    match names::check("grammar_file", &file) {
        Ok(()) => Ok(Some(file)),
        Err(error) => bad("grammar_file", error.to_string()),
    }
}

fn function_config(yaml: &ModelYaml) -> FunctionConfig {
    let from: FunctionYaml = yaml.function.clone().unwrap_or_default();
    let grammar = from.grammar.clone().unwrap_or_default();
    let pairs = |list: &Option<Vec<ReplacementYaml>>| -> Vec<(String, String)> {
        let pair = |entry: &ReplacementYaml| {
            Some((text(entry.key.clone())?, entry.value.clone().map_or_else(String::new, |text| text.0)))
        };
        list.iter().flatten().filter_map(pair).collect()
    };
    FunctionConfig {
        name_key: text(from.function_name_key),
        arguments_key: text(from.function_arguments_key),
        response_regex: texts(&from.response_regex),
        json_regex_match: texts(&from.json_regex_match),
        argument_regex: texts(&from.argument_regex),
        argument_key_group: text(from.argument_regex_key_name).unwrap_or_default(),
        argument_value_group: text(from.argument_regex_value_name).unwrap_or_default(),
        replace_results: pairs(&from.replace_function_results),
        replace_text: pairs(&from.replace_llm_results),
        capture_text: texts(&from.capture_llm_results),
        is_unconstrained: on(grammar.disable),
        parallel_calls: grammar.parallel_calls.map(|flag| flag.0),
        prefix: grammar.prefix.map_or_else(String::new, |text| text.0),
    }
}

fn output_config(yaml: &ModelYaml) -> OutputConfig {
    let mut stopwords = texts(&yaml.stopwords);
    stopwords.retain(|word| !word.is_empty());
    OutputConfig {
        stopwords,
        cutstrings: texts(&yaml.cutstrings),
        extract_regex: texts(&yaml.extract_regex),
        trimspace: texts(&yaml.trimspace),
        trimsuffix: texts(&yaml.trimsuffix),
    }
}

fn real(key: &'static str, value: Option<Real>, low: f64, high: f64) -> Resolved<Option<f32>> {
    match value {
        None => Ok(None),
        Some(Real(value)) if (low..=high).contains(&value) => Ok(Some(value as f32)),
        Some(Real(value)) => bad(key, format!("{value} is not between {low} and {high}")),
    }
}

/// A count where 0 means "not set".
fn positive(key: &'static str, value: Option<Whole>) -> Resolved<Option<NonZeroU32>> {
    let Some(Whole(value)) = value else { return Ok(None) };
    match u32::try_from(value) {
        Ok(value) => Ok(NonZeroU32::new(value)),
        Err(_) => bad(key, format!("{value} is not between 0 and {}", u32::MAX)),
    }
}

/// A count where anything negative means 0 in LocalAI's files.
fn clamp_negative(key: &'static str, value: Whole) -> Resolved<u32> {
    u32::try_from(value.0.max(0)).or_else(|_| bad(key, format!("{} is more than {}", value.0, u32::MAX)))
}

fn token_count(key: &'static str, value: Option<Whole>) -> Resolved<Option<TokenCount>> {
    match value {
        None => Ok(None),
        Some(Whole(-1)) => Ok(Some(TokenCount::All)),
        Some(Whole(count)) => match u32::try_from(count) {
            Ok(count) => Ok(Some(TokenCount::Tokens(count))),
            Err(_) => bad(key, format!("{count} is neither -1 nor a number of tokens")),
        },
    }
}
