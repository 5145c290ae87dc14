//! Phonemes from espeak-ng, run as a program: it is licensed under the GPL, so it is never linked in. It is looked for
//! when it is needed.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Names the program may have.
const PROGRAMS: [&str; 2] = ["espeak-ng", "espeak"];
/// Signs that end a clause and that voices know.
const CLAUSE_ENDS: &str = ".,;:!?";
/// Words whose full stop ends nothing.
const ABBREVIATIONS: [&str; 16] =
    ["mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "vs", "etc", "no", "fig", "inc", "ltd", "gen", "rev"];

/// Stands between the letters of one sound in [`Espeak::tied_phonemes`].
pub const TIE: char = '^';

/// Why there are no phonemes.
#[derive(Debug, thiserror::Error)]
pub enum EspeakError {
    /// The program is not there.
    #[error(
        "this voice needs the program espeak-ng, which is not installed; install it (Debian: apt-get install espeak-ng) or \
         set INGLE_ESPEAK to its path"
    )]
    Absent,
    /// The program does not know the voice's language.
    #[error("espeak-ng has no voice {voice}: {reason}")]
    Voice {
        /// Name of the voice.
        voice: String,
        /// What the program said.
        reason: String,
    },
    /// The program failed.
    #[error("espeak-ng failed: {reason}")]
    Failed {
        /// What happened.
        reason: String,
    },
}

/// The program, found.
#[derive(Debug, Clone)]
pub struct Espeak {
    program: PathBuf,
}

impl Espeak {
    /// Looks for the program: `INGLE_ESPEAK`, or in the path.
    ///
    /// # Errors
    /// [`EspeakError::Absent`].
    pub fn find() -> Result<Self, EspeakError> {
        if let Some(program) = std::env::var_os("INGLE_ESPEAK").filter(|program| !program.is_empty()) {
            let program = PathBuf::from(program);
            return if program.is_file() { Ok(Self { program }) } else { Err(EspeakError::Absent) };
        }
        let folders: Vec<PathBuf> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
        let candidates = PROGRAMS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
        candidates.into_iter().find(|path| path.is_file()).map(|program| Self { program }).ok_or(EspeakError::Absent)
    }

    /// Phonemes of a sentence in the language of espeak-ng's `voice`, with the signs that end its clauses.
    ///
    /// # Errors
    /// When the program cannot be run or does not know the voice.
    pub fn phonemes(&self, sentence: &str, voice: &str) -> Result<String, EspeakError> {
        self.of_clauses(sentence, voice, &["--ipa"])
    }

    /// As [`Espeak::phonemes`], with [`TIE`] between the letters that are one sound, such as the two of a diphthong.
    ///
    /// # Errors
    /// As [`Espeak::phonemes`].
    pub fn tied_phonemes(&self, sentence: &str, voice: &str) -> Result<String, EspeakError> {
        self.of_clauses(sentence, voice, &["--ipa", "--tie=^"])
    }

    fn of_clauses(&self, sentence: &str, voice: &str, form: &[&str]) -> Result<String, EspeakError> {
        let clauses = clauses(sentence);
        let lines: Vec<&str> = clauses.iter().map(|clause| &*clause.text).collect();
        let mut spoken = self.run(&lines.join("\n"), voice, form)?;
        if spoken.len() != lines.len() {
            // espeak-ng cut a clause of its own accord: ask for each alone.
            let alone = |line: &&str| Ok(self.run(line, voice, form)?.join(" "));
            spoken = lines.iter().map(alone).collect::<Result<_, EspeakError>>()?;
        }
        let mut phonemes = String::new();
        for (clause, spoken) in clauses.iter().zip(&spoken) {
            if spoken.is_empty() {
                continue;
            }
            if !phonemes.is_empty() {
                phonemes.push(' ');
            }
            phonemes.push_str(spoken);
            phonemes.extend(clause.end);
        }
        Ok(phonemes)
    }

    /// One line of phonemes for each clause of `text`.
    fn run(&self, text: &str, voice: &str, form: &[&str]) -> Result<Vec<String>, EspeakError> {
        let failed = |error: std::io::Error| EspeakError::Failed { reason: error.to_string() };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_+".contains(c);
        if voice.starts_with('-') || !voice.chars().all(is_plain) {
            return Err(EspeakError::Voice { voice: voice.into(), reason: "the name is not valid".into() });
        }
        let mut command = Command::new(&self.program);
        command.arg("-q").args(form).args(["-b", "1", "-v", voice]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let mut input = child.stdin.take().expect("the child's input was asked for");
        let bytes = format!("{text}\n").into_bytes();
        // The program answers while it reads: both ends must move, or a long text would stop it.
        let writer = std::thread::spawn(move || input.write_all(&bytes));
        let output = child.wait_with_output().map_err(failed)?;
        // A program that ended early leaves the writer with a broken pipe; its own message says more.
        let _ = writer.join();
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(EspeakError::Voice { voice: voice.into(), reason });
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(|line| without_marks(line.trim())).collect())
    }
}

/// Removes `(en)`, also tied as `(^e^n)`, and the like, by which espeak-ng marks a change of language.
fn without_marks(line: &str) -> String {
    let mut kept = String::new();
    let mut depth = 0_usize;
    for c in line.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 => kept.push(c),
            _ => {}
        }
    }
    kept
}

/// Cuts phonemes into parts of at most `most` ids each, of which `n_ids` tells how many a phoneme has: behind a blank, or
/// anywhere where there is none.
pub fn parts(phonemes: &str, most: usize, n_ids: impl Fn(char) -> usize) -> Vec<&str> {
    let count = |text: &str| text.chars().map(&n_ids).sum::<usize>();
    let mut parts = Vec::new();
    let (mut from, mut blank, mut n_before) = (0, None, 0);
    for (at, phoneme) in phonemes.char_indices() {
        let added = n_ids(phoneme);
        if n_before + added > most && at > from {
            let cut = blank.unwrap_or(at);
            parts.push(&phonemes[from..cut]);
            (from, blank, n_before) = (cut, None, count(&phonemes[cut..at]));
        }
        n_before += added;
        if phoneme == ' ' {
            blank = Some(at + 1);
        }
    }
    parts.push(&phonemes[from..]);
    parts
}

#[derive(Debug, PartialEq)]
struct Clause {
    /// On one line, with at least one letter or number.
    text: String,
    end: Option<char>,
}

/// Cuts a sentence at signs that stand at the end of a word.
fn clauses(sentence: &str) -> Vec<Clause> {
    let sentence = plain(sentence);
    let mut clauses: Vec<Clause> = Vec::new();
    let mut open = String::new();
    let mut chars = sentence.chars().peekable();
    while let Some(c) = chars.next() {
        let at_end = chars.peek().is_none_or(|next| next.is_whitespace() || CLAUSE_ENDS.contains(*next));
        if !(CLAUSE_ENDS.contains(c) && at_end) {
            open.push(c);
        } else if !(c == '.' && chars.peek().is_some() && ends_with_abbreviation(&open)) {
            close(&mut clauses, &mut open, Some(c));
        }
    }
    close(&mut clauses, &mut open, None);
    clauses
}

fn close(clauses: &mut Vec<Clause>, open: &mut String, end: Option<char>) {
    let text = std::mem::take(open);
    let text = text.trim();
    if text.chars().any(|c| c.is_alphanumeric() || !c.is_ascii()) {
        clauses.push(Clause { text: text.to_owned(), end });
    } else if let (Some(last), Some(_)) = (clauses.last_mut(), end) {
        // "?!" and "...": the first sign says how it is spoken.
        last.end = last.end.or(end);
    }
}

fn ends_with_abbreviation(text: &str) -> bool {
    let word = text.rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    let single = word.chars().count() == 1 && word.chars().all(char::is_uppercase);
    single || ABBREVIATIONS.contains(&&*word.to_lowercase())
}

/// One line; typographic signs as their plain twins.
fn plain(text: &str) -> String {
    let of = |c: char| match c {
        '\u{2018}' | '\u{2019}' => '\'',
        '…' | '。' | '．' => '.',
        '，' | '、' => ',',
        '；' => ';',
        '：' => ':',
        '！' => '!',
        '？' => '?',
        '[' | ']' | '(' | ')' | '{' | '}' | '"' | '“' | '”' | '«' | '»' | '<' | '>' => ' ',
        c if c.is_control() || c.is_whitespace() => ' ',
        c => c,
    };
    text.chars().map(of).collect()
}

#[cfg(test)]
mod tests;
