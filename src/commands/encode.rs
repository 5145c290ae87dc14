//! `ingle embed` and `ingle rerank`: vectors and scores without a server, for scripts and for people.

use std::io::{BufRead, Read, stdin};
use std::path::Path;

use anyhow::{Context, bail};
use futures_executor::block_on;
use ingle::catalog::NoProgress;
use ingle::{EmbedCall, EmbedInput, EmbedPrompt, RerankCall, Runtime, Setup};
use serde_json::json;

use super::locate::{ON_THE_WAY, locate};
use crate::cli::{EmbedArgs, FolderArgs, LoadArgs, RerankArgs};
use crate::output;

/// Texts that are embedded together, so that memory does not grow with the input.
const CHUNK: usize = 256;

/// Runs `ingle embed`: one JSON object a line, `{"text": …, "embedding": […]}`.
pub(crate) fn embed(args: EmbedArgs) -> anyhow::Result<()> {
    let (runtime, model) = open(args.model.as_deref(), &args.folder, &args.load)?;
    let prompt = args.prompt_name.map_or(EmbedPrompt::Default, EmbedPrompt::Named);
    let mut texts = texts(args.texts, args.file.as_deref())?.peekable();
    if texts.peek().is_none() {
        bail!("there is no text; give texts as arguments, a file with --file, or lines on standard input");
    }
    let mut n_cut = 0;
    while texts.peek().is_some() {
        let chunk: Vec<String> = texts.by_ref().take(CHUNK).collect::<anyhow::Result<_>>()?;
        let inputs = chunk.iter().cloned().map(EmbedInput::Text).collect();
        let call = EmbedCall {
            model: model.clone(),
            inputs,
            dimensions: args.dimensions,
            prompt: prompt.clone(),
            ..EmbedCall::default()
        };
        let embedded = block_on(runtime.embed(call))?;
        n_cut += embedded.n_cut;
        for (text, vector) in chunk.iter().zip(embedded.vectors) {
            output::print(&format!("{}\n", json!({"text": text, "embedding": vector})))?;
        }
    }
    if n_cut > 0 {
        tracing::warn!("{n_cut} texts were longer than the model takes and were cut");
    }
    Ok(())
}

/// Runs `ingle rerank`: the documents, best first, `{"index": …, "score": …, "text": …}` a line.
pub(crate) fn rerank(args: RerankArgs) -> anyhow::Result<()> {
    let (runtime, model) = open(args.model.as_deref(), &args.folder, &args.load)?;
    let documents: Vec<String> = texts(args.documents, args.file.as_deref())?.collect::<anyhow::Result<_>>()?;
    if documents.is_empty() {
        bail!("there is no document; give them as arguments, a file with --file, or lines on standard input");
    }
    let call = RerankCall { model, query: args.query, documents: documents.clone(), top_n: args.top_n };
    for ranked in block_on(runtime.rerank(call))?.results {
        let text = &documents[ranked.document_idx];
        let line = json!({"index": ranked.document_idx, "score": ranked.score, "text": text});
        output::print(&format!("{line}\n"))?;
    }
    Ok(())
}

fn open(model: Option<&str>, folder: &FolderArgs, load: &LoadArgs) -> anyhow::Result<(Runtime, Option<String>)> {
    let setup = Setup {
        config_file: folder.models_config_file.clone(),
        defaults: load.defaults(),
        ..Setup::new(&folder.models_path)
    };
    let runtime = setup.runtime()?;
    let name = model.map(|what| locate(runtime.catalog(), what, ON_THE_WAY, &NoProgress)).transpose()?;
    Ok((runtime, name))
}

type Texts = Box<dyn Iterator<Item = anyhow::Result<String>>>;

/// The texts of the arguments, else the lines of the file, else those of standard input. Empty lines are passed over.
fn texts(arguments: Vec<String>, file: Option<&Path>) -> anyhow::Result<Texts> {
    if !arguments.is_empty() {
        return Ok(Box::new(arguments.into_iter().map(Ok)));
    }
    let source: Box<dyn Read> = match file {
        Some(path) => {
            Box::new(std::fs::File::open(path).with_context(|| format!("{} cannot be read", path.display()))?)
        }
        None => Box::new(stdin()),
    };
    let lines = std::io::BufReader::new(source).lines();
    let text = |line: std::io::Result<String>| match line {
        Ok(line) if line.trim().is_empty() => None,
        other => Some(other.context("the texts cannot be read")),
    };
    Ok(Box::new(lines.filter_map(text)))
}
