//! The processor's cores, shared by all engines of the process.
//!
//! ggml's compute threads wait for each other by spinning, hundreds of times for one token. With more of them than cores
//! every such wait takes a time slice of the operating system, and two models that answer at once stand almost still. So
//! the engines take turns: a step begins when there are cores for all of its threads, first come, first served.
//!
//! Backends know nothing of each other, so the gate lives here: llama.cpp's steps and those of the encoders in Rust wait
//! in one line. An engine whose steps are long gives its cores back in the middle of them now and then.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// Cores that are free, and who is next.
#[derive(Debug)]
struct Gate {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug)]
struct State {
    n_cores: usize,
    n_free: usize,
    /// The next number to give out, and the one that goes in next.
    next: u64,
    serving: u64,
}

/// One engine's place at the gate of this process, which has as many cores as the process may use.
#[derive(Debug)]
pub struct Seat {
    gate: &'static Gate,
    /// Cores that the engine uses now.
    n_held: AtomicUsize,
}

impl Gate {
    const fn new(n_cores: usize) -> Self {
        let state = State { n_cores, n_free: n_cores, next: 0, serving: 0 };
        Self { state: Mutex::new(state), moved: Condvar::new() }
    }

    /// The gate of this process: as many cores as it may use.
    fn of_process() -> &'static Self {
        static GATE: OnceLock<Gate> = OnceLock::new();
        GATE.get_or_init(|| Self::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `n_threads` cores, or for all there are if that is more; how many it got.
    fn enter(&self, n_threads: usize) -> usize {
        let mut state = self.lock();
        let n_cores = n_threads.clamp(1, state.n_cores);
        let number = state.next;
        state.next += 1;
        while state.serving != number || state.n_free < n_cores {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.serving += 1;
        state.n_free -= n_cores;
        let goes_on = state.n_free > 0 && state.serving < state.next;
        drop(state);
        if goes_on {
            self.moved.notify_all();
        }
        n_cores
    }

    /// As [`Self::enter`] where nobody has to be waited for; `None` otherwise.
    fn try_enter(&self, n_threads: usize) -> Option<usize> {
        let mut state = self.lock();
        let n_cores = n_threads.clamp(1, state.n_cores);
        if state.serving != state.next || state.n_free < n_cores {
            return None;
        }
        state.n_free -= n_cores;
        Some(n_cores)
    }

    fn leave(&self, n_cores: usize) {
        let mut state = self.lock();
        state.n_free += n_cores;
        let has_waiters = state.serving < state.next;
        drop(state);
        if has_waiters {
            self.moved.notify_all();
        }
    }
}

impl Default for Seat {
    fn default() -> Self {
        Self::new()
    }
}

/// Gives the cores back however the work ends, by a panic too.
struct Leaving<'a>(&'a Seat);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Seat {
    /// A place that holds no cores yet.
    pub fn new() -> Self {
        Self { gate: Gate::of_process(), n_held: AtomicUsize::new(0) }
    }

    /// Waits for `n_threads` cores, or for all there are if that is more, and runs `work` with them. One call at a time.
    pub fn with_cores<T>(&self, n_threads: usize, work: impl FnOnce() -> T) -> T {
        self.n_held.store(self.gate.enter(n_threads), Ordering::Release);
        let _leaving = Leaving(self);
        work()
    }

    /// As [`Self::with_cores`] where the cores are free and nobody waits for them; otherwise `work` is not run.
    pub fn with_free_cores<T>(&self, n_threads: usize, work: impl FnOnce() -> T) -> Option<T> {
        self.n_held.store(self.gate.try_enter(n_threads)?, Ordering::Release);
        let _leaving = Leaving(self);
        Some(work())
    }

    /// Gives the cores back before the work has ended: by whoever hears that the engine has died in the middle of it.
    pub fn leave(&self) {
        let n_cores = self.n_held.swap(0, Ordering::AcqRel);
        if n_cores > 0 {
            self.gate.leave(n_cores);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_never_promised_twice_and_nobody_is_passed_by() {
        let gate = Gate::new(4);
        let (used, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for n_threads in [1, 2, 3, 4, 9, 0, 2, 4] {
                let (gate, used, most) = (&gate, &used, &most);
                scope.spawn(move || {
                    for _ in 0..500 {
                        let n_cores = gate.enter(n_threads);
                        let now = used.fetch_add(n_cores, Ordering::SeqCst) + n_cores;
                        most.fetch_max(now, Ordering::SeqCst);
                        std::hint::spin_loop();
                        used.fetch_sub(n_cores, Ordering::SeqCst);
                        gate.leave(n_cores);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 4);
        let state = gate.lock();
        assert_eq!((state.n_free, state.serving), (4, state.next));
    }

    #[test]
    fn an_engine_that_dies_in_the_middle_gives_its_cores_back() {
        static GATE: Gate = Gate::new(2);
        let seat = Seat { gate: &GATE, n_held: AtomicUsize::new(0) };
        seat.with_cores(2, || {
            assert_eq!(GATE.lock().n_free, 0);
            seat.leave();
            assert_eq!(GATE.lock().n_free, 2);
        });
        assert_eq!(GATE.lock().n_free, 2, "they are given back once");
    }

    #[test]
    fn who_does_not_want_to_wait_gets_free_cores_only() {
        static GATE: Gate = Gate::new(2);
        let [one, other] = [(); 2].map(|()| Seat { gate: &GATE, n_held: AtomicUsize::new(0) });
        let found = one.with_cores(1, || (other.with_free_cores(2, || ()), other.with_free_cores(1, || 7)));
        assert_eq!(found, (None, Some(7)));
        assert_eq!(other.with_free_cores(9, || GATE.lock().n_free), Some(0));
        assert_eq!(GATE.lock().n_free, 2);
    }

    #[test]
    fn a_panic_gives_the_cores_back() {
        static GATE: Gate = Gate::new(2);
        let seat = Seat { gate: &GATE, n_held: AtomicUsize::new(0) };
        let panicked = std::panic::catch_unwind(|| seat.with_cores(1, || panic!("asked to panic")));
        assert!(panicked.is_err());
        assert_eq!(GATE.lock().n_free, 2);
    }
}
