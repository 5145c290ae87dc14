//! `ingle bench serve`: servers that speak OpenAI's /v1, ours or not, under a load that a scenario describes.

mod block;
mod scenario;
mod slo;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use super::progress::Progress;
use super::random::seed_of;
use super::report::{Report, Row, Subject, number};
use super::stop::{End, Stop};
use crate::cli::ServeArgs;
use crate::output;
use block::{Block, Load, Plan};
use scenario::Scenario;
use slo::Slo;
use target::Target;

/// Threads of the clients: the cores are for the server.
const WORKERS: usize = 2;

/// Requests of a round where they come at a rate.
const OPEN_ROUND: u32 = 20;

const NOTHING: &str = "nothing was measured before the end";

const METHOD: &str = "Each block asks for other texts than the ones before. ttft: from sending to the first piece of the \
    answer; gap: between two pieces. Tokens are those of the server's `usage`. ± is half of the 95 % interval of the \
    median over blocks; of fewer than 6 blocks half of their range.";

/// The scenarios of the program, a line each.
pub(crate) fn list() -> String {
    let rows: Vec<Vec<String>> = scenario::list().into_iter().map(|(name, about)| vec![name, about]).collect();
    output::table(&["SCENARIO", "ABOUT"], &rows)
}

/// Measures and makes the report.
pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<Report> {
    let deadline = Instant::now().checked_add(Duration::from_secs(args.max_seconds));
    let end = End { stop: Stop::on_interrupt()?, deadline };
    let plans = plans(args, &end)?;
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let report = executor.block_on(measure(args, &plans, &end));
    // What a server still owes must not hold up the end.
    executor.shutdown_background();
    report
}

fn plans(args: &ServeArgs, end: &End) -> anyhow::Result<Vec<Plan>> {
    let slo = args.slo.as_deref().map(Slo::parse).transpose().context("--slo")?;
    if args.rate.iter().any(|rate| !rate.is_finite() || *rate <= 0.0) {
        bail!("--rate must be above 0");
    }
    let mut plans = Vec::new();
    for name in &args.scenario {
        let scenario = Arc::new(Scenario::open(name)?);
        for load in loads(args, &scenario) {
            plans.push(Plan {
                load,
                n_requests: args.requests.unwrap_or_else(|| usual_requests(load, &scenario)),
                scenario: Arc::clone(&scenario),
                ignore_eos: args.ignore_eos,
                timeout: Duration::from_secs(args.timeout),
                slo,
                end: end.clone(),
            });
        }
    }
    Ok(plans)
}

/// Requests of a block unless the arguments say otherwise.
fn usual_requests(load: Load, scenario: &Scenario) -> u32 {
    match load {
        Load::Closed(n_clients) => n_clients * scenario.rounds,
        Load::Open(_) => OPEN_ROUND * scenario.rounds,
    }
}

fn loads(args: &ServeArgs, scenario: &Scenario) -> Vec<Load> {
    match (args.rate.is_empty(), args.clients.is_empty(), scenario.rate) {
        (false, _, _) => args.rate.iter().map(|&rate| Load::Open(rate)).collect(),
        (true, false, _) => args.clients.iter().map(|&n_clients| Load::Closed(n_clients)).collect(),
        (true, true, Some(rate)) => vec![Load::Open(rate)],
        (true, true, None) => vec![Load::Closed(scenario.clients)],
    }
}

async fn targets(args: &ServeArgs) -> anyhow::Result<Vec<Target>> {
    let url = args.url.as_deref().context("the server's address is missing")?;
    let mut targets = vec![Target::open("A", url, args.model.clone(), args.api_key.clone()).await?];
    if let Some(url) = &args.vs {
        targets.push(Target::open("B", url, args.vs_model.clone(), args.vs_api_key.clone()).await?);
    }
    Ok(targets)
}

async fn measure(args: &ServeArgs, plans: &[Plan], end: &End) -> anyhow::Result<Report> {
    let Some(targets) = end.unless_over(targets(args)).await else { bail!("{NOTHING}: no list of models came") };
    let targets = targets?;
    let mut report = Report::new("serve");
    for target in &targets {
        let facts = [("address", json!(target.url)), ("model", json!(target.model))];
        let facts: Map<String, Value> = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        report.subjects.push(Subject { name: target.label.clone(), facts });
    }
    let mut progress = Progress::new(plans.len() * args.blocks as usize * targets.len());
    for (idx, plan) in plans.iter().enumerate() {
        if end.is_over() {
            report.is_complete = false;
            break;
        }
        // Other cases have other seeds, so that nothing of one is in the cache for the next.
        let seed = seed_of(&[args.seed, idx as u64]);
        let mut blocks = vec![Vec::new(); targets.len()];
        let outcome = measure_case(args, plan, (&targets, seed), (&mut blocks, &mut progress)).await;
        add_rows(&mut report, plan, (&targets, &blocks));
        report.is_complete &= blocks.iter().all(|blocks| blocks.len() == args.blocks as usize);
        if let Err(error) = outcome {
            report.fail(&plan.scenario.name, error);
        }
    }
    report.notes.push(METHOD.to_owned());
    report.checked(NOTHING)
}

/// Adds the blocks of each target to `blocks`, those before an error too. Which target goes first alternates.
async fn measure_case(
    args: &ServeArgs,
    plan: &Plan,
    (targets, seed): (&[Target], u64),
    (blocks, progress): (&mut [Vec<Block>], &mut Progress),
) -> anyhow::Result<()> {
    for target in targets {
        plan.prepare(target, seed).await?;
    }
    for number in 0..args.blocks as usize {
        let mut order: Vec<usize> = (0..targets.len()).collect();
        if number % 2 == 1 {
            order.reverse();
        }
        let mut found: Vec<Option<Block>> = vec![None; targets.len()];
        for idx in order {
            progress.on(&format!("{} {}", plan.scenario.name, targets[idx].label));
            // A block that was cut short is none, and neither is its partner.
            let Some(block) = plan.run(&targets[idx], seed_of(&[seed, number as u64])).await? else { return Ok(()) };
            progress.done(&line(plan, &targets[idx], &block));
            found[idx] = Some(block);
        }
        blocks.iter_mut().zip(found).for_each(|(blocks, block)| blocks.extend(block));
    }
    Ok(())
}

fn line(plan: &Plan, target: &Target, block: &Block) -> String {
    let failed = if block.n_failed() > 0 { format!(", {} failed", block.n_failed()) } else { String::new() };
    format!("{} {}: {} tok/s{failed}", plan.scenario.name, target.label, number(block.out_rate()))
}

fn add_rows(report: &mut Report, plan: &Plan, (targets, blocks): (&[Target], &[Vec<Block>])) {
    let case = |server: &str| {
        let load = match plan.load {
            Load::Closed(n_clients) => ("clients", json!(n_clients)),
            Load::Open(rate) => ("rate", json!(rate)),
        };
        Row::new([("scenario", json!(plan.scenario.name)), load, ("server", json!(server))])
    };
    for (target, blocks) in targets.iter().zip(blocks).filter(|(_, blocks)| !blocks.is_empty()) {
        let mut row = case(&target.label);
        block::figures(blocks, plan.slo.as_ref(), &mut row);
        report.rows.push(row);
        notes(report, plan, target, blocks);
    }
    if let [a, b] = blocks {
        let pairs: Vec<(Block, Block)> = a.iter().cloned().zip(b.iter().cloned()).collect();
        if pairs.is_empty() {
            return;
        }
        let mut row = case("A / B");
        block::ratios(&pairs, &mut row);
        report.rows.push(row);
        let tokens = |blocks: &[Block]| blocks.iter().map(Block::prompt_tokens).sum::<u64>();
        let same = if tokens(a) == tokens(b) { "agree" } else { "differ" };
        report.notes.push(format!("{}: prompt tokens {same} ({} and {})", plan.scenario.name, tokens(a), tokens(b)));
    }
}

fn notes(report: &mut Report, plan: &Plan, target: &Target, blocks: &[Block]) {
    for (kind, (count, first)) in block::failures(blocks) {
        let message = first.message.as_ref().map_or_else(String::new, |message| format!(", such as {message:?}"));
        let place = format!("{} {}", plan.scenario.name, target.label);
        report.notes.push(format!("{place}: {count} requests failed: {kind}{message}"));
    }
    if !blocks.iter().all(Block::is_counted) {
        let who = &target.label;
        report.notes.push(format!("{} {who}: it sent no usage; pieces were counted as tokens", plan.scenario.name));
    }
}
