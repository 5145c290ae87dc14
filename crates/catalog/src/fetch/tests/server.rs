//! A small file server with the habits of the model hub, and with faults on demand.

use super::sha256;
use std::collections::{HashMap, VecDeque};
use std::io::{Cursor, Write};
use std::sync::{Arc, Mutex};
use tiny_http::{Header, Request, Response, StatusCode};

/// How one request is answered.
#[derive(Debug, Clone, Copy)]
pub enum Reply {
    /// As a good server does.
    Normal,
    /// The head, so many bytes, and the end of the connection.
    Cut(usize),
    /// The whole file although a range was asked for.
    IgnoreRange,
    /// As if the file were another one now.
    OtherEtag,
    /// Only a status.
    Status(u16),
    /// Nothing until the client has gone.
    Stall,
}

/// What a request asked for.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub authorization: Option<String>,
    pub range_start: Option<u64>,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    scripts: HashMap<String, VecDeque<Reply>>,
    stalled: Vec<Request>,
    texts: HashMap<String, String>,
}

/// Serves one body at `/cdn`, and redirects `/o/r/resolve/main/m.gguf` to it on another host name.
pub struct Server {
    port: u16,
    http: Arc<tiny_http::Server>,
    state: Arc<Mutex<State>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub fn new(body: Vec<u8>) -> Self {
        let http = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
        let port = http.server_addr().to_ip().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let (serving, shared) = (Arc::clone(&http), Arc::clone(&state));
        let thread = std::thread::spawn(move || {
            let site = Site { port, sha256: sha256(&body), body };
            for request in serving.incoming_requests() {
                site.answer(request, &shared);
            }
        });
        Self { port, http, state, thread: Some(thread) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn script(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        self.state.lock().unwrap().scripts.insert(path.to_owned(), replies.into_iter().collect());
    }

    pub fn text(&self, path: &str, text: &str) {
        self.state.lock().unwrap().texts.insert(path.to_owned(), text.to_owned());
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.http.unblock();
        let _ = self.thread.take().unwrap().join();
    }
}

struct Site {
    port: u16,
    body: Vec<u8>,
    sha256: String,
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).unwrap()
}

impl Site {
    fn answer(&self, request: Request, state: &Mutex<State>) {
        let value = |name: &'static str| {
            request.headers().iter().find(|header| header.field.equiv(name)).map(|header| header.value.to_string())
        };
        let range_start =
            value("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let path = request.url().to_owned();
        let seen = Seen { path: path.clone(), authorization: value("authorization"), range_start };
        let reply = {
            let mut state = state.lock().unwrap();
            state.seen.push(seen);
            state.scripts.get_mut(&path).and_then(VecDeque::pop_front).unwrap_or(Reply::Normal)
        };
        let text = state.lock().unwrap().texts.get(&path).cloned();
        if let Some(text) = text {
            return drop(request.respond(Response::from_string(text)));
        }
        match (reply, path.as_str()) {
            (Reply::Stall, _) => state.lock().unwrap().stalled.push(request),
            (Reply::Status(status), _) => drop(request.respond(Response::empty(StatusCode(status)))),
            (Reply::Cut(n_bytes), _) => self.cut(request, range_start, n_bytes),
            (_, "/o/r/resolve/main/m.gguf") => self.redirect(request),
            (Reply::IgnoreRange, "/cdn") => self.send(request, None, "\"one\""),
            (Reply::OtherEtag, "/cdn") => self.send(request, range_start, "\"two\""),
            (Reply::Normal, "/cdn") => self.send(request, range_start, "\"one\""),
            _ => drop(request.respond(Response::empty(StatusCode(404)))),
        }
    }

    fn redirect(&self, request: Request) {
        let response = Response::empty(StatusCode(302))
            .with_header(header("Location", &format!("http://localhost:{}/cdn", self.port)))
            .with_header(header("X-Repo-Commit", "abc"))
            .with_header(header("X-Linked-Etag", &format!("\"{}\"", self.sha256)))
            .with_header(header("X-Linked-Size", &self.body.len().to_string()));
        drop(request.respond(response));
    }

    fn send(&self, request: Request, range_start: Option<u64>, etag: &str) {
        let start = range_start.unwrap_or(0) as usize;
        if start >= self.body.len() {
            return drop(request.respond(Response::empty(StatusCode(416))));
        }
        let rest = self.body[start..].to_vec();
        let length = rest.len();
        let status = StatusCode(if range_start.is_some() { 206 } else { 200 });
        let mut response = Response::new(status, vec![header("ETag", etag)], Cursor::new(rest), Some(length), None)
            .with_chunked_threshold(usize::MAX);
        if range_start.is_some() {
            let total = self.body.len();
            response.add_header(header("Content-Range", &format!("bytes {start}-{}/{total}", total - 1)));
        }
        drop(request.respond(response));
    }

    fn cut(&self, request: Request, range_start: Option<u64>, n_bytes: usize) {
        let total = self.body.len();
        let start = range_start.unwrap_or(0) as usize;
        let mut head =
            String::from(if range_start.is_some() { "HTTP/1.1 206 Partial\r\n" } else { "HTTP/1.1 200 OK\r\n" });
        head += &format!("ETag: \"one\"\r\nConnection: close\r\nContent-Length: {}\r\n", total - start);
        if range_start.is_some() {
            head += &format!("Content-Range: bytes {start}-{}/{total}\r\n", total - 1);
        }
        let mut out = request.into_writer();
        let sent = [head.as_bytes(), b"\r\n", &self.body[start..start + n_bytes]].concat();
        let _ = out.write_all(&sent).and_then(|()| out.flush());
    }
}
