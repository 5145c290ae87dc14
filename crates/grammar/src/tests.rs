//! Grammars over a vocabulary of single bytes: what they let pass, what they refuse, and that they end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ingle_engine::fake::FakeTokenizer;
use ingle_engine::{Allowed, Constraint, TokenId, Tokenizer};
use serde_json::{Value, json};

use super::*;

mod gbnf;

/// Longer than any single grammar may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(10);

fn environment() -> Arc<Environment> {
    Arc::new(Environment::new(Arc::new(FakeTokenizer::default())).expect("the fake vocabulary has ends"))
}

fn schema(schema: Value, strictness: Strictness) -> GrammarSource {
    GrammarSource::JsonSchema { schema, strictness }
}

fn allows(allowed: &Allowed, token: TokenId) -> bool {
    match allowed {
        Allowed::All => true,
        Allowed::These(mask) => mask[token as usize / 32] >> (token % 32) & 1 == 1,
        Allowed::Nothing => false,
    }
}

fn is_complete(allowed: &Allowed) -> bool {
    *allowed == Allowed::Nothing || allows(allowed, FakeTokenizer::default().end_of_generation()[0])
}

/// Does the grammar let this whole text pass, byte by byte?
fn accepts(compiled: &Compiled, text: &str) -> bool {
    let mut constraint = compiled.start();
    for byte in text.bytes() {
        let allowed = constraint.allowed().expect("no limit is reached");
        if !allows(&allowed, byte.into()) {
            return false;
        }
        constraint.accept(byte.into()).expect("an allowed token is accepted");
    }
    is_complete(&constraint.allowed().expect("no limit is reached"))
}

/// Python's `json.dumps`: one blank behind each comma and colon, characters as they are.
fn canonical(value: &Value) -> String {
    let list = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::Array(items) => format!("[{}]", list(items.iter().map(canonical).collect())),
        Value::Object(entries) => {
            let entry = |(key, value): (&String, &Value)| format!("{}: {}", json!(key), canonical(value));
            format!("{{{}}}", list(entries.iter().map(entry).collect()))
        }
        scalar => scalar.to_string(),
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// A text made of allowed tokens chosen at random, and whether it came to its end.
fn walk(compiled: &Compiled, random: &mut Random, most: usize) -> (Vec<u8>, bool) {
    let (mut constraint, mut text) = (compiled.start(), Vec::new());
    while text.len() < most {
        let allowed = constraint.allowed().expect("no limit is reached");
        if is_complete(&allowed) && (allowed == Allowed::Nothing || random.below(3) == 0) {
            return (text, true);
        }
        // Ends of strings and lists more often than chance would have them.
        let closing: Vec<u8> = b"\"]}".iter().copied().filter(|&byte| allows(&allowed, byte.into())).collect();
        let any: Vec<u8> = (0..=255).filter(|&byte| allows(&allowed, byte.into())).collect();
        let choices = if !closing.is_empty() && random.below(3) > 0 { closing } else { any };
        assert!(!choices.is_empty(), "an end is allowed alone only where the text is complete");
        let byte = choices[random.below(choices.len())];
        constraint.accept(byte.into()).expect("an allowed token is accepted");
        text.push(byte);
    }
    (text, false)
}

#[test]
fn whatever_is_sampled_satisfies_the_schema() {
    let schemas = [
        json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"]}),
        json!({"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 4}),
        json!({"enum": ["red", "green", 3, null, {"x": [1]}]}),
        json!({"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}),
        json!({"type": "string", "minLength": 3, "maxLength": 6}),
        json!({"type": "integer", "minimum": -5, "maximum": 120}),
        json!({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
        json!({"anyOf": [{"type": "boolean"}, {"type": "object", "properties": {"k": {"const": 1}}, "required": ["k"]}]}),
        json!({"$defs": {"n": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}},
               "required": ["next"], "additionalProperties": false}}, "$ref": "#/$defs/n"}),
        json!({"type": "object", "additionalProperties": {"type": "boolean"}}),
        json!({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": false}),
        json!({"type": "string", "format": "date"}),
        json!({"type": ["string", "null"], "maxLength": 2}),
        json!({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
               {"properties": {"b": {"type": "boolean"}}, "required": ["b"]}]}),
    ];
    let environment = environment();
    let mut random = Random(1);
    for schema_value in schemas {
        let compiled = Compiled::new(&environment, &schema(schema_value.clone(), Strictness::Strict))
            .unwrap_or_else(|error| panic!("{schema_value}: {error}"));
        assert!(compiled.unenforced().is_empty());
        let mut n_ended = 0;
        for _ in 0..40 {
            let (text, ended) = walk(&compiled, &mut random, 400);
            if ended {
                n_ended += 1;
                let text = String::from_utf8(text).expect("a whole answer is UTF-8");
                assert_eq!(compiled.validate(&text), Some(true), "{text} for {schema_value}");
            }
        }
        assert!(n_ended > 10, "only {n_ended} of 40 walks ended for {schema_value}");
    }
}

#[test]
fn what_cannot_be_enforced_is_refused_by_name_or_told() {
    let environment = environment();
    let cases = [
        ("not", json!({"type": "object", "properties": {"a": {"not": {"type": "null"}}}}), r#"{"a": null}"#),
        ("if", json!({"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}}), r#"{"a": 1}"#),
        ("uniqueItems", json!({"type": "array", "uniqueItems": true}), "[1, 1]"),
        ("contains", json!({"type": "array", "contains": {"type": "integer"}}), "[]"),
        ("propertyNames", json!({"type": "object", "propertyNames": {"maxLength": 1}}), r#"{"ab": 1}"#),
        ("oneOf", json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}), "3"),
    ];
    for (keyword, value, violation) in cases {
        let strict = Compiled::new(&environment, &schema(value.clone(), Strictness::Strict));
        let error = strict.expect_err(keyword).to_string();
        assert!(error.contains(keyword), "{keyword}: {error}");
        let lenient = Compiled::new(&environment, &schema(value, Strictness::Lenient)).expect(keyword);
        assert!(lenient.unenforced().iter().any(|told| told.contains(keyword)), "{:?}", lenient.unenforced());
        assert!(accepts(&lenient, violation), "{keyword} is not enforced");
        assert_eq!(lenient.validate(violation), Some(false), "{keyword} is checked afterwards");
    }
}

#[test]
fn a_client_cannot_make_a_strict_schema_lenient() {
    let value = json!({"type": "object", "not": {"required": ["a"]}, "x-guidance": {"lenient": true}});
    assert!(Compiled::new(&environment(), &schema(value, Strictness::Strict)).is_err());
}

#[test]
fn formats_let_nothing_invalid_pass() {
    let environment = environment();
    for (format, text, passes) in [
        ("date", "2024-02-29", true),
        ("date", "2000-02-29", true),
        ("date", "1900-02-29", false),
        ("date", "2023-02-29", false),
        ("date", "2023-04-31", false),
        ("date", "2023-12-31", true),
        ("time", "23:59:59Z", true),
        ("time", "23:59:60Z", false),
        ("date-time", "2024-02-29T12:00:00.5+01:00", true),
        ("date-time", "2023-02-29T12:00:00Z", false),
    ] {
        let nested =
            json!({"type": "array", "items": {"type": "string", "format": format, "allOf": [{"minLength": 1}]}});
        let compiled = Compiled::new(&environment, &schema(nested, Strictness::Strict)).expect(format);
        assert_eq!(accepts(&compiled, &format!("[\"{text}\"]")), passes, "{format}: {text}");
    }
    let host = json!({"type": "string", "format": "hostname"});
    let compiled = Compiled::new(&environment, &schema(host, Strictness::Strict)).expect("hostname");
    let long = |n: usize| format!("\"{}com\"", "abcdefghi.".repeat(n));
    assert!(accepts(&compiled, &long(25)) && !accepts(&compiled, &long(26)));
}

#[test]
fn white_space_is_one_blank_or_a_line_and_has_an_end() {
    let compiled = Compiled::new(&environment(), &GrammarSource::JsonObject).expect("any object");
    for (text, passes) in [
        (r#"{"a": 1, "b": [true, null]}"#, true),
        (r#"{"a":1,"b":[true,null]}"#, true),
        ("{\n  \"a\": [\n    1\n  ]\n}", true),
        ("{}", true),
        ("[1]", false),
        ("{\"a\":  1}", false),
        ("{\"a\":\n\n1}", false),
        ("{\"a\": 1} ", false),
    ] {
        assert_eq!(accepts(&compiled, text), passes, "{text:?}");
    }
}

#[test]
fn regular_expressions_and_lark() {
    let environment = environment();
    let date = Compiled::new(&environment, &GrammarSource::Regex("[0-9]{4}-[0-9]{2}".into())).expect("an expression");
    assert!(accepts(&date, "2026-11") && !accepts(&date, "2026-1") && !accepts(&date, "2026-111"));
    let lark = GrammarSource::Lark("start: \"yes\" | \"no\" tail\ntail: \"!\"*".into());
    let lark = Compiled::new(&environment, &lark).expect("a grammar");
    assert!(accepts(&lark, "yes") && accepts(&lark, "no!!") && !accepts(&lark, "yes!"));
    for (source, part) in [
        (GrammarSource::Regex("(".into()), "regular expression"),
        (GrammarSource::Lark("start: other".into()), "other"),
        (GrammarSource::Lark(String::new()), "Lark"),
        (schema(json!({"type": "nothing"}), Strictness::Lenient), "JSON schema"),
        (schema(json!(7), Strictness::Lenient), "JSON schema"),
        (schema(json!({"$ref": "http://elsewhere/x"}), Strictness::Lenient), "JSON schema"),
        (schema(json!({"$ref": "#/nowhere"}), Strictness::Lenient), "JSON schema"),
        (schema(json!({"type": "integer", "minimum": 5, "maximum": 4}), Strictness::Strict), "JSON schema"),
    ] {
        let error = Compiled::new(&environment, &source).expect_err("it is wrong").to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn hostile_grammars_end_soon() {
    let nested = (0..100).fold(json!({"type": "integer"}), |inner, _| json!({"type": "array", "items": inner}));
    let names: Vec<String> = (0..20_000).map(|idx| format!("name {idx}")).collect();
    let hostile = [
        GrammarSource::Regex("(((a{1000}){1000}){1000}){1000}".into()),
        GrammarSource::Regex("(a?){5000}a{5000}".into()),
        GrammarSource::Regex("é".repeat(300_000)),
        GrammarSource::Lark("start: \"a\" start start | \"\"".into()),
        GrammarSource::Lark("start: start".into()),
        GrammarSource::Lark(format!("start: {}\"a\"{}", "(".repeat(20_000), ")".repeat(20_000))),
        GrammarSource::Lark("x".repeat(3 << 20)),
        schema(nested, Strictness::Lenient),
        schema(json!({"$ref": "#"}), Strictness::Lenient),
        schema(json!({"type": "string", "maxLength": 4_000_000_000_u64}), Strictness::Lenient),
        schema(json!({"type": "array", "minItems": 100_000_000, "items": {"type": "integer"}}), Strictness::Lenient),
        schema(json!({"type": "string", "pattern": "(a*)*(b|c*)*{9999}"}), Strictness::Lenient),
        schema(json!({"enum": names}), Strictness::Lenient),
        schema(
            json!({"allOf": vec![json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}); 20]}),
            Strictness::Lenient,
        ),
        schema(json!({"enum": ["é".repeat(90), 1], "type": "é".repeat(120)}), Strictness::Strict),
    ];
    let environment = environment();
    for source in hostile {
        let begun = Instant::now();
        if let Ok(compiled) = Compiled::new(&environment, &source) {
            let mut constraint = compiled.start();
            for _ in 0..4 {
                match constraint.allowed() {
                    Ok(Allowed::These(mask)) => {
                        let token = (0..256_u32).find(|&token| mask[token as usize / 32] >> (token % 32) & 1 == 1);
                        let Some(token) = token else { break };
                        if constraint.accept(token).is_err() {
                            constraint.allowed().expect_err("a limit was reached: fails closed");
                            break;
                        }
                    }
                    Ok(Allowed::All | Allowed::Nothing) | Err(_) => break,
                }
            }
        }
        let shown: String = format!("{source:?}").chars().take(80).collect();
        assert!(begun.elapsed() < PATIENCE, "{shown} took {:?}", begun.elapsed());
    }
}

#[test]
fn constraints_fork_and_go_back() {
    let environment = environment();
    let compiled = Compiled::new(&environment, &GrammarSource::Regex("ab?c".into())).expect("an expression");
    let mut one = compiled.start();
    one.accept(b'a'.into()).expect("allowed");
    let mut other = one.fork();
    other.accept(b'b'.into()).expect("allowed");
    assert!(allows(&one.allowed().expect("a mask"), b'b'.into()), "a fork leaves the original alone");
    assert!(!allows(&other.allowed().expect("a mask"), b'b'.into()));
    other.rollback(1).expect("one token was accepted since");
    assert_eq!(one.allowed(), other.allowed());
    one.accept(b'x'.into()).expect_err("not allowed");
    one.allowed().expect_err("fails closed");
}

#[test]
fn the_cache_compiles_once() {
    let cache = GrammarCache::new(environment());
    let source = |n: usize| GrammarSource::Regex(format!("a{{{n}}}"));
    let first = cache.get(&source(1)).expect("an expression");
    assert!(Arc::ptr_eq(&first, &cache.get(&source(1)).expect("an expression")));
    cache.get(&GrammarSource::Regex("(".into())).expect_err("wrong each time");
    cache.get(&GrammarSource::Regex("(".into())).expect_err("wrong each time");
    (2..100).for_each(|n| drop(cache.get(&source(n)).expect("an expression")));
    assert!(!Arc::ptr_eq(&first, &cache.get(&source(1)).expect("an expression")), "the oldest have gone");
}

#[test]
fn an_answer_can_be_held_to_a_form_behind_its_reasoning() {
    let cache = GrammarCache::new(environment());
    let compiled = cache.get(&GrammarSource::Regex("[0-9]{2}".into())).unwrap();
    let opening = cache.opening("</think>", None).expect("a vocabulary with a tokenizer");
    let end = FakeTokenizer::default().end_of_generation()[0];
    let start = || opening.then(compiled.start());
    let say = |constraint: &mut Box<dyn Constraint>, text: &str| {
        text.bytes().for_each(|byte| {
            assert!(allows(&constraint.allowed().unwrap(), byte.into()), "{:?} of {text:?}", byte as char);
            constraint.accept(byte.into()).unwrap();
        });
    };
    let mut constraint = start();
    say(&mut constraint, "Hm, 7 <think> </thin</thi");
    let waiting = constraint.allowed().unwrap();
    assert!(allows(&waiting, b'x'.into()) && !allows(&waiting, end), "it may think, but not stop");
    say(&mut constraint, "nk>\n");
    let between = constraint.allowed().unwrap();
    assert!(allows(&between, b'4'.into()) && allows(&between, b'\n'.into()) && !allows(&between, b'x'.into()));
    let mut fork = constraint.fork();
    say(&mut constraint, "\n4");
    assert!(!allows(&constraint.allowed().unwrap(), b'\n'.into()));
    say(&mut constraint, "2");
    assert_eq!(constraint.allowed(), Ok(Allowed::Nothing));
    constraint.rollback(3).unwrap();
    assert!(allows(&constraint.allowed().unwrap(), b'\n'.into()), "between again");
    say(&mut fork, "17");
    assert_eq!(fork.allowed(), Ok(Allowed::Nothing));
    assert!(start().rollback(1).is_err());
}

fn corpus(name: &str) -> Option<String> {
    let path = format!("{}/../../../shared/corpora/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        println!("passed over: {name} is not on this machine");
    }
    text
}

/// Counts over a corpus of schemas with instances.
#[derive(Debug, Default)]
struct Counts {
    schemas: usize,
    refused_schemas: usize,
    valid_accepted: usize,
    valid_refused: usize,
    invalid_refused: usize,
}

/// Runs every row; nothing invalid may pass under a strict schema.
fn count(text: &str, schema_may_be_refused: impl Fn(&Value) -> bool) -> Counts {
    let environment = environment();
    let (mut counts, mut leaks) = (Counts::default(), Vec::new());
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("a row is JSON");
        counts.schemas += 1;
        let begun = Instant::now();
        let Ok(compiled) = Compiled::new(&environment, &schema(row["schema"].clone(), Strictness::Strict)) else {
            counts.refused_schemas += 1;
            assert!(schema_may_be_refused(&row), "llguidance itself takes {}", row["id"]);
            continue;
        };
        for test in row["tests"].as_array().expect("tests") {
            let passes = accepts(&compiled, &canonical(&test["data"]));
            match (test["valid"].as_bool().expect("a verdict"), passes) {
                (true, true) => counts.valid_accepted += 1,
                (true, false) => counts.valid_refused += 1,
                (false, false) => counts.invalid_refused += 1,
                (false, true) => leaks.push(format!("{} passes under {}", test["data"], row["schema"])),
            }
        }
        assert!(begun.elapsed() < PATIENCE, "{} took {:?}", row["id"], begun.elapsed());
    }
    assert!(leaks.is_empty(), "{} leaks: {leaks:#?}", leaks.len());
    counts
}

#[test]
fn json_schema_test_suite() {
    let Some(text) = corpus("json_schema_test_suite.jsonl") else { return };
    let counts = count(&text, |_| true);
    println!("{counts:?}");
    assert!(counts.valid_accepted > counts.valid_refused && counts.invalid_refused > 100, "{counts:?}");
}

#[test]
fn schemas_of_the_real_world() {
    let Some(text) = corpus("maskbench_sample.jsonl") else { return };
    let counts = count(&text, |row| row["llguidance_1_8"] != "ok");
    println!("{counts:?}");
    assert!(counts.valid_accepted > 9 * counts.valid_refused, "{counts:?}");
}

mod calls;
mod fuzz;
