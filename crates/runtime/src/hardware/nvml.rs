//! NVIDIA's management library, opened at run time.

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml as Library};

use super::sources::{Gpu, GpuSource, GpuSurvey, Instance, NoSurvey};

/// `nvmlDeviceGetMigMode` says so where a GPU is cut up.
const MIG_ENABLED: u32 = 1;

/// NVML of this machine. Opened for each survey: a driver that comes or goes is noticed.
pub(super) struct Nvml;

impl GpuSource for Nvml {
    fn survey(&self) -> Result<GpuSurvey, NoSurvey> {
        let library = Library::init().map_err(|error| no_survey(&error))?;
        let count = library.device_count().map_err(|error| no_survey(&error))?;
        let version = |version: i32| u32::try_from(version).ok().map(|version| (version / 1000, version % 1000 / 10));
        Ok(GpuSurvey {
            driver_version: library.sys_driver_version().ok(),
            cuda_version: library.sys_cuda_driver_version().ok().and_then(version),
            gpus: (0..count).map(|index| gpu(&library, index).map_err(|error| error.to_string())).collect(),
        })
    }
}

fn no_survey(error: &NvmlError) -> NoSurvey {
    match error {
        NvmlError::LibloadingError(reason) if !is_missing(&reason.to_string()) => NoSurvey::Failed(reason.to_string()),
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => NoSurvey::NoDriver,
        NvmlError::DriverNotLoaded => NoSurvey::NotLoaded,
        NvmlError::NoPermission | NvmlError::OperatingSystem => NoSurvey::NoPermission,
        NvmlError::LibRmVersionMismatch => NoSurvey::VersionMismatch,
        other => NoSurvey::Failed(other.to_string()),
    }
}

/// Does the loader say that there is no such library, rather than a damaged one?
pub(super) fn is_missing(reason: &str) -> bool {
    reason.contains("cannot open shared object file: No such file") || !cfg!(target_os = "linux")
}

fn gpu(library: &Library, index: u32) -> Result<Gpu, NvmlError> {
    let device = library.device_by_index(index)?;
    // Boards whose GPU shares the main memory have no memory of their own to tell of.
    let (total_bytes, free_bytes) = match device.memory_info() {
        Ok(memory) => (memory.total, memory.free),
        Err(NvmlError::NotSupported) => (0, 0),
        Err(error) => return Err(error),
    };
    let capability = device.cuda_compute_capability().ok();
    let number = |number: i32| u32::try_from(number).ok();
    Ok(Gpu {
        name: device.name()?,
        uuid: device.uuid().ok(),
        total_bytes,
        free_bytes,
        compute_capability: capability.and_then(|found| Some((number(found.major)?, number(found.minor)?))),
        utilization_percent: device.utilization_rates().ok().map(|rates| rates.gpu),
        power_milliwatts: device.power_usage().ok().map(u64::from),
        power_limit_milliwatts: device.enforced_power_limit().ok().map(u64::from),
        numa_node: device.numa_node_id().ok(),
        instances: instances(&device),
    })
}

/// `None` where the GPU is whole.
fn instances(device: &Device<'_>) -> Option<Vec<Instance>> {
    device.mig_mode().ok().filter(|mode| mode.current == MIG_ENABLED)?;
    let most = device.mig_device_count().unwrap_or(0);
    let read = |index| -> Option<Instance> {
        let part = device.mig_device_by_index(index).ok()?;
        let memory = part.memory_info().ok()?;
        Some(Instance {
            name: part.name().unwrap_or_default(),
            uuid: part.uuid().unwrap_or_default(),
            total_bytes: memory.total,
            free_bytes: memory.free,
        })
    };
    Some((0..most).filter_map(read).collect())
}
