use std::time::{Duration, Instant};

use ingle_gguf::writer::tiny_llama;
use serde_json::{Value, json};

use super::*;
use crate::Usecase;
use crate::fetch::tests::server::{Reply, Server};
use crate::fetch::tests::{Bench, sha256};

fn gguf() -> Vec<u8> {
    tiny_llama().bytes()
}

struct House {
    server: Server,
    bench: Bench,
    models: PathBuf,
}

impl House {
    fn new() -> Self {
        let server = Server::new(gguf());
        let bench = Bench::new(&server.url(""));
        let models = bench.dir.path().join("models");
        fs::create_dir_all(&models).unwrap();
        Self { server, bench, models }
    }

    fn board(&self) -> JobBoard {
        self.board_with(Vec::new())
    }

    fn board_with(&self, sources: Vec<GallerySource>) -> JobBoard {
        JobBoard::open(&self.models, Fetcher::new(self.bench.settings.clone()), sources, true)
    }

    fn request(&self, sha: &str) -> ApplyRequest {
        serde_json::from_value(json!({
            "name": "tiny",
            "config_file": {"backend": "llama-cpp", "parameters": {"model": "tiny.gguf"}},
            "overrides": {"parameters": {"temperature": 0.5}},
            "files": [{"filename": "tiny.gguf", "uri": self.server.url("/cdn"), "sha256": sha}],
        }))
        .unwrap()
    }

    fn is_there(&self, file: &str) -> bool {
        fs::symlink_metadata(self.models.join(file)).is_ok()
    }
}

fn ended(board: &JobBoard, id: &str) -> JobStatus {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let status = board.job(id).expect("it is known");
        if status.processed {
            return status;
        }
        assert!(Instant::now() < patience, "{status:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_model_is_installed_and_deleted() {
    let house = House::new();
    let board = house.board();
    let status = ended(&board, &board.apply(house.request(&sha256(&gguf()))).unwrap());
    assert_eq!((status.error.as_deref(), status.progress, status.message.as_str()), (None, 100.0, "completed"));
    assert_eq!((status.current_bytes, status.total_bytes), (gguf().len() as u64, gguf().len() as u64));
    let catalog = Catalog::open(&house.models, CatalogOptions::default()).unwrap();
    let entry = catalog.resolve(Some("tiny"), Usecase::Chat).unwrap();
    assert_eq!(entry.config.defaults.temperature, Some(0.5));
    let original = fs::canonicalize(house.models.join("tiny.gguf")).unwrap();
    let status = ended(&board, &board.delete("tiny").unwrap());
    assert_eq!((status.error, status.deletion), (None, true));
    assert!(!house.is_there("tiny.gguf") && !house.is_there("tiny.yaml") && !original.exists());
    assert!(!house.is_there(FILE), "nothing is left to do");
    assert!(board.delete("tiny").is_err());
}

#[test]
fn bad_networks_end_as_they_should_and_leave_no_partial_file() {
    let good = sha256(&gguf());
    let cases: [(&str, Vec<Reply>, &str, Option<&str>); 6] = [
        ("cut half way", vec![Reply::Cut(2_000), Reply::Cut(1_000)], &good, None),
        ("wrong bytes", vec![], &"0".repeat(64), Some("sha256")),
        ("too many requests, then well", vec![Reply::Status(429), Reply::Status(503)], &good, None),
        ("always 503", vec![Reply::Status(503); 20], &good, Some("503")),
        ("stalls, then well", vec![Reply::Stall], &good, None),
        ("not there", vec![Reply::Status(404)], &good, Some("404")),
    ];
    for (what, replies, sha, error) in cases {
        let house = House::new();
        house.server.script("/cdn", replies);
        let board = house.board();
        let status = ended(&board, &board.apply(house.request(sha)).unwrap());
        match error {
            None => assert_eq!(status.error, None, "{what}"),
            Some(expected) => {
                assert!(status.error.as_ref().is_some_and(|error| error.contains(expected)), "{what}: {status:?}");
                assert!(status.message.starts_with("error:"));
            }
        }
        assert_eq!(house.is_there("tiny.gguf"), error.is_none(), "{what}");
        assert_eq!(house.is_there("tiny.yaml"), error.is_none(), "{what}");
    }
}

#[test]
fn a_job_can_be_cancelled_and_goes_on_later() {
    let house = House::new();
    house.server.script("/cdn", [Reply::Cut(2_000), Reply::Stall, Reply::Stall, Reply::Stall]);
    let board = house.board();
    let id = board.apply(house.request(&sha256(&gguf()))).unwrap();
    let patience = Instant::now() + Duration::from_secs(10);
    while board.job(&id).unwrap().current_bytes == 0 {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(board.cancel(&id) && !board.cancel("unknown"));
    let status = ended(&board, &id);
    assert!(status.cancelled && !status.cancellable && !house.is_there("tiny.gguf"), "{status:?}");
    assert!(!house.is_there(FILE), "what a person cancels does not come back");
    house.server.script("/cdn", []);
    let again = ended(&board, &board.apply(house.request(&sha256(&gguf()))).unwrap());
    assert_eq!(again.error, None);
    let resumed = house.server.seen().last().and_then(|seen| seen.range_start);
    assert!(resumed >= Some(2_000), "what had arrived was kept: {resumed:?}");
}

#[test]
fn a_restart_goes_on_with_what_was_cut_off() {
    let house = House::new();
    house.server.script("/cdn", [Reply::Stall, Reply::Stall, Reply::Stall, Reply::Stall]);
    let board = house.board();
    let id = board.apply(house.request(&sha256(&gguf()))).unwrap();
    while house.server.seen().is_empty() {
        std::thread::sleep(Duration::from_millis(2));
    }
    board.close();
    ended(&board, &id);
    let patience = Instant::now() + Duration::from_secs(5);
    while !house.is_there(FILE) {
        assert!(Instant::now() < patience, "the unfinished request is written down");
        std::thread::sleep(Duration::from_millis(2));
    }
    house.server.script("/cdn", []);
    let restarted = house.board();
    assert_eq!(ended(&restarted, &id).error, None);
    assert!(house.is_there("tiny.yaml"));
}

#[test]
fn jobs_run_beside_each_other() {
    let house = House::new();
    house.server.script("/cdn", [Reply::Stall]);
    let board = house.board();
    let slow = board.apply(house.request(&sha256(&gguf()))).unwrap();
    let other: ApplyRequest =
        serde_json::from_value(json!({"config_file": "name: other\nbackend: llama-cpp\n"})).unwrap();
    assert_eq!(ended(&board, &board.apply(other).unwrap()).error, None);
    assert!(!board.job(&slow).unwrap().processed, "the slow one does not hold up the other");
    assert_eq!(ended(&board, &slow).error, None);
    assert_eq!(board.jobs().len(), 2);
}

#[test]
fn galleries_are_read_wherever_they_are() {
    let house = House::new();
    let index = format!(
        "- name: shop-model\n  files:\n    - {{filename: tiny.gguf, sha256: {}, uri: '{}'}}\n  overrides:\n    parameters: {{model: tiny.gguf}}\n",
        sha256(&gguf()),
        house.server.url("/cdn")
    );
    let inside = house.models.join(".shop.index");
    fs::write(&inside, index).unwrap();
    let source = |name: &str, url: String| GallerySource { name: name.into(), url };
    let board = house.board_with(vec![
        source("shop", format!("file://{}", inside.display())),
        source("outside", "file:///etc/hostname".into()),
        source("gone", house.server.url("/nothing")),
    ]);
    let offers = board.available();
    let shop = offers.iter().find(|offer| offer.entry.name == "shop-model").expect("it is offered");
    assert_eq!((shop.gallery.name.as_str(), shop.is_installed), ("shop", false));
    assert!(offers.iter().any(|offer| offer.gallery.name == "ingle"), "the program's own is there too");
    let apply: ApplyRequest = serde_json::from_value(json!({"id": "shop@shop-model", "name": "mine"})).unwrap();
    assert_eq!(ended(&board, &board.apply(apply).unwrap()).error, None);
    assert!(house.is_there("mine.yaml"));
    assert_eq!(board.galleries().len(), 4);
}

#[test]
fn bad_requests_are_refused_at_once() {
    let house = House::new();
    let board = JobBoard::open(&house.models, Fetcher::new(house.bench.settings.clone()), Vec::new(), false);
    let file = |file: Value| json!({"name": "a", "files": [file]});
    for (body, expected) in [
        (json!({}), "name what to install"),
        (json!({"url": "https://h/a.gguf", "name": "../a"}), "inside the models folder"),
        (json!({"id": "a", "overrides": [1]}), "overrides"),
        (file(json!({"filename": "../../etc/x", "uri": "https://h/x"})), "inside the models folder"),
        (file(json!({"filename": "/etc/x", "uri": "https://h/x"})), "inside the models folder"),
        (file(json!({"filename": "x", "uri": "file:///etc/passwd"})), "files of this machine"),
        (file(json!({"filename": "x", "uri": "nowhere"})), "scheme"),
        (file(json!({"filename": "x", "uri": "https://h/x", "sha256": "1"})), "64 hexadecimal"),
    ] {
        let request: ApplyRequest = serde_json::from_value(body.clone()).unwrap();
        let error = board.apply(request).unwrap_err().to_string();
        assert!(error.contains(expected), "{body}: {error}");
    }
    // What only the work itself can find out ends the job.
    for (body, expected) in [
        (json!({"id": "no-such-model"}), "neither a gallery entry"),
        (json!({"url": "file:///etc/passwd.gguf"}), "files of this machine"),
        (json!({"name": "x", "config_file": "a: [", "files": []}), "config_file"),
        (json!({"url": house.server.url("/cdn.gguf")}), "private network"),
    ] {
        let request: ApplyRequest = serde_json::from_value(body.clone()).unwrap();
        let status = ended(&board, &board.apply(request).unwrap());
        assert!(status.error.as_ref().is_some_and(|error| error.contains(expected)), "{body}: {status:?}");
    }
    assert_eq!(fs::read_dir(&house.models).unwrap().count(), 0, "nothing was written");
}
