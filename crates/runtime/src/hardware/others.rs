//! GPUs of other makers, from what the kernel shows of them, and the programming interfaces that are installed.

use ingle_engine::{Device, DeviceKind};

use super::sources::{Files, Machine};

const CARDS: &str = "/sys/class/drm";

/// PCI numbers of makers.
const AMD: &str = "0x1002";
const INTEL: &str = "0x8086";

/// Where a loader of an interface looks for drivers; one file there means that it is installed.
const INTERFACES: &[(&str, &[&str])] = &[
    ("rocm", &["/dev/kfd"]),
    ("vulkan", &["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"]),
    ("opencl", &["/etc/OpenCL/vendors"]),
    ("level_zero", &["/usr/lib/x86_64-linux-gnu/libze_loader.so.1", "/usr/lib64/libze_loader.so.1"]),
];

/// Endings of those places that are folders.
const FOLDERS: &[&str] = &["icd.d", "vendors"];

/// GPUs that are not NVIDIA's, by kind and number.
pub(super) fn read(files: &dyn Files, machine: &Machine<'_>) -> Vec<Device> {
    let mut devices: Vec<Device> = cards(files).filter_map(|card| device(files, &card)).collect();
    devices.sort_by_key(|device| device.kind);
    number(&mut devices);
    if machine.is_apple {
        devices.push(Device { kind: DeviceKind::Metal, name: "Apple GPU".to_owned(), ..Device::default() });
    }
    devices
}

/// Interfaces whose driver is installed.
pub(super) fn interfaces(files: &dyn Files, machine: &Machine<'_>) -> Vec<String> {
    // An empty folder is left behind by drivers that are gone.
    let is_file = |place: &str| !FOLDERS.iter().any(|ending| place.ends_with(ending)) && files.exists(place);
    let is_there = |place: &str| is_file(place) || !files.list(place).is_empty();
    let found = INTERFACES.iter().filter(|(_, places)| places.iter().any(|place| is_there(place)));
    let metal = machine.is_apple.then(|| "metal".to_owned());
    found.map(|(name, _)| (*name).to_owned()).chain(metal).collect()
}

/// `card0`, `card1`, …; their connectors (`card0-DP-1`) are none.
fn cards(files: &dyn Files) -> impl Iterator<Item = String> {
    let is_card = |name: &String| {
        name.strip_prefix("card").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    files.list(CARDS).into_iter().filter(is_card)
}

fn device(files: &dyn Files, card: &str) -> Option<Device> {
    let read = |file: &str| files.read(&format!("{CARDS}/{card}/{file}")).map(|text| text.trim().to_owned());
    let number = |file: &str| read(file).and_then(|text| text.parse::<u64>().ok());
    let (kind, maker) = match read("device/vendor")?.as_str() {
        AMD => (DeviceKind::Rocm, "AMD"),
        INTEL => (DeviceKind::Intel, "Intel"),
        _ => return None,
    };
    let id = read("device/device").unwrap_or_else(|| "unknown".to_owned());
    let name = read("device/product_name").filter(|name| !name.is_empty());
    let total_bytes = number("device/mem_info_vram_total").or_else(|| number("lmem_total_bytes")).unwrap_or(0);
    let used_bytes = number("device/mem_info_vram_used").unwrap_or(0);
    let free_bytes = number("lmem_avail_bytes").unwrap_or_else(|| total_bytes.saturating_sub(used_bytes));
    let percent = number("device/gpu_busy_percent").and_then(|percent| u32::try_from(percent).ok());
    let node = read("device/numa_node").and_then(|text| text.parse().ok());
    Some(Device {
        kind,
        name: name.unwrap_or_else(|| format!("{maker} GPU {id}")),
        total_bytes,
        free_bytes: free_bytes.min(total_bytes),
        load: ingle_engine::DeviceLoad { utilization_percent: percent, ..Default::default() },
        numa_node: node,
        ..Device::default()
    })
}

/// Numbers the devices of each kind from 0; those of one kind stand together.
fn number(devices: &mut [Device]) {
    let mut last = None;
    let mut next = 0;
    for device in devices {
        next = if last == Some(device.kind) { next + 1 } else { 0 };
        last = Some(device.kind);
        device.index = next;
    }
}
