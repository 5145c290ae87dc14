//! `ingle devices`.

use ingle::{Hardware, hardware};
use serde_json::{Value, json};

use crate::cli::DevicesArgs;
use crate::output;

/// Prints what the machine has, GPUs that this build cannot use included.
pub(crate) fn run(args: DevicesArgs) -> anyhow::Result<()> {
    let found = hardware::detect();
    if args.json {
        return output::print(&format!("{:#}\n", to_json(&found)));
    }
    output::print(&to_text(&found))
}

fn to_json(found: &Hardware) -> Value {
    let version = |pair: Option<(u32, u32)>| pair.map(|(major, minor)| format!("{major}.{minor}"));
    let device = |device: &hardware::Device| {
        json!({
            "kind": device.kind.name(),
            "index": device.index,
            "name": device.name,
            "total_bytes": device.total_bytes,
            "free_bytes": device.free_bytes,
            "compute_capability": version(device.compute_capability),
        })
    };
    json!({
        "devices": found.devices.iter().map(device).collect::<Vec<_>>(),
        "cores": found.n_cores,
        "instruction_sets": found.instruction_sets,
        "driver_version": found.driver_version,
        "cuda_version": version(found.cuda_version),
        "usable": { "cpu": true, "cuda": ingle::uses_gpus() },
        "notes": notes(found),
    })
}

fn to_text(found: &Hardware) -> String {
    let row = |device: &hardware::Device| {
        let compute = device.compute_capability.map(|(major, minor)| format!("{major}.{minor}"));
        vec![
            format!("{}{}", device.kind.name(), device.index),
            device.name.clone(),
            output::bytes(device.total_bytes),
            output::bytes(device.free_bytes),
            compute.unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let rows: Vec<Vec<String>> = found.devices.iter().map(row).collect();
    let mut text = output::table(&["DEVICE", "NAME", "MEMORY", "FREE", "COMPUTE"], &rows);
    text.push_str(&format!("\n{} cores, {}\n", found.n_cores, found.instruction_sets.join(" ")));
    if let Some(driver) = &found.driver_version {
        let cuda = found.cuda_version.map_or_else(String::new, |(major, minor)| format!(", CUDA {major}.{minor}"));
        text.push_str(&format!("driver {driver}{cuda}\n"));
    }
    notes(found).iter().for_each(|note| text.push_str(&format!("{note}\n")));
    text
}

/// What detection says, and what this build makes of it.
fn notes(found: &Hardware) -> Vec<String> {
    if ingle::uses_gpus() { found.notes.clone() } else { hardware::without_gpus(found.clone()).notes }
}
