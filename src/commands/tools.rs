//! `ingle tools`: what a client gets of a generated text, without a model in memory.

use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use ingle::prompt::{AnswerDelta, AnswerParser, ChatTemplate, ReasoningFormat, TemplateVocabulary, Tool};
use serde_json::{Value, json};

use super::rows;
use super::template::{TemplateSource, read_input, read_text};
use crate::cli::ToolsCommand;
use crate::output;

/// Runs it.
pub(crate) fn run(command: ToolsCommand) -> anyhow::Result<()> {
    let ToolsCommand::Parse(args) = command;
    let source = match (&args.template, &args.model) {
        (Some(path), _) => Some(TemplateSource::new(read_text(path)?)),
        (None, Some(model)) => Some(TemplateSource::of_model(model, &args.folder)?),
        (None, None) => None,
    };
    let tools = match &args.tools {
        Some(path) => tools_of(&serde_json::from_str(&read_text(path)?).context("the tools are no JSON")?)?,
        None => Arc::from(Vec::new()),
    };
    let mut parsing = Parsing { source, tools, compiled: None };
    if args.jsonl {
        let failed = |error: &anyhow::Error| json!({"error": output::sentence(error)});
        return rows::answer(args.input.as_deref(), |row| parsing.row(&row), failed);
    }
    let text = read_input(args.input.as_deref(), "the text")?;
    let mut row = json!({"text": text});
    if let Some(tail) = &args.prompt_end {
        row["prompt_end"] = json!(tail);
    }
    let answer = parsing.row(&row)?;
    output::print(&format!("{}\n", serde_json::to_string_pretty(&answer)?))
}

/// What rows have in common.
struct Parsing {
    /// For rows without a template of their own.
    source: Option<TemplateSource>,
    /// For rows without tools of their own.
    tools: Arc<[Tool]>,
    /// The template of the last row: rows of one template stand together.
    compiled: Option<(String, ChatTemplate)>,
}

impl Parsing {
    /// Content, reasoning and calls of a row `{text or pieces, template, tools, prompt_end}`.
    fn row(&mut self, row: &Value) -> anyhow::Result<Value> {
        let key = |names: [&str; 2]| names.into_iter().map(|name| &row[name]).find(|value| !value.is_null());
        let tools = match &row["tools"] {
            Value::Null => Arc::clone(&self.tools),
            tools => tools_of(tools)?,
        };
        let tail = key(["prompt_end", "generation_prefix_tail"]).and_then(Value::as_str).unwrap_or_default().to_owned();
        let pieces: Vec<String> = match (&row["pieces"], key(["text", "raw"])) {
            (Value::Array(pieces), _) => {
                let piece = |piece: &Value| piece.as_str().map(str::to_owned).context("`pieces` holds what is no text");
                pieces.iter().map(piece).collect::<anyhow::Result<_>>()?
            }
            (_, Some(Value::String(text))) => vec![text.clone()],
            _ => bail!("the row has no `text`"),
        };
        let template = self.template(&row["template"])?;
        let reasoning = ReasoningFormat::detect(template.source(), &tail);
        let parser = AnswerParser::with_calls(reasoning, Arc::clone(template.call_format()), tools);
        Ok(split(parser, &pieces))
    }

    fn template(&mut self, own: &Value) -> anyhow::Result<&ChatTemplate> {
        let (source, vocabulary) = match (own.as_str(), &self.source) {
            (Some(source), _) => (source.to_owned(), TemplateVocabulary::default()),
            (None, Some(source)) => (
                source.template.clone(),
                TemplateVocabulary {
                    bos_token: source.bos_token.clone(),
                    eos_token: source.eos_token.clone(),
                    ..TemplateVocabulary::default()
                },
            ),
            (None, None) => bail!("the row has no `template`; give one with --template or --model"),
        };
        if self.compiled.as_ref().is_none_or(|(kept, _)| *kept != source) {
            self.compiled = Some((source.clone(), ChatTemplate::compile(&source, vocabulary)?));
        }
        let (_, template) = self.compiled.as_ref().ok_or_else(|| anyhow!("a template was compiled"))?;
        Ok(template)
    }
}

/// What a client gets: calls as `{name, arguments}`, the arguments as JSON, or as text where they are not whole.
fn split(mut parser: AnswerParser, pieces: &[String]) -> Value {
    let mut deltas: Vec<AnswerDelta> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
    deltas.extend(parser.finish());
    let (mut content, mut reasoning) = (String::new(), String::new());
    let mut calls: Vec<(String, String, bool)> = Vec::new();
    for delta in deltas {
        match delta {
            AnswerDelta::Text(text) => content += &text,
            AnswerDelta::Reasoning(text) => reasoning += &text,
            AnswerDelta::CallStart { name } => calls.push((name, String::new(), false)),
            AnswerDelta::CallArguments(text) => calls.iter_mut().last().into_iter().for_each(|call| call.1 += &text),
            AnswerDelta::CallEnd => calls.iter_mut().last().into_iter().for_each(|call| call.2 = true),
        }
    }
    let complete = calls.iter().all(|(_, _, is_whole)| *is_whole);
    let calls: Vec<Value> = calls
        .into_iter()
        .map(|(name, text, _)| {
            let arguments = serde_json::from_str(&text).unwrap_or(Value::String(text));
            json!({"name": name, "arguments": arguments})
        })
        .collect();
    json!({"content": content, "reasoning": reasoning, "tool_calls": calls, "complete": complete})
}

/// Tools as requests carry them: a list of `{"type": "function", "function": {…}}`, or of the functions alone.
fn tools_of(tools: &Value) -> anyhow::Result<Arc<[Tool]>> {
    let tools = tools.as_array().context("the tools are no list")?;
    let tool = |raw: &Value| -> anyhow::Result<Tool> {
        let function = raw.get("function").filter(|function| function.is_object()).unwrap_or(raw);
        let name = function["name"].as_str().context("a tool has no `name`")?.to_owned();
        let parameters = match &function["parameters"] {
            Value::Null => json!({"type": "object", "properties": {}}),
            parameters => parameters.clone(),
        };
        let description = function["description"].as_str().map(str::to_owned);
        Ok(Tool { name, description, parameters, strict: function["strict"] == json!(true), raw: raw.clone() })
    };
    tools.iter().map(tool).collect()
}
