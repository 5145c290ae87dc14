use std::collections::HashMap;

use super::cpu::parse_list;
use super::sources::{Files, Gpu, GpuSource, GpuSurvey, Machine, NoSurvey};
use super::{detect, detect_from, summary, without_gpus};
use ingle_engine::{DeviceKind, Hardware};

const GIB: u64 = 1 << 30;
const X86: &str = "processor : 0\nmodel name : Xeon 9\nflags : fpu avx avx2 fma f16c avx512f avx512_vnni amx_int8\n";
const ARM: &str = "processor : 0\nFeatures : fp asimd asimddp i8mm\n";
const MEMINFO: &str = "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n";

impl Files for HashMap<String, String> {
    fn read(&self, path: &str) -> Option<String> {
        self.get(path).cloned()
    }
}

impl GpuSource for Result<GpuSurvey, NoSurvey> {
    fn survey(&self) -> Result<GpuSurvey, NoSurvey> {
        self.clone()
    }
}

fn files(list: &[(&str, &str)]) -> HashMap<String, String> {
    list.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

/// A machine with `siblings[n]` in the topology of hardware thread n.
fn with_threads(allowed: &str, siblings: &[&str]) -> HashMap<String, String> {
    let mut files = files(&[("/proc/cpuinfo", X86), ("/proc/meminfo", MEMINFO)]);
    files.insert("/proc/self/status".into(), format!("Name: x\nCpus_allowed:\tff\nCpus_allowed_list:\t{allowed}\n"));
    for (thread, list) in siblings.iter().enumerate() {
        let path = format!("/sys/devices/system/cpu/cpu{thread}/topology/thread_siblings_list");
        files.insert(path, format!("{list}\n"));
    }
    files
}

fn read(files: &HashMap<String, String>, n_available: usize) -> Hardware {
    let no_driver: Result<GpuSurvey, NoSurvey> = Err(NoSurvey::NoDriver);
    detect_from(files, &no_driver, &Machine { n_available, visible_gpus: None })
}

fn gpu(name: &str) -> Result<Gpu, String> {
    Ok(Gpu {
        name: name.to_owned(),
        uuid: Some(format!("GPU-{name}-1")),
        total_bytes: 80 * GIB,
        free_bytes: 79 * GIB,
        compute_capability: Some((9, 0)),
    })
}

fn with_gpus(gpus: Vec<Result<Gpu, String>>, visible: Option<&str>) -> Hardware {
    let survey = GpuSurvey { driver_version: Some("550.1".into()), cuda_version: Some((12, 4)), gpus };
    let source: Result<GpuSurvey, NoSurvey> = Ok(survey);
    let machine = Machine { n_available: 2, visible_gpus: visible };
    detect_from(&with_threads("0-1", &["0", "1"]), &source, &machine)
}

#[test]
fn cores_are_counted_under_affinity_quota_and_smt() {
    let smt = ["0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"];
    let cases: [(&str, &[&str], usize, usize); 8] = [
        ("0-7", &smt, 8, 4),
        ("0-3", &smt, 4, 4),
        ("0,4", &smt, 2, 1),
        ("0-7", &smt, 2, 2),
        ("0-1", &["0", "1"], 2, 2),
        ("0-3", &[], 4, 4),
        ("nonsense", &smt, 3, 3),
        ("0", &["0"], 0, 1),
    ];
    for (allowed, siblings, n_available, expected) in cases {
        let found = read(&with_threads(allowed, siblings), n_available);
        assert_eq!(found.n_cores, expected, "{allowed} {siblings:?} {n_available}");
    }
    let notes = read(&with_threads("0-7", &smt), 8).notes;
    assert!(notes.iter().any(|note| note == "8 hardware threads share these 4 cores"), "{notes:?}");
}

#[test]
fn lists_of_threads() {
    let cases = [
        ("0", Some(vec![0])),
        ("0-2,5", Some(vec![0, 1, 2, 5])),
        (" 3 ", Some(vec![3])),
        ("", None),
        ("2-1", None),
        ("0-99999999999", None),
        ("a", None),
    ];
    for (text, expected) in cases {
        assert_eq!(parse_list(text), expected, "{text:?}");
    }
}

#[test]
fn names_and_instruction_sets() {
    let cases: [(&str, &str, &[&str]); 3] = [
        (X86, "Xeon 9", &["avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "amx_int8"]),
        (ARM, "", &["neon", "dotprod", "i8mm"]),
        ("", "", &[]),
    ];
    for (info, name, sets) in cases {
        let found = read(&files(&[("/proc/cpuinfo", info), ("/proc/meminfo", MEMINFO)]), 1);
        let cpu = found.cpu().expect("the processor is always there");
        assert!(if name.is_empty() { cpu.name.ends_with("processor") } else { cpu.name == name }, "{}", cpu.name);
        assert_eq!(found.instruction_sets, sets);
    }
}

/// What it is, `/proc/self/cgroup`, files of the groups, expected total and free GiB.
type Case<'a> = (&'a str, &'a str, Vec<(String, String)>, (u64, u64));

#[test]
fn memory_is_limited_by_cgroups() {
    let v1 = "/sys/fs/cgroup/memory";
    let v2 = "/sys/fs/cgroup";
    let file = |folder: &str, name: &str, text: &str| (format!("{folder}/{name}"), text.to_owned());
    let cases: [Case<'_>; 7] = [
        ("no cgroup", "", vec![], (16, 8)),
        (
            "v2",
            "0::/a/b\n",
            vec![file(v2, "a/b/memory.max", "max\n"), file(v2, "a/memory.max", "4294967296\n")],
            (4, 4),
        ),
        (
            "v2 with use and pages that can go",
            "0::/a\n",
            vec![
                file(v2, "a/memory.max", "4294967296"),
                file(v2, "a/memory.current", "3221225472"),
                file(v2, "a/memory.stat", "anon 1\ninactive_file 1073741824\n"),
            ],
            (4, 2),
        ),
        (
            "v1 whose path is the host's",
            "4:memory:/docker/abc\n1:cpu:/\n",
            vec![
                file(v1, "memory.limit_in_bytes", "2147483648"),
                file(v1, "memory.usage_in_bytes", "1073741824"),
                file(v1, "memory.stat", "inactive_file 7\ntotal_inactive_file 0\n"),
            ],
            (2, 1),
        ),
        (
            "v1 without a limit",
            "4:cpu,memory:/\n0::/\n",
            vec![file(v1, "memory.limit_in_bytes", "9223372036854771712")],
            (16, 8),
        ),
        (
            "more used than allowed",
            "0::/\n",
            vec![file(v2, "memory.max", "1073741824"), file(v2, "memory.current", "9999999999")],
            (1, 0),
        ),
        ("garbage", "::\nx\n0::\n", vec![file(v2, "memory.max", "lots")], (16, 8)),
    ];
    for (what, membership, group_files, (total, free)) in cases {
        let mut files = files(&[("/proc/cpuinfo", X86), ("/proc/meminfo", MEMINFO)]);
        files.insert("/proc/self/cgroup".into(), membership.into());
        files.extend(group_files);
        let found = read(&files, 1);
        let cpu = found.cpu().expect("the processor is always there");
        assert_eq!((cpu.total_bytes, cpu.free_bytes), (total * GIB, free * GIB), "{what}");
    }
}

#[test]
fn memory_of_old_kernels_and_of_none() {
    let old = "MemTotal: 4194304 kB\nMemFree: 1048576 kB\nCached: 1048576 kB\n";
    for (info, expected) in [(old, (4 * GIB, 2 * GIB)), ("", (0, 0)), ("MemTotal: x kB\n", (0, 0))] {
        let found = read(&files(&[("/proc/meminfo", info)]), 1);
        let cpu = found.cpu().expect("the processor is always there");
        assert_eq!((cpu.total_bytes, cpu.free_bytes), expected);
        assert_eq!(found.notes.iter().any(|note| note.contains("meminfo")), expected == (0, 0));
    }
}

#[test]
fn gpus_of_a_driver() {
    let found = with_gpus(vec![gpu("A"), Err("it has fallen off the bus".into()), gpu("B")], None);
    let names: Vec<(usize, &str)> = found.gpus().map(|gpu| (gpu.index, gpu.name.as_str())).collect();
    assert_eq!(names, [(0, "A"), (2, "B")]);
    assert_eq!((found.driver_version.as_deref(), found.cuda_version), (Some("550.1"), Some((12, 4))));
    assert!(found.notes.iter().any(|note| note.contains("GPU 1") && note.contains("bus")), "{:?}", found.notes);
    let line = summary(&found);
    for part in ["Xeon 9: 2 cores", "GPU 0 A, compute 9.0, 79.0 of 80.0 GiB free", "driver 550.1, CUDA 12.4"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn visible_gpus_are_those_that_cuda_shows() {
    let cases: [(&str, &[&str]); 9] = [
        ("0", &["A"]),
        ("1,0", &["B", "A"]),
        ("1,7,0", &["B"]),
        ("0,0", &["A"]),
        ("GPU-B", &["B"]),
        ("GPU-Z,0", &[]),
        ("", &[]),
        ("-1", &[]),
        ("MIG-1", &[]),
    ];
    for (visible, expected) in cases {
        let found = with_gpus(vec![gpu("A"), gpu("B")], Some(visible));
        let names: Vec<&str> = found.gpus().map(|gpu| gpu.name.as_str()).collect();
        assert_eq!(names, expected, "{visible:?}");
        let hidden = found.notes.iter().any(|note| note.contains("CUDA_VISIBLE_DEVICES"));
        assert_eq!(hidden, expected.is_empty(), "{visible:?}");
    }
}

#[test]
fn why_there_is_no_gpu() {
    let reason = |source: Result<GpuSurvey, NoSurvey>| {
        let machine = Machine { n_available: 2, visible_gpus: None };
        let found = detect_from(&with_threads("0-1", &["0", "1"]), &source, &machine);
        assert_eq!(found.gpus().count(), 0);
        summary(&found)
    };
    assert!(reason(Err(NoSurvey::NoDriver)).ends_with("; no NVIDIA driver: running on the CPU"));
    let failed = reason(Err(NoSurvey::Failed("no permission".into())));
    assert!(failed.contains("does not answer (no permission)"), "{failed}");
    let empty = reason(Ok(GpuSurvey::default()));
    assert!(empty.contains("has no GPU: running on the CPU"), "{empty}");
}

#[test]
fn a_program_without_cuda_does_not_count_gpus() {
    let plain = without_gpus(with_gpus(vec![gpu("A")], None));
    assert_eq!(plain.gpus().count(), 0);
    assert!(summary(&plain).contains("A is here, but this program was built without CUDA"), "{}", summary(&plain));
    let none = read(&with_threads("0-1", &["0", "1"]), 2);
    assert_eq!(without_gpus(none.clone()), none);
}

#[test]
fn a_missing_library_is_no_damaged_one() {
    assert!(super::nvml::is_missing("libx.so.1: cannot open shared object file: No such file or directory"));
    assert_eq!(super::nvml::is_missing("libx.so.1: invalid ELF header"), !cfg!(target_os = "linux"));
}

#[test]
fn this_machine_is_read_without_a_panic() {
    let found = detect();
    assert!(found.n_cores >= 1);
    assert_eq!(found.devices.first().map(|device| device.kind), Some(DeviceKind::Cpu));
    assert!(found.devices.iter().all(|device| device.free_bytes <= device.total_bytes));
    assert!(!summary(&found).contains('\n'));
}
