//! Whatever is sampled is valid: random answers at a high temperature, held to schemas and grammars of the corpora.
//!
//! `INGLE_LONG_TESTS=1` makes 1,000 answers; without it a tenth of that.

use std::path::Path;

use futures_executor::block_on;
use ingle::prompt::{Conversation, Message, Role, TemplateOptions};
use ingle::{
    AnswerOptions, ChatCall, ChatEvent, ChatStream, FinishReason, GrammarSource, Runtime, SamplingOverrides,
    Strictness, TextMatch, ToolUse,
};
use serde_json::Value;

use crate::support::{chat_model, models_folder};

fn corpus(name: &str) -> Option<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora").join(name);
    let Ok(text) = std::fs::read_to_string(path) else {
        eprintln!("skipped: the corpus {name} is not here");
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).expect("a corpus line is JSON")).collect())
}

/// Forms of the corpora, the same in every run.
fn forms() -> Option<Vec<GrammarSource>> {
    let is_small = |schema: &Value| schema.to_string().len() < 600;
    let schemas = corpus("maskbench_sample.jsonl")?.into_iter().filter(|row| row["llguidance_1_8"] == "ok");
    let schemas = schemas.map(|row| row["schema"].clone()).filter(is_small).step_by(5).take(40);
    let schemas = schemas.map(|schema| GrammarSource::JsonSchema { schema, strictness: Strictness::Strict });
    let has_texts = |row: &Value| row["accept"].as_array().is_some_and(|texts| !texts.is_empty());
    let grammars = corpus("gbnf_cases.jsonl")?.into_iter().filter(has_texts);
    let grammars = grammars.filter_map(|row| Some(GrammarSource::Gbnf(row["grammar"].as_str()?.to_owned()))).take(30);
    Some(schemas.chain(grammars).collect())
}

fn ask(runtime: &Runtime, source: &GrammarSource, n: usize, seed: u64) -> Result<Vec<ChatStream>, ingle::RuntimeError> {
    block_on(runtime.chat(ChatCall {
        model: Some("small".into()),
        conversation: Conversation { messages: vec![Message::text(Role::User, "Make one up.")], tools: Vec::new() },
        tool_use: ToolUse::default(),
        template: TemplateOptions::default(),
        options: AnswerOptions {
            n,
            max_tokens: Some(64),
            grammar: Some(source.clone()),
            sampling: SamplingOverrides {
                temperature: Some(1.5),
                top_k: Some(0),
                top_p: Some(1.0),
                seed: Some(seed),
                ..SamplingOverrides::default()
            },
            ..AnswerOptions::default()
        },
    }))
}

/// The text of an answer and why it ended.
fn read(stream: &mut ChatStream) -> (String, FinishReason) {
    let mut text = String::new();
    loop {
        match stream.wait_next().expect("an answer ends with Done").expect("the answer does not fail") {
            ChatEvent::Content(piece) => text += &piece,
            ChatEvent::Done(end) => return (text, end.completion.reason),
            _ => {}
        }
    }
}

#[test]
fn random_answers_are_valid_or_cut_by_the_limit() {
    let (Some(model), Some(forms)) = (chat_model(), forms()) else { return };
    let folder = models_folder(&model);
    let runtime = ingle::open(folder.path()).expect("the folder is readable");
    let wanted = if std::env::var_os("INGLE_LONG_TESTS").is_some() { 1000 } else { 100 };
    let (mut n_valid, mut n_cut, mut n_forms) = (0, 0, 0);
    let per_form = usize::div_ceil(wanted, forms.len());
    for (idx, source) in forms.iter().enumerate() {
        let streams = match ask(&runtime, source, per_form, 1000 * idx as u64) {
            Ok(streams) => streams,
            // What cannot be enforced under `strict` is refused, not followed in part.
            Err(error) => {
                println!("refused: {error}");
                continue;
            }
        };
        n_forms += 1;
        for mut stream in streams {
            let (text, reason) = read(&mut stream);
            // The limit may fall inside a character.
            let text = if reason == FinishReason::Length { text.trim_end_matches('\u{FFFD}') } else { &text };
            let form = stream.form().expect("the answer has a form");
            match (form.follow(text), reason) {
                (TextMatch::Complete, FinishReason::Stop) => {
                    assert_ne!(form.validate(text), Some(false), "{source:?}: {text}");
                    n_valid += 1;
                }
                // A limit may also fall where the text happens to be whole.
                (TextMatch::Complete | TextMatch::Incomplete, FinishReason::Length) => n_cut += 1,
                (found, reason) => panic!("{found:?}, {reason:?}: {source:?}: {text:?}"),
            }
        }
    }
    println!("{} answers of {n_forms} forms: {n_valid} valid, {n_cut} cut by the limit", n_valid + n_cut);
    assert!(n_forms >= 50 && n_valid + n_cut >= wanted * 9 / 10);
}
