//! Where the server listens.

use std::io::{self, ErrorKind};

use anyhow::{Context, anyhow};
use tokio::net::TcpListener;

/// A host and a port, as people write them.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// `None` is every interface.
    host: Option<String>,
    port: u16,
}

/// The socket that a supervisor such as systemd has opened already; else the address is bound.
pub(super) async fn take_or_bind(address: &str) -> anyhow::Result<TcpListener> {
    let inherited = listenfd::ListenFd::from_env().take_tcp_listener(0);
    match inherited.context("the socket that the supervisor hands over is no TCP socket that listens")? {
        Some(listener) => {
            listener.set_nonblocking(true).context("the socket that the supervisor hands over cannot be used")?;
            TcpListener::from_std(listener).context("the socket that the supervisor hands over cannot be used")
        }
        None => bind(address).await,
    }
}

/// Binds `HOST:PORT`, `[V6]:PORT` or `:PORT`.
async fn bind(address: &str) -> anyhow::Result<TcpListener> {
    let place = parse(address).with_context(|| {
        format!(
            "address {address:?} cannot be used: write HOST:PORT such as 127.0.0.1:8080, or :8080 for every interface"
        )
    })?;
    let bound = match &place.host {
        Some(host) => TcpListener::bind((host.as_str(), place.port)).await,
        None => every_interface(place.port).await,
    };
    bound.map_err(|error| explain(address, place.port, error))
}

fn parse(address: &str) -> anyhow::Result<Place> {
    let (host, port) = address.trim().rsplit_once(':').context("it has no port")?;
    let port = port.parse().map_err(|_| anyhow!("{port:?} is not a port from 0 to 65535"))?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match (host, inner) {
        ("", _) => Ok(Place { host: None, port }),
        (_, Some(inner)) => Ok(Place { host: Some(inner.to_owned()), port }),
        (host, None) if host.contains(':') => Err(anyhow!("an IPv6 address needs brackets")),
        (host, None) => Ok(Place { host: Some(host.to_owned()), port }),
    }
}

/// IPv6 with IPv4 in it, or IPv4 alone on machines without IPv6.
async fn every_interface(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(("::", port)).await {
        Err(error) if !matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied) => {
            TcpListener::bind(("0.0.0.0", port)).await
        }
        bound => bound,
    }
}

fn explain(address: &str, port: u16, error: io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::AddrInUse => anyhow!(
            "port {port} is in use ({address}): stop the program that listens there, or choose another port with \
             --address; port 0 picks a free one"
        ),
        ErrorKind::PermissionDenied => {
            anyhow!("port {port} may not be opened by this user ({address}): choose one above 1023 with --address")
        }
        ErrorKind::AddrNotAvailable => {
            anyhow!("{address} is no address of this machine: use 127.0.0.1:{port}, or :{port} for every interface")
        }
        _ => anyhow!("{address} cannot be listened on ({error}): choose another one with --address"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, parse};

    #[test]
    fn addresses() {
        let cases = [
            (":8080", Some((None, 8080))),
            ("127.0.0.1:0", Some((Some("127.0.0.1"), 0))),
            ("localhost:1", Some((Some("localhost"), 1))),
            ("[::1]:80", Some((Some("::1"), 80))),
            (" :1 ", Some((None, 1))),
            ("::1:80", None),
            ("8080", None),
            (":x", None),
            (":65536", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(host, port)| Place { host: host.map(str::to_owned), port });
            assert_eq!(parse(text).ok(), expected, "{text:?}");
        }
    }
}
