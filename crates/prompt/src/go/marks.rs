//! Which part of a rendered Go template came with the request.
//!
//! The library's strings know no origin, so every string of a client goes in between two marks: characters that occur
//! neither in the request nor in the templates, and that are chosen anew for each rendering. White space around the
//! string stays outside, so that a template can trim it. Functions that look into a string see it without marks; what
//! they make of a marked string is marked as a whole.

use std::cell::Cell;

use crate::error::PromptError;
use crate::jinja::{Origin, Text, TextBuilder};

/// Printable characters that hardly occur in a conversation: Egyptian hieroglyphs. `printf "%q"` leaves them alone.
const RARE: std::ops::Range<u32> = 0x13000..0x13430;

/// The two marks of one rendering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    open: char,
    close: char,
}

thread_local! {
    /// The functions of a template are registered before its marks are known; rendering never leaves its thread.
    static CURRENT: Cell<Option<Marks>> = const { Cell::new(None) };
}

/// Runs `render` with `marks` for the functions to see.
pub(super) fn with<T>(marks: Marks, render: impl FnOnce() -> T) -> T {
    let before = CURRENT.replace(Some(marks));
    let result = render();
    CURRENT.set(before);
    result
}

/// The marks of the rendering that runs on this thread.
pub(super) fn current() -> Option<Marks> {
    CURRENT.get()
}

impl Marks {
    /// Two characters that occur in none of `texts`.
    pub(super) fn unlike<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, PromptError> {
        let mut used = vec![false; RARE.len()];
        for c in texts.flat_map(str::chars) {
            if let Some(seen) = RARE.contains(&u32::from(c)).then(|| &mut used[(u32::from(c) - RARE.start) as usize]) {
                *seen = true;
            }
        }
        let mut free = RARE.zip(used).filter(|(_, is_used)| !is_used).filter_map(|(code, _)| char::from_u32(code));
        match (free.next(), free.next()) {
            (Some(open), Some(close)) => Ok(Self { open, close }),
            _ => Err(PromptError::Input {
                field: "messages".into(),
                expected: "written without the whole block of Egyptian hieroglyphs",
            }),
        }
    }

    /// `text` as the client's.
    pub(super) fn put_around(self, text: &str) -> String {
        let core = text.trim();
        if core.is_empty() {
            return text.to_owned();
        }
        let start = core.as_ptr() as usize - text.as_ptr() as usize;
        let (before, behind) = (&text[..start], &text[start + core.len()..]);
        format!("{before}{}{core}{}{behind}", self.open, self.close)
    }

    /// `text` without marks, and whether it had any.
    pub(super) fn take_from(self, text: &str) -> (String, bool) {
        let is_mark = |c: char| c == self.open || c == self.close;
        let plain: String = text.chars().filter(|c| !is_mark(*c)).collect();
        let had_any = plain.len() != text.len();
        (plain, had_any)
    }

    /// What was rendered, with the origin of every byte. A mark that a template has cut off makes all that follows it
    /// the client's: then nothing of it is read as a control token.
    pub(super) fn origins(self, rendered: &str) -> Text {
        let mut builder = TextBuilder::new();
        let mut depth = 0_usize;
        for piece in rendered.split_inclusive([self.open, self.close]) {
            let text = piece.trim_end_matches([self.open, self.close]);
            builder.push_str(text, if depth > 0 { Origin::Client } else { Origin::Template });
            if piece.ends_with(self.open) {
                depth += 1;
            } else if piece.ends_with(self.close) {
                depth = depth.saturating_sub(1);
            }
        }
        builder.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_unlike_the_texts_and_leave_blanks_outside() {
        let marks = Marks::unlike(["a\u{13000}b", "\u{13001}"].into_iter()).expect("two are free");
        assert_eq!((marks.open, marks.close), ('\u{13002}', '\u{13003}'));
        assert_eq!(marks.put_around(" \n x y\t"), " \n \u{13002}x y\u{13003}\t");
        assert_eq!(marks.put_around("  "), "  ");
        assert_eq!(marks.take_from(&marks.put_around("x ")), ("x ".to_owned(), true));
        let all: String = RARE.filter_map(char::from_u32).collect();
        assert!(Marks::unlike([all.as_str()].into_iter()).is_err());
    }

    #[test]
    fn what_is_not_closed_is_the_clients() {
        let marks = Marks::unlike(std::iter::empty()).expect("all are free");
        let text = format!("a{}b", &marks.put_around("x"));
        let origins = marks.origins(&text);
        assert_eq!(origins.as_str(), "axb");
        let runs = |text: &Text| {
            let whole = text.as_str();
            text.runs_in(0..text.len())
                .into_iter()
                .map(|(range, origin)| (whole[range].to_owned(), origin))
                .collect::<Vec<_>>()
        };
        let (client, template) = (Origin::Client, Origin::Template);
        assert_eq!(runs(&origins), [("a".into(), template), ("x".into(), client), ("b".into(), template)]);
        let cut = marks.origins(&format!("a{}x b", marks.open));
        assert_eq!(runs(&cut), [("a".into(), template), ("x b".into(), client)]);
    }
}
