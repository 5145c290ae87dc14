//! Downloads over HTTP: resumes, follows redirects without giving the token away, and knows what is worth a retry.

use super::addresses::PublicOnly;
use super::settings::HttpSettings;
use super::{Event, Job, Reach, disk};
use crate::{CatalogError, Retry};
use std::fs::File;
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;
use ureq::http::{HeaderMap, Response};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};

const MAX_REDIRECTS: usize = 10;
const MAX_TEXT_BYTES: u64 = 4 << 20;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const BLOCK_BYTES: usize = 256 << 10;

/// An HTTP client with time-outs.
#[derive(Debug, Clone)]
pub(super) struct Http {
    agent: Agent,
    /// Does not talk to the machine's own networks.
    guarded: Agent,
    settings: HttpSettings,
}

/// A short answer, whatever its status.
#[derive(Debug)]
pub(super) struct Reply {
    pub status: u16,
    pub text: String,
    /// `WWW-Authenticate`.
    pub challenge: Option<String>,
}

/// What the server says about the file on the way to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Declared {
    /// 64 hex digits; the hub gives it for large files.
    pub sha256: Option<String>,
    /// Changes when the file does.
    etag: Option<String>,
    /// Bytes of the whole file.
    size: Option<u64>,
}

impl Http {
    pub fn new(settings: HttpSettings) -> Self {
        let config = Agent::config_builder()
            .user_agent(concat!("ingle/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(settings.connect_timeout))
            .timeout_connect(Some(settings.connect_timeout))
            .timeout_recv_response(Some(settings.stall_timeout))
            .timeout_per_read(Some(settings.stall_timeout))
            .build();
        let guarded = Agent::with_parts(config.clone(), DefaultConnector::default(), PublicOnly);
        Self { agent: config.new_agent(), guarded, settings }
    }

    /// The same, within `reach`.
    pub fn reaching(&self, reach: Reach) -> Self {
        match reach {
            Reach::Anywhere => self.clone(),
            Reach::PublicOnly => Self { agent: self.guarded.clone(), ..self.clone() },
        }
    }

    /// A short answer to a request that wants one of these media types.
    pub fn get_reply(&self, url: &str, token: Option<&str>, accept: &str) -> Result<Reply, CatalogError> {
        let mut request = self.agent.get(url).header("accept", accept);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = request.call().map_err(|error| transport(url, &error))?;
        let status = response.status().as_u16();
        let challenge = header(response.headers(), "www-authenticate").map(str::to_owned);
        let text = response.into_body().into_with_config().limit(MAX_TEXT_BYTES).read_to_string();
        Ok(Reply { status, text: text.map_err(|error| transport(url, &error))?, challenge })
    }

    /// A text of at most 4 MiB.
    pub fn get_text(&self, url: &str, token: Option<&str>) -> Result<String, CatalogError> {
        let (response, _) = self.get(url, token, 0)?;
        accept(url, &response, &[200])?;
        let text = response.into_body().into_with_config().limit(MAX_TEXT_BYTES).read_to_string();
        text.map_err(|error| transport(url, &error))
    }

    /// Completes the job's part file. Tries again while tries bring something or the fault may pass.
    pub fn download(&self, job: &Job<'_>, url: &str, token: Option<&str>) -> Result<Declared, CatalogError> {
        let mut n_failures = 0;
        loop {
            let before = disk::length(&job.part());
            let error = match self.attempt(job, url, token) {
                Ok(declared) => return Ok(declared),
                Err(error) => error,
            };
            if disk::length(&job.part()) > before {
                n_failures = 0;
            }
            n_failures += 1;
            let Some(wait) = self.pause_before_retry(&error, n_failures) else { return Err(error) };
            job.progress.on(&Event::Retrying { file: job.filename, error: &error, wait });
            thread::sleep(wait);
            job.check_cancelled()?;
        }
    }

    fn pause_before_retry(&self, error: &CatalogError, n_failures: u32) -> Option<Duration> {
        if n_failures >= self.settings.max_attempts {
            return None;
        }
        let growing = self.settings.first_pause * 2u32.saturating_pow(n_failures - 1);
        match error {
            CatalogError::Transport { retry: Retry::Worthwhile, .. } => Some(growing.min(LONGEST_PAUSE)),
            CatalogError::HttpStatus { status: 408 | 429 | 500..=599, retry_after, .. } => match retry_after {
                Some(wait) if *wait > LONGEST_PAUSE => None,
                Some(wait) => Some(*wait),
                None => Some(growing.min(LONGEST_PAUSE)),
            },
            _ => None,
        }
    }

    fn attempt(&self, job: &Job<'_>, url: &str, token: Option<&str>) -> Result<Declared, CatalogError> {
        let part = job.part();
        let have = usable_length(job);
        if have > 0 && job.source.size == Some(have) && job.source.sha256.is_some() {
            return Ok(Declared::default());
        }
        let (response, declared) = self.get(url, token, have)?;
        accept(url, &response, &[200, 206, 416])?;
        let start = match response.status().as_u16() {
            206 if continues(job, &response, &declared, have) => have,
            200 => 0,
            _ => {
                let _ = std::fs::remove_file(&part);
                let message = "the part on disk does not fit the file any more, starting again".to_owned();
                return Err(CatalogError::Transport { url: url.to_owned(), message, retry: Retry::Worthwhile });
            }
        };
        let total = declared.size.or_else(|| body_length(response.headers()).map(|length| start + length));
        check_total(job, total, start)?;
        remember_identity(job, &declared)?;
        receive(job, url, response, Span { start, total })?;
        Ok(declared)
    }

    /// Follows redirects by hand: the token goes to the first host only, and the hub tells about the file in the
    /// redirect, not at the file.
    fn get(&self, url: &str, token: Option<&str>, from: u64) -> Result<(Response<Body>, Declared), CatalogError> {
        let first_origin = origin(url);
        let mut address = url.to_owned();
        let mut declared = Declared::default();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(&address);
            if let Some(token) = token.filter(|_| origin(&address) == first_origin) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let response = request.call().map_err(|error| transport(&address, &error))?;
            declared.read(response.headers());
            let location = header(response.headers(), "location").filter(|_| response.status().is_redirection());
            match location {
                None => {
                    declared.size = declared.size.or_else(|| range_total(response.headers()));
                    return Ok((response, declared));
                }
                Some(location) => address = redirected(&address, location)?,
            }
        }
        let message = format!("more than {MAX_REDIRECTS} redirects");
        Err(CatalogError::Transport { url: url.to_owned(), message, retry: Retry::Useless })
    }
}

/// Where the received bytes belong.
struct Span {
    start: u64,
    total: Option<u64>,
}

impl Declared {
    fn read(&mut self, headers: &HeaderMap) {
        let linked = header(headers, "x-linked-etag").map(|etag| etag.trim_matches('"').to_ascii_lowercase());
        if let Some(etag) = linked {
            let is_sha256 = etag.len() == 64 && etag.chars().all(|digit| digit.is_ascii_hexdigit());
            self.sha256 = is_sha256.then(|| etag.clone());
            self.etag = Some(etag);
        }
        if self.etag.is_none() {
            self.etag = header(headers, "etag").map(str::to_owned);
        }
        self.size = self.size.or_else(|| header(headers, "x-linked-size")?.parse().ok());
    }
}

/// Bytes on disk that can be continued. Without a pinned sha256 the part must have a known identity.
fn usable_length(job: &Job<'_>) -> u64 {
    let have = disk::length(&job.part());
    let known = job.source.sha256.is_some() || disk::beside(job.target, "etag").is_file();
    let too_long = job.source.size.is_some_and(|size| have > size);
    if known && !too_long { have } else { 0 }
}

/// Whether a partial answer continues exactly what is on disk.
fn continues(job: &Job<'_>, response: &Response<Body>, declared: &Declared, have: u64) -> bool {
    let begins = header(response.headers(), "content-range")
        .and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.trim().parse::<u64>().ok());
    let same_file = job.source.sha256.is_some() || {
        let before = std::fs::read_to_string(disk::beside(job.target, "etag")).ok();
        before.is_some() && before == declared.etag
    };
    begins == Some(have) && same_file
}

fn remember_identity(job: &Job<'_>, declared: &Declared) -> Result<(), CatalogError> {
    let path = disk::beside(job.target, "etag");
    match (&job.source.sha256, &declared.etag) {
        (None, Some(etag)) => std::fs::write(&path, etag).map_err(CatalogError::io("write", &path)),
        _ => {
            let _ = std::fs::remove_file(&path);
            Ok(())
        }
    }
}

fn check_total(job: &Job<'_>, total: Option<u64>, start: u64) -> Result<(), CatalogError> {
    if let (Some(expected), Some(actual)) = (job.source.size, total)
        && expected != actual
    {
        return Err(CatalogError::WrongSize { path: job.target.to_owned(), expected, actual });
    }
    let total = total.or(job.source.size);
    total.map_or(Ok(()), |total| job.check_space(total.saturating_sub(start)))
}

fn receive(job: &Job<'_>, url: &str, response: Response<Body>, span: Span) -> Result<(), CatalogError> {
    let part = job.part();
    let mut file = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&part)
        .map_err(CatalogError::io("open", &part))?;
    file.set_len(span.start).map_err(CatalogError::io("cut", &part))?;
    std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).map_err(CatalogError::io("append to", &part))?;
    let source = job.source.describe();
    let total_bytes = span.total.or(job.source.size);
    let mut have_bytes = span.start;
    job.progress.on(&Event::Started { file: job.filename, source: &source, have_bytes, total_bytes });
    let broken = |message: String| CatalogError::Transport { url: url.to_owned(), message, retry: Retry::Worthwhile };
    let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let n_bytes = match body.read(&mut block) {
            Ok(0) => break,
            Ok(n_bytes) => n_bytes,
            Err(error) => return Err(broken(format!("broke off after {have_bytes} bytes: {error}"))),
        };
        file.write_all(&block[..n_bytes]).map_err(CatalogError::io("write", &part))?;
        have_bytes += n_bytes as u64;
        job.progress.on(&Event::Advanced { file: job.filename, have_bytes, total_bytes });
        if total_bytes.is_some_and(|total| have_bytes > total) {
            drop(file);
            let _ = std::fs::remove_file(&part);
            return Err(broken("sent more bytes than announced".to_owned()));
        }
        job.check_cancelled()?;
    }
    match total_bytes.filter(|total| have_bytes < *total) {
        Some(total) => Err(broken(format!("broke off after {have_bytes} of {total} bytes"))),
        None => Ok(()),
    }
}

fn accept(url: &str, response: &Response<Body>, wanted: &[u16]) -> Result<(), CatalogError> {
    let status = response.status().as_u16();
    if wanted.contains(&status) {
        return Ok(());
    }
    let retry_after = header(response.headers(), "retry-after").and_then(|wait| wait.parse().ok());
    Err(CatalogError::HttpStatus { url: url.to_owned(), status, retry_after: retry_after.map(Duration::from_secs) })
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn body_length(headers: &HeaderMap) -> Option<u64> {
    header(headers, "content-length")?.parse().ok()
}

fn range_total(headers: &HeaderMap) -> Option<u64> {
    header(headers, "content-range")?.rsplit('/').next()?.parse().ok()
}

/// `scheme://host:port`.
fn origin(url: &str) -> Option<&str> {
    let host_at = url.find("://")? + 3;
    let end = url[host_at..].find(['/', '?', '#']).map_or(url.len(), |at| host_at + at);
    Some(&url[..end])
}

fn redirected(from: &str, location: &str) -> Result<String, CatalogError> {
    let refuse = |message: String| CatalogError::Transport { url: from.to_owned(), message, retry: Retry::Useless };
    let base = origin(from).ok_or_else(|| refuse("the address has no host".to_owned()))?;
    let scheme = base.split("://").next().unwrap_or("https");
    let target = if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{base}{location}")
    } else {
        let folder =
            from.split(['?', '#']).next().and_then(|path| path.rsplit_once('/')).map_or(base, |(folder, _)| folder);
        format!("{folder}/{location}")
    };
    if scheme == "https" && !target.starts_with("https://") {
        return Err(refuse(format!("redirects to {target}, which is not encrypted")));
    }
    Ok(target)
}

/// A name that could not be looked up; the standard library has no kind for it.
fn is_lookup_failure(error: &std::io::Error) -> bool {
    error.to_string().starts_with("failed to lookup address")
}

fn transport(url: &str, error: &ureq::Error) -> CatalogError {
    let (retry, advice) = match error {
        ureq::Error::HostNotFound => (Retry::Useless, ": is the network there?"),
        ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => {
            (Retry::Useless, ": is the network there?")
        }
        ureq::Error::Io(error) if is_lookup_failure(error) => (Retry::Useless, ": is the network there?"),
        ureq::Error::ConnectionFailed => (Retry::Useless, ""),
        ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => (Retry::Worthwhile, ""),
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => (Retry::Useless, ""),
        ureq::Error::Io(_) => (Retry::Worthwhile, ""),
        _ => (Retry::Useless, ""),
    };
    CatalogError::Transport { url: url.to_owned(), message: format!("{error}{advice}"), retry }
}
