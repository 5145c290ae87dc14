//! Prompts as the `template:` mapping of LocalAI's YAML files makes them: Go templates with sprig's functions.
//!
//! Each message goes through `chat_message`; the results, joined, are the `.Input` of `chat`, or of `function` when there
//! are tools. A message without a template is its role's prefix and its text. What came with the request stays plain
//! text for the tokenizer, as in Jinja templates (see [`marks`]).

mod check;
mod clock;
mod funcs;
mod marks;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use gotmpl::{Template, TemplateError, Value};
use serde_json::Value as Json;

use crate::error::PromptError;
use crate::message::{ContentPart, Conversation, Message, PromptEnding, Role, TemplateOptions, Tool, ToolCall};
use crate::segments::{ControlTokens, RenderedPrompt};
use crate::template::TemplateSupport;
use crate::tools::{self, CallFormat};
use marks::Marks;
use values::{from_json, map, own};

/// Longest source of a template, in bytes.
const MAX_SOURCE: usize = 1 << 20;
/// Longest prompt, in bytes beside the request's own.
const MAX_OUTPUT: usize = 64 << 20;
/// Most passes of all `range` actions of one template.
const MAX_PASSES: u64 = 1_000_000;

/// The texts of the `template:` mapping, and what goes with them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoSources {
    /// Around all messages.
    pub chat: Option<String>,
    /// For one message.
    pub chat_message: Option<String>,
    /// For completions.
    pub completion: Option<String>,
    /// For edits.
    pub edit: Option<String>,
    /// In place of `chat` with tools.
    pub function: Option<String>,
    /// Between messages; absent is a line end.
    pub join: Option<String>,
    /// Role to prefix.
    pub roles: BTreeMap<String, String>,
    /// The operator's instructions: `.SystemPrompt`.
    pub system_prompt: Option<String>,
}

/// Compiled templates of one model.
pub struct GoTemplates {
    sources: GoSources,
    chat: Option<Template>,
    chat_message: Option<Template>,
    completion: Option<Template>,
    edit: Option<Template>,
    function: Option<Template>,
    call_format: Arc<CallFormat>,
    control_tokens: ControlTokens,
    /// All sources of chat templates.
    source: String,
}

impl fmt::Debug for GoTemplates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GoTemplates").field("sources", &self.sources).finish()
    }
}

impl GoTemplates {
    /// Parses every template.
    ///
    /// # Errors
    /// [`PromptError::Go`] with the key and the line of a template that does not parse or wants an unknown function.
    pub fn compile(sources: GoSources, control_tokens: ControlTokens) -> Result<Self, PromptError> {
        let parsed =
            |key: &'static str, source: &Option<String>| source.as_deref().map(|source| parse(key, source)).transpose();
        let chats = [&sources.function, &sources.chat, &sources.chat_message];
        let source = chats.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("\n");
        let prints_tools = sources.function.is_some() || source.contains(".Functions");
        // A model whose template says nothing of the form of calls answers with the bare object that LocalAI looks for.
        let call_format = match !prints_tools || source.contains("<tool_call>") {
            true => CallFormat::hermes(),
            false => CallFormat::plain_object(""),
        };
        Ok(Self {
            chat: parsed("template.chat", &sources.chat)?,
            chat_message: parsed("template.chat_message", &sources.chat_message)?,
            completion: parsed("template.completion", &sources.completion)?,
            edit: parsed("template.edit", &sources.edit)?,
            function: parsed("template.function", &sources.function)?,
            call_format: Arc::new(call_format),
            control_tokens,
            source,
            sources,
        })
    }

    /// The sources of the chat templates, one behind the other.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How the model writes tool calls, unless its configuration says otherwise.
    pub fn call_format(&self) -> &Arc<CallFormat> {
        &self.call_format
    }

    /// Are control tokens among the marks of its tool calls?
    pub fn calls_hold_control_tokens(&self) -> bool {
        self.call_format.marks().any(|mark| self.control_tokens.occur_in(mark))
    }

    fn support(&self) -> TemplateSupport {
        TemplateSupport {
            tools: self.function.is_some() || self.source.contains(".Functions"),
            tool_calls: self.source.contains(".FunctionCall"),
            system_role: true,
            ..TemplateSupport::default()
        }
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// [`PromptError::Render`] when a template fails, [`PromptError::Limit`] when it makes too much,
    /// [`PromptError::Input`] for media and for a last message to be continued, which these templates cannot express.
    pub fn render_chat(
        &self,
        conversation: &Conversation,
        options: &TemplateOptions,
    ) -> Result<RenderedPrompt, PromptError> {
        if options.ending == PromptEnding::InsideLastMessage {
            return Err(PromptError::Input {
                field: "continue_final_message".into(),
                expected: "left out: the model's Go templates cannot end inside a message",
            });
        }
        let tools = conversation.tools.clone();
        let adapted = tools::adapt(conversation, self.support(), &self.call_format);
        let marks = Marks::unlike(strings(&adapted, &tools, options).iter().map(String::as_str).chain(self.texts()))?;
        let rendered = marks::with(marks, || clock::with(options.now, || self.chat_text(&adapted, options, marks)))?;
        Ok(RenderedPrompt { segments: self.control_tokens.segments(&marks.origins(&rendered)) })
    }

    /// The prompt of a completion; `None` when there is no template for that.
    ///
    /// # Errors
    /// As [`GoTemplates::render_chat`].
    pub fn render_completion(&self, prompt: &str, options: &TemplateOptions) -> Result<Option<String>, PromptError> {
        let Some(template) = &self.completion else { return Ok(None) };
        let data = map([("SystemPrompt", self.system_prompt()), ("Input", own(prompt))]);
        clock::with(options.now, || execute("template.completion", template, &data)).map(Some)
    }

    /// The prompt of an edit; `None` when there is no template for that.
    ///
    /// # Errors
    /// As [`GoTemplates::render_chat`].
    pub fn render_edit(
        &self,
        input: &str,
        instruction: &str,
        options: &TemplateOptions,
    ) -> Result<Option<RenderedPrompt>, PromptError> {
        let Some(template) = &self.edit else { return Ok(None) };
        let marks = Marks::unlike([input, instruction].into_iter().chain(self.texts()))?;
        let data = map([
            ("SystemPrompt", self.system_prompt()),
            ("Input", Value::String(marks.put_around(input).into())),
            ("Instruction", Value::String(marks.put_around(instruction).into())),
        ]);
        let rendered = marks::with(marks, || clock::with(options.now, || execute("template.edit", template, &data)))?;
        Ok(Some(RenderedPrompt { segments: self.control_tokens.segments(&marks.origins(&rendered)) }))
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        let sources = &self.sources;
        let texts = [&sources.edit, &sources.join, &sources.system_prompt].into_iter().flatten();
        let roles = sources.roles.iter().flat_map(|(role, prefix)| [role, prefix]);
        texts.chain(roles).map(String::as_str).chain([self.source.as_str()])
    }

    fn system_prompt(&self) -> Value {
        own(self.sources.system_prompt.as_deref().unwrap_or_default())
    }

    fn chat_text(
        &self,
        conversation: &Conversation,
        options: &TemplateOptions,
        marks: Marks,
    ) -> Result<String, PromptError> {
        let mut turns = Vec::with_capacity(conversation.messages.len());
        let mut hides_system_prompt = false;
        for (idx, message) in conversation.messages.iter().enumerate() {
            let is_last = idx + 1 == conversation.messages.len();
            if let Some(turn) = self.turn(message, idx, is_last, marks)? {
                hides_system_prompt |= self.chat_message.is_none() && message.role == Role::System;
                turns.push(turn);
            }
        }
        let input = turns.join(self.sources.join.as_deref().unwrap_or("\n"));
        let (key, template) = match (&self.function, &self.chat) {
            (Some(function), _) if !conversation.tools.is_empty() => ("template.function", function),
            (_, Some(chat)) => ("template.chat", chat),
            (_, None) => return Ok(input),
        };
        let effort = options.reasoning_effort.as_deref().unwrap_or_default();
        let metadata: serde_json::Map<String, Json> = options.kwargs.clone();
        let data = map([
            ("SystemPrompt", self.system_prompt()),
            ("SuppressSystemPrompt", Value::Bool(hides_system_prompt)),
            ("Input", Value::String(input.into())),
            ("Instruction", own("")),
            ("Functions", Value::List(conversation.tools.iter().map(|tool| function(tool, marks)).collect())),
            ("MessageIndex", Value::Int(0)),
            ("ReasoningEffort", Value::String(marks.put_around(effort).into())),
            ("Metadata", from_json(&Json::Object(metadata), marks)),
        ]);
        execute(key, template, &data)
    }

    /// One message; `None` when its template makes nothing of it.
    fn turn(&self, message: &Message, idx: usize, is_last: bool, marks: Marks) -> Result<Option<String>, PromptError> {
        let calls = &message.tool_calls;
        let role = match calls.is_empty() || !self.sources.roles.contains_key(CALLING_ROLE) {
            true => message.role.as_str(),
            false => CALLING_ROLE,
        };
        let prefix = self.sources.roles.get(role).map_or("", String::as_str);
        let content = marks.put_around(&text_of(message)?);
        let calls = Value::List(calls.iter().enumerate().map(|(idx, call)| tool_call(idx, call, marks)).collect());
        let Some(template) = &self.chat_message else {
            let mut turn = if content.is_empty() { String::new() } else { format!("{prefix}{content}") };
            if calls.is_truthy() {
                let style = values::JsonStyle { escapes_html: false, is_pretty: false };
                let gap = if turn.is_empty() { prefix } else { "\n" };
                turn.push_str(gap);
                turn.push_str(&values::to_json(&calls, style));
            }
            return Ok(Some(turn));
        };
        let data = map([
            ("SystemPrompt", self.system_prompt()),
            ("Role", own(prefix)),
            ("RoleName", own(role)),
            ("FunctionName", Value::String(marks.put_around(message.name.as_deref().unwrap_or_default()).into())),
            ("Content", Value::String(content.into())),
            ("MessageIndex", Value::Int(i64::try_from(idx).unwrap_or(i64::MAX))),
            ("Function", Value::Bool(false)),
            ("FunctionCall", if calls.is_truthy() { calls } else { Value::Nil }),
            ("LastMessage", Value::Bool(is_last)),
        ]);
        let turn = execute("template.chat_message", template, &data)?;
        Ok((!turn.is_empty()).then_some(turn))
    }
}

/// The entry of `roles` for an assistant that calls tools.
const CALLING_ROLE: &str = "assistant_function_call";

fn parse(key: &'static str, source: &str) -> Result<Template, PromptError> {
    if source.len() > MAX_SOURCE {
        return Err(PromptError::Limit { resource: "bytes of source", limit: MAX_SOURCE as u64 });
    }
    let template = funcs::register(Template::new(key).max_range_iters(MAX_PASSES));
    let source = &spaced_trims(source);
    let template = template.parse(source).map_err(|error| PromptError::Go { key, reason: said(&error) })?;
    if let Some(line) = check::unbalanced(source) {
        let reason = format!("line {line}: an action and its {{{{end}}}} do not match");
        return Err(PromptError::Go { key, reason });
    }
    let mut bodies: Vec<&str> = template.templates();
    bodies.push(key);
    match bodies.into_iter().filter_map(|name| template.lookup(name)).find_map(check::unknown_function) {
        Some((name, line)) => {
            Err(PromptError::Go { key, reason: format!("line {line}: there is no function {name:?}") })
        }
        None => Ok(template),
    }
}

/// `{{-.Input}}` means `{{- .Input}}`: Go refuses it, and a configuration of LocalAI's own gallery has it.
fn spaced_trims(source: &str) -> String {
    let mut spaced = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(behind) = rest.find("{{-").map(|start| start + 3) {
        let (done, following) = rest.split_at(behind);
        spaced.push_str(done);
        let name = following.strip_prefix(['.', '$']).unwrap_or(following);
        if name.starts_with(|c: char| c.is_alphabetic()) {
            spaced.push(' ');
        }
        rest = following;
    }
    spaced + rest
}

fn said(error: &TemplateError) -> String {
    error.to_string()
}

/// Renders; what goes over the limit ends there.
fn execute(key: &'static str, template: &Template, data: &Value) -> Result<String, PromptError> {
    struct Limited(String);
    impl fmt::Write for Limited {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            if self.0.len() + text.len() > MAX_OUTPUT {
                return Err(fmt::Error);
            }
            self.0.push_str(text);
            Ok(())
        }
    }
    let mut out = Limited(String::new());
    match template.execute_fmt(&mut out, data) {
        Ok(()) => Ok(out.0),
        Err(TemplateError::Write) => Err(PromptError::Limit { resource: "bytes", limit: MAX_OUTPUT as u64 }),
        Err(TemplateError::RangeIterLimit) => Err(PromptError::Limit { resource: "passes", limit: MAX_PASSES }),
        Err(error) => Err(PromptError::Go { key, reason: said(&error) }),
    }
}

fn text_of(message: &Message) -> Result<String, PromptError> {
    let mut text = String::new();
    for part in &message.content {
        match part {
            ContentPart::Text(part) => text.push_str(part),
            ContentPart::Image(_) | ContentPart::Audio(_) | ContentPart::Video(_) => {
                return Err(PromptError::Input {
                    field: "messages".into(),
                    expected: "text: the model takes no media",
                });
            }
        }
    }
    Ok(text)
}

/// Go's struct of a function.
fn function(tool: &Tool, marks: Marks) -> Value {
    map([
        ("Name", Value::String(marks.put_around(&tool.name).into())),
        ("Description", Value::String(marks.put_around(tool.description.as_deref().unwrap_or_default()).into())),
        ("Strict", Value::Bool(tool.strict)),
        ("Parameters", from_json(&tool.parameters, marks)),
    ])
}

/// Go's struct of a call; the arguments are JSON text, as clients send them.
fn tool_call(idx: usize, call: &ToolCall, marks: Marks) -> Value {
    let text = |text: &str| Value::String(marks.put_around(text).into());
    let function = map([("Name", text(&call.name)), ("Arguments", text(&call.arguments.to_text()))]);
    map([
        ("Index", Value::Int(i64::try_from(idx).unwrap_or(i64::MAX))),
        ("ID", text(&call.id)),
        ("Type", own("function")),
        ("FunctionCall", function),
    ])
}

/// Everything that came with the request, as text.
fn strings(conversation: &Conversation, tools: &[Tool], options: &TemplateOptions) -> Vec<String> {
    let mut all = Vec::new();
    for message in &conversation.messages {
        all.extend(message.name.clone());
        for part in &message.content {
            if let ContentPart::Text(text) = part {
                all.push(text.clone());
            }
        }
        for call in &message.tool_calls {
            all.extend([call.id.clone(), call.name.clone(), call.arguments.to_text()]);
        }
    }
    for tool in tools {
        all.extend([tool.raw.to_string(), tool.parameters.to_string()]);
        all.extend(tool.description.clone());
    }
    all.extend(options.reasoning_effort.clone());
    all.push(Json::Object(options.kwargs.clone()).to_string());
    all
}
