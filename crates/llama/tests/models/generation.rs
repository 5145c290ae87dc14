//! Answers through the engine thread.

use ingle_engine::{Backend, DraftOptions, GenerationEvent, LoadOptions, Speculation};
use ingle_llama::LlamaBackend;

use crate::common::{GEMMA, SMOLLM, answer, collect, greedy, hardware, load, model_path, options, text, tokens};

/// Prose whose tokens differ everywhere, so that a prefix matches only itself.
fn prose(n_words: usize) -> String {
    let words = ["river", "stone", "lamp", "under", "seven", "green", "walks", "letter", "north", "quiet", "bread"];
    let word = |idx: usize| format!("{} {}", words[(idx * idx + 3 * idx) % words.len()], idx % 97);
    (0..n_words).map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_chat_model_answers() {
    let Some(engine) = load(SMOLLM, "smol") else { return };
    let model = text(&engine);
    let prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n";
    let mut request = greedy(tokens(&model, prompt), 32);
    request.end_of_generation = ingle_engine::EndOfGeneration::Stops;
    let answer = answer(&model, request).unwrap();
    assert!(answer.text.contains("Paris"), "it said {:?}", answer.text);
    assert!(!answer.text.contains("<|im_end|>"), "control tokens are hidden");
    assert!(model.config().chat_template.is_some(), "the file brings a template");
    assert_eq!(engine.placement, "CPU");
    assert!(engine.memory.total_bytes() > 98_000_000);
}

/// A model that guesses for itself is always right and never cheap: it is tried, and changes nothing.
#[test]
fn a_draft_model_changes_no_answer() {
    let (Some(path), Some(plain)) = (model_path(SMOLLM), load(SMOLLM, "plain")) else { return };
    let drafted = LoadOptions {
        draft: Some(DraftOptions { path: path.clone(), ..DraftOptions::default() }),
        ..options(path, "drafted")
    };
    let estimate = LlamaBackend.estimate(&drafted).unwrap().total_bytes();
    let drafted = LlamaBackend.load(&drafted, &hardware()).unwrap();
    assert!(drafted.placement.contains("its draft model: CPU"), "{}", drafted.placement);
    let taken = drafted.memory.total_bytes();
    assert!(
        taken > 19 * plain.memory.total_bytes() / 10 && estimate.abs_diff(taken) < taken / 10,
        "{estimate}, {taken}"
    );
    let (plain, drafted) = (text(&plain), text(&drafted));
    let prompts = ["The river and the town", "Once upon a time", "A list of birds:"].map(|text| tokens(&plain, text));
    let open: Vec<_> = prompts.iter().map(|prompt| drafted.submit(greedy(prompt.clone(), 60)).unwrap()).collect();
    for (prompt, generation) in prompts.iter().zip(open) {
        let expected = answer(&plain, greedy(prompt.clone(), 60)).unwrap();
        assert_eq!(collect(generation).unwrap().tokens, expected.tokens);
    }
    let stats = drafted.stats();
    assert!(stats.guesses_right > 0, "{stats:?}");
}

#[test]
fn a_draft_model_of_another_family_is_refused() {
    let (Some(path), Some(other)) = (model_path(SMOLLM), model_path(GEMMA)) else { return };
    let drafted = LoadOptions {
        draft: Some(DraftOptions { path: other, ..DraftOptions::default() }),
        ..options(path, "drafted")
    };
    let error = LlamaBackend.load(&drafted, &hardware()).err().expect("it is refused").to_string();
    assert!(error.contains("262144 tokens and the model 49152") && error.contains("same family"), "{error}");
    let off = LoadOptions { speculation: Speculation::Off, ..drafted };
    assert_eq!(LlamaBackend.load(&off, &hardware()).unwrap().placement, "CPU");
}

/// The same prompt with a cold and a warm prefix cache, alone and among others, gives the same tokens.
fn check_cached_equals_uncached(file: &str, n_prompt: usize, n_answer: usize) {
    let Some(cold) = load(file, "cold") else { return };
    let cold_model = text(&cold);
    // It ends with numbers being counted: of what comes next any model is sure, so that no near tie can fall the other way
    // because batches of another shape round differently.
    let mut prompt = tokens(&cold_model, &prose(n_prompt));
    prompt.truncate(n_prompt / 2);
    let numbers: String = (1..n_prompt).map(|number| format!(" {number}")).collect();
    prompt.extend(tokens(&cold_model, &numbers));
    prompt.truncate(n_prompt);
    assert_eq!(prompt.len(), n_prompt);
    let expected = answer(&cold_model, greedy(prompt.clone(), n_answer)).unwrap();
    assert_eq!(expected.completion.usage.cached_tokens, 0);

    let again = answer(&cold_model, greedy(prompt.clone(), n_answer)).unwrap();
    assert!(again.completion.usage.cached_tokens > n_prompt / 2, "the prefix is reused: {:?}", again.completion.usage);
    assert_eq!(expected.tokens, again.tokens, "alone, warm");

    let mut longer = prompt.clone();
    longer.extend(&expected.tokens[..n_answer / 2]);
    let continued = answer(&cold_model, greedy(longer, n_answer / 2)).unwrap();
    assert!(continued.completion.usage.cached_tokens >= n_prompt, "the answer is reused as a prompt");
    assert_eq!(expected.tokens[n_answer / 2..], continued.tokens, "continued");

    let others = (1..4).map(|idx| cold_model.submit(greedy(prompt[n_prompt - 50 * idx..].to_vec(), n_answer)).unwrap());
    let others: Vec<_> = others.collect();
    let among = answer(&cold_model, greedy(prompt, n_answer)).unwrap();
    others.into_iter().for_each(|other| drop(collect(other).unwrap()));
    assert_eq!(expected.tokens, among.tokens, "among others, warm");
}

#[test]
fn cached_equals_uncached_with_a_sliding_window() {
    check_cached_equals_uncached(GEMMA, 3 * 512, 24);
}

#[test]
fn cached_equals_uncached_without_a_window() {
    check_cached_equals_uncached(SMOLLM, 300, 32);
}

#[test]
fn two_engines_answer_at_once() {
    let (Some(first), Some(second)) = (load(SMOLLM, "one"), load(GEMMA, "two")) else { return };
    let (first, second) = (text(&first), text(&second));
    let generations = [&first, &second].map(|model| {
        let generations = (0..3).map(|idx| greedy(tokens(model, &prose(20 + idx)), 16));
        generations.map(|request| model.submit(request).unwrap()).collect::<Vec<_>>()
    });
    for generation in generations.into_iter().flatten() {
        assert_eq!(collect(generation).unwrap().tokens.len(), 16);
    }
}

#[test]
fn a_dropped_generation_frees_its_slot() {
    let Some(path) = model_path(SMOLLM) else { return };
    let one_slot = ingle_engine::LoadOptions { parallel: Some(1), ..options(path, "cancel") };
    let engine = ingle_engine::Backend::load(&ingle_llama::LlamaBackend, &one_slot, &crate::common::hardware());
    let model = text(&engine.unwrap());
    let mut endless = model.submit(greedy(tokens(&model, "Once upon a time"), 7000)).unwrap();
    assert!(matches!(endless.wait_next(), Some(Ok(GenerationEvent::Piece(_)))));
    drop(endless);
    // The one slot must be free again for this answer.
    assert_eq!(answer(&model, greedy(tokens(&model, "The sky is"), 4)).unwrap().tokens.len(), 4);
}

/// Threads of this process whose name begins so.
fn n_threads_named(prefix: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux lists threads");
    let name = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
    tasks.filter_map(name).filter(|name| name.starts_with(prefix)).count()
}

#[test]
fn dropping_the_last_handle_ends_every_thread() {
    let Some(engine) = load(SMOLLM, "gone") else { return };
    let model = text(&engine);
    assert_eq!(answer(&model, greedy(tokens(&model, "Hello"), 2)).unwrap().tokens.len(), 2);
    assert_eq!(n_threads_named("engine gone"), 1);
    drop((engine, model));
    assert_eq!((n_threads_named("engine gone"), n_threads_named("load gone")), (0, 0), "threads are joined");
}
