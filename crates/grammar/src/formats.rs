//! Formats that llguidance takes too widely are narrowed, so that nothing invalid can be said.
//!
//! Its expressions let every second be 60 and every February have 29 days, and do not count the letters of a host name.
//! Narrowing loses a few valid strings (leap seconds), which a grammar may; letting invalid ones pass it may not.

use serde_json::{Map, Value, json};

use crate::expressions;

/// A date whose 29th of February lies in a leap year; the format itself looks at everything else.
const DATE: &str = "[0-9]{4}-(0[13-9]|1[0-2])-[0-9]{2}|[0-9]{4}-02-([01][0-9]|2[0-8])|([0-9]{2}(0[48]|[2468][048]|\
                    [13579][26])|([02468][048]|[13579][26])00)-02-29";
/// A time that is no leap second.
const TIME: &str = "[0-9]{2}:[0-9]{2}:[0-5]";
/// Letters of a host name (RFC 1123).
const HOSTNAME_LENGTH: u64 = 253;

/// Deepest nesting of schemas.
pub(crate) const MAX_DEPTH: usize = 200;

/// Keywords whose value is a schema, or a list of schemas.
pub(crate) const INNER: [&str; 16] = [
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "oneOf",
    "prefixItems",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
];
/// Keywords whose value has schemas by name.
pub(crate) const NAMED: [&str; 5] = ["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];

/// Narrows the formats in `schema` and in all schemas inside.
///
/// # Errors
/// Says so when schemas are nested too deeply, or a pattern is too large.
pub(crate) fn narrow(schema: &mut Value, depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("schemas are nested more than {MAX_DEPTH} deep"));
    }
    let Some(object) = schema.as_object_mut() else { return Ok(()) };
    for (keyword, value) in object.iter_mut() {
        match (keyword.as_str(), &*value) {
            ("pattern", Value::String(pattern)) => expressions::check(pattern)?,
            ("patternProperties", Value::Object(patterns)) => {
                patterns.keys().try_for_each(|pattern| expressions::check(pattern))?;
            }
            _ => {}
        }
        match value {
            Value::Array(schemas) if INNER.contains(&keyword.as_str()) => {
                schemas.iter_mut().try_for_each(|schema| narrow(schema, depth + 1))?;
            }
            schema if INNER.contains(&keyword.as_str()) => narrow(schema, depth + 1)?,
            Value::Object(schemas) if NAMED.contains(&keyword.as_str()) => {
                schemas.values_mut().try_for_each(|schema| narrow(schema, depth + 1))?;
            }
            _ => {}
        }
    }
    match object.get("format").and_then(Value::as_str) {
        Some("date") => and(object, json!({"pattern": format!("^({DATE})$")})),
        Some("time") => and(object, json!({"pattern": format!("^{TIME}")})),
        Some("date-time") => and(object, json!({"pattern": format!("^({DATE})[Tt]{TIME}")})),
        Some("hostname") => and(object, json!({"maxLength": HOSTNAME_LENGTH})),
        Some(_) | None => {}
    }
    Ok(())
}

/// `object` and `other` both.
fn and(object: &mut Map<String, Value>, other: Value) {
    // Anything else is no valid schema, and is refused for that.
    if let Value::Array(all) = object.entry("allOf").or_insert_with(|| json!([])) {
        all.push(other);
    }
}
