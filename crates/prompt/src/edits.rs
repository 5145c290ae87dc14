//! What an operator wants done to the text of an answer: `cutstrings`, `extract_regex`, `trimspace`, `trimsuffix`.

use regex::Regex;

use crate::error::PromptError;

/// Changes to a whole answer, in LocalAI's order: cut, extract, trim the front, trim the end.
#[derive(Debug, Clone, Default)]
pub struct AnswerEdits {
    cuts: Vec<Regex>,
    extracts: Vec<Regex>,
    prefixes: Vec<String>,
    suffixes: Vec<String>,
}

impl AnswerEdits {
    /// From the lists of a configuration; `None` when they ask for nothing.
    ///
    /// # Errors
    /// [`PromptError::Input`] for an expression that does not parse or is too large.
    pub fn new(
        cutstrings: &[String],
        extract_regex: &[String],
        trimspace: &[String],
        trimsuffix: &[String],
    ) -> Result<Option<Self>, PromptError> {
        let edits = Self {
            cuts: compiled("cutstrings", cutstrings)?,
            extracts: compiled("extract_regex", extract_regex)?,
            prefixes: trimspace.to_vec(),
            suffixes: trimsuffix.to_vec(),
        };
        let is_idle = [cutstrings, extract_regex, trimspace, trimsuffix].iter().all(|list| list.is_empty());
        Ok((!is_idle).then_some(edits))
    }

    /// The answer as the operator wants it.
    pub fn apply(&self, answer: &str) -> String {
        let mut text = answer.to_owned();
        for cut in &self.cuts {
            text = cut.replace_all(&text, "").into_owned();
        }
        let found: String =
            self.extracts.iter().flat_map(|extract| extract.find_iter(&text)).map(|found| found.as_str()).collect();
        if !found.is_empty() {
            text = found;
        }
        for prefix in &self.prefixes {
            text = text.strip_prefix(prefix.as_str()).unwrap_or(&text).trim().to_owned();
        }
        for suffix in &self.suffixes {
            text = text.strip_suffix(suffix.as_str()).unwrap_or(&text).trim().to_owned();
        }
        text
    }
}

fn compiled(key: &str, sources: &[String]) -> Result<Vec<Regex>, PromptError> {
    let compile = |source: &String| {
        regex::RegexBuilder::new(source).size_limit(1 << 20).build().map_err(|error| PromptError::Input {
            field: format!("{key} of the model's configuration, {source:?},"),
            expected: match error {
                regex::Error::CompiledTooBig(_) => "a smaller regular expression",
                _ => "a regular expression in RE2's syntax",
            },
        })
    };
    sources.iter().map(compile).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(lists: [&[&str]; 4], answer: &str) -> String {
        let [cut, extract, space, suffix] = lists.map(|list| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        match AnswerEdits::new(&cut, &extract, &space, &suffix).expect("they parse") {
            Some(edits) => edits.apply(answer),
            None => answer.to_owned(),
        }
    }

    #[test]
    fn answers_are_edited_in_localais_order() {
        for (lists, answer, expected) in [
            ([&[] as &[&str], &[], &[], &[]], " a ", " a "),
            ([&["<.*?>", "x+"], &[], &[], &[]], "<b>axxb</b>", "ab"),
            ([&[], &["(?s)<a>.*?</a>"], &[], &[]], "k<a>1</a>l<a>2</a>", "<a>1</a><a>2</a>"),
            ([&[], &["nothing"], &[], &[]], "kept", "kept"),
            ([&[], &[], &["Answer:"], &[]], "Answer: yes \n", "yes"),
            ([&[], &[], &[], &["END"]], " yes END", "yes"),
            ([&["\\d"], &["[a-z]+"], &["a"], &["z"]], "1a2bz3", "b"),
        ] {
            assert_eq!(edited(lists, answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn a_bad_expression_is_named() {
        let error = AnswerEdits::new(&["(".into()], &[], &[], &[]).expect_err("it is refused").to_string();
        assert!(error.contains("cutstrings") && error.contains("\"(\""), "{error}");
    }
}
