use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use futures_util::FutureExt;

use super::*;

/// A request of this cost; what the model does with it.
#[derive(Debug, Clone)]
enum Ask {
    /// Answers the number.
    Echo(usize),
    /// Fails.
    Fail,
    /// Panics.
    Panic,
    /// Runs until its step is in vain.
    Linger,
    /// Declares the engine dead and answers nothing.
    Abort,
    /// Says that it runs and waits at the barrier.
    Wait(Arc<Barrier>),
}

impl Cost for Ask {
    fn cost(&self) -> usize {
        match self {
            Self::Echo(number) => *number,
            Self::Fail | Self::Panic | Self::Linger | Self::Abort | Self::Wait(_) => 1,
        }
    }
}

struct Model {
    faults: FaultReporter,
    /// Told the size of each step.
    steps: mpsc::Sender<Vec<usize>>,
    n_lingered: Arc<AtomicUsize>,
}

impl BatchModel for Model {
    type Request = Ask;
    type Response = usize;

    fn run(&mut self, batch: &[Ask], interrupt: &Interrupt<'_>) -> Result<Vec<usize>, EngineError> {
        let _ = self.steps.send(batch.iter().map(Cost::cost).collect());
        for ask in batch {
            match ask {
                Ask::Echo(_) => {}
                Ask::Fail => return Err(EngineError::Decode { reason: "asked to fail".into() }),
                Ask::Panic => panic!("asked to panic"),
                Ask::Abort => {
                    self.faults.report("aborted");
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ask::Linger => {
                    while !interrupt.is_raised() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    self.n_lingered.fetch_add(1, Ordering::SeqCst);
                    return Err(EngineError::Decode { reason: "interrupted".into() });
                }
                Ask::Wait(barrier) => {
                    barrier.wait();
                    barrier.wait();
                }
            }
        }
        Ok(batch.iter().map(Cost::cost).collect())
    }
}

struct Started {
    thread: BatchThread<Ask, usize>,
    steps: mpsc::Receiver<Vec<usize>>,
    n_lingered: Arc<AtomicUsize>,
}

fn start(step_budget: usize, max_waiting: usize) -> Started {
    let (sender, steps) = mpsc::channel();
    let n_lingered = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&n_lingered);
    let config = BatchConfig { name: "m".into(), unit: "tokens", step_budget, max_waiting, max_waiting_cost: 10_000 };
    let thread = BatchThread::start(config, move |faults| Ok(Model { faults, steps: sender, n_lingered: counter }));
    Started { thread: thread.expect("it starts"), steps, n_lingered }
}

impl Started {
    fn submit(&self, asks: Vec<Ask>) -> Pending<usize> {
        self.thread.submit(asks, None).expect("there is room")
    }

    /// Keeps the thread busy until the second wait.
    fn hold(&self) -> (Arc<Barrier>, Pending<usize>) {
        let barrier = Arc::new(Barrier::new(2));
        let held = self.submit(vec![Ask::Wait(Arc::clone(&barrier))]);
        barrier.wait();
        (barrier, held)
    }
}

#[test]
fn responses_come_in_the_order_of_the_requests() {
    let started = start(10, 8);
    let numbers: Vec<usize> = (1..50).collect();
    let answered = started.submit(numbers.iter().map(|&number| Ask::Echo(number)).collect()).wait().unwrap();
    assert_eq!(answered.responses, numbers);
    assert!(answered.waited <= answered.took);
    let stats = started.thread.stats();
    assert_eq!(stats.requests_done, 49);
    assert_eq!(stats.cost_done, numbers.iter().sum::<usize>() as u64);
    assert_eq!((stats.waiting, stats.running), (0, 0));
    assert!(started.submit(Vec::new()).wait().unwrap().responses.is_empty());
}

#[test]
fn calls_share_a_step_in_turn_and_within_the_budget() {
    let started = start(10, 8);
    let (barrier, held) = started.hold();
    let large = started.submit(vec![Ask::Echo(3); 4]);
    let small = started.submit(vec![Ask::Echo(2)]);
    let huge = started.submit(vec![Ask::Echo(99)]);
    assert_eq!(started.thread.stats().waiting, 3);
    barrier.wait();
    for pending in [held, large, small, huge] {
        pending.wait().unwrap();
    }
    let steps: Vec<Vec<usize>> = started.steps.try_iter().collect();
    // The small call does not wait for all of the large one, and what is too large for any step runs alone.
    assert_eq!(steps, [vec![1], vec![3, 2], vec![99], vec![3, 3, 3]]);
}

#[test]
fn a_failing_request_fails_its_own_call_only() {
    let started = start(10, 8);
    let (barrier, held) = started.hold();
    let good = started.submit(vec![Ask::Echo(2), Ask::Echo(3)]);
    let bad = started.submit(vec![Ask::Echo(1), Ask::Fail]);
    barrier.wait();
    assert!(held.wait().is_ok());
    assert_eq!(good.wait().unwrap().responses, [2, 3]);
    assert!(matches!(bad.wait(), Err(EngineError::Decode { .. })));
    assert_eq!(started.thread.health(), Health::Alive);
}

#[test]
fn a_full_queue_refuses_and_calls_that_were_given_up_make_room() {
    let started = start(10, 2);
    let (barrier, held) = started.hold();
    let kept = started.submit(vec![Ask::Echo(1)]);
    let given_up = started.submit(vec![Ask::Echo(2)]);
    let refused = started.thread.submit(vec![Ask::Echo(3)], None);
    assert!(matches!(refused, Err(EngineError::Overloaded { waiting: 2, limit: 2, .. })));
    let never = started.thread.submit(vec![Ask::Echo(10_001)], None);
    assert!(matches!(never, Err(EngineError::TooMuchAtOnce { cost: 10_001, limit: 10_000, unit: "tokens" })));
    drop(given_up);
    let third = started.submit(vec![Ask::Echo(4)]);
    barrier.wait();
    assert!(held.wait().is_ok());
    assert_eq!(kept.wait().unwrap().responses, [1]);
    assert_eq!(third.wait().unwrap().responses, [4]);
    let steps: Vec<Vec<usize>> = started.steps.try_iter().collect();
    assert_eq!(steps, [vec![1], vec![1, 4]], "nobody computes what was given up");
}

#[test]
fn a_step_that_nobody_waits_for_is_interrupted() {
    let started = start(10, 8);
    let lingering = started.submit(vec![Ask::Linger]);
    started.steps.recv().unwrap();
    drop(lingering);
    assert_eq!(started.submit(vec![Ask::Echo(5)]).wait().unwrap().responses, [5]);
    assert_eq!(started.n_lingered.load(Ordering::SeqCst), 1);
}

#[test]
fn a_step_whose_callers_are_out_of_time_is_interrupted() {
    let started = start(10, 8);
    let limit = Some(Duration::from_millis(20));
    let late = started.thread.submit(vec![Ask::Linger], limit).unwrap();
    assert!(matches!(late.wait(), Err(EngineError::TookTooLong { .. })));
    assert_eq!(started.submit(vec![Ask::Echo(5)]).wait().unwrap().responses, [5]);
    assert_eq!(started.n_lingered.load(Ordering::SeqCst), 1);
}

#[test]
fn a_call_that_takes_too_long_ends() {
    let started = start(10, 8);
    let (barrier, held) = started.hold();
    let late = started.thread.submit(vec![Ask::Echo(1)], Some(Duration::ZERO)).unwrap();
    barrier.wait();
    assert!(held.wait().is_ok());
    assert!(matches!(late.wait(), Err(EngineError::TookTooLong { .. })));
}

#[test]
fn a_panic_ends_every_call_and_the_engine_is_dead() {
    let started = start(10, 8);
    let (barrier, held) = started.hold();
    let panicking = started.submit(vec![Ask::Panic]);
    let beside = started.submit(vec![Ask::Echo(20)]);
    barrier.wait();
    assert!(held.wait().is_ok());
    for pending in [panicking, beside] {
        let error = pending.wait().unwrap_err();
        assert!(matches!(&error, EngineError::Died { reason, .. } if reason.contains("asked to panic")), "{error}");
    }
    assert!(matches!(started.thread.health(), Health::Dead { .. }));
    assert!(matches!(started.thread.submit(vec![Ask::Echo(1)], None), Err(EngineError::Died { .. })));
}

#[test]
fn an_engine_that_is_declared_dead_ends_every_call() {
    let started = start(10, 8);
    let error = started.submit(vec![Ask::Abort]).wait().unwrap_err();
    assert!(matches!(&error, EngineError::Died { reason, .. } if reason == "aborted"), "{error}");
}

#[test]
fn closing_ends_what_runs_and_waits() {
    let started = start(10, 8);
    let running = started.submit(vec![Ask::Linger]);
    started.steps.recv().unwrap();
    let waiting = started.submit(vec![Ask::Echo(1)]);
    started.thread.close();
    for pending in [running, waiting] {
        assert!(matches!(pending.wait(), Err(EngineError::Unloaded { .. })));
    }
    assert!(matches!(started.thread.submit(vec![Ask::Echo(1)], None), Err(EngineError::Unloaded { .. })));
    drop(started.thread);
}

#[test]
fn the_last_handle_ends_the_model() {
    let started = start(10, 8);
    let pending = started.submit(vec![Ask::Linger]);
    let other = started.thread.clone();
    drop(started.thread);
    assert_eq!(other.health(), Health::Alive);
    drop(other);
    assert!(matches!(pending.wait(), Err(EngineError::Unloaded { .. })));
}

#[test]
fn a_pending_call_is_a_future() {
    let started = start(10, 8);
    let (barrier, held) = started.hold();
    let mut pending = started.submit(vec![Ask::Echo(7)]);
    assert!((&mut pending).now_or_never().is_none());
    barrier.wait();
    held.wait().unwrap();
    let answered = futures_util::future::FutureExt::map(pending, |answered| answered.unwrap().responses);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let waker = std::task::Waker::noop();
        let mut future = Box::pin(answered);
        let mut context = std::task::Context::from_waker(waker);
        while future.as_mut().poll_unpin(&mut context).is_pending() {
            std::thread::yield_now();
        }
        let _ = sender.send(());
    });
    receiver.recv_timeout(Duration::from_secs(5)).expect("it ends");
}

#[test]
fn a_model_that_cannot_be_built_is_an_error() {
    let config =
        || BatchConfig { name: "m".into(), unit: "tokens", step_budget: 1, max_waiting: 1, max_waiting_cost: 1 };
    let refused = BatchThread::start(config(), |_| -> Result<Model, EngineError> { Err(EngineError::EmptyPrompt) });
    assert!(matches!(refused, Err(EngineError::EmptyPrompt)));
    let panicked = BatchThread::start(config(), |_| -> Result<Model, EngineError> { panic!("no") });
    assert!(matches!(panicked, Err(EngineError::Died { .. })));
}
