//! Writes small GGUF files for tests: any keys, any tensors, nothing checked.

use std::io::{self, Write};

use crate::{Array, GgmlType, Value};

/// Collects keys and tensors and lays them out as a file.
#[derive(Debug, Clone)]
pub struct Writer {
    /// Written as is.
    pub version: u32,
    /// Alignment of the tensor data; add the key `general.alignment` as well if it is not 32.
    pub alignment: usize,
    keys: Vec<(String, Value)>,
    tensors: Vec<(String, Vec<u64>, GgmlType)>,
}

impl Default for Writer {
    fn default() -> Self {
        Self { version: 3, alignment: 32, keys: Vec::new(), tensors: Vec::new() }
    }
}

impl Writer {
    /// Sets a key, replacing an earlier value.
    pub fn set(&mut self, key: &str, value: Value) -> &mut Self {
        match self.keys.iter_mut().find(|(name, _)| name == key) {
            Some(entry) => entry.1 = value,
            None => self.keys.push((key.into(), value)),
        }
        self
    }

    /// Adds a key without looking for an earlier one.
    pub fn push(&mut self, key: &str, value: Value) -> &mut Self {
        self.keys.push((key.into(), value));
        self
    }

    /// Removes a key.
    pub fn unset(&mut self, key: &str) -> &mut Self {
        self.keys.retain(|(name, _)| name != key);
        self
    }

    /// Adds a tensor, or changes shape and type of the one with this name. Its data is a repeating pattern of bytes.
    pub fn tensor(&mut self, name: &str, dims: &[u64], ggml_type: GgmlType) -> &mut Self {
        match self.tensors.iter_mut().find(|tensor| tensor.0 == name) {
            Some(tensor) => (tensor.1, tensor.2) = (dims.to_vec(), ggml_type),
            None => self.tensors.push((name.into(), dims.to_vec(), ggml_type)),
        }
        self
    }

    /// Removes tensors.
    pub fn without(&mut self, is_unwanted: impl Fn(&str) -> bool) -> &mut Self {
        self.tensors.retain(|(name, ..)| !is_unwanted(name));
        self
    }

    /// The file, where all tensors are f32 and `number` gives one of a tensor's numbers by its index.
    ///
    /// # Panics
    /// For a tensor of another type.
    pub fn bytes_of(&self, number: impl Fn(&str, usize) -> f32) -> Vec<u8> {
        let mut out = Vec::new();
        let fill = |name: &str, ggml_type: GgmlType, data: &mut [u8]| {
            assert_eq!(ggml_type, GgmlType::F32, "{name}");
            for (idx, bytes) in data.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *bytes = number(name, idx).to_le_bytes();
            }
        };
        self.write_to(&mut out, fill).expect("a vector takes everything");
        out
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let pattern = |_: &str, _: GgmlType, data: &mut [u8]| {
            data.iter_mut().enumerate().for_each(|(index, byte)| *byte = (index % 7) as u8);
        };
        self.write_to(&mut out, pattern).expect("a vector takes everything");
        out
    }

    /// Writes the file without holding it in memory: `fill` gets the name and the type of a tensor, and its bytes in
    /// pieces of whole blocks, in order.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_to(&self, out: &mut impl Write, mut fill: impl FnMut(&str, GgmlType, &mut [u8])) -> io::Result<()> {
        let header = self.header();
        out.write_all(&header)?;
        out.write_all(&vec![0; header.len().next_multiple_of(self.alignment) - header.len()])?;
        let mut piece = Vec::new();
        for (name, dims, ggml_type) in &self.tensors {
            let n_bytes = tensor_bytes(dims, *ggml_type);
            let block_bytes = ggml_type.block_bytes();
            let most = (PIECE_BYTES / block_bytes * block_bytes) as usize;
            let mut left = n_bytes;
            while left > 0 {
                piece.resize(left.min(most), 0);
                fill(name, *ggml_type, &mut piece);
                out.write_all(&piece)?;
                left -= piece.len();
            }
            out.write_all(&vec![0; n_bytes.next_multiple_of(self.alignment) - n_bytes])?;
        }
        out.flush()
    }

    fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            write_string(&mut out, key.as_bytes());
            out.extend(value.value_type().id().to_le_bytes());
            write_value(&mut out, value);
        }
        let mut offset = 0;
        for (name, dims, ggml_type) in &self.tensors {
            write_string(&mut out, name.as_bytes());
            out.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend((*ggml_type as u32).to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += tensor_bytes(dims, *ggml_type).next_multiple_of(self.alignment);
        }
        out
    }
}

/// Most bytes of a tensor that are filled at once.
const PIECE_BYTES: u64 = 8 << 20;

fn tensor_bytes(dims: &[u64], ggml_type: GgmlType) -> usize {
    let n_bytes = ggml_type.bytes_for(dims.iter().product()).and_then(|n_bytes| usize::try_from(n_bytes).ok());
    n_bytes.expect("a tensor that is written fits into memory")
}

fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(number) => out.push(*number),
        Value::I8(number) => out.extend(number.to_le_bytes()),
        Value::U16(number) => out.extend(number.to_le_bytes()),
        Value::I16(number) => out.extend(number.to_le_bytes()),
        Value::U32(number) => out.extend(number.to_le_bytes()),
        Value::I32(number) => out.extend(number.to_le_bytes()),
        Value::F32(number) => out.extend(number.to_le_bytes()),
        Value::Bool(flag) => out.push((*flag).into()),
        Value::Str(text) => write_string(out, text.as_bytes()),
        Value::Array(array) => write_array(out, array),
        Value::U64(number) => out.extend(number.to_le_bytes()),
        Value::I64(number) => out.extend(number.to_le_bytes()),
        Value::F64(number) => out.extend(number.to_le_bytes()),
    }
}

fn write_array(out: &mut Vec<u8>, array: &Array) {
    out.extend(array.element_type().id().to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(items) => out.extend(items),
        Array::I8(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
        Array::U16(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
        Array::I16(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
        Array::U32(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
        Array::I32(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
        Array::F32(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
        Array::Bool(items) => items.iter().for_each(|&item| out.push(item.into())),
        Array::Str(items) => items.iter().for_each(|item| write_string(out, item)),
        Array::U64(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
        Array::I64(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
        Array::F64(items) => items.iter().for_each(|item| out.extend(item.to_le_bytes())),
    }
}

/// A complete, tiny model of architecture `llama` (random weights, 2 layers, 32 wide, 291 tokens) that passes
/// validation; tests change it piece by piece.
pub fn tiny_llama() -> Writer {
    let mut writer = Writer::default();
    let text = |text: &str| Value::Str(text.into());
    for (key, value) in [
        ("general.architecture", text("llama")),
        ("general.type", text("model")),
        ("general.name", text("Tiny")),
        ("general.file_type", Value::U32(15)),
        ("llama.block_count", Value::U32(2)),
        ("llama.context_length", Value::U32(64)),
        ("llama.embedding_length", Value::U32(32)),
        ("llama.feed_forward_length", Value::U32(64)),
        ("llama.attention.head_count", Value::U32(4)),
        ("llama.attention.head_count_kv", Value::U32(2)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("llama.rope.dimension_count", Value::U32(8)),
        ("llama.rope.freq_base", Value::F32(10_000.0)),
        ("tokenizer.ggml.model", text("llama")),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
        ("tokenizer.ggml.unknown_token_id", Value::U32(0)),
        ("tokenizer.chat_template", text("{{ messages[0].content }}")),
    ] {
        writer.set(key, value);
    }
    let (tokens, types) = tiny_vocabulary();
    let scores = (0..tokens.len()).map(|id| -(id as f32)).collect();
    let n_tokens = tokens.len() as u64;
    writer.set("tokenizer.ggml.tokens", Value::Array(Array::Str(tokens.into_iter().collect())));
    writer.set("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    writer.set("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
    writer.tensor("token_embd.weight", &[32, n_tokens], GgmlType::Q8_0);
    writer.tensor("output_norm.weight", &[32], GgmlType::F32);
    for layer in 0..2 {
        for (name, dims, ggml_type) in [
            ("attn_norm", &[32][..], GgmlType::F32),
            ("attn_q", &[32, 32], GgmlType::Q4_0),
            ("attn_k", &[32, 16], GgmlType::Q4_0),
            ("attn_v", &[32, 16], GgmlType::F16),
            ("attn_output", &[32, 32], GgmlType::Q4_0),
            ("ffn_norm", &[32], GgmlType::F32),
            ("ffn_gate", &[32, 64], GgmlType::Q4_0),
            ("ffn_up", &[32, 64], GgmlType::Q4_0),
            ("ffn_down", &[64, 32], GgmlType::F32),
        ] {
            writer.tensor(&format!("blk.{layer}.{name}.weight"), dims, ggml_type);
        }
    }
    writer
}

/// A complete, tiny reranker of architecture `bert` (2 layers, 16 wide, 2 token types, 8 tokens: four control tokens and
/// the words `a` to `d`) with pooler and classifier; tests change it piece by piece.
pub fn tiny_bert() -> Writer {
    let mut writer = Writer::default();
    let text = |text: &str| Value::Str(text.into());
    for (key, value) in [
        ("general.architecture", text("bert")),
        ("general.type", text("model")),
        ("bert.block_count", Value::U32(2)),
        ("bert.context_length", Value::U32(64)),
        ("bert.embedding_length", Value::U32(16)),
        ("bert.feed_forward_length", Value::U32(24)),
        ("bert.attention.head_count", Value::U32(2)),
        ("bert.attention.layer_norm_epsilon", Value::F32(1e-12)),
        ("bert.attention.causal", Value::Bool(false)),
        ("tokenizer.ggml.model", text("bert")),
        ("tokenizer.ggml.token_type_count", Value::U32(2)),
        ("tokenizer.ggml.padding_token_id", Value::U32(0)),
        ("tokenizer.ggml.unknown_token_id", Value::U32(1)),
        ("tokenizer.ggml.bos_token_id", Value::U32(2)),
        ("tokenizer.ggml.eos_token_id", Value::U32(3)),
        ("tokenizer.ggml.seperator_token_id", Value::U32(3)),
        ("tokenizer.ggml.mask_token_id", Value::U32(0)),
    ] {
        writer.set(key, value);
    }
    let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u{2581}a", "\u{2581}b", "\u{2581}c", "\u{2581}d"];
    writer.set("tokenizer.ggml.tokens", Value::Array(Array::Str(tokens.into_iter().collect())));
    writer.set("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![3, 2, 3, 3, 1, 1, 1, 1])));
    let mut tensor = |name: &str, dims: &[u64]| _ = writer.tensor(name, dims, GgmlType::F32);
    tensor("token_embd.weight", &[16, 8]);
    tensor("position_embd.weight", &[16, 64]);
    tensor("token_types.weight", &[16, 2]);
    let mut layer = |name: &str, [n_in, n_out]: [u64; 2]| {
        let dims = if n_in == 1 { vec![n_out] } else { vec![n_in, n_out] };
        tensor(&format!("{name}.weight"), &dims);
        tensor(&format!("{name}.bias"), &[n_out]);
    };
    layer("token_embd_norm", [1, 16]);
    for block in 0..2 {
        for (name, sizes) in [
            ("attn_q", [16, 16]),
            ("attn_k", [16, 16]),
            ("attn_v", [16, 16]),
            ("attn_output", [16, 16]),
            ("attn_output_norm", [1, 16]),
            ("ffn_up", [16, 24]),
            ("ffn_down", [24, 16]),
            ("layer_output_norm", [1, 16]),
        ] {
            layer(&format!("blk.{block}.{name}"), sizes);
        }
    }
    layer("cls", [16, 16]);
    layer("cls.output", [16, 1]);
    writer
}

/// Control tokens, all bytes and some letters, with their types.
fn tiny_vocabulary() -> (Vec<String>, Vec<i32>) {
    const UNKNOWN: i32 = 2;
    const CONTROL: i32 = 3;
    const BYTE: i32 = 6;
    const NORMAL: i32 = 1;
    let control = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)];
    let control = control.map(|(text, token_type)| (text.to_owned(), token_type));
    let bytes = (0..=255_u8).map(|byte| (format!("<0x{byte:02X}>"), BYTE));
    let letters = ('a'..='z').chain("▁ .,!?".chars()).map(|letter| (letter.to_string(), NORMAL));
    control.into_iter().chain(bytes).chain(letters).unzip()
}
