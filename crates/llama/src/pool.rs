//! The compute threads of one engine.

use std::ffi::{CStr, c_int, c_void};
use std::ptr::NonNull;

use crate::exit::Call;
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
    /// Computes graphs of our own on the pool.
    backend: NonNull<sys::ggml_backend>,
    free_pool: unsafe extern "C" fn(*mut sys::ggml_threadpool),
    n_threads: usize,
    faults: FaultDomain,
}

// SAFETY: ggml allows any thread to use a pool and a backend, one at a time, which `&mut self` and ownership grant.
unsafe impl Send for ThreadPool {}

/// Functions of the CPU backend. It may be a plug-in, so they are asked for by name.
struct CpuBackend {
    device: sys::ggml_backend_dev_t,
    new_pool: NewPool,
    free_pool: FreePool,
    set_pool: SetPool,
    set_n_threads: SetThreads,
}

type NewPool = unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> *mut sys::ggml_threadpool;
type FreePool = unsafe extern "C" fn(*mut sys::ggml_threadpool);
type SetPool = unsafe extern "C" fn(sys::ggml_backend_t, *mut sys::ggml_threadpool);
type SetThreads = unsafe extern "C" fn(sys::ggml_backend_t, c_int);

impl CpuBackend {
    fn find() -> Result<Self, String> {
        // SAFETY: has no preconditions.
        let device = unsafe { sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU) };
        if device.is_null() {
            return Err(crate::plugins::missing());
        }
        // SAFETY: devices live as long as the process, and so do their registries.
        let registry = unsafe { sys::ggml_backend_dev_backend_reg(device) };
        let function = |name: &CStr| {
            // SAFETY: the registry is valid and the name ends in zero.
            let address = unsafe { sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr()) };
            NonNull::new(address).ok_or_else(|| format!("ggml's CPU backend has no {name:?}: it is of another version"))
        };
        // SAFETY: ggml gives each of these functions under its own name, with the type it has in ggml-cpu.h.
        unsafe {
            Ok(Self {
                device,
                new_pool: std::mem::transmute::<NonNull<c_void>, NewPool>(function(c"ggml_threadpool_new")?),
                free_pool: std::mem::transmute::<NonNull<c_void>, FreePool>(function(c"ggml_threadpool_free")?),
                set_pool: std::mem::transmute::<NonNull<c_void>, SetPool>(function(
                    c"ggml_backend_cpu_set_threadpool",
                )?),
                set_n_threads: std::mem::transmute::<NonNull<c_void>, SetThreads>(function(
                    c"ggml_backend_set_n_threads",
                )?),
            })
        }
    }
}

impl ThreadPool {
    /// Starts the threads and tags them.
    pub(crate) fn new(n_threads: usize, faults: &FaultDomain) -> Result<Self, String> {
        let count = n_threads;
        let n_threads = c_int::try_from(count).map_err(|_| format!("{count} threads are too many"))?;
        let cpu = CpuBackend::find()?;
        // SAFETY: a plain struct that ggml fills completely in the next call.
        let mut params: sys::ggml_threadpool_params = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is valid for the call.
        unsafe { sys::ggml_threadpool_params_init(&raw mut params, n_threads) };
        params.poll = POLL;
        // SAFETY: the device is valid; it takes no parameters.
        let backend = guarded(|| unsafe { sys::ggml_backend_dev_init(cpu.device, std::ptr::null()) })?;
        let backend = NonNull::new(backend).ok_or("ggml's CPU backend could not be started")?;
        // SAFETY: the parameters are valid for the call; ggml copies them.
        let pool = guarded(|| unsafe { (cpu.new_pool)(&raw mut params) });
        let Some(pool) = pool.as_ref().ok().and_then(|&pool| NonNull::new(pool)) else {
            // SAFETY: made above and not used any more.
            unsafe { sys::ggml_backend_free(backend.as_ptr()) };
            return Err(pool.err().unwrap_or_else(|| "the compute threads could not be started".into()));
        };
        // SAFETY: both are valid, and the backend is freed before the pool.
        unsafe {
            (cpu.set_pool)(backend.as_ptr(), pool.as_ptr());
            (cpu.set_n_threads)(backend.as_ptr(), n_threads);
        }
        let mut pool = Self { pool, backend, free_pool: cpu.free_pool, n_threads: count, faults: faults.clone() };
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

    /// Its threads, the calling one included.
    pub(crate) fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// Runs `job` once on every thread, with the thread's number; number 0 is the calling thread. `job` must not panic.
    pub(crate) fn for_each(&mut self, job: &(dyn Fn(usize) + Sync)) -> Result<(), String> {
        let _running = Call::begin();
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
            sys::ggml_backend_graph_compute(self.backend.as_ptr(), graph)
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
        let _running = Call::begin();
        self.faults.forget_threads();
        // SAFETY: both were made in `new`; nobody computes on them, since `self` is owned.
        unsafe {
            sys::ggml_backend_free(self.backend.as_ptr());
            (self.free_pool)(self.pool.as_ptr());
        }
    }
}
