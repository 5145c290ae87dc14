//! Where detection reads from; tests hand in their own.

/// Text files of the system.
pub(super) trait Files {
    /// The text of a file; `None` when it is not there or cannot be read.
    fn read(&self, path: &str) -> Option<String>;
}

/// The files of this machine.
pub(super) struct RealFiles;

impl Files for RealFiles {
    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(path).ok()
    }
}

/// What the standard library and the environment say.
pub(super) struct Machine<'a> {
    /// Hardware threads under affinity and CPU quota, at least 1.
    pub(super) n_available: usize,
    /// `CUDA_VISIBLE_DEVICES`, when it is set.
    pub(super) visible_gpus: Option<&'a str>,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gpu {
    pub(super) name: String,
    pub(super) uuid: Option<String>,
    pub(super) total_bytes: u64,
    pub(super) free_bytes: u64,
    pub(super) compute_capability: Option<(u32, u32)>,
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
    /// It is, and it fails.
    Failed(String),
}

/// A driver that knows GPUs.
pub(super) trait GpuSource {
    /// Asks the driver.
    fn survey(&self) -> Result<GpuSurvey, NoSurvey>;
}
