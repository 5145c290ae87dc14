//! Who pays for an abort inside ggml.
//!
//! ggml's abort callback is process-wide, gets only a message, and the process ends when it returns. So every thread
//! that works for an engine is tagged with a [`FaultDomain`]; the callback reports to the domain of its thread and
//! then never returns. An abort on a thread without a tag is charged to every domain there is. The other threads of
//! the domain, which spin at a barrier that nobody will pass any more, are put to sleep for good by a signal.
//!
//! Some errors of a GPU stay: every later call of its interface in this process fails with the same. Such an abort poisons
//! the process ([`poison`]), and what starts it has to start it again.

use std::cell::RefCell;
use std::ffi::{CStr, c_char};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use crate::exit::Calls;
use crate::ffi::sys;

type Sink = Box<dyn Fn(&str) + Send + Sync>;

/// Time for the other threads of a dead engine to reach a point where they hold no lock of the C library.
const BURIAL_DELAY: Duration = Duration::from_secs(2);

struct Inner {
    /// Told about the fault; replaced when the model passes from its loader to its engine.
    sink: Mutex<Sink>,
    /// Threads that work for this domain.
    threads: Mutex<Vec<libc::pthread_t>>,
    calls: Arc<Calls>,
}

/// The threads of one model, and who is told when one of them aborts.
#[derive(Clone)]
pub(crate) struct FaultDomain(Arc<Inner>);

thread_local! {
    static CURRENT: RefCell<Option<FaultDomain>> = const { RefCell::new(None) };
}

/// Every domain, for faults on threads without a tag. A part of llama.cpp's process-wide initialisation.
static DOMAINS: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());
static HANDLERS: OnceLock<()> = OnceLock::new();
/// The first error of a device that stays. A device's state belongs to the process, so this does too.
static POISON: OnceLock<String> = OnceLock::new();

/// Why no GPU can be used any more in this process.
pub(crate) fn poison() -> Option<&'static str> {
    POISON.get().map(String::as_str)
}

/// What an abort with this message says of the device: `error` is the latest line about one on the thread that aborts.
/// Memory that cannot be had leaves the device as it was.
fn poison_of<'a>(message: &str, error: Option<&'a str>) -> Option<&'a str> {
    let error = error?;
    let (device, what) = error.split_once(" error: ")?;
    let is_of_device = message.trim_end().ends_with(&format!("{device} error"));
    (is_of_device && !what.contains("out of memory")).then_some(error)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data behind these locks is valid after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FaultDomain {
    /// A domain without threads.
    pub(crate) fn new(sink: Sink) -> Self {
        let inner = Arc::new(Inner { sink: Mutex::new(sink), threads: Mutex::default(), calls: Arc::default() });
        let mut domains = lock(&DOMAINS);
        domains.retain(|domain| domain.strong_count() > 0);
        domains.push(Arc::downgrade(&inner));
        Self(inner)
    }

    /// From now on somebody else is told.
    pub(crate) fn set_sink(&self, sink: Sink) {
        *lock(&self.0.sink) = sink;
    }

    /// Tags the calling thread for the rest of its life.
    pub(crate) fn adopt_thread(&self) {
        // SAFETY: has no preconditions.
        let thread = unsafe { libc::pthread_self() };
        lock(&self.0.threads).push(thread);
        CURRENT.with(|current| *current.borrow_mut() = Some(self.clone()));
    }

    /// Takes the tag off the calling thread again.
    pub(crate) fn release_thread(&self) {
        // SAFETY: has no preconditions.
        let thread = unsafe { libc::pthread_self() };
        lock(&self.0.threads).retain(|&other| other != thread);
        CURRENT.with(|current| *current.borrow_mut() = None);
    }

    /// Forgets the threads; called when the threads of a pool are about to end.
    pub(crate) fn forget_threads(&self) {
        lock(&self.0.threads).clear();
    }

    /// Runs `function` with the calling thread tagged; for borrowed threads, which are never put to sleep by others.
    pub(crate) fn scope<R>(&self, function: impl FnOnce() -> R) -> R {
        let previous = CURRENT.with(|current| current.borrow_mut().replace(self.clone()));
        let result = function();
        CURRENT.with(|current| *current.borrow_mut() = previous);
        result
    }

    /// The domain that the calling thread works for.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
    }

    pub(crate) fn calls(&self) -> &Calls {
        &self.0.calls
    }

    /// The calls of every domain that lives.
    pub(crate) fn all_calls() -> Vec<Arc<Calls>> {
        lock(&DOMAINS).iter().filter_map(Weak::upgrade).map(|inner| Arc::clone(&inner.calls)).collect()
    }

    fn report(&self, message: &str) {
        (lock(&self.0.sink))(message);
    }

    fn is_member(&self, thread: libc::pthread_t) -> bool {
        lock(&self.0.threads).contains(&thread)
    }

    /// Puts the other threads to sleep, a little later. To be called on a thread of the domain that will never go on:
    /// the others cannot end then.
    fn bury_others(&self, own: libc::pthread_t) {
        let inner = Arc::clone(&self.0);
        // Without that thread the others burn a core each; the fault itself is dealt with all the same.
        let _ = std::thread::Builder::new().name("undertaker".into()).spawn(move || {
            std::thread::sleep(BURIAL_DELAY);
            bury(&inner, own);
        });
    }
}

fn bury(inner: &Inner, except: libc::pthread_t) {
    for &thread in lock(&inner.threads).iter().filter(|&&thread| thread != except) {
        // SAFETY: the threads of a dead domain never end: they wait for one that is parked.
        unsafe { libc::pthread_kill(thread, sleep_signal()) };
    }
}

fn sleep_signal() -> libc::c_int {
    libc::SIGRTMIN() + 5
}

/// Never returns: its thread belongs to an engine that is dead.
extern "C" fn on_sleep_signal(_signal: libc::c_int) {
    loop {
        // SAFETY: `pause` may be called in a signal handler.
        unsafe { libc::pause() };
    }
}

/// ggml's abort callback. Returning would end the process.
unsafe extern "C" fn on_abort(message: *const c_char) {
    let text = if message.is_null() {
        "unknown reason".into()
    } else {
        // SAFETY: ggml passes a string that ends in zero and lives for this call.
        unsafe { CStr::from_ptr(message) }.to_string_lossy()
    };
    let own = FaultDomain::current();
    crate::exit::forsake_call();
    tracing::error!(reason = %text, charged = own.is_some(), "llama.cpp gave up; its thread is parked");
    // Before anybody is told of the death, so that nobody loads the model again in between.
    let device_error = crate::log::device_error();
    if let Some(error) = poison_of(&text, device_error.as_deref()) {
        let reason = format!("a GPU cannot be used any more by this process ({error}); it must be started again");
        // Only the first one has news.
        let _ = POISON.set(reason);
    }
    let reason = format!("llama.cpp gave up: {text}");
    match own {
        Some(domain) => {
            domain.report(&reason);
            // SAFETY: has no preconditions.
            let thread = unsafe { libc::pthread_self() };
            if domain.is_member(thread) {
                domain.calls().die();
                domain.bury_others(thread);
            }
        }
        None => {
            let all: Vec<_> = lock(&DOMAINS).iter().filter_map(Weak::upgrade).collect();
            all.into_iter().for_each(|inner| FaultDomain(inner).report(&reason));
        }
    }
    loop {
        std::thread::park();
    }
}

/// Installs the callback and the signal handler, once per process.
pub(crate) fn install_handlers() {
    HANDLERS.get_or_init(|| {
        // SAFETY: the callback has the type ggml asks for and is valid for ever.
        unsafe { sys::ggml_set_abort_callback(Some(on_abort)) };
        // SAFETY: an all-zero `sigaction` is a valid one; the handler only calls what a handler may call, and nobody
        // else uses this real-time signal.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_sleep_signal as extern "C" fn(libc::c_int) as usize;
            libc::sigfillset(&raw mut action.sa_mask);
            libc::sigaction(sleep_signal(), &raw const action, std::ptr::null_mut());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_stay_are_told_from_others() {
        let aborted = "/src/ggml-cuda.cu:109: CUDA error";
        let cases = [
            (aborted, Some("CUDA error: an illegal memory access was encountered"), true),
            ("/src/ggml-cuda.cu:109: ROCm error", Some("ROCm error: unspecified launch failure"), true),
            (aborted, Some("CUDA error: out of memory"), false),
            ("/src/ggml.c:1: GGML_ASSERT(x) failed", Some("CUDA error: unspecified launch failure"), false),
            (aborted, None, false),
        ];
        for (message, error, is_poison) in cases {
            assert_eq!(poison_of(message, error).is_some(), is_poison, "{message} {error:?}");
        }
    }

    /// Poisons the test's process, which no other test looks at.
    #[test]
    fn a_broken_device_poisons_the_process_and_costs_its_engine() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let domain = FaultDomain::new(Box::new(move |reason| {
            // Whoever is told of the death must find the poison.
            let _ = sender.send((reason.to_owned(), poison()));
        }));
        let abort = move || {
            domain.scope(|| {
                for text in [c"CUDA error: an illegal memory access was encountered\n", c"  current device: 0\n"] {
                    // SAFETY: the texts are literals.
                    unsafe { crate::log::on_log(sys::GGML_LOG_LEVEL_ERROR, text.as_ptr(), std::ptr::null_mut()) };
                }
                // SAFETY: the message is a literal. It never returns, as an abort does not.
                unsafe { on_abort(c"ggml-cuda.cu:109: CUDA error".as_ptr()) };
            });
        };
        assert_eq!(poison(), None);
        std::thread::spawn(abort);
        let (reason, poison) = receiver.recv_timeout(Duration::from_secs(60)).expect("the engine is told");
        assert!(reason.contains("llama.cpp gave up"), "{reason}");
        assert!(poison.is_some_and(|reason| reason.contains("illegal memory access")), "{poison:?}");
    }
}
