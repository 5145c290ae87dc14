//! Energy counters: RAPL of processors through sysfs, NVML of GPUs.

use std::path::{Path, PathBuf};

use nvml_wrapper::Nvml;

/// Where Linux lists the counters of processors.
const POWERCAP: &str = "/sys/class/powercap";

/// One zone of RAPL with what its counter said at the start.
#[derive(Debug)]
struct Zone {
    folder: PathBuf,
    /// The counter begins again behind this, in microjoules.
    range_uj: u64,
    start_uj: u64,
}

/// Measures the energy that processors, memory and GPUs take from its making on. Devices without a counter, or one that
/// may not be read, are left out.
#[derive(Debug)]
pub struct EnergyMeter {
    zones: Vec<Zone>,
    nvml: Option<Nvml>,
    /// Number of each GPU with its counter at the start, in millijoules.
    gpus: Vec<(u32, u64)>,
}

impl EnergyMeter {
    /// Starts to measure; `None` where no device has a counter.
    pub fn start() -> Option<Self> {
        let zones = zones(Path::new(POWERCAP));
        let nvml = Nvml::init().ok();
        let count = nvml.as_ref().and_then(|nvml| nvml.device_count().ok()).unwrap_or(0);
        let start = |idx| Some((idx, gpu_mj(nvml.as_ref()?, idx)?));
        let gpus: Vec<_> = (0..count).filter_map(start).collect();
        let is_blind = zones.is_empty() && gpus.is_empty();
        (!is_blind).then_some(Self { zones, nvml, gpus })
    }

    /// Joules since the start. A counter that wraps more than once, which takes minutes at full load, is seen as one that
    /// wrapped once.
    pub fn joules(&self) -> f64 {
        let of_zone =
            |zone: &Zone| Some(difference(zone.start_uj, energy_uj(&zone.folder)?, zone.range_uj) as f64 / 1e6);
        let of_gpu = |&(idx, start)| Some(gpu_mj(self.nvml.as_ref()?, idx)?.saturating_sub(start) as f64 / 1e3);
        self.zones.iter().filter_map(of_zone).sum::<f64>() + self.gpus.iter().filter_map(of_gpu).sum::<f64>()
    }
}

fn gpu_mj(nvml: &Nvml, idx: u32) -> Option<u64> {
    nvml.device_by_index(idx).ok()?.total_energy_consumption().ok()
}

fn energy_uj(folder: &Path) -> Option<u64> {
    number(&folder.join("energy_uj"))
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Packages and memory; cores are part of their package, and a whole platform would count both again.
fn zones(powercap: &Path) -> Vec<Zone> {
    let Ok(entries) = std::fs::read_dir(powercap) else { return Vec::new() };
    let zone = |folder: PathBuf| {
        let name = std::fs::read_to_string(folder.join("name")).ok()?;
        let counts = name.starts_with("package") || name.trim() == "dram";
        let (range_uj, start_uj) = (number(&folder.join("max_energy_range_uj"))?, energy_uj(&folder)?);
        counts.then_some(Zone { folder, range_uj, start_uj })
    };
    entries.flatten().filter_map(|entry| zone(entry.path())).collect()
}

fn difference(start_uj: u64, now_uj: u64, range_uj: u64) -> u64 {
    now_uj.checked_sub(start_uj).unwrap_or_else(|| now_uj + range_uj.saturating_sub(start_uj))
}

#[cfg(test)]
mod tests {
    use super::{difference, zones};

    #[test]
    fn counters_that_wrap_go_on() {
        assert_eq!(difference(10, 25, 100), 15);
        assert_eq!(difference(90, 5, 100), 15);
    }

    #[test]
    fn packages_and_memory_count_once() {
        let folder = tempfile::tempdir().unwrap();
        let all = [("a", "package-0\n", "7"), ("b", "core\n", "3"), ("c", "dram\n", "2"), ("d", "psys\n", "9")];
        for (zone, name, energy) in all {
            let path = folder.path().join(zone);
            std::fs::create_dir(&path).unwrap();
            for (file, text) in [("name", name), ("max_energy_range_uj", "1000"), ("energy_uj", energy)] {
                std::fs::write(path.join(file), text).unwrap();
            }
        }
        std::fs::create_dir(folder.path().join("without counter")).unwrap();
        let mut starts: Vec<u64> = zones(folder.path()).iter().map(|zone| zone.start_uj).collect();
        starts.sort_unstable();
        assert_eq!(starts, [2, 7]);
        assert!(zones(&folder.path().join("absent")).is_empty());
    }
}
