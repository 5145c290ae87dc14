//! From a driver's answer to devices and notes.

use ingle_engine::{Device, DeviceKind};

use super::sources::{Gpu, GpuSource, GpuSurvey, NoSurvey};

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
        Err(NoSurvey::NoDriver) => {
            notes.push("no NVIDIA driver: running on the CPU".to_owned());
            Gpus::default()
        }
        Err(NoSurvey::Failed(reason)) => {
            notes.push(format!("the NVIDIA driver does not answer ({reason}): running on the CPU"));
            Gpus::default()
        }
    }
}

fn from_survey(survey: GpuSurvey, visible: Option<&str>, notes: &mut Vec<String>) -> Gpus {
    if survey.gpus.is_empty() {
        notes.push("the NVIDIA driver is here and has no GPU: running on the CPU".to_owned());
    }
    let chosen = match visible {
        Some(list) => visible_indices(list, &survey.gpus),
        None => (0..survey.gpus.len()).collect(),
    };
    if chosen.is_empty() && !survey.gpus.is_empty() {
        notes.push("CUDA_VISIBLE_DEVICES hides all GPUs: running on the CPU".to_owned());
    }
    let mut devices = Vec::new();
    for (index, &number) in chosen.iter().enumerate() {
        match &survey.gpus[number] {
            Ok(gpu) => devices.push(device(index, gpu)),
            Err(reason) => notes.push(format!("GPU {number} does not answer and is not used: {reason}")),
        }
    }
    Gpus { devices, driver_version: survey.driver_version, cuda_version: survey.cuda_version }
}

fn device(index: usize, gpu: &Gpu) -> Device {
    Device {
        kind: DeviceKind::Cuda,
        index,
        name: gpu.name.clone(),
        total_bytes: gpu.total_bytes,
        free_bytes: gpu.free_bytes.min(gpu.total_bytes),
        compute_capability: gpu.compute_capability,
    }
}

/// The GPUs that CUDA will show: numbers or beginnings of UUIDs, up to the first that does not exist.
fn visible_indices(list: &str, gpus: &[Result<Gpu, String>]) -> Vec<usize> {
    let mut chosen = Vec::new();
    for word in list.split(',').map(str::trim) {
        match find(word, gpus) {
            Some(number) if !chosen.contains(&number) => chosen.push(number),
            Some(_) | None => break,
        }
    }
    chosen
}

fn find(word: &str, gpus: &[Result<Gpu, String>]) -> Option<usize> {
    if let Ok(number) = word.parse::<usize>() {
        return (number < gpus.len()).then_some(number);
    }
    if !word.starts_with("GPU-") {
        return None;
    }
    let uuid = |gpu: &Result<Gpu, String>| gpu.as_ref().ok().and_then(|gpu| gpu.uuid.clone());
    gpus.iter().position(|gpu| uuid(gpu).is_some_and(|uuid| uuid.starts_with(word)))
}
