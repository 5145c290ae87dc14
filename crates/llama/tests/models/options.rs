//! Options of a YAML that change what a model computes, seen in its answers. The model is made here.

use std::path::PathBuf;
use std::sync::OnceLock;

use ingle_engine::{AnswerToken, Backend, EngineError, GenerationEvent, LoadOptions, Lora, RopeScaling, Yarn};
use ingle_gguf::writer::{self, Writer};
use ingle_gguf::{GgmlType, Value};
use ingle_llama::LlamaBackend;

use crate::common::{greedy, hardware, text};

fn file(name: &str, writer: &Writer, seed: u32) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("option models");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    let mut bytes = Vec::new();
    let mut state = seed;
    let mut number = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut fill = |_: &str, ggml_type: GgmlType, out: &mut [u8]| match ggml_type {
        GgmlType::F32 => out.chunks_exact_mut(4).for_each(|four| four.copy_from_slice(&number().to_le_bytes())),
        // Blocks of any bytes are numbers; scales stay small where the first two bytes do.
        _ => out.iter_mut().for_each(|byte| *byte = (number() * 32.0 + 40.0) as u8),
    };
    writer.write_to(&mut bytes, &mut fill).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn tiny() -> LoadOptions {
    // Written once: a file must not change while another test has it in memory.
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let path = PATH.get_or_init(|| file("tiny.gguf", &writer::tiny_llama(), 7)).clone();
    LoadOptions { name: "tiny".into(), path, threads: Some(1), parallel: Some(2), ..LoadOptions::default() }
}

/// The tokens of an answer and how likely they were, in parts of a thousand: a tiny model often says the same.
fn answered(options: &LoadOptions) -> Result<Vec<(u32, i64)>, EngineError> {
    let engine = LlamaBackend.load(options, &hardware())?;
    let mut request = greedy((5..45).collect(), 12);
    request.sampling.top_logprobs = Some(1);
    let mut tokens = Vec::new();
    for event in text(&engine).submit(request)? {
        if let GenerationEvent::Piece(piece) = event? {
            let thousandths = |logprob: f32| (f64::from(logprob).exp() * 1000.0).round() as i64;
            let likely = |token: &AnswerToken| token.logprob.as_ref().map_or(0, |logprob| thousandths(logprob.logprob));
            tokens.extend(piece.tokens.iter().map(|token| (token.id, likely(token))));
        }
    }
    Ok(tokens)
}

fn adapter(rank: u64) -> Writer {
    let mut writer = Writer::default();
    for (key, value) in [
        ("general.architecture", Value::Str("llama".into())),
        ("general.type", Value::Str("adapter".into())),
        ("adapter.type", Value::Str("lora".into())),
        ("adapter.lora.alpha", Value::F32(64.0)),
    ] {
        writer.set(key, value);
    }
    for layer in 0..2 {
        writer.tensor(&format!("blk.{layer}.ffn_down.weight.lora_a"), &[64, rank], GgmlType::F32);
        writer.tensor(&format!("blk.{layer}.ffn_down.weight.lora_b"), &[rank, 32], GgmlType::F32);
    }
    writer
}

#[test]
fn adapters_change_answers_by_their_weight() {
    let plain = answered(&tiny()).unwrap();
    let path = file("adapter.gguf", &adapter(4), 11);
    let with = |scale| LoadOptions { loras: vec![Lora { path: path.clone(), scale }], ..tiny() };
    assert_eq!(answered(&with(0.0)).unwrap(), plain, "no weight");
    assert_ne!(answered(&with(1.0)).unwrap(), plain, "weight 1");
    let bytes = |options: &LoadOptions| LlamaBackend.estimate(options).unwrap().weight_bytes;
    let own = std::fs::metadata(&path).unwrap().len();
    assert_eq!(bytes(&with(1.0)), bytes(&tiny()) + own);
}

#[test]
fn files_that_are_no_adapters_are_refused() {
    let missing = Lora { path: "no such adapter.gguf".into(), scale: 1.0 };
    let model = Lora { path: tiny().path, scale: 1.0 };
    let mut other = adapter(4);
    other.set("general.architecture", Value::Str("gemma3".into()));
    let other = Lora { path: file("other.gguf", &other, 1), scale: 1.0 };
    for (lora, expected) in [(missing, "cannot be read"), (model, "not a LoRA adapter"), (other, "refused the adapter")]
    {
        let error = answered(&LoadOptions { loras: vec![lora.clone()], ..tiny() }).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains(&*lora.path.to_string_lossy()), "{error}");
    }
}

#[test]
fn rotary_options_change_answers() {
    let plain = answered(&tiny()).unwrap();
    let stretched = |options: LoadOptions| assert_ne!(answered(&options).unwrap(), plain, "{options:?}");
    stretched(LoadOptions { rope_freq_base: Some(100.0), ..tiny() });
    stretched(LoadOptions { rope_freq_scale: Some(0.1), rope_scaling: Some(RopeScaling::Linear), ..tiny() });
    let yarn = Yarn { ext_factor: Some(1.0), attn_factor: Some(4.0), beta_fast: Some(32.0), beta_slow: Some(1.0) };
    stretched(LoadOptions { rope_scaling: Some(RopeScaling::Yarn), rope_freq_scale: Some(0.1), yarn, ..tiny() });
    assert_eq!(answered(&LoadOptions { rope_scaling: Some(RopeScaling::None), ..tiny() }).unwrap(), plain);
}

#[test]
fn values_of_the_header_can_be_replaced() {
    let plain = answered(&tiny()).unwrap();
    let with = |line: &str| answered(&LoadOptions { header_overrides: vec![line.into()], ..tiny() });
    assert_ne!(with("llama.rope.freq_base=float:50").unwrap(), plain);
    assert_eq!(with("general.name=str:Other").unwrap(), plain);
    let error = with("llama.rope.freq_base:50").unwrap_err().to_string();
    assert!(error.contains("overrides") && error.contains("key=type:value"), "{error}");
}

#[test]
fn sizes_and_threads_do_not_change_answers() {
    let plain = answered(&tiny()).unwrap();
    for options in [
        LoadOptions { physical_batch: Some(8), ..tiny() },
        LoadOptions { prompt_threads: Some(2), ..tiny() },
        LoadOptions { threads: Some(2), prompt_threads: Some(1), ..tiny() },
        LoadOptions { check_tensors: true, ..tiny() },
        LoadOptions { no_kv_offload: true, ..tiny() },
        LoadOptions { mmap: Some(false), ..tiny() },
    ] {
        assert_eq!(answered(&options).unwrap(), plain, "{options:?}");
    }
    let trained = LlamaBackend.estimate(&LoadOptions { context_size: Some(usize::MAX), ..tiny() }).unwrap();
    let same = LlamaBackend.estimate(&LoadOptions { context_size: Some(64), ..tiny() }).unwrap();
    assert_eq!(trained, same, "-1 is the trained length");
    assert!(answered(&LoadOptions { physical_batch: Some(0), ..tiny() }).unwrap_err().to_string().contains("n_ubatch"));
}
