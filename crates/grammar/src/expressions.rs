//! How large a regular expression is with its repetitions written out: what an automaton of it may cost.

use regex_syntax::hir::{Hir, HirKind};

/// Largest expression, in characters and classes. The compiler runs over the whole vocabulary before it answers.
const MAX_SIZE: u64 = 50_000;

/// Refuses an expression that is too large; what is no expression is left to the compiler to say.
///
/// # Errors
/// Says how large it is.
pub(crate) fn check(expression: &str) -> Result<(), String> {
    let mut parser = regex_syntax::ParserBuilder::new().nest_limit(250).utf8(false).build();
    let Ok(hir) = parser.parse(expression) else { return Ok(()) };
    match size(&hir) {
        size if size > MAX_SIZE => {
            Err(format!("an expression has {size} parts when its repetitions are written out; use at most {MAX_SIZE}"))
        }
        _ => Ok(()),
    }
}

/// As [`check`] for every expression between slashes in a Lark grammar.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_lark(grammar: &str) -> Result<(), String> {
    let mut rest = grammar;
    while let Some(start) = rest.find(['/', '"']) {
        let quote = &rest[start..=start];
        let inside = &rest[start + 1..];
        // An escape hides the character behind it; a literal ends with its line.
        let mut escaped = false;
        let end = inside.char_indices().find(|&(_, c)| {
            let ends = !escaped && (c == '\n' || quote.starts_with(c));
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = end.map_or(inside.len(), |(at, _)| at);
        if quote == "/" {
            check(&inside[..end])?;
        }
        rest = inside.get(end + 1..).unwrap_or_default();
    }
    Ok(())
}

fn size(hir: &Hir) -> u64 {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 0,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(_) => 1,
        HirKind::Capture(capture) => size(&capture.sub),
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min.saturating_add(1));
            size(&repetition.sub).max(1).saturating_mul(u64::from(times))
        }
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().map(size).fold(0, u64::saturating_add),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_multiply() {
        check("(a?){5000}a{5000}").expect("ten thousand parts");
        check("[a-z]{1,40}(foo|bar)*").expect("small");
        assert!(check("(((a{1000}){1000}){1000}){1000}").expect_err("large").contains("1000000000000 parts"));
        check("((((a{0,4000}){0,4000}){0,4000}){0,4000}){0,4000}").expect_err("large");
        check("((").expect("for the compiler to say");
        check_lark("start: \"/\" X\nX: /a{3}/ // a comment with one ' / '\n").expect("small");
        check_lark("start: \"\\\"/\" X\nX: /(a{1000}){1000}\\/b/\n").expect_err("large");
    }
}
