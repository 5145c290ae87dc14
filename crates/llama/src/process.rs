//! What llama.cpp needs once per process.

use std::sync::OnceLock;

use llama_cpp_2::llama_backend;

use crate::ffi::sys;
use crate::{fault, log, plugins};

static INITIALISED: OnceLock<()> = OnceLock::new();

/// Initialises llama.cpp: its log goes to `tracing`, its aborts to [`fault`]. Later calls do nothing.
pub(crate) fn initialise() {
    INITIALISED.get_or_init(|| {
        // SAFETY: the callback has the type asked for, is valid for ever and ignores its data pointer.
        unsafe { sys::llama_log_set(Some(log::on_log), std::ptr::null_mut()) };
        fault::install_handlers();
        plugins::load();
        if llama_backend::LlamaBackend::init().is_err() {
            tracing::debug!("llama.cpp was initialised by somebody else before");
        }
    });
}

/// Does this build of llama.cpp see a GPU? Initialises llama.cpp, which takes a moment where there is one.
pub fn sees_gpu() -> bool {
    !gpu_devices().is_empty()
}

/// Does this build of llama.cpp have any device to compute on? A build with plug-ins has none when none was found.
pub(crate) fn has_devices() -> bool {
    initialise();
    !llama_cpp_2::list_llama_ggml_backend_devices().is_empty()
}

/// GPUs that this build of llama.cpp sees, with what is free on each.
pub(crate) fn gpu_devices() -> Vec<GpuDevice> {
    initialise();
    let devices = llama_cpp_2::list_llama_ggml_backend_devices().into_iter();
    let is_gpu = |device: &llama_cpp_2::LlamaBackendDevice| {
        matches!(device.device_type, llama_cpp_2::LlamaBackendDeviceType::Gpu)
    };
    let device = |device: llama_cpp_2::LlamaBackendDevice| GpuDevice {
        name: device.name,
        free_bytes: device.memory_free as u64,
    };
    devices.filter(is_gpu).map(device).collect()
}

/// A GPU as ggml sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GpuDevice {
    /// Such as `CUDA0`.
    pub name: String,
    /// Memory free now.
    pub free_bytes: u64,
}
