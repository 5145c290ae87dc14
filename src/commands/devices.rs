//! `ingle devices`.

use ingle::Hardware;
use ingle::hardware::{self, Device, DeviceKind};
use serde_json::{Value, json};

use crate::cli::DevicesArgs;
use crate::output;

/// Prints what the machine has, GPUs that this program cannot use included.
pub(crate) fn run(args: DevicesArgs) -> anyhow::Result<()> {
    let report = Report { found: hardware::detect(), used: ingle::hardware_in_use() };
    if args.json {
        return output::print(&format!("{:#}\n", report.to_json()));
    }
    output::print(&report.to_text())
}

struct Report {
    found: Hardware,
    used: Hardware,
}

impl Report {
    fn is_used(&self, device: &Device) -> bool {
        self.used.devices.iter().any(|other| (other.kind, other.index) == (device.kind, device.index))
    }

    fn to_json(&self) -> Value {
        let found = &self.found;
        let device = |device: &Device| {
            let mut value = json!({
                "kind": device.kind.name(),
                "index": device.index,
                "name": device.name,
                "total_bytes": device.total_bytes,
                "free_bytes": device.free_bytes,
                "compute_capability": version(device.compute_capability),
                "utilization_percent": device.load.utilization_percent,
                "power_watts": device.load.power_milliwatts.map(|power| power as f64 / 1000.0),
                "power_limit_watts": device.load.power_limit_milliwatts.map(|power| power as f64 / 1000.0),
                "numa_node": device.numa_node,
            });
            value["used"] = json!(self.is_used(device));
            value
        };
        json!({
            "devices": found.devices.iter().map(device).collect::<Vec<_>>(),
            "cores": found.n_cores,
            "numa_nodes": found.n_numa_nodes,
            "instruction_sets": found.instruction_sets,
            "driver_version": found.driver_version,
            "cuda_version": version(found.cuda_version),
            "gpu_interfaces": found.gpu_interfaces,
            "usable": { "cpu": true, "cuda": self.used.gpus().any(|gpu| gpu.kind == DeviceKind::Cuda) },
            "backends": ingle::compute_backends(),
            "notes": self.used.notes,
        })
    }

    fn to_text(&self) -> String {
        let found = &self.found;
        let rows: Vec<Vec<String>> = found.devices.iter().map(|device| self.row(device)).collect();
        let head = ["DEVICE", "NAME", "MEMORY", "FREE", "COMPUTE", "BUSY", "POWER", "USED"];
        let mut text = output::table(&head, &rows);
        let nodes = if found.n_numa_nodes > 1 { format!(", {} NUMA nodes", found.n_numa_nodes) } else { String::new() };
        text.push_str(&format!("\n{} cores{nodes}, {}\n", found.n_cores, found.instruction_sets.join(" ")));
        if let Some(driver) = &found.driver_version {
            let cuda = version(found.cuda_version).map_or_else(String::new, |cuda| format!(", CUDA {cuda}"));
            text.push_str(&format!("driver {driver}{cuda}\n"));
        }
        text.push_str(&format!("computes with {}\n", ingle::compute_backends().join(", ")));
        self.used.notes.iter().for_each(|note| text.push_str(&format!("{note}\n")));
        text
    }

    fn row(&self, device: &Device) -> Vec<String> {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let bytes = |bytes: u64| if bytes == 0 { "-".to_owned() } else { output::bytes(bytes) };
        let load = &device.load;
        vec![
            format!("{}{}", device.kind.name(), device.index),
            device.name.clone(),
            bytes(device.total_bytes),
            bytes(device.free_bytes),
            or_dash(version(device.compute_capability)),
            or_dash(load.utilization_percent.map(|percent| format!("{percent} %"))),
            or_dash(load.power_milliwatts.map(|power| format!("{} W", power / 1000))),
            if self.is_used(device) { "yes".to_owned() } else { "no".to_owned() },
        ]
    }
}

fn version(pair: Option<(u32, u32)>) -> Option<String> {
    pair.map(|(major, minor)| format!("{major}.{minor}"))
}
