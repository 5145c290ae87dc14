//! Dry runs over many rows: one JSON object a line in, one a line out.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

/// Answers each row of a file, or of standard input; a row that fails does not end the others. `failed` makes the answer
/// to one that does.
pub(super) fn answer(
    input: Option<&Path>,
    mut answer: impl FnMut(Value) -> anyhow::Result<Value>,
    failed: impl Fn(&anyhow::Error) -> Value,
) -> anyhow::Result<()> {
    let reader: Box<dyn BufRead> = match input {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
            Box::new(BufReader::new(file))
        }
        None => Box::new(io::stdin().lock()),
    };
    let mut stdout = BufWriter::new(io::stdout().lock());
    for line in reader.split(b'\n') {
        let line = line.context("the rows cannot be read")?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let row = serde_json::from_slice::<Value>(&line).context("the row is no JSON");
        let said = row.and_then(&mut answer).unwrap_or_else(|error| failed(&error));
        writeln!(stdout, "{said}")?;
    }
    stdout.flush()?;
    Ok(())
}
