//! The tools of a request, what it says of their use, and calls in the answer.
use ingle_api::openai::{
    ChatDelta, ChatRequest, FunctionCall, FunctionCallChoice, FunctionDefinition, FunctionDelta, Tool, ToolCall,
    ToolCallDelta, ToolChoice,
};
use ingle_runtime::prompt;
use ingle_runtime::{ToolCallCount, ToolUse};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::ApiError;

/// Most tools of one request: a model reads all of them before it answers.
const MAX_TOOLS: usize = 512;

/// Longest name of a tool, in bytes.
const MAX_NAME: usize = 256;

/// How calls are presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallStyle {
    /// As a list of tool calls.
    Tools,
    /// As the one function call of OpenAI's first form.
    Function,
}

/// The tools of a request.
#[derive(Debug)]
pub(super) struct Offer {
    pub tools: Vec<prompt::Tool>,
    pub tool_use: ToolUse,
    pub style: CallStyle,
}

impl Offer {
    /// Reads tools and choices.
    ///
    /// # Errors
    /// Names a tool that cannot be used, or a choice of one that is not offered.
    pub fn of(request: &ChatRequest) -> Result<Self, ApiError> {
        let newer =
            request.tools.iter().flatten().enumerate().map(|(idx, tool)| tool_of(&format!("tools[{idx}]"), tool));
        let older = request
            .functions
            .iter()
            .flatten()
            .enumerate()
            .map(|(idx, function)| tool_of(&format!("functions[{idx}]"), &Tool::new(function.clone())));
        let mut tools = newer.chain(older).collect::<Result<Vec<_>, _>>()?;
        if tools.len() > MAX_TOOLS {
            let message = format!("`tools` has {} entries; at most {MAX_TOOLS} are taken", tools.len());
            return Err(ApiError::invalid_value("tools", message));
        }
        let style = match request.tools.as_ref().is_none_or(Vec::is_empty) && !tools.is_empty() {
            true => CallStyle::Function,
            false => CallStyle::Tools,
        };
        let choice = choice(request, &mut tools)?;
        let is_single = request.parallel_tool_calls == Some(false) || style == CallStyle::Function;
        let count = if is_single { ToolCallCount::One } else { ToolCallCount::Several };
        // A named tool is called once: that is what its client reads.
        let count = if matches!(choice, ingle_runtime::ToolChoice::Named(_)) { ToolCallCount::One } else { count };
        Ok(Self { tools, tool_use: ToolUse { choice, count }, style })
    }

    /// Must a tool be called?
    pub fn is_forced(&self) -> bool {
        use ingle_runtime::ToolChoice::{Auto, Named, None, Required};
        match self.tool_use.choice {
            Required | Named(_) => true,
            None | Auto => false,
        }
    }

    /// May a tool be called?
    pub fn is_open(&self) -> bool {
        !self.tools.is_empty() && self.tool_use.choice != ingle_runtime::ToolChoice::None
    }
}

/// The choice; one among some of the tools leaves those alone.
fn choice(request: &ChatRequest, tools: &mut Vec<prompt::Tool>) -> Result<ingle_runtime::ToolChoice, ApiError> {
    use ingle_runtime::ToolChoice as Choice;
    let known = |param: &str, name: &str, tools: &[prompt::Tool]| -> Result<(), ApiError> {
        if tools.iter().any(|tool| tool.name == name) {
            return Ok(());
        }
        Err(ApiError::invalid_value(param, format!("`{param}` names {name:?}, which is not among the tools")))
    };
    match (&request.tool_choice, &request.function_call) {
        (Some(ToolChoice::None), _) => Ok(Choice::None),
        (Some(ToolChoice::Auto), _) => Ok(Choice::Auto),
        (Some(ToolChoice::Required), _) if tools.is_empty() => Err(without_tools("tool_choice")),
        (Some(ToolChoice::Required), _) => Ok(Choice::Required),
        (Some(ToolChoice::Function(name)), _) => {
            known("tool_choice", name, tools).map(|()| Choice::Named(name.clone()))
        }
        (Some(ToolChoice::Allowed { required, names }), _) => {
            names.iter().try_for_each(|name| known("tool_choice", name, tools))?;
            tools.retain(|tool| names.contains(&tool.name));
            match (required, tools.is_empty()) {
                (true, true) => Err(without_tools("tool_choice")),
                (true, false) => Ok(Choice::Required),
                (false, _) => Ok(Choice::Auto),
            }
        }
        (None, Some(FunctionCallChoice::None)) => Ok(Choice::None),
        (None, Some(FunctionCallChoice::Function(name))) => {
            known("function_call", name, tools).map(|()| Choice::Named(name.clone()))
        }
        (None, Some(FunctionCallChoice::Auto) | None) => Ok(Choice::Auto),
    }
}

fn without_tools(param: &str) -> ApiError {
    ApiError::invalid_value(param, format!("`{param}` asks for a call and there are no tools; send `tools`"))
}

fn tool_of(param: &str, tool: &Tool) -> Result<prompt::Tool, ApiError> {
    let FunctionDefinition { name, description, parameters, strict } = tool.function.clone();
    let is_plain = |c: char| c.is_alphanumeric() || "_-.:/".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_plain) {
        let place = format!("{param}.function.name");
        let message = format!("`{place}` is {name:?}; use 1 to {MAX_NAME} letters, digits and any of _ - . : /");
        return Err(ApiError::invalid_value(place, message));
    }
    let parameters = match parameters {
        None | Some(Value::Null) => json!({"type": "object", "properties": {}}),
        Some(Value::Object(schema)) => Value::Object(schema),
        Some(_) => {
            let place = format!("{param}.function.parameters");
            let message = format!("`{place}` is no JSON Schema; send an object");
            return Err(ApiError::invalid_value(place, message));
        }
    };
    Ok(prompt::Tool { name, description, parameters, strict: strict.unwrap_or(false), raw: tool.raw.clone() })
}

/// An id for a call: letters and digits.
pub(super) fn call_id() -> String {
    format!("call_{}", &Uuid::new_v4().simple().to_string()[..24])
}

/// A whole call.
pub(super) fn call(name: String) -> ToolCall {
    let function = FunctionCall { name, arguments: String::new() };
    ToolCall { id: Some(call_id()), kind: "function".into(), function }
}

/// The delta with which the call of this place begins.
pub(super) fn start_delta(style: CallStyle, place: u32, name: String) -> ChatDelta {
    let function = FunctionDelta { name: Some(name), arguments: Some(String::new()) };
    match style {
        CallStyle::Function => ChatDelta { function_call: Some(function), ..ChatDelta::default() },
        CallStyle::Tools => {
            let (id, kind) = (Some(call_id()), Some("function".into()));
            let delta = ToolCallDelta { index: place, id, kind, function };
            ChatDelta { tool_calls: Some(vec![delta]), ..ChatDelta::default() }
        }
    }
}

/// The delta that goes on with the arguments of the call of this place.
pub(super) fn arguments_delta(style: CallStyle, place: u32, text: String) -> ChatDelta {
    let function = FunctionDelta { name: None, arguments: Some(text) };
    match style {
        CallStyle::Function => ChatDelta { function_call: Some(function), ..ChatDelta::default() },
        CallStyle::Tools => {
            let delta = ToolCallDelta { index: place, id: None, kind: None, function };
            ChatDelta { tool_calls: Some(vec![delta]), ..ChatDelta::default() }
        }
    }
}
