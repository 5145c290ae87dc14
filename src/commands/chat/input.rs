//! What people type: messages of one or many lines, and commands.

use std::path::PathBuf;

use anyhow::Context;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

/// Delimiter of a block of lines.
const BLOCK: &str = "\"\"\"";

/// One thing that was typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// For the model.
    Message(String),
    /// `/help`.
    Help,
    /// `/clear`.
    Clear,
    /// `/system TEXT`.
    System(Option<String>),
    /// A slash and a word that we do not know.
    Unknown(String),
    /// An empty line, or a line that was given up with Ctrl-C.
    Nothing,
    /// `/exit` or Ctrl-D.
    Exit,
}

/// A line editor with a history that outlives the program.
pub(super) struct Editor {
    editor: DefaultEditor,
    history: Option<PathBuf>,
}

impl Editor {
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut editor = DefaultEditor::new().context("the terminal cannot be used")?;
        let history = history_file();
        if let Some(path) = history.as_ref().filter(|path| path.exists())
            && let Err(error) = editor.load_history(path)
        {
            tracing::warn!(%error, "the history cannot be read");
        }
        Ok(Self { editor, history })
    }

    /// Reads until something is complete.
    pub(super) fn read(&mut self) -> anyhow::Result<Entry> {
        let mut lines = Lines::default();
        loop {
            let prompt = if lines.is_empty() { "> " } else { ". " };
            match self.editor.readline(prompt) {
                Ok(line) => {
                    if let Some(text) = lines.push(&line) {
                        self.remember(&text);
                        return Ok(parse(&text));
                    }
                }
                Err(ReadlineError::Interrupted) => return Ok(Entry::Nothing),
                Err(ReadlineError::Eof) => return Ok(Entry::Exit),
                Err(error) => return Err(error).context("the terminal cannot be read"),
            }
        }
    }

    fn remember(&mut self, text: &str) {
        if text.trim().is_empty() {
            return;
        }
        let added = self.editor.add_history_entry(text);
        let Some(path) = &self.history else { return };
        let folder = path.parent().map(std::fs::create_dir_all).transpose();
        let saved = folder.map_err(ReadlineError::from).and(added).and_then(|_| self.editor.save_history(path));
        if let Err(error) = saved {
            tracing::warn!(%error, "the history cannot be written");
            self.history = None;
        }
    }
}

fn history_file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Some(state.join("ingle").join("chat_history"))
}

/// Lines on their way to one text.
#[derive(Debug, Default)]
struct Lines {
    text: String,
    is_block: bool,
    has_begun: bool,
}

impl Lines {
    fn is_empty(&self) -> bool {
        !self.has_begun
    }

    /// Takes a line; the text when it is complete.
    fn push(&mut self, line: &str) -> Option<String> {
        if !self.has_begun && line.trim_start().starts_with(BLOCK) {
            self.has_begun = true;
            self.is_block = true;
            let rest = line.trim_start().strip_prefix(BLOCK).unwrap_or_default();
            return if rest.is_empty() { None } else { self.push_in_block(rest) };
        }
        if self.is_block {
            return self.push_in_block(line);
        }
        self.has_begun = true;
        match line.strip_suffix('\\') {
            Some(line) => {
                self.text.push_str(line);
                self.text.push('\n');
                None
            }
            None => {
                self.text.push_str(line);
                Some(std::mem::take(&mut self.text))
            }
        }
    }

    fn push_in_block(&mut self, line: &str) -> Option<String> {
        match line.trim_end().strip_suffix(BLOCK) {
            Some(last) => {
                self.text.push_str(last);
                Some(std::mem::take(&mut self.text).trim_end_matches('\n').to_owned())
            }
            None => {
                self.text.push_str(line);
                self.text.push('\n');
                None
            }
        }
    }
}

fn parse(text: &str) -> Entry {
    if text.trim().is_empty() {
        return Entry::Nothing;
    }
    if !text.starts_with('/') {
        return Entry::Message(text.to_owned());
    }
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    match word {
        "/help" | "/?" => Entry::Help,
        "/clear" => Entry::Clear,
        "/system" => Entry::System(Some(rest.trim().to_owned()).filter(|text| !text.is_empty())),
        "/exit" | "/quit" | "/bye" => Entry::Exit,
        other => Entry::Unknown(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, Lines, parse};

    #[test]
    fn lines_become_texts() {
        let cases: [(&[&str], Option<&str>); 9] = [
            (&["hello"], Some("hello")),
            (&["a\\", "b"], Some("a\nb")),
            (&["a\\"], None),
            (&["\"\"\"", "a", "", "b", "\"\"\""], Some("a\n\nb")),
            (&["\"\"\"a", "b\"\"\""], Some("a\nb")),
            (&["\"\"\"a\"\"\""], Some("a")),
            (&["\"\"\"", "a\\", "\"\"\""], Some("a\\")),
            (&["\"\"\"", "a"], None),
            (&[""], Some("")),
        ];
        for (typed, expected) in cases {
            let mut lines = Lines::default();
            let found: Vec<Option<String>> = typed.iter().map(|line| lines.push(line)).collect();
            let (last, before) = found.split_last().expect("a line");
            assert!(before.iter().all(Option::is_none), "{typed:?}");
            assert_eq!(last.as_deref(), expected, "{typed:?}");
        }
    }

    #[test]
    fn commands() {
        let cases = [
            ("hi", Entry::Message("hi".into())),
            (" /x", Entry::Message(" /x".into())),
            ("  ", Entry::Nothing),
            ("/help", Entry::Help),
            ("/clear", Entry::Clear),
            ("/system be brief", Entry::System(Some("be brief".into()))),
            ("/system", Entry::System(None)),
            ("/bye", Entry::Exit),
            ("/nope now", Entry::Unknown("/nope".into())),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
