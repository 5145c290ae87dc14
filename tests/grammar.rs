//! `ingle grammar check`: what grammars let pass, without a model.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{ingle, text, with_input};

/// Status and output of a check of `grammar` against `texts`.
fn check(name: &str, grammar: &str, options: &[&str], texts: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, grammar).expect("a written grammar");
    let texts: Vec<&str> = texts.iter().flat_map(|text| ["--text", text]).collect();
    let arguments = [&["grammar", "check", path.to_str().expect("UTF-8")], options, &texts].concat();
    let output = ingle(&arguments).output().expect("the program runs");
    (output.status.code(), text(&output.stdout))
}

#[test]
fn a_check_says_match_no_match_and_where_or_refused() {
    let grammar = "root ::= \"a\" [0-9]+\n";
    assert_eq!(check("g.gbnf", grammar, &[], &["a1", "a22"]), (Some(0), "\"a1\": match\n\"a22\": match\n".into()));
    let (status, report) = check("g.gbnf", grammar, &[], &["a1", "a1x", "a"]);
    assert_eq!(status, Some(1));
    assert!(report.contains("\"a1x\": no match: line 1, column 3: 'x' is not allowed here"), "{report}");
    assert!(report.contains("\"a\": no match: the text ends too early"), "{report}");
    let (status, report) = check("g.gbnf", "root ::= (\"a\"", &[], &["a"]);
    assert_eq!(status, Some(2));
    assert!(report.starts_with("refused: the GBNF grammar cannot be enforced: line 1, column 14"), "{report}");
    let (status, report) = check("s.json", r#"{"type":"integer","minimum":3}"#, &[], &["4", "2"]);
    assert!(status == Some(1) && report.contains("\"4\": match") && report.contains("\"2\": no match"), "{report}");
    let unique = r#"{"type":"array","uniqueItems":true}"#;
    let (status, report) = check("s.json", unique, &[], &["[1]"]);
    assert!(status == Some(0) && report.contains("not enforced:") && report.contains("uniqueItems"), "{report}");
    assert_eq!(check("s.json", unique, &["--strict"], &[]).0, Some(2));
    assert_eq!(check("words.txt", "(yes|no)", &["--kind", "regex"], &["no"]).0, Some(0));
    let (status, _) = check("words.txt", "(yes|no)", &[], &["no"]);
    assert_eq!(status, Some(1), "an unknown ending is an error");
}

#[test]
fn rows_answer_with_what_is_accepted_or_an_error() {
    let rows = [
        json!({"kind": "gbnf", "grammar": "root ::= [ab]", "texts": ["a", "c", ""]}),
        json!({"kind": "json_schema", "schema": {"const": 1}, "strict": true, "texts": ["1", "2"]}),
        json!({"kind": "json_schema", "schema": {"type": "array", "uniqueItems": true}, "strict": true, "texts": []}),
        json!({"kind": "lark", "grammar": "start: \"x\"", "texts": ["x"]}),
        json!({"kind": "gbnf", "grammar": "root ::= nothing"}),
        json!({"kind": "music"}),
    ];
    let mut input: String = rows.iter().map(|row| format!("{row}\n")).collect();
    input.push_str("not JSON\n");
    let output = with_input(ingle(&["grammar", "check", "--jsonl"]), &input);
    let answers: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let accepts: Vec<&Value> = answers.iter().map(|answer| &answer["accepts"]).collect();
    assert_eq!(accepts[..2], [&json!([true, false, false]), &json!([true, false])]);
    assert_eq!(accepts[3], &json!([true]));
    let sound: Vec<bool> = answers.iter().map(|answer| answer["ok"] == json!(true)).collect();
    assert_eq!(sound, [true, true, false, true, false, false, false]);
    let errors = |idx: usize| answers[idx]["error"].as_str().unwrap_or_default();
    assert!(errors(2).contains("uniqueItems") && errors(4).contains("line 1"), "{answers:?}");
}

#[test]
fn the_corpus_is_answered_as_it_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/gbnf_cases.jsonl");
    let Ok(corpus) = std::fs::read_to_string(&path) else {
        return println!("passed over: gbnf_cases.jsonl is not on this machine");
    };
    let rows: Vec<Value> = corpus.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let list = |row: &Value, key: &str| row[key].as_array().cloned().unwrap_or_default();
    let questions: String = rows
        .iter()
        .map(|row| {
            let texts = [list(row, "accept"), list(row, "reject")].concat();
            format!("{}\n", json!({"kind": row["kind"], "grammar": row["grammar"], "texts": texts}))
        })
        .collect();
    let output = with_input(ingle(&["grammar", "check", "--jsonl"]), &questions);
    let answers = text(&output.stdout);
    for (row, answer) in rows.iter().zip(answers.lines()) {
        let answer: Value = serde_json::from_str(answer).expect("JSON");
        if let Some(valid) = row["valid"].as_bool() {
            assert_eq!(answer["ok"], valid, "{}", row["name"]);
        } else if row["kind"] == "gbnf" {
            let expected = [vec![true; list(row, "accept").len()], vec![false; list(row, "reject").len()]].concat();
            assert_eq!(answer["accepts"], json!(expected), "{}", row["name"]);
        }
    }
    assert_eq!(answers.lines().count(), rows.len());
}
