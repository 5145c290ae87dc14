//! One block of requests: sent by clients in a closed loop, or as they arrive in an open one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::scenario::{Api, Part, Scenario, Talk};
use super::slo::Slo;
use super::target::{Failure, Outcome, Target};
use crate::bench::random::{Random, seed_of};
use crate::bench::report::{Better, Curve, Metric, Row};
use crate::bench::stats::quantile;
use crate::bench::stop::End;

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Load {
    /// So many clients, each with one request at a time.
    Closed(u32),
    /// So many requests a second, at random times.
    Open(f64),
}

/// What all blocks of a case share.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) scenario: Arc<Scenario>,
    pub(super) load: Load,
    pub(super) n_requests: u32,
    pub(super) ignore_eos: bool,
    pub(super) timeout: Duration,
    pub(super) slo: Option<Slo>,
    pub(super) end: End,
}

/// What a block gave.
#[derive(Debug, Clone)]
pub(super) struct Block {
    outcomes: Vec<Outcome>,
    secs: f64,
}

impl Plan {
    /// Sends a request and reads the answer; `None` when it is time to end before.
    async fn ask(&self, target: &Target, api: Api, body: &Map<String, Value>) -> Option<(Outcome, String)> {
        let answer = self.end.unless_over(target.ask(api, body, self.end.left(self.timeout))).await?;
        // The deadline is a limit of the request, too: what it cut off is no failure of the server.
        let is_cut = answer.0.failure.is_some() && self.end.is_over();
        (!is_cut).then_some(answer)
    }

    /// Sends one small request of each kind, so that models are loaded and grammars known; and the shared beginnings that
    /// are to be warm.
    pub(super) async fn prepare(&self, target: &Target, seed: u64) -> anyhow::Result<()> {
        for (idx, part) in self.scenario.parts.iter().enumerate() {
            let own = Random::new(seed_of(&[seed, 7_000_000 + idx as u64]));
            let body = Talk::new(part, own, Random::new(seed_of(&[seed, 8_000_000]))).warming_body(&target.model);
            let Some((outcome, _)) = self.ask(target, part.api, &body).await else { return Ok(()) };
            // One token may be a part of a character, or of a call: an empty answer is one.
            if let Some(failure) = outcome.failure.filter(|failure| !failure.is_empty_answer()) {
                anyhow::bail!("{} does not answer a first request: {failure}", target.url);
            }
        }
        Ok(())
    }

    async fn warm(&self, target: &Target, seed: u64) {
        for part in self.scenario.parts.iter().filter(|part| part.warm) {
            let own = Random::new(seed_of(&[seed, 9_000_000]));
            let body = Talk::new(part, own, shared(seed)).warming_body(&target.model);
            // A failure here is one of the block, too, and counted there.
            self.ask(target, part.api, &body).await;
        }
    }

    /// Runs a block; with the same seed it asks for the same. `None` when it is time to end before its last answer.
    pub(super) async fn run(&self, target: &Target, seed: u64) -> anyhow::Result<Option<Block>> {
        self.warm(target, seed).await;
        let begun = Instant::now();
        let outcomes = match self.load {
            Load::Closed(n_clients) => self.closed(target, seed, n_clients).await?,
            Load::Open(rate) => self.open(target, seed, rate).await?,
        };
        let Some(outcomes) = outcomes.filter(|outcomes| !outcomes.is_empty()) else { return Ok(None) };
        let ended = outcomes.iter().map(|outcome| outcome.ended).max().unwrap_or(begun);
        Ok(Some(Block { outcomes, secs: (ended - begun).as_secs_f64() }))
    }

    async fn closed(&self, target: &Target, seed: u64, n_clients: u32) -> anyhow::Result<Option<Vec<Outcome>>> {
        let next = Arc::new(AtomicU32::new(0));
        let clients: Vec<_> = (0..n_clients.min(self.n_requests))
            .map(|_| {
                let (plan, target, next) = (self.clone(), target.clone(), Arc::clone(&next));
                tokio::spawn(async move {
                    let mut outcomes = Vec::new();
                    loop {
                        let idx = next.fetch_add(1, Ordering::Relaxed);
                        if idx >= plan.n_requests {
                            return Some(outcomes);
                        }
                        outcomes.extend(plan.talk(&target, seed, idx).await?);
                    }
                })
            })
            .collect();
        joined(clients).await
    }

    async fn open(&self, target: &Target, seed: u64, rate: f64) -> anyhow::Result<Option<Vec<Outcome>>> {
        let mut random = Random::new(seed_of(&[seed, 6_000_000]));
        let mut at = tokio::time::Instant::now();
        let mut tasks = Vec::new();
        for idx in 0..self.n_requests {
            if self.end.unless_over(tokio::time::sleep_until(at)).await.is_none() {
                return Ok(None);
            }
            let (plan, target) = (self.clone(), target.clone());
            tasks.push(tokio::spawn(async move { plan.talk(&target, seed, idx).await }));
            at += Duration::from_secs_f64(random.exponential(rate));
        }
        joined(tasks).await
    }

    /// One conversation to its end; `None` when it is time to end before.
    async fn talk(&self, target: &Target, seed: u64, idx: u32) -> Option<Vec<Outcome>> {
        let mut random = Random::new(seed_of(&[seed, u64::from(idx)]));
        let part: &Part = self.scenario.draw(&mut random);
        let mut talk = Talk::new(part, random, shared(seed));
        let mut outcomes = Vec::new();
        for _ in 0..self.scenario.turns {
            let body = talk.next_body(&target.model, self.ignore_eos);
            let (outcome, text) = self.ask(target, part.api, &body).await?;
            let failed = outcome.failure.is_some();
            outcomes.push(outcome);
            if failed {
                break;
            }
            talk.answered(&text);
        }
        Some(outcomes)
    }
}

/// What the requests of a block begin with.
fn shared(seed: u64) -> Random {
    Random::new(seed_of(&[seed, 5_000_000]))
}

/// The outcomes of all tasks; `None` when one of them was cut short.
async fn joined(tasks: Vec<tokio::task::JoinHandle<Option<Vec<Outcome>>>>) -> anyhow::Result<Option<Vec<Outcome>>> {
    let mut all = Some(Vec::new());
    for task in tasks {
        let outcomes = task.await?;
        all = all.zip(outcomes).map(|(all, outcomes)| [all, outcomes].concat());
    }
    Ok(all)
}

/// A figure of a block: name, unit, direction.
type Figure = (&'static str, &'static str, Better, fn(&Block) -> f64);

impl Block {
    fn answered(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| outcome.failure.is_none())
    }

    fn firsts(&self) -> Vec<f64> {
        self.answered().filter_map(Outcome::first_ms).collect()
    }

    fn gaps(&self) -> Vec<f64> {
        self.answered().flat_map(Outcome::gaps_ms).collect()
    }

    fn totals(&self) -> Vec<f64> {
        self.answered().map(Outcome::total_ms).collect()
    }

    fn n_tokens(&self) -> u64 {
        self.answered().map(Outcome::n_tokens).sum()
    }

    /// Tokens of the answers in a second.
    pub(super) fn out_rate(&self) -> f64 {
        self.n_tokens() as f64 / self.secs
    }

    pub(super) fn n_failed(&self) -> usize {
        self.outcomes.len() - self.answered().count()
    }

    /// Prompt tokens of all requests, as the server counts them.
    pub(super) fn prompt_tokens(&self) -> u64 {
        self.answered().filter_map(|outcome| outcome.usage).map(|usage| usage.prompt_tokens).sum()
    }

    fn cached_tokens(&self) -> Option<u64> {
        let counts: Vec<u64> = self.answered().filter_map(|outcome| outcome.usage?.cached_tokens()).collect();
        (!counts.is_empty()).then(|| counts.iter().sum())
    }

    /// Did the server count tokens for every answer?
    pub(super) fn is_counted(&self) -> bool {
        self.answered().all(|outcome| outcome.usage.is_some())
    }
}

/// How often a kind of failure occurred in all blocks, with the first one of it.
pub(super) fn failures(blocks: &[Block]) -> BTreeMap<&str, (usize, &Failure)> {
    let mut counts = BTreeMap::new();
    for failure in blocks.iter().flat_map(|block| &block.outcomes).filter_map(|outcome| outcome.failure.as_ref()) {
        counts.entry(failure.kind.as_str()).or_insert((0, failure)).0 += 1;
    }
    counts
}

/// What is measured of every block. The first ones are for the terminal, too.
const FIGURES: [Figure; 19] = [
    ("out", "tok/s", Better::Higher, |block| block.out_rate()),
    ("ttft p50", "ms", Better::Lower, |block| quantile(&block.firsts(), 0.5)),
    ("ttft p95", "ms", Better::Lower, |block| quantile(&block.firsts(), 0.95)),
    ("gap p50", "ms", Better::Lower, |block| quantile(&block.gaps(), 0.5)),
    ("gap p99", "ms", Better::Lower, |block| quantile(&block.gaps(), 0.99)),
    ("gap longest", "ms", Better::Lower, |block| quantile(&block.gaps(), 1.0)),
    ("total p50", "ms", Better::Lower, |block| quantile(&block.totals(), 0.5)),
    ("failed", "", Better::Lower, |block| block.n_failed() as f64),
    ("ttft p90", "ms", Better::Lower, |block| quantile(&block.firsts(), 0.9)),
    ("ttft p99", "ms", Better::Lower, |block| quantile(&block.firsts(), 0.99)),
    ("gap p90", "ms", Better::Lower, |block| quantile(&block.gaps(), 0.9)),
    ("gap p95", "ms", Better::Lower, |block| quantile(&block.gaps(), 0.95)),
    ("total p90", "ms", Better::Lower, |block| quantile(&block.totals(), 0.9)),
    ("total p95", "ms", Better::Lower, |block| quantile(&block.totals(), 0.95)),
    ("total p99", "ms", Better::Lower, |block| quantile(&block.totals(), 0.99)),
    ("requests", "1/s", Better::Higher, |block| block.answered().count() as f64 / block.secs),
    ("in", "tok/s", Better::Higher, |block| block.prompt_tokens() as f64 / block.secs),
    ("prompt tokens", "", Better::Neither, |block| block.prompt_tokens() as f64),
    ("cached tokens", "", Better::Neither, |block| block.cached_tokens().map_or(f64::NAN, |n| n as f64)),
];

/// How many of [`FIGURES`] the terminal shows.
const N_SHOWN: usize = 8;

fn placed(idx: usize, metric: Metric) -> Metric {
    if idx < N_SHOWN { metric } else { metric.in_files() }
}

/// The figures of a server's blocks.
pub(super) fn figures(blocks: &[Block], slo: Option<&Slo>, row: &mut Row) {
    for (idx, (name, unit, better, of)) in FIGURES.iter().enumerate() {
        let samples = blocks.iter().map(of).collect();
        row.metrics.extend(Metric::new(name, unit, *better, samples).map(|metric| placed(idx, metric)));
    }
    if let Some(slo) = slo {
        let good =
            |block: &Block| block.outcomes.iter().filter(|outcome| slo.is_met(outcome)).count() as f64 / block.secs;
        row.metrics.extend(Metric::new("goodput", "1/s", Better::Higher, blocks.iter().map(good).collect()));
    }
    let all = |of: fn(&Block) -> Vec<f64>| blocks.iter().flat_map(of).collect::<Vec<_>>();
    row.curves.extend(Curve::of("time to first token", "ms", &all(Block::firsts)));
    row.curves.extend(Curve::of("gap between tokens", "ms", &all(Block::gaps)));
    row.curves.extend(Curve::of("whole answer", "ms", &all(Block::totals)));
}

/// The ratios of two servers, of blocks with the same requests.
pub(super) fn ratios(pairs: &[(Block, Block)], row: &mut Row) {
    for (idx, (name, _, better, of)) in FIGURES.iter().enumerate() {
        if *better == Better::Neither || *name == "failed" {
            continue;
        }
        let samples = pairs.iter().map(|(a, b)| of(a) / of(b)).collect();
        row.metrics.extend(Metric::new(name, "", *better, samples).map(|metric| placed(idx, metric)));
    }
}
