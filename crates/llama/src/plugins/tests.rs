use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::select::Probe;
use super::*;

/// What a fake file says.
struct Fakes(HashMap<&'static str, Result<Option<u32>, String>>);

impl Probe for Fakes {
    fn score(&self, candidate: &Candidate) -> Result<Option<u32>, String> {
        self.0.get(candidate.file.as_str()).cloned().unwrap_or(Ok(None))
    }
}

fn candidates(names: &[&str]) -> Vec<Candidate> {
    names.iter().filter_map(|name| Candidate::new(Path::new("/x"), name)).collect()
}

fn files(selection: &Selection) -> Vec<Vec<&str>> {
    selection.chosen.iter().map(|group| group.iter().map(|candidate| candidate.file.as_str()).collect()).collect()
}

#[test]
fn only_plugins_have_names_of_plugins() {
    let kinds = |name: &str| Candidate::new(Path::new("/x"), name).map(|candidate| candidate.kind);
    let cases = [
        ("libggml-cpu-zen4.so", Some("cpu")),
        ("libggml-cpu.so", Some("cpu")),
        ("libggml-cuda.so", Some("cuda")),
        ("libggml-base.so", None),
        ("libggml-base.so.0", None),
        ("libggml.so", None),
        ("libggml-.so", None),
        ("libllama.so.0", None),
        ("readme.txt", None),
    ];
    for (name, expected) in cases {
        assert_eq!(kinds(name).as_deref(), expected, "{name}");
    }
}

#[test]
fn the_best_variant_and_the_wanted_gpus_are_loaded() {
    let found = candidates(&[
        "libggml-cpu-haswell.so",
        "libggml-cpu-sapphirerapids.so",
        "libggml-cpu-x64.so",
        "libggml-cpu-zen4.so",
        "libggml-cuda.so",
        "libggml-hip.so",
        "libggml-rpc.so",
        "libggml-vulkan.so",
    ]);
    let fakes = Fakes(HashMap::from([
        ("libggml-cpu-haswell.so", Ok(Some(64))),
        ("libggml-cpu-sapphirerapids.so", Ok(Some(0))),
        ("libggml-cpu-x64.so", Ok(Some(1))),
        ("libggml-cpu-zen4.so", Ok(Some(512))),
        ("libggml-hip.so", Err("libamdhip64.so.6: cannot open shared object file".to_owned())),
    ]));
    let wanted = ["cuda".to_owned(), "hip".to_owned()];
    let selection = select::select(&found, &wanted, &fakes);
    let cpu = vec!["libggml-cpu-zen4.so", "libggml-cpu-haswell.so", "libggml-cpu-x64.so"];
    assert_eq!(files(&selection), [cpu.clone(), vec!["libggml-cuda.so"], vec!["libggml-rpc.so"]]);
    let [refused] = selection.refused.as_slice() else { panic!("{:?}", selection.refused) };
    assert!(refused.file == "libggml-hip.so" && refused.reason.contains("libamdhip64"), "{refused:?}");
    // Without a driver that answers, no GPU's library is touched.
    let without = select::select(&found, &[], &Fakes(HashMap::from([("libggml-cuda.so", Err("touched".to_owned()))])));
    assert!(without.refused.is_empty(), "{without:?}");
    assert!(!files(&without).concat().contains(&"libggml-cuda.so"));
}

/// A folder that only its owner may write, with libraries of C sources.
fn folder(libraries: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, source) in libraries {
        let file = folder.path().join("source.c");
        std::fs::write(&file, source).unwrap();
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-o"]).arg(folder.path().join(name)).arg(&file);
        assert!(command.status().expect("the compiler that built llama.cpp is here").success());
        // Whatever mask the tests run with: what a group may write is refused.
        std::fs::set_permissions(folder.path().join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

fn stamped(version: &str, rest: &str) -> String {
    format!("int ingle_ggml_{version} = 1;\n{rest}")
}

#[test]
fn what_a_file_was_built_from_is_looked_at() {
    let right = stamped(env!("INGLE_GGML_STAMP"), "int ggml_backend_score(void) { return 7; }");
    let no_score = stamped(env!("INGLE_GGML_STAMP"), "");
    let other = stamped("0_1_99", "int ggml_backend_score(void) { return 9; }");
    let missing = stamped(env!("INGLE_GGML_STAMP"), "int not_there(void);\nint f(void) { return not_there(); }");
    let folder = folder(&[
        ("libggml-cpu-a.so", &right),
        ("libggml-cpu-b.so", &no_score),
        ("libggml-cpu-c.so", &other),
        ("libggml-cpu-d.so", "int x = 1;"),
        ("libggml-cpu-e.so", &missing),
    ]);
    std::fs::write(folder.path().join("libggml-cpu-f.so"), b"no library").unwrap();
    let found = library::candidates(folder.path()).unwrap();
    let says: Vec<Result<Option<u32>, String>> =
        found.iter().map(|candidate| library::Dynamic.score(candidate)).collect();
    assert_eq!((&says[0], &says[1]), (&Ok(Some(7)), &Ok(None)));
    let reasons: Vec<&str> = says[2..].iter().map(|says| says.as_ref().unwrap_err().as_str()).collect();
    let parts =
        ["llama-cpp-sys-2 0.1.99, and this program from", "does not say what", "not_there", "invalid ELF header"];
    for (reason, part) in reasons.iter().zip(parts) {
        assert!(reason.contains(part) || (part.starts_with("invalid") && reason.contains("too short")), "{reason}");
    }
    // A folder of nothing but wrong ones: each is named, and nothing is loaded.
    std::fs::remove_file(folder.path().join("libggml-cpu-a.so")).unwrap();
    std::fs::remove_file(folder.path().join("libggml-cpu-b.so")).unwrap();
    let report = load_from(folder.path(), &[]);
    assert_eq!((report.loaded.len(), report.refused.len()), (0, 4), "{report:?}");
}

#[test]
fn code_of_strangers_is_not_loaded() {
    let folder = folder(&[("libggml-cpu-a.so", &stamped(env!("INGLE_GGML_STAMP"), ""))]);
    let file = folder.path().join("libggml-cpu-a.so");
    let mode = |path: &Path, mode: u32| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(&file, 0o777);
    let report = load_from(folder.path(), &[]);
    assert!(report.refused[0].reason.contains("everybody may write it"), "{report:?}");
    mode(&file, 0o755);
    mode(folder.path(), 0o777);
    let report = load_from(folder.path(), &[]);
    assert!(report.loaded.is_empty() && report.refused[0].reason.contains("everybody may write it"), "{report:?}");
    // A group that is not root's may not write either.
    mode(folder.path(), 0o775);
    if std::os::unix::fs::chown(folder.path(), None, Some(54_321)).is_ok() {
        let report = load_from(folder.path(), &[]);
        assert!(
            report.loaded.is_empty() && report.refused[0].reason.contains("group 54321 may write it"),
            "{report:?}"
        );
    }
    for relative in ["", "backends", "./backends"] {
        let report = load_from(Path::new(relative), &[]);
        assert!(report.refused[0].reason.contains("no absolute path"), "{report:?}");
    }
    let report = load_from(Path::new("/no/such/folder"), &[]);
    assert!(report.refused[0].file == "/no/such/folder" && report.refused[0].reason.contains("No such file"));
}

/// A registry of ggml without a device, as far as it is asked; 3 is the version of its interface.
const BLIND: &str = r#"
#include <stddef.h>
struct registry { int version; const char *(*name)(void *); size_t (*count)(void *); void *(*device)(void *, size_t);
                  void *(*address)(void *, const char *); void *context; };
static const char *name(void *self) { return "BLIND"; }
static size_t count(void *self) { return 0; }
static void *nothing(void *self, size_t index) { return 0; }
static void *address(void *self, const char *name) { return 0; }
static struct registry self = { 3, name, count, nothing, address, 0 };
void *ggml_backend_init(void) { return &self; }
"#;

#[test]
fn a_plugin_that_finds_no_gpu_is_told() {
    let folder = folder(&[("libggml-cuda.so", &stamped(env!("INGLE_GGML_STAMP"), BLIND))]);
    let report = load_from(folder.path(), &["cuda".to_owned()]);
    assert_eq!((report.loaded.len(), report.refused.len()), (1, 0), "{report:?}");
    let silent = report.loaded[0].blindness().expect("it reaches nothing");
    assert!(silent.starts_with("libggml-cuda.so is loaded and finds no GPU: "), "{silent}");
    // What the CUDA plug-in says where its devices may not be opened.
    let complaint = "ggml_cuda_init: failed to initialize CUDA: unknown error".to_owned();
    let plugin = |kind: &str, n_devices| LoadedPlugin {
        file: format!("libggml-{kind}.so"),
        kind: kind.to_owned(),
        n_devices,
        complaint: complaint.clone(),
    };
    let told = plugin("cuda", 0).blindness();
    assert_eq!(told, Some(format!("libggml-cuda.so is loaded and finds no GPU: {complaint}")));
    assert_eq!((plugin("cuda", 1).blindness(), plugin("rpc", 0).blindness()), (None, None));
}
