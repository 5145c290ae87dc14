//! The form that a request asks its answer to have, and what is said about it in headers.
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use ingle_api::openai::{FormReport, ResponseFormat, SamplingFields};
use ingle_runtime::{Compiled, GrammarSource, Strictness};
use serde_json::{Map, Value, json};

use crate::error::ApiError;

/// The form that goes first, and the parameter that asks for it.
pub(crate) type Asked = Option<(&'static str, GrammarSource)>;

/// Parameters that asked for another form and were not followed.
pub(crate) type Ignored = Vec<&'static str>;

const IGNORED: HeaderName = HeaderName::from_static("x-ingle-ignored");
const UNENFORCED: HeaderName = HeaderName::from_static("x-ingle-unenforced");

/// The form that goes first in LocalAI's order, and the parameters that ask for another one.
///
/// # Errors
/// Names a parameter that is no form.
pub(crate) fn asked_for(fields: &SamplingFields) -> Result<(Asked, Ignored), ApiError> {
    let lenient = |schema: &Value| schema_source(schema, Strictness::Lenient);
    let format = match &fields.response_format {
        Some(ResponseFormat::JsonObject { schema: None }) => Some(GrammarSource::JsonObject),
        Some(ResponseFormat::JsonObject { schema: Some(schema) }) => Some(lenient(schema)),
        Some(ResponseFormat::JsonSchema { schema, strict, .. }) => {
            let is_strict = *strict == Some(true);
            Some(schema_source(schema, if is_strict { Strictness::Strict } else { Strictness::Lenient }))
        }
        Some(ResponseFormat::Text) | None => None,
    };
    let text = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let functions = fields.grammar_json_functions.as_ref().map(of_functions).transpose()?;
    let asked = [
        ("response_format", format),
        ("json_schema", fields.json_schema.as_ref().map(lenient)),
        ("grammar_json_functions", functions),
        ("grammar", text(&fields.grammar).map(GrammarSource::Gbnf)),
        ("regex", text(&fields.regex).map(GrammarSource::Regex)),
        ("lark", text(&fields.lark).map(GrammarSource::Lark)),
    ];
    let mut asked = asked.into_iter().filter_map(|(param, source)| Some((param, source?)));
    let Some((param, source)) = asked.next() else { return Ok((None, Vec::new())) };
    let ignored = asked.filter(|(_, other)| *other != source).map(|(param, _)| param).collect();
    Ok((Some((param, source)), ignored))
}

/// What is left of the form where tools are on offer. A schema says what the answer is where none is called, so both are
/// followed; where one must be called, and for any other grammar, the tools go first.
pub(crate) fn beside_tools(asked: Asked, ignored: &mut Ignored, must_call: bool) -> Asked {
    let (param, source) = asked?;
    if !must_call && (param == "response_format" || param == "json_schema") {
        return Some((param, source));
    }
    ignored.insert(0, param);
    None
}

fn schema_source(schema: &Value, strictness: Strictness) -> GrammarSource {
    GrammarSource::JsonSchema { schema: schema.clone(), strictness }
}

/// LocalAI's list of functions: objects of which one is written, with every property and no other.
fn of_functions(functions: &Value) -> Result<GrammarSource, ApiError> {
    let param = "grammar_json_functions";
    let refused = |what: &str| ApiError::invalid_value(param, format!("`{param}` {what}"));
    let functions = functions.as_object().ok_or_else(|| refused("is no object; send {\"oneOf\": [...]}"))?;
    let list =
        ["oneOf", "anyOf"].iter().find_map(|key| functions.get(*key)?.as_array().filter(|list| !list.is_empty()));
    let list = list.ok_or_else(|| refused("has no list `oneOf` or `anyOf` of functions"))?;
    let mut schema = Map::new();
    let items: Vec<Value> =
        list.iter().map(closed).collect::<Option<_>>().ok_or_else(|| refused("lists something else than objects"))?;
    schema.insert("anyOf".into(), items.into());
    for key in ["$defs", "definitions"] {
        schema.extend(functions.get(key).map(|definitions| (key.to_owned(), definitions.clone())));
    }
    Ok(schema_source(&Value::Object(schema), Strictness::Lenient))
}

/// An object schema in which every property is required and no other allowed, unless it says otherwise.
fn closed(item: &Value) -> Option<Value> {
    let mut item = item.as_object()?.clone();
    let names: Vec<Value> = item.get("properties").and_then(Value::as_object)?.keys().map(|name| json!(name)).collect();
    item.entry("type").or_insert_with(|| json!("object"));
    item.entry("required").or_insert(names.into());
    item.entry("additionalProperties").or_insert(json!(false));
    Some(item.into())
}

/// What is known before the first byte: parameters that were not followed, keywords that cannot be enforced.
pub(crate) fn headers(ignored: &[&str], form: Option<&Arc<Compiled>>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, text: String| {
        // Header values are visible ASCII; a keyword may be anything.
        let visible: String = text.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect();
        headers.extend(HeaderValue::try_from(visible).ok().map(|value| (name, value)));
    };
    if !ignored.is_empty() {
        set(IGNORED, ignored.join(", "));
    }
    if let Some(form) = form.filter(|form| !form.unenforced().is_empty()) {
        set(UNENFORCED, form.unenforced().join("; "));
    }
    headers
}

/// `response` with these headers.
pub(crate) fn with_headers(mut response: Response, headers: HeaderMap) -> Response {
    response.headers_mut().extend(headers);
    response
}

/// Does a whole answer satisfy all of its schema? Said only where not every keyword could be enforced.
pub(crate) fn report(form: Option<&Arc<Compiled>>, answer: &str) -> Option<FormReport> {
    let form = form.filter(|form| !form.unenforced().is_empty())?;
    form.validate(answer).map(|schema_valid| FormReport { schema_valid })
}

/// As [`report`], of an answer with calls, names and arguments: each has a schema of its own.
pub(crate) fn report_with_calls<'c>(
    form: Option<&Arc<Compiled>>,
    answer: &str,
    calls: impl Iterator<Item = (&'c str, &'c str)>,
) -> Option<FormReport> {
    let checks = |form: &&Arc<Compiled>| !form.unenforced().is_empty();
    let calls: Vec<bool> = form
        .filter(checks)
        .map(|form| calls.filter_map(|(name, arguments)| form.validate_call(name, arguments)).collect())
        .unwrap_or_default();
    match calls.is_empty() {
        true => report(form, answer),
        false => Some(FormReport { schema_valid: calls.into_iter().all(|is_valid| is_valid) }),
    }
}

/// The report on several answers.
pub(crate) fn both(first: Option<FormReport>, second: Option<FormReport>) -> Option<FormReport> {
    match (first, second) {
        (Some(first), Some(second)) => Some(FormReport { schema_valid: first.schema_valid && second.schema_valid }),
        (first, second) => first.or(second),
    }
}
