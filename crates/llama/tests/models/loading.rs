//! Files that are no models, and damaged ones: an error that names the file, never the end of the process.

use std::path::{Path, PathBuf};

use ingle_engine::{Backend, EngineError, LoadOptions};
use ingle_gguf::{Value, corpus, writer};
use ingle_llama::LlamaBackend;

use crate::common::{GEMMA, SMOLLM, hardware, model_path, options};

/// Why the file is refused, by the estimate and by loading alike.
fn refusal(path: &Path) -> String {
    let options = options(path.into(), "broken");
    let by_estimate = LlamaBackend.estimate(&options).map(drop);
    let by_load = LlamaBackend.load(&options, &hardware()).map(drop);
    match by_load {
        Err(EngineError::Load { path: named, reason }) => {
            assert_eq!(named, path.display().to_string());
            if let Err(EngineError::Load { reason: estimated, .. }) = by_estimate {
                assert_eq!(estimated, reason);
            }
            reason
        }
        other => panic!("{} gave {other:?}", path.display()),
    }
}

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("broken models");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn check(name: &str, bytes: &[u8], expected: &str) {
    let reason = refusal(&file(name, bytes));
    assert!(reason.contains(expected), "{name}: {reason}");
}

#[test]
fn files_that_are_no_models_are_refused() {
    check("empty.gguf", b"", "not a GGUF file");
    check("random.gguf", &[0x5a; 4096], "not a GGUF file");
    check("short.gguf", b"GGUF\x03\0\0\0", "ends early");
    let mut projector = writer::Writer::default();
    projector.set("general.architecture", Value::Str("clip".into()));
    check("projector.gguf", &projector.bytes(), "projector");
    let mut adapter = writer::tiny_llama();
    adapter.set("general.type", Value::Str("adapter".into())).set("adapter.type", Value::Str("lora".into()));
    check("adapter.gguf", &adapter.bytes(), "adapter");
    assert!(refusal(Path::new("there is no such file.gguf")).contains("cannot be read"));
    assert!(refusal(Path::new(env!("CARGO_TARGET_TMPDIR"))).contains("not a file"));
}

#[test]
fn truncated_files_are_refused() {
    let Some(path) = model_path(SMOLLM) else { return };
    let whole = std::fs::read(path).unwrap();
    for n_bytes in [100, 10_000, whole.len() / 2, whole.len() - 1] {
        let reason = refusal(&file("truncated.gguf", &whole[..n_bytes]));
        assert!(reason.contains("ends early") || reason.contains("truncated"), "{n_bytes} bytes: {reason}");
    }
}

#[test]
fn damaged_headers_never_end_the_process() {
    let original = writer::tiny_llama().bytes();
    let (mut n_loaded, mut n_aborted) = (0, 0);
    for (idx, (damage, bytes)) in corpus::mutations(&original, 7, 250).enumerate() {
        let options = options(file(&format!("damaged-{}.gguf", idx % 4), &bytes), "damaged");
        match LlamaBackend.load(&LoadOptions { threads: Some(1), ..options }, &hardware()) {
            Ok(_) => n_loaded += 1,
            Err(error) if error.to_string().contains("gave up") => {
                eprintln!("{damage}: {error}");
                n_aborted += 1;
            }
            Err(_) => {}
        }
    }
    eprintln!("{n_loaded} of 250 damaged files load all the same");
    assert_eq!(n_aborted, 0, "the header check refuses what llama.cpp would abort on");
}

#[test]
fn weights_that_produce_nan_are_found() {
    let Some(path) = model_path(SMOLLM) else { return };
    let mut bytes = std::fs::read(path).unwrap();
    let start = bytes.len() / 4;
    bytes[start..start + 8_000_000].fill(0xff);
    check("nan.gguf", &bytes, "NaN");
}

#[test]
fn impossible_options_are_named() {
    let Some(path) = model_path(SMOLLM) else { return };
    let base = options(path, "options");
    let cases = [
        ("parallel", LoadOptions { parallel: Some(0), ..base.clone() }),
        ("parallel", LoadOptions { parallel: Some(1000), ..base.clone() }),
        ("parallel", LoadOptions { parallel: Some(64), batch: Some(32), ..base.clone() }),
        ("batch", LoadOptions { batch: Some(0), ..base.clone() }),
        ("threads", LoadOptions { threads: Some(100_000), ..base.clone() }),
        ("context_size", LoadOptions { context_size: Some(0), ..base.clone() }),
        ("context_size", LoadOptions { context_size: Some(1 << 28), ..base.clone() }),
        ("rope_freq_base", LoadOptions { rope_freq_base: Some(f32::NAN), ..base.clone() }),
        ("tensor_split", LoadOptions { tensor_split: vec![-1.0], ..base.clone() }),
    ];
    for (expected, options) in cases {
        match LlamaBackend.load(&options, &hardware()) {
            Err(EngineError::Option { option, .. }) => assert_eq!(option, expected),
            other => panic!("{expected}: {other:?}", other = other.map(drop)),
        }
    }
}

#[test]
fn estimates_are_near_what_a_model_takes() {
    for file in [SMOLLM, GEMMA] {
        let Some(path) = model_path(file) else { return };
        let options = options(path, "size");
        let estimate = LlamaBackend.estimate(&options).unwrap();
        let real = LlamaBackend.load(&options, &hardware()).unwrap().memory;
        let ratio = estimate.weight_bytes as f64 / real.weight_bytes as f64;
        assert!((0.9..1.1).contains(&ratio), "{file}: weights {estimate:?}, really {real:?}");
        assert!(estimate.cache_bytes > 0 && estimate.compute_bytes > 0);
    }
}
