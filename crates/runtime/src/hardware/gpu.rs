//! From a driver's answer to devices and notes.

use ingle_engine::{Device, DeviceKind, DeviceLoad};

use super::sources::{Gpu, GpuSource, GpuSurvey, NoSurvey};

/// The oldest driver that the CUDA backend runs with, by the CUDA version it supports: what is built with any release
/// of CUDA 12 runs on the drivers of all of them.
const LEAST_CUDA: (u32, u32) = (12, 0);
/// The oldest GPUs that the images have kernels for (CUDA_ARCHITECTURES of Dockerfile.cuda): on older ones the first
/// kernel would abort.
const LEAST_CAPABILITY: (u32, u32) = (6, 1);

/// What detection finds.
#[derive(Debug, Default)]
pub(super) struct Gpus {
    pub(super) devices: Vec<Device>,
    pub(super) driver_version: Option<String>,
    pub(super) cuda_version: Option<(u32, u32)>,
}

pub(super) fn read(source: &dyn GpuSource, visible: Option<&str>, notes: &mut Vec<String>) -> Gpus {
    match source.survey() {
        Ok(survey) => from_survey(survey, visible, notes),
        Err(reason) => {
            notes.push(why_not(&reason));
            Gpus::default()
        }
    }
}

fn why_not(reason: &NoSurvey) -> String {
    match reason {
        NoSurvey::NoDriver => "no NVIDIA driver".to_owned(),
        NoSurvey::NotLoaded => {
            "the NVIDIA driver's library is here and its kernel module is not loaded (modprobe nvidia; in a container: \
             is it started with --gpus all?)"
                .to_owned()
        }
        NoSurvey::NoPermission => {
            "the NVIDIA driver may not be used by this user or container (may it open /dev/nvidiactl?)".to_owned()
        }
        NoSurvey::VersionMismatch => {
            "the NVIDIA driver was updated while its old kernel module runs on: restart the machine".to_owned()
        }
        NoSurvey::Failed(reason) => format!("the NVIDIA driver does not answer ({reason})"),
    }
}

fn from_survey(survey: GpuSurvey, visible: Option<&str>, notes: &mut Vec<String>) -> Gpus {
    if survey.gpus.is_empty() {
        notes.push("the NVIDIA driver is here and has no GPU".to_owned());
    }
    let parts = parts(&survey.gpus, notes);
    let chosen = match visible {
        Some(list) => visible_parts(list, &survey.gpus, &parts),
        None => parts.iter().filter(|part| part.is_default).collect(),
    };
    if chosen.is_empty() && parts.iter().any(|part| part.is_default) {
        notes.push("CUDA_VISIBLE_DEVICES hides all GPUs".to_owned());
    }
    let mut devices: Vec<Device> =
        chosen.iter().enumerate().map(|(index, part)| Device { index, ..part.device.clone() }).collect();
    if let Some((major, minor)) = survey.cuda_version.filter(|version| *version < LEAST_CUDA)
        && !devices.is_empty()
    {
        let (need, _) = LEAST_CUDA;
        notes.push(format!(
            "the NVIDIA driver supports CUDA {major}.{minor} and CUDA {need} is needed: its GPUs are not used; update \
             the driver to 525 or newer"
        ));
        devices.clear();
    }
    devices.retain(|device| is_new_enough(device, notes));
    Gpus { devices, driver_version: survey.driver_version, cuda_version: survey.cuda_version }
}

fn is_new_enough(device: &Device, notes: &mut Vec<String>) -> bool {
    let Some((major, minor)) = device.compute_capability.filter(|found| *found < LEAST_CAPABILITY) else {
        return true;
    };
    let (need, need_minor) = LEAST_CAPABILITY;
    notes.push(format!(
        "GPU {} ({}) is not used: it has compute capability {major}.{minor} and {need}.{need_minor} is needed",
        device.index, device.name
    ));
    false
}

/// A GPU, or a part of one, that CUDA could show.
struct Part {
    /// Number of the GPU.
    number: usize,
    uuid: Option<String>,
    device: Device,
    /// Shown when nobody chooses.
    is_default: bool,
}

/// A GPU in MIG mode computes by its instances only, and CUDA shows one instance to a process.
fn parts(gpus: &[Result<Gpu, String>], notes: &mut Vec<String>) -> Vec<Part> {
    let mut parts = Vec::new();
    for (number, gpu) in gpus.iter().enumerate() {
        let gpu = match gpu {
            Ok(gpu) => gpu,
            Err(reason) => {
                notes.push(format!("GPU {number} does not answer and is not used: {reason}"));
                continue;
            }
        };
        let Some(instances) = &gpu.instances else {
            if gpu.total_bytes == 0 {
                notes.push(format!("GPU {number} ({}) shares the main memory", gpu.name));
            }
            parts.push(Part { number, uuid: gpu.uuid.clone(), device: device(number, gpu), is_default: true });
            continue;
        };
        match instances.len() {
            0 => notes.push(format!("GPU {number} ({}) is in MIG mode and has no instance: it is not used", gpu.name)),
            1 => {}
            count => notes.push(format!(
                "GPU {number} ({}) is cut into {count} MIG instances, and a process sees one of them: name it in \
                 CUDA_VISIBLE_DEVICES, and start a process for each",
                gpu.name
            )),
        }
        for (nth, instance) in instances.iter().enumerate() {
            let name = if instance.name.is_empty() { format!("{} (MIG)", gpu.name) } else { instance.name.clone() };
            let device = Device {
                name,
                total_bytes: instance.total_bytes,
                free_bytes: instance.free_bytes.min(instance.total_bytes),
                ..device(number, gpu)
            };
            parts.push(Part { number, uuid: Some(instance.uuid.clone()), device, is_default: nth == 0 });
        }
    }
    parts
}

fn device(index: usize, gpu: &Gpu) -> Device {
    Device {
        kind: DeviceKind::Cuda,
        index,
        name: gpu.name.clone(),
        total_bytes: gpu.total_bytes,
        free_bytes: gpu.free_bytes.min(gpu.total_bytes),
        compute_capability: gpu.compute_capability,
        load: DeviceLoad {
            utilization_percent: gpu.utilization_percent,
            power_milliwatts: gpu.power_milliwatts,
            power_limit_milliwatts: gpu.power_limit_milliwatts,
        },
        numa_node: gpu.numa_node,
    }
}

/// What CUDA will show: numbers or beginnings of UUIDs, up to the first that does not exist.
fn visible_parts<'a>(list: &str, gpus: &[Result<Gpu, String>], parts: &'a [Part]) -> Vec<&'a Part> {
    let mut chosen: Vec<&Part> = Vec::new();
    for word in list.split(',').map(str::trim) {
        match find(word, gpus, parts) {
            // CUDA gives up at a device that is named twice.
            Some(Some(part)) if chosen.iter().any(|other| std::ptr::eq(*other, part)) => break,
            Some(part) => chosen.extend(part),
            None => break,
        }
    }
    chosen
}

/// The part that a word of `CUDA_VISIBLE_DEVICES` names: none inside for a GPU that exists and cannot be used.
fn find<'a>(word: &str, gpus: &[Result<Gpu, String>], parts: &'a [Part]) -> Option<Option<&'a Part>> {
    if let Ok(number) = word.parse::<usize>() {
        let exists = number < gpus.len();
        return exists.then(|| parts.iter().find(|part| part.number == number));
    }
    if !word.starts_with("GPU-") && !word.starts_with("MIG-") {
        return None;
    }
    let is_named = |part: &&Part| part.uuid.as_deref().is_some_and(|uuid| uuid.starts_with(word));
    parts.iter().find(is_named).map(Some)
}
