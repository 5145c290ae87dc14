//! From what the machine has to what is used of it: which of ggml's interfaces are worth loading, and what is said and
//! done where a GPU is here and cannot be used.

use ingle_engine::{Device, DeviceKind, Hardware};

/// How a backend reaches GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interface {
    /// NVIDIA's.
    Cuda,
    /// AMD's.
    Hip,
    /// Intel's.
    Sycl,
    /// Everybody's.
    Vulkan,
    /// Apple's.
    Metal,
}

impl Interface {
    /// All of them, the fastest on its own devices first.
    pub const ALL: &'static [Self] = &[Self::Cuda, Self::Hip, Self::Sycl, Self::Metal, Self::Vulkan];

    /// As ggml calls its plug-in: `libggml-<name>.so`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Hip => "hip",
            Self::Sycl => "sycl",
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
        }
    }

    /// From the name of a ggml registry, such as `CUDA` or `ROCm`.
    pub fn from_registry(name: &str) -> Option<Self> {
        match name {
            "CUDA" => Some(Self::Cuda),
            "ROCm" | "HIP" => Some(Self::Hip),
            "SYCL" => Some(Self::Sycl),
            "Vulkan" => Some(Self::Vulkan),
            "MTL" | "Metal" => Some(Self::Metal),
            _ => None,
        }
    }

    /// Whether Ingle's own tests have been run with it.
    pub fn is_tested(self) -> bool {
        matches!(self, Self::Cuda)
    }

    /// Does it reach this device?
    pub fn reaches(self, device: &Device) -> bool {
        match self {
            Self::Cuda => device.kind == DeviceKind::Cuda,
            Self::Hip => device.kind == DeviceKind::Rocm,
            Self::Sycl => device.kind == DeviceKind::Intel,
            Self::Metal => device.kind == DeviceKind::Metal,
            Self::Vulkan => matches!(device.kind, DeviceKind::Cuda | DeviceKind::Rocm | DeviceKind::Intel),
        }
    }
}

/// The interfaces worth loading here: those of the GPUs that answered, and Vulkan where it is installed and a GPU is
/// left that has none of its own loaded. An interface whose driver does not answer is not touched: its library might
/// hang or end the process.
pub fn wanted_interfaces(found: &Hardware) -> Vec<Interface> {
    let has = |name: &str| found.gpu_interfaces.iter().any(|interface| interface == name);
    let is_wanted = |interface: &Interface| {
        let reaches_one = found.gpus().any(|gpu| interface.reaches(gpu));
        reaches_one
            && match interface {
                Interface::Cuda | Interface::Metal => true,
                Interface::Hip => has("rocm"),
                Interface::Sycl => has("level_zero") || has("opencl"),
                Interface::Vulkan => has("vulkan"),
            }
    };
    Interface::ALL.iter().copied().filter(is_wanted).collect()
}

/// An interface that is here and reaches no device, although its driver answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blind {
    /// The interface.
    pub interface: Interface,
    /// A sentence that says why.
    pub reason: String,
}

/// The machine as far as a program with these interfaces can use it: the memory of other GPUs does not count, and a
/// note says which lie idle and what would change that.
pub fn in_use(mut found: Hardware, interfaces: &[Interface], blind: &[Blind]) -> Hardware {
    let is_used = |device: &Device| {
        device.kind == DeviceKind::Cpu || interfaces.iter().any(|interface| interface.reaches(device))
    };
    let idle: Vec<Device> = found.devices.iter().filter(|device| !is_used(device)).cloned().collect();
    found.devices.retain(is_used);
    found.notes.extend(idle.iter().map(|device| idle_note(device, blind)));
    found.idle_gpus = idle;
    let untested = interfaces.iter().filter(|interface| !interface.is_tested());
    let reached = untested.filter(|interface| found.devices.iter().any(|device| interface.reaches(device)));
    let names: Vec<&str> = reached.map(|interface| interface.name()).collect();
    if !names.is_empty() {
        found.notes.push(format!("GPUs are reached through {}, which is used and not tested", names.join(", ")));
    }
    if found.gpus().next().is_none() {
        found.notes.push("running on the CPU".to_owned());
    }
    found
}

fn idle_note(device: &Device, blind: &[Blind]) -> String {
    // What lies there already need not be put there.
    if let Some(blind) = blind.iter().find(|blind| blind.interface.reaches(device)) {
        return format!("{} is here and not used: {}", device.name, blind.reason);
    }
    let remedy = match device.kind {
        DeviceKind::Cuda => {
            "build it with --features ingle/cuda, or put libggml-cuda.so into lib/ingle of a program with plug-ins"
        }
        DeviceKind::Rocm => "put libggml-hip.so or libggml-vulkan.so into lib/ingle of a program with plug-ins",
        DeviceKind::Intel => "put libggml-sycl.so or libggml-vulkan.so into lib/ingle of a program with plug-ins",
        DeviceKind::Metal | DeviceKind::Cpu => "build it with Metal",
    };
    format!("{} is here, and this program has no backend for it: {remedy}", device.name)
}

/// No GPU can be used, and one was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--require-gpu is set and no GPU can be used: {reasons}")]
pub struct NoGpu {
    /// What detection noted.
    pub reasons: String,
}

/// For those who would rather not start than compute on the CPU.
///
/// # Errors
/// [`NoGpu`] when none can be used.
pub fn require_gpu(hardware: &Hardware) -> Result<(), NoGpu> {
    match hardware.gpus().next() {
        Some(_) => Ok(()),
        None => Err(NoGpu { reasons: hardware.notes.join("; ") }),
    }
}
