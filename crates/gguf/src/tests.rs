//! Tests against written files, against damaged ones and, where there are any, against real models.

use std::time::{Duration, Instant};

use crate::corpus::mutations;
use crate::writer::{Writer, tiny_bert, tiny_llama};
use crate::{Array, FileKind, GgmlType, GgufError, Header, ModelInfo, ShardName, Value, Warning, sibling_names};

fn validate(writer: &Writer) -> Result<ModelInfo, GgufError> {
    let bytes = writer.bytes();
    Header::from_bytes(&bytes, bytes.len() as u64)?.validate()
}

/// The message with which `change` makes the tiny model be refused.
fn refusal(change: impl FnOnce(&mut Writer)) -> String {
    let mut writer = tiny_llama();
    change(&mut writer);
    match validate(&writer) {
        Ok(_) => "accepted".into(),
        Err(error) => error.to_string(),
    }
}

fn text(text: &str) -> Value {
    Value::Str(text.into())
}

fn strings(texts: &[&str]) -> Value {
    Value::Array(Array::Str(texts.iter().collect()))
}

#[test]
fn tiny_model_is_described() {
    let info = validate(&tiny_llama()).unwrap();
    assert_eq!(info.kind, FileKind::Model);
    assert_eq!(info.architecture.as_deref(), Some("llama"));
    assert_eq!((info.n_layers, info.n_embd, info.n_ctx_train, info.n_vocab), (2, 32, 64, 291));
    assert_eq!((info.n_head_kv.as_slice(), info.head_dim_k, info.head_dim_v), (&[2, 2][..], 8, 8));
    assert_eq!(info.file_type.unwrap().name(), Some("Q4_K - Medium"));
    assert_eq!(info.file_type.unwrap().to_string(), "Q4_K_M");
    assert_eq!((info.special_tokens.bos, info.special_tokens.eos), (Some(1), Some(2)));
    assert_eq!(info.weight_bytes, info.input_bytes + info.output_bytes + info.layer_bytes.iter().sum::<u64>());
    assert!(info.is_output_tied && info.is_causal && !info.is_recurrent && info.warnings.is_empty());
    // 2 layers of (2 heads of 8 keys and as many values) in f16.
    assert_eq!(info.kv_cache_bytes(10, GgmlType::F16, GgmlType::F16), 10 * 2 * (16 + 16) * 2);
    assert_eq!(info.kv_bytes_per_token(GgmlType::F32, GgmlType::F16), 2 * (16 * 4 + 16 * 2));
}

#[test]
fn a_classifier_is_found_where_its_architecture_has_it() {
    let has = |writer: &Writer| validate(writer).unwrap().has_classifier;
    assert!(!has(&tiny_llama()));
    assert!(has(&tiny_bert()));
    assert!(!has(tiny_bert().without(|name| name.starts_with("cls.output"))));
    // Two layers of 4 · 16² + 2 · 16 · 24 weights, their biases and norms.
    let info = validate(&tiny_bert()).unwrap();
    assert_eq!(info.layer_params(), 2 * (4 * 16 * 16 + 2 * 16 * 24 + 4 * 16 + 24 + 16 + 4 * 16));
}

#[test]
fn accepted_variations() {
    let accept = |change: fn(&mut Writer)| assert_eq!(refusal(change), "accepted");
    accept(|writer| writer.version = 2);
    accept(|writer| writer.set("general.alignment", Value::U32(64)).alignment = 64);
    accept(|writer| _ = writer.set("llama.attention.head_count_kv", Value::Array(Array::U32(vec![2, 2]))));
    accept(|writer| _ = writer.set("llama.attention.head_count_kv", Value::Array(Array::I32(vec![1, 0]))));
    accept(|writer| _ = writer.set("llama.rope.scaling.type", text("yarn")));
    accept(|writer| _ = writer.set("tokenizer.ggml.bos_token_id", Value::U32(291)));
    accept(|writer| _ = writer.set("general.name", Value::U32(7)));
    accept(|writer| _ = writer.tensor("output.weight", &[32, 291], GgmlType::Q8_0));
}

/// A change of the tiny model and what the refusal says.
type Case = (fn(&mut Writer), &'static str);

const REFUSED: &[Case] = &[
    (|writer| writer.version = 1, "version 1 is not supported (version 1 was given up"),
    (|writer| writer.version = 3 << 24, "a big-endian file"),
    (|writer| writer.version = 4, "version 4 is not supported"),
    (|writer| _ = writer.push("llama.block_count", Value::U32(2)), "\"llama.block_count\" occurs twice"),
    (|writer| _ = writer.set("general.alignment", Value::U32(48)), "not a power of two"),
    (|writer| _ = writer.set("general.alignment", Value::U64(32)), "is of type u64"),
    (|writer| writer.set("general.alignment", Value::U32(8)).alignment = 8, "cannot be memory-mapped"),
    (|writer| _ = writer.set("general.alignment", Value::U32(64)), "at offset"),
    (|writer| _ = writer.unset("general.architecture"), "\"general.architecture\" is missing"),
    (|writer| _ = writer.unset("llama.embedding_length"), "\"llama.embedding_length\" is missing"),
    (|writer| _ = writer.set("llama.block_count", Value::U32(100_000)), "must be in 1..=512"),
    (|writer| _ = writer.set("llama.block_count", Value::U32(0)), "must be in 1..=512"),
    (|writer| _ = writer.set("llama.block_count", text("two")), "is of type string"),
    (|writer| _ = writer.set("llama.nextn_predict_layers", Value::U32(3)), "at most 2"),
    (|writer| _ = writer.set("llama.context_length", Value::U32(0)), "llama.context_length"),
    (|writer| _ = writer.set("llama.expert_count", Value::U32(2000)), "at most 1024"),
    (|writer| _ = writer.set("llama.expert_count", Value::U32(8)), "between 1 and the 8 experts"),
    (|writer| _ = writer.set("llama.expert_used_count", Value::U32(2)), "absent without experts"),
    (|writer| _ = writer.set("llama.expert_group_count", Value::U32(2)), "expert_group_count"),
    (|writer| _ = writer.set("llama.attention.head_count_kv", Value::U32(3)), "divisor of the 4 attention"),
    (|writer| _ = writer.set("llama.attention.head_count", Value::U32(0)), "at least 1 in a model with"),
    (
        |writer| _ = writer.set("llama.attention.head_count_kv", Value::Array(Array::U32(vec![2; 3]))),
        "one for each layer",
    ),
    (|writer| _ = writer.set("llama.attention.value_length", Value::U32(16)), "the key length 8"),
    (|writer| _ = writer.set("llama.attention.key_length", Value::U32(0)), "at least 1"),
    (|writer| _ = writer.set("llama.rope.dimension_count", Value::U32(4)), "the head size 8"),
    (|writer| _ = writer.set("llama.rope.dimension_count", Value::U32(7)), "even and at most"),
    (|writer| _ = writer.set("llama.rope.scaling.type", text("su")), "none, linear, yarn or longrope"),
    (|writer| _ = writer.set("llama.rope.freq_base", Value::F32(f32::NAN)), "must be finite"),
    (|writer| _ = writer.set("llama.attention.layer_norm_rms_epsilon", Value::F32(-1.0)), "must be not negative"),
    (|writer| _ = writer.set("llama.pooling_type", Value::U32(9)), "at most 4"),
    (|writer| _ = writer.set("llama.expert_gating_func", Value::U32(9)), "at most 4"),
    (|writer| _ = writer.set("split.no", Value::U32(1)), "u16 is needed"),
    (|writer| _ = writer.set("split.no", Value::U16(3)).set("split.count", Value::U16(2)), "split.count"),
    (|writer| _ = writer.unset("tokenizer.ggml.model"), "\"tokenizer.ggml.model\" is missing"),
    (|writer| _ = writer.set("tokenizer.ggml.tokens", strings(&["a", "b", "a"])), "token \"a\" occurs twice"),
    (|writer| _ = writer.set("tokenizer.ggml.tokens", strings(&["", "[EMPTY_0]"])), "occurs twice"),
    (|writer| _ = writer.set("tokenizer.ggml.tokens", strings(&[])), "it has no tokens"),
    (|writer| _ = writer.set("tokenizer.ggml.tokens", Value::Array(Array::U8(vec![1]))), "and not strings"),
    (|writer| _ = writer.set("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0]))), "1 entries for 291"),
    (|writer| _ = writer.set("tokenizer.ggml.token_type", Value::Array(Array::F32(vec![0.0; 291]))), "holds f32"),
    (|writer| _ = writer.set("tokenizer.ggml.merges", Value::Array(Array::U8(vec![]))), "holds u8"),
    (
        |writer| {
            writer.set("tokenizer.ggml.model", text("gpt2")).set("tokenizer.ggml.tokens", strings(&["a", "b"]));
            writer.set("tokenizer.ggml.add_bos_token", Value::Bool(true)).unset("tokenizer.ggml.bos_token_id");
        },
        "adds a bos token",
    ),
    (
        |writer| {
            writer.set("tokenizer.ggml.model", text("rwkv")).set("tokenizer.ggml.tokens", strings(&["a", "\\nb"]));
        },
        "byte 0x0a begins tokens",
    ),
    (
        |writer| {
            writer.set("tokenizer.ggml.model", text("none")).set("llama.vocab_size", Value::U32(u32::MAX));
        },
        "without a vocabulary",
    ),
    (|writer| _ = writer.tensor("output_norm.weight", &[32], GgmlType::F16), "f32 is needed there"),
    (|writer| _ = writer.tensor("output_norm.weight", &[32], GgmlType::I32), "has type i32"),
    (|writer| _ = writer.tensor("blk.1.ffn_down.weight", &[64, 32], GgmlType::I32), "has type i32"),
    (|writer| _ = writer.tensor("blk.1.ffn_down.weight", &[64, 32], GgmlType::Q8_1), "has type q8_1"),
    (|writer| _ = writer.tensor("blk.1.ffn_down.weight", &[64, 0], GgmlType::F32), "has a zero"),
    (|writer| _ = writer.tensor("blk.1.ffn_up.weight", &[33, 64], GgmlType::Q4_0), "no multiple of the 32"),
    (|writer| _ = writer.tensor(&"n".repeat(64), &[1], GgmlType::F32), "limit of 63"),
    (|writer| _ = writer.tensor("five", &[1; 5], GgmlType::F32), "5 dimensions"),
];

#[test]
fn refused_variations() {
    for (index, (change, expected)) in REFUSED.iter().enumerate() {
        let message = refusal(change);
        assert!(message.contains(expected), "case {index}: {message:?} lacks {expected:?}");
    }
}

#[test]
fn truncated_files_name_both_numbers() {
    let bytes = tiny_llama().bytes();
    let header = Header::from_bytes(&bytes, bytes.len() as u64 - 1).unwrap();
    let GgufError::Truncated { needed_bytes, file_bytes } = header.validate().unwrap_err() else {
        panic!("other error")
    };
    assert_eq!((needed_bytes, file_bytes), (bytes.len() as u64, bytes.len() as u64 - 1));
    for len in 0..header.data_offset as usize - 32 {
        let error = Header::from_bytes(&bytes[..len], len as u64).unwrap_err();
        let is_expected = matches!(error, GgufError::HeaderTruncated { .. } | GgufError::NotGguf { .. });
        assert!(is_expected, "{len} bytes: {error}");
        // A reader that lies about the length meets the end of the data instead.
        assert!(Header::from_bytes(&bytes[..len], 1 << 40).is_err());
    }
}

#[test]
fn other_kinds_of_files() {
    let kind = |change: fn(&mut Writer)| {
        let mut writer = tiny_llama();
        change(&mut writer);
        validate(&writer).map(|info| info.kind).map_err(|error| error.to_string())
    };
    assert_eq!(kind(|writer| _ = writer.set("general.type", text("mmproj"))), Ok(FileKind::Projector));
    assert_eq!(kind(|writer| _ = writer.set("general.architecture", text("clip"))), Ok(FileKind::Projector));
    assert_eq!(kind(|writer| _ = writer.set("general.type", text("imatrix"))), Ok(FileKind::Other));
    let adapter = kind(|writer| _ = writer.set("general.type", text("adapter")).set("adapter.type", text("lora")));
    assert_eq!(adapter, Ok(FileKind::Adapter));
    let shard = |writer: &mut Writer| {
        writer.unset("general.architecture").set("split.no", Value::U16(1)).set("split.count", Value::U16(2));
    };
    assert_eq!(kind(shard), Ok(FileKind::Shard));
    let broken = kind(|writer| {
        writer.set("general.architecture", text("clip")).set("clip.vision.patch_size", Value::U32(0));
    });
    assert!(broken.unwrap_err().contains("clip.vision.patch_size"));
    let mistyped = kind(|writer| {
        writer.set("general.architecture", text("clip")).set("clip.vision.image_size", Value::I32(224));
    });
    assert!(mistyped.unwrap_err().contains("u32 is needed"));
}

#[test]
fn shards_are_summed() {
    let mut first = tiny_llama();
    first.set("split.no", Value::U16(0)).set("split.count", Value::U16(2));
    let mut second = Writer::default();
    second.set("split.no", Value::U16(1)).set("split.count", Value::U16(2));
    second.tensor("output.weight", &[32, 291], GgmlType::F16);
    let [first, second] = [first, second].map(|writer| {
        let bytes = writer.bytes();
        Header::from_bytes(&bytes, bytes.len() as u64).unwrap()
    });
    let alone = validate(&tiny_llama()).unwrap();
    let both = crate::validate_shards(&first, std::slice::from_ref(&second)).unwrap();
    assert_eq!(both.weight_bytes, alone.weight_bytes + 32 * 291 * 2);
    assert_eq!((both.output_bytes, both.is_output_tied), (32 * 291 * 2, false));
    assert!(matches!(crate::validate_shards(&first, &[]), Err(GgufError::Shards { .. })));
    assert!(matches!(crate::validate_shards(&first, std::slice::from_ref(&first)), Err(GgufError::Shards { .. })));
}

#[test]
fn sliding_windows_and_recurrent_layers() {
    let info = |change: fn(&mut Writer)| {
        let mut writer = tiny_llama();
        for (key, value) in [("context_length", 64), ("embedding_length", 32), ("block_count", 2)] {
            ["gemma3", "qwen3next", "mamba"]
                .iter()
                .for_each(|arch| _ = writer.set(&format!("{arch}.{key}"), Value::U32(value)));
        }
        writer.set("gemma3.attention.head_count", Value::U32(4)).set("qwen3next.attention.head_count", Value::U32(4));
        change(&mut writer);
        validate(&writer)
    };
    let gemma = info(|writer| {
        writer.set("general.architecture", text("gemma3")).set("gemma3.attention.sliding_window", Value::U32(16));
        writer.set("gemma3.attention.sliding_window_pattern", Value::Array(Array::Bool(vec![true, false])));
    });
    let gemma = gemma.unwrap();
    assert_eq!(gemma.sliding_window, Some(16));
    let (whole, cut) = (gemma.kv_cache_bytes(64, GgmlType::F16, GgmlType::F16), 64 * 64 * 2 + 16 * 64 * 2);
    assert_eq!((whole, gemma.windowed_kv_cache_bytes(64, 16, GgmlType::F16, GgmlType::F16)), (2 * 64 * 64 * 2, cut));
    let no_layer = info(|writer| {
        writer.set("general.architecture", text("gemma3")).set("gemma3.attention.sliding_window", Value::U32(16));
        writer.set("gemma3.attention.sliding_window_pattern", Value::U32(1));
    });
    assert!(no_layer.unwrap_err().to_string().contains("gives some layer the sliding window"));
    let hybrid = info(|writer| {
        writer.set("general.architecture", text("qwen3next"));
        writer.set("qwen3next.full_attention_interval", Value::U32(2)).set("qwen3next.ssm.state_size", Value::U32(4));
        writer.set("qwen3next.ssm.inner_size", Value::U32(8));
    });
    let hybrid = hybrid.unwrap();
    assert!(hybrid.is_hybrid);
    assert_eq!(hybrid.kv_bytes_per_token(GgmlType::F16, GgmlType::F16), 64 * 2);
    assert_eq!(hybrid.recurrent_bytes(3), 3 * 4 * 4 * 8);
    let zero = info(|writer| {
        writer.set("general.architecture", text("qwen3next"));
        writer.set("qwen3next.full_attention_interval", Value::U32(0));
    });
    assert!(zero.unwrap_err().to_string().contains("full_attention_interval"));
    let mamba = info(|writer| {
        _ = writer.set("general.architecture", text("mamba")).set("mamba.ssm.inner_size", Value::U32(64))
    });
    assert!(mamba.is_ok_and(|info| info.is_recurrent && info.kv_cache_bytes(9, GgmlType::F16, GgmlType::F16) == 0));
}

#[test]
fn warnings_and_templates() {
    let mut writer = tiny_llama();
    writer.set("tokenizer.chat_template.tool_use", text("tools"));
    writer.set("tokenizer.ggml.padding_token_id", Value::U32(u32::MAX));
    writer.set("tokenizer.ggml.tokens", strings(&["<unk>", "<s>", "</s>"]));
    let info = validate(&writer).unwrap();
    assert_eq!(info.named_templates, [("tool_use".to_owned(), "tools".to_owned())]);
    assert_eq!(info.chat_template.as_deref(), Some("{{ messages[0].content }}"));
    assert_eq!(info.special_tokens.padding, None);
    assert_eq!(info.warnings[1], Warning::MissingByteTokens { missing: 256 });
    assert!(info.warnings[0].to_string().contains("padding_token_id is 4294967295"));
}

#[test]
fn shard_names() {
    let shard = ShardName::parse("dir/model-Q4-00002-of-00003.gguf").unwrap();
    assert_eq!((shard.prefix.as_str(), shard.index, shard.count), ("dir/model-Q4", 1, 3));
    let names = ["x-00001-of-00003.gguf", "x-00002-of-00003.gguf", "x-00003-of-00003.gguf"];
    assert_eq!(sibling_names("x-00001-of-00003.gguf"), names);
    for name in ["x.gguf", "x-00004-of-00003.gguf", "x-00000-of-00003.gguf", "x-1-of-3.gguf", "x-00001-of-00003.bin"] {
        assert_eq!(sibling_names(name), [name]);
    }
}

#[test]
fn damaged_files_never_panic() {
    let original = tiny_llama().bytes();
    let start = Instant::now();
    let (mut n_files, mut n_refused, mut slowest) = (0, 0, Duration::ZERO);
    for seed in 0..3 {
        for (label, bytes) in mutations(&original, seed, 4000) {
            let begin = Instant::now();
            let result = Header::from_bytes(&bytes, bytes.len() as u64).and_then(|header| header.validate());
            slowest = slowest.max(begin.elapsed());
            n_files += 1;
            n_refused += usize::from(result.is_err());
            assert!(result.is_err() || !label.contains("truncated"), "{label} was accepted");
        }
    }
    eprintln!("{n_files} files, {n_refused} refused, {:?}, slowest {slowest:?}", start.elapsed());
    assert!(n_refused * 2 > n_files, "only {n_refused} of {n_files} refused");
}

#[test]
fn corpus_is_reproducible_and_varied() {
    let original = tiny_llama().bytes();
    let files = |seed| mutations(&original, seed, 300).collect::<Vec<_>>();
    assert_eq!(files(1), files(1));
    assert_ne!(files(1), files(2));
    let changed = files(1).iter().filter(|(_, bytes)| *bytes != original).count();
    assert!(changed > 290, "only {changed} of 300 differ from the original");
    for kind in ["truncated", "version", "twice", "removed", "elements", "becomes", "dimension", "noise"] {
        assert!(files(1).iter().any(|(label, _)| label.contains(kind)), "no file with {kind:?}");
    }
}

/// Set `INGLE_TEST_MODELS` to a folder with `*.gguf` files.
#[test]
fn real_models() {
    let Some(folder) = std::env::var_os("INGLE_TEST_MODELS") else {
        return eprintln!("skipped: INGLE_TEST_MODELS names no folder");
    };
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.extension().is_none_or(|extension| extension != "gguf") {
            continue;
        }
        let mut file = std::fs::File::open(&entry).unwrap();
        let file_bytes = file.metadata().unwrap().len();
        let start = Instant::now();
        let header = Header::read(&mut file, file_bytes).unwrap();
        let read_time = start.elapsed();
        let info = header.validate().unwrap();
        eprintln!(
            "{}: read {read_time:?}, with validation {:?}, {}",
            entry.display(),
            start.elapsed(),
            header.tensors.len()
        );
        assert!(info.weight_bytes < file_bytes && info.n_vocab > 0);
        assert!(header.clone().with_length(file_bytes / 2).validate().is_err());
    }
}

impl Header {
    fn with_length(mut self, file_bytes: u64) -> Self {
        self.file_bytes = file_bytes;
        self
    }
}
