//! Where a model computes: an NVIDIA GPU, in programs that are built for one, or the CPU; and what an error of a GPU means.

use std::fmt::Display;
use std::sync::OnceLock;

use candle_core::Device;
use ingle_engine::{DeviceKind, EngineError, GpuLayers, Hardware, LoadOptions};

use crate::weights::load_error;

/// The first error of a GPU that stays. Its state belongs to the process, so this does too.
static POISON: OnceLock<String> = OnceLock::new();

/// Why nothing can be computed on a GPU any more in this process.
pub(crate) fn poison() -> Option<String> {
    POISON.get().cloned()
}

/// May a model with these options go onto a GPU, if there is one?
pub(crate) fn may_use_gpu(options: &LoadOptions) -> bool {
    cfg!(feature = "cuda") && options.gpu_layers != GpuLayers::Count(0)
}

/// Where a model computes.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) device: Device,
    /// Memory that was free there when it was chosen; 0 for the CPU.
    pub(crate) free_bytes: u64,
    /// For reports, such as `CUDA 0 (NVIDIA H100)`; empty for a CPU that has no GPU beside it.
    remark: String,
}

impl Place {
    /// The place that the options and the machine ask for. A model that stays on the CPU although a GPU is here gets a
    /// warning in the log: nobody should wonder why it is slow.
    pub(crate) fn choose(options: &LoadOptions, hardware: &Hardware) -> Self {
        Self::choose_with(options, hardware, cfg!(feature = "cuda").then_some(&open))
    }

    /// `open` opens a GPU by its number; `None` in a program that cannot.
    fn choose_with(
        options: &LoadOptions,
        hardware: &Hardware,
        open: Option<&dyn Fn(usize) -> Result<Device, String>>,
    ) -> Self {
        let gpus = || hardware.gpus().chain(&hardware.idle_gpus);
        let reached = || gpus().filter(|gpu| gpu.kind == DeviceKind::Cuda);
        let wanted = options.main_gpu.and_then(|index| reached().find(|gpu| gpu.index == index));
        let chosen = wanted.or_else(|| reached().max_by_key(|gpu| (gpu.free_bytes, std::cmp::Reverse(gpu.index))));
        let Some(gpu) = chosen.or_else(|| gpus().next()) else { return Self::cpu(String::new()) };
        let why = match (options.gpu_layers, gpu.kind, open) {
            (GpuLayers::Count(0), ..) => "gpu_layers is 0".to_owned(),
            (_, DeviceKind::Cuda, Some(open)) => match open(gpu.index) {
                Ok(device) => {
                    let remark = format!("CUDA {} ({})", gpu.index, gpu.name);
                    return Self { device, free_bytes: gpu.free_bytes, remark };
                }
                Err(reason) => reason,
            },
            (_, DeviceKind::Cuda, None) => {
                "this program computes models of this kind on the CPU; ingle-cuda beside it has them on the GPU"
                    .to_owned()
            }
            (_, DeviceKind::Cpu | DeviceKind::Rocm | DeviceKind::Intel | DeviceKind::Metal, _) => {
                "models of this kind are computed on NVIDIA's GPUs only".to_owned()
            }
        };
        tracing::warn!(model = options.name, gpu = gpu.name, "the model runs on the CPU although a GPU is here: {why}");
        Self::cpu(format!("{} is not used: {why}", gpu.name))
    }

    fn cpu(remark: String) -> Self {
        Self { device: Device::Cpu, free_bytes: 0, remark }
    }

    /// A phrase for logs and reports; `cpu` is what it says of the CPU.
    pub(crate) fn describe(&self, cpu: &str) -> String {
        match (self.device.is_cpu(), self.remark.as_str()) {
            (true, "") => cpu.to_owned(),
            (true, remark) => format!("{cpu} ({remark})"),
            (false, remark) => remark.to_owned(),
        }
    }

    /// What an error while the model is loaded means.
    pub(crate) fn load_error(&self, options: &LoadOptions, error: &dyn Display) -> EngineError {
        let reason = fault(&self.device, error);
        if self.device.is_cpu() || !is_out_of_memory(&reason) {
            return load_error(&options.path, reason);
        }
        self.out_of_memory(options, &reason)
    }

    fn out_of_memory(&self, options: &LoadOptions, reason: &str) -> EngineError {
        let reason = format!(
            "{reason} on {}, of which {} MiB were free; `gpu_layers: 0` in the model's YAML keeps it on the CPU",
            self.describe("CPU"),
            self.free_bytes >> 20
        );
        EngineError::OutOfMemory { path: options.path.display().to_string(), reason }
    }
}

/// Opens a GPU and computes something on it: a driver that is older than what the program was built with says so with the
/// first kernel only.
#[cfg(feature = "cuda")]
fn open(index: usize) -> Result<Device, String> {
    use candle_core::{DType, Tensor};
    let opened = Device::new_cuda(index).and_then(|device| {
        let sum = (Tensor::ones(32, DType::F32, &device)? + 1.0)?.sum_all()?.to_scalar::<f32>()?;
        if sum == 64.0 { Ok(device) } else { candle_core::bail!("it computes {sum} where 64 is right") }
    });
    opened.map_err(|error| format!("it cannot be used ({})", first_line(&error)))
}

#[cfg(not(feature = "cuda"))]
fn open(_: usize) -> Result<Device, String> {
    Err("this program is built without CUDA for it".to_owned())
}

/// What is told of an error of `device`. One that stays poisons the process: every later call fails with the same.
pub(crate) fn fault(device: &Device, error: &dyn Display) -> String {
    let reason = first_line(error);
    if !device.is_cpu()
        && let Some(lasting) = lasting(|| device.synchronize())
    {
        POISON.get_or_init(|| format!("the GPU is of no use any more: {lasting}; the first error was: {reason}"));
    }
    reason
}

/// The error of a device that fails although nothing is asked of it. What it says first may be left from an earlier call.
fn lasting(probe: impl Fn() -> candle_core::Result<()>) -> Option<String> {
    probe().err()?;
    probe().err().map(|error| first_line(&error))
}

/// Memory that cannot be had leaves the device as it was.
fn is_out_of_memory(reason: &str) -> bool {
    ["out of memory", "OUT_OF_MEMORY", "ALLOC_FAILED"].iter().any(|phrase| reason.contains(phrase))
}

/// Without the back-trace that may follow.
fn first_line(error: &dyn Display) -> String {
    error.to_string().lines().next().unwrap_or("it gives no reason").to_owned()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use ingle_engine::Device as Gpu;

    use super::*;

    fn gpu(index: usize, free_bytes: u64) -> Gpu {
        Gpu { kind: DeviceKind::Cuda, index, name: format!("G{index}"), free_bytes, ..Gpu::default() }
    }

    fn machine(gpus: Vec<Gpu>) -> Hardware {
        Hardware { devices: std::iter::once(Gpu::default()).chain(gpus).collect(), ..Hardware::default() }
    }

    /// What is said of the place, and the GPU that was opened.
    fn chosen(options: &LoadOptions, hardware: &Hardware) -> (String, Option<usize>) {
        let opened = Cell::new(None);
        let open = |index| {
            opened.set(Some(index));
            Err("it does not open".to_owned())
        };
        (Place::choose_with(options, hardware, Some(&open)).describe("CPU, 2 threads"), opened.get())
    }

    #[test]
    fn the_gpu_with_the_most_room_is_taken_or_the_one_that_is_named() {
        let options = LoadOptions::default();
        let two = machine(vec![gpu(0, 5), gpu(1, 7)]);
        assert_eq!(chosen(&options, &machine(Vec::new())), ("CPU, 2 threads".to_owned(), None));
        assert_eq!(chosen(&options, &two).1, Some(1));
        assert_eq!(chosen(&options, &machine(vec![gpu(0, 7), gpu(1, 7)])).1, Some(0));
        for (main_gpu, expected) in [(0, 0), (1, 1), (9, 1)] {
            let options = LoadOptions { main_gpu: Some(main_gpu), ..LoadOptions::default() };
            assert_eq!(chosen(&options, &two).1, Some(expected), "main_gpu {main_gpu}");
        }
        // One that llama.cpp does not reach is candle's all the same.
        let idle = Hardware { idle_gpus: vec![gpu(0, 5)], ..machine(Vec::new()) };
        assert_eq!(chosen(&options, &idle).1, Some(0));
    }

    #[test]
    fn a_gpu_that_is_not_used_is_told_with_its_reason() {
        let (options, one) = (LoadOptions::default(), machine(vec![gpu(0, 5)]));
        let told = |text: &str, parts: [&str; 2]| {
            assert!(text.starts_with("CPU, 2 threads (G0 is not used: ") && text.ends_with(parts[1]), "{text}");
            assert!(text.contains(parts[0]), "{text}");
        };
        told(&chosen(&options, &one).0, ["it does not open", ")"]);
        let none = LoadOptions { gpu_layers: GpuLayers::Count(0), ..LoadOptions::default() };
        assert_eq!(chosen(&none, &one).1, None);
        told(&chosen(&none, &one).0, ["gpu_layers is 0", ")"]);
        let without = Place::choose_with(&options, &one, None).describe("CPU, 2 threads");
        told(&without, ["ingle-cuda", ")"]);
        let other = machine(vec![Gpu { kind: DeviceKind::Rocm, ..gpu(0, 5) }]);
        assert_eq!(chosen(&options, &other).1, None);
        told(&chosen(&options, &other).0, ["NVIDIA's GPUs only", ")"]);
    }

    #[test]
    fn a_gpu_that_does_not_open_leaves_the_cpu() {
        // With CUDA or without, there are never so many.
        let place = Place::choose(&LoadOptions::default(), &machine(vec![gpu(4096, 5)]));
        assert!(place.device.is_cpu());
        let text = place.describe("CPU");
        assert!(text.starts_with("CPU (G4096 is not used: "), "{text}");
        eprintln!("{text}");
    }

    #[test]
    fn memory_that_cannot_be_had_says_what_to_change() {
        let place = Place { device: Device::Cpu, free_bytes: 300 << 20, remark: String::new() };
        let text = place.out_of_memory(&LoadOptions::default(), "out of memory").to_string();
        assert!(text.contains("300 MiB") && text.contains("gpu_layers: 0"), "{text}");
        for (text, expected) in [
            ("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")", true),
            ("CublasError(CUBLAS_STATUS_ALLOC_FAILED)", true),
            ("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal memory access was encountered\")", false),
        ] {
            assert_eq!(is_out_of_memory(text), expected, "{text}");
        }
        let error = candle_core::Error::Msg("what it is\n   0: a back-trace".into());
        assert_eq!(fault(&Device::Cpu, &error), "what it is");
        let error = place.load_error(&LoadOptions::default(), &error);
        assert!(matches!(error, EngineError::Load { .. }), "{error}");
        assert_eq!(poison(), None);
    }

    #[test]
    fn only_an_error_that_stays_is_one() {
        for (n_failures, expected) in [(0, None), (1, None), (2, Some("error 2")), (9, Some("error 2"))] {
            let calls = Cell::new(0);
            let probe = || {
                calls.set(calls.get() + 1);
                if calls.get() <= n_failures { candle_core::bail!("error {}", calls.get()) } else { Ok(()) }
            };
            assert_eq!(lasting(probe).as_deref(), expected, "{n_failures} failures");
        }
    }
}
