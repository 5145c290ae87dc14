//! The end of the process while engines still compute.
//!
//! When `main` returns or somebody calls `exit`, C++ destroys what is static in llama.cpp and ggml, and a thread that is
//! still in a step falls over it: a crash after the work was done. So whoever ends the process first waits here: steps
//! are cut short, calls that come later sleep for good, and only then the destructors run.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::fault::FaultDomain;

/// For what cannot be cut short: a step on a GPU, weights on their way there. The end of the process comes first.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

static IS_EXITING: AtomicBool = AtomicBool::new(false);
/// Calls on threads that work for no model.
static N_OTHER_CALLS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Calls that the thread is in; only the outermost counts.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Calls into llama.cpp that a model's threads are in.
#[derive(Default)]
pub(crate) struct Calls {
    n_running: AtomicUsize,
    /// The model has died in one of them: its threads never come back, and touch nothing any more.
    are_dead: AtomicBool,
}

impl Calls {
    pub(crate) fn die(&self) {
        self.are_dead.store(true, Ordering::SeqCst);
    }

    fn are_over(&self) -> bool {
        self.are_dead.load(Ordering::SeqCst) || self.n_running.load(Ordering::SeqCst) == 0
    }
}

/// A call into llama.cpp, as long as this lives. The process does not end meanwhile.
pub(crate) struct Call(Option<FaultDomain>);

impl Call {
    /// Never returns when the process is about to end.
    pub(crate) fn begin() -> Self {
        let depth = DEPTH.get();
        DEPTH.set(depth + 1);
        let call = Self(FaultDomain::current());
        if depth == 0 {
            call.count().fetch_add(1, Ordering::SeqCst);
            if is_exiting() {
                call.count().fetch_sub(1, Ordering::SeqCst);
                sleep_for_good();
            }
        }
        call
    }

    fn count(&self) -> &AtomicUsize {
        self.0.as_ref().map_or(&N_OTHER_CALLS, |domain| &domain.calls().n_running)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let depth = DEPTH.get() - 1;
        DEPTH.set(depth);
        if depth == 0 {
            self.count().fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn sleep_for_good() -> ! {
    loop {
        std::thread::park();
    }
}

fn is_exiting() -> bool {
    IS_EXITING.load(Ordering::SeqCst)
}

/// llama.cpp asks this between the operations of a step: true ends it.
pub(crate) unsafe extern "C" fn ends_step(_data: *mut c_void) -> bool {
    IS_EXITING.load(Ordering::Relaxed)
}

/// llama.cpp asks this between the tensors of a file: false ends loading.
pub(crate) unsafe extern "C" fn goes_on_loading(_progress: f32, _data: *mut c_void) -> bool {
    !IS_EXITING.load(Ordering::Relaxed)
}

extern "C" fn on_exit() {
    IS_EXITING.store(true, Ordering::SeqCst);
    // A process that ends inside a call would wait for itself.
    if DEPTH.try_with(Cell::get).unwrap_or(0) > 0 {
        return;
    }
    let deadline = Instant::now() + LONGEST_WAIT;
    let are_over = |calls: &Arc<Calls>| calls.are_over();
    while N_OTHER_CALLS.load(Ordering::SeqCst) > 0 || !FaultDomain::all_calls().iter().all(are_over) {
        if Instant::now() > deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Has [`on_exit`] run before the destructors of everything static that exists now. What C++ makes at its first use has
/// its destructor registered then, and the last registered runs first: so again after every load.
pub(crate) fn register() {
    // SAFETY: the function may be called at exit, and any number of times. Without memory for one more entry the earlier
    // ones stay.
    let _ = unsafe { libc::atexit(on_exit) };
}
