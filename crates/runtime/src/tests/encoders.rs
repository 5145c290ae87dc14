//! Embeddings and reranking over a fake backend.

use ingle_catalog::WindowPooling;
use ingle_engine::fake::vector;
use pollster::block_on;

use super::*;

fn write_encoder(folder: &Path, name: &str, keys: &str) {
    std::fs::write(folder.join(format!("{name}.gguf")), vec![0; 1000]).unwrap();
    let yaml = format!("name: {name}\nbackend: llama-cpp\nparameters:\n  model: {name}.gguf\n{keys}");
    std::fs::write(folder.join(format!("{name}.yaml")), yaml).unwrap();
}

fn encoders() -> House {
    encoders_with(quick())
}

fn encoders_with(residency: ResidencyOptions) -> House {
    let house = house_with(Answers::Hash, residency);
    let folder = house.folder.path();
    write_encoder(folder, "vectors", "embeddings: true\ncontext_size: 16\noptions: ['dimensions:2,4']\n");
    write_encoder(folder, "pieces", "  pooling: mean\nembeddings: true\ncontext_size: 16\n");
    write_encoder(folder, "scores", "reranking: true\ncontext_size: 32\n");
    house
}

fn texts(model: &str, texts: &[&str]) -> EmbedCall {
    let inputs = texts.iter().map(|text| EmbedInput::Text((*text).to_owned())).collect();
    EmbedCall { model: Some(model.into()), inputs, ..EmbedCall::default() }
}

/// The fake model's vector of a text.
fn expected(text: &str) -> Vec<f32> {
    let tokens: Vec<u32> = std::iter::once(256).chain(text.bytes().map(u32::from)).chain([257]).collect();
    vector(&tokens)
}

#[test]
fn texts_become_vectors_in_their_order() {
    let house = encoders();
    let embedded = block_on(house.runtime.embed(texts("vectors", &["one", "two", "three"]))).unwrap();
    assert_eq!(embedded.vectors, ["one", "two", "three"].map(expected));
    assert_eq!((embedded.prompt_tokens, embedded.n_cut), (5 + 5 + 7, 0));
    let unnamed = EmbedCall { model: None, ..texts("", &["one"]) };
    assert_eq!(block_on(house.runtime.embed(unnamed)).unwrap().model, "pieces", "the first one that can");
}

#[test]
fn tokens_and_prompts_reach_the_model() {
    let house = encoders();
    let tokens = EmbedInput::Tokens(b"one".iter().copied().map(u32::from).collect());
    let call = EmbedCall { model: Some("vectors".into()), inputs: vec![tokens], ..EmbedCall::default() };
    assert_eq!(block_on(house.runtime.embed(call)).unwrap().vectors, [expected("one")]);
    for (prompt, seen) in [
        (EmbedPrompt::Query, "q:one"),
        (EmbedPrompt::Named("query".into()), "q:one"),
        (EmbedPrompt::Document, "one"),
        (EmbedPrompt::Default, "one"),
    ] {
        let call = EmbedCall { prompt, ..texts("vectors", &["one"]) };
        assert_eq!(block_on(house.runtime.embed(call)).unwrap().vectors, [expected(seen)]);
    }
    let call = EmbedCall { prompt: EmbedPrompt::Named("poem".into()), ..texts("vectors", &["one"]) };
    let error = block_on(house.runtime.embed(call)).unwrap_err().to_string();
    assert!(error.contains("prompt_name is \"poem\"; use query"), "{error}");
}

#[test]
fn shorter_vectors_are_those_that_the_model_was_trained_for() {
    let house = encoders();
    let ask = |model: &str, dimensions| EmbedCall { dimensions: Some(dimensions), ..texts(model, &["some text"]) };
    let vector = block_on(house.runtime.embed(ask("vectors", 4))).unwrap().vectors.remove(0);
    let whole = expected("some text");
    let length = whole[..4].iter().map(|number| number * number).sum::<f32>().sqrt();
    assert_eq!(vector.len(), 4);
    assert!(vector.iter().zip(&whole).all(|(short, whole)| (short - whole / length).abs() < 1e-6));
    assert_eq!(block_on(house.runtime.embed(ask("vectors", 8))).unwrap().vectors[0].len(), 8);
    for (model, dimensions) in [("vectors", 3), ("vectors", 9), ("pieces", 4)] {
        let error = block_on(house.runtime.embed(ask(model, dimensions))).unwrap_err();
        assert!(matches!(error, RuntimeError::InvalidParameter { parameter: "dimensions", .. }), "{error}");
    }
}

#[test]
fn long_texts_are_cut_or_taken_piece_by_piece() {
    let house = encoders();
    let (first, second) = ("a".repeat(14), "bcdefgh");
    let text = format!("{first}{second}");
    let cut = block_on(house.runtime.embed(texts("vectors", &[&text, "short"]))).unwrap();
    assert_eq!((cut.n_cut, &cut.vectors[0]), (1, &expected(&first)));
    let pieces = block_on(house.runtime.embed(texts("pieces", &["short", &text, "short"]))).unwrap();
    assert_eq!(pieces.n_cut, 0);
    assert_eq!(pieces.vectors[0], expected("short"));
    assert_eq!(pieces.vectors[2], expected("short"));
    let mean = |weights: [f32; 2]| {
        let (a, b) = (expected(&first), expected(second));
        let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a * weights[0] + b * weights[1]).collect();
        let length = sum.iter().map(|number| number * number).sum::<f32>().sqrt();
        sum.into_iter().map(|number| number / length).collect::<Vec<f32>>()
    };
    let is_close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(is_close(&pieces.vectors[1], &mean([16.0, 9.0])));
    let asked = |pooling| LongTexts::Pieces { pooling, half_life_tokens: std::num::NonZeroU32::new(9) };
    for (pooling, weights) in [(WindowPooling::Last, [0.0, 1.0]), (WindowPooling::DecayedMean, [8.0, 9.0])] {
        let call = EmbedCall { long_texts: asked(pooling), ..texts("vectors", &[&text]) };
        assert!(is_close(&block_on(house.runtime.embed(call)).unwrap().vectors[0], &mean(weights)), "{pooling:?}");
    }
}

#[test]
fn inputs_that_cannot_be_embedded_are_named() {
    let house = encoders();
    let error = block_on(house.runtime.embed(texts("vectors", &["one", ""]))).unwrap_err();
    assert!(matches!(error, RuntimeError::Input { idx: 1, error: EngineError::EmptyPrompt }), "{error}");
    let error = block_on(house.runtime.embed(texts("vectors", &[]))).unwrap_err();
    assert!(matches!(error, RuntimeError::InvalidParameter { parameter: "input", .. }), "{error}");
    let inputs = vec![EmbedInput::Tokens(vec![1, 9999])];
    let call = EmbedCall { model: Some("vectors".into()), inputs, ..EmbedCall::default() };
    let error = block_on(house.runtime.embed(call)).unwrap_err();
    assert!(matches!(error, RuntimeError::Input { idx: 0, error: EngineError::TokenOutOfRange { token: 9999, .. } }));
    let error = block_on(house.runtime.embed(texts("one", &["text"]))).unwrap_err();
    assert!(matches!(error, RuntimeError::Catalog(_)), "{error}");
    let error = block_on(house.runtime.embed(texts("vectors", &["good", "<|step|>"]))).unwrap_err();
    assert!(matches!(error, RuntimeError::Engine(EngineError::Decode { .. })), "{error}");
    assert!(block_on(house.runtime.embed(texts("vectors", &["good"]))).is_ok());
}

#[test]
fn an_encoder_that_has_died_is_loaded_again() {
    let house = encoders();
    let error = block_on(house.runtime.embed(texts("vectors", &["<|panic|>"]))).unwrap_err();
    assert!(matches!(error, RuntimeError::Engine(EngineError::Died { .. })), "{error}");
    assert!(matches!(house.runtime.readiness(), Readiness::Degraded { .. }));
    assert!(block_on(house.runtime.embed(texts("vectors", &["good"]))).is_ok());
    assert_eq!(house.runtime.readiness(), Readiness::Ready);
}

#[test]
fn documents_are_ordered_by_their_scores() {
    let house = encoders();
    let call = RerankCall {
        model: Some("scores".into()),
        query: "abcd".into(),
        documents: ["xyz", "ab", "dcba", "ba"].map(String::from).to_vec(),
        top_n: None,
    };
    let ranking = block_on(house.runtime.rerank(call.clone())).unwrap();
    let order: Vec<(usize, f32)> = ranking.results.iter().map(|ranked| (ranked.document_idx, ranked.score)).collect();
    assert_eq!(order, [(2, 1.0), (1, 0.5), (3, 0.5), (0, 0.0)]);
    assert_eq!(ranking.prompt_tokens, 4 * (4 + 3) + 3 + 2 + 4 + 2);
    let capped = |top_n| RerankCall { top_n: Some(top_n), ..call.clone() };
    assert_eq!(block_on(house.runtime.rerank(capped(2))).unwrap().results.len(), 2);
    assert_eq!(block_on(house.runtime.rerank(capped(99))).unwrap().results.len(), 4);
    for (wrong, parameter) in [
        (capped(0), "top_n"),
        (RerankCall { query: String::new(), ..call.clone() }, "query"),
        (RerankCall { documents: Vec::new(), ..call.clone() }, "documents"),
    ] {
        let error = block_on(house.runtime.rerank(wrong)).unwrap_err();
        assert!(matches!(error, RuntimeError::InvalidParameter { parameter: at, .. } if at == parameter), "{error}");
    }
}

#[test]
fn encoders_are_told_of_and_make_room_like_any_model() {
    let house = encoders_with(ResidencyOptions { memory_budget_bytes: Some(1500), ..quick() });
    block_on(house.runtime.embed(texts("vectors", &["one", "two"]))).unwrap();
    let loaded = house.runtime.loaded();
    let task = &loaded.iter().find(|model| model.name == "vectors").unwrap().batched[0];
    assert_eq!((task.task, task.unit, task.stats.requests_done, task.stats.cost_done), ("embed", "tokens", 2, 10));
    block_on(house.runtime.rerank(RerankCall {
        model: Some("scores".into()),
        query: "a".into(),
        documents: vec!["b".into()],
        top_n: None,
    }))
    .unwrap();
    let names: Vec<String> = house.runtime.loaded().into_iter().map(|model| model.name).collect();
    assert_eq!(names, ["scores"]);
}

/// What the future ends with, and how often it let go of its thread.
fn drive<T>(future: impl Future<Output = T>) -> (T, usize) {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut n_waits = 0;
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(done) => return (done, n_waits),
            std::task::Poll::Pending => n_waits += 1,
        }
    }
}

#[test]
fn work_on_many_texts_lets_go_of_its_thread_now_and_then() {
    let house = encoders();
    let call = texts("vectors", &["some text"; 1000]);
    drive(house.runtime.lease(Some("vectors"), Usecase::Embeddings)).0.unwrap();
    let (pending, n_waits) = drive(house.runtime.begin_embed(call));
    assert!(n_waits >= 1000 / 64, "{n_waits}");
    assert_eq!(block_on(pending.unwrap().finish()).unwrap().vectors.len(), 1000);
    drive(house.runtime.lease(Some("scores"), Usecase::Rerank)).0.unwrap();
    let call = ranked("abcd", vec!["ab".to_owned(); 320]);
    let (pending, n_waits) = drive(house.runtime.begin_rerank(call));
    assert!(n_waits >= 320 / 16, "{n_waits}");
    assert_eq!(block_on(pending.unwrap().finish()).unwrap().n_scored, 320);
}

fn ranked(query: &str, documents: Vec<String>) -> RerankCall {
    RerankCall { model: Some("scores".into()), query: query.into(), documents, top_n: None }
}

#[test]
fn a_query_is_bounded_and_so_is_the_work_on_it() {
    let house = encoders();
    let error = block_on(house.runtime.rerank(ranked(&"a".repeat((4 << 20) + 1), vec!["b".into()]))).unwrap_err();
    assert!(matches!(error, RuntimeError::InvalidParameter { parameter: "query", .. }), "{error}");
    // The pairs are cut to 32 tokens, but a long query is tokenized once for each document.
    let many = ranked(&"a".repeat(10_000), vec!["b".to_owned(); 1000]);
    let error = block_on(house.runtime.rerank(many)).unwrap_err();
    let limit = 1 << 16;
    assert!(
        matches!(error, RuntimeError::Engine(EngineError::TooMuchAtOnce { cost, limit: found, .. })
            if found == limit && cost > limit && cost < limit + 11_000),
        "{error}"
    );
    let few = ranked(&"a".repeat(10_000), vec!["b".to_owned(); 3]);
    assert_eq!(block_on(house.runtime.rerank(few)).unwrap().n_cut, 3);
}
