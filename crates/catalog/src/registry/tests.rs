use super::*;
use ingle_gguf::Value;
use ingle_gguf::writer::{Writer, tiny_llama};
use std::fs;

/// A models folder with `files`; the text `GGUF` stands for a tiny model, `CLIP` for a projector.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes(text)).unwrap();
    }
    dir
}

fn bytes(text: &str) -> Vec<u8> {
    match text {
        "GGUF" => tiny_llama().bytes(),
        "CLIP" => Writer::default()
            .set("general.type", Value::Str("mmproj".into()))
            .set("general.architecture", Value::Str("clip".into()))
            .bytes(),
        other => other.as_bytes().to_vec(),
    }
}

fn open(dir: &tempfile::TempDir) -> Catalog {
    Catalog::open(dir.path(), CatalogOptions::default()).unwrap()
}

fn listed(catalog: &Catalog) -> Vec<String> {
    catalog.list().into_iter().map(|entry| entry.name).collect()
}

#[test]
fn a_pass_holds_as_long_as_was_asked_for() {
    let dir = folder(&[("a.gguf", "GGUF")]);
    let options = CatalogOptions { holds_for: std::time::Duration::from_secs(3600), ..CatalogOptions::default() };
    let (held, looked) = (Catalog::open(dir.path(), options).unwrap(), open(&dir));
    std::fs::write(dir.path().join("b.yaml"), "name: b\nparameters: {model: a.gguf}\n").unwrap();
    assert_eq!((listed(&held), listed(&looked)), (vec!["a.gguf".to_owned()], vec!["b".to_owned()]));
    // What is asked for by its name and not known is looked for.
    assert_eq!(held.get("b").unwrap().name, "b");
    assert_eq!(listed(&held), ["b"]);
    std::fs::write(
        dir.path().join("c.yaml"),
        "name: c\nbackend: piper\nknown_usecases: [tts]\nparameters: {model: a.gguf}\n",
    )
    .unwrap();
    assert_eq!(held.resolve(None, Usecase::Tts).unwrap().name, "c");
}

#[test]
fn configured_and_bare_models_are_listed_in_order() {
    let dir = folder(&[
        ("b.yaml", "name: zeta\nparameters: {model: used.gguf}\n"),
        ("a.yml", "- {name: 'org/alpha:8b', parameters: {model: a.gguf}}\n- {name: beta, backend: whisper}\n"),
        ("used.gguf", "GGUF"),
        ("free.gguf", "GGUF"),
        ("sub/inner.gguf", "GGUF"),
        ("sub/deep/hidden.gguf", "GGUF"),
        ("mmproj-x.gguf", "CLIP"),
        (".hidden.yaml", "name: hidden"),
        ("index.yaml", "- {name: not-a-model, files: []}\n"),
        ("notes.txt", "x"),
    ]);
    let catalog = open(&dir);
    assert_eq!(listed(&catalog), ["beta", "free.gguf", "org/alpha:8b", "sub/inner.gguf", "zeta"]);
    assert_eq!(catalog.problems(), []);
    for (asked, name) in
        [("free", "free.gguf"), ("used.gguf", "used.gguf"), ("b", "zeta"), ("sub/inner", "sub/inner.gguf")]
    {
        assert_eq!(catalog.get(asked).unwrap().name, name, "{asked}");
    }
    assert!(catalog.get("zeta").unwrap().created().unwrap() > 1_600_000_000);
}

#[test]
fn a_broken_file_does_not_hide_the_others() {
    let dir = folder(&[
        ("a.yaml", "name: [\n"),
        (
            "b.yaml",
            "- name: good\n  paramters: {}\n- name: hot\n  parameters: {temperature: -4}\n- name: list\n  stopwords: x\n",
        ),
        ("c.yaml", "name: good\n"),
        ("d.yaml", "just text"),
        ("e.gguf", "nope"),
        ("f.gguf", ""),
    ]);
    let catalog = open(&dir);
    assert_eq!(listed(&catalog), ["good"]);
    let problems: Vec<(String, u64)> = catalog
        .problems()
        .into_iter()
        .map(|problem| (problem.path.file_name().unwrap().to_str().unwrap().to_owned(), problem.line))
        .collect();
    let lines =
        |name: &str| problems.iter().filter(|(file, _)| file == name).map(|(_, line)| *line).collect::<Vec<_>>();
    assert_eq!(lines("a.yaml").len(), 1);
    assert_eq!(lines("b.yaml"), [4, 6]);
    assert_eq!(lines("c.yaml"), [1]);
    assert_eq!((lines("d.yaml").len(), lines("e.gguf").len(), lines("f.gguf").len()), (1, 1, 1));
    let warnings = catalog.get("good").unwrap().warnings;
    let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["line 2: `paramters` is not known; is `parameters` meant?"]);
    let error = catalog.get("hot").unwrap_err();
    assert!(matches!(&error, CatalogError::BadConfig { line: 4, .. }), "{error}");
}

#[test]
fn listing_follows_the_folder() {
    let dir = folder(&[("a.gguf", "GGUF")]);
    let catalog = open(&dir);
    assert_eq!(listed(&catalog), ["a.gguf"]);
    fs::write(dir.path().join("b.yaml"), "name: b\nparameters: {model: a.gguf}\n").unwrap();
    assert_eq!(listed(&catalog), ["b"]);
    fs::remove_file(dir.path().join("a.gguf")).unwrap();
    let entry = catalog.get("b").unwrap();
    assert_eq!(entry.state, ModelState::MissingFile(dir.path().join("a.gguf")));
    let error = catalog.resolve(Some("b"), Usecase::Chat).unwrap_err();
    assert!(matches!(&error, CatalogError::MissingFile { path, .. } if path.ends_with("a.gguf")), "{error}");
    fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(listed(&catalog), Vec::<String>::new());
    assert!(catalog.problems()[0].message.contains("--models-path"));
    assert!(catalog.reload().is_err());
}

#[test]
fn a_folder_that_is_not_there_says_what_to_change() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none");
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [missing, file] {
        let error = Catalog::open(&path, CatalogOptions::default()).unwrap_err();
        assert!(matches!(error, CatalogError::ModelsFolder { .. }));
        assert!(error.to_string().contains("--models-path"), "{error}");
    }
}

#[test]
fn resolving() {
    let dir = folder(&[
        (
            "m.yaml",
            "- {name: off, disabled: true, parameters: {model: a.gguf}}\n- {name: embed, embeddings: true, parameters: {model: a.gguf}}\n- {name: short, alias: talk}\n- {name: loop, alias: short}\n- {name: gone, parameters: {model: no.gguf}}\n- {name: talk, parameters: {model: ./a.gguf}}\n- {name: remote, parameters: {model: 'hf://o/r/a.gguf'}}\n",
        ),
        ("a.gguf", "GGUF"),
    ]);
    let catalog = open(&dir);
    let found = |name, usecase| catalog.resolve(name, usecase).map(|entry| entry.name);
    assert_eq!(found(None, Usecase::Chat).unwrap(), "remote");
    assert_eq!(found(None, Usecase::Embeddings).unwrap(), "embed");
    assert_eq!(found(Some("short"), Usecase::Chat).unwrap(), "talk");
    assert!(matches!(
        found(Some("loop"), Usecase::Chat),
        Err(CatalogError::Unsuited { .. } | CatalogError::BadConfig { .. })
    ));
    assert!(matches!(found(Some("off"), Usecase::Chat), Err(CatalogError::Disabled { .. })));
    assert!(matches!(found(Some("embed"), Usecase::Chat), Err(CatalogError::Unsuited { .. })));
    assert!(matches!(found(Some("gone"), Usecase::Chat), Err(CatalogError::MissingFile { .. })));
    assert!(matches!(found(None, Usecase::Image), Err(CatalogError::NoneSuits { .. })));
    assert!(matches!(found(Some("../a"), Usecase::Chat), Err(CatalogError::UnsafeName { .. })));
    match found(Some("nobody"), Usecase::Chat) {
        Err(CatalogError::NotFound { known, .. }) => assert_eq!(known.len(), 7),
        other => panic!("{other:?}"),
    }
}

#[test]
fn split_files_are_one_model() {
    let dir = folder(&[
        ("big-00001-of-00002.gguf", "GGUF"),
        ("big-00002-of-00002.gguf", "abc"),
        ("half-00001-of-00003.gguf", "GGUF"),
        ("tail-00002-of-00002.gguf", "GGUF"),
    ]);
    let catalog = open(&dir);
    assert_eq!(listed(&catalog), ["big.gguf", "half.gguf"]);
    for name in ["big", "big.gguf", "big-00001-of-00002.gguf"] {
        let weights = catalog.get(name).unwrap().weights().unwrap().clone();
        assert_eq!(
            (weights.bytes, weights.path.file_name().unwrap().to_str()),
            (bytes("GGUF").len() as u64 + 3, Some("big-00001-of-00002.gguf"))
        );
    }
    let state = catalog.get("half").unwrap().state;
    assert_eq!(state, ModelState::MissingFile(dir.path().join("half-00002-of-00003.gguf")));
}

#[test]
#[cfg(unix)]
fn links_are_followed_and_dangling_ones_are_missing() {
    let weights = folder(&[("x", "GGUF")]);
    let dir = folder(&[("m.yaml", "name: m\nparameters: {model: link.gguf}\n")]);
    let link = dir.path().join("link.gguf");
    std::os::unix::fs::symlink(weights.path().join("x"), &link).unwrap();
    let catalog = open(&dir);
    assert_eq!(catalog.get("m").unwrap().weights().unwrap().bytes, bytes("GGUF").len() as u64);
    fs::remove_file(weights.path().join("x")).unwrap();
    assert_eq!(catalog.get("m").unwrap().state, ModelState::MissingFile(link));
}

#[test]
fn one_more_configuration_file() {
    let dir = folder(&[("a.gguf", "GGUF")]);
    let extra = folder(&[("x.yaml", "- {name: extra, parameters: {model: a.gguf}}\n")]);
    let options = CatalogOptions { config_file: Some(extra.path().join("x.yaml")), ..CatalogOptions::default() };
    assert_eq!(listed(&Catalog::open(dir.path(), options).unwrap()), ["extra"]);
}

#[test]
fn an_alias_says_which_keys_it_does_not_use() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), "name: a\nalias: b\ncontext_size: 5\n").unwrap();
    let catalog = Catalog::open(folder.path(), CatalogOptions::default()).unwrap();
    let told: Vec<String> = catalog.get("a").unwrap().warnings.iter().map(ToString::to_string).collect();
    assert!(
        told.len() == 1 && told[0].starts_with("line 3: `context_size` has no effect: the entry is an alias"),
        "{told:?}"
    );
}

#[test]
fn options_are_those_of_the_backend() {
    let dir = folder(&[
        ("a.yaml", "name: a\nbackend: llama\nparameters: {model: a.gguf}\noptions: ['parallel:2', 'colour:red']\n"),
        ("b.yaml", "name: b\nbackend: coqui\nparameters: {model: b.onnx}\noptions: ['speed:2', 'voice:x']\n"),
    ]);
    let catalog = open(&dir);
    let told =
        |name: &str| -> Vec<String> { catalog.get(name).unwrap().warnings.iter().map(ToString::to_string).collect() };
    assert_eq!(told("a"), ["line 4: `options: colour:red` is not known and has no effect"]);
    let expected = "line 4: `options` has no effect yet: it belongs to the backend coqui, which is not there yet";
    assert_eq!(told("b"), [expected]);
}

#[test]
fn folders_with_weights_are_models() {
    let config = r#"{"architectures": ["BertModel"], "model_type": "bert"}"#;
    let scorer = r#"{"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}"#;
    let dir = folder(&[
        ("mini/config.json", config),
        ("mini/modules.json", "[]"),
        ("mini/model.safetensors", "12345"),
        ("scorer/config.json", scorer),
        ("scorer/model.safetensors", "123"),
        ("silent/config.json", config),
        ("silent/model.safetensors", "1"),
        ("empty/config.json", config),
        ("a.yaml", "{name: ada, backend: sentencetransformers, parameters: {model: sentence-transformers/mini}}"),
        ("b.yaml", "{name: quiet, backend: transformers, parameters: {model: mini}}"),
        ("c.yaml", "{name: gone, backend: transformers, embeddings: true, parameters: {model: owner/other}}"),
        ("d.yaml", "{name: plain, embeddings: true, parameters: {model: silent}}"),
    ]);
    let catalog = open(&dir);
    assert_eq!(listed(&catalog), ["ada", "gone", "plain", "quiet", "scorer"], "mini has a configuration");
    for (name, folder, usecase) in [
        ("ada", "mini", Usecase::Embeddings),
        ("quiet", "mini", Usecase::Embeddings),
        ("plain", "silent", Usecase::Embeddings),
        ("scorer", "scorer", Usecase::Rerank),
    ] {
        let entry = catalog.resolve(Some(name), usecase).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(entry.weights().unwrap().path, dir.path().join(folder), "{name}");
    }
    assert_eq!(catalog.get("ada").unwrap().weights().unwrap().bytes, 5);
    assert_eq!(catalog.get("scorer").unwrap().config.backend.as_deref(), Some(crate::CANDLE));
    assert!(matches!(catalog.get("gone").unwrap().state, ModelState::MissingFile(_)));
    assert!(catalog.problems().is_empty(), "{:?}", catalog.problems());
}

#[test]
fn a_gguf_for_embeddings_says_so_itself() {
    let pooled = |kind: u32| tiny_llama().set("llama.pooling_type", Value::U32(kind)).bytes();
    let dir = folder(&[("talk.gguf", "GGUF"), ("b.yaml", "{name: silent, parameters: {model: mean.gguf}}")]);
    fs::write(dir.path().join("mean.gguf"), pooled(1)).unwrap();
    fs::write(dir.path().join("rank.gguf"), pooled(4)).unwrap();
    let catalog = open(&dir);
    let suits = |name: &str, usecase| catalog.get(name).unwrap().config.suits(usecase);
    assert!(suits("talk", Usecase::Chat) && !suits("talk", Usecase::Embeddings));
    assert!(suits("silent", Usecase::Embeddings) && !suits("silent", Usecase::Chat));
    assert!(suits("rank", Usecase::Rerank) && !suits("rank", Usecase::Embeddings));
}
