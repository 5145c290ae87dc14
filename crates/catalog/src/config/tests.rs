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
    let cases: [(&str, &[Usecase]); 5] = [
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
