//! `ingle tools parse`: what a client gets of a generated text, without a model.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{ingle, text, with_input};

const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}\n\
                        <tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}{{ tools }}";

#[test]
fn a_text_is_split_into_content_reasoning_and_calls() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("template.jinja");
    std::fs::write(&path, format!("{TEMPLATE}{{# <think></think> #}}")).expect("a written template");
    let generated =
        "<think>\nHm.\n</think>\n\nLook:\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>";
    let command = ingle(&["tools", "parse", "--template", path.to_str().expect("UTF-8")]);
    let output = with_input(command, generated);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let call = json!({"name": "f", "arguments": {"a": 1}});
    assert_eq!(answer, json!({"content": "Look:", "reasoning": "Hm.", "tool_calls": [call], "complete": true}));

    let output = ingle(&["tools", "parse"]).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(2), "without a template there is no format");
}

#[test]
fn rows_answer_with_their_parts_or_an_error() {
    let rows = [
        json!({"template": TEMPLATE, "text": "Hi<|im_end|>\n"}),
        json!({"template": TEMPLATE, "pieces": ["<tool_", "call>{\"name\": \"f\", \"arg", "uments\": {\"a\": \"x"]}),
        json!({"template": TEMPLATE}),
        json!({"text": "Hi"}),
        json!({"template": "{{", "text": "Hi"}),
    ];
    let mut input: String = rows.iter().map(|row| format!("{row}\n")).collect();
    input.push_str("not JSON\n");
    let output = with_input(ingle(&["tools", "parse", "--jsonl"]), &input);
    let answers: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), 6);
    assert_eq!(answers[0], json!({"content": "Hi", "reasoning": "", "tool_calls": [], "complete": true}));
    assert_eq!(answers[1]["tool_calls"], json!([{"name": "f", "arguments": "{\"a\": \"x"}]));
    assert_eq!(answers[1]["complete"], json!(false));
    assert!(answers[2..].iter().all(|answer| answer["error"].is_string()), "{answers:?}");
}

#[test]
fn the_corpus_is_parsed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora");
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    let (Ok(templates), Ok(outputs), Ok(tools)) =
        (read("chat_templates.jsonl"), read("tool_call_outputs.jsonl"), read("tool_call_outputs.tools.json"))
    else {
        eprintln!("skipped: the corpora of chat templates and tool calls are not here");
        return;
    };
    let parse = |line: &str| serde_json::from_str::<Value>(line).expect("a corpus line is JSON");
    let templates: Vec<Value> = templates.lines().map(parse).collect();
    let tools: Value = parse(&tools);
    let rows: Vec<Value> = outputs.lines().map(parse).collect();
    let input = rows.iter().map(|row| {
        let template = templates.iter().find(|template| template["template_name"] == row["template_name"]);
        let template = &template.expect("the template of the row")["template"];
        let row = json!({"template": template, "tools": tools, "text": row["raw"], "prompt_end": row["generation_prefix_tail"]});
        format!("{row}\n")
    });
    let output = with_input(ingle(&["tools", "parse", "--jsonl"]), &input.collect::<String>());
    let answers: Vec<Value> = text(&output.stdout).lines().map(parse).collect();
    assert_eq!(answers.len(), rows.len());
    let mut n_whole = 0;
    for (row, answer) in rows.iter().zip(&answers) {
        let written = row["raw"].as_str().expect("a text");
        let content = row["content"].as_str().expect("content");
        let calls = row["tool_calls"].as_array().expect("calls");
        // Some templates leave out the text beside calls or all calls but the first: what is not there is not found.
        let has_text = written.contains(content) && !written.contains("<|channel|>analysis");
        let found = answer["tool_calls"].as_array().expect("calls");
        assert_eq!(found[..], calls[..found.len()], "{written}");
        assert!(
            found.len() == calls.len() || (found.len() == 1 && written.matches("get_weather").count() == 1),
            "{written}"
        );
        assert_eq!(answer["content"], if has_text { content } else { "" }, "{written}");
        n_whole += usize::from(has_text && found.len() == calls.len());
    }
    println!("{} outputs: {n_whole} as expected, in the others the text itself holds less", rows.len());
}
