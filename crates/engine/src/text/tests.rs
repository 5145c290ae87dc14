//! The engine thread from the outside: streams, limits, faults.

use std::time::Duration;

use futures_util::StreamExt;

use super::*;
use crate::fake::{
    Answers, FakeTokenizer, POISON_ABORT, POISON_NAN, POISON_PANIC, POISON_STEP, limits, next_of, start,
};
use crate::sampling::SamplingParams;
use crate::{Segment, TokenId};

fn request(prompt: &str, max_tokens: usize) -> GenerationRequest {
    let prompt = prompt.bytes().map(TokenId::from).collect();
    GenerationRequest { prompt, max_tokens: Some(max_tokens), ..GenerationRequest::default() }
}

fn collect(generation: Generation) -> Result<(String, Completion), EngineError> {
    let mut text = String::new();
    for event in generation {
        match event? {
            GenerationEvent::Piece(piece) => text += &piece.text,
            GenerationEvent::Done(completion) => return Ok((text, completion)),
        }
    }
    panic!("a generation ends with Done or an error")
}

/// The numbers once nothing runs any more; they are published at the step after the last answer.
fn settled(model: &TextModel) -> TextStats {
    let until = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let stats = model.stats();
        if stats.occupancy.running == 0 {
            return stats;
        }
        assert!(std::time::Instant::now() < until, "a slot was never freed: {stats:?}");
        std::thread::yield_now();
    }
}

/// What the fake model answers to `prompt` when nothing is cached.
fn expected_answer(prompt: &str, max_tokens: usize) -> String {
    let mut tokens: Vec<TokenId> = prompt.bytes().map(TokenId::from).collect();
    let n_prompt = tokens.len();
    while tokens.len() < n_prompt + max_tokens {
        match next_of(&tokens) {
            crate::fake::EOS => break,
            token => tokens.push(token),
        }
    }
    tokens[n_prompt..].iter().map(|&token| char::from(token as u8)).collect()
}

#[test]
fn many_clients_get_their_own_answers() {
    let model = start(limits(), 4, Answers::Hash).unwrap();
    let prompts: Vec<String> = (0..40).map(|idx| format!("a shared beginning, then {idx}")).collect();
    let generations: Vec<_> = prompts.iter().map(|prompt| model.submit(request(prompt, 20)).unwrap()).collect();
    for (prompt, generation) in prompts.iter().zip(generations) {
        let (text, completion) = collect(generation).unwrap();
        assert_eq!(text, expected_answer(prompt, 20), "answer to {prompt:?}");
        assert_eq!(completion.usage.prompt_tokens, prompt.len());
    }
    let stats = settled(&model);
    assert_eq!((stats.occupancy.waiting, stats.occupancy.cells_running), (0, 0));
    assert!(stats.prompt_tokens_cached > 39 * 20, "{stats:?}");
}

#[test]
fn answers_end_for_the_right_reason() {
    let said = "one two three";
    let cases = [
        (100, vec![], "one two three", FinishReason::Stop, 14),
        (5, vec![], "one t", FinishReason::Length, 5),
        (100, vec![" thr".to_owned()], "one two", FinishReason::Stop, 11),
        (100, vec!["absent".to_owned()], "one two three", FinishReason::Stop, 14),
    ];
    for (max_tokens, stop, text, reason, n_tokens) in cases {
        let model = start(limits(), 2, Answers::Text(said.into())).unwrap();
        let generation = model.submit(GenerationRequest { stop, ..request("hi", max_tokens) }).unwrap();
        let (got, completion) = collect(generation).unwrap();
        assert_eq!((got.as_str(), completion.reason), (text, reason));
        assert_eq!(completion.usage.completion_tokens, n_tokens);
    }
}

#[test]
fn an_ignored_end_goes_on_to_the_limit() {
    let model = start(limits(), 2, Answers::Text("ab".into())).unwrap();
    let request = GenerationRequest { end_of_generation: EndOfGeneration::Ignored, ..request("hi", 9) };
    let (_, completion) = collect(model.submit(request).unwrap()).unwrap();
    assert_eq!((completion.reason, completion.usage.completion_tokens), (FinishReason::Length, 9));
}

#[test]
fn a_stream_equals_the_iterator() {
    let model = start(limits(), 2, Answers::Hash).unwrap();
    let streamed: Vec<_> = futures_executor_block_on(model.submit(request("same", 30)).unwrap().collect());
    let iterated: Vec<_> = model.submit(request("same", 30)).unwrap().into_iter().collect();
    let text = |events: &[Result<GenerationEvent, EngineError>]| -> String {
        let pieces = events.iter().filter_map(|event| match event {
            Ok(GenerationEvent::Piece(piece)) => Some(piece.text.clone()),
            _ => None,
        });
        pieces.collect()
    };
    assert_eq!(text(&streamed), text(&iterated));
}

/// Polls on this thread; the engine thread wakes it.
fn futures_executor_block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn a_reader_that_goes_away_frees_its_slot_and_a_slow_one_harms_nobody() {
    let model = start(limits(), 2, Answers::Hash).unwrap();
    let endless = |text| GenerationRequest { end_of_generation: EndOfGeneration::Ignored, ..request(text, 300) };
    let slow = model.submit(endless("slow")).unwrap();
    let gone = model.submit(endless("gone")).unwrap();
    let waiting = model.submit(request("waits for a slot", 10)).unwrap();
    drop(gone);
    assert_eq!(collect(waiting).unwrap().0, expected_answer("waits for a slot", 10));
    let (_, completion) = collect(slow).unwrap();
    assert_eq!(completion.usage.completion_tokens, 300, "a slow reader loses nothing");
}

#[test]
fn a_full_queue_is_a_typed_refusal_and_a_group_is_all_or_nothing() {
    let config = TextConfig { max_waiting: 3, ..config("tight") };
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let model = TextModel::start(config, Arc::new(FakeTokenizer::default()), move |_| {
        Ok(Gate { inner: crate::fake::FakeDecoder::new(limits(), Answers::Hash), gate: receiver })
    })
    .unwrap();
    let three = model.submit_all(vec![request("a", 2); 3]).unwrap();
    let refused = model.submit_all(vec![request("b", 2); 2]).unwrap_err();
    assert!(matches!(refused, EngineError::Overloaded { limit: 3, retry_after_secs: 1.., .. }), "{refused}");
    drop(sender);
    three.into_iter().for_each(|generation| drop(collect(generation).unwrap()));
}

/// A decoder that waits before its first step until the test lets it go.
struct Gate {
    inner: crate::fake::FakeDecoder,
    gate: std::sync::mpsc::Receiver<()>,
}

impl Decoder for Gate {
    fn limits(&self) -> &DecoderLimits {
        self.inner.limits()
    }
    fn decode(&mut self, batch: &[crate::BatchToken]) -> Result<(), crate::DecodeError> {
        let _ = self.gate.recv();
        self.inner.decode(batch)
    }
    fn row(&mut self, entry_idx: usize) -> Result<&[f32], EngineError> {
        self.inner.row(entry_idx)
    }
    fn copy_prefix(&mut self, from: u32, to: u32, n_tokens: usize) -> Result<(), crate::CacheRefused> {
        self.inner.copy_prefix(from, to, n_tokens)
    }
    fn cut(&mut self, seq: u32, n_tokens: usize) -> Result<(), crate::CacheRefused> {
        self.inner.cut(seq, n_tokens)
    }
    fn clear(&mut self, seq: u32) {
        self.inner.clear(seq);
    }
    fn shift(&mut self, seq: u32, keep: usize, discard: usize) -> Result<(), crate::CacheRefused> {
        self.inner.shift(seq, keep, discard)
    }
    fn save(&mut self, seq: u32) -> Option<Vec<u8>> {
        self.inner.save(seq)
    }
    fn restore(&mut self, to: u32, state: &[u8]) -> Result<(), crate::CacheRefused> {
        self.inner.restore(to, state)
    }
    fn first_held(&self, seq: u32) -> usize {
        self.inner.first_held(seq)
    }
}

fn config(name: &str) -> TextConfig {
    TextConfig {
        speculation: crate::Speculation::default(),
        name: name.into(),
        n_slots: 1,
        max_waiting: 8,
        most_saved_bytes: 1 << 20,
        overflow: crate::ContextOverflow::Stop,
        chat_template: None,
        architecture: "fake".into(),
    }
}

#[test]
fn a_failed_step_costs_its_requests_only() {
    let model = start(limits(), 1, Answers::Hash).unwrap();
    for poison in [POISON_STEP, POISON_NAN] {
        let poisoned = GenerationRequest { prompt: vec![1, poison], ..GenerationRequest::default() };
        assert!(collect(model.submit(poisoned).unwrap()).is_err(), "poison {poison}");
        let (text, _) = collect(model.submit(request("still alive", 5)).unwrap()).unwrap();
        assert_eq!(text, expected_answer("still alive", 5));
        assert_eq!(model.health(), Health::Alive);
    }
}

#[test]
fn a_dead_engine_ends_every_request_and_takes_no_more() {
    for poison in [POISON_PANIC, POISON_ABORT] {
        let model = start(limits(), 1, Answers::Hash).unwrap();
        let poisoned = GenerationRequest { prompt: vec![1, poison], ..GenerationRequest::default() };
        let first = model.submit(poisoned).unwrap();
        let second = model.submit(request("queued behind it", 5));
        assert!(matches!(collect(first), Err(EngineError::Died { .. })), "poison {poison}");
        if let Ok(second) = second {
            assert!(matches!(collect(second), Err(EngineError::Died { .. })), "poison {poison}");
        }
        assert!(matches!(model.submit(request("later", 5)), Err(EngineError::Died { .. })));
        assert!(matches!(model.health(), Health::Dead { .. }));
    }
}

#[test]
fn three_failed_steps_in_a_row_are_death() {
    let model = start(limits(), 1, Answers::Hash).unwrap();
    for _ in 0..3 {
        let poisoned = GenerationRequest { prompt: vec![1, POISON_STEP], ..GenerationRequest::default() };
        assert!(model.submit(poisoned).and_then(collect).is_err());
    }
    // The third failure is reported to its request first; the next request meets the dead engine.
    assert!(model.submit(request("later", 5)).and_then(collect).is_err());
    assert!(matches!(model.health(), Health::Dead { .. }));
}

#[test]
fn unloading_tells_whoever_still_waits() {
    let model = start(limits(), 1, Answers::Hash).unwrap();
    let endless = GenerationRequest { end_of_generation: EndOfGeneration::Ignored, ..request("x", 400) };
    let running = model.submit(endless).unwrap();
    drop(model);
    assert!(matches!(collect(running), Err(EngineError::Unloaded { .. })));
}

#[test]
fn a_model_that_cannot_be_built_says_why() {
    let tokenizer = || Arc::new(FakeTokenizer::default());
    let failed = TextModel::start(config("bad"), tokenizer(), |_| {
        Err::<crate::fake::FakeDecoder, _>(EngineError::Load { path: "x".into(), reason: "no".into() })
    });
    assert!(matches!(failed, Err(EngineError::Load { .. })));
    let panicked = TextModel::start(config("worse"), tokenizer(), |_| -> Result<crate::fake::FakeDecoder, _> {
        panic!("while building")
    });
    assert!(matches!(panicked, Err(EngineError::Died { reason, .. }) if reason.contains("while building")));
}

#[test]
fn requests_that_cannot_work_are_refused_before_they_are_queued() {
    let model = start(limits(), 1, Answers::Hash).unwrap();
    let with_prompt = |prompt| GenerationRequest { prompt, ..GenerationRequest::default() };
    assert!(matches!(model.submit(with_prompt(vec![])), Err(EngineError::EmptyPrompt)));
    assert!(matches!(
        model.submit(with_prompt(vec![1; 600])),
        Err(EngineError::ContextLengthExceeded { prompt_tokens: 600, context_tokens: 512 })
    ));
    assert!(matches!(model.submit(with_prompt(vec![9999])), Err(EngineError::TokenOutOfRange { token: 9999, .. })));
    for bad in [(f32::NAN, 1), (-1.0, 1), (0.5, 9999)] {
        let sampling =
            SamplingParams { temperature: bad.0, logit_bias: vec![(bad.1, 1.0)], ..SamplingParams::greedy() };
        let refused = model.submit(GenerationRequest { sampling, ..with_prompt(vec![1]) });
        assert!(matches!(refused, Err(EngineError::Sampling(_))), "{bad:?}");
    }
}

#[test]
fn control_tokens_are_hidden_unless_asked_for() {
    let model = start(limits(), 1, Answers::Text("ab".into())).unwrap();
    let tokens = model.tokenizer().tokenize(&[Segment::parse("x<|im_start|>")], crate::Surround::Nothing).unwrap();
    assert_eq!(tokens.len(), 2);
    let (text, completion) = collect(model.submit(request("x", 10)).unwrap()).unwrap();
    assert_eq!((text.as_str(), completion.usage.completion_tokens), ("ab", 3));
    assert!(completion.timings.generation < Duration::from_secs(60));
}

#[test]
fn a_text_that_repeats_itself_takes_fewer_steps_and_is_the_same() {
    let said = "so it goes on and on, ".repeat(12);
    let roomy = DecoderLimits { n_seqs: 32, ..limits() };
    let model = start(roomy, 2, Answers::Text(said.clone())).unwrap();
    for kind in [EndOfGeneration::Stops, EndOfGeneration::Ignored] {
        let before = model.stats();
        let sent = GenerationRequest { end_of_generation: kind, ..request("hi", said.len()) };
        let (text, completion) = collect(model.submit(sent).unwrap()).unwrap();
        assert_eq!((text.as_str(), completion.usage.completion_tokens), (said.as_str(), said.len()));
        let after = model.stats();
        let (n_guesses, n_right) = (after.guesses - before.guesses, after.guesses_right - before.guesses_right);
        assert!(n_right > 0 && n_right <= n_guesses, "{n_right} of {n_guesses} guesses were right");
        assert_eq!(after.steps - before.steps, said.len() as u64 - n_right, "a right guess saves a step");
    }
    // A seed makes an answer depend on nothing else.
    let before = model.stats().guesses;
    let mut seeded = request("hi", said.len());
    seeded.sampling.seed = Some(3);
    collect(model.submit(seeded).unwrap()).unwrap();
    assert_eq!(model.stats().guesses, before);
}
