//! `ingle grammar`: what grammars let pass, and what they cost, without a request.

mod bench;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use ingle::{Compiled, GrammarEnvironment, GrammarSource, Strictness, TextMatch};
use serde_json::{Value, json};

use super::rows;
use crate::cli::{CheckArgs, GrammarCommand, GrammarKind};
use crate::output;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything passes.
    Passed,
    /// A text does not.
    NoMatch,
    /// The grammar is refused.
    Refused,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Passed => ExitCode::SUCCESS,
            Verdict::NoMatch => ExitCode::from(1),
            Verdict::Refused => ExitCode::from(2),
        }
    }
}

/// Runs it.
pub(crate) fn run(command: GrammarCommand) -> anyhow::Result<Verdict> {
    match command {
        GrammarCommand::Check(args) if args.jsonl => check_lines(args.input.as_deref()),
        GrammarCommand::Check(args) => check_one(&args),
        GrammarCommand::Bench(args) => bench::run(args).map(|()| Verdict::Passed),
    }
}

fn check_one(args: &CheckArgs) -> anyhow::Result<Verdict> {
    let path = args.input.as_deref().context("name a file with a grammar")?;
    let kind = match args.kind {
        Some(kind) => kind,
        None => kind_of(path)?,
    };
    let strictness = if args.strict { Strictness::Strict } else { Strictness::Lenient };
    let compiled = source(kind, &read(path)?, strictness).and_then(|source| {
        let environment = Arc::new(GrammarEnvironment::bytes()?);
        Ok(Compiled::new(&environment, &source)?)
    });
    let compiled = match compiled {
        Ok(compiled) => compiled,
        Err(error) => {
            output::print(&format!("refused: {}\n", output::sentence(&error)))?;
            return Ok(Verdict::Refused);
        }
    };
    let mut report = String::new();
    compiled.unenforced().iter().for_each(|what| report.push_str(&format!("not enforced: {what}\n")));
    let files = args.text_files.iter().map(|path| Ok((path.display().to_string(), read(path)?)));
    let texts = args.texts.iter().map(|text| Ok((format!("{text:?}"), text.clone())));
    let mut verdict = Verdict::Passed;
    for text in texts.chain(files).collect::<anyhow::Result<Vec<_>>>()? {
        let (name, text) = text;
        let found = compiled.follow(&text);
        verdict = if found == TextMatch::Complete { verdict } else { Verdict::NoMatch };
        report.push_str(&format!("{name}: {}\n", describe(found, &text)));
    }
    if report.is_empty() {
        report.push_str("the grammar is sound; give it texts with --text or --text-file\n");
    }
    output::print(&report)?;
    Ok(verdict)
}

fn describe(found: TextMatch, text: &str) -> String {
    match found {
        TextMatch::Complete => "match".to_owned(),
        TextMatch::Incomplete => "no match: the text ends too early".to_owned(),
        TextMatch::Refused { at } => {
            let start = (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            let line = text[..start].matches('\n').count() + 1;
            let column = text[..start].chars().rev().take_while(|&c| c != '\n').count() + 1;
            let what = text[start..].chars().next().map_or_else(|| "the end".to_owned(), |c| format!("{c:?}"));
            format!("no match: line {line}, column {column}: {what} is not allowed here")
        }
    }
}

/// One row a line in, one answer a line out.
fn check_lines(input: Option<&Path>) -> anyhow::Result<Verdict> {
    let environment = Arc::new(GrammarEnvironment::bytes()?);
    let failed = |error: &anyhow::Error| json!({"ok": false, "error": output::sentence(error), "accepts": []});
    rows::answer(input, |row| check_row(&environment, &row), failed)?;
    Ok(Verdict::Passed)
}

fn check_row(environment: &Arc<GrammarEnvironment>, row: &Value) -> anyhow::Result<Value> {
    let kind = row["kind"].as_str().context("the row has no `kind`")?;
    // Kinds may say more, such as `gbnf_syntax`.
    let kinds = [
        ("gbnf", GrammarKind::Gbnf),
        ("json_schema", GrammarKind::JsonSchema),
        ("regex", GrammarKind::Regex),
        ("lark", GrammarKind::Lark),
    ];
    let kind = kinds.iter().find(|(name, _)| kind.starts_with(name)).map(|&(_, kind)| kind);
    let kind = kind.context("`kind` is none of gbnf, json_schema, regex, lark")?;
    let strictness = if row["strict"] == json!(true) { Strictness::Strict } else { Strictness::Lenient };
    let source = match (kind, &row["schema"], &row["grammar"]) {
        (GrammarKind::JsonSchema, Value::Null, Value::String(text)) => source(kind, text, strictness)?,
        (GrammarKind::JsonSchema, Value::Null, schema) | (GrammarKind::JsonSchema, schema, _) => {
            GrammarSource::JsonSchema { schema: schema.clone(), strictness }
        }
        (_, _, Value::String(text)) => source(kind, text, strictness)?,
        _ => return Err(anyhow!("the row has no `grammar`")),
    };
    let compiled = Compiled::new(environment, &source)?;
    let texts = row["texts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let accepts: Vec<bool> = texts
        .iter()
        .map(|text| text.as_str().is_some_and(|text| compiled.follow(text) == TextMatch::Complete))
        .collect();
    let mut answer = json!({"ok": true, "error": null, "accepts": accepts});
    if !compiled.unenforced().is_empty() {
        answer["unenforced"] = json!(compiled.unenforced());
    }
    Ok(answer)
}

fn kind_of(path: &Path) -> anyhow::Result<GrammarKind> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("gbnf") => Ok(GrammarKind::Gbnf),
        Some("json") => Ok(GrammarKind::JsonSchema),
        Some("regex") => Ok(GrammarKind::Regex),
        Some("lark") => Ok(GrammarKind::Lark),
        _ => Err(anyhow!("the ending of {} does not say what it is; name it with --kind", path.display())),
    }
}

fn source(kind: GrammarKind, text: &str, strictness: Strictness) -> anyhow::Result<GrammarSource> {
    Ok(match kind {
        GrammarKind::Gbnf => GrammarSource::Gbnf(text.to_owned()),
        // A file ends with a line end that is no part of the expression.
        GrammarKind::Regex => GrammarSource::Regex(text.trim_end_matches(['\r', '\n']).to_owned()),
        GrammarKind::Lark => GrammarSource::Lark(text.to_owned()),
        GrammarKind::JsonSchema => GrammarSource::JsonSchema {
            schema: serde_json::from_str(text).context("the schema is no JSON")?,
            strictness,
        },
    })
}

fn cannot_read(path: &Path) -> String {
    format!("{} cannot be read", path.display())
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| cannot_read(path))
}
