//! Fuzz targets. `cargo test` runs each for a while with random input; `cargo bolero test` runs them under a fuzzer.

use super::*;
use crate::gbnf::TextMatch;

/// Pieces of grammars: random ones of them come nearer to a grammar than random bytes do.
const PIECES: [&str; 44] = [
    "root",
    "a",
    "b",
    "item-1",
    " ::= ",
    "::=",
    " | ",
    "|",
    " ",
    "\n",
    "\n\n",
    "\t",
    "\"",
    "\"x\"",
    "\"\"",
    "\"\\n\"",
    "\"é\"",
    "\"\\x41\"",
    "\"\\",
    "[",
    "]",
    "[a-z]",
    "[^a-z]",
    "[^]",
    "[\\]]",
    "[\n]",
    "[z-a]",
    "(",
    ")",
    "*",
    "+",
    "?",
    "{2}",
    "{1,3}",
    "{0,}",
    "{3,1}",
    "{99999999999}",
    ".",
    "#",
    "# c\n",
    "<x>",
    "!<[7]>",
    "<[1-3]>",
    "\u{0}",
];

fn text_of(choices: &[u8]) -> String {
    choices.iter().map(|&choice| PIECES[choice as usize % PIECES.len()]).collect()
}

/// Compiles, follows a text and takes a few tokens: nothing may panic, hang or let a wrong token pass.
fn try_out(grammar: &str) {
    let begun = Instant::now();
    let source = GrammarSource::Gbnf(grammar.to_owned());
    match Compiled::new(&environment(), &source) {
        Ok(compiled) => {
            let mut random = Random(grammar.len() as u64);
            let (text, is_whole) = walk(&compiled, &mut random, 12);
            if let Ok(text) = std::str::from_utf8(&text) {
                let found = compiled.follow(text);
                // A token that is named is no text, whatever its bytes are.
                let names_tokens = grammar.contains('<');
                let expected = names_tokens
                    || if is_whole {
                        found == TextMatch::Complete
                    } else {
                        !matches!(found, TextMatch::Refused { .. })
                    };
                assert!(expected, "{grammar:?} let {text:?} pass, which is {found:?}");
            }
        }
        Err(error) => assert!(error.to_string().len() < 1000, "{error}"),
    }
    assert!(begun.elapsed() < PATIENCE, "{grammar:?} took {:?}", begun.elapsed());
}

#[test]
fn pieces_of_grammars() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|choices| try_out(&text_of(choices)));
}

#[test]
fn a_root_with_pieces() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|choices| try_out(&format!("root ::= {}", text_of(choices))));
}

#[test]
fn any_text_at_all() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| try_out(&String::from_utf8_lossy(bytes)));
}

#[test]
fn any_regular_expression() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
        let begun = Instant::now();
        let expression = String::from_utf8_lossy(bytes).into_owned();
        if let Ok(compiled) = Compiled::new(&environment(), &GrammarSource::Regex(expression.clone())) {
            drop(compiled.start().allowed());
        }
        assert!(begun.elapsed() < PATIENCE, "{expression:?} took {:?}", begun.elapsed());
    });
}

#[test]
fn the_matcher_and_the_slow_reference() {
    bolero::check!().with_type::<u64>().for_each(|&seed| {
        gbnf::compare_with_reference(&mut Random(seed));
    });
}
