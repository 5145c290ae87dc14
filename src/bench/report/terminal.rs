//! A report as a table on the terminal.

use std::fmt::Write as _;

use super::{Report, Shown, word};
use crate::output;

/// Host, table and notes.
pub(crate) fn to_text(report: &Report) -> String {
    let mut text = format!("{}, {}\n{}\n", report.program, report.made_at, report.host.line());
    // Writing to a string cannot fail.
    for subject in &report.subjects {
        let facts: Vec<_> = subject.facts.iter().map(|(name, value)| format!("{name} {}", word(value))).collect();
        let _ = writeln!(text, "{}: {}", subject.name, facts.join(", "));
    }
    if !report.rows.is_empty() {
        text.push('\n');
        text.push_str(&table(report));
    }
    for note in &report.notes {
        let _ = write!(text, "\n{note}\n");
    }
    if !report.is_complete {
        text.push_str("\nnot complete: only what was done before the end or a failure is here\n");
    }
    text
}

fn table(report: &Report) -> String {
    let (labels, figures) = (report.labels(), report.figures(|metric| metric.shown == Shown::Always));
    let heading =
        |(name, unit): &(String, String)| if unit.is_empty() { name.clone() } else { format!("{name} {unit}") };
    let headings: Vec<String> = labels.iter().cloned().chain(figures.iter().map(heading)).collect();
    let rows: Vec<Vec<String>> = (report.rows.iter())
        .map(|row| {
            let case = labels.iter().map(|label| row.case.get(label).map_or_else(String::new, word));
            let values =
                figures.iter().map(|(name, _)| row.metric(name).map_or_else(|| "-".into(), |found| found.text()));
            case.chain(values).collect()
        })
        .collect();
    output::table(&headings.iter().map(String::as_str).collect::<Vec<_>>(), &rows)
}
