//! What becomes of a report in each form.

use serde_json::{Value, json};

use super::*;

fn report() -> Report {
    let row = |clients: u64, speed: [f64; 3]| {
        let mut row = Row::new([("model", json!("a|<b>")), ("clients", json!(clients))]);
        row.metrics.extend(Metric::new("decode", "tok/s", Better::Higher, speed.to_vec()));
        row.metrics.extend(Metric::new("roofline", "%", Better::Higher, vec![20.0]).map(Metric::in_files));
        row.curves.extend(Curve::of("ttft", "ms", &speed));
        row
    };
    let host = Host::detect();
    Report { rows: vec![row(1, [10.0, 11.0, 12.0]), row(8, [30.0, 31.0, 29.0])], host, ..Report::new("offline") }
}

#[test]
fn json_gives_the_same_report_again() {
    let text = serde_json::to_string(&report()).unwrap();
    let again: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), text);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["rows"][1]["metrics"][0]["median"], 30.0);
    assert_eq!(value["rows"][0]["case"]["clients"], 1);
}

#[test]
fn the_terminal_shows_what_matters_and_files_show_all() {
    let report = report();
    let text = to_text(&report);
    assert!(text.contains("decode tok/s") && !text.contains("roofline"), "{text}");
    let csv = to_csv(&report).unwrap();
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 4);
    assert_eq!((&rows[2][1], &rows[2][2], &rows[2][8]), ("8", "decode", "30 31 29"));
    let markdown = to_markdown(&report);
    assert!(markdown.contains("| a\\|<b> | 8 | 30.00"), "{markdown}");
}

#[test]
fn html_has_the_plots_and_no_foreign_parts() {
    let page = to_html(&report());
    for part in ["decode against clients", "Distribution of ttft", "Roofline", "<polyline", "a|&lt;b&gt;"] {
        assert!(page.contains(part), "{part} is missing");
    }
    for foreign in ["<script", "src=", "href=", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
}

#[test]
fn ratios_are_in_no_plot_of_rates() {
    let mut report = report();
    let mut ratios = Row::new([("clients", json!(8)), ("server", json!("A / B"))]);
    ratios.metrics.extend(Metric::new("decode", "", Better::Higher, vec![1.5, 1.6]));
    report.rows.push(ratios);
    let page = to_html(&report);
    let plot = &page[page.find("decode against clients").unwrap()..page.find("Distribution of").unwrap()];
    assert!(plot.contains("<polyline") && !plot.contains("A / B"), "{plot}");
    assert!(page.contains("<th>A / B</th>"), "the table has them");
}

#[test]
fn a_failure_keeps_what_was_measured() {
    let mut half = report();
    half.fail("case 3", anyhow::anyhow!("the model is gone"));
    half.fail("case 4", anyhow::anyhow!("the model is still gone"));
    let half = half.checked("nothing").unwrap();
    assert_eq!((half.rows.len(), half.is_complete), (2, false));
    assert!(to_text(&half).contains("case 3 was not measured: the model is gone"));
    assert_eq!(half.failure.as_ref().unwrap().to_string(), "the model is gone");
    let mut none = Report { rows: Vec::new(), ..half };
    assert_eq!(none.failure.take().unwrap().to_string(), "the model is gone");
    assert_eq!(none.checked("nothing").unwrap_err().to_string(), "nothing");
}

#[test]
fn a_figure_without_a_number_is_left_out() {
    assert!(Metric::new("x", "", Better::Lower, vec![f64::NAN]).is_none());
    assert_eq!(Metric::new("x", "", Better::Lower, vec![f64::INFINITY, 2.0]).unwrap().text(), "2.000");
}
