//! What 16-bit floats gain: `bf16 [FOLDER] [--threads N]`. Matrix products of an encoder's shapes, rten's in f32 and ours
//! in bf16 by turns, then the model of the folder in both ways, with the smallest cosine between the vectors.
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use ingle_candle::CandleBackend;
use ingle_engine::{Backend, EmbedModel, EmbedOptions, Hardware, LoadOptions, Precision, Sequence, Task};
use ingle_kernels::{Bf16, Bf16Rows, Bf16Weights, Finish, Pane};
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::NdTensorView;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Pairs of measurements, by turns.
const PAIRS: usize = 15;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let at = args.iter().position(|arg| arg == "--threads");
    let n_threads: usize = at.and_then(|at| args.get(at + 1)).map_or(Ok(1), |n| n.parse())?;
    let bf16 = Bf16::detect().ok_or(Bf16::NEEDS)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    for n_rows in [1, 4, 17, 32, 137, 256] {
        for (n_in, n_out) in [(384, 1152), (384, 384), (384, 1536), (1536, 384)] {
            pool.install(|| products(bf16, [n_rows, n_in, n_out]));
        }
    }
    match args.first() {
        Some(folder) if at != Some(0) => model(Path::new(folder), n_threads),
        _ => Ok(()),
    }
}

/// Seconds of one call, of enough calls for a few milliseconds.
fn secs(work: &mut dyn FnMut()) -> f64 {
    let (started, mut n_calls) = (Instant::now(), 0);
    while started.elapsed().as_micros() < 4000 {
        work();
        n_calls += 1;
    }
    started.elapsed().as_secs_f64() / f64::from(n_calls)
}

/// Medians of the seconds of both, and of the ratio of a pair.
fn by_turns(first: &mut dyn FnMut(), second: &mut dyn FnMut()) -> [f64; 3] {
    secs(first);
    secs(second);
    let pairs: Vec<(f64, f64)> = (0..PAIRS).map(|_| (secs(first), secs(second))).collect();
    let median = |of: &dyn Fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = pairs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[PAIRS / 2]
    };
    [median(&|pair| pair.0), median(&|pair| pair.1), median(&|pair| pair.0 / pair.1)]
}

fn number(idx: usize) -> f32 {
    (idx.wrapping_mul(2_654_435_761) >> 7 & 0xffff) as f32 / 65536.0 - 0.5
}

fn products(bf16: Bf16, [n_rows, n_in, n_out]: [usize; 3]) {
    // As in a model: many layers' weights, more than the caches near the core hold.
    let n_layers = (16 << 20) / (4 * n_in * n_out) + 1;
    let x: Vec<f32> = (0..n_rows * n_in).map(number).collect();
    let weight: Vec<f32> = (0..n_in * n_out).map(number).collect();
    let (gemm, mut out) = (GemmExecutor::<f32>::new(), vec![0.0; n_rows * n_out]);
    let view = NdTensorView::from_data([n_out, n_in], weight.as_slice());
    let packed: Vec<_> = (0..n_layers).map(|_| gemm.prepack_b(view.transposed())).collect();
    let rounded: Vec<_> = (0..n_layers).map(|_| Bf16Weights::pack(&weight, None, n_in)).collect();
    let (mut rows, mut other) = (Bf16Rows::default(), out.clone());
    let (mut layer, mut rounded_layer) = (0, 0);
    let [of_f32, of_bf16, ratio] = by_turns(
        &mut || {
            let a = NdTensorView::from_data([n_rows, n_in], x.as_slice());
            let b = GemmInputB::Packed(&packed[layer]);
            gemm.gemm(&mut out, GemmInputA::Unpacked(a), b, GemmOptions::default()).expect("shapes fit");
            layer = (layer + 1) % n_layers;
        },
        &mut || {
            rows.parts([n_rows, n_in], n_rows).for_each(|part| bf16.round(&x, n_in, part));
            for pane in Pane::split(&mut other, n_out, 1) {
                bf16.multiply(&rows, &rounded[rounded_layer], Finish::Replace, pane);
            }
            rounded_layer = (rounded_layer + 1) % n_layers;
        },
    );
    black_box((&out, &other));
    let rate = |secs: f64| 2.0 * (n_rows * n_in * n_out) as f64 / secs / 1e9;
    let rates = format!("f32 {:5.0} GFLOP/s, bf16 {:5.0} GFLOP/s", rate(of_f32), rate(of_bf16));
    println!("{n_rows:4} x {n_in:4} x {n_out:4}: {rates}, {ratio:.2} times");
}

fn load(folder: &Path, n_threads: usize, precision: Precision) -> Outcome<EmbedModel> {
    let options = LoadOptions {
        path: folder.to_owned(),
        threads: Some(n_threads),
        tasks: [Task::Embed].into_iter().collect(),
        embed: EmbedOptions { precision, ..EmbedOptions::default() },
        ..LoadOptions::default()
    };
    let hardware = Hardware { n_cores: n_threads, ..Hardware::default() };
    Ok(CandleBackend.load(&options, &hardware)?.embed.ok_or("it is no embedding model")?)
}

fn vectors(model: &EmbedModel, texts: &[Sequence]) -> Vec<Vec<f32>> {
    let pending = model.thread.submit(texts.to_vec(), None).expect("the queue has room");
    pending.wait().expect("vectors").responses
}

fn model(folder: &Path, n_threads: usize) -> Outcome<()> {
    let (exact, rounded) = (load(folder, n_threads, Precision::F32)?, load(folder, n_threads, Precision::Bf16)?);
    for (n_texts, n_tokens) in [(1, 17), (8, 17), (32, 17), (1, 137), (8, 137), (32, 137)] {
        let token = |idx: usize| 1000 + (idx.wrapping_mul(2_654_435_761) >> 9) as u32 % 20_000;
        let text = |idx: usize| (0..n_tokens).map(|at| token(idx * n_tokens + at)).collect();
        let texts: Vec<Sequence> = (0..n_texts).map(|idx| Sequence::single(text(idx))).collect();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let (expected, found) = (vectors(&exact, &texts), vectors(&rounded, &texts));
        let cosines = expected.iter().zip(&found).map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt());
        let cosine = cosines.fold(1.0, f64::min);
        let [of_f32, of_bf16, ratio] =
            by_turns(&mut || drop(vectors(&exact, &texts)), &mut || drop(vectors(&rounded, &texts)));
        let rates = format!("f32 {:6.0}, bf16 {:6.0} texts/s", n_texts as f64 / of_f32, n_texts as f64 / of_bf16);
        println!("{n_texts:2} texts of {n_tokens:3} tokens: {rates}, {ratio:.2} times, cosine {cosine:.7}");
    }
    Ok(())
}
