//! Two lines to copy, for somebody who has just typed `make run`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context;
use ingle::Runtime;
use ingle::catalog::Usecase;
use serde_json::json;
use tokio::net::TcpListener;

use crate::cli::RunArgs;
use crate::output;

/// Does the environment ask for them?
pub(super) fn wanted() -> bool {
    std::env::var_os("INGLE_HINTS").is_some_and(|value| value == "1")
}

/// What the lines are made of.
#[derive(Debug)]
pub(super) struct Hints {
    address: SocketAddr,
    needs_key: bool,
}

impl Hints {
    pub(super) fn new(listener: &TcpListener, args: &RunArgs) -> anyhow::Result<Self> {
        let address = listener.local_addr().context("the address of the server is not known")?;
        Ok(Self { address, needs_key: args.http.api_keys.iter().any(|key| !key.is_empty()) })
    }

    /// Prints them for `model`, or for the model that answers when none is named.
    pub(super) fn print(&self, runtime: &Runtime, model: Option<&str>) -> anyhow::Result<()> {
        let Ok(entry) = runtime.catalog().resolve(model, Usecase::Chat) else { return Ok(()) };
        let program = std::env::current_exe().map_or_else(|_| "ingle".to_owned(), |path| path.display().to_string());
        output::print(&self.text(&program, &entry.name)?)
    }

    fn text(&self, program: &str, model: &str) -> anyhow::Result<String> {
        let url = format!("http://{}", reachable(self.address));
        let body = json!({ "model": model, "messages": [{ "role": "user", "content": "Why is the sky blue?" }] });
        let quote = |text: &str| shlex::try_quote(text).map(String::from).context("a name holds a zero byte");
        let key = if self.needs_key { " -H \"Authorization: Bearer $LOCALAI_API_KEY\"" } else { "" };
        Ok(format!(
            "\nThe server is ready. Try:\n\n  curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} -d {}\n\n  \
             {} chat --endpoint {url} {}\n\n",
            quote(&body.to_string())?,
            quote(program)?,
            quote(model)?
        ))
    }
}

/// An address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // Also where IPv6 was bound for both: IPv4 is in it.
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip == Ipv6Addr::LOCALHOST => ip.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::Hints;

    #[test]
    fn lines_survive_a_shell() {
        let cases = [
            ("127.0.0.1:1", "http://127.0.0.1:1"),
            ("[::]:2", "http://127.0.0.1:2"),
            ("0.0.0.0:3", "http://127.0.0.1:3"),
            ("[::1]:4", "http://[::1]:4"),
        ];
        for (address, url) in cases {
            let hints = Hints { address: address.parse().expect("an address"), needs_key: false };
            let text = hints.text("/a b/ingle", "it's").expect("no zero byte");
            let line = |part: &str| text.lines().find(|line| line.contains(part)).expect("a line");
            let curl = shlex::split(line("curl ")).expect("quoted");
            let chat = shlex::split(line(" chat ")).expect("quoted");
            let body: serde_json::Value = serde_json::from_str(curl.last().expect("a body")).expect("JSON");
            assert_eq!(body["model"], "it's");
            assert_eq!(curl[1], format!("{url}/v1/chat/completions"));
            assert_eq!(chat, ["/a b/ingle", "chat", "--endpoint", url, "it's"]);
        }
    }
}
