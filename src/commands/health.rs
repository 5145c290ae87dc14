//! `ingle health`: the health check of an image that has no shell and no curl.

use anyhow::{Context, bail};
use ingle_api::client::Client;

use crate::cli::HealthArgs;

/// Succeeds when the server answers that it is ready.
pub(crate) fn run(args: &HealthArgs) -> anyhow::Result<()> {
    let url = url(&args.address);
    let executor =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("no thread could be started")?;
    let client = Client::new(&url, None);
    let answer = executor.block_on(async { tokio::time::timeout(args.timeout, client.ready()).await });
    match answer {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => bail!("the server at {url} is not ready"),
        Ok(Err(error)) => Err(error).with_context(|| format!("no server answers at {url}")),
        Err(_) => bail!("the server at {url} does not answer within {:?}", args.timeout),
    }
}

/// The address that a server listens on, as one to reach it at.
fn url(address: &str) -> String {
    let (host, port) = address.trim().rsplit_once(':').unwrap_or((address, "8080"));
    let host = match host {
        "" | "0.0.0.0" => "127.0.0.1",
        "[::]" => "[::1]",
        host => host,
    };
    format!("http://{host}:{port}")
}

#[cfg(test)]
mod tests {
    use super::url;

    #[test]
    fn every_interface_is_reached_on_this_machine() {
        let cases = [
            (":8080", "http://127.0.0.1:8080"),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:81", "http://[::1]:81"),
            ("192.168.1.2:9", "http://192.168.1.2:9"),
            ("localhost:1", "http://localhost:1"),
        ];
        for (address, expected) in cases {
            assert_eq!(url(address), expected);
        }
    }
}
