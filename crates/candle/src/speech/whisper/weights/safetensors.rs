//! Hugging Face's folder: `model.safetensors` (or shards named by an index), `config.json`, `generation_config.json`,
//! `tokenizer.json`.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensors};

use super::{
    ModelFiles, NumberKind, Reader, Vocabulary, Weights, WeightsError, alignment_heads, floats, invalid, read_json,
};

/// Longest header that is read; the real ones have about 100 KB.
const MAX_HEADER_BYTES: u64 = 64 << 20;

struct Entry {
    shard: usize,
    dims: Vec<usize>,
    kind: NumberKind,
    start: u64,
    n_bytes: u64,
}

struct Shards {
    readers: Vec<Reader>,
    entries: HashMap<String, Entry>,
}

pub(super) fn open(folder: &Path) -> Result<ModelFiles, WeightsError> {
    let mut shards = Shards { readers: Vec::new(), entries: HashMap::new() };
    for name in shard_names(folder)? {
        shards.add(&folder.join(name))?;
    }
    let config = read_json(&folder.join("config.json"))?;
    let generation_path = folder.join("generation_config.json");
    let generation = if generation_path.is_file() { read_json(&generation_path)? } else { serde_json::Value::Null };
    let n_heads = config.get("encoder_attention_heads").and_then(serde_json::Value::as_u64);
    Ok(ModelFiles {
        n_bytes: shards.entries.values().map(|entry| entry.n_bytes).sum(),
        weights: Box::new(shards),
        vocabulary: read_vocabulary(folder)?,
        n_heads: n_heads.map(|n_heads| n_heads as usize),
        alignment_heads: alignment_heads(&generation).or_else(|| alignment_heads(&config)),
        mel_filters: None,
    })
}

fn shard_names(folder: &Path) -> Result<BTreeSet<String>, WeightsError> {
    let index = folder.join("model.safetensors.index.json");
    if folder.join("model.safetensors").is_file() || !index.is_file() {
        return Ok(BTreeSet::from(["model.safetensors".to_owned()]));
    }
    let json = read_json(&index)?;
    let map = json.get("weight_map").and_then(serde_json::Value::as_object);
    let map = map.ok_or_else(|| invalid(&index, "it has no weight_map"))?;
    let names: BTreeSet<String> = map.values().filter_map(|name| name.as_str().map(str::to_owned)).collect();
    match names.iter().find(|name| name.contains(['/', '\\'])) {
        Some(name) => Err(invalid(&index, format!("shard {name} must lie in the same folder"))),
        None => Ok(names),
    }
}

/// The words of `tokenizer.json`, those that were added included.
fn read_vocabulary(folder: &Path) -> Result<Vocabulary, WeightsError> {
    let path = folder.join("tokenizer.json");
    let json = read_json(&path)?;
    let wrong = |what: &str| invalid(&path, format!("{what} is missing"));
    let words =
        json.pointer("/model/vocab").and_then(serde_json::Value::as_object).ok_or_else(|| wrong("model.vocab"))?;
    let mut by_id: HashMap<usize, String> = HashMap::new();
    for (word, id) in words {
        by_id.insert(id.as_u64().ok_or_else(|| wrong("the id of a word"))? as usize, word.clone());
    }
    for token in json.get("added_tokens").and_then(serde_json::Value::as_array).into_iter().flatten() {
        let id = token.get("id").and_then(serde_json::Value::as_u64).ok_or_else(|| wrong("the id of a token"))?;
        let word = token.get("content").and_then(serde_json::Value::as_str);
        by_id.insert(id as usize, word.ok_or_else(|| wrong("the text of a token"))?.to_owned());
    }
    let words: Option<Vec<String>> = (0..by_id.len()).map(|id| by_id.remove(&id)).collect();
    let words = words.ok_or_else(|| invalid(&path, "its ids have gaps"))?;
    Vocabulary::from_words(&words).map_err(|reason| invalid(&path, reason))
}

impl Shards {
    fn add(&mut self, path: &Path) -> Result<(), WeightsError> {
        let mut reader = Reader::open(path)?;
        let prefix = reader.bytes(8)?;
        let n_header = u64::from_le_bytes(prefix[..].try_into().expect("eight bytes were read"));
        if n_header > MAX_HEADER_BYTES {
            return Err(invalid(path, format!("its header is said to have {n_header} bytes")));
        }
        let header = reader.bytes(n_header)?;
        let whole = [prefix, header].concat();
        let (_, metadata) = SafeTensors::read_metadata(&whole).map_err(|error| invalid(path, error.to_string()))?;
        let shard = self.readers.len();
        for (name, info) in metadata.tensors() {
            let kind = match info.dtype {
                Dtype::F32 => NumberKind::F32,
                Dtype::F16 => NumberKind::F16,
                Dtype::BF16 => NumberKind::Bf16,
                other => return Err(invalid(path, format!("tensor {name} has numbers of type {other:?}"))),
            };
            let (start, end) = info.data_offsets;
            let name = name.strip_prefix("model.").unwrap_or(&name).to_owned();
            let (start, n_bytes) = (8 + n_header + start as u64, (end - start) as u64);
            self.entries.insert(name, Entry { shard, dims: info.shape.clone(), kind, start, n_bytes });
        }
        self.readers.push(reader);
        Ok(())
    }
}

impl Weights for Shards {
    fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    fn read(&mut self, name: &str) -> Result<Tensor, WeightsError> {
        let entry = self.entries.get(name).ok_or_else(|| WeightsError::Missing { name: name.to_owned() })?;
        let reader = &mut self.readers[entry.shard];
        reader.seek(entry.start)?;
        let values = floats(&reader.bytes(entry.n_bytes)?, entry.kind);
        Ok(Tensor::from_vec(values, entry.dims.clone(), &Device::Cpu)?)
    }
}
