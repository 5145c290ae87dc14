//! What llama.cpp needs once per process.

use std::sync::OnceLock;

use llama_cpp_2::llama_backend;

use crate::ffi::sys;
use crate::{fault, log, plugins};

static INITIALISED: OnceLock<()> = OnceLock::new();

/// Initialises llama.cpp: its log goes to `tracing`, its aborts to [`fault`]. Later calls do nothing. Every plug-in is
/// wanted when nobody chose before.
pub(crate) fn initialise() {
    initialise_with(&|| crate::plugins::GPU_KINDS.iter().map(|kind| (*kind).to_owned()).collect());
}

/// As the first use of the backend does, with a choice of the GPUs' plug-ins: `wanted` gives their kinds, such as
/// `cuda`, and is asked only in a program with plug-ins. Only the first call has an effect.
pub fn initialise_with(wanted: &dyn Fn() -> Vec<String>) {
    INITIALISED.get_or_init(|| {
        // SAFETY: the callback has the type asked for, is valid for ever and ignores its data pointer.
        unsafe { sys::llama_log_set(Some(log::on_log), std::ptr::null_mut()) };
        fault::install_handlers();
        if std::env::var_os("INGLE_OWN_OPERATIONS").is_some_and(|value| value == "1") {
            crate::use_own_operations(true);
        }
        plugins::load(wanted);
        if llama_backend::LlamaBackend::init().is_err() {
            tracing::debug!("llama.cpp was initialised by somebody else before");
        }
    });
}

/// The registries of ggml through which a GPU is seen, such as `CUDA`, each once. Initialises llama.cpp, which takes a
/// moment where there is a GPU.
pub fn gpu_registries() -> Vec<String> {
    initialise();
    let mut names: Vec<String> = gpus().map(|device| device.backend).collect();
    names.sort();
    names.dedup();
    names
}

/// Does this build of llama.cpp have any device to compute on? A build with plug-ins has none when none was found.
pub(crate) fn has_devices() -> bool {
    initialise();
    !llama_cpp_2::list_llama_ggml_backend_devices().is_empty()
}

/// GPUs that this build of llama.cpp sees, with what is free on each.
pub(crate) fn gpu_devices() -> Vec<GpuDevice> {
    initialise();
    let device = |device: llama_cpp_2::LlamaBackendDevice| GpuDevice {
        name: device.name,
        description: device.description,
        free_bytes: device.memory_free as u64,
    };
    gpus().map(device).collect()
}

fn gpus() -> impl Iterator<Item = llama_cpp_2::LlamaBackendDevice> {
    use llama_cpp_2::LlamaBackendDeviceType as Type;
    let is_gpu = |device: &llama_cpp_2::LlamaBackendDevice| match device.device_type {
        Type::Gpu | Type::IntegratedGpu => true,
        Type::Cpu | Type::Accelerator | Type::Unknown => false,
    };
    llama_cpp_2::list_llama_ggml_backend_devices().into_iter().filter(is_gpu)
}

/// A GPU as ggml sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GpuDevice {
    /// Such as `CUDA0`.
    pub name: String,
    /// Such as `NVIDIA H100`.
    pub description: String,
    /// Memory free now.
    pub free_bytes: u64,
}
