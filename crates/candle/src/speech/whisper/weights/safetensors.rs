//! Hugging Face's folder: `model.safetensors` (or shards named by an index), `config.json`, `generation_config.json`,
//! `tokenizer.json` or the older `vocab.json` with `added_tokens.json`.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

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
    // Lists of words may end before the timestamps; the model itself has a row for each of its ids.
    let n_vocab = shards.entries.get("decoder.embed_tokens.weight").and_then(|entry| entry.dims.first().copied());
    let n_heads = config.get("encoder_attention_heads").and_then(serde_json::Value::as_u64);
    Ok(ModelFiles {
        n_bytes: shards.entries.values().map(|entry| entry.n_bytes).sum(),
        weights: Box::new(shards),
        vocabulary: read_vocabulary(folder, n_vocab)?,
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

/// The words, by `tokenizer.json` or `vocab.json`; `n_vocab` is the number of ids that the weights tell.
fn read_vocabulary(folder: &Path, n_vocab: Option<usize>) -> Result<Vocabulary, WeightsError> {
    let (whole, plain) = (folder.join("tokenizer.json"), folder.join("vocab.json"));
    let (path, by_id) = if whole.is_file() || !plain.is_file() {
        let by_id = words_of_tokenizer(&whole)?;
        (whole, by_id)
    } else {
        let mut by_id = words_of_object(&plain, &read_json(&plain)?)?;
        let added = folder.join("added_tokens.json");
        if added.is_file() {
            by_id.extend(words_of_object(&added, &read_json(&added)?)?);
        }
        (plain, by_id)
    };
    let n_words = by_id.keys().max().map_or(0, |last| last + 1);
    let end = by_id.iter().find(|(_, word)| *word == "<|endoftext|>").map(|(&id, _)| id);
    let end = end.ok_or_else(|| invalid(&path, "the word <|endoftext|> is missing"))?;
    // Nobody looks at the words behind, so they may have gaps.
    let words: Option<Vec<&str>> = (0..=end).map(|id| by_id.get(&id).map(String::as_str)).collect();
    let words = words.ok_or_else(|| invalid(&path, "its ids have gaps"))?;
    // Rows that only fill a matrix up are more than a Whisper's ids can be.
    let by_weights = n_vocab.and_then(|n_vocab| Vocabulary::from_words(&words, n_vocab).ok());
    by_weights.map_or_else(|| Vocabulary::from_words(&words, n_words).map_err(|reason| invalid(&path, reason)), Ok)
}

/// Words by their ids, those that were added included.
fn words_of_tokenizer(path: &Path) -> Result<HashMap<usize, String>, WeightsError> {
    let json = read_json(path)?;
    let wrong = |what: &str| invalid(path, format!("{what} is missing"));
    let mut by_id = words_of_object(path, json.pointer("/model/vocab").ok_or_else(|| wrong("model.vocab"))?)?;
    for token in json.get("added_tokens").and_then(serde_json::Value::as_array).into_iter().flatten() {
        let id = token.get("id").and_then(serde_json::Value::as_u64).ok_or_else(|| wrong("the id of a token"))?;
        let word = token.get("content").and_then(serde_json::Value::as_str);
        by_id.insert(id as usize, word.ok_or_else(|| wrong("the text of a token"))?.to_owned());
    }
    Ok(by_id)
}

/// `{"word": id, ...}`
fn words_of_object(path: &Path, json: &serde_json::Value) -> Result<HashMap<usize, String>, WeightsError> {
    let words = json.as_object().ok_or_else(|| invalid(path, "its words are no object"))?;
    let word = |(word, id): (&String, &serde_json::Value)| Some((id.as_u64()? as usize, word.clone()));
    let words: Option<HashMap<usize, String>> = words.iter().map(word).collect();
    words.ok_or_else(|| invalid(path, "the id of a word is missing"))
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
        // The library's own reader wants the whole file in memory; the header alone is checked in the same way.
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| invalid(path, error.to_string()))?;
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
