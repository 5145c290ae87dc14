//! House rules as tests: what a reviewer would otherwise have to remember, with the place and the remedy in each failure.
//!
//! Standard library only, so that `cargo test --no-default-features --test tidy` builds in seconds. Sources are read
//! through a small scanner that blanks comments, strings and characters, so a rule about code never trips over prose.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// DESIGN §1: what each crate may know. A new edge is a design change: it needs a reason in the commit message.
const EDGES: &[(&str, &[&str])] = &[
    ("gguf", &[]),
    ("kernels", &[]),
    ("api", &[]),
    ("engine", &["kernels"]),
    ("grammar", &["engine"]),
    ("prompt", &["engine"]),
    ("catalog", &["gguf"]),
    ("llama", &["engine", "gguf", "kernels"]),
    ("candle", &["engine", "gguf", "kernels"]),
    ("runtime", &["engine", "grammar", "prompt", "catalog"]),
    ("server", &["runtime", "api"]),
];

/// Crates that link C++ or CUDA: nobody's tests but root's may need them.
const BACKENDS: &[&str] = &["llama", "candle"];

/// Outside packages that have one home. A name ending in `-` stands for all packages that begin with it.
const HOMES: &[(&str, &[&str])] = &[
    ("anyhow", &["root"]),
    ("clap", &["root"]),
    ("axum", &["server", "root"]),
    ("hyper", &["server", "root"]),
    ("tower-http", &["server", "root"]),
    ("llama-cpp-", &["llama"]),
    ("candle-", &["candle"]),
    ("nvml-wrapper", &["runtime"]),
];

/// Crates that may hold unsafe code: FFI and SIMD.
const UNSAFE_HOMES: &[&str] = &["crates/llama/", "crates/kernels/"];

const MAX_FILE_LINES: usize = 800;
const MAX_FUNCTION_LINES: usize = 70;
const MAX_CHAT_EXAMPLE_LINES: usize = 30;
const MAX_FILE_BYTES: u64 = 400_000;

// ---- the rules ----

#[test]
fn crate_edges_are_those_of_the_design() {
    let mut faults = Faults::default();
    for manifest in manifests() {
        let Some(name) = manifest.crate_name() else { continue };
        let Some(allowed) = edges_of(name) else {
            faults.add(&manifest.path, 1, format!("crate `{name}` is not in DESIGN §1: add it there and to EDGES"));
            continue;
        };
        for dependency in &manifest.dependencies {
            let Some(target) = dependency.package.strip_prefix("ingle-") else { continue };
            let fine = match dependency.kind {
                Kind::Normal => allowed.contains(&target),
                Kind::Dev => reachable(name).contains(target) && !BACKENDS.contains(&target),
            };
            if !fine {
                let remedy =
                    "a new edge is a design change: move the code, or change DESIGN §1 and EDGES with a reason";
                faults.add(&manifest.path, dependency.line, format!("`{name}` may not know `{target}`; {remedy}"));
            }
        }
    }
    faults.report("crate edges");
}

#[test]
fn outside_packages_stay_in_their_homes() {
    let mut faults = Faults::default();
    for manifest in manifests() {
        let name = manifest.crate_name().unwrap_or("root");
        for dependency in &manifest.dependencies {
            for (package, homes) in HOMES {
                let hit = if package.ends_with('-') {
                    dependency.package.starts_with(package)
                } else {
                    dependency.package == *package
                };
                if hit && !homes.contains(&name) {
                    let what = format!("`{}` belongs in {homes:?} only: remove it here", dependency.package);
                    faults.add(&manifest.path, dependency.line, what);
                }
            }
        }
        if !manifest.inherits_lints {
            faults.add(&manifest.path, 1, "add `[lints]` with `workspace = true`");
        }
    }
    faults.report("homes of outside packages");
}

#[test]
fn files_and_functions_are_short() {
    let mut faults = Faults::default();
    for file in rust_files() {
        let tests = if file.is_test_code() { BTreeSet::new() } else { file.test_lines() };
        let tables = file.table_lines();
        let lines = (1..=file.line_count()).filter(|line| !tests.contains(line) && !tables.contains(line)).count();
        if lines > MAX_FILE_LINES {
            let what = format!("{lines} lines without tests and tables, at most {MAX_FILE_LINES}: split into modules");
            faults.add(&file.path, 1, what);
        }
        for function in functions(&file.code) {
            let lines = (function.first..=function.last).filter(|line| !tables.contains(line)).count();
            if lines > MAX_FUNCTION_LINES {
                let what = format!("`{}` has {lines} lines, at most {MAX_FUNCTION_LINES}: split it", function.name);
                faults.add(&file.path, function.first, what);
            }
        }
        if file.path == Path::new("examples/chat.rs") && file.line_count() > MAX_CHAT_EXAMPLE_LINES {
            let what = format!("{} lines, at most {MAX_CHAT_EXAMPLE_LINES}: shorten it", file.line_count());
            faults.add(&file.path, 1, what);
        }
    }
    faults.report("sizes");
}

#[test]
fn unsafe_code_stays_in_llama_and_kernels() {
    let mut faults = Faults::default();
    for file in rust_files() {
        let home = UNSAFE_HOMES.iter().any(|home| file.path.starts_with(home));
        if !home {
            for line in words(&file.code, "unsafe") {
                faults.add(&file.path, line, "unsafe code belongs in crates/llama or crates/kernels: move it there");
            }
            if file.is_crate_root() && !file.code.contains("#![forbid(unsafe_code)]") {
                faults.add(&file.path, 1, "add `#![forbid(unsafe_code)]` below the `//!` lines");
            }
        }
        for line in file.unsafe_without_reason() {
            faults.add(&file.path, line, "write a `// SAFETY:` sentence above this block that says why it is sound");
        }
    }
    faults.report("unsafe code");
}

#[test]
fn crates_and_programs_say_what_they_are() {
    let mut faults = Faults::default();
    for file in rust_files() {
        let program = file.is_crate_root() || file.is_example();
        let head = file.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        if program && !head.starts_with("//!") {
            faults.add(&file.path, 1, "begin with `//!`: what this is, what it deliberately does not do, and why");
        }
    }
    faults.report("crate heads");
}

#[test]
fn nothing_is_ignored_or_left_for_later() {
    let mut faults = Faults::default();
    // Spelled in halves, since this file is read too.
    let markers = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    for file in text_files() {
        for marker in markers {
            for line in words(&file.text, marker) {
                faults.add(&file.path, line, format!("`{marker}`: finish it, or file an issue and say what is so now"));
            }
        }
    }
    for file in rust_files() {
        for line in words(&file.code, "ignore").filter(|&line| file.code_line(line).contains("#[")) {
            faults.add(&file.path, line, "an ignored test tests nothing: make it run here, or remove it");
        }
        for name in ["todo", "unimplemented", "dbg"] {
            for line in words(&file.code, name).filter(|&line| file.code_line(line).contains(&format!("{name}!"))) {
                faults.add(&file.path, line, format!("`{name}!` does not belong in a commit: write the real thing"));
            }
        }
        if file.path.starts_with("crates") {
            for line in words(&file.code, "anyhow") {
                faults.add(&file.path, line, "anyhow is root's: use this crate's thiserror enum");
            }
        }
    }
    faults.report("loose ends");
}

#[test]
fn no_machine_registry_or_heavy_file_is_named_here() {
    let mut faults = Faults::default();
    let folders = [concat!("/wo", "rk/"), concat!("/fa", "rm/"), concat!("/ro", "ot/")];
    let registries = [concat!("crates", ".io"), concat!("pypi", ".org"), concat!("pythonhosted", ".org")];
    for file in text_files().into_iter().filter(|file| file.path != Path::new("Cargo.lock")) {
        for (index, line) in file.text.lines().enumerate() {
            for folder in folders.iter().filter(|folder| names_folder(line, folder)) {
                faults.add(&file.path, index + 1, format!("`{folder}` exists on one machine: use a relative path"));
            }
            for host in registries.iter().filter(|host| line.contains("://") && line.contains(*host)) {
                faults.add(&file.path, index + 1, format!("address of a registry ({host}): name the package instead"));
            }
        }
    }
    for path in tree() {
        let bytes = fs::metadata(root().join(&path)).map_or(0, |data| data.len());
        if bytes > MAX_FILE_BYTES && path != Path::new("Cargo.lock") {
            faults.add(&path, 1, format!("{bytes} bytes: weights, corpora and programs stay out of the repository"));
        }
    }
    faults.report("names of machines and heavy files");
}

/// Whether `folder` stands at the beginning of a path in `line` (`a/work/b` is somebody's own folder).
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-}*~".contains(c)))
}

// ---- what was found ----

/// Breaches of one rule, each with its place and the remedy.
#[derive(Default)]
struct Faults(String);

impl Faults {
    fn add(&mut self, path: &Path, line: usize, what: impl AsRef<str>) {
        writeln!(self.0, "{}:{line}: {}", path.display(), what.as_ref()).expect("writing to a string cannot fail");
    }

    fn report(self, rule: &str) {
        assert!(self.0.is_empty(), "{rule}:\n{}", self.0);
    }
}

// ---- the crate graph ----

fn edges_of(name: &str) -> Option<&'static [&'static str]> {
    EDGES.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, targets)| *targets)
}

/// Everything below `name` in the graph: what its tests may use with features such as `fake`.
fn reachable(name: &str) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = edges_of(name).unwrap_or_default().to_vec();
    while let Some(next) = open.pop() {
        let Some((known, targets)) = EDGES.iter().find(|(crate_name, _)| *crate_name == next) else { continue };
        if found.insert(*known) {
            open.extend_from_slice(targets);
        }
    }
    found
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Normal,
    Dev,
}

#[derive(Debug, PartialEq)]
struct Dependency {
    package: String,
    kind: Kind,
    line: usize,
}

struct Manifest {
    path: PathBuf,
    dependencies: Vec<Dependency>,
    inherits_lints: bool,
}

impl Manifest {
    /// The folder's name below `crates/`, or nothing for the root package.
    fn crate_name(&self) -> Option<&str> {
        let mut parts = self.path.iter().map(|part| part.to_str().unwrap_or_default());
        (parts.next() == Some("crates")).then(|| parts.next())?
    }
}

fn manifests() -> Vec<Manifest> {
    let paths = tree().into_iter().filter(|path| path.ends_with("Cargo.toml"));
    let found: Vec<Manifest> = paths.map(|path| parse_manifest(&read(&path), path)).collect();
    assert!(found.len() > 1, "no manifest below {}: the rules would hold for nothing", root().display());
    found
}

fn parse_manifest(text: &str, path: PathBuf) -> Manifest {
    let mut table = String::new();
    let mut manifest = Manifest { path, dependencies: Vec::new(), inherits_lints: false };
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_matches(|c| "[]".contains(c)).to_owned();
            if let Some((parent, name)) = table.rsplit_once('.').filter(|(parent, _)| kind_of(parent).is_some()) {
                let kind = kind_of(parent).unwrap_or(Kind::Normal);
                manifest.dependencies.push(Dependency { package: unquote(name), kind, line: index + 1 });
            }
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else { continue };
        if table == "lints" && key.trim() == "workspace" && value.trim() == "true" {
            manifest.inherits_lints = true;
        }
        if let Some(kind) = kind_of(&table) {
            let name = key.trim().split('.').next().unwrap_or_default();
            let package = renamed(value).unwrap_or_else(|| unquote(name));
            manifest.dependencies.push(Dependency { package, kind, line: index + 1 });
        }
    }
    manifest
}

/// The kind of dependency a manifest's table lists. `[workspace.dependencies]` lists none: it only names versions.
fn kind_of(table: &str) -> Option<Kind> {
    let last = table.rsplit('.').next()?;
    match last {
        _ if table.starts_with("workspace") => None,
        "dependencies" | "build-dependencies" => Some(Kind::Normal),
        "dev-dependencies" => Some(Kind::Dev),
        _ => None,
    }
}

/// The true name in `{ package = "name", … }`.
fn renamed(value: &str) -> Option<String> {
    let (_, rest) = value.split_once("package")?;
    rest.split('"').nth(1).map(str::to_owned)
}

fn unquote(name: &str) -> String {
    name.trim().trim_matches('"').to_owned()
}

// ---- files ----

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file a commit would hold, relative to the root: hidden folders and build output are passed over.
fn tree() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let entries = fs::read_dir(root().join(&folder)).expect("the repository is readable");
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = folder.join(&name);
            let kind = entry.file_type().expect("a directory entry has a type");
            let hidden = name.starts_with('.') && name != ".ci" && name != ".cargo" && !kind.is_file();
            if kind.is_dir() && !hidden && name != "target" {
                open.push(path);
            } else if kind.is_file() && !ignored_by_git(&path) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// What `.gitignore` keeps out: weights, halves of downloads, and all of `models/` but its descriptions.
fn ignored_by_git(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let description = extension == "yaml" || path.ends_with("README.md");
    ["gguf", "safetensors", "part"].contains(&extension)
        || path == Path::new(".env")
        || path.starts_with("models") && !description
}

fn read(path: &Path) -> String {
    fs::read(root().join(path)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn text_files() -> Vec<Source> {
    let kinds = ["rs", "toml", "md", "yaml", "yml", "sh", "cuda", "cpp", "h", "lock", "py"];
    let named = ["Makefile", ".ci/run", ".gitignore", ".dockerignore"];
    let is_text = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| kinds.contains(&extension)) || named.iter().any(|name| path.ends_with(name))
    };
    tree().into_iter().filter(is_text).map(Source::read).collect()
}

fn rust_files() -> Vec<Source> {
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    let files: Vec<Source> = tree().into_iter().filter(is_rust).map(Source::read).collect();
    assert!(files.len() > 1, "no source below {}: the rules would hold for nothing", root().display());
    files
}

struct Source {
    path: PathBuf,
    text: String,
    /// `text` with comments, strings and characters blanked; the same lines.
    code: String,
}

impl Source {
    fn read(path: PathBuf) -> Self {
        let text = read(&path);
        let code =
            if path.extension().is_some_and(|extension| extension == "rs") { blank(&text) } else { String::new() };
        Self { path, text, code }
    }

    fn line_count(&self) -> usize {
        self.text.lines().count()
    }

    fn code_line(&self, line: usize) -> &str {
        self.code.lines().nth(line - 1).unwrap_or_default()
    }

    fn is_crate_root(&self) -> bool {
        let name = self.path.file_name().and_then(|name| name.to_str());
        let folder = self.path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        folder == Some("src") && matches!(name, Some("lib.rs" | "main.rs"))
    }

    /// `examples/name.rs` or `examples/name/main.rs`.
    fn is_example(&self) -> bool {
        let direct = self.path.parent() == Some(Path::new("examples"));
        self.path.starts_with("examples") && (direct || self.path.ends_with("main.rs"))
    }

    fn is_test_code(&self) -> bool {
        self.path.iter().any(|part| part == "tests" || part == "tests.rs" || part == "benches")
    }

    /// Lines of modules under `#[cfg(test)]`.
    fn test_lines(&self) -> BTreeSet<usize> {
        let starts = self.code.match_indices("#[cfg(test)]").map(|(at, _)| at);
        starts.filter_map(|at| span(&self.code, at, '{')).flatten().collect()
    }

    /// Lines of array literals that are bound to a name over more than one line: tables of data.
    fn table_lines(&self) -> BTreeSet<usize> {
        let mut lines = BTreeSet::new();
        for keyword in ["const ", "static ", "let "] {
            for (at, _) in self.code.match_indices(keyword) {
                if let Some(table) = table_at(&self.code, at) {
                    lines.extend(table);
                }
            }
        }
        lines
    }

    /// Lines of unsafe blocks and impls without a `SAFETY:` sentence on the line or in the eight before it.
    fn unsafe_without_reason(&self) -> Vec<usize> {
        let lines: Vec<&str> = self.text.lines().collect();
        let needs_reason = |line: &usize| {
            let code = self.code_line(*line);
            let rest = code.split("unsafe").nth(1).unwrap_or_default().trim_start();
            rest.is_empty() || rest.starts_with('{') || rest.starts_with("impl")
        };
        let has_reason =
            |line: &usize| lines[line.saturating_sub(9)..*line].iter().any(|text| text.contains("SAFETY:"));
        words(&self.code, "unsafe").filter(needs_reason).filter(|line| !has_reason(line)).collect()
    }
}

// ---- the scanner ----

struct Function {
    name: String,
    /// First and last line, counted from 1, both within.
    first: usize,
    last: usize,
}

/// Functions with a body, nested ones too; macros' patterns and types such as `fn(u8)` have no name and are passed over.
fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ").filter(|(at, _)| !code[..*at].ends_with(is_word)) {
        let name: String = code[at + 3..].trim_start().chars().take_while(|&c| is_word(c)).collect();
        if name.is_empty() {
            continue;
        }
        if let Some(lines) = span(code, at, '{') {
            found.push(Function { name, first: *lines.start(), last: *lines.end() });
        }
    }
    found
}

/// The lines from byte `at` to the end of the next block that `open` begins, unless a `;` or the end comes before it.
fn span(code: &str, at: usize, open: char) -> Option<std::ops::RangeInclusive<usize>> {
    let first = line_of(code, at);
    let mut depth = 0usize;
    for (offset, c) in code[at..].char_indices() {
        match c {
            '{' if depth == 0 && open == '{' => return Some(first..=line_of(code, closing(code, at + offset)?)),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.checked_sub(1)?,
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The lines of `… = [ … ];` (also `&[`, `vec![`) that the binding at byte `at` makes, when there are several.
fn table_at(code: &str, at: usize) -> Option<std::ops::RangeInclusive<usize>> {
    let (binding, value) = code[at..].split_once(" = ")?;
    if binding.contains([';', '{']) && !binding.contains('[') || binding.contains('\n') {
        return None;
    }
    let literal = value.trim_start_matches(['&', ' ', '\n']).trim_start_matches("vec!");
    let start = code.len() - literal.len();
    let end = literal.starts_with('[').then(|| closing(code, start))??;
    let lines = line_of(code, at)..=line_of(code, end);
    (lines.start() != lines.end()).then_some(lines)
}

/// The byte at which the bracket at byte `at` closes.
fn closing(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (offset, c) in code[at..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + offset);
                }
            }
            _ => {}
        }
    }
    None
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Lines on which `word` stands alone, once for each time it does.
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.lines().enumerate().flat_map(move |(index, line)| {
        let alone = move |at: usize| !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word);
        line.match_indices(word).filter(move |(at, _)| alone(*at)).map(move |_| index + 1)
    })
}

/// Rust source with comments, strings and characters made blank. Lines stay where they are.
fn blank(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let hidden = comment(rest).or_else(|| if code.ends_with(is_word) { None } else { literal(rest) });
        let hidden = hidden.or_else(|| plain_string(rest));
        let length = hidden.unwrap_or(first.len_utf8());
        let (head, tail) = rest.split_at(length);
        match hidden {
            Some(_) => code.extend(head.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            None => code.push_str(head),
        }
        rest = tail;
    }
    code
}

/// The length of the comment at the beginning of `rest`. Block comments nest.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let bytes = rest.as_bytes();
    let (mut at, mut depth) = (2, 1);
    while at < bytes.len() && depth > 0 {
        let step = match bytes.get(at..at + 2) {
            Some(b"/*") => (2, 1),
            Some(b"*/") => (2, -1),
            _ => (1, 0),
        };
        at += step.0;
        depth += step.1;
    }
    Some(at)
}

/// The length of the prefixed or raw string, or of the character, at the beginning of `rest`.
fn literal(rest: &str) -> Option<usize> {
    let prefix = rest.find(|c| !"bcr".contains(c)).filter(|&length| length <= 2)?;
    let body = &rest[prefix..];
    if rest[..prefix].contains('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let opened = body[hashes..].starts_with('"');
        let end = format!("\"{}", "#".repeat(hashes));
        let text = opened.then(|| &body[hashes + 1..])?;
        return Some(text.find(&end).map_or(rest.len(), |at| prefix + hashes + 1 + at + end.len()));
    }
    plain_string(body).or_else(|| character(body)).map(|length| prefix + length)
}

fn plain_string(rest: &str) -> Option<usize> {
    let text = rest.strip_prefix('"')?;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' if !escaped => return Some(at + 2),
            _ => escaped = c == '\\' && !escaped,
        }
    }
    Some(rest.len())
}

/// A character such as `'a'` or `'\''`; a lifetime such as `'a` is none.
fn character(rest: &str) -> Option<usize> {
    let text = rest.strip_prefix('\'')?;
    let mut chars = text.char_indices();
    let (_, first) = chars.next()?;
    if first == '\\' {
        let (_, escape) = chars.next()?;
        let body = 1 + escape.len_utf8();
        return text[body..].find('\'').map(|at| 1 + body + at + 1);
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(at + 2)
}

// ---- the rules' own tests ----

#[test]
fn the_scanner_sees_code_and_nothing_else() {
    let cases = [
        ("a // unsafe\nb", "a b"),
        ("a /* x /* y */ z */ b", "a b"),
        (r#"f("unsafe \" // no", 'x')"#, "f( , )"),
        ("r#\"a \" b\"# c", "c"),
        ("br\"\\\" c", "c"),
        (r"'\'' '\u{1F600}' b'{' '\\' c", "c"),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        ("r#fn + for\"x\"", "r#fn + for"),
        ("'é' c\"z\"", ""),
        ("\"cut off", ""),
        ("", ""),
    ];
    for (source, expected) in cases {
        let code = blank(source);
        assert_eq!(
            code.split_whitespace().collect::<Vec<_>>(),
            expected.split_whitespace().collect::<Vec<_>>(),
            "{source}"
        );
        assert_eq!(code.chars().count(), source.chars().count(), "{source}: columns moved");
        assert_eq!(code.lines().count(), source.lines().count(), "{source}: lines moved");
    }
}

#[test]
fn functions_are_measured_from_name_to_brace() {
    type Found<'a> = (&'a str, usize, usize);
    let cases: [(&str, &[Found]); 6] = [
        ("fn a() {\n\n}\n", &[("a", 1, 3)]),
        ("trait T { fn a(x: [u8; 4]) -> [u8; 2]; fn b() {} }", &[("b", 1, 1)]),
        ("fn a() where T: X {\n fn b() {\n }\n}", &[("a", 1, 4), ("b", 2, 3)]),
        ("type F = fn (u8) -> u8; macro_rules! m { ($n:ident) => { fn $n() {} } }", &[]),
        ("fn a() { let s = \"}\"; // }\n if x { '}' } else { b'{' };\n}", &[("a", 1, 3)]),
        ("often (a) {}", &[]),
    ];
    for (source, expected) in cases {
        let found: Vec<_> = functions(&blank(source)).into_iter().map(|f| (f.name, f.first, f.last)).collect();
        let expected: Vec<_> = expected.iter().map(|(name, first, last)| (name.to_string(), *first, *last)).collect();
        assert_eq!(found, expected, "{source}");
    }
}

#[test]
fn tables_and_tests_are_not_counted() {
    let text = "const A: &[u8] = &[\n1,\n];\nlet b = vec![\n2,\n];\nlet c = d[\n0];\n#[cfg(test)]\nmod tests {\n}\nfn e() {}\n";
    let source = Source { path: PathBuf::from("crates/x/src/a.rs"), text: text.to_owned(), code: blank(text) };
    assert_eq!(source.table_lines().into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(source.test_lines().into_iter().collect::<Vec<_>>(), [9, 10, 11]);
}

#[test]
fn unsafe_blocks_need_a_reason() {
    let text =
        "// SAFETY: fine\nlet a = unsafe { f() };\n\n\n\n\n\n\n\n\n\nunsafe impl Send for X {}\nunsafe fn g() {}\n";
    let source = Source { path: PathBuf::from("crates/llama/src/a.rs"), text: text.to_owned(), code: blank(text) };
    assert_eq!(source.unsafe_without_reason(), [12]);
}

#[test]
fn manifests_are_read_in_every_spelling() {
    let text = "[workspace.dependencies]\ningle-a = \"1\"\n[dependencies]\ningle-b.workspace = true\n\
                x = { package = \"ingle-c\", version = \"1\" }\n# ingle-d = 1\n[dependencies.ingle-e]\nversion = \"1\"\n\
                [target.'cfg(unix)'.dependencies]\ningle-f = { path = \"f\" }\n[dev-dependencies]\ningle-g = \"1\"\n\
                [features]\ningle-h = []\n[lints]\nworkspace = true\n";
    let manifest = parse_manifest(text, PathBuf::from("crates/z/Cargo.toml"));
    let found: BTreeMap<&str, Kind> = manifest.dependencies.iter().map(|d| (d.package.as_str(), d.kind)).collect();
    let normal = ["ingle-b", "ingle-c", "ingle-e", "ingle-f"].map(|name| (name, Kind::Normal));
    let expected: BTreeMap<&str, Kind> = normal.into_iter().chain([("ingle-g", Kind::Dev)]).collect();
    assert_eq!(found, expected);
    assert!(manifest.inherits_lints);
    assert_eq!(manifest.crate_name(), Some("z"));
}
