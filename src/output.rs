//! What commands print, and how their errors read.

use std::fmt::Write as _;
use std::io::{self, Write as _};

/// Writes a text to standard output. A reader that has gone, as in `ingle models list | head -1`, is an error here and
/// none for the program.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Does the error say that nobody reads the output any more?
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(broken)
}

/// The error and its causes in one line; a cause that the sentence already tells is left out.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if line.contains(&text) {
            continue;
        }
        let separator = if line.is_empty() { "" } else { ": " };
        // Writing to a string cannot fail.
        let _ = write!(line, "{separator}{text}");
    }
    line
}

/// Columns under headings, two blanks apart. Numbers are not aligned: names are what people look for.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut headings.iter().copied());
    rows.iter().for_each(|row| text.push_str(&line(&mut row.iter().map(String::as_str))));
    text
}

/// A number of bytes for people.
pub(crate) fn bytes(n_bytes: u64) -> String {
    indicatif::BinaryBytes(n_bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::{sentence, table};

    #[test]
    fn tables_are_aligned_by_characters() {
        let rows = [vec!["é".to_owned(), "1".to_owned()], vec!["abc".to_owned(), String::new()]];
        assert_eq!(table(&["a", "n"], &rows), "a    n\né    1\nabc\n");
    }

    #[test]
    fn causes_are_told_once() {
        let cause = anyhow::anyhow!("no such file");
        assert_eq!(sentence(&cause.context("cannot read x: no such file")), "cannot read x: no such file");
        let cause = anyhow::anyhow!("no such file");
        assert_eq!(sentence(&cause.context("cannot read x")), "cannot read x: no such file");
    }
}
