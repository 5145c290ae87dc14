//! Says where a model is, and warns when a GPU lies idle.

use ingle_engine::{GpuLayers, Hardware, LoadOptions};

use crate::plan::Plan;
use crate::plugins;
use crate::process::GpuDevice;

/// A phrase for logs and reports, such as `CUDA0 (25/25 layers)`. A model on the CPU although a GPU is there gets a
/// warning in the log as well: nobody should wonder why it is slow.
pub(crate) fn describe(plan: &Plan, options: &LoadOptions, gpus: &[GpuDevice], hardware: &Hardware) -> String {
    match idle_gpu(plan, options, gpus, hardware) {
        Some((name, why)) => {
            tracing::warn!(model = options.name, gpu = name, "the model runs on the CPU although a GPU is here: {why}");
            format!("CPU ({name} is not used: {why})")
        }
        None if plan.placement.n_gpu_layers == 0 => "CPU".to_owned(),
        None => on_gpus(plan, options, gpus),
    }
}

/// A GPU that is here while the whole model is on the CPU, and why.
fn idle_gpu<'a>(
    plan: &Plan,
    options: &LoadOptions,
    gpus: &'a [GpuDevice],
    hardware: &'a Hardware,
) -> Option<(&'a str, String)> {
    if plan.placement.n_gpu_layers > 0 {
        return None;
    }
    // What ggml does not reach another backend may: then it is none of the idle ones.
    match (gpus.first(), hardware.idle_gpus.first().or(hardware.gpus().next())) {
        (Some(gpu), _) => {
            let why = match options.gpu_layers {
                GpuLayers::Count(_) => "gpu_layers is 0".to_owned(),
                GpuLayers::Auto => format!("its {} MiB free hold no layer beside the buffers", gpu.free_bytes >> 20),
            };
            Some((gpu.description.as_str(), why))
        }
        (None, Some(gpu)) => {
            let why = plugins::blindness().unwrap_or_else(|| "this program has no backend for it".to_owned());
            Some((gpu.name.as_str(), why))
        }
        (None, None) => None,
    }
}

fn on_gpus(plan: &Plan, options: &LoadOptions, gpus: &[GpuDevice]) -> String {
    let (n_on_gpus, n_all) = (plan.placement.n_gpu_layers, plan.n_layers + 1);
    let by_gpu = &plan.placement.layers_by_gpu;
    let mut text = if by_gpu.len() > 1 {
        let used = gpus.iter().zip(by_gpu).filter(|(_, count)| **count > 0);
        let parts: Vec<String> = used.map(|(gpu, count)| format!("{} {count}", gpu.name)).collect();
        format!("{} of {n_all} layers", parts.join(" + "))
    } else {
        let one = options.main_gpu.filter(|_| options.tensor_split.is_empty()).and_then(|index| gpus.get(index));
        let names: Vec<&str> = match one {
            Some(gpu) => vec![gpu.name.as_str()],
            None => gpus.iter().map(|gpu| gpu.name.as_str()).collect(),
        };
        format!("{} ({n_on_gpus}/{n_all} layers)", names.join(", "))
    };
    if plan.placement.n_cpu_experts > 0 {
        text.push_str(&format!(", experts of {} layers on the CPU", plan.placement.n_cpu_experts));
    } else if n_on_gpus < n_all {
        text.push_str(", the rest on the CPU");
    }
    text
}
