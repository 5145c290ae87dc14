//! How often a model finds the right one of several answers.

use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::scorer::Scorer;
use crate::bench::progress::Progress;
use crate::bench::report::{Better, Metric};
use crate::bench::stop::Stop;

/// A line of the file.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Question {
    /// What is in front of every choice.
    question: String,
    choices: Vec<String>,
    /// Which one is right, from 0.
    answer: usize,
}

impl Question {
    /// Bytes of the longest text.
    pub(super) fn most_bytes(&self) -> usize {
        self.question.len() + 1 + self.choices.iter().map(String::len).max().unwrap_or(0)
    }
}

/// Reads lines of JSON; empty ones are skipped.
pub(super) fn parse(text: &str, path: &Path) -> anyhow::Result<Vec<Question>> {
    let mut questions = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("{}, line {number}", path.display());
        let question: Question = serde_json::from_str(line).with_context(place)?;
        if question.choices.len() < 2 || question.choices.iter().any(String::is_empty) {
            bail!("{}: `choices` must have at least two texts, none of them empty", place());
        }
        if question.answer >= question.choices.len() {
            bail!("{}: `answer` is {}, but there are {} choices", place(), question.answer, question.choices.len());
        }
        questions.push(question);
    }
    if questions.is_empty() {
        bail!("{} has no questions", path.display());
    }
    Ok(questions)
}

/// Accuracies over the questions.
pub(super) fn measure(scorer: &mut Scorer, questions: &[Question], stop: &Stop) -> anyhow::Result<Vec<Metric>> {
    let mut progress = Progress::new(questions.len());
    let (mut plain, mut by_length) = (Vec::new(), Vec::new());
    for question in questions {
        if stop.is_requested() {
            break;
        }
        let scores = scores(scorer, question)?;
        let is_right = |scores: &[f64]| f64::from(u8::from(largest(scores) == Some(question.answer)));
        let per_byte: Vec<f64> =
            scores.iter().zip(&question.choices).map(|(score, choice)| score / choice.len() as f64).collect();
        plain.push(100.0 * is_right(&scores));
        by_length.push(100.0 * is_right(&per_byte));
        progress.done(&format!("{:.1} % right so far", mean(&plain)));
    }
    let metric = |name: &str, right: Vec<f64>| {
        let mean = mean(&right);
        // Normal approximation of the binomial.
        let error = 1.96 * (mean * (100.0 - mean) / right.len() as f64).sqrt();
        let spread = crate::bench::stats::Spread { median: mean, low: mean - error, high: mean + error };
        (!right.is_empty()).then(|| Metric::with_spread(name, "%", Better::Higher, right, spread))
    };
    Ok([metric("accuracy", plain), metric("accuracy by length", by_length)].into_iter().flatten().collect())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn largest(scores: &[f64]) -> Option<usize> {
    (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]))
}

/// The log-probability of each choice behind the question.
fn scores(scorer: &mut Scorer, question: &Question) -> anyhow::Result<Vec<f64>> {
    let text = |choice: &String| format!("{} {choice}", question.question);
    let tokens = question.choices.iter().map(|choice| scorer.tokenize(&text(choice))).collect::<Result<Vec<_>, _>>()?;
    let context = scorer.tokenize(&question.question)?;
    for (tokens, choice) in tokens.iter().zip(&question.choices) {
        if first_scored(&context, tokens).is_none() {
            bail!(
                "the question {:?} and its choice {choice:?} are one token together, so nothing stands in front of what \
                 is scored; give the question some words",
                question.question
            );
        }
    }
    let begun = tokens.iter().filter_map(|tokens| first_scored(&context, tokens)).min().unwrap_or(1);
    scorer.start(&tokens[0][..begun - 1])?;
    let mut scores = Vec::with_capacity(tokens.len());
    for tokens in &tokens {
        // All are scored from the same place on.
        let begun = begun.min(tokens.len() - 1);
        scores.push(scorer.go_on(tokens, begun)?.iter().sum());
    }
    Ok(scores)
}

/// The first token of a choice: where `tokens` leave those of the question, since it may hold the blank in front; the last
/// one at least, and never the first, which nothing predicts. `None` when there is no such token.
fn first_scored(question: &[u32], tokens: &[u32]) -> Option<usize> {
    let last = tokens.len().checked_sub(1).filter(|&last| last > 0)?;
    let n_common = question.iter().zip(tokens).take_while(|(a, b)| a == b).count();
    Some(n_common.clamp(1, last))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{first_scored, largest, parse};

    #[test]
    fn faults_are_told_with_their_line() {
        let good = r#"{"question":"a","choices":["b","c"],"answer":1}"#;
        assert_eq!(parse(&format!("{good}\n\n{good}\n"), Path::new("f")).unwrap().len(), 2);
        let cases = [
            (r#"{"question":"a","choices":["b"],"answer":0}"#, "choices"),
            (r#"{"question":"a","choices":["b",""],"answer":0}"#, "choices"),
            (r#"{"question":"a","choices":["b","c"],"answer":2}"#, "answer"),
            (r#"{"choices":["b","c"],"answer":0}"#, "question"),
            ("not json", "line 2"),
        ];
        for (bad, named) in cases {
            let error = format!("{:#}", parse(&format!("{good}\n{bad}"), Path::new("f")).unwrap_err());
            assert!(error.contains(named) && error.contains("line 2"), "{error}");
        }
        assert!(parse("", Path::new("f")).is_err());
    }

    #[test]
    fn a_choice_begins_behind_its_question() {
        let cases: [(&[u32], &[u32], Option<usize>); 6] = [
            (&[1, 2], &[1, 2, 3, 4], Some(2)),
            (&[1, 2], &[1, 7, 3], Some(1)),
            (&[1, 2], &[9, 2, 3], Some(1)),
            (&[1, 2, 3], &[1, 2, 3], Some(2)),
            (&[], &[5], None),
            (&[1], &[], None),
        ];
        for (question, tokens, expected) in cases {
            assert_eq!(first_scored(question, tokens), expected, "{question:?} {tokens:?}");
        }
    }

    #[test]
    fn the_largest_wins() {
        assert_eq!(largest(&[-3.0, -1.0, -2.0]), Some(1));
    }
}
