//! Writes a large GGUF file with the shape of a real model and random weights, for speed and memory measurements on
//! machines that no model hub reaches: `random_model SHAPE FILE`.
//!
//! Types are mixed as llama.cpp's Q4_K_M mixes them. The vocabulary has the real number of tokens, of which the first
//! are the bytes and the others are made up, so that every text can be tokenized and every token has a text.

use std::fs::File;
use std::io::BufWriter;

use ingle_gguf::writer::Writer;
use ingle_gguf::{Array, GgmlType, Value};

/// What a speed depends on.
struct Shape {
    name: &'static str,
    architecture: &'static str,
    n_layers: u64,
    n_embd: u64,
    n_heads: u64,
    n_kv_heads: u64,
    head_dim: u64,
    n_ff: u64,
    n_vocab: u64,
    /// Experts, those used for a token, and the width of one.
    experts: Option<(u64, u64, u64)>,
}

const SHAPES: [Shape; 3] = [
    // Qwen3-8B and Qwen3-30B-A3B, after their published configurations.
    Shape {
        name: "8b",
        architecture: "qwen3",
        n_layers: 36,
        n_embd: 4096,
        n_heads: 32,
        n_kv_heads: 8,
        head_dim: 128,
        n_ff: 12_288,
        n_vocab: 151_936,
        experts: None,
    },
    Shape {
        name: "30b-a3b",
        architecture: "qwen3moe",
        n_layers: 48,
        n_embd: 2048,
        n_heads: 32,
        n_kv_heads: 4,
        head_dim: 128,
        n_ff: 6144,
        n_vocab: 151_936,
        experts: Some((128, 8, 768)),
    },
    // Small enough for a trial of a script.
    Shape {
        name: "tiny",
        architecture: "qwen3",
        n_layers: 2,
        n_embd: 512,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 128,
        n_ff: 1024,
        n_vocab: 4096,
        experts: None,
    },
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let names = SHAPES.map(|shape| shape.name).join(", ");
    let [name, path] = &arguments[..] else { return Err(format!("usage: random_model SHAPE FILE ({names})").into()) };
    let shape = SHAPES.into_iter().find(|shape| shape.name == name);
    let shape = shape.ok_or_else(|| format!("there is no shape {name:?}; choose one of {names}"))?;
    let mut writer = Writer::default();
    set_keys(&mut writer, &shape);
    set_vocabulary(&mut writer, shape.n_vocab);
    add_tensors(&mut writer, &shape);
    let mut blocks = RandomBlocks::new();
    writer.write_to(&mut BufWriter::new(File::create(path)?), |_, ggml_type, data| blocks.fill(ggml_type, data))?;
    Ok(())
}

fn set_keys(writer: &mut Writer, shape: &Shape) {
    let key = |name: &str| format!("{}.{name}", shape.architecture);
    let number = |number: u64| Value::U32(u32::try_from(number).expect("shapes are small"));
    writer.set("general.architecture", Value::Str(shape.architecture.into()));
    writer.set("general.name", Value::Str(format!("random {}", shape.name)));
    writer.set("general.file_type", Value::U32(15));
    for (name, value) in [
        ("block_count", shape.n_layers),
        ("context_length", 40_960),
        ("embedding_length", shape.n_embd),
        ("feed_forward_length", shape.n_ff),
        ("attention.head_count", shape.n_heads),
        ("attention.head_count_kv", shape.n_kv_heads),
        ("attention.key_length", shape.head_dim),
        ("attention.value_length", shape.head_dim),
    ] {
        writer.set(&key(name), number(value));
    }
    writer.set(&key("attention.layer_norm_rms_epsilon"), Value::F32(1e-6));
    writer.set(&key("rope.freq_base"), Value::F32(1e6));
    if let Some((n_experts, n_used, n_ff)) = shape.experts {
        writer.set(&key("expert_count"), number(n_experts));
        writer.set(&key("expert_used_count"), number(n_used));
        writer.set(&key("expert_feed_forward_length"), number(n_ff));
    }
}

/// A byte-level BPE vocabulary as GPT-2's: printable bytes stand for themselves, the others for code points from 256.
fn set_vocabulary(writer: &mut Writer, n_vocab: u64) {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next_free = 256..;
    let bytes = (0..=255_u8).map(|byte| {
        let code = if is_printable(byte) { u32::from(byte) } else { next_free.next().expect("the range is open") };
        char::from_u32(code).expect("below the surrogates").to_string()
    });
    let bytes: Vec<String> = bytes.collect();
    let made_up = (bytes.len() as u64 + 1..n_vocab).map(|id| format!("Ġw{id}"));
    let tokens: Vec<String> = bytes.iter().cloned().chain(made_up).chain(["<|end|>".into()]).collect();
    let mut types = vec![1; tokens.len()];
    *types.last_mut().expect("the end token") = 3;
    writer.set("tokenizer.ggml.model", Value::Str("gpt2".into()));
    writer.set("tokenizer.ggml.pre", Value::Str("qwen2".into()));
    let end = u32::try_from(tokens.len() - 1).expect("vocabularies are small");
    writer.set("tokenizer.ggml.eos_token_id", Value::U32(end));
    writer.set("tokenizer.ggml.add_bos_token", Value::Bool(false));
    writer.set("tokenizer.ggml.tokens", Value::Array(Array::Str(tokens.into_iter().collect())));
    writer.set("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
    writer.set("tokenizer.ggml.merges", Value::Array(Array::Str(["Ġ w".to_owned()].into_iter().collect())));
}

fn add_tensors(writer: &mut Writer, shape: &Shape) {
    let (n_embd, width) = (shape.n_embd, shape.n_heads * shape.head_dim);
    let kv_width = shape.n_kv_heads * shape.head_dim;
    writer.tensor("token_embd.weight", &[n_embd, shape.n_vocab], GgmlType::Q4_K);
    writer.tensor("output_norm.weight", &[n_embd], GgmlType::F32);
    writer.tensor("output.weight", &[n_embd, shape.n_vocab], GgmlType::Q6_K);
    for layer in 0..shape.n_layers {
        // llama.cpp's rule for the layers that get more bits.
        let eighth = shape.n_layers / 8;
        let more = layer < eighth || layer >= 7 * shape.n_layers / 8 || (layer - eighth) % 3 == 2;
        let better = if more { GgmlType::Q6_K } else { GgmlType::Q4_K };
        let mut add = |name: &str, dims: &[u64], ggml_type| {
            writer.tensor(&format!("blk.{layer}.{name}.weight"), dims, ggml_type);
        };
        add("attn_norm", &[n_embd], GgmlType::F32);
        add("attn_q", &[n_embd, width], GgmlType::Q4_K);
        add("attn_k", &[n_embd, kv_width], GgmlType::Q4_K);
        add("attn_v", &[n_embd, kv_width], better);
        add("attn_q_norm", &[shape.head_dim], GgmlType::F32);
        add("attn_k_norm", &[shape.head_dim], GgmlType::F32);
        add("attn_output", &[width, n_embd], GgmlType::Q4_K);
        add("ffn_norm", &[n_embd], GgmlType::F32);
        match shape.experts {
            None => {
                add("ffn_gate", &[n_embd, shape.n_ff], GgmlType::Q4_K);
                add("ffn_up", &[n_embd, shape.n_ff], GgmlType::Q4_K);
                add("ffn_down", &[shape.n_ff, n_embd], better);
            }
            Some((n_experts, _, n_ff)) => {
                add("ffn_gate_inp", &[n_embd, n_experts], GgmlType::F32);
                add("ffn_gate_exps", &[n_embd, n_ff, n_experts], GgmlType::Q4_K);
                add("ffn_up_exps", &[n_embd, n_ff, n_experts], GgmlType::Q4_K);
                add("ffn_down_exps", &[n_ff, n_embd, n_experts], better);
            }
        }
    }
}

/// Blocks whose weights have a mean of 0 and a standard deviation of about 0.02, as trained models have: activations
/// stay finite through all layers.
struct RandomBlocks(u64);

impl RandomBlocks {
    fn new() -> Self {
        Self(0x1e37_79b9_7f4a_7c15)
    }

    /// Xorshift64*: quick rather than good, which is enough here.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn fill(&mut self, ggml_type: GgmlType, data: &mut [u8]) {
        match ggml_type {
            // Norms and the router: near 1 for norms; the router's choice is random with small numbers as well.
            GgmlType::F32 => data.chunks_exact_mut(4).for_each(|number| {
                let noise = (self.next() >> 40) as f32 / (1 << 24) as f32;
                number.copy_from_slice(&(0.9 + 0.2 * noise).to_le_bytes());
            }),
            _ => {
                let mut words = data.chunks_exact_mut(8);
                words.by_ref().for_each(|word| word.copy_from_slice(&self.next().to_le_bytes()));
                let rest = words.into_remainder();
                let last = self.next().to_le_bytes();
                rest.copy_from_slice(&last[..rest.len()]);
                let block_bytes = ggml_type.block_bytes() as usize;
                data.chunks_exact_mut(block_bytes).for_each(|block| set_scales(ggml_type, block));
            }
        }
    }
}

/// Replaces the scales of a random block, see `block_q4_K` and `block_q6_K` in ggml-common.h.
fn set_scales(ggml_type: GgmlType, block: &mut [u8]) {
    // 1.36e-4 and 7.5 times that as f16; all 6-bit scales and minima are 32: a weight is d * 32 * (q - 7.5).
    const D: u16 = 0x0875;
    const D_MIN: u16 = 0x142e;
    // 3.4e-5: a weight is d * 32 * (q - 32), q of 6 bits.
    const D_6: u16 = 0x023a;
    match ggml_type {
        GgmlType::Q4_K => {
            block[..2].copy_from_slice(&D.to_le_bytes());
            block[2..4].copy_from_slice(&D_MIN.to_le_bytes());
            // Scale and minimum 0 to 3 in 8 bytes, then the low 4 bits of 4 to 7, whose high bits are in the first 8.
            block[4..12].fill(0x80 | 0x20);
            block[12..16].fill(0);
        }
        GgmlType::Q6_K => {
            block[192..208].fill(32);
            block[208..210].copy_from_slice(&D_6.to_le_bytes());
        }
        other => unreachable!("no shape has tensors of type {other}"),
    }
}
