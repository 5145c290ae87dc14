//! The end of the process while engines still compute.
//!
//! When `main` returns or somebody calls `exit`, C++ destroys what is static in llama.cpp and ggml, and a thread that is
//! still in a step falls over it: a crash after the work was done. So whoever ends the process first waits here: steps
//! are cut short, calls that come later sleep for good, and only then the destructors run.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crate::fault::FaultDomain;

/// For what cannot be cut short: a step on a GPU, weights on their way there. The end of the process comes first.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

static IS_EXITING: AtomicBool = AtomicBool::new(false);
/// The thread that ends the process, and until when it waits.
static LEAVING: OnceLock<(ThreadId, Instant)> = OnceLock::new();
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
    /// One of the model's own threads has died: the others never come back, and touch nothing any more.
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
            // Destructors of others may run on the thread that ends the process; it must get to its end.
            if is_exiting() && LEAVING.get().is_none_or(|(thread, _)| *thread != std::thread::current().id()) {
                call.count().fetch_sub(1, Ordering::SeqCst);
                sleep_for_good();
            }
        }
        call
    }

    fn count(&self) -> &AtomicUsize {
        count(self.0.as_ref())
    }
}

/// Where the calls of a model's threads are counted, or those of others.
fn count(domain: Option<&FaultDomain>) -> &AtomicUsize {
    domain.map_or(&N_OTHER_CALLS, |domain| &domain.calls().n_running)
}

/// The calling thread never comes back from the call that it is in: nobody waits for it.
pub(crate) fn forsake_call() {
    if DEPTH.try_with(Cell::get).unwrap_or(0) > 0 {
        count(FaultDomain::current().as_ref()).fetch_sub(1, Ordering::SeqCst);
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
    // This runs once for each load: the patience is that of all together.
    let (_, deadline) = *LEAVING.get_or_init(|| (std::thread::current().id(), Instant::now() + LONGEST_WAIT));
    let are_over = |calls: &Arc<Calls>| calls.are_over();
    while N_OTHER_CALLS.load(Ordering::SeqCst) > 0 || !FaultDomain::all_calls().iter().all(are_over) {
        if Instant::now() > deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Has [`on_exit`] run before the destructors of everything static that exists now. What C++ makes at its first use has
/// its destructor registered then, and the last registered runs first: so before the first load and after each.
pub(crate) fn register() {
    // SAFETY: the function may be called at exit, and any number of times. Without memory for one more entry the earlier
    // ones stay.
    let _ = unsafe { libc::atexit(on_exit) };
}
