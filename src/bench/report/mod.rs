//! What was measured, in a form that every kind of measurement shares.

mod csv_file;
mod host;
mod html;
mod markdown;
mod svg;
mod terminal;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::stats::{self, Spread};
use crate::output;

pub(crate) use csv_file::to_csv;
pub(crate) use host::Host;
pub(crate) use html::to_html;
pub(crate) use markdown::to_markdown;
pub(crate) use terminal::to_text;

/// Version of the form; a reader refuses later ones.
pub(crate) const FORMAT: u32 = 1;

/// One run of `ingle bench`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) format: u32,
    /// `offline`, `serve` or `quality`.
    pub(crate) kind: String,
    /// When it ended, in UTC.
    pub(crate) made_at: String,
    /// The program's version and the commit it was built from.
    pub(crate) program: String,
    /// The command's arguments.
    pub(crate) arguments: Vec<String>,
    pub(crate) host: Host,
    /// Models and servers that were measured.
    pub(crate) subjects: Vec<Subject>,
    pub(crate) rows: Vec<Row>,
    /// What a reader should know.
    pub(crate) notes: Vec<String>,
    /// False when the run was stopped before its end, or a part of it failed.
    pub(crate) is_complete: bool,
    /// The first failure: the report is delivered all the same, and the program ends with it.
    #[serde(skip)]
    pub(crate) failure: Option<anyhow::Error>,
}

/// A model or a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Subject {
    pub(crate) name: String,
    /// Facts such as the file, its size and hash, or the address.
    pub(crate) facts: Map<String, Value>,
}

/// One case and what came out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What tells this case from the others.
    pub(crate) case: Map<String, Value>,
    pub(crate) metrics: Vec<Metric>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) curves: Vec<Curve>,
}

/// Which direction is an improvement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Higher,
    Lower,
    /// It only describes the case.
    Neither,
}

/// Where a figure is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shown {
    /// On the terminal too.
    Always,
    /// In files only.
    InFiles,
}

/// A figure with its samples.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) better: Better,
    pub(crate) shown: Shown,
    /// The middle of the samples; `low` and `high` bound it with a probability of 95 %, or are the range of few samples.
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) samples: Vec<f64>,
}

/// The distribution of single events, by quantiles.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) unit: String,
    /// Quantile from 0 to 1, and the value there.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Metric {
    /// A figure; samples that are no numbers are left out. `None` without a sample.
    pub(crate) fn new(name: &str, unit: &str, better: Better, samples: Vec<f64>) -> Option<Self> {
        let samples: Vec<f64> = samples.into_iter().filter(|sample| sample.is_finite()).collect();
        if samples.is_empty() {
            return None;
        }
        let spread = stats::spread(&samples);
        Some(Self::with_spread(name, unit, better, samples, spread))
    }

    /// A figure whose interval was found otherwise.
    pub(crate) fn with_spread(name: &str, unit: &str, better: Better, samples: Vec<f64>, spread: Spread) -> Self {
        let Spread { median, low, high } = spread;
        Self { name: name.into(), unit: unit.into(), better, shown: Shown::Always, median, low, high, samples }
    }

    /// The same figure, for files only.
    pub(crate) fn in_files(self) -> Self {
        Self { shown: Shown::InFiles, ..self }
    }

    /// The median with half of its interval, as people write it.
    pub(crate) fn text(&self) -> String {
        let half = (self.high - self.low) / 2.0;
        let median = number(self.median);
        if self.samples.len() < 2 || half <= 0.0 { median } else { format!("{median} ± {}", number(half)) }
    }
}

impl Curve {
    /// The distribution of `values`; `None` for none.
    pub(crate) fn of(name: &str, unit: &str, values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |percent: u32| {
            let q = f64::from(percent) / 100.0;
            (q, stats::quantile_of_sorted(&sorted, q))
        };
        let points = (0..=100).map(at).collect();
        (!sorted.is_empty()).then(|| Self { name: name.into(), unit: unit.into(), points })
    }
}

impl Row {
    /// A row without figures.
    pub(crate) fn new(case: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let case = case.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { case, ..Self::default() }
    }

    pub(crate) fn metric(&self, name: &str) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.name == name)
    }

    /// The case in one line, of the labels that `names` lists.
    pub(crate) fn label(&self, names: &[String]) -> String {
        let shown = names.iter().filter_map(|name| Some(format!("{name} {}", word(self.case.get(name)?))));
        shown.collect::<Vec<_>>().join(", ")
    }
}

impl Report {
    /// An empty report of this machine and program.
    pub(crate) fn new(kind: &str) -> Self {
        Self {
            format: FORMAT,
            kind: kind.into(),
            made_at: chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string(),
            program: program(),
            arguments: std::env::args().skip(1).collect(),
            host: Host::detect(),
            subjects: Vec::new(),
            rows: Vec::new(),
            notes: Vec::new(),
            is_complete: true,
            failure: None,
        }
    }

    /// Notes that `what` could not be measured; what was measured before stays.
    pub(crate) fn fail(&mut self, what: &str, error: anyhow::Error) {
        self.is_complete = false;
        self.notes.push(format!("{what} was not measured: {}", output::sentence(&error)));
        self.failure.get_or_insert(error);
    }

    /// The report; the first failure, or `nothing`, when not a single case was measured.
    pub(crate) fn checked(mut self, nothing: &str) -> anyhow::Result<Self> {
        match self.failure.take_if(|_| self.rows.is_empty()) {
            Some(failure) => Err(failure),
            None if self.rows.is_empty() => Err(anyhow::anyhow!("{nothing}")),
            None => Ok(self),
        }
    }

    /// Labels of the cases in the order in which they first occur.
    pub(crate) fn labels(&self) -> Vec<String> {
        first_seen(self.rows.iter().flat_map(|row| row.case.keys()))
    }

    /// Labels that differ between rows; all of them when there is one row.
    pub(crate) fn telling_labels(&self) -> Vec<String> {
        let differs = |name: &String| self.rows.iter().any(|row| row.case.get(name) != self.rows[0].case.get(name));
        let labels = self.labels();
        if self.rows.len() < 2 { labels } else { labels.into_iter().filter(differs).collect() }
    }

    /// Names of the figures with their units, in the order in which they first occur. Ratios stand in the column of what
    /// they compare.
    pub(crate) fn figures(&self, shown: impl Fn(&Metric) -> bool) -> Vec<(String, String)> {
        let mut figures: Vec<(String, String)> = Vec::new();
        for metric in self.rows.iter().flat_map(|row| &row.metrics).filter(|metric| shown(metric)) {
            if figures.iter().all(|(name, _)| *name != metric.name) {
                figures.push((metric.name.clone(), metric.unit.clone()));
            }
        }
        figures
    }
}

fn first_seen<'a, T: Clone + PartialEq + 'a>(items: impl Iterator<Item = &'a T>) -> Vec<T> {
    let mut seen: Vec<T> = Vec::new();
    for item in items {
        if !seen.contains(item) {
            seen.push(item.clone());
        }
    }
    seen
}

/// The program's name, version and commit.
fn program() -> String {
    let commit = option_env!("INGLE_COMMIT").map_or_else(String::new, |commit| format!(" ({commit})"));
    format!("ingle {}{commit}", env!("CARGO_PKG_VERSION"))
}

/// A value of a case without quotation marks.
pub(crate) fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A number with three or four digits that matter.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
