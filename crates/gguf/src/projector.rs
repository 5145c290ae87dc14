//! Multimodal projectors (`general.architecture` = `clip`). Their loader reads keys without looking at the type, and a
//! wrong type is an assertion; image sizes are divided by the patch size.

use crate::{GgufError, Header, Value, ValueType};

/// Keys below `clip.` that are whole numbers, by their last part.
const U32_KEYS: [&str; 10] = [
    "embedding_length",
    "feed_forward_length",
    "block_count",
    "head_count",
    "head_count_kv",
    "head_dim",
    "projection_dim",
    "image_size",
    "patch_size",
    "num_mel_bins",
];
const BOOL_KEYS: [&str; 5] =
    ["has_vision_encoder", "has_audio_encoder", "has_gen_audio_encoder", "use_gelu", "use_silu"];
const MAX_LAYERS: u32 = 1024;
const MAX_SIDE: u32 = 1 << 16;

pub(crate) fn check(header: &Header) -> Result<(), GgufError> {
    for (key, value) in header.metadata.iter() {
        check_type(key, value)?;
        check_value(key, value)?;
    }
    Ok(())
}

fn check_type(key: &str, value: &Value) -> Result<(), GgufError> {
    let expected = match expected_type(key) {
        Some(expected) if expected != value.value_type() => expected,
        _ => return Ok(()),
    };
    let expected = match expected {
        ValueType::U32 => "u32",
        ValueType::Bool => "bool",
        ValueType::F32 => "f32",
        _ => "string",
    };
    Err(GgufError::WrongType { key: key.into(), found: value.value_type(), expected })
}

fn expected_type(key: &str) -> Option<ValueType> {
    if matches!(key, "general.name" | "general.description") {
        return Some(ValueType::Str);
    }
    let (_, name) = key.strip_prefix("clip.")?.rsplit_once('.').unwrap_or(("", &key["clip.".len()..]));
    match name {
        "projector_type" => Some(ValueType::Str),
        _ if U32_KEYS.contains(&name) => Some(ValueType::U32),
        _ if BOOL_KEYS.contains(&name) => Some(ValueType::Bool),
        _ if name.ends_with("_epsilon") => Some(ValueType::F32),
        _ => None,
    }
}

fn check_value(key: &str, value: &Value) -> Result<(), GgufError> {
    if !key.starts_with("clip.") {
        return Ok(());
    }
    let limit = match key.rsplit('.').next() {
        Some("patch_size" | "image_size") => MAX_SIDE,
        Some("block_count") => MAX_LAYERS,
        Some("embedding_length" | "head_count" | "head_count_kv") => 1 << 20,
        _ => return check_float(key, value),
    };
    match *value {
        Value::U32(number) if number == 0 || number > limit => {
            Err(GgufError::range(key, number, format!("in 1..={limit}")))
        }
        _ => Ok(()),
    }
}

fn check_float(key: &str, value: &Value) -> Result<(), GgufError> {
    match *value {
        Value::F32(number) if !number.is_finite() || (number < 0.0 && key.ends_with("_epsilon")) => {
            Err(GgufError::range(key, number, "finite and not negative"))
        }
        _ => Ok(()),
    }
}
