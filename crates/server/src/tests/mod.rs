//! The router over a real runtime and a fake backend.
mod borders;
mod client;
mod encoders;
mod endpoints;
mod faults;
mod golden;
mod lifecycle;
mod management;
mod streams;
mod uploads;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use ingle_engine::Device;
use ingle_engine::fake::{Answers, FakeBackend};
use ingle_runtime::catalog::{Catalog, CatalogOptions, FetchSettings, Fetcher, JobBoard};
use ingle_runtime::{Hardware, LoadDefaults, ResidencyOptions, Runtime, RuntimeConfig};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

use crate::{ServerOptions, ServerState, router};

/// ChatML, as small as it goes.
const TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}\
                        <|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// A server and the folder of its models.
struct Server {
    router: Router,
    state: ServerState,
    _models: TempDir,
}

/// What is special about a test's server.
struct Setup {
    answers: Answers,
    template: &'static str,
    options: ServerOptions,
    max_waiting: usize,
    context_size: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            answers: Answers::Text("Hello, Wörld!".into()),
            template: TEMPLATE,
            options: ServerOptions { backends: vec!["llama-cpp".into()], ..ServerOptions::default() },
            max_waiting: 256,
            context_size: 512,
        }
    }
}

fn hardware() -> Hardware {
    let cpu = Device { name: "test processor".into(), total_bytes: 8 << 30, free_bytes: 4 << 30, ..Device::default() };
    Hardware { devices: vec![cpu], n_cores: 2, instruction_sets: vec!["avx2".into()], ..Hardware::default() }
}

impl Setup {
    fn build(self) -> Server {
        let models = tempfile::tempdir().expect("a temporary folder");
        for (name, extra) in [("m", ""), ("org/model:q4", ""), ("off", "disabled: true\n")] {
            let file = name.replace(['/', ':'], "_");
            std::fs::write(models.path().join(format!("{file}.gguf")), b"GGUF").expect("a file");
            let yaml = format!(
                "name: {name}\nbackend: llama-cpp\ncontext_size: {}\n{extra}parameters:\n  model: {file}.gguf\n  \
                 temperature: 0\n",
                self.context_size
            );
            std::fs::write(models.path().join(format!("{file}.yaml")), yaml).expect("a file");
        }
        for (name, keys) in [("e", "embeddings: true"), ("r", "reranking: true")] {
            std::fs::write(models.path().join(format!("{name}.gguf")), b"GGUF").expect("a file");
            let yaml = format!("name: {name}\nbackend: llama-cpp\n{keys}\nparameters:\n  model: {name}.gguf\n");
            std::fs::write(models.path().join(format!("{name}.yaml")), yaml).expect("a file");
        }
        let backend = FakeBackend {
            answers: self.answers,
            max_waiting: self.max_waiting,
            chat_template: Some(self.template.into()),
        };
        let runtime = Runtime::new(RuntimeConfig {
            catalog: Catalog::open(models.path(), CatalogOptions::default()).expect("a models folder"),
            backends: vec![Arc::new(backend)],
            hardware: Arc::new(hardware),
            defaults: LoadDefaults::default(),
            residency: ResidencyOptions::default(),
        });
        let fetcher = Fetcher::new(FetchSettings::from_env().expect("a cache folder"));
        let jobs = JobBoard::open(models.path(), fetcher, Vec::new(), false);
        let state = ServerState::new(runtime, self.options).with_jobs(jobs);
        Server { router: router(state.clone()), state, _models: models }
    }
}

/// An answer, read whole.
struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answered {
    fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).expect("UTF-8")
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }
}

impl Server {
    async fn send(&self, request: Request<Body>) -> Answered {
        let response = self.router.clone().oneshot(request).await.expect("the router never fails");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Answered { status: head.status, headers: head.headers, body }
    }

    async fn get(&self, path: &str) -> Answered {
        self.send(Request::get(path).body(Body::empty()).expect("a request")).await
    }

    async fn post(&self, path: &str, body: &str) -> Answered {
        let request = Request::post(path).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_owned())).expect("a request")).await
    }

    /// Requests that run or wait, over all models.
    fn busy(&self) -> usize {
        let occupancies = self.state.runtime().loaded().into_iter().filter_map(|model| model.stats);
        occupancies.map(|stats| stats.occupancy.running + stats.occupancy.waiting).sum()
    }
}

/// The `data:` payloads of an event stream.
fn events(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
}
