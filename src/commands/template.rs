//! `ingle template render`: what a template makes of messages, without a model in memory.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ingle::prompt::render_row;
use ingle_gguf::{Array, Header, Value as GgufValue};
use serde_json::{Map, Value, json};

use super::locate::open;
use super::rows;
use crate::cli::{FolderArgs, RenderArgs, TemplateCommand};
use crate::output;

/// Longest input, in bytes: more than any conversation, less than what fills memory.
const MAX_INPUT_BYTES: u64 = 256 << 20;

/// Runs it.
pub(crate) fn run(command: TemplateCommand) -> anyhow::Result<()> {
    let TemplateCommand::Render(args) = command;
    if args.jsonl { render_lines(args.input.as_deref()) } else { output::print(&render_one(&args)?) }
}

/// The prompt of one conversation, byte for byte: no newline is added.
fn render_one(args: &RenderArgs) -> anyhow::Result<String> {
    let source = match (&args.template, &args.model) {
        (Some(path), _) => TemplateSource::new(read_text(path)?),
        (None, Some(model)) => TemplateSource::of_model(model, &args.folder)?,
        (None, None) => bail!("name a template with --template, or a model with --model"),
    };
    let mut row = read_messages(args.input.as_deref())?;
    row.insert("template".to_owned(), source.template.into());
    let mut add = |key: &str, value: Option<Value>| {
        if let (Some(value), false) = (value, row.contains_key(key)) {
            row.insert(key.to_owned(), value);
        }
    };
    add("bos_token", source.bos_token.map(Value::from));
    add("eos_token", source.eos_token.map(Value::from));
    add("add_generation_prompt", Some(Value::Bool(!args.no_generation_prompt)));
    // The server tells templates the local time too.
    add("now", Some(Value::from(chrono::Local::now().format("%Y-%m-%dT%H:%M:%S").to_string())));
    Ok(render_row(&Value::Object(row))?)
}

/// One row a line in, one answer a line out.
fn render_lines(input: Option<&Path>) -> anyhow::Result<()> {
    let failed = |error: &anyhow::Error| json!({ "error": output::sentence(error) });
    rows::answer(input, |row| Ok(json!({ "prompt": render_row(&row)? })), failed)
}

/// A list of messages, or an object of template variables that has one.
fn read_messages(input: Option<&Path>) -> anyhow::Result<Map<String, Value>> {
    let text = read_input(input, "the messages")?;
    match serde_json::from_str(&text).context("the messages are no JSON")? {
        Value::Object(row) if row.contains_key("messages") => Ok(row),
        messages @ Value::Array(_) => Ok(Map::from_iter([("messages".to_owned(), messages)])),
        _ => bail!("the messages must be a list, or an object with the key `messages`"),
    }
}

/// All of a file, or of standard input where none is named; `what` it holds.
pub(super) fn read_input(input: Option<&Path>, what: &str) -> anyhow::Result<String> {
    match input {
        Some(path) => read_text(path),
        None => limited(io::stdin().lock()).with_context(|| format!("{what} cannot be read from standard input")),
    }
}

fn cannot_read(path: &Path) -> String {
    format!("{} cannot be read", path.display())
}

pub(super) fn read_text(path: &Path) -> anyhow::Result<String> {
    File::open(path).and_then(limited).with_context(|| cannot_read(path))
}

fn limited(reader: impl Read) -> io::Result<String> {
    let mut text = String::new();
    reader.take(MAX_INPUT_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_INPUT_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 256 MiB"));
    }
    Ok(text)
}

/// A template and the tokens it may print.
pub(super) struct TemplateSource {
    pub(super) template: String,
    pub(super) bos_token: Option<String>,
    pub(super) eos_token: Option<String>,
}

impl TemplateSource {
    /// A template alone.
    pub(super) fn new(template: String) -> Self {
        Self { template, bos_token: None, eos_token: None }
    }

    /// From the header of a model's file.
    pub(super) fn of_model(model: &str, folder: &FolderArgs) -> anyhow::Result<Self> {
        let path = model_file(model, folder)?;
        let mut file = BufReader::new(File::open(&path).with_context(|| cannot_read(&path))?);
        let n_bytes = file.get_ref().metadata().with_context(|| cannot_read(&path))?.len();
        let header = Header::read(&mut file, n_bytes).with_context(|| cannot_read(&path))?;
        let info = header.validate().with_context(|| format!("{} is no sound model", path.display()))?;
        let template = info
            .chat_template
            .with_context(|| format!("{} has no chat template: name one with --template", path.display()))?;
        let token = |id: Option<u32>| id.and_then(|id| token_text(&header, id));
        Ok(Self { template, bos_token: token(info.special_tokens.bos), eos_token: token(info.special_tokens.eos) })
    }
}

fn model_file(model: &str, folder: &FolderArgs) -> anyhow::Result<PathBuf> {
    if Path::new(model).is_file() {
        return Ok(model.into());
    }
    Ok(open(folder)?.get(model)?.weights()?.path.clone())
}

fn token_text(header: &Header, id: u32) -> Option<String> {
    match header.metadata.get("tokenizer.ggml.tokens")? {
        GgufValue::Array(Array::Str(tokens)) => {
            tokens.get(id as usize).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        }
        _ => None,
    }
}
