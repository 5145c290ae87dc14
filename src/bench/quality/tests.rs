//! Scores of a model whose probabilities are known.

use std::sync::Arc;

use ingle_engine::fake::{Answers, FakeDecoder, FakeTokenizer, limits};

use super::perplexity::{Plan, measure};
use super::scorer::Scorer;
use crate::bench::stop::Stop;

fn scorer() -> Scorer {
    Scorer::of(FakeDecoder::new(limits(), Answers::Hash), Arc::new(FakeTokenizer::default()))
}

#[test]
fn pieces_of_any_size_give_the_same_scores_as_one() {
    let mut scorer = scorer();
    let tokens: Vec<u32> = (0..300).map(|idx| 97 + idx % 8).collect();
    let whole = scorer.score(&tokens, 1).unwrap();
    assert_eq!(whole.len(), 299);
    scorer.start(&tokens[..99]).unwrap();
    assert_eq!(scorer.go_on(&tokens, 100).unwrap(), whole[99..]);
    // What was computed behind the beginning is dropped.
    assert_eq!(scorer.go_on(&tokens, 100).unwrap(), whole[99..]);
    assert!(scorer.score(&[97; 600], 1).is_err(), "longer than the context");
}

#[test]
fn a_text_is_scored_in_the_second_halves_of_its_pieces() {
    let plan = |n_context, n_pieces| Plan { n_context, n_pieces };
    let text = "abcdefgh".repeat(64);
    let mut scorer = scorer();
    let found = measure(&mut scorer, &text, plan(64, None), &Stop::default()).unwrap();
    // The beginning of sequence is a token: 513 of them are eight pieces of 64; 64 - 1 - 32 are scored of each.
    let scored = found.metrics().iter().find(|metric| metric.name == "scored tokens").unwrap().median;
    assert_eq!(scored, 8.0 * 31.0);
    assert!(found.perplexity().is_finite());
    let two = measure(&mut scorer, &text, plan(64, Some(2)), &Stop::default()).unwrap();
    assert_eq!(two.metrics()[1].median, 62.0);
    assert!(measure(&mut scorer, "short", plan(64, None), &Stop::default()).is_err());
    assert!(measure(&mut scorer, &text, plan(1024, None), &Stop::default()).is_err());
    let stopped = Stop::default();
    stopped.request();
    assert!(measure(&mut scorer, &text, plan(64, None), &stopped).unwrap().metrics().is_empty());
}
