//! Counters and gauges in Prometheus' text format.
//!
//! Counters of requests and answers are fed by one function each, from what a finished request or answer carries;
//! gauges are read from the runtime when somebody asks for them.
mod devices;

use std::time::Duration;

use ingle_runtime::{BatchedTask, Hardware};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use devices::DeviceGauges;

/// Upper bounds in seconds.
const REQUEST_SECS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
const FIRST_TOKEN_SECS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
const INTER_TOKEN_SECS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 2.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    path: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: String,
    path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    model: String,
    finish: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TaskLabels {
    model: String,
    task: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    model: String,
    state: &'static str,
}

/// A finished HTTP request.
#[derive(Debug)]
pub(crate) struct FinishedRequest {
    pub(crate) method: String,
    /// The route, not the path: its parameters stay names.
    pub(crate) route: String,
    pub(crate) status: u16,
    /// Until the head of the answer was ready.
    pub(crate) took: Duration,
}

/// A finished answer of a text model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FinishedAnswer {
    pub(crate) model: String,
    pub(crate) finish: &'static str,
    pub(crate) prompt_tokens: usize,
    pub(crate) cached_tokens: usize,
    pub(crate) completion_tokens: usize,
    /// From submission to the first token.
    pub(crate) first_token: Duration,
    /// From the first token to the last.
    pub(crate) generation: Duration,
}

/// A finished call of a task that works off batches.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FinishedCall {
    pub(crate) model: String,
    /// Such as `embed`.
    pub(crate) task: &'static str,
    pub(crate) inputs: usize,
    pub(crate) tokens: usize,
    /// From submission to the first step.
    pub(crate) waited: Duration,
    /// From submission to the end.
    pub(crate) took: Duration,
}

/// What one model in memory occupies now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelGauges {
    pub(crate) model: String,
    /// `loading`, `ready` or `failed`.
    pub(crate) state: &'static str,
    pub(crate) waiting: usize,
    pub(crate) running: usize,
    pub(crate) slots: usize,
    pub(crate) cells: usize,
    pub(crate) cells_used: usize,
    pub(crate) cells_cached: usize,
    pub(crate) tasks: Vec<BatchedTask>,
}

type TaskFamily = Family<TaskLabels, Gauge>;
type ModelFamily = Family<ModelLabels, Gauge>;
type HistogramFamily<L> = Family<L, Histogram, fn() -> Histogram>;

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    calls: HistogramFamily<CallLabels>,
    answers: Family<AnswerLabels, Counter>,
    prompt_tokens: Family<ModelLabels, Counter>,
    cached_tokens: Family<ModelLabels, Counter>,
    completion_tokens: Family<ModelLabels, Counter>,
    first_token: HistogramFamily<ModelLabels>,
    inter_token: HistogramFamily<ModelLabels>,
    waiting: ModelFamily,
    running: ModelFamily,
    slots: ModelFamily,
    cells: ModelFamily,
    cells_used: ModelFamily,
    cells_cached: ModelFamily,
    models: Family<StateLabels, Gauge>,
    devices: DeviceGauges,
    calls_of_tasks: Family<TaskLabels, Counter>,
    inputs_of_tasks: Family<TaskLabels, Counter>,
    tokens_of_tasks: Family<TaskLabels, Counter>,
    call_secs: HistogramFamily<TaskLabels>,
    call_wait_secs: HistogramFamily<TaskLabels>,
    calls_waiting: TaskFamily,
    inputs_running: TaskFamily,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let calls = Family::new_with_constructor((|| Histogram::new(REQUEST_SECS)) as fn() -> Histogram);
        // LocalAI's name, which dashboards know.
        let calls = add(&mut registry, "api_call", "Seconds until the head of an answer is ready", calls);
        let first_token = Family::new_with_constructor((|| Histogram::new(FIRST_TOKEN_SECS)) as fn() -> Histogram);
        let inter_token = Family::new_with_constructor((|| Histogram::new(INTER_TOKEN_SECS)) as fn() -> Histogram);
        let call_secs = Family::new_with_constructor((|| Histogram::new(REQUEST_SECS)) as fn() -> Histogram);
        let call_wait_secs = Family::new_with_constructor((|| Histogram::new(REQUEST_SECS)) as fn() -> Histogram);
        let ours = registry.sub_registry_with_prefix("ingle");
        Self {
            calls,
            requests: add_family(ours, "http_requests", "HTTP requests by route and status"),
            answers: add_family(ours, "answers", "Answers of text models by how they ended"),
            prompt_tokens: add_family(ours, "prompt_tokens", "Tokens of prompts, cached ones included"),
            cached_tokens: add_family(ours, "prefix_hit_tokens", "Prompt tokens found in the prefix cache"),
            completion_tokens: add_family(ours, "completion_tokens", "Tokens generated"),
            first_token: add(ours, "time_to_first_token_seconds", "From submission to the first token", first_token),
            inter_token: add(ours, "inter_token_seconds", "Mean time between the tokens of an answer", inter_token),
            waiting: add_family(ours, "requests_waiting", "Requests in front of the model"),
            running: add_family(ours, "requests_running", "Requests in a slot"),
            slots: add_family(ours, "slots", "Requests that can run at once"),
            cells: add_family(ours, "cells", "Cells of the context"),
            cells_used: add_family(ours, "cells_used", "Cells of running requests"),
            cells_cached: add_family(ours, "cells_cached", "Cells that only cached prefixes hold"),
            devices: DeviceGauges::new(ours),
            models: add_family(ours, "models", "Models in memory or on their way there, by state"),
            calls_of_tasks: add_family(ours, "task_calls", "Calls for embeddings, reranking and the like"),
            inputs_of_tasks: add_family(ours, "task_inputs", "Inputs of these calls"),
            tokens_of_tasks: add_family(ours, "task_tokens", "Tokens of these inputs"),
            call_secs: add(ours, "task_call_seconds", "From submission of such a call to its end", call_secs),
            call_wait_secs: add(ours, "task_wait_seconds", "From submission to its first step", call_wait_secs),
            calls_waiting: add_family(ours, "task_calls_waiting", "Such calls in front of the model"),
            inputs_running: add_family(ours, "task_inputs_running", "Inputs that are being computed"),
            registry,
        }
    }

    /// Counts a finished call of a task that works off batches.
    pub(crate) fn record_call(&self, call: &FinishedCall) {
        let labels = TaskLabels { model: call.model.clone(), task: call.task };
        self.calls_of_tasks.get_or_create(&labels).inc();
        self.inputs_of_tasks.get_or_create(&labels).inc_by(call.inputs as u64);
        self.tokens_of_tasks.get_or_create(&labels).inc_by(call.tokens as u64);
        self.call_secs.get_or_create(&labels).observe(call.took.as_secs_f64());
        self.call_wait_secs.get_or_create(&labels).observe(call.waited.as_secs_f64());
    }

    /// Counts a finished request.
    pub(crate) fn record_request(&self, request: FinishedRequest) {
        let FinishedRequest { method, route, status, took } = request;
        let labels = CallLabels { method: method.clone(), path: route.clone() };
        self.calls.get_or_create(&labels).observe(took.as_secs_f64());
        self.requests.get_or_create(&RequestLabels { method, path: route, status }).inc();
    }

    /// Counts a finished answer.
    pub(crate) fn record_answer(&self, answer: &FinishedAnswer) {
        let labels = ModelLabels { model: answer.model.clone() };
        self.answers.get_or_create(&AnswerLabels { model: answer.model.clone(), finish: answer.finish }).inc();
        self.prompt_tokens.get_or_create(&labels).inc_by(answer.prompt_tokens as u64);
        self.cached_tokens.get_or_create(&labels).inc_by(answer.cached_tokens as u64);
        self.completion_tokens.get_or_create(&labels).inc_by(answer.completion_tokens as u64);
        if answer.completion_tokens > 0 {
            self.first_token.get_or_create(&labels).observe(answer.first_token.as_secs_f64());
        }
        if answer.completion_tokens > 1 {
            let n_gaps = answer.completion_tokens - 1;
            self.inter_token.get_or_create(&labels).observe(answer.generation.as_secs_f64() / n_gaps as f64);
        }
    }

    /// Everything as text, with the gauges of the models that are in memory and of the devices as they are now.
    pub(crate) fn render(&self, models: &[ModelGauges], hardware: &Hardware) -> String {
        self.devices.set(hardware);
        let families = [&self.waiting, &self.running, &self.slots, &self.cells, &self.cells_used, &self.cells_cached];
        families.iter().for_each(|family| family.clear());
        self.models.clear();
        self.calls_waiting.clear();
        self.inputs_running.clear();
        for now in models {
            let labels = ModelLabels { model: now.model.clone() };
            let values = [now.waiting, now.running, now.slots, now.cells, now.cells_used, now.cells_cached];
            self.models.get_or_create(&StateLabels { model: now.model.clone(), state: now.state }).set(1);
            for (family, value) in families.iter().zip(values) {
                family.get_or_create(&labels).set(value as i64);
            }
            for BatchedTask { task, stats, .. } in &now.tasks {
                let labels = TaskLabels { model: now.model.clone(), task };
                self.calls_waiting.get_or_create(&labels).set(stats.waiting as i64);
                self.inputs_running.get_or_create(&labels).set(stats.running as i64);
            }
        }
        let mut rendered = String::new();
        text::encode(&mut rendered, &self.registry).expect("writing to a string cannot fail");
        rendered
    }
}

fn add<M: prometheus_client::registry::Metric + Clone>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    metric: M,
) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn add_family<M: prometheus_client::registry::Metric + Clone + Default>(
    registry: &mut Registry,
    name: &str,
    help: &str,
) -> M {
    add(registry, name, help, M::default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ingle_runtime::{BatchStats, BatchedTask};

    use super::{FinishedAnswer, FinishedCall, FinishedRequest, Hardware, Metrics, ModelGauges};

    fn answer() -> FinishedAnswer {
        FinishedAnswer {
            model: "m".into(),
            finish: "stop",
            prompt_tokens: 10,
            cached_tokens: 4,
            completion_tokens: 5,
            first_token: Duration::from_millis(20),
            generation: Duration::from_millis(40),
        }
    }

    fn gauges(model: &str) -> ModelGauges {
        ModelGauges {
            model: model.into(),
            state: "ready",
            waiting: 1,
            running: 2,
            slots: 4,
            cells: 512,
            cells_used: 30,
            cells_cached: 7,
            tasks: vec![BatchedTask {
                task: "embed",
                unit: "tokens",
                stats: BatchStats { waiting: 3, running: 5, ..BatchStats::default() },
            }],
        }
    }

    #[test]
    fn what_finished_is_counted() {
        let metrics = Metrics::new();
        metrics.record_answer(&answer());
        metrics.record_answer(&answer());
        let request = FinishedRequest {
            method: "GET".into(),
            route: "/v1/models/{*id}".into(),
            status: 404,
            took: Duration::from_millis(1),
        };
        metrics.record_request(request);
        metrics.record_call(&FinishedCall {
            model: "m".into(),
            task: "embed",
            inputs: 2,
            tokens: 30,
            waited: Duration::from_millis(2),
            took: Duration::from_millis(20),
        });
        let text = metrics.render(&[gauges("m")], &Hardware::default());
        for line in [
            "ingle_http_requests_total{method=\"GET\",path=\"/v1/models/{*id}\",status=\"404\"} 1",
            "ingle_prompt_tokens_total{model=\"m\"} 20",
            "ingle_prefix_hit_tokens_total{model=\"m\"} 8",
            "ingle_completion_tokens_total{model=\"m\"} 10",
            "ingle_answers_total{model=\"m\",finish=\"stop\"} 2",
            "ingle_time_to_first_token_seconds_bucket{le=\"0.025\",model=\"m\"} 2",
            "ingle_inter_token_seconds_bucket{le=\"0.01\",model=\"m\"} 2",
            "ingle_inter_token_seconds_bucket{le=\"0.005\",model=\"m\"} 0",
            "ingle_cells_cached{model=\"m\"} 7",
            "ingle_task_inputs_total{model=\"m\",task=\"embed\"} 2",
            "ingle_task_tokens_total{model=\"m\",task=\"embed\"} 30",
            "ingle_task_call_seconds_bucket{le=\"0.025\",model=\"m\",task=\"embed\"} 1",
            "ingle_task_wait_seconds_bucket{le=\"0.005\",model=\"m\",task=\"embed\"} 1",
            "ingle_task_calls_waiting{model=\"m\",task=\"embed\"} 3",
            "ingle_task_inputs_running{model=\"m\",task=\"embed\"} 5",
            "ingle_models{model=\"m\",state=\"ready\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn a_model_that_has_gone_has_no_gauges() {
        let metrics = Metrics::new();
        metrics.render(&[gauges("a"), gauges("b")], &Hardware::default());
        let text = metrics.render(&[gauges("b")], &Hardware::default());
        assert!(!text.contains("model=\"a\""), "{text}");
        assert!(text.contains("ingle_slots{model=\"b\"} 4"), "{text}");
    }
}
