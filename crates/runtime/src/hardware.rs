//! What the machine offers: processor, memory under cgroup limits, NVIDIA GPUs.
//!
//! Detection never fails: what cannot be read becomes a sentence in [`Hardware::notes`]. NVML is opened at run time, so
//! the same program runs where there is no driver. Everything but the two readers of the real machine is arithmetic over
//! texts and answers that are handed in, so each branch is tested without the machine it is about.

mod choice;
mod cpu;
mod energy;
mod gpu;
mod memory;
mod nvml;
mod others;
mod sources;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

pub use energy::EnergyMeter;
use ingle_engine::Hardware;
pub use ingle_engine::{Device, DeviceKind, DeviceLoad};

pub use choice::{Blind, Interface, NoGpu, in_use, require_gpu, wanted_interfaces};
use sources::{Files, GpuSource, Machine};

/// The machine this program runs on, with what is free now. Takes a few milliseconds, with a GPU some tens.
pub fn detect() -> Hardware {
    let n_available = std::thread::available_parallelism().map_or(1, usize::from);
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    let is_apple = cfg!(all(target_os = "macos", target_arch = "aarch64"));
    let machine = Machine { n_available, visible_gpus: visible.as_deref(), is_apple };
    detect_from(&sources::RealFiles, &nvml::Nvml, &machine)
}

fn detect_from(files: &dyn Files, gpus: &dyn GpuSource, machine: &Machine<'_>) -> Hardware {
    let mut notes = Vec::new();
    let processor = cpu::read(files, machine.n_available, &mut notes);
    let memory = memory::read(files, &mut notes);
    let found = gpu::read(gpus, machine.visible_gpus, &mut notes);
    let cpu = Device {
        kind: DeviceKind::Cpu,
        name: processor.name,
        total_bytes: memory.total_bytes,
        free_bytes: memory.free_bytes,
        ..Device::default()
    };
    Hardware {
        devices: std::iter::once(cpu).chain(found.devices).chain(others::read(files, machine)).collect(),
        idle_gpus: Vec::new(),
        n_cores: processor.n_cores,
        n_numa_nodes: processor.n_numa_nodes,
        instruction_sets: processor.instruction_sets,
        driver_version: found.driver_version,
        cuda_version: found.cuda_version,
        gpu_interfaces: others::interfaces(files, machine),
        notes,
    }
}

/// One line for the log at start.
pub fn summary(hardware: &Hardware) -> String {
    let mut line = String::new();
    if let Some(cpu) = hardware.cpu() {
        let cores = if hardware.n_cores == 1 { "core" } else { "cores" };
        let sets = hardware.instruction_sets.join(" ");
        let sets = if sets.is_empty() { sets } else { format!(", {sets}") };
        let memory = memory_text(cpu);
        // Writing to a string cannot fail.
        let _ = write!(line, "{}: {} {cores}{sets}, {memory}", cpu.name, hardware.n_cores);
    }
    for gpu in hardware.gpus() {
        let capability = gpu.compute_capability.map(|(major, minor)| format!(", compute {major}.{minor}"));
        let _ = write!(line, "; GPU {} {}{}", gpu.index, gpu.name, capability.unwrap_or_default());
        if gpu.total_bytes > 0 {
            let _ = write!(line, ", {}", memory_text(gpu));
        }
    }
    if let Some(driver) = &hardware.driver_version {
        let _ = write!(line, "; driver {driver}");
    }
    if let Some((major, minor)) = hardware.cuda_version {
        let _ = write!(line, ", CUDA {major}.{minor}");
    }
    for note in &hardware.notes {
        let _ = write!(line, "; {note}");
    }
    line
}

fn memory_text(device: &Device) -> String {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    format!("{:.1} of {:.1} GiB free", gib(device.free_bytes), gib(device.total_bytes))
}
