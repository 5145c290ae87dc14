//! Cuts the text of a template into marks and characters, so that two texts can be compared without tearing a mark.

/// The pieces of `text` in order: `<…>` without white space inside, `[NAME]` in capitals, single characters.
pub(crate) fn atoms(text: &str) -> Vec<&str> {
    let mut rest = text;
    let mut found = Vec::new();
    while let Some(first) = rest.chars().next() {
        let len = mark(rest).unwrap_or(first.len_utf8());
        found.push(&rest[..len]);
        rest = &rest[len..];
    }
    found
}

/// Length of the mark that `text` begins with.
fn mark(text: &str) -> Option<usize> {
    let inner = text.get(1..)?;
    match text.as_bytes()[0] {
        b'<' => {
            let end = inner.find(|c: char| c == '>' || c == '<' || c.is_whitespace())?;
            (end > 0 && inner[end..].starts_with('>')).then_some(end + 2)
        }
        b'[' => {
            let end = inner.find(|c: char| !c.is_ascii_uppercase() && c != '_' && c != '/')?;
            (end > 1 && inner[end..].starts_with(']')).then_some(end + 2)
        }
        _ => None,
    }
}

/// Marks of `text`, those of more than one character.
pub(crate) fn marks(text: &str) -> impl Iterator<Item = &str> {
    atoms(text).into_iter().filter(|atom| atom.len() > 2 && (atom.starts_with('<') || atom.starts_with('[')))
}

/// Marks and runs of other characters without white space: what is left of `text` when blanks do not matter.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut run = String::new();
    for atom in atoms(text) {
        let is_mark = atom.len() > 2 && (atom.starts_with('<') || atom.starts_with('['));
        if is_mark || atom.chars().all(char::is_whitespace) {
            words.extend((!run.is_empty()).then(|| std::mem::take(&mut run)));
        }
        if is_mark {
            words.push(atom.to_owned());
        } else if !atom.chars().all(char::is_whitespace) {
            run.push_str(atom);
        }
    }
    words.extend((!run.is_empty()).then_some(run));
    words
}

/// Bytes that both texts begin with, whole atoms.
pub(crate) fn common_start(first: &str, second: &str) -> usize {
    let (first, second) = (atoms(first), atoms(second));
    first.iter().zip(&second).take_while(|(one, other)| one == other).map(|(atom, _)| atom.len()).sum()
}

/// Bytes that both texts end with, whole atoms.
pub(crate) fn common_end(first: &str, second: &str) -> usize {
    let (first, second) = (atoms(first), atoms(second));
    let pairs = first.iter().rev().zip(second.iter().rev());
    pairs.take_while(|(one, other)| one == other).map(|(atom, _)| atom.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_never_torn() {
        assert_eq!(
            atoms("a<|x|>[TOOL_CALLS][{<b c>"),
            ["a", "<|x|>", "[TOOL_CALLS]", "[", "{", "<", "b", " ", "c", ">"]
        );
        assert_eq!(words(" <tool_call>\n<function="), ["<tool_call>", "<function="]);
        assert_eq!(words("<a><b>functions."), ["<a>", "<b>", "functions."]);
        assert_eq!(common_start("<think>", "<tool_call>"), 0);
        assert_eq!(common_end("<a|><b|>f.", "<c|><b|>f."), "<b|>f.".len());
    }
}
