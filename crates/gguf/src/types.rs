//! Which element type may stand where. llama.cpp checks shapes, not types: a norm in f16 or a matrix in i32 loads and
//! then ends the process in the first decode.

use crate::{GgmlType, GgufError, TensorInfo};

/// Tensors whose kernels read f32 only: operands of additions and multiplications by element, state-space and rope
/// factors.
const F32_SUFFIXES: [&str; 10] = [
    "norm.weight",
    "norm_2.weight",
    ".bias",
    ".ssm_conv1d.weight",
    ".shortconv.conv.weight",
    ".ssm_a",
    ".ssm_d",
    "rope_freqs.weight",
    "rope_factors_long.weight",
    "rope_factors_short.weight",
];

/// Lookup tables of expert ids, the one place where llama.cpp reads integers from a model.
const INTEGER_TABLE: &str = "tid2eid";

/// Checks the tensors of a text model.
pub(crate) fn check_model(tensors: &[TensorInfo]) -> Result<(), GgufError> {
    check_weights(tensors)?;
    let needs_f32 = |tensor: &&TensorInfo| F32_SUFFIXES.iter().any(|suffix| tensor.name.ends_with(suffix));
    match tensors.iter().filter(needs_f32).find(|tensor| tensor.ggml_type != GgmlType::F32) {
        None => Ok(()),
        Some(tensor) => Err(wrong_type(tensor, "f32")),
    }
}

/// Checks that matrices have a type that can be multiplied.
pub(crate) fn check_weights(tensors: &[TensorInfo]) -> Result<(), GgufError> {
    let is_weight = |tensor: &&TensorInfo| {
        let is_matrix = [".weight", ".lora_a", ".lora_b"].iter().any(|suffix| tensor.name.ends_with(suffix));
        is_matrix && !tensor.name.contains(INTEGER_TABLE)
    };
    match tensors.iter().filter(is_weight).find(|tensor| !tensor.ggml_type.is_weight()) {
        None => Ok(()),
        Some(tensor) => Err(wrong_type(tensor, "a floating point or quantized type")),
    }
}

fn wrong_type(tensor: &TensorInfo, expected: &'static str) -> GgufError {
    GgufError::TensorType { name: tensor.name.clone(), ggml_type: tensor.ggml_type, expected }
}
