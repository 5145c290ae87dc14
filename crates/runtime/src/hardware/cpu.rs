//! The processor: its name, the instruction sets that matter, and the cores this process may use.

use std::collections::BTreeSet;

use super::sources::Files;

/// What detection finds.
pub(super) struct Processor {
    pub(super) name: String,
    /// Physical cores under affinity and quota, at least 1.
    pub(super) n_cores: usize,
    /// NUMA nodes with memory, at least 1.
    pub(super) n_numa_nodes: usize,
    pub(super) instruction_sets: Vec<String>,
}

/// Spelling in `/proc/cpuinfo` and ours, in the order of the report.
const INSTRUCTION_SETS: &[(&str, &str)] = &[
    ("avx", "avx"),
    ("avx2", "avx2"),
    ("fma", "fma"),
    ("f16c", "f16c"),
    ("avx_vnni", "avx_vnni"),
    ("avx512f", "avx512f"),
    ("avx512bw", "avx512bw"),
    ("avx512vl", "avx512vl"),
    ("avx512_vnni", "avx512_vnni"),
    ("avx512_bf16", "avx512_bf16"),
    ("amx_tile", "amx_tile"),
    ("amx_int8", "amx_int8"),
    ("amx_bf16", "amx_bf16"),
    ("asimd", "neon"),
    ("asimddp", "dotprod"),
    ("asimdhp", "fp16"),
    ("bf16", "bf16"),
    ("i8mm", "i8mm"),
    ("sve", "sve"),
];

pub(super) fn read(files: &dyn Files, n_available: usize, notes: &mut Vec<String>) -> Processor {
    let info = files.read("/proc/cpuinfo");
    if info.is_none() {
        notes.push("/proc/cpuinfo cannot be read: the instruction sets are not known".to_owned());
    }
    let info = info.unwrap_or_default();
    Processor {
        name: name(&info),
        n_cores: n_cores(files, n_available, notes),
        n_numa_nodes: n_numa_nodes(files, notes),
        instruction_sets: instruction_sets(&info),
    }
}

/// The first line with one of these keys.
fn field<'a>(info: &'a str, keys: &[&str]) -> Option<&'a str> {
    let value = |line: &'a str| {
        let (key, value) = line.split_once(':')?;
        keys.contains(&key.trim()).then(|| value.trim()).filter(|value| !value.is_empty())
    };
    info.lines().find_map(value)
}

fn name(info: &str) -> String {
    let found = field(info, &["model name", "Model", "Hardware", "cpu model"]);
    found.map_or_else(|| format!("{} processor", std::env::consts::ARCH), str::to_owned)
}

fn instruction_sets(info: &str) -> Vec<String> {
    let flags: BTreeSet<&str> = field(info, &["flags", "Features"]).unwrap_or_default().split_whitespace().collect();
    let known = INSTRUCTION_SETS.iter().filter(|(flag, _)| flags.contains(flag));
    known.map(|(_, name)| (*name).to_owned()).collect()
}

/// Hardware threads that share a core compete for its arithmetic units, so computing counts cores.
fn n_cores(files: &dyn Files, n_available: usize, notes: &mut Vec<String>) -> usize {
    let allowed = allowed_threads(files);
    let cores: Option<BTreeSet<String>> = allowed.iter().map(|&thread| siblings(files, thread)).collect();
    let n_physical = cores.map_or(0, |cores| cores.len());
    if n_physical == 0 {
        return n_available.max(1);
    }
    let n_cores = n_physical.min(n_available).max(1);
    if allowed.len() > n_physical && n_available > n_cores {
        notes.push(format!("{n_available} hardware threads share these {n_cores} cores"));
    }
    n_cores
}

/// Weights that one node holds are read slowly from the others.
fn n_numa_nodes(files: &dyn Files, notes: &mut Vec<String>) -> usize {
    let text = files.read("/sys/devices/system/node/has_memory").unwrap_or_default();
    let n_nodes = parse_list(&text).map_or(1, |nodes| nodes.len().max(1));
    if n_nodes > 1 {
        notes.push(format!(
            "{n_nodes} NUMA nodes: a model on the CPU answers faster when it is kept on one (numactl --cpunodebind=0 \
             --membind=0), as long as it fits there"
        ));
    }
    n_nodes
}

/// Which hardware threads share the core of this one; the same text for each of them.
fn siblings(files: &dyn Files, thread: usize) -> Option<String> {
    let text = files.read(&format!("/sys/devices/system/cpu/cpu{thread}/topology/thread_siblings_list"))?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Numbers of the hardware threads that affinity and cpusets leave to this process.
fn allowed_threads(files: &dyn Files) -> Vec<usize> {
    let status = files.read("/proc/self/status").unwrap_or_default();
    field(&status, &["Cpus_allowed_list"]).and_then(parse_list).unwrap_or_default()
}

/// Reads `0-3,8`; `None` when it is something else.
pub(super) fn parse_list(text: &str) -> Option<Vec<usize>> {
    /// More than any machine has; keeps a strange text from filling memory.
    const MOST_THREADS: usize = 65_536;
    let mut numbers = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        if first > last || last >= MOST_THREADS || numbers.len() > MOST_THREADS {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}
