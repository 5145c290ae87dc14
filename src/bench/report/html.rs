//! A report as one HTML file with plots; it refers to nothing outside.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::svg::{self, Bar, Line, escape};
use super::{Report, word};

/// Labels that count what runs at the same time.
const CONCURRENCY: [&str; 3] = ["parallel", "clients", "rate"];
/// The figure that is a share of what memory could deliver.
pub(crate) const ROOFLINE: &str = "roofline";

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;font-size:13px}td,th{border:1px solid #8886;padding:.2rem .5rem;text-align:right}\
th{text-align:left}svg{max-width:44rem;display:block}svg text{font:11px system-ui,sans-serif;fill:currentColor}\
.legend{list-style:none;padding:0;font-size:12px}.legend li::before{content:'';display:inline-block;width:1rem;\
height:.3rem;margin-right:.5rem;background:var(--c)}.wide{overflow-x:auto}:root{color-scheme:light dark}";

/// The whole file.
pub(crate) fn to_html(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>ingle bench {kind}</title><style>{STYLE}</style>\
         <h1>ingle bench {kind}</h1><p>{}, {}<br>{}<br><code>ingle {}</code></p>",
        escape(&report.program),
        escape(&report.made_at),
        escape(&report.host.line()),
        escape(&report.arguments.join(" ")),
        kind = escape(&report.kind),
    );
    subjects(report, &mut page);
    concurrency(report, &mut page);
    distributions(report, &mut page);
    roofline(report, &mut page);
    page.push_str("<h2>All figures</h2>");
    table(report, &mut page);
    for note in &report.notes {
        // Writing to a string cannot fail.
        let _ = write!(page, "<p>{}</p>", escape(note));
    }
    if !report.is_complete {
        page.push_str("<p><strong>Not complete: only what was done before the end or a failure is here.</strong></p>");
    }
    page.push_str("</html>\n");
    page
}

fn subjects(report: &Report, page: &mut String) {
    page.push_str("<ul>");
    for subject in &report.subjects {
        let facts: Vec<_> = subject.facts.iter().map(|(name, value)| format!("{name} {}", word(value))).collect();
        let _ = write!(page, "<li><b>{}</b>: {}</li>", escape(&subject.name), escape(&facts.join(", ")));
    }
    page.push_str("</ul>");
}

/// Throughput against what runs at the same time, a line for each of the other cases.
fn concurrency(report: &Report, page: &mut String) {
    let telling = report.telling_labels();
    for axis in CONCURRENCY.into_iter().filter(|axis| telling.iter().any(|label| label == axis)) {
        let others: Vec<String> = telling.iter().filter(|label| *label != axis).cloned().collect();
        for (name, unit) in report.figures(|metric| metric.unit == "tok/s" || metric.unit == "items/s") {
            let mut lines: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
            for row in &report.rows {
                // Ratios have the names of what they compare, but another unit.
                let metric = row.metric(&name).filter(|metric| metric.unit == unit);
                let point = row.case.get(axis).and_then(serde_json::Value::as_f64).zip(metric);
                if let Some((x, metric)) = point {
                    lines.entry(row.label(&others)).or_default().push((x, metric.median));
                }
            }
            let lines: Vec<Line> = lines.into_iter().map(in_order).collect();
            let chart = svg::lines(axis, &format!("{name}, {unit}"), &lines);
            let _ = write!(page, "<h2>{} against {axis}</h2>{chart}", escape(&name));
        }
    }
}

fn in_order((name, mut points): (String, Vec<(f64, f64)>)) -> Line {
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Line { name, points }
}

/// The share of events that took no longer, for each kind of event.
fn distributions(report: &Report, page: &mut String) {
    let telling = report.telling_labels();
    let mut charts: BTreeMap<(String, String), Vec<Line>> = BTreeMap::new();
    for row in &report.rows {
        for curve in &row.curves {
            let points = curve.points.iter().map(|&(q, value)| (value, 100.0 * q)).collect();
            let line = Line { name: row.label(&telling), points };
            charts.entry((curve.name.clone(), curve.unit.clone())).or_default().push(line);
        }
    }
    for ((name, unit), lines) in charts {
        let chart = svg::lines(&format!("{name}, {unit}"), "% that took no longer", &lines);
        let _ = write!(page, "<h2>Distribution of {}</h2>{chart}", escape(&name));
    }
}

/// What each case gets of the memory's bandwidth.
fn roofline(report: &Report, page: &mut String) {
    let telling = report.telling_labels();
    let bar = |row: &super::Row| {
        let value = row.metric(ROOFLINE)?.median;
        Some(Bar { name: row.label(&telling), value })
    };
    let bars: Vec<Bar> = report.rows.iter().filter_map(bar).collect();
    if !bars.is_empty() {
        let chart = svg::bars("% of the measured memory bandwidth while decoding", 100.0, &bars);
        let _ = write!(page, "<h2>Roofline</h2>{chart}");
    }
}

fn table(report: &Report, page: &mut String) {
    let (labels, figures) = (report.labels(), report.figures(|_| true));
    page.push_str("<div class=\"wide\"><table><tr>");
    for label in &labels {
        let _ = write!(page, "<th>{}</th>", escape(label));
    }
    for (name, unit) in &figures {
        let _ = write!(page, "<th>{}<br>{}</th>", escape(name), escape(unit));
    }
    for row in &report.rows {
        page.push_str("</tr><tr>");
        for label in &labels {
            let _ = write!(page, "<th>{}</th>", escape(&row.case.get(label).map_or_else(String::new, word)));
        }
        for (name, _) in &figures {
            let text = row.metric(name).map_or_else(String::new, super::Metric::text);
            let _ = write!(page, "<td>{}</td>", escape(&text));
        }
    }
    page.push_str("</tr></table></div>");
}
