//! `ingle bench compare`: what changed between two reports beyond the noise.

use super::report::{Better, Metric, Report, number};
use super::stats::{self, Spread};
use crate::output;

/// Smaller changes are not worth a word, however certain they are.
const LEAST_CHANGE: f64 = 0.01;

/// What became of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Better,
    Worse,
    /// It is another number, which is neither good nor bad.
    Different,
    /// The interval of the ratio holds 1, or the change is tiny.
    Noise,
    /// A sample of one has no noise to compare with.
    Unknown,
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Different => "different",
            Self::Noise => "same",
            Self::Unknown => "one sample",
        }
    }
}

/// A table of all cases that both reports have.
pub(crate) fn to_text(before: &Report, after: &Report) -> String {
    let labels = after.labels();
    let (mut rows, mut n_alone) = (Vec::new(), 0);
    for row in &after.rows {
        let Some(old) = before.rows.iter().find(|old| old.case == row.case) else {
            n_alone += 1;
            continue;
        };
        for metric in &row.metrics {
            if let Some(old) = old.metric(&metric.name) {
                rows.push(line(row.label(&labels), old, metric));
            }
        }
    }
    n_alone += before.rows.iter().filter(|old| after.rows.iter().all(|row| row.case != old.case)).count();
    let mut text =
        format!("before: {}, {}\nafter:  {}, {}\n", before.program, before.made_at, after.program, after.made_at);
    if before.host.cpu != after.host.cpu || before.host.gpus != after.host.gpus {
        text.push_str("the reports are of different machines\n");
    }
    if before.subjects.iter().map(|one| &one.facts).ne(after.subjects.iter().map(|one| &one.facts)) {
        text.push_str("the reports are of different models or servers\n");
    }
    text.push_str(&format!(
        "\n{}",
        output::table(&["CASE", "FIGURE", "BEFORE", "AFTER", "RATIO (95 %)", "CHANGE"], &rows)
    ));
    if n_alone > 0 {
        text.push_str(&format!("\n{n_alone} cases are in one of the reports only\n"));
    }
    text
}

fn line(case: String, before: &Metric, after: &Metric) -> Vec<String> {
    let ratio = stats::ratio_spread(&after.samples, &before.samples);
    let interval = format!("{:.3} ({:.3} to {:.3})", ratio.median, ratio.low, ratio.high);
    let figure = if after.unit.is_empty() { after.name.clone() } else { format!("{} {}", after.name, after.unit) };
    let change = change(before, after, ratio).word().to_owned();
    vec![case, figure, number(before.median), number(after.median), interval, change]
}

fn change(before: &Metric, after: &Metric, ratio: Spread) -> Change {
    if before.samples.len() < 2 || after.samples.len() < 2 {
        return Change::Unknown;
    }
    if (ratio.low <= 1.0 && ratio.high >= 1.0) || (ratio.median - 1.0).abs() < LEAST_CHANGE {
        return Change::Noise;
    }
    match (after.better, ratio.median > 1.0) {
        (Better::Higher, true) | (Better::Lower, false) => Change::Better,
        (Better::Higher, false) | (Better::Lower, true) => Change::Worse,
        (Better::Neither, _) => Change::Different,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::to_text;
    use crate::bench::report::{Better, Metric, Report, Row};

    fn report(decode: &[f64], latency: &[f64]) -> Report {
        let mut row = Row::new([("clients", json!(1))]);
        row.metrics.extend(Metric::new("decode", "tok/s", Better::Higher, decode.to_vec()));
        row.metrics.extend(Metric::new("ttft", "ms", Better::Lower, latency.to_vec()));
        Report { rows: vec![row], ..Report::new("offline") }
    }

    #[test]
    fn changes_beyond_the_noise_are_told_from_others() {
        let before = report(&[10.0, 10.1, 9.9, 10.0, 10.05], &[5.0, 5.1, 4.9, 5.2, 4.8]);
        let after = report(&[12.0, 12.1, 11.9, 12.0, 12.05], &[5.05, 5.1, 4.95, 5.15, 4.85]);
        let text = to_text(&before, &after);
        let word_of = |figure: &str| {
            let line = text.lines().find(|line| line.contains(figure)).unwrap();
            line.split_whitespace().last().unwrap().to_owned()
        };
        assert_eq!((word_of("decode").as_str(), word_of("ttft").as_str()), ("better", "same"), "{text}");
        let back = to_text(&after, &before);
        assert!(back.lines().any(|line| line.contains("decode") && line.ends_with("worse")), "{back}");
    }

    #[test]
    fn one_sample_says_nothing_and_lonely_cases_are_counted() {
        let one = report(&[10.0], &[5.0]);
        assert!(to_text(&one, &report(&[20.0], &[1.0])).contains("one sample"));
        let mut other = report(&[1.0], &[1.0]);
        other.rows[0] = Row::new([("clients", json!(2))]);
        assert!(to_text(&one, &other).contains("2 cases are in one of the reports only"));
    }
}
