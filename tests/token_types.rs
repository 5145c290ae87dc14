//! One tiny BERT reranker as safetensors and as GGUF: where their scores differ, and why.

use std::path::Path;

use ingle_candle::CandleBackend;
use ingle_engine::{Backend, Hardware, LoadOptions, Sequence, Task};
use ingle_gguf::writer::tiny_bert;
use ingle_llama::LlamaBackend;
use serde_json::{Value, json};

/// Names of a layer's weights and biases in GGUF and in safetensors, with the numbers it takes and gives; a norm takes
/// none.
fn layers() -> Vec<(String, String, [usize; 2])> {
    let mut layers = vec![("token_embd_norm".into(), "bert.embeddings.LayerNorm".into(), [0, 16])];
    for block in 0..2 {
        for (ours, theirs, sizes) in [
            ("attn_q", "attention.self.query", [16, 16]),
            ("attn_k", "attention.self.key", [16, 16]),
            ("attn_v", "attention.self.value", [16, 16]),
            ("attn_output", "attention.output.dense", [16, 16]),
            ("attn_output_norm", "attention.output.LayerNorm", [0, 16]),
            ("ffn_up", "intermediate.dense", [16, 24]),
            ("ffn_down", "output.dense", [24, 16]),
            ("layer_output_norm", "output.LayerNorm", [0, 16]),
        ] {
            layers.push((format!("blk.{block}.{ours}"), format!("bert.encoder.layer.{block}.{theirs}"), sizes));
        }
    }
    layers.push(("cls".into(), "bert.pooler.dense".into(), [16, 16]));
    layers.push(("cls.output".into(), "classifier".into(), [16, 1]));
    layers
}

/// All tensors: name in GGUF, name and shape in safetensors.
fn tensors() -> Vec<(String, String, Vec<usize>)> {
    let table = |ours: &str, theirs: &str, n_rows: usize| {
        (format!("{ours}.weight"), format!("bert.embeddings.{theirs}.weight"), vec![n_rows, 16])
    };
    let mut tensors = vec![
        table("token_embd", "word_embeddings", 8),
        table("position_embd", "position_embeddings", 64),
        table("token_types", "token_type_embeddings", 2),
    ];
    for (ours, theirs, [n_in, n_out]) in layers() {
        let shape = if n_in == 0 { vec![n_out] } else { vec![n_out, n_in] };
        tensors.push((format!("{ours}.weight"), format!("{theirs}.weight"), shape));
        tensors.push((format!("{ours}.bias"), format!("{theirs}.bias"), vec![n_out]));
    }
    tensors
}

/// A tensor's number, by its name in GGUF: random to look at, around 1 for the weights of norms.
fn number(name: &str, idx: usize) -> f32 {
    let seed = name.bytes().fold(7_u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let mixed = (idx as u32).wrapping_mul(2_654_435_761).wrapping_add(seed);
    let noise = (mixed >> 16) as f32 / 65_536.0 - 0.5;
    if name.ends_with("norm.weight") { 1.0 + noise / 4.0 } else { noise }
}

fn write_folder(folder: &Path) {
    let config = json!({
        "architectures": ["BertForSequenceClassification"], "model_type": "bert", "vocab_size": 8, "hidden_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 64,
        "layer_norm_eps": 1e-12, "id2label": {"0": "LABEL_0"},
        "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity",
    });
    let vocab: serde_json::Map<String, Value> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d"]
        .into_iter()
        .enumerate()
        .map(|(id, token)| (token.to_owned(), id.into()))
        .collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    });
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (ours, theirs, shape) in tensors() {
        let from = data.len();
        data.extend((0..shape.iter().product()).flat_map(|idx| number(&ours, idx).to_le_bytes()));
        header.insert(theirs, json!({"dtype": "F32", "shape": shape, "data_offsets": [from, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    let weights = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    std::fs::write(folder.join("config.json"), config.to_string()).expect("the folder is writable");
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).expect("the folder is writable");
    std::fs::write(folder.join("model.safetensors"), weights).expect("the folder is writable");
}

fn scores(backend: &dyn Backend, path: &Path, sequences: Vec<Sequence>) -> Vec<f32> {
    let options = LoadOptions {
        name: "tiny".into(),
        path: path.to_owned(),
        tasks: [Task::Rerank].into_iter().collect(),
        threads: Some(1),
        ..LoadOptions::default()
    };
    let hardware = Hardware { n_cores: 1, ..Hardware::default() };
    let model = backend.load(&options, &hardware).expect("it loads").rerank.expect("it reranks");
    model.thread.submit(sequences, None).expect("there is room").wait().expect("it runs").responses
}

/// llama.cpp gives every token the type of the first text. Computed like that, our own engine has the same scores; with
/// the types that the model was trained with it has others. So the difference is the token types and nothing else.
#[test]
fn scores_of_gguf_rerankers_lack_the_token_types() {
    let folder = tempfile::tempdir().expect("a folder");
    write_folder(folder.path());
    let file = folder.path().join("tiny.gguf");
    std::fs::write(&file, tiny_bert().bytes_of(number)).expect("the folder is writable");
    let pairs = [(vec![2, 4, 3, 5, 6, 3], 3), (vec![2, 7, 4, 3, 4, 7, 5, 3], 4), (vec![2, 6, 3, 6, 3], 3)];
    let typed = |with_types: bool| -> Vec<Sequence> {
        let sequence = |(tokens, second_from): &(Vec<u32>, usize)| match with_types {
            true => Sequence { tokens: tokens.clone(), second_from: *second_from },
            false => Sequence::single(tokens.clone()),
        };
        pairs.iter().map(sequence).collect()
    };
    let gguf = scores(&LlamaBackend, &file, typed(true));
    let untyped = scores(&CandleBackend, folder.path(), typed(false));
    let whole = scores(&CandleBackend, folder.path(), typed(true));
    for ((gguf, untyped), whole) in gguf.iter().zip(&untyped).zip(&whole) {
        assert!((gguf - untyped).abs() < 1e-2, "{gguf} instead of {untyped}");
        assert!((gguf - whole).abs() > 2e-2, "{gguf} and {whole}");
    }
}
