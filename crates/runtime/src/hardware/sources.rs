//! Where detection reads from; tests hand in their own.

/// Text files of the system.
pub(super) trait Files {
    /// The text of a file; `None` when it is not there or cannot be read.
    fn read(&self, path: &str) -> Option<String>;

    /// Names in a folder, sorted; none when it is not there or cannot be read.
    fn list(&self, folder: &str) -> Vec<String>;

    /// Is there such a file, folder or device?
    fn exists(&self, path: &str) -> bool;
}

/// The files of this machine.
pub(super) struct RealFiles;

impl Files for RealFiles {
    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(path).ok()
    }

    fn list(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    fn exists(&self, path: &str) -> bool {
        std::path::Path::new(path).exists()
    }
}

/// What the standard library and the environment say.
pub(super) struct Machine<'a> {
    /// Hardware threads under affinity and CPU quota, at least 1.
    pub(super) n_available: usize,
    /// `CUDA_VISIBLE_DEVICES`, when it is set.
    pub(super) visible_gpus: Option<&'a str>,
    /// An Apple machine whose GPU shares the main memory.
    pub(super) is_apple: bool,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Gpu {
    pub(super) name: String,
    pub(super) uuid: Option<String>,
    pub(super) total_bytes: u64,
    pub(super) free_bytes: u64,
    pub(super) compute_capability: Option<(u32, u32)>,
    pub(super) utilization_percent: Option<u32>,
    pub(super) power_milliwatts: Option<u64>,
    pub(super) power_limit_milliwatts: Option<u64>,
    pub(super) numa_node: Option<u32>,
    /// Its instances, when it is cut up (MIG): then only these can compute.
    pub(super) instances: Option<Vec<Instance>>,
}

/// A part of a GPU in MIG mode.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) total_bytes: u64,
    pub(super) free_bytes: u64,
}

/// What a driver answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct GpuSurvey {
    pub(super) driver_version: Option<String>,
    pub(super) cuda_version: Option<(u32, u32)>,
    /// By index; a GPU that does not answer is there with its reason.
    pub(super) gpus: Vec<Result<Gpu, String>>,
}

/// Why there is no survey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoSurvey {
    /// The driver's library is not installed.
    NoDriver,
    /// The library is installed, and the kernel's part of the driver is not loaded.
    NotLoaded,
    /// This user or container may not ask.
    NoPermission,
    /// The library and the kernel's part are of different versions.
    VersionMismatch,
    /// It is, and it fails.
    Failed(String),
}

/// A driver that knows GPUs.
pub(super) trait GpuSource {
    /// Asks the driver.
    fn survey(&self) -> Result<GpuSurvey, NoSurvey>;
}
