//! Embedding models and rerankers, as tiny files that are written here.

use std::path::Path;

use ingle_engine::{Backend, Engine, EngineError, LoadOptions, Sequence, Task};
use ingle_gguf::writer::{Writer, tiny_bert};
use ingle_gguf::{Array, GgmlType, Value};
use ingle_llama::LlamaBackend;

use crate::common::{hardware, options};

/// Numbers that look random, around 1 for the weights of norms.
fn number(name: &str, idx: usize) -> f32 {
    let seed = name.bytes().fold(7_u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let mixed = (idx as u32).wrapping_mul(2_654_435_761).wrapping_add(seed);
    let noise = (mixed >> 16) as f32 / 65_536.0 - 0.5;
    if name.ends_with("norm.weight") { 1.0 + noise / 4.0 } else { noise }
}

fn load(folder: &Path, writer: &Writer, task: Task) -> Result<Engine, EngineError> {
    let path = folder.join("tiny.gguf");
    std::fs::write(&path, writer.bytes_of(number)).expect("the folder is writable");
    let options = LoadOptions { tasks: [task].into_iter().collect(), context_size: None, ..options(path, "tiny") };
    LlamaBackend.load(&options, &hardware())
}

#[test]
fn vectors_have_the_width_that_the_file_gives_them() {
    let folder = tempfile::tempdir().expect("a folder");
    for (width, written) in [(16, None), (8, Some(8))] {
        let mut writer = tiny_bert();
        if let Some(width) = written {
            writer.set("bert.embedding_length_out", Value::U32(width));
        }
        let model = load(folder.path(), &writer, Task::Embed).expect("it loads").embed.expect("it embeds");
        assert_eq!(model.info.n_embd, width);
        let sequence = model.encoder.encode("a b").expect("it is text").sequence;
        assert_eq!(sequence.tokens, [2, 4, 5, 3]);
        let vectors = model.thread.submit(vec![sequence], None).expect("there is room").wait().expect("it runs");
        assert_eq!(vectors.responses[0].len(), width);
    }
}

#[test]
fn a_model_without_a_classifier_does_not_rerank() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = tiny_bert();
    writer.without(|name| name.starts_with("cls.output"));
    let refused = load(folder.path(), &writer, Task::Rerank).err().expect("it is refused").to_string();
    assert!(refused.contains("tiny.gguf") && refused.contains("cls.output.weight"), "{refused}");
    assert!(load(folder.path(), &writer, Task::Embed).is_ok());
    assert!(load(folder.path(), &tiny_bert(), Task::Rerank).is_ok());
}

#[test]
fn clients_cannot_put_control_tokens_into_a_template() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = tiny_bert();
    writer.set("tokenizer.chat_template.rerank", Value::Str("[CLS]{query}[SEP]{document}[SEP]".into()));
    let model = load(folder.path(), &writer, Task::Rerank).expect("it loads").rerank.expect("it reranks");
    let tokens =
        |query: &str, document: &str| model.encoder.encode_pair(query, document).expect("it is text").sequence.tokens;
    assert_eq!(tokens("a", "b c"), [2, 4, 3, 5, 6, 3]);
    let found = tokens("a[SEP]b", "[CLS] {query}");
    let count = |token: u32| found.iter().filter(|&&found| found == token).count();
    assert_eq!((count(2), count(3)), (1, 2), "{found:?}");
}

#[test]
fn xlm_r_pairs_have_two_separators_whether_the_file_says_so_or_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = tiny_bert();
    let tokens = ["<s>", "<pad>", "</s>", "<unk>", "\u{2581}a", "\u{2581}b", "\u{2581}c", "\u{2581}d"];
    let flag = Value::Bool(true);
    for (key, value) in [
        ("tokenizer.ggml.model", Value::Str("t5".into())),
        ("tokenizer.ggml.tokens", Value::Array(Array::Str(tokens.into_iter().collect()))),
        ("tokenizer.ggml.scores", Value::Array(Array::F32((0..8).map(|id| -(id as f32)).collect()))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![3, 3, 3, 2, 1, 1, 1, 1]))),
        ("tokenizer.ggml.token_type_count", Value::U32(1)),
        ("tokenizer.ggml.bos_token_id", Value::U32(0)),
        ("tokenizer.ggml.padding_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
        ("tokenizer.ggml.seperator_token_id", Value::U32(2)),
        ("tokenizer.ggml.unknown_token_id", Value::U32(3)),
        ("tokenizer.ggml.add_bos_token", flag.clone()),
        ("tokenizer.ggml.add_eos_token", flag.clone()),
        ("tokenizer.ggml.add_space_prefix", flag.clone()),
    ] {
        writer.set(key, value);
    }
    writer.tensor("token_types.weight", &[16, 1], GgmlType::F32);
    let expected = Sequence { tokens: vec![0, 4, 2, 2, 5, 6, 2], second_from: 4 };
    for says_so in [false, true] {
        if says_so {
            writer.set("tokenizer.ggml.add_sep_token", flag.clone());
        }
        let model = load(folder.path(), &writer, Task::Rerank).expect("it loads").rerank.expect("it reranks");
        assert_eq!(model.encoder.encode_pair("a", "b c").expect("it is text").sequence, expected, "{says_so}");
    }
}
