//! `ingle bench quality`: what a model is worth, so that a quantization can be judged without a server.

mod choices;
mod perplexity;
mod scorer;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::Context;
use ingle::LoadOptions;

use super::offline::Source;
use super::report::{Report, Row};
use super::stop::Stop;
use crate::cli::QualityArgs;
use scorer::Scorer;

const METHOD: &str = "perplexity: the text in pieces of `context` tokens, each with the beginning-of-sequence token in \
    front where the model wants one, the second half of each piece scored, as llama.cpp does. accuracy: the choice with \
    the largest sum of log-probabilities; by length: of the sum for each byte.";

/// Rows that a step has at most, and so sequences of the context.
const N_ROWS: usize = 64;

/// Scores everything and makes the report.
pub(crate) fn run(args: &QualityArgs) -> anyhow::Result<Report> {
    let text = args.text.as_deref().map(read).transpose()?;
    let questions = args.choices.as_deref().map(|path| choices::parse(&read(path)?, path)).transpose()?;
    let stop = Stop::on_interrupt()?;
    let mut report = Report::new("quality");
    let material = Material { args, text, questions, stop: stop.clone() };
    for model in &args.models {
        if stop.is_requested() {
            break;
        }
        if let Err(error) = material.score(&mut report, model) {
            report.fail(model, error);
        }
    }
    report.is_complete &= !stop.is_requested();
    report.notes.push(METHOD.to_owned());
    report.checked("nothing was scored before the end")
}

/// What models are judged by.
struct Material<'a> {
    args: &'a QualityArgs,
    text: Option<String>,
    questions: Option<Vec<choices::Question>>,
    stop: Stop,
}

impl Material<'_> {
    /// Adds the row of a model; what was scored before an error stays.
    fn score(&self, report: &mut Report, model: &str) -> anyhow::Result<()> {
        let args = self.args;
        let source = Source::open(model, &args.folder)?;
        report.subjects.push(source.subject()?);
        let mut row = Row::new([("model", serde_json::json!(source.name))]);
        let most = self.questions.iter().flatten().map(choices::Question::most_bytes).max().unwrap_or(0);
        let options = options(args, &source.options, most);
        let mut scorer = Scorer::open(&options).with_context(|| format!("model {model} cannot be loaded"))?;
        let outcome = self.metrics(&mut scorer, &mut row);
        if !row.metrics.is_empty() {
            report.rows.push(row);
        }
        outcome
    }

    fn metrics(&self, scorer: &mut Scorer, row: &mut Row) -> anyhow::Result<()> {
        if let Some(text) = &self.text {
            let n_pieces = self.args.pieces.map(|n| n as usize);
            let plan = perplexity::Plan { n_context: self.args.context as usize, n_pieces };
            row.metrics.extend(perplexity::measure(scorer, text, plan, &self.stop)?.metrics());
        }
        if let Some(questions) = &self.questions {
            row.metrics.extend(choices::measure(scorer, questions, &self.stop)?);
        }
        Ok(())
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read as a text", path.display()))
}

/// Room for one piece or question; a token has at least one byte, or is one of the few around a text.
fn options(args: &QualityArgs, configured: &LoadOptions, most_bytes: usize) -> LoadOptions {
    LoadOptions {
        context_size: Some((args.context as usize).max(most_bytes + 16)),
        parallel: Some(N_ROWS),
        threads: args.threads.map(|n| n as usize).or(configured.threads),
        gpu_layers: args.gpu_layers.unwrap_or(configured.gpu_layers),
        // Window layers keep their whole context, as where such texts are scored elsewhere.
        swa_full: true,
        ..configured.clone()
    }
}
