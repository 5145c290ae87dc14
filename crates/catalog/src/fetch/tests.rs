use super::*;
use crate::uri::HubFile;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

mod images;
pub(crate) mod server;
mod wheels;

use server::{Reply, Server};

/// A cache in a temporary folder, and a hub that is the given server.
pub(crate) struct Bench {
    pub dir: tempfile::TempDir,
    pub settings: FetchSettings,
}

impl Bench {
    pub fn new(endpoint: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap().to_owned();
        let endpoint = endpoint.to_owned();
        let variables = move |name: &str| match name {
            "HOME" => Some(home.clone()),
            "HF_ENDPOINT" => Some(endpoint.clone()),
            "HF_TOKEN" => Some("secret".to_owned()),
            _ => None,
        };
        let mut settings = FetchSettings::from_variables(&variables).unwrap();
        settings.http.first_pause = Duration::from_millis(1);
        settings.http.stall_timeout = Duration::from_millis(500);
        Self { dir, settings }
    }

    fn fetch(&self, file: &GalleryFile) -> Result<Fetched, CatalogError> {
        Fetcher::new(self.settings.clone()).fetch(file, POLICY, &NoProgress)
    }
}

pub(crate) const POLICY: FetchPolicy =
    FetchPolicy { pip: PipUse::LastResort, local_files: LocalFiles::Allow, reach: Reach::Anywhere };

pub(crate) fn body() -> Vec<u8> {
    (0..1_000_003u32).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    disk::sha256_of_file(file.path()).unwrap()
}

fn hub(path: &str) -> SourcePlace {
    let (repo, path, revision) = ("o/r".to_owned(), path.to_owned(), "main".to_owned());
    SourcePlace::Uri(FileUri::Hub(HubFile { repo, path, revision }))
}

fn url(url: String) -> SourcePlace {
    SourcePlace::Uri(FileUri::Http(url))
}

fn file(places: Vec<SourcePlace>, pinned: Option<&[u8]>) -> GalleryFile {
    let source = |place| FileSource { place, sha256: pinned.map(sha256), size: pinned.map(|bytes| bytes.len() as u64) };
    GalleryFile { filename: "m.gguf".to_owned(), sources: places.into_iter().map(source).collect() }
}

fn stored(fetched: &Fetched) -> Vec<u8> {
    fs::read(&fetched.path).unwrap()
}

#[test]
fn the_hub_is_followed_and_the_token_stays_with_it() {
    let server = Server::new(body());
    let bench = Bench::new(&server.url(""));
    let wanted = file(vec![hub("m.gguf")], Some(&body()));
    let fetched = bench.fetch(&wanted).unwrap();
    assert_eq!(fetched.outcome, Outcome::Downloaded(Verification::Pinned));
    assert_eq!(stored(&fetched), body());
    let seen = server.seen();
    assert_eq!(seen[0].path, "/o/r/resolve/main/m.gguf");
    assert_eq!(seen[0].authorization.as_deref(), Some("Bearer secret"));
    assert_eq!(seen[1].path, "/cdn");
    assert_eq!(seen[1].authorization, None, "the token must not go to another host");
    let again = bench.fetch(&wanted).unwrap();
    assert_eq!((again.outcome, server.seen().len()), (Outcome::AlreadyThere, 2));
}

#[test]
fn without_a_pinned_sha256_the_hub_s_own_is_used() {
    let server = Server::new(body());
    let bench = Bench::new(&server.url(""));
    let fetched = bench.fetch(&file(vec![hub("m.gguf")], None)).unwrap();
    assert_eq!(fetched.outcome, Outcome::Downloaded(Verification::Declared));
    let fetched = bench.fetch(&file(vec![url(server.url("/cdn"))], None)).unwrap();
    assert_eq!(fetched.outcome, Outcome::Downloaded(Verification::Unverified));
}

#[test]
fn a_cut_connection_is_resumed() {
    for pinned in [true, false] {
        let server = Server::new(body());
        server.script("/cdn", [Reply::Cut(300_000), Reply::Cut(200_000), Reply::Normal]);
        let bench = Bench::new(&server.url(""));
        let fetched = bench.fetch(&file(vec![url(server.url("/cdn"))], pinned.then(body).as_deref())).unwrap();
        assert_eq!(stored(&fetched), body());
        let ranges: Vec<_> = server.seen().iter().map(|seen| seen.range_start).collect();
        assert_eq!(ranges.len(), 3);
        assert_eq!(ranges[0], None);
        assert!(ranges[1] > Some(0) && ranges[2] > ranges[1], "{ranges:?}");
    }
}

#[test]
fn a_part_of_an_earlier_run_is_resumed() {
    let server = Server::new(body());
    let bench = Bench::new(&server.url(""));
    let wanted = file(vec![url(server.url("/cdn"))], Some(&body()));
    let part = disk::beside(&Fetcher::new(bench.settings.clone()).target("m.gguf", &wanted.sources[0]), "part");
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    for (on_disk, start, n_requests) in [
        (body()[..500_000].to_vec(), Some(500_000), 1),
        // The bytes are others: found at the end, fetched again from the start.
        (vec![7; 500_000], Some(500_000), 2),
        // Longer than the file: not to be continued.
        (vec![7; 2_000_000], None, 1),
        // All there: no request at all.
        (body(), None, 0),
    ] {
        let _ = fs::remove_file(part.with_extension(""));
        fs::write(&part, on_disk).unwrap();
        let before = server.seen().len();
        let fetched = bench.fetch(&wanted).unwrap();
        assert_eq!(stored(&fetched), body());
        let seen = server.seen().split_off(before);
        assert_eq!(seen.len(), n_requests);
        assert_eq!(seen.first().and_then(|seen| seen.range_start), start);
        assert!(!part.exists());
    }
}

#[test]
fn a_server_without_ranges_starts_again() {
    let server = Server::new(body());
    server.script("/cdn", [Reply::Cut(300_000), Reply::IgnoreRange]);
    let bench = Bench::new(&server.url(""));
    let fetched = bench.fetch(&file(vec![url(server.url("/cdn"))], Some(&body()))).unwrap();
    assert_eq!(stored(&fetched), body());
}

#[test]
fn a_file_that_changed_meanwhile_is_not_glued_together() {
    let server = Server::new(body());
    server.script("/cdn", [Reply::Cut(300_000), Reply::OtherEtag, Reply::OtherEtag]);
    let bench = Bench::new(&server.url(""));
    let fetched = bench.fetch(&file(vec![url(server.url("/cdn"))], None)).unwrap();
    assert_eq!(stored(&fetched), body());
    assert_eq!(server.seen().last().unwrap().range_start, None);
}

#[test]
fn faults_that_pass_are_tried_again_and_others_are_not() {
    for (status, n_requests, works) in
        [(503, 2, true), (429, 2, true), (500, 2, true), (401, 1, false), (404, 1, false)]
    {
        let server = Server::new(body());
        server.script("/cdn", [Reply::Status(status), Reply::Normal]);
        let bench = Bench::new(&server.url(""));
        let result = bench.fetch(&file(vec![url(server.url("/cdn"))], Some(&body())));
        assert_eq!((result.is_ok(), server.seen().len()), (works, n_requests), "{status}");
    }
    let server = Server::new(body());
    server.script("/cdn", [(); 9].map(|()| Reply::Status(503)));
    let error = Bench::new("").fetch(&file(vec![url(server.url("/cdn"))], Some(&body()))).unwrap_err();
    assert_eq!(server.seen().len(), 3);
    assert!(error.to_string().contains("503"), "{error}");
}

#[test]
fn wrong_bytes_never_get_the_name() {
    let server = Server::new(body());
    let bench = Bench::new(&server.url(""));
    let mut other = body();
    other[5] ^= 1;
    let wanted = file(vec![url(server.url("/cdn"))], Some(&other));
    let error = bench.fetch(&wanted).unwrap_err();
    assert!(error.to_string().contains(&sha256(&other)) && error.to_string().contains(&sha256(&body())), "{error}");
    let longer = [body(), vec![0]].concat();
    assert!(
        bench.fetch(&file(vec![url(server.url("/cdn"))], Some(&longer))).unwrap_err().to_string().contains("1000004")
    );
    let target = Fetcher::new(bench.settings.clone()).target("m.gguf", &wanted.sources[0]);
    assert!(!target.exists() && !disk::beside(&target, "part").exists());
}

#[test]
fn sources_are_tried_in_order_and_every_reason_is_told() {
    let server = Server::new(body());
    server.script("/o/r/resolve/main/gone.gguf", [Reply::Status(404)]);
    server.script("/gated", [Reply::Status(401)]);
    let bench = Bench::new(&server.url(""));
    let nowhere = url("http://no-such-host.invalid/m.gguf".to_owned());
    let places = vec![hub("gone.gguf"), url(server.url("/gated")), nowhere];
    let error = bench.fetch(&file(places.clone(), Some(&body()))).unwrap_err();
    let CatalogError::AllSourcesFailed { attempts, .. } = &error else { panic!("{error}") };
    assert_eq!(attempts.len(), 3);
    for part in ["no such file", "HF_TOKEN", "no-such-host.invalid"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let with_good = [places, vec![url(server.url("/cdn"))]].concat();
    assert_eq!(stored(&bench.fetch(&file(with_good, Some(&body()))).unwrap()), body());
}

#[test]
fn a_silent_server_is_given_up() {
    let server = Server::new(body());
    server.script("/cdn", [Reply::Stall, Reply::Stall, Reply::Stall]);
    let mut bench = Bench::new(&server.url(""));
    bench.settings.http.stall_timeout = Duration::from_millis(100);
    bench.settings.http.max_attempts = 2;
    let error = bench.fetch(&file(vec![url(server.url("/cdn"))], Some(&body()))).unwrap_err();
    assert!(error.to_string().contains("timeout"), "{error}");
}

#[derive(Debug)]
struct Room(u64);

impl SpaceProbe for Room {
    fn free_bytes(&self, _folder: &Path) -> std::io::Result<u64> {
        Ok(self.0)
    }
}

#[test]
fn a_full_disk_is_found_before_a_byte_is_written() {
    let server = Server::new(body());
    let mut bench = Bench::new(&server.url(""));
    bench.settings.space = Arc::new(Room(999_999));
    for pinned in [Some(body()), None] {
        let error = bench.fetch(&file(vec![url(server.url("/cdn"))], pinned.as_deref())).unwrap_err();
        let full = matches!(error, CatalogError::DiskFull { needed_bytes: 1_000_003, free_bytes: 999_999, .. });
        assert!(full, "{error}");
    }
    bench.settings.space = Arc::new(Room(1_000_003));
    assert!(bench.fetch(&file(vec![url(server.url("/cdn"))], Some(&body()))).is_ok());
}

#[test]
fn two_at_once_fetch_it_once() {
    let server = Server::new(body());
    let bench = Bench::new(&server.url(""));
    let wanted = file(vec![url(server.url("/cdn"))], Some(&body()));
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| bench.fetch(&wanted).unwrap().outcome)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|outcome| **outcome != Outcome::AlreadyThere).count(), 1);
    assert_eq!(server.seen().len(), 1);
}

struct StopAfter(AtomicUsize, AtomicBool);

impl Progress for StopAfter {
    fn on(&self, event: &Event<'_>) {
        if matches!(event, Event::Advanced { .. }) && self.0.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.1.store(true, Ordering::SeqCst);
        }
    }

    fn cancelled(&self) -> bool {
        self.1.load(Ordering::SeqCst)
    }
}

#[test]
fn cancelling_keeps_what_has_arrived() {
    let server = Server::new(body());
    let bench = Bench::new(&server.url(""));
    let wanted = file(vec![url(server.url("/cdn"))], Some(&body()));
    let stop = StopAfter(AtomicUsize::new(1), AtomicBool::new(false));
    let error = Fetcher::new(bench.settings.clone()).fetch(&wanted, POLICY, &stop).unwrap_err();
    assert!(matches!(error, CatalogError::Cancelled { .. }), "{error}");
    assert_eq!(stored(&bench.fetch(&wanted).unwrap()), body());
    assert!(server.seen()[1].range_start > Some(0));
}

#[test]
fn the_hub_s_own_cache_is_used_also_offline() {
    let mut bench = Bench::new("http://no-such-host.invalid");
    bench.settings.hub.access = HubAccess::Offline;
    let wanted = file(vec![hub("m.gguf")], Some(&body()));
    let error = bench.fetch(&wanted).unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    let repo = bench.dir.path().join(".cache/huggingface/hub/models--o--r");
    fs::create_dir_all(repo.join("refs")).unwrap();
    fs::create_dir_all(repo.join("snapshots/abc")).unwrap();
    fs::write(repo.join("refs/main"), "abc").unwrap();
    fs::write(repo.join("snapshots/abc/m.gguf"), body()).unwrap();
    assert_eq!(stored(&bench.fetch(&wanted).unwrap()), body());
    assert!(repo.join("snapshots/abc/m.gguf").exists());
}

#[test]
fn local_files_only_where_allowed() {
    let bench = Bench::new("");
    let path = bench.dir.path().join("x");
    fs::write(&path, body()).unwrap();
    let wanted = file(vec![SourcePlace::Uri(FileUri::Local(path))], Some(&body()));
    let refuse = FetchPolicy { local_files: LocalFiles::Refuse, ..POLICY };
    assert!(Fetcher::new(bench.settings.clone()).fetch(&wanted, refuse, &NoProgress).is_err());
    assert_eq!(stored(&bench.fetch(&wanted).unwrap()), body());
}

#[test]
fn settings_come_from_the_environment() {
    let settings = |variables: &[(&str, &str)]| {
        let variables: Vec<(String, String)> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        FetchSettings::from_variables(&move |name| {
            variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        })
    };
    assert!(matches!(settings(&[]), Err(CatalogError::NoCacheFolder)));
    let found = settings(&[("HOME", "/h")]).unwrap();
    assert_eq!(found.models_cache(), Path::new("/h/.cache/ingle/models"));
    assert_eq!(found.hub.cache.as_deref(), Some(Path::new("/h/.cache/huggingface/hub")));
    let found =
        settings(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/f"), ("HF_HUB_OFFLINE", "1")]).unwrap();
    assert_eq!(found.models_cache(), Path::new("/x/ingle/models"));
    assert_eq!((found.hub.cache.as_deref(), found.hub.access), (Some(Path::new("/f/hub")), HubAccess::Offline));
    let found = settings(&[("INGLE_CACHE", "/i"), ("HF_ENDPOINT", "http://e/"), ("HF_TOKEN", "t")]).unwrap();
    assert_eq!(found.models_cache(), Path::new("/i/models"));
    assert_eq!((found.hub.endpoint.as_str(), found.hub.token.as_deref()), ("http://e", Some("t")));
}

/// Collects the kinds of events.
#[derive(Default)]
pub(crate) struct Log(pub Mutex<Vec<String>>);

impl Progress for Log {
    fn on(&self, event: &Event<'_>) {
        let text = format!("{event:?}");
        let kind = text.split_whitespace().next().unwrap_or_default().to_owned();
        let mut log = self.0.lock().unwrap();
        if log.last() != Some(&kind) {
            log.push(kind);
        }
    }
}

#[test]
fn the_waiting_person_is_told() {
    let server = Server::new(body());
    server.script("/cdn", [Reply::Status(503), Reply::Normal]);
    let bench = Bench::new(&server.url(""));
    let log = Log::default();
    let places = vec![url(server.url("/none")), url(server.url("/cdn"))];
    Fetcher::new(bench.settings.clone()).fetch(&file(places, Some(&body())), POLICY, &log).unwrap();
    let log = log.0.into_inner().unwrap();
    assert_eq!(log, ["SourceFailed", "Retrying", "Started", "Advanced", "Verifying", "Finished"]);
}

#[test]
fn a_host_that_is_not_there_fails_at_once() {
    let server = Server::new(body());
    let closed = server.url("/cdn");
    drop(server);
    for address in ["http://no-such-host.invalid/m.gguf".to_owned(), closed] {
        let mut bench = Bench::new("");
        bench.settings.http.first_pause = Duration::from_secs(600);
        let log = Log::default();
        let wanted = file(vec![url(address)], Some(&body()));
        assert!(Fetcher::new(bench.settings.clone()).fetch(&wanted, POLICY, &log).is_err());
        assert_eq!(log.0.into_inner().unwrap(), ["SourceFailed"]);
    }
}
