//! Every architecture against the numbers of its reference library: `tests/golden/encoders.py` says how they were made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ingle_engine::{EmbedOptions, Hardware, LoadOptions, Precision, Sequence};
use serde_json::Value;

use super::config::Config;
use super::head::Scorer;
use super::linear::Products;
use super::models;
use crate::weights::Weights;

const GOLDEN: &str = include_str!("../../tests/golden/encoders.json");

#[derive(serde::Deserialize)]
struct Golden {
    config: Value,
    tensors: BTreeMap<String, Vec<usize>>,
    tokens: Vec<Vec<u32>>,
    /// By sequence, `[n_tokens, n]`.
    #[serde(default)]
    hidden: Vec<Vec<f32>>,
    #[serde(default)]
    scores: Vec<f32>,
}

fn goldens() -> BTreeMap<String, Golden> {
    serde_json::from_str(GOLDEN).expect("the golden file is valid")
}

/// The script's `fill`.
fn fill(name: &str, shape: &[usize]) -> Vec<f32> {
    let seed = name.bytes().fold(2_166_136_261_u32, |seed, byte| (seed ^ u32::from(byte)).wrapping_mul(16_777_619));
    let is_norm = shape.len() == 1 && name.ends_with("weight");
    let number = |idx: usize| {
        let mut x = (idx as u32).wrapping_mul(2_654_435_761).wrapping_add(seed);
        x ^= x >> 16;
        x = x.wrapping_mul(0x45d_9f3b);
        x ^= x >> 16;
        ((x >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.5 + f32::from(u8::from(is_norm))
    };
    (0..shape.iter().product()).map(number).collect()
}

/// A folder with the model's configuration and weights.
fn write(golden: &Golden, folder: &Path) {
    std::fs::write(folder.join("config.json"), golden.config.to_string()).expect("the folder is writable");
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, shape) in &golden.tensors {
        let from = data.len();
        data.extend(fill(name, shape).into_iter().flat_map(f32::to_le_bytes));
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [from, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    std::fs::write(folder.join("model.safetensors"), file).expect("the folder is writable");
}

fn on_threads<R: Send>(n_threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("threads start").install(work)
}

/// The largest difference.
fn error(actual: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(actual.len(), expected.len());
    actual.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn hidden_states_are_those_of_the_reference_library() {
    for (name, golden) in goldens().into_iter().filter(|(_, golden)| !golden.hidden.is_empty()) {
        let folder = tempfile::tempdir().expect("a folder");
        write(&golden, folder.path());
        let config = Config::read(folder.path()).expect("a configuration");
        let mut weights = Weights::open(folder.path()).expect("weights");
        let model =
            models::build(&config, &mut weights, Products::F32).unwrap_or_else(|error| panic!("{name}: {error}"));
        let sequences: Vec<Sequence> = golden.tokens.iter().cloned().map(Sequence::single).collect();
        let batch: Vec<&Sequence> = sequences.iter().collect();
        for n_threads in [1, 2] {
            let hidden = on_threads(n_threads, || model.encoder.run(&batch, |_, hidden| hidden.to_vec()));
            for (idx, (hidden, expected)) in hidden.iter().zip(&golden.hidden).enumerate() {
                let error = error(hidden, expected);
                assert!(error < 3e-6, "{name}, sequence {idx}: {error}\n{hidden:?}\n{expected:?}");
            }
            let alone = on_threads(n_threads, || model.encoder.run(&batch[2..], |_, hidden| hidden.to_vec()));
            assert!(error(&alone[0], &hidden[2]) < 1e-6, "{name}: a batch equals its single texts");
        }
    }
}

#[test]
fn scores_are_those_of_the_reference_library() {
    for (name, golden) in goldens().into_iter().filter(|(_, golden)| !golden.scores.is_empty()) {
        let folder = tempfile::tempdir().expect("a folder");
        // The library's own scores are taken as they are.
        let mut golden = golden;
        golden.config["sbert_ce_default_activation_function"] = "torch.nn.modules.linear.Identity".into();
        write(&golden, folder.path());
        let config = Config::read(folder.path()).expect("a configuration");
        let mut weights = Weights::open(folder.path()).expect("weights");
        let model =
            models::build(&config, &mut weights, Products::F32).unwrap_or_else(|error| panic!("{name}: {error}"));
        let n = model.encoder.embeddings.n_embd;
        let scorer = Scorer::load(&config, &mut weights, n).unwrap_or_else(|error| panic!("{name}: {error}"));
        let pair = |tokens: &Vec<u32>| Sequence { second_from: tokens.len().div_ceil(2), tokens: tokens.clone() };
        let sequences: Vec<Sequence> = golden.tokens.iter().map(pair).collect();
        let batch: Vec<&Sequence> = sequences.iter().collect();
        let scores = on_threads(1, || model.encoder.run(&batch, |gemm, hidden| scorer.score(gemm, hidden, n)));
        assert!(error(&scores, &golden.scores) < 3e-6, "{name}: {scores:?} instead of {:?}", golden.scores);
    }
}

/// The cosine of the angle between two vectors.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn sixteen_bits_give_the_direction_of_thirty_two() {
    let Ok(products) = Products::of(Precision::Bf16) else { return };
    for (name, golden) in goldens().into_iter().filter(|(_, golden)| !golden.hidden.is_empty()) {
        let folder = tempfile::tempdir().expect("a folder");
        write(&golden, folder.path());
        let config = Config::read(folder.path()).expect("a configuration");
        let mut weights = Weights::open(folder.path()).expect("weights");
        let model = models::build(&config, &mut weights, products).unwrap_or_else(|error| panic!("{name}: {error}"));
        let sequences: Vec<Sequence> = golden.tokens.iter().cloned().map(Sequence::single).collect();
        let batch: Vec<&Sequence> = sequences.iter().collect();
        let hidden = on_threads(2, || model.encoder.run(&batch, |_, hidden| hidden.to_vec()));
        for (idx, (hidden, expected)) in hidden.iter().zip(&golden.hidden).enumerate() {
            let cosine = cosine(hidden, expected);
            assert!(cosine >= 0.9999, "{name}, sequence {idx}: {cosine}");
        }
        let alone = on_threads(1, || model.encoder.run(&batch[2..], |_, hidden| hidden.to_vec()));
        assert!(error(&alone[0], &hidden[2]) < 1e-6, "{name}: a batch equals its single texts");
    }
}

/// Texts in several scripts, and a long one.
fn texts() -> Vec<String> {
    let short = [
        "How do I reset my password?",
        "The weather is nice.",
        "Привет, мир!",
        "你好，世界",
        "naïve café — Zürich",
        "x = foo(bar)[3] != 'y'; // ¿qué?",
        "🙂 emoji",
        "A",
        "The quick brown fox jumps over the lazy dog, and the dog, being lazy, lets it.",
    ];
    let long = (0..300).map(|idx| format!("word{} ", idx * 7919 % 1000)).collect();
    short.into_iter().map(String::from).chain([long]).collect()
}

#[test]
fn sixteen_bits_give_the_direction_of_thirty_two_with_real_weights() {
    let folder = std::env::var_os("INGLE_TEST_MODELS").map(PathBuf::from);
    let cache = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/ingle/test-models"));
    let folder = folder.or_else(cache).unwrap_or_default().join("all-MiniLM-L6-v2");
    if !folder.join("model.safetensors").is_file() {
        eprintln!("skipped: all-MiniLM-L6-v2 is not installed; `make test` does that");
        return;
    }
    let vectors = |precision: Precision| {
        let options = LoadOptions {
            path: folder.clone(),
            embed: EmbedOptions { precision, ..EmbedOptions::default() },
            ..LoadOptions::default()
        };
        let hardware = Hardware { n_cores: 2, ..Hardware::default() };
        let model = super::load(&options, &hardware).expect("the model loads").embed.expect("it embeds");
        let encode = |text: &String| model.encoder.encode(text).expect("tokens").sequence;
        let vectors = |texts: &[String]| {
            let pending = model.thread.submit(texts.iter().map(encode).collect(), None).expect("there is room");
            pending.wait().expect("vectors").responses
        };
        let all = vectors(&texts());
        let alone = texts().iter().map(|text| vectors(std::slice::from_ref(text)).remove(0)).collect::<Vec<_>>();
        (all, alone)
    };
    if Products::of(Precision::Bf16).is_err() {
        return;
    }
    let (expected, _) = vectors(Precision::F32);
    let (found, alone) = vectors(Precision::Bf16);
    for (idx, ((expected, found), alone)) in expected.iter().zip(&found).zip(&alone).enumerate() {
        let cosine = cosine(expected, found);
        eprintln!("text {idx}: cosine {cosine:.7}");
        assert!(cosine >= 0.9999, "text {idx}: {cosine}");
        assert!(error(alone, found) < 1e-6, "text {idx}: a batch equals its single texts");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let goldens = goldens();
    let told = |change: &dyn Fn(&mut Golden), expected: &[&str]| {
        let mut golden: Golden = serde_json::from_str::<BTreeMap<String, Golden>>(GOLDEN)
            .expect("the golden file is valid")
            .remove("bert")
            .expect("bert is there");
        change(&mut golden);
        let folder = tempfile::tempdir().expect("a folder");
        write(&golden, folder.path());
        let config = Config::read(folder.path()).expect("a configuration");
        let mut weights = Weights::open(folder.path()).expect("weights");
        let error = models::build(&config, &mut weights, Products::F32).expect_err("it does not fit").to_string();
        for word in expected {
            assert!(error.contains(word), "{word} is missing in: {error}");
        }
    };
    told(&|golden| golden.config["hidden_size"] = 32.into(), &["word_embeddings", "[32, 16]", "[32, 32]"]);
    told(&|golden| golden.config["num_hidden_layers"] = 3.into(), &["encoder.layer.2.", "missing"]);
    told(&|golden| golden.config["num_attention_heads"] = 3.into(), &["config.json", "num_attention_heads 3"]);
    told(&|golden| golden.config["num_attention_heads"] = 0.into(), &["config.json", "num_attention_heads is 0"]);
    told(&|golden| golden.config["vocab_size"] = "many".into(), &["vocab_size is \"many\""]);
    told(&|golden| golden.config["model_type"] = "poem".into(), &["config.json", "\"poem\"", "modernbert"]);
    told(&|golden| golden.config["model_type"] = "llama".into(), &["GGUF"]);
    told(&|golden| golden.config["hidden_act"] = "sine".into(), &["hidden_act \"sine\""]);
    let folder = tempfile::tempdir().expect("a folder");
    let config = serde_json::json!({"model_type": "bert", "num_labels": 3});
    std::fs::write(folder.path().join("config.json"), config.to_string()).expect("the folder is writable");
    write(&goldens["bert-scorer"], folder.path());
    let mut config = goldens["bert-scorer"].config.clone();
    config["id2label"] = serde_json::json!({"0": "a", "1": "b"});
    std::fs::write(folder.path().join("config.json"), config.to_string()).expect("the folder is writable");
    let config = Config::read(folder.path()).expect("a configuration");
    let error = Scorer::load(&config, &mut Weights::open(folder.path()).expect("weights"), 16).expect_err("two labels");
    assert!(error.to_string().contains("it has 2 labels"), "{error}");
}
