//! Which fields of a form leave silence out: `vad_filter`, and OpenAI's `chunking_strategy`.
use ingle_runtime::{VoiceFilter, VoiceFilterOptions};
use serde_json::{Map, Value};

use super::form::AudioForm;
use crate::error::ApiError;

const STRATEGY: &str = "chunking_strategy";

/// What the form asks for; `vad_filter` goes before OpenAI's field.
///
/// # Errors
/// When a value is none of those that are known.
pub(super) fn voice_filter(form: &AudioForm) -> Result<VoiceFilter, ApiError> {
    let asked = strategy(form)?;
    Ok(match (form.choice("vad_filter")?, asked) {
        (None, asked) => asked,
        (Some(false), _) => VoiceFilter::Off,
        (Some(true), VoiceFilter::On(options)) => VoiceFilter::On(options),
        (Some(true), _) => VoiceFilter::On(VoiceFilterOptions::default()),
    })
}

fn strategy(form: &AudioForm) -> Result<VoiceFilter, ApiError> {
    let mut fields = Map::new();
    for (name, value) in form.members(STRATEGY) {
        fields.insert(name.to_owned(), Value::from(value));
    }
    let text = form.text(STRATEGY);
    match text.map(|text| (text, serde_json::from_str::<Value>(text))) {
        None if fields.is_empty() => Ok(VoiceFilter::Configured),
        None => server_vad(&fields),
        Some(("auto", _)) => Ok(VoiceFilter::Available),
        Some((_, Ok(Value::String(word)))) if word == "auto" => Ok(VoiceFilter::Available),
        Some((_, Ok(Value::Object(object)))) => server_vad(&object),
        Some((text, _)) => {
            let message = format!("`{STRATEGY}` is {text:?}; send auto or an object of type server_vad");
            Err(ApiError::invalid_value(STRATEGY, message))
        }
    }
}

fn server_vad(object: &Map<String, Value>) -> Result<VoiceFilter, ApiError> {
    let kind = object.get("type").and_then(Value::as_str);
    if kind != Some("server_vad") {
        let message = format!("`{STRATEGY}.type` is {:?}; use server_vad", kind.unwrap_or_default());
        return Err(ApiError::invalid_value(STRATEGY, message));
    }
    // Fields of a form are texts, those of an object numbers.
    let number = |name: &str| match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => text.parse().map(Some).map_err(|_| wrong(name)),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| wrong(name)),
    };
    let milliseconds = |name: &str| match number(name)? {
        Some(ms) if !(0.0..=f64::from(u32::MAX)).contains(&ms) => Err(wrong(name)),
        ms => Ok(ms.map(|ms| ms as u32)),
    };
    Ok(VoiceFilter::On(VoiceFilterOptions {
        threshold: number("threshold")?.map(|threshold| threshold as f32),
        min_silence_ms: milliseconds("silence_duration_ms")?,
        pad_ms: milliseconds("prefix_padding_ms")?,
    }))
}

fn wrong(name: &str) -> ApiError {
    ApiError::invalid_value(STRATEGY, format!("`{STRATEGY}.{name}` should be a number of 0 or more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&str, &str)]) -> Result<VoiceFilter, ApiError> {
        voice_filter(&AudioForm::of(fields))
    }

    #[test]
    fn both_dialects_are_understood() {
        let on = |threshold, min_silence_ms, pad_ms| {
            VoiceFilter::On(VoiceFilterOptions { threshold, min_silence_ms, pad_ms })
        };
        let plain = on(None, None, None);
        let object = r#"{"type": "server_vad", "threshold": 0.25, "silence_duration_ms": 700}"#;
        for (fields, wanted) in [
            (&[][..], VoiceFilter::Configured),
            (&[("vad_filter", "true")], plain),
            (&[("vad_filter", "false")], VoiceFilter::Off),
            (&[(STRATEGY, "auto")], VoiceFilter::Available),
            (&[(STRATEGY, "\"auto\"")], VoiceFilter::Available),
            (&[(STRATEGY, object)], on(Some(0.25), Some(700), None)),
            (&[(STRATEGY, object), ("vad_filter", "false")], VoiceFilter::Off),
            (&[(STRATEGY, object), ("vad_filter", "true")], on(Some(0.25), Some(700), None)),
            (&[(STRATEGY, "auto"), ("vad_filter", "true")], plain),
            (&[("chunking_strategy[type]", "server_vad")], plain),
            (
                &[("chunking_strategy[prefix_padding_ms]", "300"), ("chunking_strategy[type]", "server_vad")],
                on(None, None, Some(300)),
            ),
        ] {
            assert_eq!(of(fields).ok(), Some(wanted), "{fields:?}");
        }
        for wrong in [
            ("vad_filter", "perhaps"),
            (STRATEGY, "by_sentence"),
            (STRATEGY, "[1]"),
            (STRATEGY, r#"{"type": "client_vad"}"#),
            (STRATEGY, r#"{"type": "server_vad", "threshold": [1]}"#),
            (STRATEGY, r#"{"type": "server_vad", "prefix_padding_ms": -1}"#),
            ("chunking_strategy[threshold]", "0.5"),
        ] {
            assert!(of(&[wrong]).is_err(), "{wrong:?}");
        }
    }
}
