//! What llama.cpp needs once per process.

use std::ffi::{CStr, c_void};
use std::sync::OnceLock;

use ingle_gguf::MatrixForms;
use llama_cpp_2::llama_backend;

use crate::ffi::sys;
use crate::{exit, fault, log, plugins};

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
        if std::env::var_os("INGLE_OWN_OPERATIONS").is_some_and(|value| value == "0") {
            tracing::info!("INGLE_OWN_OPERATIONS=0: ggml computes everything on the processor");
            crate::use_own_operations(false);
        }
        #[cfg(not(feature = "plugins"))]
        crate::operations::lead();
        plugins::load(wanted);
        // Without any backend llama.cpp would look for plug-ins itself, beside the program and in the current folder:
        // code of strangers might lie there. Then nothing can be loaded anyway (`has_devices`).
        if has_backends() && llama_backend::LlamaBackend::init().is_err() {
            tracing::debug!("llama.cpp was initialised by somebody else before");
        }
        exit::register();
    });
}

fn has_backends() -> bool {
    // SAFETY: has no preconditions.
    unsafe { sys::ggml_backend_reg_count() > 0 }
}

/// The registries of ggml through which a GPU is seen, such as `CUDA`, each once. Initialises llama.cpp, which takes a
/// moment where there is a GPU.
pub fn gpu_registries() -> Vec<String> {
    initialise();
    let mut names: Vec<String> = gpus().into_iter().map(|gpu| gpu.registry).collect();
    names.sort();
    names.dedup();
    names
}

/// The second forms that matrices in main memory get, for the kernels of this processor. None where there is a GPU: it takes
/// most of them.
pub(crate) fn matrix_forms() -> MatrixForms {
    type ExtraTypes = unsafe extern "C" fn(sys::ggml_backend_dev_t) -> *mut sys::ggml_backend_buffer_type_t;
    type Features = unsafe extern "C" fn(sys::ggml_backend_reg_t) -> *mut sys::ggml_backend_feature;
    let mut forms = MatrixForms::default();
    if !has_devices() || !gpus().is_empty() {
        return forms;
    }
    // SAFETY: devices and registries live as long as the process; ggml gives functions of these types under these names,
    // and they answer with lists that end in null.
    unsafe {
        let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
        if device.is_null() {
            return forms;
        }
        let registry = sys::ggml_backend_dev_backend_reg(device);
        let kinds = sys::ggml_backend_reg_get_proc_address(registry, c"ggml_backend_dev_get_extra_bufts".as_ptr());
        if !kinds.is_null() {
            let mut kind = std::mem::transmute::<*mut c_void, ExtraTypes>(kinds)(device);
            while !kind.is_null() && !(*kind).is_null() {
                let name = CStr::from_ptr(sys::ggml_backend_buft_name(*kind));
                forms.amx |= name == c"AMX";
                forms.interleaved |= name == c"CPU_REPACK";
                kind = kind.add(1);
            }
        }
        let features = sys::ggml_backend_reg_get_proc_address(registry, c"ggml_backend_get_features".as_ptr());
        if !features.is_null() {
            let mut feature = std::mem::transmute::<*mut c_void, Features>(features)(registry);
            while !feature.is_null() && !(*feature).name.is_null() {
                let name = CStr::from_ptr((*feature).name);
                forms.avx2 |= name == c"AVX2";
                forms.avx512 |= name == c"AVX512";
                forms.dot_product |= name == c"DOTPROD";
                forms.byte_matrices |= name == c"MATMUL_INT8";
                feature = feature.add(1);
            }
        }
    }
    forms
}

/// Does this build of llama.cpp have any device to compute on? A build with plug-ins has none when none was found.
pub(crate) fn has_devices() -> bool {
    initialise();
    !llama_cpp_2::list_llama_ggml_backend_devices().is_empty()
}

/// GPUs that llama.cpp uses, with what is free on each, in its order: that of shares and layers.
pub(crate) fn gpu_devices() -> Vec<GpuDevice> {
    initialise();
    let device = |seen: Seen| GpuDevice { name: seen.name, description: seen.description, free_bytes: seen.free_bytes };
    gpus().into_iter().map(device).collect()
}

fn gpus() -> Vec<Seen> {
    // SAFETY: has no preconditions.
    let count = unsafe { sys::ggml_backend_dev_count() };
    select((0..count).filter_map(Seen::new).collect())
}

/// What kind of GPU it is to llama.cpp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On another machine.
    Remote,
    /// With memory of its own.
    Discrete,
    /// In the processor.
    Integrated,
}

/// A GPU among ggml's devices. One that several plug-ins reach is there several times.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    place: Place,
    name: String,
    description: String,
    /// The plug-in or part of ggml that reaches it.
    registry: String,
    /// The same for the same card, such as its PCI address; not all registries tell it.
    device_id: Option<String>,
    free_bytes: u64,
}

impl Seen {
    /// `None` for what is no GPU.
    fn new(index: usize) -> Option<Self> {
        let text = |text: *const std::ffi::c_char| {
            // SAFETY: ggml's names are strings that end in zero and live as long as their device.
            (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        // SAFETY: the index is below the number of devices; devices and registries live as long as the process, and a
        // structure of pointers and numbers may be all zero until it is filled in.
        let (kind, registry, properties) = unsafe {
            let device = sys::ggml_backend_dev_get(index);
            let mut properties: sys::ggml_backend_dev_props = std::mem::zeroed();
            sys::ggml_backend_dev_get_props(device, &raw mut properties);
            let registry = sys::ggml_backend_reg_name(sys::ggml_backend_dev_backend_reg(device));
            (sys::ggml_backend_dev_type(device), registry, properties)
        };
        let registry = text(registry).unwrap_or_default();
        let place = match kind {
            sys::GGML_BACKEND_DEVICE_TYPE_GPU if registry == "RPC" => Place::Remote,
            sys::GGML_BACKEND_DEVICE_TYPE_GPU => Place::Discrete,
            sys::GGML_BACKEND_DEVICE_TYPE_IGPU => Place::Integrated,
            _ => return None,
        };
        Some(Self {
            place,
            name: text(properties.name).unwrap_or_default(),
            description: text(properties.description).unwrap_or_default(),
            registry,
            device_id: text(properties.device_id),
            free_bytes: properties.memory_free as u64,
        })
    }
}

/// Those that llama.cpp would take, as `llama_prepare_model_devices` does: remote ones first, a card that two plug-ins
/// reach once, and integrated ones, of one plug-in, only where no other is on this machine. Whoever counts more counts
/// memory that will not be used.
fn select(seen: Vec<Seen>) -> Vec<Seen> {
    let (mut remote, mut discrete, mut integrated) = (Vec::new(), Vec::<Seen>::new(), Vec::<Seen>::new());
    for device in seen {
        match device.place {
            Place::Remote => remote.push(device),
            Place::Discrete => {
                let is_known =
                    discrete.iter().any(|known| device.device_id.is_some() && known.device_id == device.device_id);
                if !is_known {
                    discrete.push(device);
                }
            }
            Place::Integrated => {
                if integrated.last().is_none_or(|known| known.registry == device.registry) {
                    integrated.push(device);
                }
            }
        }
    }
    let local = if discrete.is_empty() { integrated } else { discrete };
    remote.into_iter().chain(local).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A name that ggml does not know would make all estimates too low, in silence.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn forms_are_those_of_this_processor() {
        let forms = matrix_forms();
        if !gpus().is_empty() || !is_x86_feature_detected!("avx2") {
            return;
        }
        assert!(forms.interleaved && forms.avx2, "{forms:?}");
        assert!(!forms.avx512 || is_x86_feature_detected!("avx512f"), "{forms:?}");
        assert!(!forms.dot_product && !forms.byte_matrices, "{forms:?}");
    }

    fn seen(name: &str, place: Place, device_id: Option<&str>) -> Seen {
        Seen {
            place,
            name: name.to_owned(),
            description: name.to_owned(),
            registry: name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned(),
            device_id: device_id.map(str::to_owned),
            free_bytes: 1,
        }
    }

    #[test]
    fn the_devices_are_those_that_llama_takes() {
        use Place::{Discrete, Integrated, Remote};
        let (one, two) = (Some("0000:01:00.0"), Some("0000:02:00.0"));
        let cases: [(&str, Vec<Seen>, &[&str]); 6] = [
            ("none", vec![], &[]),
            (
                "a card through two plug-ins",
                vec![seen("CUDA0", Discrete, one), seen("CUDA1", Discrete, two), seen("Vulkan0", Discrete, one)],
                &["CUDA0", "CUDA1"],
            ),
            ("no id", vec![seen("CUDA0", Discrete, None), seen("CUDA1", Discrete, None)], &["CUDA0", "CUDA1"]),
            ("beside a card", vec![seen("Vulkan0", Integrated, two), seen("CUDA0", Discrete, one)], &["CUDA0"]),
            (
                "integrated, through two plug-ins",
                vec![seen("SYCL0", Integrated, one), seen("SYCL1", Integrated, two), seen("Vulkan0", Integrated, one)],
                &["SYCL0", "SYCL1"],
            ),
            (
                "remote ones come first and take nothing away",
                vec![seen("Vulkan0", Integrated, one), seen("RPC0", Remote, None), seen("RPC1", Remote, None)],
                &["RPC0", "RPC1", "Vulkan0"],
            ),
        ];
        for (what, devices, expected) in cases {
            let names: Vec<String> = select(devices).into_iter().map(|device| device.name).collect();
            assert_eq!(names, expected, "{what}");
        }
    }
}
