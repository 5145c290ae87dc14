//! What a model is said to take, against llama.cpp's own buffers and against the memory of this process.
//!
//! A process of its own, whose tests run one after the other: what another test loads would be counted too.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(unsafe_code)]

mod common;

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use ingle_engine::{Backend, CacheType, FlashAttention, LoadOptions};
use ingle_llama::LlamaBackend;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use common::{GEMMA, SMOLLM, answer, greedy, hardware, model_path, text};

const QWEN: &str = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf";
/// How far an estimate may be off.
const TOLERANCE: f64 = 0.1;

/// MiB of the buffers that llama.cpp has named since the last look.
#[derive(Clone, Default)]
struct Buffers(Arc<Mutex<f64>>);

impl Buffers {
    fn take(&self) -> f64 {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: Subscriber> Layer<S> for Buffers {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut self.clone());
    }
}

impl Visit for Buffers {
    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        let line = format!("{value:?}");
        let size = line.split("buffer size =").nth(1).and_then(|rest| rest.trim().split(' ').next()?.parse().ok());
        if let Some(mib) = size {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) += f64::max(mib, 0.0);
        }
    }
}

/// The share of memory of this process, in MiB.
fn pss_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").expect("the kernel tells");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("there is a sum");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("it is a number") / 1024.0
}

unsafe extern "C" {
    /// glibc's: gives memory back that has been freed.
    fn malloc_trim(pad: usize) -> std::ffi::c_int;
}

/// The same where caches are small beside the buffers of a step, which are bounded from above.
const WIDE_TOLERANCE: f64 = 0.12;

/// One load at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What the estimate says over contexts and cache types, against what llama.cpp says it has allocated.
#[test]
fn estimates_follow_context_and_cache_type() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let contexts: &[usize] = match std::env::var_os("INGLE_LONG_TESTS") {
        Some(_) => &[512, 1024, 2048, 4096, 8192, 16_384],
        None => &[1024, 8192],
    };
    println!("{:>40} {:>8} {:>6} {:>9} {:>9} {:>6}", "model", "context", "cache", "estimate", "buffers", "ratio");
    for file in [SMOLLM, GEMMA, QWEN] {
        let Some(path) = model_path(file) else { continue };
        for &context_size in contexts {
            for cache_type in [CacheType::F16, CacheType::Q8_0, CacheType::F32] {
                let options = LoadOptions {
                    name: "size".into(),
                    path: path.clone(),
                    context_size: Some(context_size),
                    cache_type_k: cache_type,
                    cache_type_v: cache_type,
                    // llama.cpp takes quantized values with it only.
                    flash_attention: FlashAttention::On,
                    ..LoadOptions::default()
                };
                let estimate = LlamaBackend.estimate(&options).expect("it is a model").total_bytes();
                let taken = LlamaBackend.load(&options, &hardware()).expect("it loads").memory.total_bytes();
                let ratio = estimate as f64 / taken as f64;
                let (estimate, taken) = (estimate >> 20, taken >> 20);
                println!("{file:>40} {context_size:>8} {cache_type:>6?} {estimate:>9} {taken:>9} {ratio:>6.3}");
                assert!((ratio - 1.0).abs() <= WIDE_TOLERANCE, "{file}, {context_size}, {cache_type:?}: {ratio:.3}");
            }
        }
    }
}

#[test]
fn estimates_are_within_a_tenth() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let buffers = Buffers::default();
    tracing_subscriber::registry().with(buffers.clone()).init();
    let cases = [(SMOLLM, None), (SMOLLM, Some(2048)), (GEMMA, None), (QWEN, None), (QWEN, Some(4096))];
    for (file, context_size) in cases {
        let Some(path) = model_path(file) else { continue };
        let options = LoadOptions { name: "size".into(), path, context_size, ..LoadOptions::default() };
        let estimate = LlamaBackend.estimate(&options).expect("it is a model");
        let estimated = estimate.total_bytes() as f64 / f64::from(1 << 20);
        buffers.take();
        // What an earlier model has left behind would serve the next one, unseen.
        // SAFETY: it may be called at any time.
        unsafe { malloc_trim(0) };
        let before = pss_mib();
        let engine = LlamaBackend.load(&options, &hardware()).expect("it loads");
        let allocated = buffers.take();
        // Memory that nothing has been written to is not counted.
        let prompt = (0..1200).map(|idx| 1000 + idx % 500).collect();
        answer(&text(&engine), greedy(prompt, 4)).expect("it answers");
        let grown = pss_mib() - before;
        println!(
            "{file}, context {context_size:?}: estimate {estimated:.0} MiB (weights {}, cache {}, compute {}), \
             llama.cpp's buffers {allocated:.0} MiB, PSS + {grown:.0} MiB",
            estimate.weight_bytes >> 20,
            estimate.cache_bytes >> 20,
            estimate.compute_bytes >> 20,
        );
        for (what, real) in [("buffers", allocated), ("PSS", grown)] {
            let ratio = estimated / real;
            assert!((ratio - 1.0).abs() <= TOLERANCE, "{file}: estimate ÷ {what} is {ratio:.3}");
        }
        drop(engine);
    }
}
