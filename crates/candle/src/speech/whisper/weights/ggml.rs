//! Files of whisper.cpp (`ggml-*.bin`): hyper-parameters, mel filters, words and tensors one after the other, in f32,
//! f16 or one of ggml's block formats.

use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::{GgmlDType, ggml_file};
use candle_core::{Device, Tensor};

use super::{ModelFiles, Reader, Vocabulary, Weights, WeightsError, invalid};

/// "ggml" as a little-endian number.
const MAGIC: u32 = 0x6767_6d6c;
/// Frequencies of a spectrum of 400 samples.
const N_BINS: u64 = 201;
const MAX_DIMS: u32 = 4;
const MAX_NAME_BYTES: u32 = 256;

struct Entry {
    dims: Vec<usize>,
    kind: GgmlDType,
    start: u64,
    n_bytes: u64,
}

struct Ggml {
    reader: Reader,
    entries: HashMap<String, Entry>,
}

pub(super) fn open(path: &Path) -> Result<ModelFiles, WeightsError> {
    let mut reader = Reader::open(path)?;
    if reader.len < 48 || reader.u32()? != MAGIC {
        return Err(WeightsError::Unknown { path: path.to_owned() });
    }
    let parameters = (0..11).map(|_| reader.u32()).collect::<Result<Vec<_>, _>>()?;
    let (n_vocab, n_heads) = (parameters[0], parameters[3]);
    let mel_filters = read_filters(&mut reader)?;
    let vocabulary = read_vocabulary(&mut reader, n_vocab)?;
    let mut entries = HashMap::new();
    while reader.position < reader.len {
        let (name, entry) = read_entry(&mut reader)?;
        entries.insert(name, entry);
    }
    Ok(ModelFiles {
        n_bytes: entries.values().map(|entry| entry.n_bytes).sum(),
        weights: Box::new(Ggml { reader, entries }),
        vocabulary,
        n_heads: Some(n_heads as usize),
        alignment_heads: None,
        mel_filters: Some(mel_filters),
    })
}

fn read_filters(reader: &mut Reader) -> Result<Vec<f32>, WeightsError> {
    let (n_mels, n_bins) = (u64::from(reader.u32()?), u64::from(reader.u32()?));
    if n_bins != N_BINS || n_mels > 1024 {
        return Err(invalid(&reader.path, format!("mel filters of {n_mels} by {n_bins}, not by {N_BINS}")));
    }
    Ok(super::floats(&reader.bytes(4 * n_mels * n_bins)?, super::NumberKind::F32))
}

fn read_vocabulary(reader: &mut Reader, n_vocab: u32) -> Result<Vocabulary, WeightsError> {
    let n_words = reader.u32()?;
    let mut words = Vec::new();
    for _ in 0..n_words {
        let n_bytes = u64::from(reader.u32()?);
        words.push(reader.bytes(n_bytes)?);
    }
    Vocabulary::from_bytes(words, n_vocab as usize).map_err(|reason| invalid(&reader.path, reason))
}

fn read_entry(reader: &mut Reader) -> Result<(String, Entry), WeightsError> {
    let (n_dims, n_name, kind) = (reader.u32()?, reader.u32()?, reader.u32()?);
    if n_dims > MAX_DIMS || n_name > MAX_NAME_BYTES {
        return Err(invalid(&reader.path, format!("a tensor has {n_dims} dimensions and a name of {n_name} bytes")));
    }
    let kind = number_kind(kind).ok_or_else(|| {
        invalid(&reader.path, format!("tensors of ggml's type {kind} are not read; convert the file"))
    })?;
    // ggml names the fastest dimension first.
    let mut dims = (0..n_dims).map(|_| Ok(reader.u32()? as usize)).collect::<Result<Vec<_>, WeightsError>>()?;
    dims.reverse();
    let name = String::from_utf8_lossy(&reader.bytes(u64::from(n_name))?).into_owned();
    let n_values = dims.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim as u64));
    let n_values = n_values.filter(|n_values| n_values.is_multiple_of(kind.block_size() as u64));
    let n_bytes = n_values.and_then(|n| (n / kind.block_size() as u64).checked_mul(kind.type_size() as u64));
    let n_bytes =
        n_bytes.ok_or_else(|| invalid(&reader.path, format!("tensor {name} has an impossible shape {dims:?}")))?;
    let start = reader.position;
    reader.skip(n_bytes)?;
    Ok((name, Entry { dims, kind, start, n_bytes }))
}

/// The types that whisper.cpp's `quantize` writes.
fn number_kind(kind: u32) -> Option<GgmlDType> {
    Some(match kind {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}

/// OpenAI's name of the tensor that Hugging Face calls `name`; whisper.cpp keeps OpenAI's.
fn openai_name(name: &str) -> Option<String> {
    let fixed = match name {
        "encoder.embed_positions.weight" => "encoder.positional_embedding",
        "decoder.embed_positions.weight" => "decoder.positional_embedding",
        "decoder.embed_tokens.weight" => "decoder.token_embedding.weight",
        "encoder.layer_norm.weight" => "encoder.ln_post.weight",
        "encoder.layer_norm.bias" => "encoder.ln_post.bias",
        "decoder.layer_norm.weight" => "decoder.ln.weight",
        "decoder.layer_norm.bias" => "decoder.ln.bias",
        _ => "",
    };
    if !fixed.is_empty() {
        return Some(fixed.to_owned());
    }
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        [_, "conv1" | "conv2", _] => Some(name.to_owned()),
        [stack, "layers", layer, module, kind] => {
            let module = match module {
                "self_attn_layer_norm" => "attn_ln",
                "encoder_attn_layer_norm" => "cross_attn_ln",
                "final_layer_norm" => "mlp_ln",
                "fc1" => "mlp.0",
                "fc2" => "mlp.2",
                _ => return None,
            };
            Some(format!("{stack}.blocks.{layer}.{module}.{kind}"))
        }
        [stack, "layers", layer, attention, projection, kind] => {
            let attention = if attention == "self_attn" { "attn" } else { "cross_attn" };
            let projection = match projection {
                "q_proj" => "query",
                "k_proj" => "key",
                "v_proj" => "value",
                "out_proj" => "out",
                _ => return None,
            };
            Some(format!("{stack}.blocks.{layer}.{attention}.{projection}.{kind}"))
        }
        _ => None,
    }
}

impl Weights for Ggml {
    fn has(&self, name: &str) -> bool {
        openai_name(name).is_some_and(|name| self.entries.contains_key(&name))
    }

    fn read(&mut self, name: &str) -> Result<Tensor, WeightsError> {
        let missing = || WeightsError::Missing { name: name.to_owned() };
        let entry = openai_name(name).and_then(|name| self.entries.get(&name)).ok_or_else(missing)?;
        self.reader.seek(entry.start)?;
        let bytes = self.reader.bytes(entry.n_bytes)?;
        let plain = match entry.kind {
            GgmlDType::F32 => Some(super::NumberKind::F32),
            GgmlDType::F16 => Some(super::NumberKind::F16),
            GgmlDType::BF16 => Some(super::NumberKind::Bf16),
            _ => None,
        };
        let tensor = match plain {
            Some(kind) => Tensor::from_vec(super::floats(&bytes, kind), entry.dims.clone(), &Device::Cpu)?,
            None => ggml_file::qtensor_from_ggml(entry.kind, &bytes, entry.dims.clone(), &Device::Cpu)?
                .dequantize(&Device::Cpu)?,
        };
        // Biases of the convolutions are columns there.
        let flat = name.ends_with("bias") && tensor.rank() > 1;
        Ok(if flat { tensor.flatten_all()? } else { tensor })
    }
}
