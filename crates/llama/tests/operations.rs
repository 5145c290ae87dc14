//! Our own operations against ggml's, on real models. A binary of its own, since the switch is one of the process.

mod common;

use common::{GEMMA, SMOLLM, hardware, model_path, options};
use ingle_engine::{BatchToken, Decoder, FlashAttention, LoadOptions};
use ingle_llama::{LlamaBackend, use_own_operations};

/// Rows of steps with one and with several sequences, of which two share a prefix, and of prompts in small and large pieces.
fn rows(decoder: &mut impl Decoder) -> Vec<Vec<f32>> {
    let token =
        |n: usize, position, seq| BatchToken { token: 1000 + (n * 37 % 900) as u32, position, seq, wants_row: false };
    let mut rows = Vec::new();
    (0..4).for_each(|seq| decoder.clear(seq));
    let mut step = |decoder: &mut dyn Decoder, mut batch: Vec<BatchToken>, wanted: &[usize]| {
        wanted.iter().for_each(|&idx| batch[idx].wants_row = true);
        decoder.decode(&batch).expect("the step is computed");
        wanted.iter().for_each(|&idx| rows.push(decoder.row(idx).expect("a row was asked for").to_vec()));
    };
    let prompt = |len: usize, seq| (0..len).map(|position| token(position + seq as usize, position, seq)).collect();
    step(decoder, prompt(150, 0), &[149]);
    step(decoder, prompt(21, 1), &[20]);
    step(decoder, vec![token(7, 150, 0)], &[0]);
    decoder.copy_prefix(0, 2, 100).expect("a prefix is shared");
    step(decoder, vec![token(8, 151, 0), token(9, 21, 1), token(5, 100, 2)], &[0, 1, 2]);
    let piece = (0..20).map(|idx| token(idx, 101 + idx, 2)).chain([token(1, 22, 1)]).collect();
    step(decoder, piece, &[19, 20]);
    // Enough rows for tiles, of a new sequence and two that go on.
    let mixed = [token(2, 23, 1), token(3, 152, 0)].into_iter().chain((0..90).map(|idx| token(idx, idx, 3))).collect();
    step(decoder, mixed, &[0, 1, 20, 91]);
    rows
}

/// One minus the cosine of the angle between two rows.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The judge is ggml without fused attention, whose sums are in 32-bit floats, too.
#[test]
fn our_operations_are_no_further_from_the_judge_than_those_of_ggml() {
    for (file, n_threads) in [(SMOLLM, 1), (SMOLLM, 2), (GEMMA, 1)] {
        let Some(path) = model_path(file) else { return };
        let mut options = options(path, "operations");
        (options.context_size, options.threads) = (Some(1024), Some(n_threads));
        let load =
            |options: &LoadOptions| LlamaBackend.load_model(options, &hardware()).expect("the model loads").decoder;
        use_own_operations(true);
        let mut decoder = load(&options);
        let ours = rows(&mut decoder);
        assert_eq!(ours, rows(&mut decoder), "the same numbers again");
        use_own_operations(false);
        let ggml = rows(&mut decoder);
        options.flash_attention = FlashAttention::Off;
        let judge = rows(&mut load(&options));
        let far = |rows: &[Vec<f32>]| rows.iter().zip(&judge).map(|(row, judge)| distance(row, judge)).sum::<f64>();
        let (ours_far, ggml_far) = (far(&ours), far(&ggml));
        eprintln!("{file}, {n_threads} threads: distance from the judge {ours_far:.2e}, of ggml {ggml_far:.2e}");
        assert!(ours_far < 2.0 * ggml_far + 1e-3 && ours_far < 0.03, "{file}: {ours_far} against {ggml_far}");
        // On a processor that can run them, sums are rounded otherwise; equal bits would mean that they never ran.
        let can_run = ingle_kernels::Attention::detect().is_some();
        assert!(
            !can_run || ours.iter().zip(&ggml).all(|(ours, ggml)| ours != ggml),
            "{file}: they were not always used"
        );
    }
}
