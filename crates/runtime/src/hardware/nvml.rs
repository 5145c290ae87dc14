//! NVIDIA's management library, opened at run time.

use nvml_wrapper::Nvml as Library;
use nvml_wrapper::error::NvmlError;

use super::sources::{Gpu, GpuSource, GpuSurvey, NoSurvey};

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
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound | NvmlError::DriverNotLoaded => NoSurvey::NoDriver,
        other => NoSurvey::Failed(other.to_string()),
    }
}

/// Does the loader say that there is no such library, rather than a damaged one?
pub(super) fn is_missing(reason: &str) -> bool {
    reason.contains("cannot open shared object file: No such file") || !cfg!(target_os = "linux")
}

fn gpu(library: &Library, index: u32) -> Result<Gpu, NvmlError> {
    let device = library.device_by_index(index)?;
    let memory = device.memory_info()?;
    let capability = device.cuda_compute_capability().ok();
    let number = |number: i32| u32::try_from(number).ok();
    Ok(Gpu {
        name: device.name()?,
        uuid: device.uuid().ok(),
        total_bytes: memory.total,
        free_bytes: memory.free,
        compute_capability: capability.and_then(|found| Some((number(found.major)?, number(found.minor)?))),
    })
}
