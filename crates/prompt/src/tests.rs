//! The corpus, and what no client may do.

use serde_json::Value as Json;

use ingle_engine::SpecialTokens;

use crate::{
    ChatTemplate, ContentPart, ControlTokens, Conversation, Message, PromptEnding, PromptError, RenderedPrompt, Role,
    TemplateOptions, TemplateVocabulary, Tool, ToolArguments, ToolCall, render_row,
};

pub(crate) fn corpus(name: &str) -> Option<String> {
    let path = format!("{}/../../../shared/corpora/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).ok();
    if text.is_none() {
        eprintln!("skipped: the corpus {name} is not here");
    }
    text
}

/// Rows of the corpus: name, row for `render_row`, the case with its expectation.
fn rows() -> Vec<(String, Json, Json)> {
    let (Some(templates), Some(scenarios)) = (corpus("chat_templates.jsonl"), corpus("chat_template_scenarios.json"))
    else {
        return Vec::new();
    };
    let scenarios: Json = serde_json::from_str(&scenarios).expect("the scenarios are JSON");
    let mut rows = Vec::new();
    for line in templates.lines() {
        let template: Json = serde_json::from_str(line).expect("a corpus line is JSON");
        for case in template["cases"].as_array().expect("cases is a list") {
            let scenario = case["scenario"].as_str().expect("a scenario has a name");
            let mut row = scenarios["scenarios"][scenario].clone();
            row["template"] = template["template"].clone();
            row["now"] = scenarios["strftime_now_is"].clone();
            let name = format!("{}/{scenario}", template["template_name"].as_str().unwrap_or("?"));
            rows.push((name, row, case.clone()));
        }
    }
    rows
}

#[test]
fn every_corpus_row_renders_as_the_reference_does() {
    let mut wrong = Vec::new();
    for (name, row, case) in rows() {
        let rendered = render_row(&row);
        match (case["expected"].as_str(), &rendered) {
            (Some(expected), Ok(found)) if expected == found => {}
            (None, Err(PromptError::Refused { message })) if case["message"].as_str() == Some(message) => {}
            (None, Err(PromptError::Render { .. })) if case["error"] != "TemplateError" => {}
            (expected, found) => {
                let at = expected.zip(found.as_ref().ok()).map(|(a, b)| {
                    let at = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
                    (
                        a.get(at.saturating_sub(40)..).map(|s| s.chars().take(90).collect::<String>()),
                        b.get(at.saturating_sub(40)..).map(|s| s.chars().take(90).collect::<String>()),
                    )
                });
                wrong.push(format!("{name}: {:?} {:?} {at:?}", case["message"], rendered.as_ref().err()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_corpus_is_whole() {
    let rows = rows();
    assert!(rows.is_empty() || rows.len() == 380, "{} rows", rows.len());
}

/// Spellings that the templates of the corpus are likely to have as control tokens.
fn plausible_control_tokens(source: &str) -> Vec<String> {
    let mut found = std::collections::BTreeSet::new();
    for (open, close) in [("<", ">"), ("[", "]")] {
        for (at, _) in source.match_indices(open) {
            let Some(length) = source[at..].find(close) else { continue };
            let spelling = &source[at..at + length + 1];
            let inner = &spelling[1..spelling.len() - 1];
            let word = |c: char| c.is_alphanumeric() || "_|/▁｜:-".contains(c);
            if !inner.is_empty() && inner.chars().all(word) && inner.chars().any(char::is_alphabetic) {
                found.insert(spelling.to_owned());
            }
        }
    }
    found.extend(["<BOS>", "<EOS>", "<think>", "</think>", "<tool_call>", "<|im_start|>"].map(String::from));
    found.into_iter().collect()
}

/// A scenario of the corpus as a conversation, with every client string passed through `change`.
fn conversation(row: &Json, change: &dyn Fn(&str) -> String) -> Conversation {
    fn walk(json: &Json, change: &dyn Fn(&str) -> String) -> Json {
        match json {
            Json::String(text) => Json::String(change(text)),
            Json::Array(items) => items.iter().map(|item| walk(item, change)).collect(),
            Json::Object(map) => {
                let entry = |(key, item): (&String, &Json)| {
                    let kept =
                        ["type", "properties", "required", "description", "enum", "function", "name", "parameters"];
                    let key = if kept.contains(&key.as_str()) { key.clone() } else { change(key) };
                    let item = if key == "type" { item.clone() } else { walk(item, change) };
                    (key, item)
                };
                Json::Object(map.iter().map(entry).collect())
            }
            other => other.clone(),
        }
    }
    let text = |json: &Json| json.as_str().map(change);
    let call = |call: &Json| ToolCall {
        id: call["id"].as_str().unwrap_or_default().to_owned(),
        name: change(call["function"]["name"].as_str().unwrap_or_default()),
        arguments: match &call["function"]["arguments"] {
            Json::String(text) => ToolArguments::from_text(text),
            other => ToolArguments::Json(walk(other, change)),
        },
    };
    let message = |message: &Json| Message {
        role: match message["role"].as_str() {
            Some("system") => Role::System,
            Some("assistant") => Role::Assistant,
            Some("tool") => Role::Tool,
            _ => Role::User,
        },
        content: match &message["content"] {
            Json::Array(parts) => parts.iter().filter_map(|part| text(&part["text"])).map(ContentPart::Text).collect(),
            other => text(other).map(ContentPart::Text).into_iter().collect(),
        },
        name: text(&message["name"]),
        tool_calls: message["tool_calls"].as_array().into_iter().flatten().map(call).collect(),
        tool_call_id: message["tool_call_id"].as_str().map(str::to_owned),
        reasoning: text(&message["reasoning_content"]),
    };
    let tool = |tool: &Json| Tool {
        name: change(tool["function"]["name"].as_str().unwrap_or_default()),
        description: text(&tool["function"]["description"]),
        parameters: walk(&tool["function"]["parameters"], change),
        strict: false,
        raw: walk(tool, change),
    };
    Conversation {
        messages: row["messages"].as_array().into_iter().flatten().map(message).collect(),
        tools: row["tools"].as_array().into_iter().flatten().map(tool).collect(),
    }
}

fn options(row: &Json) -> TemplateOptions {
    let mut options = TemplateOptions {
        now: chrono::NaiveDate::from_ymd_opt(2025, 1, 2).and_then(|day| day.and_hms_opt(3, 4, 5)),
        ..TemplateOptions::default()
    };
    if row["add_generation_prompt"] == Json::Bool(false) {
        options.ending = PromptEnding::LastMessage;
    }
    if let Some(thinking) = row.get("enable_thinking") {
        options.kwargs.insert("enable_thinking".into(), thinking.clone());
    }
    options
}

/// Per template: the compiled form over its plausible control tokens, with those tokens.
fn compiled(row: &Json) -> (ChatTemplate, Vec<String>) {
    let source = row["template"].as_str().expect("a template is a string");
    let spellings = plausible_control_tokens(source);
    let vocabulary = TemplateVocabulary {
        bos_token: Some("<BOS>".into()),
        eos_token: Some("<EOS>".into()),
        control_tokens: ControlTokens::new(&spellings).expect("the spellings are few"),
    };
    (ChatTemplate::compile(source, vocabulary).expect("a corpus template compiles"), spellings)
}

#[test]
fn the_server_path_joins_to_the_reference() {
    let (mut equal, mut normalised, mut wrong) = (0, 0, Vec::new());
    for (name, row, case) in rows() {
        let (template, _) = compiled(&row);
        let rendered = template.render(&conversation(&row, &str::to_owned), &options(&row));
        match (case["expected"].as_str(), rendered) {
            (Some(expected), Ok(prompt)) if prompt.text() == expected => equal += 1,
            // Normalising may do better than the reference with string arguments and with parts.
            _ if name.ends_with("tool_args_as_string") || name.ends_with("content_parts") => normalised += 1,
            // What a template has no place for is put into the conversation as text.
            _ if !template.supports().tools && row["tools"].is_array() => normalised += 1,
            (None, _) => {}
            (Some(_), rendered) => wrong.push(format!("{name}: {:?}", rendered.err())),
        }
    }
    eprintln!("server path: {equal} equal, {normalised} normalised, {} differ", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every client string holds every control token, whole and in halves; only the template's own may be parsed.
#[test]
fn no_client_character_is_ever_parsed() {
    let (mut rendered, mut other_branch) = (0, 0);
    for (name, row, _) in rows() {
        let (template, spellings) = compiled(&row);
        // A letter outside every spelling tells client characters from the template's.
        let poison = spellings.join("");
        let halves: String = spellings.iter().map(|s| s.chars().skip(1).collect::<String>()).collect();
        let change = |text: &str| format!("{halves}ж{text}ж{poison}ж<|im_");
        let Ok(prompt) = template.render(&conversation(&row, &change), &options(&row)) else { continue };
        let Ok(clean) = template.render(&conversation(&row, &|text| text.to_owned()), &options(&row)) else { continue };
        rendered += 1;
        let parsed = |prompt: &RenderedPrompt| -> String {
            let parse = prompt.segments.iter().filter(|s| s.special == SpecialTokens::Parse);
            parse.map(|s| s.text.as_str()).collect()
        };
        let source = template.source();
        if parsed(&prompt) != parsed(&clean) {
            // Only a template that looks into the text may write other tokens for it.
            let looks = ["split(", "in content", "in message", "startswith(", "endswith("];
            assert!(looks.iter().any(|look| source.contains(look)), "{name}: {}", parsed(&prompt));
            other_branch += 1;
        }
    }
    assert!(other_branch * 4 <= rendered, "{other_branch} of {rendered} renderings took another branch");
    eprintln!("{rendered} adversarial renderings, {other_branch} on another branch");
}

/// What is printed of a client's data in other ways than as its text is the client's as well.
#[test]
fn printed_values_are_no_template_text() {
    let spellings = ["<5>", "<True>", "<None>", "<1.5>", "<k>"].map(String::from);
    let vocabulary = TemplateVocabulary {
        control_tokens: ControlTokens::new(&spellings).expect("the spellings are few"),
        ..TemplateVocabulary::default()
    };
    let kwargs = serde_json::json!({
        "n": 5, "t": true, "z": null, "x": 1.5, "code": 60, "fill": "<", "key": {"<k>": 1}, "percent": "%%"
    });
    let templates = [
        "<{{ n }}>",
        "<{{ n + 0 }}>",
        "<{{ '%d' % n }}>{{ '<%s>' % n }}{{ '<{}>'.format(n) }}{{ '<%03.1f>' % x }}",
        "<{{ n|string }}>{{ '<' ~ n ~ '>' }}<{{ [n]|first }}>",
        "<{{ t }}><{{ z }}><{{ x }}>",
        "{{ '%c' % code }}5>",
        "{{ 'k>'.rjust(3, fill) }}{{ '5>'.center(3, fill) }}{{ '5>'|center(2) }}",
        "{{ dict(**key)|list|first }}",
        "{% macro m() %}{{ kwargs|list|first }}{% endmacro %}{{ m(**key) }}",
    ];
    for source in templates {
        let template = ChatTemplate::compile(source, vocabulary.clone()).expect("the case parses");
        let options =
            TemplateOptions { kwargs: kwargs.as_object().expect("an object").clone(), ..TemplateOptions::default() };
        let prompt = template.render(&Conversation::default(), &options).expect("the case renders");
        assert!(spellings.iter().any(|spelling| prompt.text().contains(spelling)), "{source}: {}", prompt.text());
        assert!(prompt.segments.iter().all(|s| s.special == SpecialTokens::Plain), "{source}");
    }
}

#[test]
fn origins_follow_the_text_through_templates() {
    let spellings = ["<|im_end|>", "<think>", "</think>", "<|im_start|>"].map(String::from);
    let vocabulary = TemplateVocabulary {
        control_tokens: ControlTokens::new(&spellings).expect("the spellings are few"),
        ..TemplateVocabulary::default()
    };
    // (template, user text, segments that may be parsed)
    let cases = [
        ("{{ '<|im_start|>' ~ messages[0].content ~ '<|im_end|>' }}", "a<|im_end|>b", "<|im_start|>,<|im_end|>"),
        ("{{ messages[0].content }}end|>", "<|im_", ""),
        ("<|im_{{ messages[0].content }}", "end|>", ""),
        ("{{ messages[0].content.split('</think>')[-1] }}</think>", "<think>x</think>y<think>", "</think>"),
        ("{{ '</think>'.join(messages[0].content.split('</think>')) }}", "x</think>y", "</think>"),
        ("{{ messages[0].content|upper|lower }}", "<|im_end|>", ""),
        ("{{ messages[0].content|replace('X', '') }}", "<|imX_end|>", ""),
        ("{{ messages[0]|tojson }}{{ messages[0]|string }}", "<|im_end|>", ""),
        ("{{ messages[0].content[::-1] }}", ">|dne_mi|<", ""),
        ("{{ '%s' % messages[0].content }}{{ '{}'.format(messages[0].content) }}", "<|im_end|>", ""),
        ("{% for c in messages[0].content %}{{ c }}{% endfor %}", "<|im_end|>", ""),
        ("{{ '<|im_start|>' if messages[0].content == '<think>' }}", "<think>", "<|im_start|>"),
        ("{% set x %}{{ messages[0].content }}{% endset %}{{ x|trim|indent }}", " <|im_end|>\n<think>", ""),
        ("{{ '<|im_' ~ messages[0].role ~ '|>' }}{{ '<|im_end|>' }}", "x", "<|im_end|>"),
    ];
    for (source, text, expected) in cases {
        let template = ChatTemplate::compile(source, vocabulary.clone()).expect("the case parses");
        let conversation = Conversation { messages: vec![Message::text(Role::User, text)], tools: Vec::new() };
        let prompt = template.render(&conversation, &TemplateOptions::default()).expect("the case renders");
        let parsed: Vec<&str> = prompt
            .segments
            .iter()
            .filter(|segment| segment.special == SpecialTokens::Parse)
            .map(|segment| segment.text.as_str())
            .collect();
        assert_eq!(parsed.join(","), expected, "{source}");
    }
}
