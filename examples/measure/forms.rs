//! Clients whose answers are held to a form, against the same requests without one, in alternating rounds.

use std::time::Instant;

use futures_util::future::try_join_all;
use ingle_api::openai::{ChatRequest, ResponseFormat};
use serde_json::json;

use crate::common::{Random, Target, quantile};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Clients at the same time.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Tokens of a prompt, about.
    #[arg(long, default_value_t = 64)]
    prompt: usize,
    /// Tokens of an answer.
    #[arg(long, default_value_t = 64)]
    answer: usize,
    /// Rounds of each kind.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
}

/// What an answer is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Free,
    JsonSchema,
    Gbnf,
}

const FORMS: [Form; 3] = [Form::Free, Form::JsonSchema, Form::Gbnf];

/// A long list of strings, so that no answer ends before its limit.
const GBNF: &str = r#"root ::= "{\"title\": " string ", \"tags\": [" string (", " string){19,} "]}"
string ::= "\"" [^"\\\x00-\x1f]* "\""
"#;

fn held_to(form: Form, mut request: ChatRequest) -> ChatRequest {
    match form {
        Form::Free => {}
        Form::Gbnf => request.grammar = Some(GBNF.into()),
        Form::JsonSchema => {
            let tags = json!({"type": "array", "items": {"type": "string"}, "minItems": 20});
            let schema = json!({"type": "object", "properties": {"title": {"type": "string"}, "tags": tags},
                "required": ["title", "tags"], "additionalProperties": false});
            let (name, strict, description) = (Some("book".into()), Some(true), None);
            request.response_format = Some(ResponseFormat::JsonSchema { name, schema, strict, description });
        }
    }
    request
}

pub async fn run(target: &Target, options: Options) -> anyhow::Result<()> {
    for form in FORMS {
        round(target, &options, form).await?;
    }
    let mut speeds: Vec<(Form, f64)> = Vec::new();
    for idx in 0..options.rounds {
        // Which kind goes first alternates too.
        let order: Vec<Form> = if idx % 2 == 0 { FORMS.to_vec() } else { FORMS.into_iter().rev().collect() };
        for form in order {
            speeds.push((form, round(target, &options, form).await?));
        }
    }
    let of =
        |form: Form| speeds.iter().filter(|(other, _)| *other == form).map(|(_, speed)| *speed).collect::<Vec<_>>();
    let free = of(Form::Free);
    for form in FORMS {
        let mut ratios: Vec<f64> = of(form).iter().zip(&free).map(|(speed, free)| speed / free).collect();
        println!(
            "{form:?}: median {:.1} tok/s, ratio to free {:.3}",
            quantile(&mut of(form), 0.5),
            quantile(&mut ratios, 0.5)
        );
    }
    Ok(())
}

/// Tokens a second of all clients together.
async fn round(target: &Target, options: &Options, form: Form) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let requests = (0..options.clients).map(|client| {
        let words = Random(client as u64).words(options.prompt);
        let request = target.request(None, &words, options.answer)?;
        Ok(target.stream(held_to(form, request), usize::MAX))
    });
    let answers = try_join_all(requests.collect::<anyhow::Result<Vec<_>>>()?).await?;
    let n_tokens: u64 =
        answers.iter().filter_map(|answer| answer.usage.as_ref()).map(|usage| usage.completion_tokens).sum();
    Ok(n_tokens as f64 / begun.elapsed().as_secs_f64())
}
