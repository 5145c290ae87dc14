//! Every architecture against the numbers of its reference library: `tests/golden/encoders.py` says how they were made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ingle_engine::{
    EmbedModel, EmbedOptions, EngineError, GpuLayers, Hardware, Interrupt, LoadOptions, Pooling, Precision, Seat,
    Sequence,
};
use rten_gemm::GemmExecutor;
use serde_json::{Value, json};

use super::config::Config;
use super::encoder::Course;
use super::folder::{SentenceFolder, Step};
use super::head::{self, Scorer};
use super::linear::Products;
use super::{estimate, models, step_tokens};
use crate::weights::Weights;

const GOLDEN: &str = include_str!("../../tests/golden/encoders.json");

#[derive(serde::Deserialize)]
pub(super) struct Golden {
    pub(super) config: Value,
    pub(super) tensors: BTreeMap<String, Vec<usize>>,
    pub(super) tokens: Vec<Vec<u32>>,
    /// By sequence, `[n_tokens, n]`.
    #[serde(default)]
    pub(super) hidden: Vec<Vec<f32>>,
    #[serde(default)]
    pub(super) scores: Vec<f32>,
}

pub(super) fn goldens() -> BTreeMap<String, Golden> {
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
pub(super) fn write(golden: &Golden, folder: &Path) {
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

/// A step on so many threads, with so many multiplications in a part.
pub(super) fn on_threads<R>(
    n_threads: usize,
    part: u64,
    work: impl FnOnce(&Course<'_>) -> Result<R, EngineError>,
) -> R {
    let threads = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("threads start");
    let never = || false;
    let (seat, interrupt) = (Seat::new(), Interrupt::new(&never));
    let course = Course { threads: &threads, seat: &seat, interrupt: &interrupt, part };
    work(&course).expect("nobody interrupts it")
}

/// The largest difference.
pub(super) fn error(actual: &[f32], expected: &[f32]) -> f32 {
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
        let run =
            |batch: &[&Sequence], course: &Course<'_>| model.encoder.run(batch, course, |_, hidden| hidden.to_vec());
        for (n_threads, part) in [(1, u64::MAX), (2, u64::MAX), (1, 1), (2, 1)] {
            let hidden = on_threads(n_threads, part, |course| run(&batch, course));
            for (idx, (hidden, expected)) in hidden.iter().zip(&golden.hidden).enumerate() {
                let error = error(hidden, expected);
                assert!(error < 3e-6, "{name}, sequence {idx}: {error}\n{hidden:?}\n{expected:?}");
            }
            let alone = on_threads(n_threads, part, |course| run(&batch[2..], course));
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
        let scorer =
            Scorer::load(&config, &mut weights, n, Products::F32).unwrap_or_else(|error| panic!("{name}: {error}"));
        let pair = |tokens: &Vec<u32>| Sequence { second_from: tokens.len().div_ceil(2), tokens: tokens.clone() };
        let sequences: Vec<Sequence> = golden.tokens.iter().map(pair).collect();
        let batch: Vec<&Sequence> = sequences.iter().collect();
        let score = |gemm: &GemmExecutor, hidden: &[f32]| scorer.score(gemm, hidden, n);
        let scores = on_threads(1, u64::MAX, |course| model.encoder.run(&batch, course, score));
        assert!(error(&scores, &golden.scores) < 3e-6, "{name}: {scores:?} instead of {:?}", golden.scores);
    }
}

/// The cosine of the angle between two vectors.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
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
        let run =
            |batch: &[&Sequence], course: &Course<'_>| model.encoder.run(batch, course, |_, hidden| hidden.to_vec());
        let hidden = on_threads(2, u64::MAX, |course| run(&batch, course));
        for (idx, (hidden, expected)) in hidden.iter().zip(&golden.hidden).enumerate() {
            let cosine = cosine(hidden, expected);
            assert!(cosine >= 0.9999, "{name}, sequence {idx}: {cosine}");
        }
        let alone = on_threads(1, u64::MAX, |course| run(&batch[2..], course));
        assert!(error(&alone[0], &hidden[2]) < 1e-6, "{name}: a batch equals its single texts");
    }
}

/// The folder of all-MiniLM-L6-v2, where it is installed.
pub(super) fn real_model() -> Option<PathBuf> {
    let folder = std::env::var_os("INGLE_TEST_MODELS").map(PathBuf::from);
    let cache = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/ingle/test-models"));
    let folder = folder.or_else(cache).unwrap_or_default().join("all-MiniLM-L6-v2");
    if !folder.join("model.safetensors").is_file() {
        eprintln!("skipped: all-MiniLM-L6-v2 is not installed; `make test` does that");
        return None;
    }
    Some(folder)
}

/// Vectors of these texts in one call.
pub(super) fn vectors_of(model: &EmbedModel, texts: &[String]) -> Vec<Vec<f32>> {
    let sequences = texts.iter().map(|text| model.encoder.encode(text).expect("tokens").sequence).collect();
    model.thread.submit(sequences, None).expect("there is room").wait().expect("vectors").responses
}

/// Texts in several scripts, and a long one.
pub(super) fn texts() -> Vec<String> {
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
    let Some(folder) = real_model() else { return };
    let vectors = |precision: Precision| {
        let options = LoadOptions {
            path: folder.clone(),
            embed: EmbedOptions { precision, ..EmbedOptions::default() },
            ..LoadOptions::default()
        };
        let hardware = Hardware { n_cores: 2, ..Hardware::default() };
        let model = super::load(&options, &hardware).expect("the model loads").embed.expect("it embeds");
        let all = vectors_of(&model, &texts());
        let single = |text: &String| vectors_of(&model, std::slice::from_ref(text)).remove(0);
        let alone = texts().iter().map(single).collect::<Vec<_>>();
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
fn a_step_that_nobody_waits_for_ends_behind_its_layer() {
    let golden = goldens().remove("modernbert").expect("it is there");
    let folder = tempfile::tempdir().expect("a folder");
    write(&golden, folder.path());
    let config = Config::read(folder.path()).expect("a configuration");
    let model =
        models::build(&config, &mut Weights::open(folder.path()).expect("weights"), Products::F32).expect("a model");
    assert_eq!(model.encoder.layers.len(), 4);
    let sequence = Sequence::single(golden.tokens[0].clone());
    let threads = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("threads start");
    for (n_looks, is_whole) in [(0_usize, false), (3, false), (4, true)] {
        let looked = std::cell::Cell::new(0);
        let is_raised = || looked.replace(looked.get() + 1) >= n_looks;
        let (seat, interrupt) = (Seat::new(), Interrupt::new(&is_raised));
        let course = Course { threads: &threads, seat: &seat, interrupt: &interrupt, part: 1 };
        let ran = model.encoder.run(&[&sequence], &course, |_, hidden| hidden.len());
        assert_eq!(ran.is_ok(), is_whole, "{n_looks} layers");
        assert_eq!(looked.get(), (n_looks + 1).min(4));
    }
}

#[test]
fn steps_of_large_models_are_short() {
    // all-MiniLM-L6-v2, BERT's base, and Qwen3 with 0.6 thousand million weights.
    for (work_per_token, n_threads, expected) in
        [(10_600_000, 1, 2048), (85_000_000, 2, 588), (440_000_000, 2, 256), (0, 0, 256)]
    {
        assert_eq!(step_tokens(work_per_token, n_threads), expected);
    }
}

#[test]
fn the_longest_text_is_part_of_the_estimate() {
    let golden = goldens().remove("bert").expect("it is there");
    let folder = tempfile::tempdir().expect("a folder");
    let compute_bytes = |n_positions: usize, context_size: Option<usize>| {
        let mut config = golden.config.clone();
        config["max_position_embeddings"] = n_positions.into();
        write(&Golden { config, ..goldens().remove("bert").expect("it is there") }, folder.path());
        // In a program for GPUs, too.
        let gpu_layers = GpuLayers::Count(0);
        let path = folder.path().to_owned();
        let options = LoadOptions { path, context_size, gpu_layers, ..LoadOptions::default() };
        estimate(&options).expect("a configuration").compute_bytes
    };
    let of_step = compute_bytes(64, None);
    assert_eq!(of_step, 2048 * (8 * 16 + 2 * 24) * 4);
    assert_eq!(compute_bytes(8192, None), 4 * of_step);
    assert_eq!(compute_bytes(8192, Some(512)), of_step);
}

#[test]
fn layers_that_are_not_computed_are_refused() {
    let refused = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut golden = goldens().remove(name).expect("it is there");
        change(&mut golden.config);
        let folder = tempfile::tempdir().expect("a folder");
        write(&golden, folder.path());
        let config = Config::read(folder.path()).expect("a configuration");
        let built = models::build(&config, &mut Weights::open(folder.path()).expect("weights"), Products::F32);
        built.expect_err("it is refused").to_string()
    };
    let error = refused("qwen3", &|config| config["use_sliding_window"] = true.into());
    assert!(error.contains("use_sliding_window"), "{error}");
    let error = refused("qwen3", &|config| config["layer_types"] = json!(["full_attention", "sliding_attention"]));
    assert!(error.contains("use_sliding_window"), "{error}");
}

#[test]
fn nomic_takes_as_many_tokens_as_it_has_positions() {
    let mut golden = goldens().remove("nomic").expect("it is there");
    golden.config["n_positions"] = 48.into();
    golden.config["max_trained_positions"] = 16.into();
    let folder = tempfile::tempdir().expect("a folder");
    write(&golden, folder.path());
    let config = Config::read(folder.path()).expect("a configuration");
    let model =
        models::build(&config, &mut Weights::open(folder.path()).expect("weights"), Products::F32).expect("a model");
    assert_eq!(model.max_tokens, 48);
}

/// A folder of one module: its configuration, and its tensors filled like those of the models.
fn write_module(folder: &Path, config: Value, tensors: &[(&str, &[usize])]) {
    std::fs::create_dir_all(folder).expect("the folder is writable");
    let tensors = tensors.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
    write(&Golden { config, tensors, tokens: Vec::new(), hidden: Vec::new(), scores: Vec::new() }, folder);
}

/// `Dense` and `LayerNorm` against their definitions in 64 bits.
#[test]
fn modules_behind_pooling_are_what_their_definitions_say() {
    const N: usize = 6;
    const N_OUT: usize = 4;
    let folder = tempfile::tempdir().expect("a folder");
    let modules = json!([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
        {"idx": 3, "name": "3", "path": "3_LayerNorm", "type": "sentence_transformers.models.LayerNorm"},
        {"idx": 4, "name": "4", "path": "4_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]);
    std::fs::write(folder.path().join("modules.json"), modules.to_string()).expect("the folder is writable");
    write_module(&folder.path().join("1_Pooling"), json!({"pooling_mode": "mean"}), &[]);
    let x: Vec<f32> = (0..N).map(|idx| idx as f32 / 3.0 - 0.8).collect();
    let fill = |name: &str, shape: &[usize]| fill(name, shape).into_iter().map(f64::from).collect::<Vec<f64>>();
    let functions: [fn(f64) -> f64; 4] =
        [f64::tanh, |number| number, |number| number.max(0.0), |number| number / (1.0 + (-number).exp())];
    let classes = ["activation.Tanh", "linear.Identity", "activation.ReLU", "activation.SiLU"];
    for (class, function) in classes.into_iter().zip(functions) {
        let has_bias = class != "linear.Identity";
        let class = format!("torch.nn.modules.{class}");
        let config = json!({"in_features": N, "out_features": N_OUT, "bias": has_bias, "activation_function": class});
        let (weight, bias) = (("linear.weight", [N_OUT, N]), ("linear.bias", [N_OUT]));
        let tensors: [(&str, &[usize]); 2] = [(weight.0, &weight.1), (bias.0, &bias.1)];
        write_module(&folder.path().join("2_Dense"), config, &tensors[..1 + usize::from(has_bias)]);
        let norm: [(&str, &[usize]); 2] = [("norm.weight", &[N_OUT]), ("norm.bias", &[N_OUT])];
        write_module(&folder.path().join("3_LayerNorm"), json!({"dimension": N_OUT}), &norm);
        let found = SentenceFolder::read(folder.path()).expect("it is valid");
        assert_eq!((found.poolings.as_slice(), found.steps.len()), (&[Pooling::Mean][..], 3));
        let (transforms, n) = head::load_steps(&found.steps, N, Products::F32).expect("they load");
        assert_eq!(n, N_OUT);
        let actual = head::transform(&transforms, &GemmExecutor::default(), x.clone());

        let (weight, bias) = (fill(weight.0, &weight.1), fill(bias.0, &bias.1));
        let dense = |row: usize| {
            let products = x.iter().zip(&weight[row * N..]).map(|(a, b)| f64::from(*a) * b);
            function(products.sum::<f64>() + if has_bias { bias[row] } else { 0.0 })
        };
        let dense: Vec<f64> = (0..N_OUT).map(dense).collect();
        let mean = dense.iter().sum::<f64>() / N_OUT as f64;
        let variance = dense.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / N_OUT as f64;
        let (scale, shift) = (fill(norm[0].0, norm[0].1), fill(norm[1].0, norm[1].1));
        let normed =
            |(idx, number): (usize, &f64)| (number - mean) / (variance + 1e-5).sqrt() * scale[idx] + shift[idx];
        let normed: Vec<f64> = dense.iter().enumerate().map(normed).collect();
        let length = normed.iter().map(|number| number * number).sum::<f64>().sqrt();
        let expected: Vec<f32> = normed.iter().map(|number| (number / length) as f32).collect();
        assert!(error(&actual, &expected) < 1e-6, "{class}: {actual:?} instead of {expected:?}");
    }
}

#[test]
fn dense_layers_that_do_more_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("2_Dense");
    for (key, value) in [
        ("use_residual", json!(true)),
        ("module_input_name", json!("token_embeddings")),
        ("module_output_name", json!("token_embeddings")),
    ] {
        let mut config = json!({"in_features": 2, "out_features": 2, "bias": false});
        config[key] = value;
        write_module(&path, config, &[("linear.weight", &[2, 2])]);
        let error =
            head::load_steps(&[Step::Dense(path.clone())], 2, Products::F32).expect_err("it is refused").to_string();
        assert!(error.contains("config.json") && error.contains(key), "{error}");
    }
    let plain = json!({"in_features": 2, "out_features": 2, "bias": false, "use_residual": false,
        "module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"});
    write_module(&path, plain, &[("linear.weight", &[2, 2])]);
    assert!(head::load_steps(&[Step::Dense(path)], 2, Products::F32).is_ok());
}

/// The score of one sequence, with another file beside the golden model's own and these further tensors.
fn score_with(name: &str, own: Option<&str>, more: &[(&str, &[usize])]) -> f32 {
    let mut golden = goldens().remove(name).expect("it is there");
    golden.config["sbert_ce_default_activation_function"] = "torch.nn.modules.linear.Identity".into();
    golden.tensors.extend(more.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())));
    let folder = tempfile::tempdir().expect("a folder");
    write(&golden, folder.path());
    if let Some(text) = own {
        std::fs::write(folder.path().join("config_sentence_transformers.json"), text).expect("the folder is writable");
    }
    let config = Config::read(folder.path()).expect("a configuration");
    let mut weights = Weights::open(folder.path()).expect("weights");
    let model = models::build(&config, &mut weights, Products::F32).expect("a model");
    let n = model.encoder.embeddings.n_embd;
    let scorer = Scorer::load(&config, &mut weights, n, Products::F32).expect("a classifier");
    let sequence = Sequence { tokens: golden.tokens[0].clone(), second_from: 4 };
    let score = |gemm: &GemmExecutor, hidden: &[f32]| scorer.score(gemm, hidden, n);
    on_threads(1, u64::MAX, |course| model.encoder.run(&[&sequence], course, score))[0]
}

#[test]
fn the_librarys_own_file_says_what_becomes_of_scores() {
    let plain = score_with("bert-scorer", None, &[]);
    let logistic = score_with("bert-scorer", Some(r#"{"activation_fn": "torch.nn.modules.activation.Sigmoid"}"#), &[]);
    assert!((logistic - 1.0 / (1.0 + (-plain).exp())).abs() < 1e-6, "{logistic} of {plain}");
    let silent = score_with("bert-scorer", Some(r#"{"prompts": {}}"#), &[]);
    assert_eq!(silent, plain, "the older key counts where the file is silent");
}

#[test]
fn the_bias_of_a_heads_norm_is_loaded_where_it_is_there() {
    let without = score_with("modernbert-scorer", None, &[]);
    let with = score_with("modernbert-scorer", None, &[("head.norm.bias", &[16])]);
    // The classifier is linear in what the norm gives.
    let difference: f32 =
        fill("classifier.weight", &[1, 16]).iter().zip(fill("head.norm.bias", &[16])).map(|(a, b)| a * b).sum();
    assert!((with - without - difference).abs() < 1e-5, "{with} - {without} is not {difference}");
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
    let mut weights = Weights::open(folder.path()).expect("weights");
    let error = Scorer::load(&config, &mut weights, 16, Products::F32).expect_err("two labels");
    assert!(error.to_string().contains("it has 2 labels"), "{error}");
}
