//! Many streaming clients, a part of which hang up early; counts every outcome.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ingle_api::client::ClientError;

use crate::common::{Random, Target};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Clients at the same time.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Seconds during which new requests start.
    #[arg(long, default_value_t = 180)]
    secs: u64,
    /// Process id of the server, to report its memory.
    #[arg(long)]
    pid: Option<u32>,
}

pub async fn run(target: &Target, options: Options) -> anyhow::Result<()> {
    target.warm_up().await?;
    let before = options.pid.and_then(resident_mib);
    let counts: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let until = Instant::now() + Duration::from_secs(options.secs);
    let clients = (0..options.clients).map(|idx| {
        let (target, counts) = (target.clone(), Arc::clone(&counts));
        tokio::spawn(async move { client(idx, &target, until, &counts).await })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    let counts = counts.lock().expect("no client panics while counting");
    println!("outcomes: {counts:?}");
    let of = |name: &str| counts.get(name).copied().unwrap_or(0);
    let patient: usize = counts.iter().filter(|(name, _)| *name != "hung up").map(|(_, n)| n).sum();
    println!("complete: {:.1} % of {patient} patient requests", 100.0 * of("200 complete") as f64 / patient as f64);
    let after = options.pid.and_then(resident_mib);
    if let (Some(before), Some(after)) = (before, after) {
        println!("resident memory of the server: {before} MiB before, {after} MiB after");
    }
    Ok(())
}

async fn client(
    idx: usize,
    target: &Target,
    until: Instant,
    counts: &Mutex<BTreeMap<String, usize>>,
) -> anyhow::Result<()> {
    let mut random = Random(idx as u64);
    let mut round = 0;
    while Instant::now() < until {
        round += 1;
        let (n_prompt, n_answer) = (16 + random.below(241), 16 + random.below(49));
        let patient = !(idx + round).is_multiple_of(4);
        let most_pieces = if patient { usize::MAX } else { 1 + random.below(8) };
        let request = target.request(None, &random.words(n_prompt), n_answer)?;
        let outcome = match target.stream(request, most_pieces).await {
            Ok(_) if !patient => "hung up".to_owned(),
            Ok(answer) if answer.usage.as_ref().is_some_and(|usage| usage.completion_tokens == n_answer as u64) => {
                "200 complete".to_owned()
            }
            Ok(answer) => {
                format!("200 with {:?} of {n_answer} tokens", answer.usage.map(|usage| usage.completion_tokens))
            }
            Err(ClientError::Api { status: 503, retry_after_secs: Some(secs), .. }) => {
                tokio::time::sleep(Duration::from_secs(secs)).await;
                "503 with Retry-After".to_owned()
            }
            Err(error) => error.to_string(),
        };
        *counts.lock().expect("no client panics while counting").entry(outcome).or_default() += 1;
    }
    Ok(())
}

/// Resident memory of a process in MiB.
fn resident_mib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? >> 10)
}
