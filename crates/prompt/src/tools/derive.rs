//! Finds out how a model writes tool calls, by rendering small conversations with its template.
//!
//! The words of a probe are needles that no template prints by itself. What stands around them, and what repeats when
//! there are two calls instead of one, is the format. Templates that do not print calls are known by their marks.

use serde_json::{Map, Value, json};

use super::atoms;
use super::format::{CallBody, CallFormat, Part, Tags, literal, text};
use crate::message::{Conversation, Message, PromptEnding, Role, TemplateOptions, Tool, ToolArguments, ToolCall};
use crate::template::ChatTemplate;

const NAMES: [&str; 2] = ["qxfirstxq", "qxothrxq"];
const KEYS: [&str; 2] = ["qxtextkeyxq", "qxcountkeyxq"];
const STRING: &str = "qxstringxq";
const NUMBER: &str = "735142";
/// Nine letters and digits: some templates take no other ids.
const IDS: [&str; 2] = ["qxidone01", "qxidtwo02"];
const CONTENT: &str = "qxcontentxq";
/// Stand for an id and for the place of a call, while texts are compared.
const ID: char = '\u{1}';
const INDEX: char = '\u{2}';

/// The call format of a template, or none where neither what it prints nor its source shows one.
pub(crate) fn call_format(template: &ChatTemplate) -> Option<CallFormat> {
    let source = template.source();
    if source.contains("<|channel|>") && source.contains("functions.") {
        return Some(CallFormat::harmony());
    }
    let noise = noise(template);
    let format = if source.contains(">>>all") || source.contains("'>>>'") || source.contains("\">>>\"") {
        Some(CallFormat::recipient())
    } else {
        printed(template).or_else(|| by_marks(template))
    };
    format.map(|format| CallFormat { noise: [noise, format.noise.clone()].concat(), ..format })
}

/// Known formats of templates that print no call of an earlier turn.
fn by_marks(template: &ChatTemplate) -> Option<CallFormat> {
    let source = template.source();
    let has = |mark: &str| source.contains(mark) || template.control_tokens().contains(mark);
    if has("<|tool_call_start|>") || source.contains("<|tool_list_start|>") || source.contains("List of tools: ") {
        return Some(CallFormat::python("<|tool_call_start|>", "<|tool_call_end|>"));
    }
    if source.contains("<|tool_call_argument_begin|>") {
        return Some(CallFormat::kimi());
    }
    if source.contains("functools[") {
        return Some(CallFormat::list("functools", ""));
    }
    if source.contains("<|tool_call|>") {
        let close = if has("<|/tool_call|>") { "<|/tool_call|>" } else { "" };
        return Some(CallFormat::list("<|tool_call|>", close));
    }
    source.contains("<tool_call>").then(CallFormat::hermes)
}

/// What the template prints of an assistant's turn, without what the prompt before it has.
struct Turn {
    text: String,
}

fn turn(template: &ChatTemplate, content: &str, calls: &[ToolCall]) -> Option<Turn> {
    let tools: Vec<Tool> = NAMES.iter().map(|name| tool(name)).collect();
    let render = |messages: Vec<Message>, ending: PromptEnding| {
        let options = TemplateOptions {
            ending,
            now: chrono::NaiveDate::from_ymd_opt(2025, 1, 2).and_then(|day| day.and_hms_opt(3, 4, 5)),
            ..TemplateOptions::default()
        };
        let tools = if calls.is_empty() { Vec::new() } else { tools.clone() };
        let rendered = template.render_text(&Conversation { messages, tools }, &options).ok()?;
        Some(rendered.as_str().to_owned())
    };
    let user = Message::text(Role::User, "hello");
    let assistant = Message { tool_calls: calls.to_vec(), ..Message::text(Role::Assistant, content) };
    let prompt = render(vec![user.clone()], PromptEnding::AssistantTurn)?;
    let whole = render(vec![user, assistant], PromptEnding::LastMessage)?;
    let mut text = whole[atoms::common_start(&prompt, &whole)..].to_owned();
    for (id, name) in IDS.iter().zip(NAMES) {
        // Some templates name the function by the id of its call.
        let stands_alone = text.contains(name);
        text = text.replace(id, &if stands_alone { ID.to_string() } else { (*id).to_owned() });
    }
    Some(Turn { text })
}

fn tool(name: &str) -> Tool {
    let property = |kind: &str| json!({"type": kind, "description": "about"});
    let properties: Map<String, Value> =
        [(KEYS[0].to_owned(), property("string")), (KEYS[1].to_owned(), property("integer"))].into_iter().collect();
    let parameters = json!({"type": "object", "properties": properties, "required": [KEYS[0]]});
    let function = json!({"name": name, "description": "about", "parameters": parameters.clone()});
    Tool {
        name: name.to_owned(),
        description: Some("about".to_owned()),
        parameters,
        strict: false,
        raw: json!({"type": "function", "function": function}),
    }
}

fn call(idx: usize) -> ToolCall {
    let number: Value = serde_json::from_str(NUMBER).unwrap_or(Value::Null);
    let arguments: Map<String, Value> =
        [(KEYS[0].to_owned(), json!(STRING)), (KEYS[1].to_owned(), number)].into_iter().collect();
    ToolCall {
        id: IDS[idx].to_owned(),
        name: NAMES[idx].to_owned(),
        arguments: ToolArguments::Json(Value::Object(arguments)),
    }
}

/// Marks around an assistant's text: what ends its turn and what wraps it.
fn noise(template: &ChatTemplate) -> Vec<String> {
    let Some(Turn { text }) = turn(template, CONTENT, &[]) else { return Vec::new() };
    let Some(at) = text.find(CONTENT) else { return Vec::new() };
    let (before, after) = (&text[..at], &text[at + CONTENT.len()..]);
    atoms::marks(before).chain(atoms::marks(after)).map(str::to_owned).collect()
}

/// A call in a text: its parts as ranges of bytes.
struct Found {
    name: usize,
    /// End of the name.
    between: usize,
    arguments: usize,
    /// End of the arguments.
    after: usize,
    shape: Shape,
}

enum Shape {
    Json,
    Tagged(Tags),
    Bare { quote: String },
}

/// The format of a template that prints calls.
fn printed(template: &ChatTemplate) -> Option<CallFormat> {
    let one = turn(template, "", &[call(0)])?.text;
    let first = find(&one, 0, 0)?;
    let (prefix, tail) = (behind_reasoning(&one[..first.name]), &one[first.after..]);
    let end = turn_end(template, tail);
    let two = turn(template, "", &[call(0), call(1)]).filter(|two| find(&two.text, 1, 0).is_some());
    let mut format = match two {
        Some(Turn { text: two }) => several(&one, &first, prefix, tail, end, &two)?,
        None => CallFormat {
            open: String::new(),
            close: String::new(),
            separator: String::new(),
            before: parts(prefix),
            between: parts(&one[first.between..first.arguments]),
            after: parts(&tail[..tail.len() - end]),
            single: true,
            ..CallFormat::hermes()
        },
    };
    format.noise = atoms::marks(&tail[tail.len() - end..]).map(str::to_owned).collect();
    format.body = body(&format, first.shape)?;
    Some(format)
}

/// What is left of the text before a call behind a block of reasoning.
fn behind_reasoning(prefix: &str) -> &str {
    let closes = ["</think>", "</seed:think>", "[/THINK]", "<|END_THINKING|>", "</thinking>", "</reasoning>"];
    let ends = closes.iter().filter_map(|close| prefix.rfind(close).map(|at| at + close.len()));
    &prefix[ends.max().unwrap_or(0)..]
}

/// Bytes at the end of `tail` that end a turn without calls too.
fn turn_end(template: &ChatTemplate, tail: &str) -> usize {
    let Some(Turn { text }) = turn(template, CONTENT, &[]) else { return 0 };
    text.find(CONTENT).map_or(0, |at| atoms::common_end(tail, &text[at + CONTENT.len()..]))
}

/// Compares one call with two, to see what belongs to a call and what stands around all of them.
fn several(one: &str, first: &Found, prefix: &str, tail: &str, end: usize, two: &str) -> Option<CallFormat> {
    let (start, second) = (find(two, 0, 0)?, find(two, 1, 0)?);
    if second.name < start.after {
        return None;
    }
    let (prefix, joint) = with_index(prefix, &two[start.after..second.name]);
    let between = &one[first.between..first.arguments];
    let (between, _) = with_index(between, &two[second.between..second.arguments]);
    let before = atoms::common_end(&prefix, &joint);
    // What stands before the first call alone is no white space: that belongs to the call.
    let open = &prefix[..prefix.len() - before];
    let joint = &joint[..joint.len() - before];
    let after = atoms::common_start(joint, &tail[..tail.len() - end]);
    Some(CallFormat {
        open: open.to_owned(),
        close: tail[after..tail.len() - end].to_owned(),
        separator: joint[after..].to_owned(),
        before: parts(&prefix[open.len()..]),
        between: parts(&between),
        after: parts(&tail[..after]),
        ..CallFormat::hermes()
    })
}

/// Both texts, with a mark where, counted from the end, the first has 0 and the second 1: the place of the call.
fn with_index(first: &str, second: &str) -> (String, String) {
    let (mut one, mut other): (Vec<char>, Vec<char>) = (first.chars().collect(), second.chars().collect());
    for (a, b) in one.iter_mut().rev().zip(other.iter_mut().rev()) {
        match (*a, *b) {
            ('0', '1') => (*a, *b) = (INDEX, INDEX),
            (a, b) if a == b => {}
            _ => break,
        }
    }
    (one.into_iter().collect(), other.into_iter().collect())
}

fn parts(with_marks: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = with_marks;
    while let Some(at) = rest.find([ID, INDEX]) {
        parts.extend(text(&rest[..at]));
        parts.push(if rest[at..].starts_with(ID) { Part::Id } else { Part::Index });
        rest = &rest[at + 1..];
    }
    parts.extend(text(rest));
    parts
}

/// The call of `NAMES[idx]` in `text`, looked for from `from` on.
fn find(text: &str, idx: usize, from: usize) -> Option<Found> {
    let name = from + text[from..].find(NAMES[idx])?;
    let between = name + NAMES[idx].len();
    let key = between + text[between..].find(KEYS[0])?;
    let brace = text[..key].rfind('{').filter(|&brace| brace >= between);
    if let Some((arguments, len)) = brace.and_then(|brace| Some((brace, json_object(&text[brace..])?))) {
        return Some(Found { name, between, arguments, after: arguments + len, shape: Shape::Json });
    }
    let string = key + text[key..].find(STRING)?;
    let count_key = text[between..].find(KEYS[1]).map(|at| at + between)?;
    let number = count_key + text[count_key..].find(NUMBER)?;
    let before_string = &text[key + KEYS[0].len()..string];
    if let Some(brace) = brace.filter(|_| before_string.starts_with(':') && before_string.len() > 1) {
        let close = brace + bare_end(&text[brace..])?;
        let quote = before_string[1..].to_owned();
        return Some(Found { name, between, arguments: brace, after: close, shape: Shape::Bare { quote } });
    }
    if !(key < string && string < count_key) {
        return None;
    }
    let before_other = &text[count_key + KEYS[1].len()..number];
    let (head, middle) = (&text[between..key], &text[string + STRING.len()..count_key]);
    let key_open = &head[head.len() - atoms::common_end(head, middle)..];
    let value_close = &middle[..middle.len() - key_open.len()];
    let after = number + NUMBER.len();
    let tags = Tags {
        key_open: key_open.to_owned(),
        before_string: before_string.to_owned(),
        before_other: before_other.to_owned(),
        value_close: value_close.to_owned(),
    };
    let is_tagged = !key_open.trim().is_empty() && !value_close.trim().is_empty() && !before_string.is_empty();
    let closed = text[after..].starts_with(value_close).then_some(after + value_close.len());
    let arguments = key - key_open.len();
    closed.filter(|_| is_tagged).map(|after| Found { name, between, arguments, after, shape: Shape::Tagged(tags) })
}

/// Bytes of the JSON object at the beginning of `text`, where it holds both arguments.
fn json_object(text: &str) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = values.next()?.ok()?;
    KEYS.iter().all(|key| value.get(*key).is_some()).then(|| values.byte_offset())
}

/// Bytes of the object with bare keys at the beginning of `text`; the needles hold no brace.
fn bare_end(text: &str) -> Option<usize> {
    text.find('}').map(|at| at + 1)
}

/// What is said of a call by the text around its name.
fn body(format: &CallFormat, shape: Shape) -> Option<CallBody> {
    match shape {
        Shape::Tagged(tags) => return Some(CallBody::Tagged(tags)),
        Shape::Bare { quote } => return Some(CallBody::Bare { quote }),
        Shape::Json => {}
    }
    let (before, between) = (literal(&format.before), literal(&format.between));
    let Some(before) = before.trim_end().strip_suffix('"') else { return Some(CallBody::Named) };
    let Some(inside) = before.rfind('{').map(|at| &before[at + 1..]) else { return Some(CallBody::Named) };
    if inside.trim().is_empty() {
        return Some(CallBody::Keyed);
    }
    let last_string = |text: &str| {
        let end = text.trim_end().strip_suffix(':')?.trim_end().strip_suffix('"')?;
        Some(end[end.rfind('"')? + 1..].to_owned())
    };
    Some(CallBody::Object { name: last_string(inside)?, arguments: last_string(&between)? })
}
