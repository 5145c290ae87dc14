//! Gauges of the devices, read from their drivers when somebody asks.
//!
//! Names after those of NVIDIA's DCGM exporter would claim more than is read here; these say what they are.

use ingle_runtime::Hardware;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceLabels {
    /// Such as `cuda0`.
    device: String,
    name: String,
}

type DeviceFamily = Family<DeviceLabels, Gauge>;

/// What devices have and do.
#[derive(Debug)]
pub(super) struct DeviceGauges {
    memory: DeviceFamily,
    memory_free: DeviceFamily,
    utilization: DeviceFamily,
    power: DeviceFamily,
}

impl DeviceGauges {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let mut family = |name: &str, help: &str| super::add_family(registry, name, help);
        Self {
            memory: family("device_memory_bytes", "Memory of a device"),
            memory_free: family("device_memory_free_bytes", "Memory of a device that is free now"),
            utilization: family("device_utilization_percent", "Part of the last moments in which a device computed"),
            power: family("device_power_milliwatts", "Power that a device draws now"),
        }
    }

    /// Takes over what is so now; a device that does not tell has no gauge.
    pub(super) fn set(&self, hardware: &Hardware) {
        for family in [&self.memory, &self.memory_free, &self.utilization, &self.power] {
            family.clear();
        }
        for device in &hardware.devices {
            let labels =
                DeviceLabels { device: format!("{}{}", device.kind.name(), device.index), name: device.name.clone() };
            let values = [
                (&self.memory, Some(device.total_bytes).filter(|&bytes| bytes > 0)),
                (&self.memory_free, Some(device.free_bytes).filter(|_| device.total_bytes > 0)),
                (&self.utilization, device.load.utilization_percent.map(u64::from)),
                (&self.power, device.load.power_milliwatts),
            ];
            for (family, value) in values {
                if let Some(value) = value {
                    family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ingle_engine::{Device, DeviceKind, DeviceLoad};

    use super::*;

    #[test]
    fn a_device_has_the_gauges_it_tells_of() {
        let mut registry = Registry::default();
        let gauges = DeviceGauges::new(&mut registry);
        let load = DeviceLoad { utilization_percent: Some(40), power_milliwatts: Some(300_000), ..Default::default() };
        let gpu = Device {
            kind: DeviceKind::Cuda,
            name: "A".into(),
            total_bytes: 80,
            free_bytes: 70,
            load,
            ..Device::default()
        };
        let cpu = Device { name: "C".into(), total_bytes: 8, free_bytes: 0, ..Device::default() };
        gauges.set(&Hardware { devices: vec![cpu, gpu], ..Hardware::default() });
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "device_memory_bytes{device=\"cuda0\",name=\"A\"} 80",
            "device_memory_free_bytes{device=\"cpu0\",name=\"C\"} 0",
            "device_utilization_percent{device=\"cuda0\",name=\"A\"} 40",
            "device_power_milliwatts{device=\"cuda0\",name=\"A\"} 300000",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("device_power_milliwatts{device=\"cpu0\""), "{text}");
        gauges.set(&Hardware::default());
        text.clear();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(!text.contains("cuda0"), "a device that is gone has none");
    }
}
