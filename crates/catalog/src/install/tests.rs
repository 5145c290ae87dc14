use super::*;
use crate::fetch::tests::server::Server;
use crate::fetch::tests::{Bench, POLICY, sha256};
use crate::fetch::{NoProgress, Verification};
use crate::{Catalog, CatalogOptions, Usecase};
use ingle_gguf::writer::tiny_llama;

fn gguf() -> Vec<u8> {
    tiny_llama().bytes()
}

struct House {
    bench: Bench,
    models: PathBuf,
    server: Server,
}

impl House {
    /// A models folder whose own gallery has `tiny`, served by a small hub.
    fn new() -> Self {
        let server = Server::new(gguf());
        let bench = Bench::new(&server.url(""));
        let models = bench.dir.path().join("models");
        fs::create_dir_all(&models).unwrap();
        let index = format!(
            "- name: org/tiny\n  files:\n    - {{filename: tiny.gguf, sha256: {}, uri: 'hf://o/r/m.gguf'}}\n  overrides:\n    parameters: {{model: tiny.gguf, temperature: 0.5}}\n    template: {{chat: \"a\\n  b: {{{{.Input}}}}\"}}\n",
            sha256(&gguf())
        );
        fs::write(models.join("mine.yaml"), index).unwrap();
        Self { bench, models, server }
    }

    fn installer(&self) -> Installer {
        Installer::new(&self.models, Fetcher::new(self.bench.settings.clone()))
    }

    fn install(&self, what: &str) -> Result<Installed, CatalogError> {
        self.installer().install(what, POLICY, &NoProgress)
    }

    fn catalog(&self) -> Catalog {
        Catalog::open(&self.models, CatalogOptions::default()).unwrap()
    }
}

#[test]
fn a_gallery_entry_becomes_a_model() {
    let house = House::new();
    let first = house.install("mine@ORG/tiny").unwrap();
    assert_eq!((first.name.as_str(), first.config_outcome), ("org/tiny", ConfigOutcome::Written));
    assert_eq!(first.files[0].fetched.outcome, Outcome::Downloaded(Verification::Pinned));
    assert!(fs::symlink_metadata(&first.files[0].path).unwrap().is_symlink());
    let entry = house.catalog().resolve(Some("org/tiny"), Usecase::Chat).unwrap();
    assert_eq!(entry.config.defaults.temperature, Some(0.5));
    assert_eq!(entry.config.template.chat.as_deref(), Some("a\n  b: {{.Input}}"));
    assert_eq!(entry.weights().unwrap().bytes, gguf().len() as u64);
    assert_eq!(house.catalog().list().len(), 1);

    fs::write(&first.config_path, "name: org/tiny\nparameters: {model: tiny.gguf, temperature: 0.1}\n").unwrap();
    let second = house.install("org/tiny").unwrap();
    assert_eq!(second.config_outcome, ConfigOutcome::Kept);
    assert_eq!(second.files[0].fetched.outcome, Outcome::AlreadyThere);
    assert_eq!(house.catalog().get("org/tiny").unwrap().config.defaults.temperature, Some(0.1));
}

#[test]
fn uris_and_paths_become_models() {
    let house = House::new();
    let installed = house.install("hf://o/r/m.gguf").unwrap();
    assert_eq!(installed.name, "m");
    assert_eq!(installed.files[0].fetched.outcome, Outcome::Downloaded(Verification::Declared));
    let path = house.bench.dir.path().join("own.gguf");
    fs::write(&path, gguf()).unwrap();
    let installed = house.install(path.to_str().unwrap()).unwrap();
    assert_eq!(fs::canonicalize(&installed.files[0].path).unwrap(), fs::canonicalize(&path).unwrap());
    assert!(house.catalog().resolve(Some("own"), Usecase::Completion).is_ok());
    assert!(house.install(path.to_str().unwrap()).is_ok());
}

#[test]
fn split_files_come_with_all_parts() {
    let entry = House::new().installer().find("hf://o/r/q4/big-00001-of-00003.gguf@v1").unwrap();
    assert_eq!(entry.name, "big");
    let sources: Vec<String> = entry.files.iter().map(|file| file.sources[0].describe()).collect();
    assert_eq!(sources[2], "huggingface://o/r/q4/big-00003-of-00003.gguf@v1");
    assert_eq!(entry.config["parameters"]["model"], "big-00001-of-00003.gguf");
}

#[test]
fn a_repository_gives_the_quantization_that_suits_the_machine() {
    let house = House::new();
    let list = format!(
        r#"[{{"type": "file", "path": "README.md", "size": 10}},
            {{"type": "file", "path": "m.gguf", "size": {}, "lfs": {{"oid": "{}", "size": 1}}}},
            {{"type": "file", "path": "m-F16.gguf", "size": 999999999999, "lfs": {{"oid": "x"}}}}]"#,
        gguf().len(),
        sha256(&gguf())
    );
    house.server.text("/api/models/o/r/tree/main?recursive=true", &list);
    house.server.text("/api/models/o/empty/tree/main?recursive=true", "[]");
    let installer = house.installer().with_memory(1_000_000_000);
    let installed = installer.install("hf://o/r", POLICY, &NoProgress).unwrap();
    assert_eq!((installed.name.as_str(), installed.files.len()), ("m", 1));
    assert_eq!(installed.files[0].fetched.outcome, Outcome::Downloaded(Verification::Pinned));
    let reason = house.catalog().get("m").unwrap().config.description.unwrap();
    assert!(reason.contains("one of 2 GGUF files") && reason.contains("1.0 GB of memory"), "{reason}");
    let error = installer.install("hf://o/empty", POLICY, &NoProgress).unwrap_err().to_string();
    assert!(error.contains("no GGUF file"), "{error}");
}

#[test]
fn what_cannot_be_installed_says_why() {
    let house = House::new();
    let text = house.bench.dir.path().join("text.gguf");
    fs::write(&text, "hello").unwrap();
    for (what, message) in [
        ("nothing", "smollm2-135m-instruct"),
        ("ocifile:///a.tar", "not supported yet"),
        ("oci://h org/a", "expected name"),
        ("https://x.org/model.bin", ".gguf"),
        ("hf://o", "huggingface://owner/repo/file"),
        ("/no/such/file.gguf", "neither a gallery entry"),
        (text.to_str().unwrap(), "not a usable GGUF file"),
    ] {
        let error = house.install(what).unwrap_err();
        assert!(error.to_string().contains(message), "{what}: {error}");
    }
}

#[test]
fn a_file_of_somebody_is_not_overwritten() {
    let house = House::new();
    let path = house.models.join("tiny.gguf");
    fs::write(&path, "mine").unwrap();
    assert!(matches!(house.install("org/tiny"), Err(CatalogError::FileInTheWay { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    fs::write(&path, gguf()).unwrap();
    assert!(house.install("org/tiny").is_ok(), "the right bytes are as good as a link");
}

#[test]
#[cfg(unix)]
fn a_dangling_link_is_repaired() {
    let house = House::new();
    std::os::unix::fs::symlink("/no/such/file", house.models.join("tiny.gguf")).unwrap();
    let installed = house.install("org/tiny").unwrap();
    assert_eq!(fs::read(&installed.files[0].path).unwrap(), gguf());
    fs::remove_file(fs::canonicalize(&installed.files[0].path).unwrap()).unwrap();
    assert!(house.install("org/tiny").is_ok(), "weights removed from the cache are fetched again");
}
