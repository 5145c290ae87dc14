//! Damaged model files meet the real engine: each is refused or runs, and nothing takes the process down.

use std::path::Path;
use std::time::{Duration, Instant};

use ingle_engine::{Backend, EngineError, GenerationEvent, GenerationRequest, Hardware, LoadOptions};
use ingle_gguf::corpus::mutations;
use ingle_gguf::writer::tiny_llama;
use ingle_llama::LlamaBackend;

use crate::support;

/// No file may keep the engine busy for longer.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    answered: usize,
    failed: usize,
}

impl Tally {
    fn total(&self) -> usize {
        self.refused + self.answered + self.failed
    }
}

/// Loads a file and, when that works, generates a few tokens.
fn try_file(path: &Path, hardware: &Hardware, tally: &mut Tally) {
    let options = LoadOptions {
        name: "damaged".into(),
        path: path.to_owned(),
        context_size: Some(256),
        parallel: Some(1),
        threads: Some(2),
        ..LoadOptions::default()
    };
    match LlamaBackend.load(&options, hardware) {
        Err(error) => {
            assert!(!error.to_string().is_empty());
            tally.refused += 1;
        }
        Ok(engine) => match generate(engine) {
            Ok(()) => tally.answered += 1,
            Err(_) => tally.failed += 1,
        },
    }
}

fn generate(engine: ingle_engine::Engine) -> Result<(), EngineError> {
    let model = engine.text.expect("the backend makes text models");
    let prompt = vec![0, 1, 2];
    for event in model.submit(GenerationRequest { prompt, max_tokens: Some(4), ..GenerationRequest::default() })? {
        if let GenerationEvent::Done(_) = event? {
            return Ok(());
        }
    }
    unreachable!("a generation ends with Done or an error")
}

fn run(original: &[u8], seed: u64, count: usize) -> Tally {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hardware = ingle_runtime::hardware::detect();
    let mut tally = Tally::default();
    for (idx, (label, bytes)) in mutations(original, seed, count).enumerate() {
        let path = folder.path().join("damaged.gguf");
        std::fs::write(&path, &bytes).expect("the temporary folder is writable");
        let begun = Instant::now();
        try_file(&path, &hardware, &mut tally);
        assert!(begun.elapsed() < PATIENCE, "mutation {idx} ({label}) took {:?}", begun.elapsed());
    }
    tally
}

#[test]
fn small_damaged_files_never_kill_the_process() {
    let tally = run(&tiny_llama().bytes(), 1, 300);
    println!("tiny model, 300 mutations: {tally:?}");
    assert_eq!(tally.total(), 300);
    assert!(tally.refused > 100, "most damage is noticed: {tally:?}");
}

#[test]
fn real_damaged_files_never_kill_the_process() {
    let Some(path) = support::chat_model() else { return };
    let original = std::fs::read(path).expect("the model can be read");
    let tally = run(&original, 2, 40);
    println!("SmolLM2, 40 mutations: {tally:?}");
    assert_eq!(tally.total(), 40);
}
