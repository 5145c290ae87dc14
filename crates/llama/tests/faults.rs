//! Real aborts inside ggml: they cost one engine, not the process.
//!
//! One test, in a process of its own, because an abort on a thread without a tag ends every engine there is.
#![allow(unsafe_code)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use ingle_engine::{
    BatchToken, CacheRefused, DecodeError, Decoder, DecoderLimits, EngineError, Health, SeqId, TextModel,
};
use ingle_llama::{LlamaBackend, LlamaDecoder, LoadedModel};

use common::{SMOLLM, answer, greedy, hardware, load, model_path, options, text, tokens};

/// What the next step does.
const WORK: u8 = 0;
const ABORT_ENGINE: u8 = 1;
const ABORT_WORKER: u8 = 2;

/// A decoder that aborts inside ggml when told to.
struct Bomb {
    inner: LlamaDecoder,
    fuse: Arc<AtomicU8>,
}

fn abort() {
    // SAFETY: the arguments are a C string, a number and a format without arguments; it never returns.
    unsafe { llama_cpp_sys_2::ggml_abort(c"bomb.c".as_ptr(), 7, c"the bomb went off".as_ptr()) };
}

impl Decoder for Bomb {
    fn limits(&self) -> &DecoderLimits {
        self.inner.limits()
    }

    fn decode(&mut self, batch: &[BatchToken]) -> Result<(), DecodeError> {
        match self.fuse.load(Ordering::SeqCst) {
            ABORT_ENGINE => abort(),
            ABORT_WORKER => {
                let job = |idx| {
                    if idx == 1 {
                        abort();
                    }
                };
                self.inner.for_each_thread(&job).expect("it does not return");
            }
            _ => {}
        }
        self.inner.decode(batch)
    }

    fn row(&mut self, entry_idx: usize) -> Result<&[f32], EngineError> {
        self.inner.row(entry_idx)
    }

    fn copy_prefix(&mut self, from: SeqId, to: SeqId, n_tokens: usize) -> Result<(), CacheRefused> {
        self.inner.copy_prefix(from, to, n_tokens)
    }

    fn cut(&mut self, seq: SeqId, n_tokens: usize) -> Result<(), CacheRefused> {
        self.inner.cut(seq, n_tokens)
    }

    fn clear(&mut self, seq: SeqId) {
        self.inner.clear(seq);
    }

    fn shift(&mut self, seq: SeqId, keep: usize, discard: usize) -> Result<(), CacheRefused> {
        self.inner.shift(seq, keep, discard)
    }

    fn save(&mut self, seq: SeqId) -> Option<Vec<u8>> {
        self.inner.save(seq)
    }

    fn restore(&mut self, to: SeqId, state: &[u8]) -> Result<(), CacheRefused> {
        self.inner.restore(to, state)
    }

    fn first_held(&self, seq: SeqId) -> usize {
        self.inner.first_held(seq)
    }
}

fn bomb(name: &str) -> Option<(TextModel, Arc<AtomicU8>)> {
    let mut options = options(model_path(SMOLLM)?, name);
    options.threads = Some(2);
    let LoadedModel { mut decoder, tokenizer, config, .. } = LlamaBackend.load_model(&options, &hardware()).unwrap();
    let fuse = Arc::new(AtomicU8::new(WORK));
    let inner_fuse = Arc::clone(&fuse);
    let model = TextModel::start(config, tokenizer, move |faults| {
        decoder.adopt(faults);
        Ok(Bomb { inner: decoder, fuse: inner_fuse })
    });
    Some((model.unwrap(), fuse))
}

/// Every running and every later request of the model ends with the reason.
fn check_death(model: &TextModel, fuse: &AtomicU8, how: u8) {
    let running: Vec<_> = (0..3).map(|_| model.submit(greedy(tokens(model, "Hello there"), 4000)).unwrap()).collect();
    fuse.store(how, Ordering::SeqCst);
    for generation in running {
        match common::collect(generation).map(drop) {
            Err(EngineError::Died { reason, .. }) => assert!(reason.contains("the bomb went off"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(model.health(), Health::Dead { .. }));
    assert!(matches!(model.submit(greedy(vec![1], 1)).map(drop), Err(EngineError::Died { .. })));
}

/// Waits until the threads whose names begin so sleep for good instead of spinning at a barrier.
fn check_buried(names: [&str; 2]) {
    let deadline = Instant::now() + Duration::from_secs(60);
    // A spinning thread is never seen asleep a thousand times in a row.
    let mut n_asleep = 0;
    assert!(states(names).len() >= 2, "the engine's thread and its worker are parked, not ended");
    while n_asleep < 1000 {
        assert!(Instant::now() < deadline, "threads of a dead engine still burn their cores");
        n_asleep = if states(names).iter().all(|state| *state == 'S') { n_asleep + 1 } else { 0 };
        std::thread::yield_now();
    }
}

/// State letters of these threads, as the kernel reports them.
fn states(names: [&str; 2]) -> Vec<char> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux lists threads");
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let is_named = |stat: &String| names.iter().any(|name| stat.contains(&format!("({name}")));
    let state = |stat: String| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    stats.filter(is_named).filter_map(state).collect()
}

#[test]
fn an_abort_costs_one_engine() {
    let Some(survivor) = load(SMOLLM, "survivor") else { return };
    let survivor = text(&survivor);
    let prompt = tokens(&survivor, "The capital of France is");
    let before = answer(&survivor, greedy(prompt.clone(), 8)).unwrap();
    for (name, how) in [("main", ABORT_ENGINE), ("worker", ABORT_WORKER)] {
        let (model, fuse) = bomb(name).expect("the model is there");
        assert_eq!(answer(&model, greedy(prompt.clone(), 8)).unwrap().tokens, before.tokens);
        check_death(&model, &fuse, how);
        drop(model);
        check_buried([&format!("engine {name}"), &format!("load {name}")]);
        let after = answer(&survivor, greedy(prompt.clone(), 8)).unwrap();
        assert_eq!(after.tokens, before.tokens, "the other engine goes on after {name}");
    }
    // The dead one can be loaded again.
    let (again, _) = bomb("main").expect("the model is there");
    assert_eq!(answer(&again, greedy(prompt.clone(), 8)).unwrap().tokens, before.tokens);

    // Nobody knows whose thread this is, so every engine is charged; the process lives.
    std::thread::spawn(abort);
    for model in [survivor, again] {
        let reason = loop {
            match answer(&model, greedy(prompt.clone(), 8)).map(drop) {
                Err(EngineError::Died { reason, .. }) => break reason,
                Err(other) => panic!("{other}"),
                Ok(()) => {}
            }
        };
        assert!(reason.contains("the bomb went off"), "{reason}");
    }
}
