//! A report as CSV: a line for each figure of each case.

use anyhow::Context;

use super::{Better, Report, word};

/// The columns are the labels of the cases, then the figure with its samples.
pub(crate) fn to_csv(report: &Report) -> anyhow::Result<String> {
    let labels = report.labels();
    let mut writer = csv::Writer::from_writer(Vec::new());
    let figure = ["metric", "unit", "better", "median", "low", "high", "samples"];
    writer.write_record(labels.iter().map(String::as_str).chain(figure))?;
    for row in &report.rows {
        for metric in &row.metrics {
            let case = labels.iter().map(|label| row.case.get(label).map_or_else(String::new, word));
            let samples: Vec<String> = metric.samples.iter().map(ToString::to_string).collect();
            let better = match metric.better {
                Better::Higher => "higher",
                Better::Lower => "lower",
                Better::Neither => "",
            };
            let values = [
                metric.name.clone(),
                metric.unit.clone(),
                better.to_owned(),
                metric.median.to_string(),
                metric.low.to_string(),
                metric.high.to_string(),
                samples.join(" "),
            ];
            writer.write_record(case.chain(values))?;
        }
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error()).context("the table cannot be written")?;
    Ok(String::from_utf8(bytes)?)
}
