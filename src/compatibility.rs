//! The page that says what becomes of every endpoint, flag, variable and YAML key of LocalAI, made of the tables that
//! the program itself uses.

use std::fmt::Write;

use ingle::catalog::{ENCODER_OPTIONS, HEARING_OPTIONS, KOKORO_OPTIONS, LLAMA_OPTIONS, MODEL_KEYS, Standing};

use crate::cli::localai::{AGENTS, BACKENDS, FLAGS, ONE_MACHINE, REALTIME, VARIABLES};
use Standing::{NoEffect, Planned, Refused, Works};

/// An endpoint of LocalAI.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoint {
    /// How much a drop-in needs it: P0 or P1.
    pub(crate) priority: &'static str,
    pub(crate) method: &'static str,
    /// As LocalAI writes it, parameters with a colon.
    pub(crate) path: &'static str,
    pub(crate) standing: Standing,
}

const fn endpoint(priority: &'static str, method: &'static str, path: &'static str, standing: Standing) -> Endpoint {
    Endpoint { priority, method, path, standing }
}

/// LocalAI's endpoints of both priorities.
pub(crate) const ENDPOINTS: &[Endpoint] = &[
    endpoint("P0", "GET", "/generated-audio", NoEffect("spoken answers are sent and not kept")),
    endpoint("P0", "GET", "/generated-images", Planned("image generation")),
    endpoint("P0", "GET", "/healthz", Works),
    endpoint("P0", "GET", "/readyz", Works),
    endpoint("P0", "POST", "/v1/rerank", Works),
    endpoint("P0", "GET", "/backend/monitor", Works),
    endpoint("P0", "GET", "/metrics", Works),
    endpoint("P0", "GET", "/models/available", Works),
    endpoint("P0", "GET", "/models/galleries", Works),
    endpoint("P0", "GET", "/models/jobs", Works),
    endpoint("P0", "GET", "/models/jobs/:uuid", Works),
    endpoint("P0", "GET", "/system", Works),
    endpoint("P0", "GET", "/v1/backend/monitor", Works),
    endpoint("P0", "GET", "/version", Works),
    endpoint("P0", "POST", "/backend/load", Works),
    endpoint("P0", "POST", "/backend/shutdown", Works),
    endpoint("P0", "POST", "/models/apply", Works),
    endpoint("P0", "POST", "/models/delete/:name", Works),
    endpoint("P0", "POST", "/models/reload", Works),
    endpoint("P0", "POST", "/tts", Works),
    endpoint("P0", "POST", "/v1/backend/load", Works),
    endpoint("P0", "POST", "/v1/backend/shutdown", Works),
    endpoint("P0", "POST", "/v1/detokenize", Works),
    endpoint("P0", "POST", "/v1/tokenize", Works),
    endpoint("P0", "GET", "/models", Works),
    endpoint("P0", "GET", "/v1/models", Works),
    endpoint("P0", "POST", "/audio/speech", Works),
    endpoint("P0", "POST", "/audio/transcriptions", Works),
    endpoint("P0", "POST", "/chat/completions", Works),
    endpoint("P0", "POST", "/completions", Works),
    endpoint("P0", "POST", "/edits", Works),
    endpoint("P0", "POST", "/embeddings", Works),
    endpoint("P0", "POST", "/images/generations", Planned("image generation")),
    endpoint("P0", "POST", "/images/inpainting", Planned("image generation")),
    endpoint("P0", "POST", "/images/upscale", Planned("image generation")),
    endpoint("P0", "POST", "/v1/audio/speech", Works),
    endpoint("P0", "POST", "/v1/audio/transcriptions", Works),
    endpoint("P0", "POST", "/v1/chat/completions", Works),
    endpoint("P0", "POST", "/v1/completions", Works),
    endpoint("P0", "POST", "/v1/edits", Works),
    endpoint("P0", "POST", "/v1/embeddings", Works),
    endpoint("P0", "POST", "/v1/engines/:model/completions", Works),
    endpoint("P0", "POST", "/v1/engines/:model/embeddings", Works),
    endpoint("P0", "POST", "/v1/images/generations", Planned("image generation")),
    endpoint("P0", "POST", "/v1/images/inpainting", Planned("image generation")),
    endpoint("P0", "POST", "/v1/images/upscale", Planned("image generation")),
    endpoint("P1", "POST", "/messages", Planned("the Anthropic dialect")),
    endpoint("P1", "POST", "/v1/messages", Planned("the Anthropic dialect")),
    endpoint("P1", "POST", "/v1/sound-generation", Refused("there is no model for it here")),
    endpoint("P1", "POST", "/v1/text-to-speech/:voice-id", Works),
    endpoint("P1", "GET", "/.well-known/localai.json", Refused("GET /swagger/doc.json describes the server")),
    endpoint("P1", "GET", "/api/aliases", Works),
    endpoint("P1", "GET", "/api/cors-proxy", Refused(AGENTS)),
    endpoint("P1", "GET", "/api/models/:id/load-status", Refused("GET /system and GET /readyz tell what is loading")),
    endpoint("P1", "GET", "/api/p2p", Refused(ONE_MACHINE)),
    endpoint("P1", "GET", "/api/p2p/token", Refused(ONE_MACHINE)),
    endpoint("P1", "GET", "/backends", Refused(BACKENDS)),
    endpoint("P1", "GET", "/backends/available", Refused(BACKENDS)),
    endpoint("P1", "GET", "/backends/galleries", Refused(BACKENDS)),
    endpoint("P1", "GET", "/backends/jobs/:uuid", Refused(BACKENDS)),
    endpoint("P1", "GET", "/backends/known", Refused(BACKENDS)),
    endpoint("P1", "GET", "/backends/upgrades", Refused(BACKENDS)),
    endpoint("P1", "GET", "/models/edit/:name", Refused("edit the YAML file: it is read when it changes")),
    endpoint("P1", "GET", "/swagger/*", Works),
    endpoint("P1", "GET", "/v1/mcp/prompts/:model", Refused(AGENTS)),
    endpoint("P1", "GET", "/v1/mcp/resources/:model", Refused(AGENTS)),
    endpoint("P1", "GET", "/v1/mcp/servers/:model", Refused(AGENTS)),
    endpoint("P1", "OPTIONS", "/api/cors-proxy", Refused(AGENTS)),
    endpoint("P1", "POST", "/api/cors-proxy", Refused(AGENTS)),
    endpoint("P1", "POST", "/api/score", Refused("there is no model for it here")),
    endpoint("P1", "POST", "/backends/apply", Refused(BACKENDS)),
    endpoint("P1", "POST", "/backends/delete/:name", Refused(BACKENDS)),
    endpoint("P1", "POST", "/backends/upgrade/:name", Refused(BACKENDS)),
    endpoint("P1", "POST", "/backends/upgrades/check", Refused(BACKENDS)),
    endpoint("P1", "POST", "/mcp/chat/completions", Refused(AGENTS)),
    endpoint("P1", "POST", "/mcp/v1/chat/completions", Refused(AGENTS)),
    endpoint("P1", "POST", "/models/edit/:name", Refused("edit the YAML file: it is read when it changes")),
    endpoint("P1", "POST", "/models/import", Refused("POST /models/apply takes the same configuration as config_file")),
    endpoint("P1", "POST", "/models/import-uri", Works),
    endpoint("P1", "POST", "/stores/delete", Refused("use a vector database")),
    endpoint("P1", "POST", "/stores/find", Refused("use a vector database")),
    endpoint("P1", "POST", "/stores/get", Refused("use a vector database")),
    endpoint("P1", "POST", "/stores/set", Refused("use a vector database")),
    endpoint("P1", "POST", "/v1/depth", Refused("there is no model for it here")),
    endpoint("P1", "POST", "/v1/detection", Refused("there is no model for it here")),
    endpoint("P1", "POST", "/v1/mcp/chat/completions", Refused(AGENTS)),
    endpoint("P1", "POST", "/v1/mcp/prompts/:model/:prompt", Refused(AGENTS)),
    endpoint("P1", "POST", "/v1/mcp/resources/:model/read", Refused(AGENTS)),
    endpoint("P1", "POST", "/v1/vad", Works),
    endpoint("P1", "POST", "/vad", Works),
    endpoint(
        "P1",
        "PUT",
        "/models/toggle-pinned/:name/:action",
        Refused("edit the YAML file: it is read when it changes"),
    ),
    endpoint(
        "P1",
        "PUT",
        "/models/toggle-state/:name/:action",
        Refused("edit the YAML file: it is read when it changes"),
    ),
    endpoint("P1", "GET", "/", Planned("the Ollama dialect")),
    endpoint("P1", "GET", "/api/ps", Planned("the Ollama dialect")),
    endpoint("P1", "GET", "/api/tags", Planned("the Ollama dialect")),
    endpoint("P1", "GET", "/api/version", Planned("the Ollama dialect")),
    endpoint("P1", "HEAD", "/", Planned("the Ollama dialect")),
    endpoint("P1", "HEAD", "/api/tags", Planned("the Ollama dialect")),
    endpoint("P1", "HEAD", "/api/version", Planned("the Ollama dialect")),
    endpoint("P1", "POST", "/api/chat", Planned("the Ollama dialect")),
    endpoint("P1", "POST", "/api/embed", Planned("the Ollama dialect")),
    endpoint("P1", "POST", "/api/embeddings", Planned("the Ollama dialect")),
    endpoint("P1", "POST", "/api/generate", Planned("the Ollama dialect")),
    endpoint("P1", "POST", "/api/show", Planned("the Ollama dialect")),
    endpoint("P1", "GET", "/models/capabilities", Works),
    endpoint("P1", "GET", "/v1/models/capabilities", Works),
    endpoint("P1", "GET", "/v1/realtime", Refused(REALTIME)),
    endpoint("P1", "POST", "/audio/diarization", Refused("there is no model for it here")),
    endpoint("P1", "POST", "/moderations", Refused("there is no model for it here")),
    endpoint("P1", "POST", "/v1/audio/diarization", Refused("there is no model for it here")),
    endpoint("P1", "POST", "/v1/moderations", Refused("there is no model for it here")),
    endpoint("P1", "POST", "/v1/realtime/calls", Refused(REALTIME)),
    endpoint("P1", "POST", "/v1/realtime/sessions", Refused(REALTIME)),
    endpoint("P1", "POST", "/v1/realtime/transcription_session", Refused(REALTIME)),
    endpoint("P1", "GET", "/responses", Planned("the Responses dialect")),
    endpoint("P1", "GET", "/responses/:id", Planned("the Responses dialect")),
    endpoint("P1", "GET", "/v1/responses", Planned("the Responses dialect")),
    endpoint("P1", "GET", "/v1/responses/:id", Planned("the Responses dialect")),
    endpoint("P1", "POST", "/responses", Planned("the Responses dialect")),
    endpoint("P1", "POST", "/responses/:id/cancel", Planned("the Responses dialect")),
    endpoint("P1", "POST", "/v1/responses", Planned("the Responses dialect")),
    endpoint("P1", "POST", "/v1/responses/:id/cancel", Planned("the Responses dialect")),
    endpoint("P1", "GET", "/swagger/", Works),
    endpoint("P1", "GET", "/swagger/index.html", Works),
    endpoint("P1", "GET", "/api/p2p/federation", Refused(ONE_MACHINE)),
    endpoint("P1", "GET", "/api/p2p/stats", Refused(ONE_MACHINE)),
    endpoint("P1", "GET", "/api/p2p/workers", Refused(ONE_MACHINE)),
];

/// Cells and what becomes of it.
type Row = (Vec<String>, Standing);

/// The page.
pub(crate) fn page() -> String {
    let mut out = String::from(
        "# What becomes of LocalAI's requests, flags and files\n\n\
         Made by `ingle compatibility` from the tables the program itself uses; do not edit. *Works* means that it does \
         what it does in LocalAI. *Without effect* is accepted and named in the log. *Planned* belongs to an engine that \
         is not there yet: endpoints answer 501, keys are named in the log. *Refused* is an error that says what to do \
         instead.\n\n",
    );
    let tables: [(&str, &[&str], Vec<Row>); 8] = [
        ("Endpoints", &["Priority", "Endpoint"], endpoints()),
        ("Flags and variables of `run`", &["Flag", "Variables"], flags()),
        ("Variables without a flag", &["Variable"], variables()),
        ("Keys of a model's YAML", &["Key"], keys(MODEL_KEYS)),
        ("`options:` of llama-cpp", &["Option"], keys(LLAMA_OPTIONS)),
        ("`options:` of transformers and rerankers", &["Option"], keys(ENCODER_OPTIONS)),
        ("`options:` of whisper and faster-whisper", &["Option"], keys(HEARING_OPTIONS)),
        ("`options:` of kokoro", &["Option"], keys(KOKORO_OPTIONS)),
    ];
    out.push_str("| | works | without effect | planned | refused |\n|---|---:|---:|---:|---:|\n");
    for (title, _, rows) in &tables {
        let count = |wanted: fn(&Standing) -> bool| rows.iter().filter(|(_, standing)| wanted(standing)).count();
        let _ = writeln!(
            out,
            "| {title} | {} | {} | {} | {} |",
            count(|standing| *standing == Works),
            count(|standing| matches!(standing, NoEffect(_))),
            count(|standing| matches!(standing, Planned(_))),
            count(|standing| matches!(standing, Refused(_))),
        );
    }
    for (title, columns, rows) in tables {
        let _ = write!(out, "\n## {title}\n\n| {} | Standing |\n|", columns.join(" | "));
        out.push_str(&"---|".repeat(columns.len() + 1));
        out.push('\n');
        for (cells, standing) in rows {
            let _ = writeln!(out, "| {} | {} |", cells.join(" | "), words(standing));
        }
    }
    out
}

fn words(standing: Standing) -> String {
    match standing {
        Works => "works".into(),
        NoEffect(why) => format!("without effect: {why}"),
        Planned(what) => format!("planned: {what}"),
        Refused(instead) => format!("refused: {instead}"),
    }
}

fn endpoints() -> Vec<Row> {
    let row = |endpoint: &Endpoint| {
        let place = format!("`{} {}`", endpoint.method, endpoint.path);
        (vec![endpoint.priority.to_owned(), place], endpoint.standing)
    };
    ENDPOINTS.iter().map(row).collect()
}

fn flags() -> Vec<Row> {
    FLAGS
        .iter()
        .map(|flag| {
            let variables: Vec<String> = flag.variables.iter().map(|name| format!("`{name}`")).collect();
            (vec![format!("`--{}`", flag.name), variables.join(", ")], flag.standing)
        })
        .collect()
}

fn variables() -> Vec<Row> {
    VARIABLES.iter().map(|(name, standing)| (vec![format!("`{name}`")], *standing)).collect()
}

fn keys(table: &[(&str, Standing)]) -> Vec<Row> {
    table.iter().map(|(key, standing)| (vec![format!("`{key}`")], *standing)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_the_one_in_the_repository() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/localai-compatibility.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, page()).expect("the page is written");
        }
        let held = std::fs::read_to_string(path).unwrap_or_default();
        assert!(held == page(), "{path} is out of date: run this test with UPDATE_GOLDEN=1");
    }

    /// The path as the router writes it, with any name for a parameter.
    fn pattern(path: &str) -> String {
        let step = |step: &str| if step.starts_with([':', '{', '*']) { "*".to_owned() } else { step.to_owned() };
        path.trim_end_matches('/').split('/').map(step).collect::<Vec<_>>().join("/")
    }

    #[test]
    fn what_is_said_to_work_or_to_come_is_routed_and_nothing_else() {
        let routed: Vec<(String, bool)> = ingle::server::endpoints()
            .into_iter()
            .map(|route| (format!("{} {}", route.method, pattern(&route.path)), route.is_planned))
            .collect();
        for endpoint in ENDPOINTS {
            let wanted = format!("{} {}", endpoint.method, pattern(endpoint.path));
            let found = routed.iter().find(|(place, _)| *place == wanted || wanted.starts_with("GET /swagger"));
            match endpoint.standing {
                Works => assert!(found.is_some_and(|(_, is_planned)| !is_planned), "{wanted} is said to work"),
                // Answers of engines that are not there yet would be served there.
                Planned(_) if endpoint.path.starts_with("/generated-") => {}
                Planned(_) if endpoint.priority == "P0" => {
                    assert!(found.is_some_and(|(_, is_planned)| *is_planned), "{wanted} should answer 501");
                }
                Planned(_) | Refused(_) | NoEffect(_) => {
                    assert!(found.is_none_or(|(_, is_planned)| *is_planned), "{wanted} works");
                }
            }
        }
        let is_working = |endpoint: &&Endpoint| endpoint.priority == "P0" && endpoint.standing == Works;
        assert!(ENDPOINTS.iter().filter(is_working).count() >= 29);
    }
}
