//! The compute threads of one engine.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use crate::fault::FaultDomain;
use crate::ffi::{guarded, sys};

/// How long idle compute threads look for new work before they sleep, in units of 2^17 looks (a few milliseconds).
/// Long enough to bridge the time between two steps, short enough that an idle engine costs nothing.
const POLL: u32 = 1;

/// Every thread takes part, in ggml's words.
const ALL_TASKS: c_int = -1;

/// A ggml thread pool. The thread that runs a graph is its first member; the others belong to the pool.
pub(crate) struct ThreadPool {
    pool: NonNull<sys::ggml_threadpool>,
    n_threads: c_int,
    faults: FaultDomain,
}

// SAFETY: ggml allows any thread to use a pool, one at a time, which `&mut self` and ownership grant.
unsafe impl Send for ThreadPool {}

impl ThreadPool {
    /// Starts the threads and tags them.
    pub(crate) fn new(n_threads: usize, faults: &FaultDomain) -> Result<Self, String> {
        let n_threads = c_int::try_from(n_threads).map_err(|_| format!("{n_threads} threads are too many"))?;
        // SAFETY: a plain struct that ggml fills completely in the next call.
        let mut params: sys::ggml_threadpool_params = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is valid for the call.
        unsafe { sys::ggml_threadpool_params_init(&raw mut params, n_threads) };
        params.poll = POLL;
        // SAFETY: the parameters are valid for the call; ggml copies them.
        let pool = guarded(|| unsafe { sys::ggml_threadpool_new(&raw mut params) })?;
        let pool = NonNull::new(pool).ok_or("the compute threads could not be started")?;
        let mut pool = Self { pool, n_threads, faults: faults.clone() };
        pool.for_each(&|thread_idx| {
            // The first one is whoever calls; it tags itself.
            if thread_idx > 0 {
                faults.adopt_thread();
            }
        })?;
        Ok(pool)
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::ggml_threadpool {
        self.pool.as_ptr()
    }

    /// Runs `job` once on every thread, with the thread's number; number 0 is the calling thread. `job` must not panic.
    pub(crate) fn for_each(&mut self, job: &(dyn Fn(usize) + Sync)) -> Result<(), String> {
        let params = sys::ggml_init_params { mem_size: 1 << 20, mem_buffer: std::ptr::null_mut(), no_alloc: false };
        // SAFETY: has no preconditions; the context is freed below.
        let context = NonNull::new(unsafe { sys::ggml_init(params) }).ok_or("no memory for a graph")?;
        let status = self.compute_custom(context, job);
        // SAFETY: made above and not used any more.
        unsafe { sys::ggml_free(context.as_ptr()) };
        match status {
            sys::GGML_STATUS_SUCCESS => Ok(()),
            status => Err(format!("a job for the compute threads ended with status {status}")),
        }
    }

    /// A graph of one custom operation that is run by all threads.
    fn compute_custom(
        &mut self,
        context: NonNull<sys::ggml_context>,
        job: &(dyn Fn(usize) + Sync),
    ) -> sys::ggml_status {
        let context = context.as_ptr();
        let data = (&raw const job).cast_mut().cast();
        // SAFETY: the context has room for two small tensors and a graph; `job` outlives the computation, and
        // `run_job` gets the pointer type it expects.
        unsafe {
            let input = sys::ggml_new_tensor_1d(context, sys::GGML_TYPE_F32, 1);
            let output = sys::ggml_map_custom1(context, input, Some(run_job), ALL_TASKS, data);
            let graph = sys::ggml_new_graph(context);
            sys::ggml_build_forward_expand(graph, output);
            let mut plan = sys::ggml_graph_plan(graph, self.n_threads, self.pool.as_ptr());
            let mut work = vec![0_u8; plan.work_size];
            plan.work_data = work.as_mut_ptr();
            sys::ggml_graph_compute(graph, &raw mut plan)
        }
    }
}

unsafe extern "C" fn run_job(
    _output: *mut sys::ggml_tensor,
    _input: *const sys::ggml_tensor,
    thread_idx: c_int,
    _n_threads: c_int,
    data: *mut c_void,
) {
    // SAFETY: `compute_custom` passes a pointer to a job that lives until the graph is done.
    let job = unsafe { *data.cast::<&(dyn Fn(usize) + Sync)>() };
    job(usize::try_from(thread_idx).unwrap_or(0));
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.faults.forget_threads();
        // SAFETY: made by `ggml_threadpool_new`; nobody computes on it, since `self` is owned.
        unsafe { sys::ggml_threadpool_free(self.pool.as_ptr()) };
    }
}
