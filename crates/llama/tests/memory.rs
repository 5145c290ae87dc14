//! What a model is said to take, against llama.cpp's own buffers and against the memory of this process.
//!
//! A process of its own, with one test: what other tests load would be counted too.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(unsafe_code)]

mod common;

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use ingle_engine::{Backend, LoadOptions};
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

#[test]
fn estimates_are_within_a_tenth() {
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
