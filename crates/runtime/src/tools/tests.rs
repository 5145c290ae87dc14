//! Forms of calls against the tools of a public corpus.

use ingle_grammar::{Environment, TextMatch};
use ingle_prompt::{ChatTemplate, TemplateVocabulary};
use serde_json::{Map, Value, json};

use super::*;

fn corpus(name: &str) -> Vec<Value> {
    let path = format!("{}/../../../shared/corpora/{name}", env!("CARGO_MANIFEST_DIR"));
    let Ok(text) = std::fs::read_to_string(path) else {
        eprintln!("skipped: the corpus {name} is not here");
        return Vec::new();
    };
    text.lines().map(|line| serde_json::from_str(line).expect("a corpus line is JSON")).collect()
}

/// A template whose calls are `<tool_call>` and a JSON object.
fn hermes() -> ChatTemplate {
    let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ";
    ChatTemplate::compile(source, TemplateVocabulary::default()).expect("it parses")
}

fn tool(raw: &Value) -> Tool {
    let function = &raw["function"];
    Tool {
        name: function["name"].as_str().expect("a name").to_owned(),
        description: None,
        parameters: function["parameters"].clone(),
        strict: false,
        raw: raw.clone(),
    }
}

/// `value` with the properties of objects in the order of `schema`, which a constrained answer has.
fn ordered(value: &Value, schema: &Value) -> Value {
    match value {
        Value::Object(entries) => {
            let known = schema["properties"].as_object().cloned().unwrap_or_default();
            let (mut first, mut rest) = (Map::new(), entries.clone());
            for (name, schema) in &known {
                if let Some(value) = rest.remove(name) {
                    first.insert(name.clone(), ordered(&value, schema));
                }
            }
            first.extend(rest);
            Value::Object(first)
        }
        Value::Array(items) => items.iter().map(|item| ordered(item, &schema["items"])).collect(),
        other => other.clone(),
    }
}

fn written(calls: &[(&str, Value)]) -> String {
    let call = |(name, arguments): &(&str, Value)| {
        format!("<tool_call>\n{{\"name\": {}, \"arguments\": {arguments}}}\n</tool_call>", json!(name))
    };
    calls.iter().map(call).collect::<Vec<_>>().join("\n")
}

/// Calls that are wrong in one thing each: an unknown name, a missing argument, one too many, one of another type.
fn mutations(name: &str, arguments: &Map<String, Value>, tool: &Tool) -> Vec<String> {
    let mut wrong = vec![written(&[("no_such_function", Value::Object(arguments.clone()))])];
    let with = |change: &dyn Fn(&mut Map<String, Value>)| {
        let mut arguments = arguments.clone();
        change(&mut arguments);
        written(&[(name, Value::Object(arguments))])
    };
    let required = tool.parameters["required"].as_array().cloned().unwrap_or_default();
    for name in required.iter().filter_map(Value::as_str) {
        wrong.push(with(&|arguments| drop(arguments.remove(name))));
    }
    if tool.parameters["additionalProperties"] == json!(false) {
        wrong.push(with(&|arguments| drop(arguments.insert("no_such_argument".into(), json!(1)))));
    }
    for (name, value) in arguments {
        let kind = &tool.parameters["properties"][name]["type"];
        let other = match kind.as_str() {
            Some("string") => json!(7),
            Some("integer" | "number" | "boolean") => json!("text"),
            Some("array" | "object") => json!(true),
            _ => continue,
        };
        assert_ne!(*value, other);
        wrong.push(with(&|arguments| drop(arguments.insert(name.clone(), other.clone()))));
    }
    wrong
}

#[test]
fn calls_of_the_corpus_are_accepted_and_wrong_ones_refused() {
    let environment = Arc::new(Environment::bytes().expect("a vocabulary of bytes"));
    let template = hermes();
    let (mut n_calls, mut n_wrong, mut refused) = (0, 0, Vec::new());
    for (idx, row) in corpus("bfcl_tools.jsonl").iter().enumerate() {
        let tools: Vec<Tool> = row["tools"].as_array().expect("tools").iter().map(tool).collect();
        let calls = template.call_format().calls(&tools, CallCount::Several);
        let source = source(calls, &tools, None).expect("the form leaves nothing out");
        let compiled = match Compiled::new(&environment, &source) {
            Ok(compiled) => compiled,
            Err(error) => {
                // By name: a message that names one of the tools.
                let text = error.to_string();
                assert!(tools.iter().any(|tool| text.contains(&tool.name)), "row {idx}: {text}");
                refused.push(format!("row {idx}: {text}"));
                continue;
            }
        };
        if row["example_valid"] != json!(true) {
            continue;
        }
        let by_name = |name: &str| tools.iter().find(|tool| tool.name == name).expect("a tool of the row");
        let example: Vec<(&str, Value)> = row["example_calls"]
            .as_array()
            .expect("calls")
            .iter()
            .map(|call| {
                let name = call["name"].as_str().expect("a name");
                (name, ordered(&call["arguments"], &by_name(name).parameters))
            })
            .collect();
        let text = written(&example);
        assert_eq!(compiled.follow(&text), TextMatch::Complete, "row {idx}: {text}\n{}", row["tools"]);
        n_calls += example.len();
        for (name, arguments) in &example {
            for text in mutations(name, arguments.as_object().expect("arguments"), by_name(name)) {
                assert_ne!(compiled.follow(&text), TextMatch::Complete, "row {idx}: {text}");
                n_wrong += 1;
            }
        }
    }
    println!("{n_calls} calls accepted, {n_wrong} wrong ones refused, {} forms refused", refused.len());
    refused.iter().for_each(|what| println!("{what}"));
}
