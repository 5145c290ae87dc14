//! CTranslate2's folder: `model.bin` (binary version 4 to 6), `vocabulary.json` or `vocabulary.txt`, `config.json`.
//!
//! The file is a list of named arrays; queries, keys and values lie in one array, below each other. 8-bit weights come
//! with a `weight_scale` by which they are to be divided.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};

use super::{
    ModelFiles, NumberKind, Reader, Vocabulary, Weights, WeightsError, alignment_heads, floats, invalid, io_error,
    read_json,
};

struct Entry {
    dims: Vec<usize>,
    kind: NumberKind,
    start: u64,
    n_bytes: u64,
}

struct Ct2 {
    reader: Reader,
    entries: HashMap<String, Entry>,
}

/// Rows of an array that make up a tensor: the `part`-th of `n_parts`.
struct Place {
    array: String,
    part: usize,
    n_parts: usize,
}

pub(super) fn open(folder: &Path) -> Result<ModelFiles, WeightsError> {
    let path = folder.join("model.bin");
    let mut reader = Reader::open(&path)?;
    let (entries, n_heads) = read_header(&mut reader)?;
    let config_path = folder.join("config.json");
    let config = if config_path.is_file() { read_json(&config_path)? } else { serde_json::Value::Null };
    Ok(ModelFiles {
        n_bytes: entries.values().map(|entry| entry.n_bytes).sum(),
        weights: Box::new(Ct2 { reader, entries }),
        vocabulary: read_vocabulary(folder)?,
        n_heads,
        alignment_heads: alignment_heads(&config),
        mel_filters: None,
    })
}

fn read_vocabulary(folder: &Path) -> Result<Vocabulary, WeightsError> {
    let list = folder.join("vocabulary.json");
    if list.is_file() {
        let words: Vec<String> =
            serde_json::from_value(read_json(&list)?).map_err(|error| invalid(&list, error.to_string()))?;
        return Vocabulary::from_words(&words, words.len()).map_err(|reason| invalid(&list, reason));
    }
    let lines = folder.join("vocabulary.txt");
    let text = std::fs::read_to_string(&lines).map_err(io_error(&lines))?;
    let words: Vec<&str> = text.split('\n').collect();
    let words = words.strip_suffix(&[""]).unwrap_or(&words);
    Vocabulary::from_words(words, words.len()).map_err(|reason| invalid(&lines, reason))
}

fn read_name(reader: &mut Reader) -> Result<String, WeightsError> {
    let n_bytes = u64::from(reader.u16()?);
    let mut bytes = reader.bytes(n_bytes)?;
    bytes.pop();
    String::from_utf8(bytes).map_err(|_| invalid(&reader.path, "a name in it is not text"))
}

type Header = (HashMap<String, Entry>, Option<usize>);

fn read_header(reader: &mut Reader) -> Result<Header, WeightsError> {
    let version = reader.u32()?;
    if !(4..=6).contains(&version) {
        return Err(invalid(
            &reader.path,
            format!("binary version {version} of CTranslate2; versions 4 to 6 are read"),
        ));
    }
    let spec = read_name(reader)?;
    if spec != "WhisperSpec" {
        return Err(invalid(&reader.path, format!("it holds a {spec}, not a WhisperSpec")));
    }
    reader.u32()?;
    let n_entries = reader.u32()?;
    let mut entries = HashMap::new();
    let mut n_heads = None;
    for _ in 0..n_entries {
        let name = read_name(reader)?;
        let entry = read_entry(reader)?;
        if name == "encoder/num_heads" {
            reader.seek(entry.start)?;
            n_heads = Some(usize::from(reader.u16()?));
            reader.seek(entry.start + entry.n_bytes)?;
        }
        entries.insert(name, entry);
    }
    Ok((entries, n_heads))
}

fn read_entry(reader: &mut Reader) -> Result<Entry, WeightsError> {
    let rank = reader.u8()?;
    let dims = (0..rank).map(|_| Ok(reader.u32()? as usize)).collect::<Result<Vec<_>, WeightsError>>()?;
    let kind = match reader.u8()? {
        0 => NumberKind::F32,
        4 => NumberKind::F16,
        5 => NumberKind::Bf16,
        // Settings are integers of other sizes; they are never read as numbers.
        _ => NumberKind::I8,
    };
    let n_bytes = u64::from(reader.u32()?);
    let start = reader.position;
    reader.skip(n_bytes)?;
    Ok(Entry { dims, kind, start, n_bytes })
}

/// Where CTranslate2 keeps the tensor that Hugging Face calls `name`.
fn place(name: &str) -> Option<Place> {
    let whole = |array: String| Some(Place { array, part: 0, n_parts: 1 });
    match name {
        "encoder.embed_positions.weight" => return whole("encoder/position_encodings/encodings".into()),
        "decoder.embed_positions.weight" => return whole("decoder/position_encodings/encodings".into()),
        "decoder.embed_tokens.weight" => return whole("decoder/embeddings/weight".into()),
        _ => {}
    }
    let norm = |kind: &str| if kind == "weight" { "gamma" } else { "beta" };
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        [stack, "layer_norm", kind] => whole(format!("{stack}/layer_norm/{}", norm(kind))),
        [stack, conv @ ("conv1" | "conv2"), kind] => whole(format!("{stack}/{conv}/{kind}")),
        [stack, "layers", layer, module, kind] => {
            let (array, kind) = match module {
                "self_attn_layer_norm" => ("self_attention/layer_norm", norm(kind)),
                "encoder_attn_layer_norm" => ("attention/layer_norm", norm(kind)),
                "final_layer_norm" => ("ffn/layer_norm", norm(kind)),
                "fc1" => ("ffn/linear_0", kind),
                "fc2" => ("ffn/linear_1", kind),
                _ => return None,
            };
            whole(format!("{stack}/layer_{layer}/{array}/{kind}"))
        }
        [stack, "layers", layer, attention, projection, kind] => {
            let (array, part, n_parts) = match (attention, projection) {
                ("self_attn", "q_proj") => ("self_attention/linear_0", 0, 3),
                ("self_attn", "k_proj") => ("self_attention/linear_0", 1, 3),
                ("self_attn", "v_proj") => ("self_attention/linear_0", 2, 3),
                ("self_attn", "out_proj") => ("self_attention/linear_1", 0, 1),
                ("encoder_attn", "q_proj") => ("attention/linear_0", 0, 1),
                ("encoder_attn", "k_proj") => ("attention/linear_1", 0, 2),
                ("encoder_attn", "v_proj") => ("attention/linear_1", 1, 2),
                ("encoder_attn", "out_proj") => ("attention/linear_2", 0, 1),
                _ => return None,
            };
            Some(Place { array: format!("{stack}/layer_{layer}/{array}/{kind}"), part, n_parts })
        }
        _ => None,
    }
}

impl Ct2 {
    fn values(&mut self, array: &str) -> Result<(Vec<usize>, Vec<f32>), WeightsError> {
        let missing = || WeightsError::Missing { name: array.to_owned() };
        let entry = self.entries.get(array).ok_or_else(missing)?;
        let n_values: usize = entry.dims.iter().product();
        let (dims, kind, start, n_bytes) = (entry.dims.clone(), entry.kind, entry.start, entry.n_bytes);
        if n_values as u64 * kind.n_bytes() as u64 != n_bytes {
            return Err(invalid(&self.reader.path, format!("array {array} is of a kind of number that is not read")));
        }
        self.reader.seek(start)?;
        let mut values = floats(&self.reader.bytes(n_bytes)?, kind);
        if kind == NumberKind::I8 {
            let scale_array = format!("{array}_scale");
            let (_, scales) = self.values(&scale_array)?;
            let row = n_values / scales.len().max(1);
            for (row, scale) in values.chunks_mut(row.max(1)).zip(&scales) {
                row.iter_mut().for_each(|value| *value /= scale);
            }
        }
        Ok((dims, values))
    }
}

impl Weights for Ct2 {
    fn has(&self, name: &str) -> bool {
        place(name).is_some_and(|place| self.entries.contains_key(&place.array))
    }

    fn read(&mut self, name: &str) -> Result<Tensor, WeightsError> {
        let place = place(name).ok_or_else(|| WeightsError::Missing { name: name.to_owned() })?;
        let (mut dims, values) = self.values(&place.array)?;
        let rows = dims.first().copied().unwrap_or(0);
        if !rows.is_multiple_of(place.n_parts) {
            return Err(invalid(&self.reader.path, format!("array {} has {rows} rows", place.array)));
        }
        let n_values = values.len() / place.n_parts;
        dims[0] = rows / place.n_parts;
        let part = &values[place.part * n_values..][..n_values];
        Ok(Tensor::from_slice(part, dims, &Device::Cpu)?)
    }
}
