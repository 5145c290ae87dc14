//! Files that are no models, and whole small models in each form.

use std::path::Path;

use super::{ModelFiles, WeightsError};

fn open(path: &Path) -> Result<ModelFiles, WeightsError> {
    ModelFiles::open(path)
}

#[test]
fn what_is_no_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(open(&folder.path().join("gone.bin")), Err(WeightsError::Io { .. })));
    assert!(matches!(open(folder.path()), Err(WeightsError::Unknown { .. })));
    for (name, bytes) in [("a.bin", &b"hello"[..]), ("b.bin", &[0; 100][..]), ("c.bin", b"")] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(open(&path), Err(WeightsError::Unknown { .. })), "{name}");
    }
    // A header without what it announces.
    let mut ggml = 0x6767_6d6c_u32.to_le_bytes().to_vec();
    ggml.extend([51_864_u32, 1500, 384, 6, 4, 448, 384, 6, 4, 80, 1].map(u32::to_le_bytes).concat());
    ggml.extend([80_u32, 201].map(u32::to_le_bytes).concat());
    let path = folder.path().join("cut.bin");
    std::fs::write(&path, &ggml).unwrap();
    assert!(matches!(open(&path), Err(WeightsError::Invalid { .. })));
    for bytes in [&[6, 0, 0, 0][..], &[9, 0, 0, 0, 1, 0], &[6, 0, 0, 0, 255, 255, 1]] {
        std::fs::write(folder.path().join("model.bin"), bytes).unwrap();
        assert!(matches!(open(folder.path()), Err(WeightsError::Invalid { .. })), "{bytes:?}");
    }
}

/// A tensor of ggml: dimensions, the fastest first.
fn ggml_tensor(name: &str, kind: u32, dims: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = [dims.len() as u32, name.len() as u32, kind].map(u32::to_le_bytes).concat();
    bytes.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
    bytes.extend(name.as_bytes());
    bytes.extend(data);
    bytes
}

#[test]
fn tensors_of_whisper_cpp_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ggml-small.bin");
    let mut bytes = 0x6767_6d6c_u32.to_le_bytes().to_vec();
    bytes.extend([51_864_u32, 1500, 32, 1, 1, 448, 32, 1, 1, 2, 1].map(u32::to_le_bytes).concat());
    bytes.extend([2_u32, 201].map(u32::to_le_bytes).concat());
    bytes.extend(vec![0; 2 * 201 * 4]);
    bytes.extend(50_256_u32.to_le_bytes());
    for word in 0..50_256_u32 {
        bytes.extend(4_u32.to_le_bytes());
        bytes.extend(word.to_be_bytes());
    }
    // One block of q8_0: a scale in f16 (0.5) and 32 numbers.
    let mut block = vec![0x00, 0x38];
    block.extend(0..32_u8);
    bytes.extend(ggml_tensor("encoder.blocks.0.attn.query.weight", 8, &[32, 1], &block));
    let column: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    bytes.extend(ggml_tensor("encoder.conv1.bias", 0, &[1, 2], &column));
    std::fs::write(&path, &bytes).unwrap();
    let mut files = open(&path).unwrap();
    assert_eq!(files.n_heads, Some(1));
    let query = files.weights.read("encoder.layers.0.self_attn.q_proj.weight").unwrap();
    assert_eq!(query.dims(), [1, 32]);
    assert_eq!(query.to_vec2::<f32>().unwrap()[0][31], 15.5);
    assert_eq!(files.weights.read("encoder.conv1.bias").unwrap().to_vec1::<f32>().unwrap(), [1.5, -2.0]);
    assert!(!files.weights.has("encoder.conv2.bias"));
    assert!(matches!(files.weights.read("encoder.conv2.bias"), Err(WeightsError::Missing { .. })));
    bytes.truncate(bytes.len() - 3);
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(open(&path), Err(WeightsError::Invalid { .. })));
}

/// A folder with the table of words of a model, `rows` long, and no other tensor.
fn folder_of(rows: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let n_bytes = rows * 4;
    let tensor = format!(r#"{{"dtype": "F32", "shape": [{rows}, 1], "data_offsets": [0, {n_bytes}]}}"#);
    let header = format!(r#"{{"model.decoder.embed_tokens.weight": {tensor}}}"#);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.resize(bytes.len() + n_bytes, 0);
    std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    folder
}

/// `n` words and the end of text as `{"word": id}`.
fn words(n: usize) -> serde_json::Map<String, serde_json::Value> {
    let words = (0..n).map(|id| (format!("w{id}"), id.into()));
    words.chain([("<|endoftext|>".to_owned(), n.into())]).collect()
}

#[test]
fn words_may_lie_in_older_files_and_end_before_the_timestamps() {
    let write = |folder: &Path, name: &str, json: serde_json::Value| {
        std::fs::write(folder.join(name), json.to_string()).unwrap();
    };
    // `tokenizer.json` without timestamps, as older versions of the library wrote it.
    for rows in [51_865, 51_872] {
        let folder = folder_of(rows);
        let mut vocab = words(50_257);
        if rows == 51_872 {
            // Rows that fill the matrix up: the words tell the size.
            vocab.insert("<|30.00|>".to_owned(), 51_864.into());
        }
        write(folder.path(), "tokenizer.json", serde_json::json!({"model": {"vocab": vocab}}));
        let vocabulary = open(folder.path()).unwrap().vocabulary;
        assert_eq!((vocabulary.n_vocab, vocabulary.n_languages, vocabulary.first_timestamp()), (51_865, 99, 50_364));
    }
    // `vocab.json` alone, and with `added_tokens.json` that has the end.
    let folder = folder_of(51_864);
    write(folder.path(), "vocab.json", words(50_256).into());
    assert_eq!(open(folder.path()).unwrap().vocabulary.end(), 50_256);
    let mut bare = words(50_256);
    let end = bare.remove("<|endoftext|>").unwrap();
    write(folder.path(), "vocab.json", bare.into());
    assert!(matches!(open(folder.path()), Err(WeightsError::Invalid { .. })));
    write(folder.path(), "added_tokens.json", serde_json::json!({"<|endoftext|>": end, "<|notimestamps|>": 50_362}));
    let vocabulary = open(folder.path()).unwrap().vocabulary;
    assert_eq!((vocabulary.n_vocab, vocabulary.multilingual, vocabulary.text(&[7])), (51_864, false, "w7".to_owned()));
    // A gap among the words.
    let mut gap = words(50_256);
    gap.remove("w100");
    write(folder.path(), "vocab.json", gap.into());
    assert!(matches!(open(folder.path()), Err(WeightsError::Invalid { .. })));
}
