//! The device path, on the CPU, against the numbers of the reference libraries and against the CPU's own path.

use std::collections::BTreeMap;

use ingle_engine::{EmbedOptions, Hardware, Interrupt, LoadOptions, Pooling, Precision, Sequence};

use super::*;
use crate::device::Place;
use crate::embed::config::Config;
use crate::embed::head::{self, Scorer};
use crate::embed::linear::Products;
use crate::embed::models;
use crate::embed::tests::{Golden, cosine, error, goldens, on_threads, real_model, texts, vectors_of, write};
use crate::embed::{Job, load_embedder};
use crate::weights::Weights;

/// So little at once that every text is looked at in several blocks, also those of groups that are filled up.
const NARROW: Limits = Limits { scores: 300, least_queries: 2, near_queries: 3 };

fn host(golden: &Golden, products: Products) -> (Config, Weights, encoder::Encoder) {
    let folder = tempfile::tempdir().expect("a folder");
    write(golden, folder.path());
    let config = Config::read(folder.path()).expect("a configuration");
    let mut weights = Weights::open(folder.path()).expect("weights");
    let encoder = models::build(&config, &mut weights, products).expect("a model").encoder;
    (config, weights, encoder)
}

fn on_device(golden: &Golden, precision: Precision, limits: Limits) -> Encoder {
    let (_, _, encoder) = host(golden, Products::Elsewhere);
    let mut encoder = Encoder::new(encoder, &Device::Cpu, dtype(precision)).expect("it fits");
    encoder.views.limits = limits;
    encoder
}

/// Hidden states of each sequence, `[n_tokens, n_embd]`.
fn hidden(encoder: &Encoder, batch: &[&Sequence]) -> Vec<Vec<f32>> {
    let never = || false;
    let split = |pack: &Pack<'_>, rows: &Tensor| {
        let mut first = 0;
        let of = |sequence: &&Sequence| {
            let n_tokens = sequence.tokens.len();
            first += n_tokens;
            rows.narrow(0, first - n_tokens, n_tokens)?.flatten_all()?.to_vec1()
        };
        pack.sequences.iter().map(of).collect()
    };
    encoder.run(batch, &Interrupt::new(&never), split).expect("it runs")
}

fn sequences(golden: &Golden) -> Vec<Sequence> {
    golden.tokens.iter().cloned().map(Sequence::single).collect()
}

fn with_hidden() -> BTreeMap<String, Golden> {
    goldens().into_iter().filter(|(_, golden)| !golden.hidden.is_empty()).collect()
}

#[test]
fn hidden_states_are_those_of_the_reference_library() {
    for (name, golden) in with_hidden() {
        let sequences = sequences(&golden);
        let batch: Vec<&Sequence> = sequences.iter().collect();
        for limits in [Limits::USUAL, NARROW, Limits { scores: 1, ..NARROW }] {
            let encoder = on_device(&golden, Precision::F32, limits);
            let found = hidden(&encoder, &batch);
            for (idx, (found, expected)) in found.iter().zip(&golden.hidden).enumerate() {
                let error = error(found, expected);
                assert!(error < 5e-6, "{name}, sequence {idx}, {limits:?}: {error}");
                let cosine = cosine(found, expected);
                assert!(cosine > 1.0 - 1e-10, "{name}, sequence {idx}, {limits:?}: {cosine}");
            }
            let alone = hidden(&encoder, &batch[2..3]);
            assert!(error(&alone[0], &found[2]) < 2e-6, "{name}, {limits:?}: a batch equals its single texts");
        }
    }
}

#[test]
fn long_and_short_texts_in_one_step_are_those_of_the_cpu() {
    for (name, golden) in with_hidden() {
        let n_positions =
            ["max_position_embeddings", "n_positions"].iter().filter_map(|key| golden.config[key].as_u64());
        let longest = n_positions.min().expect("it has positions").min(64) as usize - 2;
        let n_vocab = golden.config["vocab_size"].as_u64().expect("a vocabulary") as usize;
        let sequence = |len: usize| Sequence {
            tokens: (0..len).map(|at| (at * 7 % n_vocab) as u32).collect(),
            second_from: len.div_ceil(2),
        };
        let sequences: Vec<Sequence> = [3, longest, 1, longest - 1, 9, longest, 5].map(sequence).into();
        let batch: Vec<&Sequence> = sequences.iter().collect();
        let (_, _, cpu) = host(&golden, Products::F32);
        let expected = on_threads(1, u64::MAX, |course| cpu.run(&batch, course, |_, hidden| hidden.to_vec()));
        for limits in [Limits::USUAL, NARROW, Limits { scores: 4000, ..NARROW }] {
            let found = hidden(&on_device(&golden, Precision::F32, limits), &batch);
            for (idx, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let error = error(found, expected);
                assert!(error < 5e-6, "{name}, sequence {idx}, {limits:?}: {error}");
            }
        }
    }
}

#[test]
fn sixteen_bits_give_the_direction_of_thirty_two() {
    for (name, golden) in with_hidden() {
        let sequences = sequences(&golden);
        let batch: Vec<&Sequence> = sequences.iter().collect();
        let encoder = on_device(&golden, Precision::Bf16, Limits::USUAL);
        for (idx, (found, expected)) in hidden(&encoder, &batch).iter().zip(&golden.hidden).enumerate() {
            let cosine = cosine(found, expected);
            assert!(cosine >= 0.9998, "{name}, sequence {idx}: {cosine}");
        }
    }
}

#[test]
fn scores_are_those_of_the_reference_library() {
    let mut goldens: BTreeMap<String, Golden> = goldens();
    goldens.retain(|_, golden| !golden.scores.is_empty());
    assert!(!goldens.is_empty());
    for (name, mut golden) in goldens {
        for is_logistic in [false, true] {
            let class = if is_logistic { "Sigmoid" } else { "Identity" };
            golden.config["sbert_ce_default_activation_function"] = class.into();
            let (config, mut weights, encoder) = host(&golden, Products::Elsewhere);
            let n = encoder.embeddings.n_embd;
            let scorer = Scorer::load(&config, &mut weights, n, Products::Elsewhere).expect("a classifier");
            let encoder = Encoder::new(encoder, &Device::Cpu, DType::F32).expect("it fits");
            let classifier = Classifier::new(scorer, &Device::Cpu).expect("it fits");
            let pair = |tokens: &Vec<u32>| Sequence { second_from: tokens.len().div_ceil(2), tokens: tokens.clone() };
            let batch: Vec<Sequence> = golden.tokens.iter().map(pair).collect();
            let never = || false;
            let scores = Reranker { encoder, classifier }.run(&batch, &Interrupt::new(&never)).expect("it runs");
            let logistic = |score: &f32| if is_logistic { 1.0 / (1.0 + (-score).exp()) } else { *score };
            let expected: Vec<f32> = golden.scores.iter().map(logistic).collect();
            assert!(error(&scores, &expected) < 5e-6, "{name}: {scores:?} instead of {expected:?}");
        }
    }
}

#[test]
fn vectors_are_pooled_as_on_the_cpu() {
    let golden = goldens().remove("bert").expect("it is there");
    let sequences = sequences(&golden);
    let batch: Vec<&Sequence> = sequences.iter().collect();
    let n = golden.hidden[0].len() / golden.tokens[0].len();
    let poolings =
        [Pooling::Cls, Pooling::Last, Pooling::Mean, Pooling::MeanSqrtLen, Pooling::WeightedMean, Pooling::Max];
    for limits in [Limits::USUAL, Limits { scores: 1, ..NARROW }] {
        let encoder = on_device(&golden, Precision::F32, limits);
        let steps = Steps::new(vec![head::Transform::Normalize], &Device::Cpu).expect("it fits");
        let never = || false;
        let mut embedder = Embedder { encoder, poolings: poolings.to_vec(), steps };
        let found = embedder.run(&sequences, &Interrupt::new(&never)).expect("it runs");
        let hidden = hidden(&embedder.encoder, &batch);
        for (idx, (found, hidden)) in found.iter().zip(&hidden).enumerate() {
            let mut expected: Vec<f32> = poolings.iter().flat_map(|&pooling| head::pool(pooling, hidden, n)).collect();
            head::normalize(&mut expected);
            assert!(error(found, &expected) < 1e-6, "sequence {idx}: {found:?} instead of {expected:?}");
        }
    }
}

#[test]
fn a_step_that_nobody_waits_for_ends_behind_its_layer() {
    let golden = goldens().remove("modernbert").expect("it is there");
    let encoder = on_device(&golden, Precision::F32, Limits::USUAL);
    assert_eq!(encoder.layers.len(), 4);
    encoder.first_step().expect("it runs");
    let sequence = Sequence::single(golden.tokens[0].clone());
    for (n_looks, is_whole) in [(0_usize, false), (3, false), (4, true)] {
        let looked = std::cell::Cell::new(0);
        let is_raised = || looked.replace(looked.get() + 1) >= n_looks;
        let ran = encoder.run(&[&sequence], &Interrupt::new(&is_raised), |_, _| Ok(vec![()]));
        assert_eq!(ran.is_ok(), is_whole, "{n_looks} layers");
        assert_eq!(looked.get(), (n_looks + 1).min(4));
    }
}

#[test]
fn vectors_of_real_weights_are_those_of_the_cpu() {
    let Some(path) = real_model() else { return };
    let load = |precision: Precision, products: Products| {
        let embed = EmbedOptions { precision, ..EmbedOptions::default() };
        let options = LoadOptions { path: path.clone(), embed, ..LoadOptions::default() };
        let hardware = Hardware { n_cores: 2, ..Hardware::default() };
        let job = Job { options: &options, place: Place::choose(&options, &hardware), products, n_threads: 2 };
        let engine = load_embedder(&job).expect("it loads");
        (engine.gpu_bytes, vectors_of(&engine.embed.expect("it embeds"), &texts()))
    };
    let (gpu_bytes, expected) = load(Precision::F32, Products::F32);
    assert_eq!(gpu_bytes, 0);
    let (gpu_bytes, found) = load(Precision::F32, Products::Elsewhere);
    // Nearly all of its weights, and the buffers.
    assert!(gpu_bytes > 90 << 20, "{gpu_bytes}");
    let (_, coarse) = load(Precision::Bf16, Products::Elsewhere);
    for (idx, ((expected, found), coarse)) in expected.iter().zip(&found).zip(&coarse).enumerate() {
        assert!(error(found, expected) < 1e-6, "text {idx}: {}", error(found, expected));
        assert!(cosine(coarse, expected) >= 0.9998, "text {idx} in 16 bits: {}", cosine(coarse, expected));
    }
}

#[test]
fn an_error_is_told_and_not_the_end() {
    let golden = goldens().remove("bert").expect("it is there");
    let encoder = on_device(&golden, Precision::F32, Limits::USUAL);
    let (sequence, never) = (Sequence::single(golden.tokens[0].clone()), || false);
    let fails = |_: &Pack<'_>, _: &Tensor| -> Result<Vec<()>> { candle_core::bail!("out of memory") };
    let error = encoder.run(&[&sequence], &Interrupt::new(&never), fails).expect_err("it fails");
    assert!(matches!(&error, EngineError::Decode { reason } if reason == "out of memory"), "{error}");
    assert_eq!(hidden(&encoder, &[&sequence]).len(), 1);
}

#[test]
fn steps_are_bounded_by_work_and_by_memory() {
    // all-MiniLM-L6-v2, Qwen3 with 8 thousand million weights, and a GPU that is nearly full.
    for (work_per_token, room, expected) in [
        (10_600_000, 1 << 30, STEP_TOKENS),
        (7_000_000_000, 1 << 30, 571),
        (10_600_000, 8000, 2000),
        (10_600_000, 0, LEAST_STEP_TOKENS),
        (0, u64::MAX, STEP_TOKENS),
    ] {
        assert_eq!(step_tokens(work_per_token, room), expected, "{work_per_token} {room}");
    }
}

#[test]
fn weights_in_sixteen_bits_take_half_the_room() {
    let golden = goldens().remove("qwen3").expect("it is there");
    let [whole, half] =
        [Precision::F32, Precision::Bf16].map(|precision| on_device(&golden, precision, Limits::USUAL).n_bytes());
    let (_, _, encoder) = host(&golden, Products::F32);
    assert_eq!(whole - half, 2 * encoder.work_per_token());
}
