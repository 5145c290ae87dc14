//! Real sockets: connections, draining, the end.
use std::net::SocketAddr;
use std::time::Duration;

use ingle_engine::fake::Answers;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Server, Setup};
use crate::{ServerOptions, serve};

/// More than anything here takes, less than a person waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that listens.
struct Listening {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<std::io::Result<()>>,
    _server: Server,
}

impl Listening {
    async fn start(server: Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let state = server.state.clone();
        let ended = tokio::spawn(serve(listener, state, async move {
            let _ = stopped.await;
        }));
        Self { address, stop, ended, _server: server }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("it listens")
    }

    async fn stop(self) {
        self.stop.send(()).expect("it runs");
        let ended = timeout(PATIENCE, self.ended).await.expect("it ends");
        ended.expect("no panic").expect("no failure");
    }
}

async fn send(stream: &mut TcpStream, method: &str, path: &str, body: &str) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("the server reads");
}

/// Reads until `mark` has come.
async fn read_until(stream: &mut TcpStream, mark: &str) -> String {
    let mut read = Vec::new();
    let work = async {
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&read).contains(mark) {
            let n_bytes = stream.read(&mut buffer).await.expect("the connection holds");
            assert!(n_bytes > 0, "ended before {mark:?}: {}", String::from_utf8_lossy(&read));
            read.extend_from_slice(&buffer[..n_bytes]);
        }
    };
    timeout(PATIENCE, work).await.expect("in time");
    String::from_utf8_lossy(&read).into_owned()
}

const ENDLESS: &str = r#"{"model":"m","prompt":"x","ignore_eos":true,"stream":true}"#;

fn endless(drain_timeout: Duration) -> Server {
    let options = ServerOptions { drain_timeout, ..ServerOptions::default() };
    Setup { answers: Answers::Hash, context_size: 200_000, options, ..Setup::default() }.build()
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_the_end() {
    let listening = Listening::start(Setup::default().build()).await;
    let mut idle = listening.connect().await;
    send(&mut idle, "GET", "/healthz", "").await;
    read_until(&mut idle, "\r\n\r\n").await;
    let _silent = listening.connect().await;
    listening.stop().await;
    let mut rest = Vec::new();
    timeout(PATIENCE, idle.read_to_end(&mut rest)).await.expect("closed").expect("in order");
}

#[tokio::test]
async fn a_running_answer_ends_in_its_time() {
    let server = Setup { answers: Answers::Text("word ".repeat(80)), ..Setup::default() }.build();
    let listening = Listening::start(server).await;
    let mut stream = listening.connect().await;
    send(&mut stream, "POST", "/v1/completions", r#"{"model":"m","prompt":"x","stream":true}"#).await;
    let mut read = read_until(&mut stream, "data: {").await;
    listening.stop.send(()).expect("it runs");
    read += &read_until(&mut stream, "data: [DONE]").await;
    assert!(!read.contains("\"error\""), "{read}");
    assert!(read.contains("\"finish_reason\":\"stop\""), "{read}");
    timeout(PATIENCE, listening.ended).await.expect("it ends").expect("no panic").expect("no failure");
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_cancelled_with_an_error() {
    let listening = Listening::start(endless(Duration::from_millis(50))).await;
    let mut stream = listening.connect().await;
    send(&mut stream, "POST", "/v1/completions", ENDLESS).await;
    read_until(&mut stream, "data: {").await;
    listening.stop.send(()).expect("it runs");
    let read = read_until(&mut stream, "data: [DONE]").await;
    assert!(read.contains("data: {\"error\":{\"message\":\"the server is stopping"), "no error frame");
    timeout(PATIENCE, listening.ended).await.expect("it ends").expect("no panic").expect("no failure");
}

#[tokio::test]
async fn a_broken_connection_frees_its_slot() {
    let listening = Listening::start(endless(Duration::ZERO)).await;
    let mut stream = listening.connect().await;
    send(&mut stream, "POST", "/v1/completions", ENDLESS).await;
    read_until(&mut stream, "data: {").await;
    drop(stream);
    let freed = async {
        while listening._server.busy() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, freed).await.expect("the slot is freed");
    listening.stop().await;
}

#[tokio::test]
async fn a_large_body_is_answered_and_not_cut_off() {
    let options = ServerOptions { body_limit_bytes: 1 << 20, ..ServerOptions::default() };
    let listening = Listening::start(Setup { options, ..Setup::default() }.build()).await;
    let mut stream = listening.connect().await;
    let body = "x".repeat(3 << 20);
    send(&mut stream, "POST", "/v1/chat/completions", &body).await;
    let read = read_until(&mut stream, "body_too_large").await;
    assert!(read.starts_with("HTTP/1.1 413"), "{read}");
    listening.stop().await;
}

#[tokio::test]
async fn rubbish_on_the_wire_ends_the_connection_only() {
    let listening = Listening::start(Setup::default().build()).await;
    let mut rubbish = listening.connect().await;
    rubbish.write_all(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").await.expect("the server reads");
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, rubbish.read_to_end(&mut rest)).await.expect("closed");
    let mut good = listening.connect().await;
    send(&mut good, "GET", "/healthz", "").await;
    assert!(read_until(&mut good, "\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    listening.stop().await;
}
