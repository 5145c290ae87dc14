//! Main memory: what the machine has, and what the cgroups of this process leave of it.

use super::sources::Files;

/// Bytes of main memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Memory {
    pub(super) total_bytes: u64,
    pub(super) free_bytes: u64,
}

pub(super) fn read(files: &dyn Files, notes: &mut Vec<String>) -> Memory {
    let Some(machine) = machine(files) else {
        notes.push("/proc/meminfo cannot be read: the memory is not known".to_owned());
        return Memory::default();
    };
    groups(files).into_iter().fold(machine, |held, group| Memory {
        total_bytes: held.total_bytes.min(group.total_bytes),
        free_bytes: held.free_bytes.min(group.free_bytes),
    })
}

fn machine(files: &dyn Files) -> Option<Memory> {
    let info = files.read("/proc/meminfo")?;
    let kib = |key: &str| number_after(&info, key).map(|kib| kib.saturating_mul(1024));
    let total_bytes = kib("MemTotal:")?;
    // Old kernels have no estimate of their own.
    let free_bytes = kib("MemAvailable:").or_else(|| Some(kib("MemFree:")?.saturating_add(kib("Cached:")?)))?;
    Some(Memory { total_bytes, free_bytes: free_bytes.min(total_bytes) })
}

/// The number behind a key at the beginning of a line.
fn number_after(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Names of one version of the interface.
struct Interface {
    mount: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// Key in `memory.stat` of pages that are given up when somebody needs memory.
    reclaimable: &'static str,
}

const V1: Interface = Interface {
    mount: "/sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file ",
};

const V2: Interface =
    Interface { mount: "/sys/fs/cgroup", limit: "memory.max", usage: "memory.current", reclaimable: "inactive_file " };

/// The limits of all groups this process is in.
fn groups(files: &dyn Files) -> Vec<Memory> {
    let membership = files.read("/proc/self/cgroup").unwrap_or_default();
    let mut found = Vec::new();
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let interface = match controllers {
            "" => V2,
            _ if controllers.split(',').any(|controller| controller == "memory") => V1,
            _ => continue,
        };
        found.extend(ancestors(path).filter_map(|group| limit(files, &interface, group)));
    }
    found
}

/// A group and all above it, the root last. In a container the path may be the host's; its own group is then the root.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path.trim_end_matches('/')), |path| path.rfind('/').map(|at| &path[..at]))
}

fn limit(files: &dyn Files, interface: &Interface, group: &str) -> Option<Memory> {
    let read = |file: &str| files.read(&format!("{}{group}/{file}", interface.mount));
    // Without a limit version 2 says `max` and version 1 a number larger than any memory.
    let total_bytes: u64 = read(interface.limit)?.trim().parse().ok()?;
    let used: u64 = read(interface.usage).and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let reclaimable = read("memory.stat").and_then(|stat| number_after(&stat, interface.reclaimable)).unwrap_or(0);
    let free_bytes = total_bytes.saturating_sub(used.saturating_sub(reclaimable));
    Some(Memory { total_bytes, free_bytes })
}
