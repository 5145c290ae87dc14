//! Edits, and the endpoints that load, watch, install and delete models.

use super::*;

#[tokio::test]
async fn edits_answer_each_input() {
    let server = Setup::default().build();
    let answered =
        server.post("/v1/edits", r#"{"model": "m", "input": ["a", "b"], "instruction": "Fix it", "n": 2}"#).await;
    let edit = answered.json();
    assert_eq!(
        (answered.status.as_u16(), edit["object"].as_str(), edit["model"].as_str()),
        (200, Some("edit"), Some("m"))
    );
    let choices = edit["choices"].as_array().expect("choices");
    assert_eq!(choices.len(), 4);
    assert_eq!((choices[3]["index"].as_u64(), choices[3]["text"].as_str()), (Some(3), Some("Hello, Wörld!")));
    assert_eq!(choices[0]["finish_reason"], "stop");
    assert!(edit["usage"]["prompt_tokens"].as_u64() > Some(0));
    assert_eq!(server.post("/edits", r#"{"input": "a", "instruction": "b"}"#).await.status, 200);
    for (body, param) in [
        (r#"{"input": "a"}"#, "instruction"),
        (r#"{"input": [1, 2], "instruction": "b"}"#, "input"),
        (r#"{"input": [], "instruction": "b"}"#, "input"),
        (r#"{"model": "nobody", "instruction": "b"}"#, "model"),
    ] {
        let answered = server.post("/v1/edits", body).await;
        assert!(answered.status.is_client_error(), "{body}");
        assert_eq!(answered.json()["error"]["param"], param, "{body}");
    }
}

#[tokio::test]
async fn a_model_in_the_query_goes_first() {
    let server = Setup::default().build();
    let body = r#"{"model": "nobody", "messages": [{"role": "user", "content": "hi"}]}"#;
    let answered = server.post("/v1/chat/completions?model=org%2Fmodel%3Aq4", body).await;
    assert_eq!((answered.status.as_u16(), answered.json()["model"].as_str()), (200, Some("org/model:q4")));
    assert_eq!(server.post("/v1/chat/completions?model=", body).await.status, 404);
}

#[tokio::test]
async fn models_are_loaded_watched_and_unloaded() {
    let server = Setup::default().build();
    let monitor = |model: &str| format!("/backend/monitor?model={model}");
    assert_eq!(server.get(&monitor("m")).await.status, 404);
    assert_eq!(server.get("/backend/monitor").await.status, 400);
    let loaded = server.post("/backend/load", r#"{"model": "m"}"#).await;
    assert_eq!((loaded.status.as_u16(), &loaded.json()["loaded"]), (200, &serde_json::json!(["m"])));
    let status = server.get(&monitor("m")).await.json();
    assert_eq!(status["state"], 2);
    assert_eq!(status["memory"]["total"], status["memory"]["breakdown"]["weights"]);
    assert_eq!(server.get("/v1/backend/monitor?model=m").await.status, 200);
    let stopped = server.post("/backend/shutdown", r#"{"model": "m"}"#).await;
    assert_eq!((stopped.status.as_u16(), stopped.json()["message"].as_str()), (200, Some("model stopped")));
    assert_eq!(server.post("/v1/backend/shutdown", r#"{"model": "m"}"#).await.status, 404);
    assert_eq!(server.post("/backend/shutdown", "{}").await.status, 400);
    assert_eq!(server.post("/backend/load", r#"{"model": "nobody"}"#).await.status, 404);
    assert_eq!(server.post("/backend/load", r#"{"model": "off"}"#).await.status, 403);
}

#[tokio::test]
async fn models_tell_what_they_can() {
    let server = Setup::default().build();
    let folder = server._models.path();
    std::fs::write(folder.join("alias.yaml"), "name: gpt-4\nalias: m\n").expect("it is written");
    let list = server.get("/v1/models/capabilities").await.json();
    let find = |name: &str| {
        let models = list["data"].as_array().expect("a list");
        models.iter().find(|model| model["id"] == name).cloned()
    };
    for name in ["m", "gpt-4", "org/model:q4"] {
        let model = find(name).expect(name);
        assert!(model["capabilities"].as_array().is_some_and(|words| words.contains(&"chat".into())), "{model}");
        assert_eq!(model["input_modalities"], serde_json::json!(["text"]));
    }
    assert_eq!(find("off"), None);
    let aliases = server.get("/api/aliases").await.json();
    assert_eq!(aliases, serde_json::json!([{"name": "gpt-4", "target": "m"}]));
    assert!(server.post("/models/reload", "").await.json()["message"].as_str().is_some());
}

#[tokio::test]
async fn installations_are_jobs() {
    let server = Setup::default().build();
    let apply = r#"{"config_file": "name: made\nbackend: llama-cpp\nparameters: {model: m.gguf}\n"}"#;
    let started = server.post("/models/apply", apply).await.json();
    let id = started["uuid"].as_str().expect("a job").to_owned();
    let status = loop {
        let status = server.get(&format!("/models/jobs/{id}")).await.json();
        if status["processed"] == true {
            break status;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert_eq!((status["message"].as_str(), status["progress"].as_f64()), (Some("completed"), Some(100.0)));
    assert!(status.get("error").is_none());
    assert!(server.get("/models/jobs").await.json().get(&id).is_some());
    assert!(server.get("/v1/models").await.text().contains("made"));
    let offers = server.get("/models/available").await.json();
    let offer = offers.as_array().and_then(|list| list.iter().find(|offer| offer["name"] == "smollm2-135m-instruct"));
    assert!(offer.is_some_and(|offer| offer["gallery"]["name"] == "ingle" && offer["installed"] == false), "{offers}");
    assert_eq!(server.get("/models/galleries").await.json()[0]["name"], "ingle");
    for (path, body, status) in [
        ("/models/apply", "{}", 400),
        ("/models/apply", r#"{"files": [{"filename": "../x", "uri": "https://h/x"}]}"#, 400),
        ("/models/import-uri", "{}", 400),
        ("/models/import-uri", r#"{"uri": "file:///etc/passwd"}"#, 200),
        ("/models/delete/nobody", "", 404),
        ("/models/jobs/unknown/cancel", "", 404),
    ] {
        assert_eq!(server.post(path, body).await.status, status, "{path} {body}");
    }
    assert_eq!(server.get("/models/jobs/unknown").await.status, 404);
}

#[tokio::test]
async fn engines_that_are_not_there_say_so() {
    let server = Setup::default().build();
    for path in ["/v1/images/generations", "/images/inpainting", "/v1/images/edits"] {
        let answered = server.post(path, "{}").await;
        assert_eq!(
            (answered.status.as_u16(), answered.json()["error"]["code"].as_str()),
            (501, Some("not_implemented"))
        );
    }
}
