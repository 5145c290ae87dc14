//! What the machine offers, as plain data; detection lives elsewhere and tests build it by hand.

/// The kind of a device that can run a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum DeviceKind {
    /// The processor and its main memory.
    #[default]
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
    /// An AMD GPU.
    Rocm,
    /// An Intel GPU.
    Intel,
    /// An Apple GPU; its memory is the main memory.
    Metal,
}

impl DeviceKind {
    /// Lower-case name as logs and reports spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
            Self::Intel => "intel",
            Self::Metal => "metal",
        }
    }
}

/// What a device is doing now, as far as its driver tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceLoad {
    /// Part of the last moments in which it computed, in percent.
    pub utilization_percent: Option<u32>,
    /// Power drawn now, in milliwatts.
    pub power_milliwatts: Option<u64>,
    /// Power it may draw, in milliwatts.
    pub power_limit_milliwatts: Option<u64>,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Device {
    /// What it is.
    pub kind: DeviceKind,
    /// Number among the devices of its kind.
    pub index: usize,
    /// Product name.
    pub name: String,
    /// Memory in bytes.
    pub total_bytes: u64,
    /// Memory free now, in bytes.
    pub free_bytes: u64,
    /// CUDA compute capability, where it is a CUDA device.
    pub compute_capability: Option<(u32, u32)>,
    /// What it is doing.
    pub load: DeviceLoad,
    /// The NUMA node it hangs on, where the machine has several.
    pub numa_node: Option<u32>,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Hardware {
    /// The processor first, then GPUs by index.
    pub devices: Vec<Device>,
    /// GPUs that are here and that no backend of the program reaches.
    pub idle_gpus: Vec<Device>,
    /// Cores this process may use: affinity and cgroup limits applied, at least 1.
    pub n_cores: usize,
    /// NUMA nodes with memory; at least 1.
    pub n_numa_nodes: usize,
    /// Instruction sets that matter for inference, such as `avx2`.
    pub instruction_sets: Vec<String>,
    /// Version of the GPU driver, when one answered.
    pub driver_version: Option<String>,
    /// CUDA version the driver supports, such as (12, 4).
    pub cuda_version: Option<(u32, u32)>,
    /// Programming interfaces for GPUs whose loader is installed, such as `vulkan`.
    pub gpu_interfaces: Vec<String>,
    /// Why no GPU is used, or what could not be read; sentences for the log.
    pub notes: Vec<String>,
}

impl Hardware {
    /// The GPUs.
    pub fn gpus(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| device.kind != DeviceKind::Cpu)
    }

    /// The processor, as a device.
    pub fn cpu(&self) -> Option<&Device> {
        self.devices.iter().find(|device| device.kind == DeviceKind::Cpu)
    }
}
