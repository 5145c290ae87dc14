//! One row of the dry run `template render --jsonl`: exactly the row's JSON goes to the template.

use std::sync::Arc;

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use serde_json::Value as Json;

use crate::error::PromptError;
use crate::jinja::{self, Origin, Value};
use crate::template::error;
use crate::variables::measure;

/// Renders a row `{template, messages, tools, bos_token, eos_token, add_generation_prompt, now, …}`.
///
/// Every key but `template` and `now` becomes a template variable untouched, so that the result can be compared with a
/// reference. `now` is the time that `strftime_now` prints: `2025-01-02T03:04:05`, a date alone, or Unix seconds.
///
/// # Errors
/// [`PromptError::Input`] for a row of another shape, else what rendering says.
pub fn render_row(row: &Json) -> Result<String, PromptError> {
    let Json::Object(map) = row else { return Err(input("row", "a JSON object")) };
    let Some(Json::String(source)) = map.get("template") else { return Err(input("template", "a string")) };
    let now = map.get("now").filter(|now| !now.is_null()).map(time).transpose()?;
    let bytes = measure(row, "row")?;
    let body = jinja::parse(source)?;
    let variables = map.iter().filter(|(name, _)| !matches!(name.as_str(), "template" | "now"));
    let variables = variables.map(|(name, json)| (Arc::from(name.as_str()), Value::from_json(json, Origin::Client)));
    let text = jinja::render(&body, variables.collect(), now, bytes).map_err(error)?;
    Ok(text.as_str().to_owned())
}

fn input(field: &str, expected: &'static str) -> PromptError {
    PromptError::Input { field: field.to_owned(), expected }
}

fn time(now: &Json) -> Result<NaiveDateTime, PromptError> {
    let parsed = match now {
        Json::Number(seconds) => {
            seconds.as_f64().and_then(|seconds| DateTime::from_timestamp(seconds as i64, 0)).map(|at| at.naive_utc())
        }
        Json::String(text) => parse_time(text.trim()),
        _ => None,
    };
    parsed.ok_or_else(|| input("now", "a time like 2025-01-02T03:04:05, or Unix seconds"))
}

fn parse_time(text: &str) -> Option<NaiveDateTime> {
    if let Ok(zoned) = DateTime::parse_from_rfc3339(text) {
        return Some(zoned.naive_local());
    }
    let formats = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
    formats
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))
}
