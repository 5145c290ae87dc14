//! Finds out what a template takes and prints, by rendering small conversations with it.

use serde_json::json;

use crate::message::{ContentPart, Conversation, Message, Role, TemplateOptions, Tool, ToolArguments, ToolCall};
use crate::template::{ChatTemplate, TemplateSupport};
use crate::variables::Shapes;

/// A word that no template prints by itself.
const NEEDLE: &str = "qxneedlexq";

/// What the source alone tells.
pub(crate) fn shapes(source: &str) -> Shapes {
    let reads = |name: &str| source.contains(name);
    let reasoning_key = if reads("reasoning_content") {
        "reasoning_content"
    } else if reads(".thinking") || reads("['thinking']") || reads("[\"thinking\"]") {
        "thinking"
    } else if reads(".reasoning") || reads("['reasoning']") || reads("[\"reasoning\"]") {
        "reasoning"
    } else {
        "reasoning_content"
    };
    Shapes {
        content_parts: false,
        content_text: true,
        arguments_object: true,
        null_content: false,
        short_ids: false,
        developer_role: reads("'developer'") || reads("\"developer\""),
        reasoning_key,
    }
}

/// Renders the probes and stores what they show.
pub(crate) fn probe(template: &mut ChatTemplate) {
    let mut shapes = template.shapes();
    let mut supports = TemplateSupport::default();
    let user = || Message::text(Role::User, NEEDLE);
    let other_user = || Message::text(Role::User, "hello");

    let mut trial = template.clone();
    let as_text = rendered(&trial, vec![user()], &[], &[]);
    trial.set_findings(Shapes { content_text: false, content_parts: true, ..shapes }, supports);
    let as_parts = rendered(&trial, vec![user()], &[], &[]);
    shapes.content_parts = as_parts.is_some_and(|text| text.contains(NEEDLE) && !text.contains("'type'"));
    shapes.content_text = !shapes.content_parts || as_text.is_some_and(|text| text.contains(NEEDLE));
    supports.content_parts = shapes.content_parts;
    template.set_findings(shapes, supports);

    let system = vec![Message::text(Role::System, NEEDLE), other_user()];
    supports.system_role = has_needle(rendered(template, system, &[], &[]));
    supports.tools = has_needle(rendered(template, vec![other_user()], &[tool()], &[]));

    for (arguments_object, null_content) in [(true, false), (false, false), (true, true), (false, true)] {
        let trial = Shapes { arguments_object, null_content, ..shapes };
        template.set_findings(trial, supports);
        if has_needle(rendered(template, call_turns(), &[tool()], &[])) {
            shapes = trial;
            supports.tool_calls = true;
            break;
        }
    }
    if supports.tool_calls {
        // Mistral's templates raise where an id has another length than nine.
        template.set_findings(shapes, supports);
        let long = rendered(template, with_id(call_turns(), "call_0123456789abcdef"), &[tool()], &[]);
        shapes.short_ids = long.is_none();
    }
    supports.thinking_kwarg = thinking_kwarg(template);
    supports.reasoning_effort = template.source().contains("reasoning_effort");
    template.set_findings(shapes, supports);
}

fn has_needle(rendered: Option<String>) -> bool {
    rendered.is_some_and(|text| text.contains(NEEDLE))
}

fn thinking_kwarg(template: &ChatTemplate) -> Option<&'static str> {
    ["enable_thinking", "thinking"].into_iter().find(|name| {
        let user = || vec![Message::text(Role::User, "hello")];
        let with = |value: bool| rendered(template, user(), &[], &[(name, value)]);
        template.source().contains(name) && with(true) != with(false)
    })
}

fn tool() -> Tool {
    let parameters = json!({"type": "object", "properties": {"a": {"type": "string", "description": "a"}}});
    let function = json!({"name": NEEDLE, "description": "about", "parameters": parameters.clone()});
    Tool {
        name: NEEDLE.to_owned(),
        description: Some("about".to_owned()),
        parameters,
        strict: false,
        raw: json!({"type": "function", "function": function}),
    }
}

fn call_turns() -> Vec<Message> {
    let mut assistant = Message::text(Role::Assistant, "");
    let arguments = ToolArguments::Json(json!({"a": NEEDLE}));
    assistant.tool_calls.push(ToolCall { id: "abcdef123".into(), name: "f".into(), arguments });
    let mut result = Message::text(Role::Tool, "ok");
    result.tool_call_id = Some("abcdef123".into());
    result.content = vec![ContentPart::Text("ok".into())];
    vec![Message::text(Role::User, "hello"), assistant, result]
}

fn with_id(mut turns: Vec<Message>, id: &str) -> Vec<Message> {
    for turn in &mut turns {
        turn.tool_calls.iter_mut().for_each(|call| call.id = id.to_owned());
        turn.tool_call_id = turn.tool_call_id.as_ref().map(|_| id.to_owned());
    }
    turns
}

fn rendered(
    template: &ChatTemplate,
    messages: Vec<Message>,
    tools: &[Tool],
    kwargs: &[(&str, bool)],
) -> Option<String> {
    let options = TemplateOptions {
        kwargs: kwargs.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect(),
        now: chrono::NaiveDate::from_ymd_opt(2025, 1, 2).and_then(|day| day.and_hms_opt(3, 4, 5)),
        ..TemplateOptions::default()
    };
    let conversation = Conversation { messages, tools: tools.to_vec() };
    template.render_text(&conversation, &options).ok().map(|text| text.as_str().to_owned())
}
