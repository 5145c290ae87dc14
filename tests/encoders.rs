//! Embeddings and reranking of the real program with real models.

use std::path::Path;

use serde_json::{Value, json};

use crate::openai::run_client;
use crate::support::{Server, chat_model, embedding_folder, failure_of, ingle, stdout_of};

/// Texts and the first numbers of their vectors, as sentence-transformers 6.2 gives them for all-MiniLM-L6-v2.
const EXPECTED: [(&str, [f32; 6]); 8] = [
    (
        "How do I reset my password?",
        [0.006_903_131, -0.063_023_38, -0.072_043_98, -0.032_496_07, -0.042_709_35, 0.070_429_41],
    ),
    ("The weather is nice.", [-0.033_871_2, 0.061_711_37, 0.147_690_9, 0.108_570_9, -0.015_110_28, -0.002_198_558]),
    ("Привет, мир!", [0.011_719_57, 0.049_362_07, 0.008_154_319, -0.008_281_703, -0.080_735_4, 0.013_773_82]),
    ("你好，世界", [-0.034_980_07, 0.138_732_2, 0.033_373_3, -0.012_748_52, 0.034_058_51, 0.010_502_82]),
    ("naïve café — Zürich", [0.009_656_287, 0.028_655_01, -0.006_706_876, 0.021_147_53, 0.075_017_56, 0.014_355]),
    (
        "x = foo(bar)[3] != 'y'; // ¿qué?",
        [0.010_536_53, 0.003_181_336, 0.005_923_956, -0.040_204_51, -0.061_459_28, -0.042_134_36],
    ),
    ("🙂 emoji", [-0.037_684_35, 0.033_530_99, 0.078_509_84, -0.003_165_31, 0.003_734_02, -0.099_149_4]),
    // 600 words: cut to the model's 256 tokens.
    ("LONG", [-0.014_422_59, -0.047_101_63, 0.023_829_78, -0.082_848_97, -0.141_339_9, -0.011_773_45]),
];

fn text(shown: &str) -> String {
    if shown == "LONG" { "a ".repeat(600) } else { shown.to_owned() }
}

/// A models folder with the embedding model as the customer has it.
fn customer(model: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let original = model.canonicalize().expect("the model exists");
    std::os::unix::fs::symlink(original, folder.path().join("all-MiniLM-L6-v2")).expect("a link");
    let yaml = "name: text-embedding-ada-002\nbackend: sentencetransformers\nembeddings: true\nparameters:\n  model: all-MiniLM-L6-v2\n";
    std::fs::write(folder.path().join("ada.yaml"), yaml).expect("the folder is writable");
    folder
}

fn post(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let response = agent.post(format!("{}{path}", server.url)).header("content-type", "application/json");
    let mut response = response.send(body.to_string()).expect("an answer");
    let text = response.body_mut().with_config().limit(256 << 20).read_to_string().expect("a body");
    (response.status().as_u16(), serde_json::from_str(&text).expect("JSON"))
}

fn numbers(vector: &Value) -> Vec<f32> {
    let numbers = vector.as_array().expect("a list").iter();
    numbers.map(|number| number.as_f64().expect("a number") as f32).collect()
}

fn assert_close(actual: &[f32], expected: &[f32], what: &str) {
    for (actual, expected) in actual.iter().zip(expected) {
        assert!((actual - expected).abs() < 1e-5, "{what}: {actual} instead of {expected}");
    }
}

#[test]
fn the_customers_embedding_model_gives_the_librarys_numbers() {
    let Some(model) = embedding_folder() else { return };
    let folder = customer(&model);
    let path = folder.path().to_str().expect("UTF-8");
    let server = Server::start(ingle(&["run", "--models-path", path]));
    let texts: Vec<String> = EXPECTED.iter().map(|(shown, _)| text(shown)).collect();
    let (status, body) = post(&server, "/v1/embeddings", &json!({"model": "text-embedding-ada-002", "input": texts}));
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["data"].as_array().map(Vec::len), Some(EXPECTED.len()));
    for ((shown, expected), entry) in EXPECTED.iter().zip(body["data"].as_array().expect("a list")) {
        let vector = numbers(&entry["embedding"]);
        assert_eq!(vector.len(), 384);
        assert_close(&vector, expected, shown);
        // A batch equals its single texts.
        let (_, alone) = post(&server, "/v1/embeddings", &json!({"input": text(shown)}));
        let alone = numbers(&alone["data"][0]["embedding"]);
        let difference = alone.iter().zip(&vector).map(|(a, b)| (a - b).abs());
        assert!(difference.fold(0.0, f32::max) < 1e-6, "{shown}");
    }
    for (body, status) in [
        (json!({"input": vec!["a ".repeat(100_000)]}), 200),
        (json!({"input": vec!["short"; 10_000]}), 200),
        (json!({"input": [30_522]}), 400),
        (json!({"input": ""}), 400),
        (json!({"input": "a", "dimensions": 64}), 400),
    ] {
        let (found, answer) = post(&server, "/v1/embeddings", &body);
        let shown: String = body.to_string().chars().take(60).collect();
        assert_eq!(found, status, "{shown}: {:?}", answer["error"]);
    }
    run_client("INGLE_OPENAI_PYTHON", "embeddings_check.py", &server, &["text-embedding-ada-002"]);
}

/// A cross-encoder in `folder`: the embedding model's own layers with a random head on them.
fn write_cross_encoder(model: &Path, folder: &Path) {
    std::fs::create_dir_all(folder).expect("the folder is writable");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"] {
        if model.join(file).is_file() {
            std::fs::copy(model.join(file), folder.join(file)).expect("a copy");
        }
    }
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(model.join("config.json")).expect("a configuration")).expect("JSON");
    config["architectures"] = json!(["BertForSequenceClassification"]);
    config["id2label"] = json!({"0": "LABEL_0"});
    std::fs::write(folder.join("config.json"), config.to_string()).expect("the folder is writable");
    let weights = std::fs::read(model.join("model.safetensors")).expect("weights");
    let (len, rest) = weights.split_first_chunk::<8>().expect("a header");
    let (header, data) = rest.split_at(u64::from_le_bytes(*len) as usize);
    let tensors: serde_json::Map<String, Value> = serde_json::from_slice(header).expect("a header");
    let mut named: serde_json::Map<String, Value> = tensors
        .into_iter()
        .map(|(name, place)| if name == "__metadata__" { (name, place) } else { (format!("bert.{name}"), place) })
        .collect();
    let head: Vec<u8> = (0..385_u32).flat_map(|idx| ((idx * 37 % 101) as f32 / 50.0 - 1.0).to_le_bytes()).collect();
    let (from, bias) = (data.len(), data.len() + 384 * 4);
    named.insert("classifier.weight".into(), json!({"dtype": "F32", "shape": [1, 384], "data_offsets": [from, bias]}));
    named.insert("classifier.bias".into(), json!({"dtype": "F32", "shape": [1], "data_offsets": [bias, bias + 4]}));
    let header = Value::Object(named).to_string();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data, &head].concat();
    std::fs::write(folder.join("model.safetensors"), file).expect("the folder is writable");
}

#[test]
fn packages_of_others_embed_and_rerank() {
    let Some(model) = embedding_folder() else { return };
    let folder = customer(&model);
    write_cross_encoder(&model, &folder.path().join("ranker"));
    let path = folder.path().to_str().expect("UTF-8");
    let server = Server::start(ingle(&["run", "--models-path", path]));
    run_client("INGLE_RAG_PYTHON", "rag_check.py", &server, &["text-embedding-ada-002", "ranker"]);
}

#[test]
fn commands_embed_without_a_server() {
    let Some(model) = embedding_folder() else { return };
    let folder = customer(&model);
    let path = folder.path().to_str().expect("UTF-8");
    let arguments = ["embed", "--models-path", path, EXPECTED[0].0, EXPECTED[1].0];
    let printed = stdout_of(ingle(&arguments));
    let rows: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    for ((shown, expected), row) in EXPECTED.iter().zip(&rows) {
        assert_eq!(row["text"], *shown);
        assert_close(&numbers(&row["embedding"]), expected, shown);
    }
    let refused = failure_of(ingle(&["embed", "--models-path", path, "--dimensions", "7", "a"]), 1);
    assert!(refused.contains("dimensions is 7; use 384"), "{refused}");
    let nobody = failure_of(ingle(&["rerank", "--models-path", path, "query", "document"]), 1);
    assert!(nobody.contains("rerank"), "{nobody}");
}

#[test]
fn a_damaged_folder_is_an_error_that_names_the_file() {
    let Some(model) = embedding_folder() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let inner = folder.path().join("broken");
    let path = folder.path().to_str().expect("UTF-8");
    let embed = || failure_of(ingle(&["embed", "--models-path", path, "--model", "broken", "a"]), 1);
    std::fs::create_dir_all(inner.join("1_Pooling")).expect("the folder is writable");
    for file in ["config.json", "modules.json", "tokenizer.json", "sentence_bert_config.json", "1_Pooling/config.json"]
    {
        std::fs::copy(model.join(file), inner.join(file)).expect("a copy");
    }
    let weights = std::fs::read(model.join("model.safetensors")).expect("weights");
    std::fs::write(inner.join("model.safetensors"), &weights[..weights.len() / 2]).expect("the folder is writable");
    let cut = embed();
    assert!(cut.contains("model.safetensors") && cut.contains("download it again"), "{cut}");
    std::fs::write(inner.join("model.safetensors"), &weights).expect("the folder is writable");
    std::fs::remove_file(inner.join("tokenizer.json")).expect("it is there");
    let untokenized = embed();
    assert!(untokenized.contains("tokenizer.json") && untokenized.contains("missing"), "{untokenized}");
    std::fs::copy(model.join("tokenizer.json"), inner.join("tokenizer.json")).expect("a copy");
    let config = std::fs::read_to_string(model.join("config.json")).expect("a configuration");
    for (from, to, told) in [
        ("\"bert\"", "\"poem\"", "model_type \"poem\""),
        ("\"hidden_size\": 384", "\"hidden_size\": 396", "word_embeddings"),
    ] {
        std::fs::write(inner.join("config.json"), config.replace(from, to)).expect("the folder is writable");
        let error = embed();
        assert!(error.contains(told), "{told}: {error}");
    }
}

/// A chat model as an embedding model: its own context, the mean of its hidden states, and a limit with both lengths.
#[test]
fn a_gguf_model_makes_embeddings() {
    let Some(model) = chat_model() else { return };
    let folder = crate::support::models_folder(&model);
    let yaml = |name: &str, more: &str| {
        let text = format!(
            "name: {name}\nbackend: llama-cpp\nembeddings: true\ncontext_size: 64\n{more}\nparameters:\n  model: small.gguf\n"
        );
        std::fs::write(folder.path().join(format!("{name}.yaml")), text).expect("the folder is writable");
    };
    yaml("vectors", "options: ['pooling:mean']");
    yaml("pieces", "");
    let both = "name: both\nknown_usecases: [chat, embeddings]\ncontext_size: 64\nparameters:\n  model: small.gguf\n";
    std::fs::write(folder.path().join("both.yaml"), both).expect("the folder is writable");
    let path = folder.path().to_str().expect("UTF-8");
    let server = Server::start(ingle(&["run", "--models-path", path]));
    let texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "The stock market fell by three percent."];
    let (status, body) = post(&server, "/v1/embeddings", &json!({"model": "vectors", "input": texts}));
    assert_eq!(status, 200, "{body}");
    let vectors: Vec<Vec<f32>> =
        body["data"].as_array().expect("a list").iter().map(|entry| numbers(&entry["embedding"])).collect();
    let cosine = |a: usize, b: usize| vectors[a].iter().zip(&vectors[b]).map(|(a, b)| a * b).sum::<f32>();
    assert!((cosine(0, 0) - 1.0).abs() < 1e-4, "{}", cosine(0, 0));
    assert!(cosine(0, 1) > cosine(0, 2), "{} and {}", cosine(0, 1), cosine(0, 2));
    for (idx, text) in texts.iter().enumerate() {
        let (_, alone) = post(&server, "/v1/embeddings", &json!({"model": "vectors", "input": text}));
        let alone = numbers(&alone["data"][0]["embedding"]);
        let same: f32 = alone.iter().zip(&vectors[idx]).map(|(a, b)| a * b).sum();
        assert!(same > 0.9999, "{text}: {same}");
    }
    let long = "word ".repeat(100);
    let (status, body) = post(&server, "/v1/embeddings", &json!({"model": "vectors", "input": long}));
    assert_eq!((status, &body["error"]["code"]), (400, &json!("context_length_exceeded")), "{body}");
    assert!(body["error"]["message"].as_str().is_some_and(|text| text.contains("this model takes 64")), "{body}");
    let (status, body) =
        post(&server, "/v1/embeddings", &json!({"model": "vectors", "input": long, "pooling": "mean"}));
    assert_eq!(status, 200, "{body}");
    let chat = json!({"model": "both", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4});
    assert_eq!(post(&server, "/v1/chat/completions", &chat).0, 200);
    assert_eq!(post(&server, "/v1/embeddings", &json!({"model": "both", "input": "Hi"})).0, 200);
    assert_eq!(post(&server, "/v1/embeddings", &json!({"model": "vectors", "input": [99_999_999]})).0, 400);
}
