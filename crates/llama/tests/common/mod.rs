//! Real models and how the tests load them.
#![allow(dead_code)] // each test binary uses its part

use std::path::PathBuf;

use ingle_engine::sampling::SamplingParams;
use ingle_engine::{
    Backend, Completion, Device, EndOfGeneration, Engine, EngineError, GenerationEvent, GenerationRequest, Hardware,
    LoadOptions, Segment, Surround, TextModel, TokenId,
};
use ingle_llama::LlamaBackend;

pub const SMOLLM: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
pub const GEMMA: &str = "gemma-3-270m-q4_k_m.gguf";

/// Where the file is; says so and gives `None` when this machine does not have it.
pub fn model_path(file: &str) -> Option<PathBuf> {
    let cache = || {
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home)?;
        Some(cache.join("ingle/test-models"))
    };
    let folder = std::env::var_os("INGLE_TEST_MODELS").map(PathBuf::from).or_else(cache)?;
    let path = folder.join(file);
    if path.is_file() {
        return Some(path);
    }
    eprintln!("skipped: {} is not there", path.display());
    None
}

pub fn hardware() -> Hardware {
    let cpu = Device { name: "test".into(), total_bytes: 0, free_bytes: 0, ..Device::default() };
    let n_cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    Hardware { devices: vec![cpu], n_cores, ..Hardware::default() }
}

pub fn options(path: PathBuf, name: &str) -> LoadOptions {
    // One thread each: tests run beside each other, and compute threads that wait for one another burn their cores.
    LoadOptions { name: name.into(), path, context_size: Some(8192), threads: Some(1), ..LoadOptions::default() }
}

pub fn load(file: &str, name: &str) -> Option<Engine> {
    let path = model_path(file)?;
    Some(LlamaBackend.load(&options(path, name), &hardware()).expect("the model loads"))
}

pub fn text(engine: &Engine) -> TextModel {
    engine.text.clone().expect("a language model generates text")
}

pub fn tokens(model: &TextModel, prompt: &str) -> Vec<TokenId> {
    model.tokenizer().tokenize(&[Segment::parse(prompt)], Surround::AsModelWants).expect("the prompt is text")
}

pub fn greedy(prompt: Vec<TokenId>, n_tokens: usize) -> GenerationRequest {
    GenerationRequest {
        prompt,
        sampling: SamplingParams::greedy(),
        max_tokens: Some(n_tokens),
        end_of_generation: EndOfGeneration::Ignored,
        ..GenerationRequest::default()
    }
}

pub struct Answer {
    pub text: String,
    pub tokens: Vec<TokenId>,
    pub completion: Completion,
}

pub fn answer(model: &TextModel, request: GenerationRequest) -> Result<Answer, EngineError> {
    collect(model.submit(request)?)
}

pub fn collect(generation: ingle_engine::Generation) -> Result<Answer, EngineError> {
    let (mut text, mut tokens) = (String::new(), Vec::new());
    for event in generation {
        match event? {
            GenerationEvent::Piece(piece) => {
                text.push_str(&piece.text);
                tokens.extend(piece.tokens.iter().map(|token| token.id));
            }
            GenerationEvent::Done(completion) => return Ok(Answer { text, tokens, completion }),
        }
    }
    panic!("a generation ends with its end");
}
