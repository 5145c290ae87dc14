//! Answers under a constraint, through the engine thread.

use std::sync::mpsc::{self, Receiver, Sender};

use super::*;
use crate::fake::{Answers, EOS, FakeTokenizer, limits, start};
use crate::sampling::SamplingParams;
use crate::{Allowed, Constraint, ConstraintError, ConstraintHandle, TokenId, Tokenizer};

/// What a test constraint does when it is asked for a mask.
#[derive(Clone)]
enum Behaviour {
    /// Digits; after this many the text is complete.
    Digits(usize),
    /// Digits, the end allowed after the first.
    OpenEnd,
    /// An error at the second token.
    Fails,
    /// A panic at the second token.
    Panics,
    /// A digit of choice behind each run of so many zeros; after so many digits the text is complete.
    Forces { run: usize, n: usize },
    /// Digits, each mask after a word from the test.
    Waits(std::sync::Arc<Mutex<Receiver<()>>>),
}

#[derive(Clone)]
struct Digits {
    behaviour: Behaviour,
    n_accepted: usize,
}

fn digits(with_end: bool) -> Allowed {
    let mut mask = vec![0_u32; FakeTokenizer::default().n_vocab().div_ceil(32)];
    let mut set = |token: TokenId| mask[token as usize / 32] |= 1 << (token % 32);
    (b'0'..=b'9').for_each(|byte| set(byte.into()));
    if with_end {
        set(EOS);
    }
    Allowed::These(mask.into())
}

impl Constraint for Digits {
    fn allowed(&mut self) -> Result<Allowed, ConstraintError> {
        match &self.behaviour {
            Behaviour::Digits(n) if *n == self.n_accepted => Ok(Allowed::Nothing),
            Behaviour::Digits(_) => Ok(digits(false)),
            Behaviour::OpenEnd => Ok(digits(self.n_accepted > 0)),
            Behaviour::Fails if self.n_accepted > 0 => Err(ConstraintError { reason: "a limit".into() }),
            Behaviour::Panics if self.n_accepted > 0 => panic!("a test"),
            Behaviour::Fails | Behaviour::Panics => Ok(digits(false)),
            Behaviour::Forces { n, .. } if *n <= self.n_accepted => Ok(Allowed::Nothing),
            Behaviour::Forces { .. } => Ok(digits(false)),
            Behaviour::Waits(words) => {
                let words = lock(words);
                words.recv().map_err(|_| ConstraintError { reason: "the test has ended".into() })?;
                Ok(digits(false))
            }
        }
    }

    fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError> {
        assert!((u32::from(b'0')..=u32::from(b'9')).contains(&token), "only what was allowed is accepted");
        self.n_accepted += 1;
        Ok(())
    }

    fn forced(&mut self) -> Vec<TokenId> {
        match self.behaviour {
            Behaviour::Forces { run, n } => {
                let left = run - self.n_accepted % (run + 1);
                vec![b'0'.into(); left.min(n - self.n_accepted)]
            }
            _ => Vec::new(),
        }
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }

    fn rollback(&mut self, n_tokens: usize) -> Result<(), ConstraintError> {
        self.n_accepted -= n_tokens;
        Ok(())
    }
}

fn request(prompt: &str, behaviour: Option<Behaviour>) -> GenerationRequest {
    let constraint = behaviour.map(|behaviour| ConstraintHandle(Box::new(Digits { behaviour, n_accepted: 0 })));
    GenerationRequest {
        prompt: prompt.bytes().map(TokenId::from).collect(),
        sampling: SamplingParams { temperature: 1.5, seed: Some(1), ..SamplingParams::default() },
        max_tokens: Some(20),
        constraint,
        ..GenerationRequest::default()
    }
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

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[test]
fn only_what_is_allowed_is_said() {
    let model = start(limits(), 4, Answers::Hash).unwrap();
    let kinds = [None, Some(Behaviour::Digits(7)), Some(Behaviour::OpenEnd), Some(Behaviour::Digits(1000))];
    let generations: Vec<_> = (0..24)
        .map(|idx| model.submit(request(&format!("prompt {idx}"), kinds[idx % kinds.len()].clone())).unwrap())
        .collect();
    for (idx, generation) in generations.into_iter().enumerate() {
        let (text, completion) = collect(generation).unwrap();
        match idx % kinds.len() {
            0 => {}
            1 => assert!(all_digits(&text) && text.len() == 7 && completion.reason == FinishReason::Stop, "{text}"),
            2 => assert!(all_digits(&text), "{text}"),
            _ => assert!(all_digits(&text) && completion.reason == FinishReason::Length, "{text}"),
        }
    }
}

#[test]
fn what_must_follow_is_taken_without_a_step_each() {
    let model = start(limits(), 4, Answers::Hash).unwrap();
    let long = |run, n, max_tokens| GenerationRequest {
        max_tokens: Some(max_tokens),
        ..request("prompt", Some(Behaviour::Forces { run, n }))
    };
    let zeros_but = |text: &str, run: usize| {
        text.bytes().enumerate().all(|(idx, digit)| digit.is_ascii_digit() && (idx % (run + 1) == run || digit == b'0'))
    };
    let before = model.stats().steps;
    let (text, completion) = collect(model.submit(long(9, 100, 200)).unwrap()).unwrap();
    assert!(text.len() == 100 && zeros_but(&text, 9), "{text}");
    assert_eq!((completion.usage.completion_tokens, completion.reason), (100, FinishReason::Stop));
    let n_steps = model.stats().steps - before;
    assert!((10..=32).contains(&n_steps), "{n_steps} steps for ten choices");
    // The limit may fall into a run, a run may be longer than what a step takes, and others go on beside it.
    let others: Vec<_> = (0..4).map(|idx| model.submit(request(&format!("other {idx}"), None)).unwrap()).collect();
    let cases = [(9, 100, 15), (300, 400, 350), (150, 151, 200), (1, 40, 40)];
    let open: Vec<_> = cases.map(|(run, n, most)| model.submit(long(run, n, most)).unwrap()).into_iter().collect();
    for ((run, n, most), generation) in cases.into_iter().zip(open) {
        let (text, _) = collect(generation).unwrap();
        assert!(text.len() == n.min(most) && zeros_but(&text, run), "{run}, {n}, {most}: {text}");
    }
    others.into_iter().for_each(|other| drop(collect(other).unwrap()));
    // Probabilities are of tokens that were sampled.
    let mut asked = long(9, 20, 50);
    asked.sampling.top_logprobs = Some(1);
    let before = model.stats().steps;
    assert_eq!(collect(model.submit(asked).unwrap()).unwrap().0.len(), 20);
    assert!(model.stats().steps - before >= 20);
}

#[test]
fn guesses_are_held_to_the_constraint() {
    let roomy = || crate::DecoderLimits { n_seqs: 32, ..limits() };
    let greedy = |behaviour| GenerationRequest {
        sampling: SamplingParams::greedy(),
        max_tokens: Some(150),
        ..request("hi", Some(behaviour))
    };
    let said = "0123456789".repeat(12);
    let model = start(roomy(), 2, Answers::Text(said.clone())).unwrap();
    for (behaviour, n) in [(Behaviour::Digits(100), 100), (Behaviour::Digits(37), 37), (Behaviour::OpenEnd, 120)] {
        let before = model.stats();
        let (text, completion) = collect(model.submit(greedy(behaviour)).unwrap()).unwrap();
        assert_eq!((text.as_str(), completion.reason), (&said[..n], FinishReason::Stop));
        let after = model.stats();
        assert!(after.guesses_right > before.guesses_right, "{after:?}");
        assert!(after.steps - before.steps < n as u64, "{after:?}");
    }
    // What must follow is not asked for, and shows where the text has been before all the same.
    let (text, _) = collect(model.submit(greedy(Behaviour::Forces { run: 4, n: 100 })).unwrap()).unwrap();
    assert!(text.len() == 100 && text.starts_with("0000"), "{text}");
    // A mask that comes late ends what was guessed, and nothing else.
    let (say, words): (Sender<()>, Receiver<()>) = mpsc::channel();
    let late = model.submit(greedy(Behaviour::Waits(std::sync::Arc::new(Mutex::new(words))))).unwrap();
    let speaker = std::thread::spawn(move || {
        for n in 0..150 {
            if n % 7 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(8));
            }
            if say.send(()).is_err() {
                return;
            }
        }
    });
    let (text, _) = collect(late).unwrap();
    assert!(text.starts_with(&said) && all_digits(&text), "{text}");
    speaker.join().unwrap();
    // The model wants letters, and its guesses are digits all the same.
    let model = start(roomy(), 2, Answers::Text("so it goes on ".repeat(12))).unwrap();
    let (text, _) = collect(model.submit(greedy(Behaviour::Digits(140))).unwrap()).unwrap();
    assert!(all_digits(&text) && text.len() == 140, "{text}");
}

#[test]
fn answers_of_one_request_each_have_their_own_constraint() {
    let model = start(limits(), 4, Answers::Hash).unwrap();
    let one = request("prompt", Some(Behaviour::Digits(5)));
    for generation in model.submit_all(vec![one.clone(), one.clone(), one]).unwrap() {
        assert_eq!(collect(generation).unwrap().0.len(), 5);
    }
}

#[test]
fn a_constraint_that_fails_costs_its_request_only() {
    let model = start(limits(), 4, Answers::Hash).unwrap();
    let failing = [Behaviour::Fails, Behaviour::Panics].map(|behaviour| model.submit(request("x", Some(behaviour))));
    let fine = model.submit(request("y", Some(Behaviour::Digits(9)))).unwrap();
    for generation in failing {
        let error = collect(generation.unwrap()).unwrap_err();
        assert!(matches!(error, EngineError::Constraint(_)), "{error}");
    }
    assert_eq!(collect(fine).unwrap().0.len(), 9);
    assert_eq!(model.health(), Health::Alive);
}

#[test]
fn a_late_mask_holds_nobody_else_up() {
    let model = start(limits(), 4, Answers::Hash).unwrap();
    let (say, words): (Sender<()>, Receiver<()>) = mpsc::channel();
    let late = Behaviour::Waits(std::sync::Arc::new(Mutex::new(words)));
    let late = model.submit(request("late", Some(late))).unwrap();
    // Answers without a constraint end although no mask has come.
    for idx in 0..8 {
        collect(model.submit(request(&format!("other {idx}"), None)).unwrap()).unwrap();
    }
    (0..20).for_each(|_| say.send(()).unwrap());
    let (text, completion) = collect(late).unwrap();
    assert!(all_digits(&text) && completion.reason == FinishReason::Length, "{text}");
}

#[test]
fn a_reader_that_leaves_a_late_answer_frees_its_slot() {
    let model = start(limits(), 1, Answers::Hash).unwrap();
    let (say, words): (Sender<()>, Receiver<()>) = mpsc::channel();
    let late = Behaviour::Waits(std::sync::Arc::new(Mutex::new(words)));
    drop(model.submit(request("late", Some(late))).unwrap());
    collect(model.submit(request("next", None)).unwrap()).unwrap();
    drop(say);
}
