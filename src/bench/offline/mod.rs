//! `ingle bench offline`: models in this process, through the engine that a server would use.
//!
//! What is measured of one kind of model is in a module of its own ([`text`], [`batched`]); this one knows the matrix of
//! settings, the loads and the report. A model of another kind adds a module and an arm in [`measure`].

mod bare;
mod batched;
mod load;
mod text;

use std::time::{Duration, Instant};

use anyhow::Context;
use ingle::hardware::EnergyMeter;
use ingle::{CacheType, Engine};
use serde_json::{Value, json};

use super::memory;
use super::progress::Progress;
use super::report::{Better, Metric, Report, Row};
use super::stop::{End, Stop};
use crate::cli::{Attention, OfflineArgs, Operations};
use load::Loaded;
pub(in crate::bench) use load::Source;

/// How a model is loaded; `None` is its configuration or the default.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LoadCase {
    threads: Option<u32>,
    cache_type_k: Option<CacheType>,
    cache_type_v: Option<CacheType>,
    attention: Option<Attention>,
    batch: Option<u32>,
}

/// What is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) prompt: usize,
    pub(super) answer: usize,
    pub(super) parallel: usize,
    pub(super) depth: usize,
}

impl Case {
    /// Tokens of one sequence at its end.
    fn n_sequence(&self) -> usize {
        self.depth + self.prompt + self.answer + 1
    }
}

/// What a measurement may use beside the model.
pub(super) struct Bench<'a> {
    args: &'a OfflineArgs,
    end: End,
    /// Waits for the engine and for the end at the same time.
    executor: tokio::runtime::Runtime,
    progress: Progress,
    /// Something that was asked for was left out.
    is_cut: bool,
    /// Bytes a second from main memory, by threads.
    bandwidths: Vec<(usize, f64)>,
}

impl Bench<'_> {
    /// Is it time to end, although there is more to do?
    fn cuts(&mut self) -> bool {
        self.is_cut |= self.end.is_over();
        self.is_cut
    }

    /// What `work` gives; `None` when it is time to end before.
    fn wait<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.executor.block_on(self.end.unless_over(work))
    }

    /// How fast `n_threads` read from memory; measured once.
    fn bandwidth(&mut self, n_threads: usize) -> f64 {
        if let Some(&(_, known)) = self.bandwidths.iter().find(|(known, _)| *known == n_threads) {
            return known;
        }
        let measured = memory::read_bandwidth(n_threads);
        self.bandwidths.push((n_threads, measured));
        measured
    }
}

/// Measures everything and makes the report.
pub(crate) fn run(args: &OfflineArgs) -> anyhow::Result<Report> {
    let (loads, cases) = (load_cases(args), cases(args));
    let sources = args.models.iter().map(|model| Source::find(model, args)).collect::<anyhow::Result<Vec<_>>>()?;
    let n_parts = sources.len() * loads.len() * cases.len() * (args.repeats as usize + 1);
    let mut report = Report::new("offline");
    if let Some(operations) = args.operations {
        bare::use_operations(operations)?;
        report.notes.push(match operations {
            Operations::Ours => "our own operations computed what they can; ggml's the rest".to_owned(),
            Operations::Ggml => "every operation was left to ggml".to_owned(),
        });
    }
    let deadline = args.max_seconds.map(|secs| Instant::now() + Duration::from_secs(secs));
    let mut bench = Bench {
        args,
        end: End { stop: Stop::on_interrupt()?, deadline },
        executor: tokio::runtime::Builder::new_current_thread().enable_time().build()?,
        progress: Progress::new(n_parts),
        is_cut: false,
        bandwidths: Vec::new(),
    };
    for source in &sources {
        report.subjects.push(source.subject()?);
        for load in &loads {
            if bench.cuts() {
                break;
            }
            if let Err(error) = measure_load(&mut bench, &mut report, source, (*load, &cases)) {
                report.fail(&source.name, error);
            }
        }
    }
    report.is_complete &= !bench.is_cut;
    bench.bandwidths.iter().for_each(|(n_threads, bytes)| {
        let rate = bytes / 1e9;
        report.notes.push(format!("main memory is read at {rate:.1} GB/s by {n_threads} threads"));
    });
    let nothing = format!("nothing was measured: {}", report.notes.join("; "));
    report.checked(&nothing)
}

fn measure_load(
    bench: &mut Bench<'_>,
    report: &mut Report,
    source: &Source,
    (load, cases): (LoadCase, &[Case]),
) -> anyhow::Result<()> {
    bench.progress.on(&format!("loading {}", source.name));
    memory::reset_peak();
    let energy = EnergyMeter::start();
    let loaded = source.load(&load, cases).with_context(|| format!("model {} cannot be loaded", source.name))?;
    let is_text = loaded.engine.text.is_some();
    let mut bare = (bench.args.bare && is_text).then(|| bare::Bare::open(&loaded.options)).transpose()?;
    let method = if is_text { text::METHOD } else { batched::METHOD };
    if report.notes.iter().all(|note| note != method) {
        report.notes.push(method.to_owned());
    }
    let all: Vec<Case> = if is_text { cases.to_vec() } else { without_answers(cases) };
    for case in &all {
        if bench.cuts() {
            break;
        }
        let mut row = Row::new(labels(source, &load, (case, is_text)));
        row.metrics.extend(Metric::new("load", "s", Better::Lower, vec![loaded.secs]).map(Metric::in_files));
        match measure(bench, (&loaded, bare.as_mut()), case, &mut row) {
            Ok(true) => {}
            Ok(false) => break,
            // The next case may be one that the model can do.
            Err(error) => {
                report.fail(&row.label(&row.case.keys().cloned().collect::<Vec<_>>()), error);
                continue;
            }
        }
        let peak = memory::peak_bytes().map(|bytes| bytes as f64 / f64::from(1 << 20));
        row.metrics.extend(Metric::new("peak memory", "MiB", Better::Lower, peak.into_iter().collect()));
        report.rows.push(row);
    }
    if energy.is_none() && report.rows.len() <= cases.len() {
        report.notes.push("no device reports the energy it takes (RAPL, NVML)".to_owned());
    }
    Ok(())
}

/// Measures one case with what the engine can do; `false` when it was stopped before the first result.
fn measure(
    bench: &mut Bench<'_>,
    (loaded, bare): (&Loaded, Option<&mut bare::Bare>),
    case: &Case,
    row: &mut Row,
) -> anyhow::Result<bool> {
    match &loaded.engine {
        Engine { text: Some(model), .. } => text::measure(bench, (loaded, model, bare), case, row),
        _ => batched::measure(bench, loaded, case, row),
    }
}

/// The cases of a model that reads or hears, but does not go on: depth and answer tell none from another.
fn without_answers(cases: &[Case]) -> Vec<Case> {
    let mut found: Vec<Case> = Vec::new();
    for &case in cases {
        let case = Case { depth: 0, answer: 0, ..case };
        if !found.contains(&case) {
            found.push(case);
        }
    }
    found
}

fn labels(source: &Source, load: &LoadCase, (case, is_text): (&Case, bool)) -> Vec<(&'static str, Value)> {
    let mut labels = vec![("model", json!(source.name))];
    labels.extend(load.threads.map(|threads| ("threads", json!(threads))));
    labels.extend(load.cache_type_k.map(|kind| ("keys", json!(kind.name()))));
    labels.extend(load.cache_type_v.map(|kind| ("values", json!(kind.name()))));
    labels.extend(load.attention.map(|attention| ("attention", json!(format!("{attention:?}").to_lowercase()))));
    labels.extend(load.batch.map(|batch| ("batch", json!(batch))));
    labels.extend([("parallel", json!(case.parallel)), ("prompt", json!(case.prompt))]);
    if is_text {
        labels.extend([("depth", json!(case.depth)), ("answer", json!(case.answer))]);
    }
    labels
}

/// Every value, or one that leaves it open.
fn options<T: Copy>(values: &[T]) -> Vec<Option<T>> {
    if values.is_empty() { vec![None] } else { values.iter().copied().map(Some).collect() }
}

fn load_cases(args: &OfflineArgs) -> Vec<LoadCase> {
    let mut cases = Vec::new();
    for threads in options(&args.threads) {
        for cache_type_k in options(&args.cache_type_k) {
            for cache_type_v in options(&args.cache_type_v) {
                for attention in options(&args.flash_attention) {
                    for batch in options(&args.batch) {
                        let cache_type_v = cache_type_v.or(cache_type_k);
                        cases.push(LoadCase { threads, cache_type_k, cache_type_v, attention, batch });
                    }
                }
            }
        }
    }
    cases
}

fn cases(args: &OfflineArgs) -> Vec<Case> {
    let size = |n: u32| n as usize;
    let mut cases = Vec::new();
    for &depth in &args.depth {
        for &prompt in &args.prompt {
            for &answer in &args.answer {
                for &parallel in &args.parallel {
                    let (depth, prompt, answer) = (size(depth), size(prompt), size(answer));
                    cases.push(Case { prompt, answer, parallel: size(parallel), depth });
                }
            }
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{cases, load_cases};
    use crate::cli::{OfflineArgs, Operations};

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        offline: OfflineArgs,
    }

    #[test]
    fn every_combination_is_measured_once() {
        let line = "x m --prompt 16,32 --answer 4,8 --parallel 1,2,3 --depth 0,64 --threads 1,2 --cache-type-k f16,q8_0 \
                    --flash-attention on,off --batch 128,256";
        let args = Arguments::parse_from(line.split_whitespace()).offline;
        assert_eq!((cases(&args).len(), load_cases(&args).len()), (24, 16));
        assert!(load_cases(&args).iter().all(|case| case.cache_type_k == case.cache_type_v));
        let plain = Arguments::parse_from(["x", "m"]).offline;
        assert_eq!((cases(&plain).len(), load_cases(&plain).len()), (1, 1));
    }

    #[test]
    fn operations_are_those_of_the_process_unless_chosen() {
        let operations = |line: &str| Arguments::parse_from(line.split_whitespace()).offline.operations;
        assert_eq!(operations("x m"), None);
        assert_eq!(operations("x m --operations ours"), Some(Operations::Ours));
        assert_eq!(operations("x m --operations ggml"), Some(Operations::Ggml));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "x",
            "x m --operations theirs",
            "x m --parallel 0",
            "x m --prompt 0",
            "x m --cache-type-k f8",
            "x m --repeats 0",
        ] {
            assert!(Arguments::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
    }
}
