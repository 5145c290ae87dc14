//! Fuzz target: texts of calls, whole and broken, are split alike however they arrive.

use std::sync::Arc;

use serde_json::json;

use super::format::{CallBody, CallFormat, Tags, text};
use super::tests::{Answer, parse};
use super::*;

/// Pieces of calls in all formats.
const PIECES: [&str; 48] = [
    "<tool_call>",
    "</tool_call>",
    "\n",
    " ",
    "Look: ",
    "{\"name\": \"",
    "f",
    "get_weather",
    "\", \"arguments\": ",
    "{",
    "}",
    "{\"a\": 1}",
    "\"",
    "\\",
    ",",
    "[",
    "]",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<function=",
    ">",
    "</function>",
    "<parameter=a>",
    "</parameter>",
    "<parameter=b>\n",
    "True",
    "'x'",
    "null",
    "<|tool_call_start|>",
    "<|tool_call_end|>",
    "(",
    ")",
    "a=1",
    "<|\"|>",
    "call:",
    "<|tool_call>",
    "<tool_call|>",
    ">>>",
    "all\n",
    "<|channel|>",
    "commentary to=functions.f",
    "<|message|>",
    "<|end|>",
    "<|call|>",
    "analysis",
    "<think>",
    "</think>",
    "é🙂",
];

fn formats() -> Vec<CallFormat> {
    let tags = Tags {
        key_open: "<parameter=".into(),
        before_string: ">".into(),
        before_other: ">".into(),
        value_close: "</parameter>\n".into(),
    };
    let lines = Tags {
        before_string: ">\n".into(),
        before_other: ">\n".into(),
        value_close: "\n</parameter>\n".into(),
        ..tags.clone()
    };
    let tagged = |tags: Tags| CallFormat {
        before: text("<tool_call>\n<function="),
        between: text(">\n"),
        after: text("</function>\n</tool_call>"),
        body: CallBody::Tagged(tags),
        ..CallFormat::hermes()
    };
    let named = CallFormat {
        before: text("[TOOL_CALLS]"),
        between: text("[ARGS]"),
        after: Vec::new(),
        body: CallBody::Named,
        noise: vec!["<|end|>".into()],
        ..CallFormat::hermes()
    };
    let bare = CallFormat {
        before: text("<|tool_call>call:"),
        between: Vec::new(),
        after: text("<tool_call|>"),
        body: CallBody::Bare { quote: "<|\"|>".into() },
        ..CallFormat::hermes()
    };
    let keyed = CallFormat { body: CallBody::Keyed, before: text("{\""), ..CallFormat::list("[TOOL_CALLS]", "") };
    let python = CallFormat::python("<|tool_call_start|>", "<|tool_call_end|>");
    let list = CallFormat::list("[TOOL_CALLS]", "");
    let anchored = CallFormat { before: text("{\"name\": \""), after: text("}"), ..CallFormat::hermes() };
    vec![
        CallFormat::hermes(),
        list,
        python,
        CallFormat::recipient(),
        tagged(tags),
        tagged(lines),
        named,
        bare,
        keyed,
        anchored,
    ]
}

fn tools() -> Arc<[Tool]> {
    let tool = |name: &str| {
        let parameters = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}});
        let raw = json!({"type": "function", "function": {"name": name, "parameters": parameters.clone()}});
        Tool { name: name.into(), description: None, parameters, strict: false, raw }
    };
    Arc::from(vec![tool("f"), tool("get_weather")])
}

fn check(parser: &AnswerParser, pieces: &[&str]) {
    let text: String = pieces.concat();
    let whole = parse(parser, &[&text]);
    assert_eq!(parse(parser, pieces), whole, "{pieces:?} piece by piece");
    for at in (0..=text.len()).filter(|&at| text.is_char_boundary(at)) {
        assert_eq!(parse(parser, &[&text[..at], &text[at..]]), whole, "{:?} | {:?}", &text[..at], &text[at..]);
    }
    let Answer { calls, n_ended, .. } = &whole;
    assert!(*n_ended <= calls.len() && calls.iter().all(|(name, _)| !name.is_empty()), "{text:?}: {whole:?}");
}

#[test]
fn texts_are_split_alike_however_they_arrive() {
    let tools = tools();
    let tags = |opened| ReasoningFormat::Tags { open: "<think>", close: "</think>", opened };
    let mut parsers = vec![AnswerParser::new(ReasoningFormat::Harmony)];
    for format in formats() {
        for reasoning in [ReasoningFormat::None, tags(false), tags(true)] {
            parsers.push(AnswerParser::with_calls(reasoning, Arc::new(format.clone()), Arc::clone(&tools)));
        }
    }
    bolero::check!().with_type::<(u8, Vec<u8>)>().for_each(|(parser, choices)| {
        let pieces: Vec<&str> = choices.iter().take(24).map(|&choice| PIECES[choice as usize % PIECES.len()]).collect();
        check(&parsers[*parser as usize % parsers.len()], &pieces);
    });
}
