//! GBNF: what is refused and how, hostile texts, exactness against a slow reference, the corpora.

use super::*;

fn gbnf(text: &str) -> Result<Compiled, GrammarError> {
    Compiled::new(&environment(), &GrammarSource::Gbnf(text.into()))
}

fn refusal(text: &str) -> String {
    gbnf(text).expect_err("the grammar is refused").to_string()
}

/// By masks as well as without a vocabulary; both must agree.
fn passes(grammar: &Compiled, text: &str) -> bool {
    let by_mask = accepts(grammar, text);
    assert_eq!(by_mask, grammar.follow(text) == TextMatch::Complete, "{text:?}");
    by_mask
}

#[test]
fn errors_say_where_and_what_was_expected() {
    for (text, expected) in [
        ("root ::= foo", "line 1, column 10: the rule \"foo\" is not defined"),
        ("root ::= \"a\"\n  x = \"b\"", "line 2, column 5: expected \"::=\" behind the name \"x\", found '='"),
        ("root ::= (\"a\"\n | \"b\"", "line 2, column 7: expected ')' for the group opened in line 1, column 10"),
        ("root ::= \"\\q\"", "line 1, column 11: there is no escape \\q"),
        ("root ::= \"\\xZZ\"", "expected 2 hexadecimal digits"),
        ("root ::= \"a", "line 1, column 10: this literal has no closing"),
        ("root ::= [a", "line 1, column 10: this class has no closing"),
        ("root ::= [z-a]", "line 1, column 11: the range from 'z' to 'a' is empty"),
        ("root ::= *", "nothing to repeat before '*'"),
        ("root ::= \"a\"{5,2}", "line 1, column 13: the most repetitions are fewer than the least"),
        ("root ::= \"a\"{2", "expected ',' or '}' in a repetition, found the end of the grammar"),
        ("root ::= \"a\"{x}", "expected a number of repetitions, found 'x'"),
        ("start ::= \"a\"", "there is no rule named \"root\""),
        ("", "there is no rule named \"root\""),
        ("root ::= root \"a\" | \"a\"", "the rule \"root\" is left-recursive"),
        ("root ::= e? root \"a\" | \"a\"\ne ::= \"x\"", "the rule \"root\" is left-recursive"),
        ("root ::= \"a\" root", "no text is ever complete"),
        ("root ::= \"a\"\n| \"b\"", "line 2, column 1: expected the name of a rule, found '|'"),
        ("root ::= \"\\uD800\"", "\\uD800 is no character"),
        ("root ::= <[9999]>", "there is no token 9999"),
        ("root ::= <nonsense>", "\"<nonsense>\" is not one token of this vocabulary"),
    ] {
        let message = refusal(text);
        assert!(message.contains(expected), "{text:?}: {message}");
    }
}

#[test]
fn hostile_grammars_are_answered_quickly() {
    let chain = |n: usize, end: &str| {
        let rules: Vec<String> = (1..n).map(|rule| format!("r{rule} ::= r{}", rule + 1)).collect();
        format!("root ::= r1\n{}\nr{n} ::= {end}", rules.join("\n"))
    };
    let optional = |n: usize| format!("root ::= {}", "[a-t]? ".repeat(n));
    for (name, text) in [
        ("deep groups", format!("root ::= {}\"a\"{}", "(".repeat(20_000), ")".repeat(20_000))),
        ("repetitions of repetitions", "root ::= (((\"a\"{0,999}){0,999}){0,999}){0,999}".into()),
        ("a reversed repetition", "root ::= \"a\"{5,2}".into()),
        ("many optional items", optional(1000)),
        ("a long chain of rules", chain(20_000, "\"a\"")),
        ("a long circle of rules", chain(20_000, "root")),
        ("stars of stars", "root ::= ((((\"a\"*)*)*)*)* \"b\"".into()),
        ("an ambiguous sum", "root ::= s\ns ::= \"a\" s \"b\" | \"a\" s \"c\" | \"a\" s | \"\"".into()),
        (
            "a long alternation",
            format!("root ::= {}", (0..20_000).map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(" | ")),
        ),
    ] {
        let begun = Instant::now();
        if let Ok(grammar) = gbnf(&text) {
            grammar.follow(&"a".repeat(150));
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "{name} took {:?}", begun.elapsed());
    }
}

#[test]
fn tokens_can_be_named() {
    let grammar = gbnf("root ::= <[65]> !<[66]> \"c\"").unwrap();
    let mut constraint = grammar.start();
    let allowed = constraint.allowed().unwrap();
    assert!(allows(&allowed, 65) && !allows(&allowed, 66));
    constraint.accept(65).unwrap();
    let allowed = constraint.allowed().unwrap();
    assert!(allows(&allowed, 65) && allows(&allowed, 200) && !allows(&allowed, 66));
    assert!(!is_complete(&allowed));
    assert!(constraint.accept(66).is_err());
    constraint.accept(67).unwrap();
    assert!(allows(&constraint.allowed().unwrap(), 99));
}

#[test]
fn characters_come_in_whole() {
    let grammar = gbnf("root ::= [ä-ö]{2} [^a]").unwrap();
    let mut constraint = grammar.start();
    constraint.accept(0xC3).unwrap();
    let allowed = constraint.allowed().unwrap();
    let followers: Vec<u32> = (0..256).filter(|&byte| allows(&allowed, byte)).collect();
    assert_eq!(followers, (0xA4..=0xB6).collect::<Vec<u32>>());
    assert!(passes(&grammar, "äöb") && passes(&grammar, "öö🐢") && !passes(&grammar, "ääa"));
}

#[test]
fn forks_and_rollbacks_have_states_of_their_own() {
    let grammar = gbnf("root ::= \"a\" (\"b\" | \"c\" \"d\")").unwrap();
    let mut constraint = grammar.start();
    constraint.accept(b'a'.into()).unwrap();
    let mut fork = constraint.fork();
    fork.accept(b'c'.into()).unwrap();
    assert_eq!(fork.forced(), [u32::from(b'd')]);
    constraint.accept(b'b'.into()).unwrap();
    assert_eq!(constraint.allowed(), Ok(Allowed::Nothing));
    constraint.rollback(2).unwrap();
    assert!(allows(&constraint.allowed().unwrap(), b'a'.into()));
    assert!(constraint.rollback(1).is_err());
    fork.accept(b'd'.into()).unwrap();
    assert_eq!(fork.allowed(), Ok(Allowed::Nothing));
}

#[test]
fn nesting_without_a_limit_outgrows_the_table_and_goes_on() {
    let grammar = gbnf("root ::= s\ns ::= \"(\" s \")\" s | [a-z]*").unwrap();
    let depth = 200_000;
    let text = format!("{}{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(grammar.follow(&text), TextMatch::Complete);
    assert_eq!(grammar.follow(&text[..2 * depth - 1]), TextMatch::Incomplete);
    assert_eq!(grammar.follow(&format!("{text})")), TextMatch::Refused { at: 2 * depth });
}

/// Texts of a grammar, enumerated the slow way: by expanding rules as strings.
mod reference {
    use std::collections::HashSet;

    /// All texts of `root` up to `most` characters, for grammars of single-letter rules (capitals) and letters,
    /// given as alternatives for each capital.
    pub(super) fn texts(rules: &[(char, Vec<String>)], most: usize) -> HashSet<String> {
        let (mut found, mut seen) = (HashSet::new(), HashSet::new());
        let mut pending = vec!["R".to_owned()];
        while let Some(form) = pending.pop() {
            let n_letters = form.chars().filter(char::is_ascii_lowercase).count();
            if n_letters > most || form.len() > most + 6 || !seen.insert(form.clone()) {
                continue;
            }
            match form.find(|c: char| c.is_ascii_uppercase()) {
                None => drop(found.insert(form)),
                Some(at) => {
                    let rule = form[at..].chars().next().unwrap();
                    let bodies = rules.iter().find(|(name, _)| *name == rule).map(|(_, bodies)| bodies);
                    for body in bodies.into_iter().flatten() {
                        pending.push(format!("{}{body}{}", &form[..at], &form[at + 1..]));
                    }
                }
            }
        }
        found
    }
}

/// Is there a text that begins with this? Breadth first, so that the shortest one is found; one that is longer than what
/// was looked at is taken to exist.
fn has_completion(grammar: &Compiled, text: &str) -> bool {
    let mut forms = std::collections::VecDeque::from([text.to_owned()]);
    for _ in 0..20_000 {
        let Some(form) = forms.pop_front() else { return false };
        match grammar.follow(&form) {
            TextMatch::Complete => return true,
            TextMatch::Incomplete => forms.extend(['a', 'b'].map(|next| format!("{form}{next}"))),
            TextMatch::Refused { .. } => {}
        }
    }
    true
}

/// Makes a grammar of three rules and compares it with its expansions; how many short texts it has. `None` for a grammar
/// that is refused.
pub(super) fn compare_with_reference(random: &mut Random) -> Option<usize> {
    let names = ['R', 'A', 'B'];
    let rules: Vec<(char, Vec<String>)> = names
        .iter()
        .map(|&name| {
            let body = |random: &mut Random| -> String {
                (0..random.below(4)).map(|_| ['a', 'b', 'a', 'b', 'A', 'B', 'R'][random.below(7)]).collect()
            };
            (name, (0..1 + random.below(3)).map(|_| body(random)).collect())
        })
        .collect();
    let name = |c: char| if c == 'R' { "root".to_owned() } else { c.to_string() };
    let element = |c: char| if c.is_uppercase() { name(c) } else { format!("\"{c}\"") };
    let body = |body: &String| match body.is_empty() {
        true => "\"\"".to_owned(),
        false => body.chars().map(element).collect::<Vec<_>>().join(" "),
    };
    let line = |(rule, bodies): &(char, Vec<String>)| {
        format!("{} ::= {}", name(*rule), bodies.iter().map(body).collect::<Vec<_>>().join(" | "))
    };
    let text = rules.iter().map(line).collect::<Vec<_>>().join("\n");
    let grammar = gbnf(&text).ok()?;
    let mut n_texts = 0;
    // Expansions are cut where forms get long, so only short texts are known for certain.
    let texts = reference::texts(&rules, 9);
    let all = (0..=4).flat_map(|len| (0..1_u32 << len).map(move |bits| (len, bits)));
    for (len, bits) in all {
        let candidate: String = (0..len).map(|at| if bits >> at & 1 == 1 { 'b' } else { 'a' }).collect();
        n_texts += usize::from(texts.contains(&candidate));
        if texts.contains(&candidate) {
            assert!(passes(&grammar, &candidate), "{candidate:?} is a text of\n{text}");
        } else if passes(&grammar, &candidate) {
            let longer = reference::texts(&rules, 14);
            assert!(longer.contains(&candidate), "{candidate:?} is no text of\n{text}");
        }
        // Exactness: whatever is let pass so far has a completion.
        if grammar.follow(&candidate) == TextMatch::Incomplete {
            assert!(has_completion(&grammar, &candidate), "{candidate:?} has no completion in\n{text}");
        }
    }
    Some(n_texts)
}

#[test]
fn random_grammars_accept_what_their_expansions_are() {
    let mut random = Random(7);
    let found: Vec<usize> = (0..250).filter_map(|_| compare_with_reference(&mut random)).collect();
    let (n_grammars, n_texts) = (found.len(), found.iter().sum::<usize>());
    assert!(n_grammars > 50 && n_texts > 150, "{n_grammars} grammars, {n_texts} texts");
}

#[test]
fn corpus_of_cases() {
    let Some(rows) = rows("gbnf_cases.jsonl") else { return };
    for row in rows {
        let (name, text) = (row["name"].as_str().unwrap(), row["grammar"].as_str().unwrap());
        check_row(name, text, &row);
    }
}

fn check_row(name: &str, text: &str, row: &Value) {
    let grammar = gbnf(text);
    match &row["valid"] {
        Value::Bool(valid) => {
            let reason = grammar.as_ref().err().map(ToString::to_string);
            assert_eq!(grammar.is_ok(), *valid, "{name}: {reason:?}");
        }
        Value::Null if row["accept"].is_null() => {}
        _ => {
            let grammar = grammar.unwrap_or_else(|error| panic!("{name}: {error}"));
            for text in row["accept"].as_array().unwrap() {
                assert!(passes(&grammar, text.as_str().unwrap()), "{name} accepts {text}");
            }
            for text in row["reject"].as_array().unwrap() {
                assert!(!passes(&grammar, text.as_str().unwrap()), "{name} rejects {text}");
            }
        }
    }
}

#[test]
fn corpus_of_llama_cpp() {
    let Some(rows) = rows("llamacpp_grammar_cases.jsonl") else { return };
    let kinds = ["gbnf", "gbnf_syntax"];
    let rows = rows.into_iter().filter(|row| kinds.contains(&row["kind"].as_str().unwrap()));
    for (idx, row) in rows.enumerate() {
        let name = row["name"].as_str().map_or_else(|| format!("row {idx}"), str::to_owned);
        check_row(&name, row["grammar"].as_str().unwrap(), &row);
    }
}

fn rows(name: &str) -> Option<Vec<Value>> {
    let text = corpus(name)?;
    Some(text.lines().map(|line| serde_json::from_str(line).expect("a corpus has JSON lines")).collect())
}
