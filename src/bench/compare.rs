//! `ingle bench compare`: what changed between two reports beyond the noise.

use super::report::{Better, Metric, Report, Row, number};
use super::stats::{self, Spread};
use crate::output;

/// Smaller changes are not worth a word, however certain they are; those of pairs are, which share their noise.
const LEAST_CHANGE: f64 = 0.01;

/// Fewer samples say nothing about noise: even apart, four and four are it with a probability of 3 %.
const LEAST_SAMPLES: usize = 5;

/// What became of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Better,
    Worse,
    /// It is another number, which is neither good nor bad.
    Different,
    /// The interval holds no change, or the change is tiny.
    Noise,
    /// There is no noise to compare with.
    Unknown,
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Different => "different",
            Self::Noise => "same",
            Self::Unknown => "unknown: too few samples",
        }
    }
}

/// How a figure moved.
#[derive(Debug, Clone, Copy)]
enum Moved {
    /// After divided by before, of samples that have nothing to do with each other.
    Ratio(Spread),
    /// After divided by before, of pairs.
    PairedRatio(Spread),
    /// After less before, of pairs.
    PairedDifference(Spread),
}

impl Moved {
    fn new(before: &Metric, after: &Metric, is_paired: bool) -> Self {
        let (old, new) = (&before.samples, &after.samples);
        if !is_paired || old.len() != new.len() {
            return Self::Ratio(stats::ratio_spread(new, old));
        }
        // Answers are right or wrong: their quotients mean nothing.
        if after.unit == "%" {
            return Self::PairedDifference(stats::difference_spread(new, old));
        }
        Self::PairedRatio(stats::spread(&new.iter().zip(old).map(|(new, old)| new / old).collect::<Vec<_>>()))
    }

    /// Up, down, or `None` when it may be noise.
    fn is_up(&self, before: &Metric, after: &Metric) -> Option<bool> {
        let (spread, same, least) = match self {
            Self::Ratio(spread) => (spread, 1.0, LEAST_CHANGE),
            Self::PairedRatio(spread) => (spread, 1.0, 0.0),
            Self::PairedDifference(spread) => (spread, 0.0, 0.0),
        };
        if [spread.low, spread.median, spread.high].iter().all(|value| value.is_finite()) {
            let is_noise = (spread.low <= same && spread.high >= same) || (spread.median - same).abs() < least;
            return (!is_noise).then_some(spread.median > same);
        }
        // Nothing is a multiple of 0, but it may still be apart.
        match (after.low > before.high, after.high < before.low) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            (false, false) => None,
        }
    }

    fn text(&self) -> String {
        let interval = |spread: &Spread| format!("{:.3} ({:.3} to {:.3})", spread.median, spread.low, spread.high);
        match self {
            Self::Ratio(spread) | Self::PairedRatio(spread) if !spread.median.is_finite() => "-".into(),
            Self::Ratio(spread) => interval(spread),
            Self::PairedRatio(spread) => format!("{}, pairs", interval(spread)),
            Self::PairedDifference(Spread { median, low, high }) => {
                format!("{median:+.2} ({low:+.2} to {high:+.2}) points, pairs")
            }
        }
    }
}

/// A table of all cases that both reports have.
pub(crate) fn to_text(before: &Report, after: &Report) -> String {
    let labels = after.labels();
    let is_paired = before.kind == "quality" && after.kind == "quality";
    let (mut rows, mut n_alone) = (Vec::new(), 0);
    for row in &after.rows {
        let Some(old) = partner(before, after, row) else {
            n_alone += 1;
            continue;
        };
        for metric in &row.metrics {
            if let Some(old) = old.metric(&metric.name) {
                rows.push(line(row.label(&labels), (old, metric), is_paired));
            }
        }
    }
    n_alone += before.rows.iter().filter(|old| partner(after, before, old).is_none()).count();
    let mut text =
        format!("before: {}, {}\nafter:  {}, {}\n", before.program, before.made_at, after.program, after.made_at);
    if before.host.cpu != after.host.cpu || before.host.gpus != after.host.gpus {
        text.push_str("the reports are of different machines\n");
    }
    if before.subjects.iter().map(|one| &one.facts).ne(after.subjects.iter().map(|one| &one.facts)) {
        text.push_str("the reports are of different models or servers\n");
    }
    let headings = ["CASE", "FIGURE", "BEFORE", "AFTER", "RATIO (INTERVAL)", "CHANGE"];
    text.push_str(&format!("\n{}", output::table(&headings, &rows)));
    text.push_str(&format!(
        "\nintervals are of 95 %; below {} samples they are the range of all quotients\n",
        stats::LEAST_FOR_INTERVAL
    ));
    if n_alone > 0 {
        text.push_str(&format!("\n{n_alone} cases are in one of the reports only\n"));
    }
    text
}

/// The row of `report` that `row`, which is of `other`, is compared with. Two reports of one model each are about those
/// models, whatever they are called: this is how a quantization is judged.
fn partner<'a>(report: &'a Report, other: &Report, row: &Row) -> Option<&'a Row> {
    let is_pair =
        report.kind == "quality" && other.kind == "quality" && report.rows.len() == 1 && other.rows.len() == 1;
    report.rows.iter().find(|old| is_pair || old.case == row.case)
}

fn line(case: String, (before, after): (&Metric, &Metric), is_paired: bool) -> Vec<String> {
    let moved = Moved::new(before, after, is_paired);
    let figure = if after.unit.is_empty() { after.name.clone() } else { format!("{} {}", after.name, after.unit) };
    let change = change(before, after, moved).word().to_owned();
    vec![case, figure, number(before.median), number(after.median), moved.text(), change]
}

fn change(before: &Metric, after: &Metric, moved: Moved) -> Change {
    if before.median == after.median {
        return Change::Noise;
    }
    if before.samples.len().min(after.samples.len()) < LEAST_SAMPLES {
        return Change::Unknown;
    }
    match (after.better, moved.is_up(before, after)) {
        (_, None) => Change::Noise,
        (Better::Higher, Some(true)) | (Better::Lower, Some(false)) => Change::Better,
        (Better::Higher, Some(false)) | (Better::Lower, Some(true)) => Change::Worse,
        (Better::Neither, Some(_)) => Change::Different,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::to_text;
    use crate::bench::report::{Better, Metric, Report, Row};
    use crate::bench::stats::Spread;

    fn of(kind: &str, metrics: Vec<Option<Metric>>) -> Report {
        let mut row = Row::new([("clients", json!(1))]);
        row.metrics.extend(metrics.into_iter().flatten());
        Report { rows: vec![row], ..Report::new(kind) }
    }

    fn report(decode: &[f64], latency: &[f64]) -> Report {
        let decode = Metric::new("decode", "tok/s", Better::Higher, decode.to_vec());
        of("offline", vec![decode, Metric::new("ttft", "ms", Better::Lower, latency.to_vec())])
    }

    /// What is said about a figure.
    fn word_of(figure: &str, text: &str) -> String {
        let line = text.lines().find(|line| line.contains(figure)).unwrap_or_else(|| panic!("{figure}: {text}"));
        line.rsplit("  ").next().unwrap().to_owned()
    }

    #[test]
    fn changes_beyond_the_noise_are_told_from_others() {
        let before = report(&[10.0, 10.1, 9.9, 10.0, 10.05], &[5.0, 5.1, 4.9, 5.2, 4.8]);
        let after = report(&[12.0, 12.1, 11.9, 12.0, 12.05], &[5.05, 5.1, 4.95, 5.15, 4.85]);
        let text = to_text(&before, &after);
        assert_eq!((word_of("decode", &text).as_str(), word_of("ttft", &text).as_str()), ("better", "same"), "{text}");
        let back = to_text(&after, &before);
        assert_eq!(word_of("decode", &back), "worse", "{back}");
    }

    #[test]
    fn few_samples_say_nothing_and_lonely_cases_are_counted() {
        let one = report(&[10.0], &[5.0]);
        let text = to_text(&one, &report(&[20.0], &[5.0]));
        assert_eq!(word_of("decode", &text), "unknown: too few samples", "{text}");
        assert_eq!(word_of("ttft", &text), "same", "{text}");
        let three = to_text(&report(&[1.0, 1.1, 1.0], &[1.0]), &report(&[9.0, 9.1, 9.0], &[1.0]));
        assert_eq!(word_of("decode", &three), "unknown: too few samples", "{three}");
        let mut other = report(&[1.0], &[1.0]);
        other.rows[0] = Row::new([("clients", json!(2))]);
        assert!(to_text(&one, &other).contains("2 cases are in one of the reports only"));
    }

    #[test]
    fn nothing_is_neither_better_nor_worse_than_nothing() {
        let failed = |samples: &[f64]| of("serve", vec![Metric::new("failed", "", Better::Lower, samples.to_vec())]);
        let (none, some) = (failed(&[0.0; 6]), failed(&[3.0, 4.0, 3.0, 5.0, 3.0, 3.0]));
        for (before, after, word) in [(&none, &none, "same"), (&none, &some, "worse"), (&some, &none, "better")] {
            let text = to_text(before, after);
            assert_eq!(word_of("failed", &text), word, "{text}");
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
        // Some runs without a failure on both sides: the quotients are no numbers, and the intervals overlap.
        let text = to_text(&failed(&[0.0, 0.0, 0.0, 0.0, 1.0, 2.0]), &failed(&[0.0, 0.0, 0.0, 1.0, 1.0, 2.0]));
        assert_eq!(word_of("failed", &text), "same", "{text}");
    }

    fn quality(perplexities: &[f64], right: &[f64]) -> Report {
        let perplexity = Metric::new("perplexity", "", Better::Lower, perplexities.to_vec());
        let mean = right.iter().sum::<f64>() / right.len() as f64;
        let spread = Spread { median: mean, low: mean - 20.0, high: mean + 20.0 };
        let accuracy = Metric::with_spread("accuracy", "%", Better::Higher, right.to_vec(), spread);
        of("quality", vec![perplexity, Some(accuracy)])
    }

    #[test]
    fn models_are_judged_by_the_same_pieces_and_questions() {
        // The pieces differ far more from each other than the models do.
        let pieces = [10.0, 80.0, 35.0, 22.0, 64.0, 120.0, 18.0];
        let right: Vec<f64> = (0..40).map(|idx| if idx % 3 == 0 { 0.0 } else { 100.0 }).collect();
        let before = quality(&pieces, &right);
        let same = to_text(&before, &before);
        assert_eq!(
            (word_of("perplexity", &same), word_of("accuracy", &same)),
            ("same".into(), "same".into()),
            "{same}"
        );
        let slightly: Vec<f64> = pieces.iter().map(|piece| piece * 1.005).collect();
        let fewer: Vec<f64> = (0..40).map(|idx| if idx % 3 == 0 || idx % 7 == 1 { 0.0 } else { 100.0 }).collect();
        let mut after = quality(&slightly, &fewer);
        // Another quantization of the model has another name.
        after.rows[0].case = Row::new([("clients", json!(2))]).case;
        let text = to_text(&before, &after);
        assert_eq!(
            (word_of("perplexity", &text), word_of("accuracy", &text)),
            ("worse".into(), "worse".into()),
            "{text}"
        );
        let unpaired = to_text(&before, &quality(&slightly[..6], &right[..39]));
        assert_eq!(word_of("perplexity", &unpaired), "same", "{unpaired}");
    }
}
