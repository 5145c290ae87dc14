use super::*;
use crate::yaml;

fn config(text: &str) -> Result<ModelConfig, resolve::BadValue> {
    let (written, unknown) = yaml::parse(text).unwrap().decode().unwrap();
    assert!(unknown.iter().all(|key| crate::keys::warning(&key.key, key.line).reason.contains("no effect")), "{text}");
    ModelConfig::resolve(written, Some("fallback"))
}

#[test]
fn a_full_text_model() {
    let config = config(include_str!("full.yaml")).unwrap();
    assert_eq!(config.name, "full");
    assert_eq!(config.backend.as_deref(), Some("llama-cpp"));
    assert_eq!(config.model.as_deref(), Some("sub/full.gguf"));
    assert_eq!(config.load.context_size, Some(ContextSize::Tokens(NonZeroU32::new(2048).unwrap())));
    assert_eq!(config.load.gpu_layers, Some(GpuLayers::All));
    assert_eq!(config.load.flash_attention, Some(FlashAttention::On));
    assert_eq!(config.load.cache_type_k.as_deref(), Some("q8_0"));
    assert_eq!(config.load.threads, None);
    assert_eq!(config.load.tensor_split, [3.0, 1.0]);
    assert_eq!(config.load.options.parallel, NonZeroU32::new(4));
    assert_eq!(config.load.options.swa_full, Some(true));
    assert_eq!(config.load.options.context_shift, Some(false));
    assert_eq!(config.defaults.temperature, Some(0.25));
    assert_eq!(config.defaults.top_k, Some(0));
    assert_eq!(config.defaults.seed, None);
    assert_eq!(config.defaults.repeat_last_n, Some(TokenCount::All));
    assert_eq!(config.defaults.n_keep, Some(TokenCount::Tokens(8)));
    assert_eq!(config.defaults.mirostat, Some(Mirostat { version: MirostatVersion::V2, eta: 0.1, tau: 4.0 }));
    assert_eq!(config.defaults.logit_bias["42"], -1.5);
    assert_eq!(config.output.stopwords, ["</s>", "7"]);
    assert_eq!(config.template.chat.as_deref(), Some("{{.Input}}\n"));
    assert_eq!(config.template.roles["user"], "USER:");
    assert_eq!(config.residency, Residency::Pinned);
    assert_eq!(config.usecases, BTreeSet::from([Usecase::Chat, Usecase::Tokenize]));
}

#[test]
fn nothing_is_a_model_too() {
    let config = config("{}").unwrap();
    assert_eq!(config.name, "fallback");
    assert_eq!(config.defaults, RequestDefaults::default());
    assert_eq!(config.load, LoadConfig::default());
    assert!(config.suits(Usecase::Chat));
}

#[test]
fn usecases_are_guessed() {
    let cases: [(&str, &[Usecase]); 8] = [
        ("backend: sentencetransformers", &[Usecase::Embeddings]),
        ("backend: huggingface-embeddings", &[Usecase::Embeddings]),
        ("backend: rerankers", &[Usecase::Rerank]),
        ("embeddings: true", &[Usecase::Embeddings, Usecase::Tokenize]),
        ("backend: bert-embeddings", &[Usecase::Embeddings, Usecase::Tokenize]),
        ("reranking: true", &[Usecase::Rerank, Usecase::Tokenize]),
        ("known_usecases: [FLAG_COMPLETION, unheard_of]", &[Usecase::Completion, Usecase::Tokenize]),
        ("backend: whisper\nknown_usecases: [transcript]", &[Usecase::Transcript]),
    ];
    for (text, expected) in cases {
        assert_eq!(config(text).unwrap().usecases, expected.iter().copied().collect(), "{text}");
    }
}

#[test]
fn bad_values_name_their_key() {
    let cases = [
        ("parameters: {temperature: -1}", "parameters.temperature"),
        ("parameters: {top_p: 1.5}", "parameters.top_p"),
        ("parameters: {presence_penalty: 3}", "parameters.presence_penalty"),
        ("parameters: {max_tokens: -5}", "parameters.max_tokens"),
        ("parameters: {model: /etc/passwd}", "parameters.model"),
        ("parameters: {model: ../x.gguf}", "parameters.model"),
        ("parameters: {model: 'huggingface://owner'}", "parameters.model"),
        ("parameters: {n_keep: -2}", "parameters.n_keep"),
        ("name: ../a", "name"),
        ("alias: /a", "alias"),
        ("mmproj: ../a", "mmproj"),
        ("draft_model: /a", "draft_model"),
        ("backend: 'a b'", "backend"),
        ("context_size: -2", "context_size"),
        ("context_size: 99999999999", "context_size"),
        ("mirostat: 3", "mirostat"),
        ("flash_attention: maybe", "flash_attention"),
        ("cache_type_v: q9", "cache_type_v"),
        ("tensor_split: a,b", "tensor_split"),
        ("main_gpu: first", "main_gpu"),
        ("options: ['parallel:many']", "options"),
        ("options: ['swa_full:perhaps']", "options"),
        ("options: ['spec_type:oracle']", "options"),
        ("options: ['spec_model:../a']", "options"),
        ("options: ['spec_p_min:2']", "options"),
        ("n_draft: -1", "n_draft"),
        ("options: ['pooling:none']", "options"),
        ("options: ['pooling:most']", "options"),
        ("options: ['embd_normalize:1']", "options"),
        ("options: ['dimensions:0']", "options"),
        ("options: ['precision:int4']", "options"),
        ("parameters: {pooling: most}", "parameters.pooling"),
        ("parameters: {encoding_format: hex}", "parameters.encoding_format"),
    ];
    for (text, key) in cases {
        assert_eq!(config(text).unwrap_err().key, key, "{text}");
    }
}

#[test]
fn loose_spellings_are_understood() {
    let text = "f16: yes\nmmap: 'off'\nthreads: '3'\nname: 123\nflash_attention: on\nparameters: {temperature: '0.5', top_k: 5.0}";
    let config = config(text).unwrap();
    assert_eq!(config.load.mmap, Some(false));
    assert_eq!(config.load.threads, NonZeroU32::new(3));
    assert_eq!(config.name, "123");
    assert_eq!(config.load.flash_attention, Some(FlashAttention::On));
    assert_eq!((config.defaults.temperature, config.defaults.top_k), (Some(0.5), Some(5)));
}

#[test]
fn not_a_number_is_refused_where_it_stands() {
    for text in ["parameters:\n  temperature: .nan\n", "parameters:\n  temperature: .inf\n"] {
        let error = yaml::parse(text).unwrap_err();
        assert_eq!(error.line, 2, "{error:?}");
    }
}

/// A value for `key` that differs from what holds without it, and what must stand beside it.
fn telling(key: &str) -> (&'static str, &'static str) {
    match key {
        "name" | "alias" | "backend" | "description" | "usage" | "system_prompt" | "grammar" | "reasoning_effort" => {
            ("word", "")
        }
        "grammar_file" => ("g.gbnf", ""),
        "embeddings" | "reranking" => ("true", ""),
        "parameters.encoding_format" => ("base64", ""),
        "parameters.pooling" => ("mean", ""),
        "reasoning.disable" | "reasoning.strip_reasoning_only" | "disabled" | "pinned" | "mmlock" => ("true", ""),
        "no_kv_offloading" | "function.grammar.disable" | "function.grammar.parallel_calls" => ("true", ""),
        "mmap" | "template.use_tokenizer_template" | "template.reply_prefix" => ("true", ""),
        "parameters.echo" | "parameters.ignore_eos" | "parameters.translate" => ("true", ""),
        "roles" | "chat_template_kwargs" | "parameters.logit_bias" => ("{'7': 1}", ""),
        "reasoning.tag_pairs" => ("[{start: a, end: b}]", ""),
        "download_files" => ("[{filename: a, uri: 'https://h/a'}]", ""),
        "function.replace_function_results" | "function.replace_llm_results" => ("[{key: a, value: b}]", ""),
        "known_usecases" => ("[rerank]", ""),
        "options" => ("['parallel:2']", ""),
        "overrides" => ("['a.b=int:3']", ""),
        "flash_attention" => ("on", ""),
        "cache_type_k" | "cache_type_v" => ("q8_0", ""),
        "rope_scaling" => ("yarn", ""),
        "lora_adapter" => ("a.gguf", ""),
        "lora_adapters" => ("[a.gguf]", ""),
        "lora_scale" => ("0.5", "lora_adapter: a.gguf"),
        "lora_scales" => ("[0.5]", "lora_adapters: [a.gguf]"),
        "parameters.model" => ("m.gguf", ""),
        "mirostat" => ("2", ""),
        "mirostat_eta" | "mirostat_tau" => ("0.7", "mirostat: 2"),
        "tensor_split" => ("'3,1'", ""),
        "parameters.n" => ("3", ""),
        "parameters.temperature"
        | "parameters.frequency_penalty"
        | "parameters.presence_penalty"
        | "parameters.top_p"
        | "parameters.min_p"
        | "parameters.typical_p" => ("0.5", ""),
        key if key.starts_with("template.") => ("'{{.Input}}'", ""),
        key if key.ends_with("_regex") || key.ends_with("_match") || key == "function.capture_llm_results" => {
            ("['(a)']", "")
        }
        "known_input_modalities"
        | "known_output_modalities"
        | "stopwords"
        | "cutstrings"
        | "trimspace"
        | "trimsuffix"
        | "concurrency_groups"
        | "reasoning.thinking_start_tokens" => ("[text]", ""),
        _ => ("3", ""),
    }
}

/// A key that counts as one that works is not only read: the configuration is another with it than without it.
#[test]
fn every_key_that_works_changes_the_configuration() {
    let containers: BTreeSet<&str> =
        crate::keys::MODEL_KEYS.iter().filter_map(|(key, _)| key.rsplit_once('.').map(|(above, _)| above)).collect();
    let mut idle = Vec::new();
    let works = crate::keys::MODEL_KEYS.iter().filter(|(_, standing)| *standing == crate::Standing::Works);
    for (key, _) in works.filter(|(key, _)| !containers.contains(key)) {
        let (value, beside) = telling(key);
        let steps: Vec<&str> = key.split('.').collect();
        let (first, inner) = (steps[0], &steps[1..]);
        let nested = inner.iter().rev().fold(value.to_owned(), |inner, step| format!("{{{step}: {inner}}}"));
        let with = config(&format!("{first}: {nested}\n{beside}\n")).unwrap_or_else(|error| panic!("{key}: {error:?}"));
        let without =
            config(if beside.is_empty() { "{}" } else { beside }).unwrap_or_else(|error| panic!("{key}: {error:?}"));
        if with == without {
            idle.push(*key);
        }
    }
    assert_eq!(idle, [""; 0], "these change nothing");
}

#[test]
fn every_option_that_works_changes_the_configuration() {
    let works = crate::keys::LLAMA_OPTIONS.iter().filter(|(_, standing)| *standing == crate::Standing::Works);
    for (option, _) in works {
        let with = |value: &str| config(&format!("options: ['{option}:{value}']"));
        // Counts are no switches, and a switch may be on already.
        let differs = |value: &str| with(value).is_ok_and(|config| config.load != LoadConfig::default());
        assert!(
            ["3", "true", "false", "row", "mean", "2", "none", "0.7"].into_iter().any(differs),
            "{option} changes nothing"
        );
    }
}

#[test]
fn options_of_models_that_hear_are_read_and_checked() {
    let with = |option: &str| config(&format!("backend: whisper\noptions: ['{option}']"));
    for option in crate::keys::HEARING_OPTIONS.iter().map(|(option, _)| option) {
        let differs =
            |value: &str| with(&format!("{option}:{value}")).is_ok_and(|config| config.load != LoadConfig::default());
        assert!(["true", "3", "0.3", "int8", "name"].into_iter().any(differs), "{option} changes nothing");
    }
    for wrong in ["vad_filter:maybe", "vad_threshold:2", "vad_model:", "vad_model:../x", "speech_pad_ms:-1"] {
        assert!(with(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_draft_model_has_keys_of_its_own_and_options() {
    let draft = |text: &str| {
        let load = config(text).unwrap().load;
        let chance = load.options.least_draft_chance;
        (load.draft_model, load.n_draft.map(|n| n.get()), chance, load.options.speculation)
    };
    let small = || Some("small.gguf".to_owned());
    assert_eq!(draft("{draft_model: small.gguf, n_draft: 4}"), (small(), Some(4), None, None));
    let options = "options: ['spec_type:draft', 'spec_model:small.gguf', 'spec_n_max:6', 'spec_p_min:0.7']";
    assert_eq!(draft(options), (small(), Some(6), Some(0.7), Some(true)));
    assert_eq!(draft("n_draft: 0"), (None, None, None, None));
}
