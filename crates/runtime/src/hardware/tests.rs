use std::collections::HashMap;

use super::cpu::parse_list;
use super::sources::{Files, Gpu, GpuSource, GpuSurvey, Instance, Machine, NoSurvey};
use super::{Blind, Interface, detect, detect_from, in_use, require_gpu, summary, wanted_interfaces};
use ingle_engine::{DeviceKind, Hardware};

const GIB: u64 = 1 << 30;
const X86: &str = "processor : 0\nmodel name : Xeon 9\nflags : fpu avx avx2 fma f16c avx512f avx512_vnni amx_int8\n";
const ARM: &str = "processor : 0\nFeatures : fp asimd asimddp i8mm\n";
const MEMINFO: &str = "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n";

impl Files for HashMap<String, String> {
    fn read(&self, path: &str) -> Option<String> {
        self.get(path).cloned()
    }

    fn list(&self, folder: &str) -> Vec<String> {
        let below = self.keys().filter_map(|path| path.strip_prefix(folder)?.strip_prefix('/'));
        let mut names: Vec<String> = below.filter_map(|rest| rest.split('/').next()).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        names
    }

    fn exists(&self, path: &str) -> bool {
        self.contains_key(path)
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
    detect_from(files, &no_driver, &Machine { n_available, visible_gpus: None, is_apple: false })
}

fn gpu(name: &str) -> Result<Gpu, String> {
    Ok(Gpu {
        name: name.to_owned(),
        uuid: Some(format!("GPU-{name}-1")),
        total_bytes: 80 * GIB,
        free_bytes: 79 * GIB,
        compute_capability: Some((9, 0)),
        ..Gpu::default()
    })
}

fn with_gpus(gpus: Vec<Result<Gpu, String>>, visible: Option<&str>) -> Hardware {
    let survey = GpuSurvey { driver_version: Some("550.1".into()), cuda_version: Some((12, 4)), gpus };
    let source: Result<GpuSurvey, NoSurvey> = Ok(survey);
    let machine = Machine { n_available: 2, visible_gpus: visible, is_apple: false };
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
    assert_eq!(names, [(0, "A"), (1, "B")], "CUDA counts those that answer");
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

/// A machine, what its program can reach, and what becomes of it.
struct Situation {
    what: &'static str,
    survey: Result<GpuSurvey, NoSurvey>,
    visible: Option<&'static str>,
    files: &'static [(&'static str, &'static str)],
    is_apple: bool,
    /// The interfaces whose plug-ins lie beside the program.
    plugins: &'static [Interface],
    /// The interfaces that are loaded.
    loaded: &'static [Interface],
    /// The devices in use beside the processor.
    used: &'static [&'static str],
    /// Parts of the log line.
    log: &'static [&'static str],
}

const ALL: &[Interface] = Interface::ALL;
const CUDA: &[Interface] = &[Interface::Cuda];
const AMD: &[(&str, &str)] = &[
    ("/sys/class/drm/card0/device/vendor", "0x1002\n"),
    ("/sys/class/drm/card0/device/product_name", "Radeon X\n"),
    ("/sys/class/drm/card0/device/mem_info_vram_total", "8589934592\n"),
    ("/sys/class/drm/card0/device/mem_info_vram_used", "1073741824\n"),
    ("/sys/class/drm/card0-DP-1/status", "connected\n"),
    ("/dev/kfd", ""),
];
const INTEL: &[(&str, &str)] = &[
    ("/sys/class/drm/card1/device/vendor", "0x8086\n"),
    ("/sys/class/drm/card1/device/device", "0x56a0\n"),
    ("/usr/share/vulkan/icd.d/intel_icd.json", "{}"),
];

fn survey(gpus: Vec<Result<Gpu, String>>) -> Result<GpuSurvey, NoSurvey> {
    Ok(GpuSurvey { driver_version: Some("550.1".into()), cuda_version: Some((12, 4)), gpus })
}

fn mig(instances: &[&str]) -> Result<Gpu, String> {
    let instance = |name: &&str| Instance {
        name: (*name).to_owned(),
        uuid: format!("MIG-{name}-7"),
        total_bytes: 10 * GIB,
        free_bytes: 9 * GIB,
    };
    gpu("M").map(|gpu| Gpu { instances: Some(instances.iter().map(instance).collect()), ..gpu })
}

impl Default for Situation {
    fn default() -> Self {
        Self {
            what: "",
            survey: Err(NoSurvey::NoDriver),
            visible: None,
            files: &[],
            is_apple: false,
            plugins: ALL,
            loaded: &[],
            used: &[],
            log: &["running on the CPU"],
        }
    }
}

fn nvidia_situations() -> Vec<Situation> {
    let old = survey(vec![gpu("K")]).map(|survey| GpuSurvey { cuda_version: Some((11, 4)), ..survey });
    let kepler = gpu("K").map(|gpu| Gpu { compute_capability: Some((3, 7)), ..gpu });
    let shared = gpu("Spark").map(|gpu| Gpu { total_bytes: 0, free_bytes: 0, ..gpu });
    let one = |what, survey| Situation { what, survey, ..Situation::default() };
    vec![
        Situation { log: &["no NVIDIA driver", "running on the CPU"], ..one("no driver", Err(NoSurvey::NoDriver)) },
        Situation {
            log: &["kernel module is not loaded", "--gpus all"],
            ..one("not loaded", Err(NoSurvey::NotLoaded))
        },
        Situation { log: &["may not be used", "/dev/nvidiactl"], ..one("no right", Err(NoSurvey::NoPermission)) },
        Situation { log: &["restart the machine"], ..one("updated driver", Err(NoSurvey::VersionMismatch)) },
        Situation {
            log: &["does not answer (RPC timeout)"],
            ..one("broken driver", Err(NoSurvey::Failed("RPC timeout".into())))
        },
        Situation { log: &["has no GPU"], ..one("driver without a GPU", survey(vec![])) },
        Situation { log: &["CUDA 11.4 and CUDA 12 is needed", "525"], ..one("old driver", old) },
        Situation { log: &["compute capability 3.7 and 6.1 is needed"], ..one("old GPU", survey(vec![kepler])) },
        Situation {
            loaded: CUDA,
            used: &["A"],
            log: &["GPU 0 A, compute 9.0, 79.0 of 80.0 GiB free", "driver 550.1, CUDA 12.4"],
            ..one("one GPU", survey(vec![gpu("A")]))
        },
        Situation {
            loaded: CUDA,
            used: &["A", "B"],
            log: &["GPU 1 does not answer and is not used: it has fallen off the bus"],
            ..one("one of three is lost", survey(vec![gpu("A"), Err("it has fallen off the bus".into()), gpu("B")]))
        },
        Situation {
            plugins: &[],
            log: &["A is here, and this program has no backend for it", "libggml-cuda.so", "running on the CPU"],
            ..one("a program for the CPU", survey(vec![gpu("A")]))
        },
        Situation {
            visible: Some("-1"),
            log: &["CUDA_VISIBLE_DEVICES hides all GPUs", "running on the CPU"],
            ..one("hidden", survey(vec![gpu("A")]))
        },
        Situation {
            loaded: CUDA,
            used: &["1g"],
            log: &["is cut into 2 MIG instances", "CUDA_VISIBLE_DEVICES", "9.0 of 10.0 GiB free"],
            ..one("MIG", survey(vec![mig(&["1g", "2g"])]))
        },
        Situation {
            visible: Some("MIG-2g"),
            loaded: CUDA,
            used: &["2g"],
            log: &["9.0 of 10.0 GiB free"],
            ..one("a chosen instance", survey(vec![mig(&["1g", "2g"])]))
        },
        Situation { log: &["in MIG mode and has no instance"], ..one("MIG without instances", survey(vec![mig(&[])])) },
        Situation {
            loaded: CUDA,
            used: &["Spark"],
            log: &["shares the main memory"],
            ..one("memory shared with the processor", survey(vec![shared]))
        },
    ]
}

fn other_situations() -> Vec<Situation> {
    const ONLY_CUDA: &[Interface] = CUDA;
    vec![
        Situation {
            what: "AMD with its plug-in",
            files: AMD,
            loaded: &[Interface::Hip],
            used: &["Radeon X"],
            log: &["GPU 0 Radeon X, 7.0 of 8.0 GiB free", "reached through hip, which is used and not tested"],
            ..Situation::default()
        },
        Situation {
            what: "AMD without one",
            files: AMD,
            plugins: ONLY_CUDA,
            log: &["Radeon X is here", "libggml-hip.so", "running on the CPU"],
            ..Situation::default()
        },
        Situation {
            what: "AMD without the driver for computing",
            files: &AMD_WITHOUT_KFD,
            log: &["Radeon X is here", "running on the CPU"],
            ..Situation::default()
        },
        Situation {
            what: "Intel through Vulkan",
            files: INTEL,
            loaded: &[Interface::Vulkan],
            used: &["Intel GPU 0x56a0"],
            log: &["reached through vulkan, which is used and not tested"],
            ..Situation::default()
        },
        Situation {
            what: "Apple",
            is_apple: true,
            loaded: &[Interface::Metal],
            used: &["Apple GPU"],
            log: &["no NVIDIA driver", "Apple GPU"],
            ..Situation::default()
        },
        Situation {
            what: "a graphics chip beside an NVIDIA GPU",
            survey: survey(vec![gpu("A")]),
            files: AMD,
            plugins: ONLY_CUDA,
            loaded: CUDA,
            used: &["A"],
            log: &["Radeon X is here"],
            ..Situation::default()
        },
    ]
}

const AMD_WITHOUT_KFD: [(&str, &str); 2] = [AMD[0], AMD[1]];

#[test]
fn what_is_loaded_logged_and_answered() {
    for situation in nvidia_situations().into_iter().chain(other_situations()) {
        let what = situation.what;
        let mut files = with_threads("0-1", &["0", "1"]);
        files.extend(situation.files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())));
        let machine = Machine { n_available: 2, visible_gpus: situation.visible, is_apple: situation.is_apple };
        let found = detect_from(&files, &situation.survey, &machine);
        let mut loaded = wanted_interfaces(&found);
        loaded.retain(|interface| situation.plugins.contains(interface));
        assert_eq!(loaded, situation.loaded, "{what}");
        let used = in_use(found, &loaded, &[]);
        let names: Vec<&str> = used.gpus().map(|gpu| gpu.name.as_str()).collect();
        assert_eq!(names, situation.used, "{what}");
        let line = summary(&used);
        for part in situation.log {
            assert!(line.contains(part), "{what}: {part:?} is missing in {line}");
        }
        assert_eq!(line.contains("running on the CPU"), names.is_empty(), "{what}: {line}");
        match require_gpu(&used) {
            Ok(()) => assert!(!names.is_empty(), "{what}"),
            Err(error) => {
                assert!(names.is_empty(), "{what}");
                assert!(error.to_string().contains(situation.log[0]), "{what}: {error}");
            }
        }
    }
}

#[test]
fn gpus_without_kernels_for_them_are_not_used() {
    let of = |name: &str, capability| gpu(name).map(|gpu| Gpu { compute_capability: Some(capability), ..gpu });
    let found = with_gpus(vec![of("P100", (6, 0)), of("P40", (6, 1)), of("V100", (7, 0))], None);
    let names: Vec<&str> = found.gpus().map(|gpu| gpu.name.as_str()).collect();
    assert_eq!(names, ["P40", "V100"]);
    let note = "GPU 0 (P100) is not used: it has compute capability 6.0 and 6.1 is needed";
    assert!(found.notes.iter().any(|found| found == note), "{:?}", found.notes);
}

#[test]
fn a_plugin_that_is_here_and_finds_nothing_is_not_asked_for() {
    let reason = "libggml-cuda.so is loaded and finds no GPU: no permission";
    let blind = Blind { interface: Interface::Cuda, reason: reason.to_owned() };
    let used = in_use(with_gpus(vec![gpu("A")], None), &[], &[blind]);
    let line = summary(&used);
    assert!(line.contains(&format!("A is here and not used: {reason}")), "{line}");
    assert!(!line.contains("put libggml-cuda.so") && line.contains("running on the CPU"), "{line}");
    assert_eq!(used.idle_gpus.len(), 1);
    let error = require_gpu(&used).expect_err("none can be used").to_string();
    assert!(error.contains("no permission"), "{error}");
}

#[test]
fn load_power_and_nodes_are_read() {
    let busy = gpu("A").map(|gpu| Gpu {
        utilization_percent: Some(40),
        power_milliwatts: Some(300_000),
        power_limit_milliwatts: Some(700_000),
        numa_node: Some(1),
        ..gpu
    });
    let found = with_gpus(vec![busy], None);
    let device = found.gpus().next().expect("one GPU");
    assert_eq!(device.load.utilization_percent, Some(40));
    assert_eq!((device.load.power_milliwatts, device.load.power_limit_milliwatts), (Some(300_000), Some(700_000)));
    assert_eq!((device.numa_node, found.n_numa_nodes), (Some(1), 1));
    let mut files = with_threads("0-1", &["0", "1"]);
    files.insert("/sys/devices/system/node/has_memory".into(), "0-1\n".into());
    let two = read(&files, 2);
    assert_eq!(two.n_numa_nodes, 2);
    assert!(two.notes.iter().any(|note| note.starts_with("2 NUMA nodes")), "{:?}", two.notes);
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
