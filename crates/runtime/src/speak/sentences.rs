//! Cutting a text into sentences that are spoken one after the other.

/// A sentence is cut at a blank once it is so long, in bytes: nobody waits for half a page.
const MAX_BYTES: usize = 500;
/// Signs that end a sentence where a blank follows.
const ENDS: &str = ".!?…";
/// Signs that end a sentence whatever follows.
const WIDE_ENDS: &str = "。！？";
/// Signs that still belong to the sentence in front of them.
const CLOSERS: &str = "\"')]}»”’」』";
/// Words whose full stop ends nothing.
const ABBREVIATIONS: [&str; 20] = [
    "mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "vs", "no", "fig", "inc", "ltd", "gen", "rev", "e.g", "i.e",
    "z.b", "bzw", "ca",
];

/// The sentences of a text that have something to speak.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut sentences = Vec::new();
    for line in text.split(['\n', '\r', '\u{2028}', '\u{2029}']) {
        let mut open = String::new();
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            open.push(if c.is_control() { ' ' } else { c });
            let is_last = chars.peek().is_none_or(|next| next.is_whitespace());
            let ends = (ends_here(&open) && is_last) || WIDE_ENDS.contains(c);
            if ends || (open.len() >= MAX_BYTES && (c.is_whitespace() || open.len() >= 2 * MAX_BYTES)) {
                close(&mut sentences, &mut open);
            }
        }
        close(&mut sentences, &mut open);
    }
    sentences
}

fn close(sentences: &mut Vec<String>, open: &mut String) {
    let sentence = std::mem::take(open);
    let sentence = sentence.trim();
    // Beside letters and numbers there are signs with a name, such as emoji; punctuation has none.
    if sentence.chars().any(|c| c.is_alphanumeric() || (!c.is_ascii() && !is_punctuation(c))) {
        sentences.push(sentence.to_owned());
    }
}

fn is_punctuation(c: char) -> bool {
    c.is_whitespace()
        || CLOSERS.contains(c)
        || WIDE_ENDS.contains(c)
        || matches!(c, '…' | '\u{2000}'..='\u{206F}' | '\u{3000}'..='\u{303F}' | '«' | '¿' | '¡' | '\u{FE0F}')
}

/// Whether a text ends with the end of a sentence.
fn ends_here(text: &str) -> bool {
    let bare = text.trim_end_matches(|c| CLOSERS.contains(c));
    let Some(end) = bare.chars().next_back().filter(|c| ENDS.contains(*c)) else { return false };
    let before = bare.trim_end_matches(end);
    end != '.' || !is_abbreviation(before.rsplit(char::is_whitespace).next().unwrap_or_default())
}

fn is_abbreviation(word: &str) -> bool {
    let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
    let is_initial = word.chars().count() == 1 && word.chars().all(char::is_uppercase);
    is_initial || ABBREVIATIONS.contains(&&*word.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::{MAX_BYTES, split};

    fn check(text: &str, wanted: &[&str]) {
        assert_eq!(split(text), wanted, "{text:?}");
    }

    #[test]
    fn sentences_end_where_people_end_them() {
        check("", &[]);
        check(" ... ?! \n\n", &[]);
        check("One. Two! Three?", &["One.", "Two!", "Three?"]);
        check("Mr. Smith paid 3.50 dollars. J. R. did not.", &["Mr. Smith paid 3.50 dollars.", "J. R. did not."]);
        check("He said \"go.\" Then he went", &["He said \"go.\"", "Then he went"]);
        check("a line\nanother line", &["a line", "another line"]);
        check("你好。再见！", &["你好。", "再见！"]);
        check("nice 😀! ok", &["nice 😀!", "ok"]);
    }

    #[test]
    fn endless_text_is_cut() {
        let text = "word ".repeat(2000);
        let sentences = split(&text);
        assert!(sentences.iter().all(|sentence| sentence.len() <= MAX_BYTES + 8));
        assert_eq!(sentences.join(" "), text.trim());
        assert!(split(&"x".repeat(10_000)).iter().all(|sentence| sentence.len() <= 2 * MAX_BYTES));
    }
}
