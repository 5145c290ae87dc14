//! A report as Markdown, for notes and pull requests.

use std::fmt::Write as _;

use super::{Report, word};

/// Headings, a table of every figure, and the notes.
pub(crate) fn to_markdown(report: &Report) -> String {
    let mut text = format!("# ingle bench {}\n\n", report.kind);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}, {}  \n{}", report.program, report.made_at, report.host.line());
    let _ = writeln!(text, "\n`ingle {}`\n", report.arguments.join(" "));
    for subject in &report.subjects {
        let facts: Vec<_> = subject.facts.iter().map(|(name, value)| format!("{name} {}", word(value))).collect();
        let _ = writeln!(text, "- **{}**: {}", cell(&subject.name), cell(&facts.join(", ")));
    }
    let (labels, figures) = (report.labels(), report.figures(|_| true));
    let heading =
        |(name, unit): &(String, String)| if unit.is_empty() { name.clone() } else { format!("{name} ({unit})") };
    let headings: Vec<String> = labels.iter().cloned().chain(figures.iter().map(heading)).collect();
    let _ = writeln!(text, "\n| {} |", headings.join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(headings.len()));
    for row in &report.rows {
        let case = labels.iter().map(|label| row.case.get(label).map_or_else(String::new, |value| cell(&word(value))));
        let values = figures.iter().map(|(name, _)| row.metric(name).map_or_else(String::new, |found| found.text()));
        let _ = writeln!(text, "| {} |", case.chain(values).collect::<Vec<_>>().join(" | "));
    }
    for note in &report.notes {
        let _ = writeln!(text, "\n{note}");
    }
    if !report.is_complete {
        text.push_str("\nNot complete: only what was done before the end or a failure is here.\n");
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
