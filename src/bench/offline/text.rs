//! Prefill and decode of a text model, through the engine.

use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use futures_util::stream::{StreamExt, select_all};
use ingle::hardware::EnergyMeter;
use ingle::sampling::SamplingParams;
use ingle::{EndOfGeneration, GenerationEvent, GenerationRequest, TextModel, TokenId, TokenKind};

use super::bare::Bare;
use super::load::Loaded;
use super::{Bench, Case};
use crate::bench::random::{Random, seed_of};
use crate::bench::report::{Better, Curve, Metric, Row, number};
use crate::bench::stats;

/// How the figures come about, for the report.
pub(super) const METHOD: &str = "Prompts are random tokens, different in each run, and the end of the text is ignored. \
    prefill: prompt tokens computed over the time from the first request to the last first token. decode: the same \
    prompts, now cached, are continued; tokens over the time in which every sequence is generating. One run before the \
    others is not counted. ± is half of the 95 % interval of the median; of fewer than 6 runs half of their range.";

/// Finished prefixes of the run before leave the cache within this time, if they leave at all.
const SETTLES: Duration = Duration::from_millis(300);

/// Tokens that a repetitive prompt repeats.
const PERIOD: usize = 24;

/// What one run gave.
struct Sample {
    prefill: f64,
    first_ms: f64,
    /// Nothing without answers.
    decode: Option<f64>,
    gaps_ms: Vec<f64>,
    joules_per_token: Option<f64>,
    bare: Option<f64>,
    /// Share of guesses that were right, in percent; nothing without guesses.
    guessed: Option<f64>,
}

/// Runs one case as often as asked for and adds its figures to the row; `false` when not even one run was finished.
pub(super) fn measure(
    bench: &mut Bench<'_>,
    (loaded, model, mut bare): (&Loaded, &TextModel, Option<&mut Bare>),
    case: &Case,
    row: &mut Row,
) -> anyhow::Result<bool> {
    let limit = model.limits().n_sequence_tokens;
    if case.n_sequence() > limit {
        bail!("{} tokens of context, prompt and answer are more than the {limit} of the model", case.n_sequence());
    }
    let mut samples = Vec::new();
    for idx in 0..=bench.args.repeats {
        if bench.cuts() {
            break;
        }
        bench.progress.on(&format!("{} x {} + {}", case.parallel, case.prompt, case.answer));
        let seed = seed_of(&[bench.args.seed, case.parallel as u64, case.depth as u64, u64::from(idx)]);
        let Some(sample) = run(bench, (model, bare.as_deref_mut()), case, Random::new(seed))? else {
            bench.is_cut = true;
            break;
        };
        bench.progress.done(&line(model, case, &sample));
        if idx > 0 {
            samples.push(sample);
        }
    }
    let n_threads = loaded.options.threads.unwrap_or_else(|| ingle::hardware_in_use().n_cores);
    let bandwidth = (loaded.engine.placement == "CPU").then(|| bench.bandwidth(n_threads));
    figures(&samples, row);
    if let Some(bandwidth) = bandwidth {
        roofline(loaded, model, case, (&samples, bandwidth), row);
    }
    Ok(!samples.is_empty())
}

fn line(model: &TextModel, case: &Case, sample: &Sample) -> String {
    let decode = sample.decode.map_or_else(String::new, |rate| format!(", decode {} tok/s", number(rate)));
    let bare = sample.bare.map_or_else(String::new, |rate| format!(", bare loop {} tok/s", number(rate)));
    let Case { prompt, answer, parallel, depth } = case;
    let name = &model.config().name;
    format!(
        "{name} {parallel} x ({depth} + {prompt} + {answer}): prefill {} tok/s{decode}{bare}",
        number(sample.prefill)
    )
}

/// One run; `None` when it was stopped.
fn run(
    bench: &Bench<'_>,
    (model, bare): (&TextModel, Option<&mut Bare>),
    case: &Case,
    mut random: Random,
) -> anyhow::Result<Option<Sample>> {
    let prompts = prompts(model, case, bench.args.repetitive, &mut random)?;
    let beginnings: Vec<Vec<TokenId>> = prompts.iter().map(|prompt| prompt[..case.depth].to_vec()).collect();
    settle(model);
    if case.depth > 0 && answers(bench, model, beginnings, 1)?.is_none() {
        return Ok(None);
    }
    let computed_before = model.stats().prompt_tokens_computed;
    let begun = Instant::now();
    let Some(firsts) = answers(bench, model, prompts.clone(), 1)? else { return Ok(None) };
    let ends: Vec<f64> = firsts.iter().filter_map(|arrivals| Some((*arrivals.last()? - begun).as_secs_f64())).collect();
    let n_computed = model.stats().prompt_tokens_computed - computed_before;
    let prefill = n_computed as f64 / ends.iter().copied().fold(0.0, f64::max);
    let mut sample = Sample {
        prefill,
        first_ms: 1e3 * stats::median(&ends),
        decode: None,
        gaps_ms: Vec::new(),
        joules_per_token: None,
        bare: None,
        guessed: None,
    };
    if case.answer == 0 {
        return Ok(Some(sample));
    }
    let (meter, before) = (EnergyMeter::start(), model.stats());
    let Some(answered) = answers(bench, model, prompts.clone(), case.answer + 1)? else { return Ok(None) };
    let n_tokens: usize = answered.iter().map(Vec::len).sum();
    sample.joules_per_token = meter.map(|meter| meter.joules() / n_tokens as f64);
    sample.decode = Some(steady_rate(&answered)?);
    let after = model.stats();
    let (n_guesses, n_right) = (after.guesses - before.guesses, after.guesses_right - before.guesses_right);
    sample.guessed = (n_guesses > 0).then(|| 100.0 * n_right as f64 / n_guesses as f64);
    let gaps = answered.iter().flat_map(|arrivals| arrivals.windows(2).map(|pair| pair[1] - pair[0]));
    sample.gaps_ms = gaps.map(|gap| 1e3 * gap.as_secs_f64()).collect();
    if let Some(bare) = bare {
        sample.bare = bare.decode(&prompts, case.answer, &bench.end)?;
        if sample.bare.is_none() {
            return Ok(None);
        }
    }
    Ok(Some(sample))
}

/// Random tokens that are plain text.
fn prompts(
    model: &TextModel,
    case: &Case,
    is_repetitive: bool,
    random: &mut Random,
) -> anyhow::Result<Vec<Vec<TokenId>>> {
    let tokenizer = model.tokenizer();
    let n_vocab = tokenizer.n_vocab();
    if (0..n_vocab as TokenId).all(|token| tokenizer.token_kind(token) != TokenKind::Normal) {
        bail!("the model's vocabulary has no token of plain text");
    }
    let mut token = || loop {
        let token = random.below(n_vocab) as TokenId;
        if tokenizer.token_kind(token) == TokenKind::Normal {
            break token;
        }
    };
    let n_tokens = case.depth + case.prompt;
    let period = if is_repetitive { PERIOD.min(n_tokens) } else { n_tokens };
    let mut prompt = || {
        let piece: Vec<TokenId> = (0..period).map(|_| token()).collect();
        piece.into_iter().cycle().take(n_tokens).collect()
    };
    Ok((0..case.parallel).map(|_| prompt()).collect())
}

/// Waits until what the last run left in the cache is gone, as far as it goes.
fn settle(model: &TextModel) {
    let begun = Instant::now();
    while model.stats().occupancy.cells_cached > 0 && begun.elapsed() < SETTLES {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs all prompts at once; when each token of each answer arrived, or `None` when it was stopped.
fn answers(
    bench: &Bench<'_>,
    model: &TextModel,
    prompts: Vec<Vec<TokenId>>,
    max_tokens: usize,
) -> anyhow::Result<Option<Vec<Vec<Instant>>>> {
    let request = |prompt| GenerationRequest {
        prompt,
        sampling: SamplingParams::greedy(),
        max_tokens: Some(max_tokens),
        end_of_generation: EndOfGeneration::Ignored,
        ..GenerationRequest::default()
    };
    let generations = model.submit_all(prompts.into_iter().map(request).collect())?;
    let mut arrivals: Vec<Vec<Instant>> = vec![Vec::with_capacity(max_tokens); generations.len()];
    let streams = generations.into_iter().enumerate().map(|(idx, stream)| stream.map(move |event| (idx, event)));
    let mut events = select_all(streams);
    let reading = async {
        while let Some((idx, event)) = events.next().await {
            if let GenerationEvent::Piece(piece) = event? {
                let now = Instant::now();
                arrivals[idx].extend(piece.tokens.iter().map(|_| now));
            }
        }
        anyhow::Ok(arrivals)
    };
    bench.wait(reading).transpose()
}

/// Tokens a second while every sequence is generating.
fn steady_rate(arrivals: &[Vec<Instant>]) -> anyhow::Result<f64> {
    if arrivals.iter().any(Vec::is_empty) {
        bail!("an answer had no token");
    }
    let begun = arrivals.iter().filter_map(|one| one.first()).max();
    let ended = arrivals.iter().filter_map(|one| one.last()).min();
    let (begun, ended) = begun.zip(ended).ok_or_else(|| anyhow!("there are no answers"))?;
    let n_tokens = arrivals.iter().flatten().filter(|&at| at > begun && at <= ended).count();
    if n_tokens == 0 {
        bail!("the answers are too short: no time in which every sequence was generating; raise --answer");
    }
    Ok(n_tokens as f64 / (*ended - *begun).as_secs_f64())
}

fn figures(samples: &[Sample], row: &mut Row) {
    let of = |value: &dyn Fn(&Sample) -> Option<f64>| samples.iter().filter_map(value).collect::<Vec<_>>();
    let gap = |q: f64| of(&|sample| Some(stats::quantile(&sample.gaps_ms, q)));
    let ratio = of(&|sample| Some(sample.decode? / sample.bare?));
    let all = [
        Metric::new("prefill", "tok/s", Better::Higher, of(&|sample| Some(sample.prefill))),
        Metric::new("first token", "ms", Better::Lower, of(&|sample| Some(sample.first_ms))),
        Metric::new("decode", "tok/s", Better::Higher, of(&|sample| sample.decode)),
        Metric::new("gap p50", "ms", Better::Lower, gap(0.5)).map(Metric::in_files),
        Metric::new("gap p99", "ms", Better::Lower, gap(0.99)),
        Metric::new("bare decode", "tok/s", Better::Higher, of(&|sample| sample.bare)),
        Metric::new("engine / bare", "", Better::Higher, ratio),
        Metric::new("guesses right", "%", Better::Neither, of(&|sample| sample.guessed)),
        Metric::new("energy", "J/tok", Better::Lower, of(&|sample| sample.joules_per_token)),
    ];
    row.metrics.extend(all.into_iter().flatten());
    let gaps: Vec<f64> = samples.iter().flat_map(|sample| sample.gaps_ms.iter().copied()).collect();
    row.curves.extend(Curve::of("gap between tokens", "ms", &gaps));
}

/// The share of memory bandwidth that decoding uses: weights once a step, and what the sequences hold at the middle of
/// their answers.
fn roofline(loaded: &Loaded, model: &TextModel, case: &Case, (samples, bandwidth): (&[Sample], f64), row: &mut Row) {
    let memory = &loaded.engine.memory;
    let cell_bytes = memory.cache_bytes as f64 / model.limits().n_cells as f64;
    let n_held = case.parallel * (case.depth + case.prompt + case.answer / 2);
    let step_bytes = memory.weight_bytes as f64 + n_held as f64 * cell_bytes;
    let share = |sample: &Sample| Some(100.0 * sample.decode? / case.parallel as f64 * step_bytes / bandwidth);
    let shares = samples.iter().filter_map(share).collect();
    row.metrics.extend(Metric::new("roofline", "%", Better::Higher, shares));
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::steady_rate;

    #[test]
    fn only_the_time_in_which_all_generate_counts() {
        let start = Instant::now();
        let at =
            |range: std::ops::Range<u64>| range.map(|n| start + Duration::from_millis(100 * n)).collect::<Vec<_>>();
        // Both generate from 0.5 s to 1.0 s: five tokens each.
        let rate = steady_rate(&[at(0..11), at(5..21)]).unwrap();
        assert!((rate - 20.0).abs() < 1e-9, "{rate}");
        assert!(steady_rate(&[at(0..3), at(5..9)]).is_err(), "never together");
        assert!(steady_rate(&[at(0..3), Vec::new()]).is_err());
    }
}
