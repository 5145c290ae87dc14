//! The corpus, and what no client may do.

use serde_json::Value as Json;

use crate::{PromptError, render_row};

fn corpus(name: &str) -> Option<String> {
    let path = format!("{}/../../../shared/corpora/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).ok();
    if text.is_none() {
        eprintln!("skipped: the corpus {name} is not here");
    }
    text
}

/// Rows of the corpus: name, row for `render_row`, the case with its expectation.
fn rows() -> Vec<(String, Json, Json)> {
    let (Some(templates), Some(scenarios)) =
        (corpus("chat_templates.jsonl"), corpus("chat_template_scenarios.json"))
    else {
        return Vec::new();
    };
    let scenarios: Json = serde_json::from_str(&scenarios).expect("the scenarios are JSON");
    let mut rows = Vec::new();
    for line in templates.lines() {
        let template: Json = serde_json::from_str(line).expect("a corpus line is JSON");
        for case in template["cases"].as_array().expect("cases is a list") {
            let scenario = case["scenario"].as_str().expect("a scenario has a name");
            let mut row = scenarios["scenarios"][scenario].clone();
            row["template"] = template["template"].clone();
            row["now"] = scenarios["strftime_now_is"].clone();
            let name = format!("{}/{scenario}", template["template_name"].as_str().unwrap_or("?"));
            rows.push((name, row, case.clone()));
        }
    }
    rows
}

#[test]
fn every_corpus_row_renders_as_the_reference_does() {
    let mut wrong = Vec::new();
    for (name, row, case) in rows() {
        let rendered = render_row(&row);
        match (case["expected"].as_str(), &rendered) {
            (Some(expected), Ok(found)) if expected == found => {}
            (None, Err(PromptError::Refused { message })) if case["message"].as_str() == Some(message) => {}
            (None, Err(PromptError::Render { .. })) if case["error"] != "TemplateError" => {}
            (expected, found) => {
                let at = expected.zip(found.as_ref().ok()).map(|(a, b)| {
                    let at = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
                    (a.get(at.saturating_sub(40)..).map(|s| s.chars().take(90).collect::<String>()),
                     b.get(at.saturating_sub(40)..).map(|s| s.chars().take(90).collect::<String>()))
                });
                wrong.push(format!("{name}: {:?} {:?} {at:?}", case["message"], rendered.as_ref().err()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_corpus_is_whole() {
    let rows = rows();
    assert!(rows.is_empty() || rows.len() == 380, "{} rows", rows.len());
}
