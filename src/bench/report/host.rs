//! The machine, as far as it explains figures.

use serde::{Deserialize, Serialize};

/// What a run ran on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Host {
    /// Operating system and architecture, such as `linux x86_64`.
    pub(crate) system: String,
    pub(crate) kernel: Option<String>,
    pub(crate) cpu: String,
    /// Cores that this process may use.
    pub(crate) n_cores: usize,
    pub(crate) instruction_sets: Vec<String>,
    pub(crate) memory_bytes: u64,
    pub(crate) gpus: Vec<String>,
    pub(crate) driver: Option<String>,
    pub(crate) cuda: Option<String>,
    /// Load of the last minute when the run began: other programs disturb.
    pub(crate) load_average: Option<f64>,
}

impl Host {
    /// This machine.
    pub(crate) fn detect() -> Self {
        let found = ingle::hardware_in_use();
        let cpu = found.cpu();
        Self {
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            kernel: first_word("/proc/sys/kernel/osrelease"),
            cpu: cpu.map_or_else(String::new, |cpu| cpu.name.clone()),
            n_cores: found.n_cores,
            instruction_sets: found.instruction_sets.iter().map(ToString::to_string).collect(),
            memory_bytes: cpu.map_or(0, |cpu| cpu.total_bytes),
            gpus: found.gpus().map(|gpu| format!("{} ({} MiB)", gpu.name, gpu.total_bytes >> 20)).collect(),
            cuda: found.cuda_version.map(|(major, minor)| format!("{major}.{minor}")),
            driver: found.driver_version,
            load_average: first_word("/proc/loadavg").and_then(|load| load.parse().ok()),
        }
    }

    /// One line.
    pub(crate) fn line(&self) -> String {
        let gpus = self.gpus.iter().map(|gpu| format!(", {gpu}")).collect::<String>();
        let driver = self.driver.as_ref().map_or_else(String::new, |driver| format!(", driver {driver}"));
        let kernel = self.kernel.as_ref().map_or_else(String::new, |kernel| format!(" {kernel}"));
        let load = self.load_average.map_or_else(String::new, |load| format!(", load {load:.1} at the start"));
        let memory = self.memory_bytes >> 30;
        format!("{}{kernel}, {} ({} cores, {memory} GiB){gpus}{driver}{load}", self.system, self.cpu, self.n_cores)
    }
}

fn first_word(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()?.split_whitespace().next().map(str::to_owned)
}
