//! The keys that few configurations have.

use super::{BadValue, Resolved, bad, inner_file, on, positive, real, text, texts};
use crate::config::{
    DownloadFile, EmbedDefaults, Limits, Modalities, ReasoningConfig, RopeScaling, SpeechDefaults, TokenPooling,
    VectorEncoding, WindowPooling, Yarn,
};
use crate::model_yaml::{DownloadYaml, ModelYaml, ParametersYaml, Real};
use crate::names;
use crate::uri::FileUri;
use std::num::NonZeroU32;

pub(super) fn embed(from: &ParametersYaml) -> Resolved<EmbedDefaults> {
    let encoding = match text(from.encoding_format.clone()).as_deref() {
        None => None,
        Some("float") => Some(VectorEncoding::Float),
        Some("base64") => Some(VectorEncoding::Base64),
        Some(other) => return bad("parameters.encoding_format", format!("{other:?} is not one of float, base64")),
    };
    let long_texts = match text(from.pooling.clone()).as_deref() {
        None | Some("backend") => None,
        Some("mean") => Some(WindowPooling::Mean),
        Some("last") => Some(WindowPooling::Last),
        Some("decayed_mean") => Some(WindowPooling::DecayedMean),
        Some(other) => {
            let words = "backend, mean, last, decayed_mean";
            return bad("parameters.pooling", format!("{other:?} is not one of {words}"));
        }
    };
    let half_life_tokens = positive("parameters.pooling_half_life_tokens", from.pooling_half_life_tokens)?;
    Ok(EmbedDefaults { encoding, long_texts, half_life_tokens })
}

pub(super) fn token_pooling(line: &str, value: Option<&str>) -> Resolved<Option<TokenPooling>> {
    match value {
        Some("mean") => Ok(Some(TokenPooling::Mean)),
        Some("cls") => Ok(Some(TokenPooling::Cls)),
        Some("last") => Ok(Some(TokenPooling::Last)),
        Some("rank") => Ok(Some(TokenPooling::Rank)),
        Some("none") => {
            bad("options", format!("{line:?}: a vector for each token is not offered; use mean, cls or last"))
        }
        _ => bad("options", format!("{line:?} should be one of mean, cls, last, rank")),
    }
}

/// llama.cpp's numbers: -1 leaves vectors as they are, 2 is the Euclidean length.
pub(super) fn normalizes(line: &str, value: Option<&str>) -> Resolved<bool> {
    match value {
        Some("-1") => Ok(false),
        Some("2") => Ok(true),
        _ => bad("options", format!("{line:?} should be -1 (as they are) or 2 (to length 1)")),
    }
}

pub(super) fn dimensions(line: &str, value: Option<&str>) -> Resolved<Vec<NonZeroU32>> {
    let sizes: Option<Vec<NonZeroU32>> =
        value.and_then(|value| value.split(',').map(|size| size.trim().parse().ok()).collect());
    let wrong = || BadValue { key: "options", message: format!("{line:?} should be a list such as 64,128,256") };
    sizes.ok_or_else(wrong)
}

pub(super) fn is_bf16(line: &str, value: Option<&str>) -> Resolved<bool> {
    match value {
        Some("bf16") => Ok(true),
        Some("f32") => Ok(false),
        _ => bad("options", format!("{line:?} should be f32 or bf16")),
    }
}

pub(super) fn reasoning(yaml: &ModelYaml) -> ReasoningConfig {
    let from = yaml.reasoning.clone().unwrap_or_default();
    let pairs = from.tag_pairs.unwrap_or_default().into_iter();
    ReasoningConfig {
        is_disabled: on(from.disable),
        is_hidden: on(from.strip_reasoning_only),
        start_tokens: texts(&from.thinking_start_tokens),
        tag_pairs: pairs.filter_map(|pair| Some((text(pair.start)?, text(pair.end)?))).collect(),
        effort: text(yaml.reasoning_effort.clone()),
        template_kwargs: yaml.chat_template_kwargs.clone().unwrap_or_default().into_iter().collect(),
    }
}

pub(super) fn modalities(yaml: &ModelYaml) -> Modalities {
    Modalities { input: texts(&yaml.known_input_modalities), output: texts(&yaml.known_output_modalities) }
}

pub(super) fn download_files(yaml: &ModelYaml) -> Resolved<Vec<DownloadFile>> {
    yaml.download_files.iter().flatten().map(download_file).collect()
}

fn download_file(from: &DownloadYaml) -> Resolved<DownloadFile> {
    const KEY: &str = "download_files";
    let Some(uri) = text(from.uri.clone()) else { return bad(KEY, "an entry has no uri") };
    let named = match FileUri::parse(&uri) {
        Some(parsed) => parsed.and_then(|parsed| parsed.file_name()),
        None => return bad(KEY, format!("{uri:?} is no URI")),
    };
    let filename = match (text(from.filename.clone()), named) {
        (Some(name), Ok(_)) => name,
        (None, Ok(name)) => name,
        (_, Err(error)) => return bad(KEY, error.to_string()),
    };
    names::check(KEY, &filename).or_else(|error| bad(KEY, error.to_string()))?;
    let sha256 = text(from.sha256.clone()).map(|digest| digest.to_ascii_lowercase());
    let is_digest = |digest: &String| digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if sha256.as_ref().is_some_and(|digest| !is_digest(digest)) {
        return bad(KEY, format!("the sha256 of {filename} is not 64 hexadecimal digits"));
    }
    Ok(DownloadFile { filename, uri, sha256 })
}

pub(super) fn limits(yaml: &ModelYaml) -> Resolved<Limits> {
    let from = yaml.limits.clone().unwrap_or_default();
    Ok(Limits {
        max_concurrent: positive("limits.max_concurrent", from.max_concurrent)?,
        retry_after_secs: positive("limits.retry_after_seconds", from.retry_after_seconds)?.map(std::num::NonZero::get),
    })
}

pub(super) fn loras(yaml: &ModelYaml) -> Resolved<Vec<(String, f32)>> {
    let scale =
        |key: &'static str, scale: Option<Real>| real(key, scale, -1000.0, 1000.0).map(|scale| scale.unwrap_or(1.0));
    let mut loras = Vec::new();
    if let Some(file) = inner_file("lora_adapter", &yaml.lora_adapter)? {
        loras.push((file, scale("lora_scale", yaml.lora_scale)?));
    }
    let scales = yaml.lora_scales.clone().unwrap_or_default();
    for (idx, adapter) in yaml.lora_adapters.iter().flatten().enumerate() {
        if let Some(file) = inner_file("lora_adapters", &Some(adapter.clone()))? {
            loras.push((file, scale("lora_scales", scales.get(idx).copied())?));
        }
    }
    Ok(loras)
}

pub(super) fn rope_scaling(yaml: &ModelYaml) -> Resolved<Option<RopeScaling>> {
    let Some(written) = text(yaml.rope_scaling.clone()) else { return Ok(None) };
    match written.trim().to_ascii_lowercase().as_str() {
        "none" => Ok(Some(RopeScaling::None)),
        "linear" => Ok(Some(RopeScaling::Linear)),
        "yarn" => Ok(Some(RopeScaling::Yarn)),
        _ => bad("rope_scaling", format!("{written:?} is not one of none, linear, yarn")),
    }
}

pub(super) fn yarn(yaml: &ModelYaml) -> Resolved<Yarn> {
    // LocalAI writes -1, and its YAML files 0, for "the model's own".
    let number = |key: &'static str, value: Option<Real>| {
        real(key, value, -1.0, 1e6).map(|value: Option<f32>| value.filter(|value| *value > 0.0))
    };
    Ok(Yarn {
        ext_factor: number("yarn_ext_factor", yaml.yarn_ext_factor)?,
        attn_factor: number("yarn_attn_factor", yaml.yarn_attn_factor)?,
        beta_fast: number("yarn_beta_fast", yaml.yarn_beta_fast)?,
        beta_slow: number("yarn_beta_slow", yaml.yarn_beta_slow)?,
    })
}

pub(super) fn overrides(yaml: &ModelYaml) -> Resolved<Vec<String>> {
    let written = texts(&yaml.overrides);
    match written.iter().find(|line| !is_override(line)) {
        None => Ok(written),
        Some(line) => {
            let forms = "key=int:1, key=float:0.5, key=bool:true or key=str:text";
            Err(BadValue { key: "overrides", message: format!("{line:?} is not of the form {forms}") })
        }
    }
}

fn is_override(line: &str) -> bool {
    let Some((key, rest)) = line.split_once('=') else { return false };
    let Some((kind, value)) = rest.split_once(':') else { return false };
    let fits = match kind {
        "int" => value.parse::<i64>().is_ok(),
        "float" => value.parse::<f64>().is_ok(),
        "bool" => matches!(value, "true" | "false"),
        // llama.cpp has room for 127 bytes.
        "str" => value.len() < 128,
        _ => false,
    };
    fits && !key.is_empty() && key.len() < 128
}

pub(super) fn speech(yaml: &ModelYaml, from: &ParametersYaml) -> SpeechDefaults {
    let own_voice = yaml.tts.as_ref().and_then(|tts| text(tts.voice.clone()));
    SpeechDefaults {
        language: text(from.language.clone()),
        is_translation: on(from.translate),
        voice: text(from.voice.clone()).or(own_voice),
    }
}

/// Words of CTranslate2.
pub(super) fn is_int8(line: &str, value: Option<&str>) -> Resolved<bool> {
    match value {
        Some("int8" | "int8_float32" | "int8_float16" | "int8_bfloat16") => Ok(true),
        Some("default" | "auto" | "float32" | "float16" | "bfloat16") => Ok(false),
        _ => bad("options", format!("{line:?} should be one of int8, float32, default")),
    }
}

/// The name of another model.
pub(super) fn option_model(line: &str, value: Option<&str>) -> Resolved<String> {
    let Some(name) = value.filter(|name| !name.is_empty()) else {
        return bad("options", format!("{line:?} should have the name of a model"));
    };
    names::check_model_name(name).or_else(|error| bad("options", format!("{line:?}: {error}")))?;
    Ok(name.to_owned())
}

pub(super) fn probability(line: &str, value: Option<&str>) -> Resolved<f32> {
    match value.and_then(|value| value.parse().ok()).filter(|number| (0.0..=1.0).contains(number)) {
        Some(number) => Ok(number),
        None => bad("options", format!("{line:?} should have a number from 0 to 1")),
    }
}
