//! Who answers: a model in this process, or a server.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use ingle::catalog::Usecase;
use ingle::prompt::{ContentPart, Conversation, Message, Role, TemplateOptions};
use ingle::{AnswerOptions, ChatCall, ChatCompletion, ChatEvent, Runtime, SamplingOverrides, Setup, ToolUse};
use ingle_api::client::Client;
use ingle_api::openai;

use crate::cli::ChatArgs;
use crate::commands::locate::{ON_THE_WAY, locate};
use crate::commands::progress::Downloads;

/// A part of an answer.
#[derive(Debug)]
pub(super) enum Part {
    /// Text of the answer.
    Text(String),
    /// Text of the reasoning before it.
    Reasoning(String),
    /// What it took.
    End(Totals),
}

/// What an answer took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Totals {
    prompt_tokens: u64,
    cached_tokens: u64,
    completion_tokens: u64,
    /// To the first token, and from there to the end.
    times: Option<(Duration, Duration)>,
}

impl Totals {
    /// With times measured here, where the answer brought none.
    pub(super) fn with_times(self, measured: (Duration, Duration)) -> Self {
        Self { times: self.times.or(Some(measured)), ..self }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prompt, generation) = self.times.unwrap_or_default();
        // The first token belongs to the prompt's time.
        let decoded = self.completion_tokens.saturating_sub(1);
        let speed = if generation.is_zero() { 0.0 } else { decoded as f64 / generation.as_secs_f64() };
        let cached = if self.cached_tokens > 0 { format!(" ({} cached)", self.cached_tokens) } else { String::new() };
        write!(
            f,
            "{} tokens, {speed:.1} tok/s; prompt of {} tokens{cached} in {:.2} s",
            self.completion_tokens,
            self.prompt_tokens,
            prompt.as_secs_f64()
        )
    }
}

/// The other end of a conversation.
pub(super) enum Talker {
    Local { runtime: Runtime, model: String, options: Box<AnswerOptions> },
    Remote { client: Client, request: Box<openai::ChatRequest> },
}

impl Talker {
    /// Loads the model, or makes a client.
    pub(super) async fn new(args: &ChatArgs) -> anyhow::Result<Self> {
        if let Some(endpoint) = &args.endpoint {
            let request = Box::new(request_of(args));
            return Ok(Self::Remote { client: Client::new(endpoint, args.api_key.clone()), request });
        }
        let (runtime, model) = find(args)?;
        let lease = runtime.lease(model.as_deref(), Usecase::Chat).await?;
        let model = lease.model().to_owned();
        Ok(Self::Local { runtime, model, options: Box::new(options_of(args)) })
    }

    /// Its name for people.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Local { model, .. } => model,
            Self::Remote { request, .. } => request.model.as_deref().unwrap_or("the server's first model"),
        }
    }

    /// Sends a conversation; the answer as it comes.
    pub(super) async fn ask(
        &mut self,
        messages: Vec<Message>,
    ) -> anyhow::Result<BoxStream<'static, anyhow::Result<Part>>> {
        match self {
            Self::Local { runtime, model, options } => {
                let call = ChatCall {
                    model: Some(model.clone()),
                    conversation: Conversation { messages, tools: Vec::new() },
                    tool_use: ToolUse::default(),
                    template: TemplateOptions::default(),
                    options: (**options).clone(),
                };
                let answers = runtime.chat(call).await?;
                let parts = stream::iter(answers).flatten().map_err(anyhow::Error::from);
                Ok(parts.try_filter_map(|event| std::future::ready(Ok(part(event)))).boxed())
            }
            Self::Remote { client, request } => {
                let messages = messages.iter().map(wire_message).collect();
                let chunks = client.chat_stream(openai::ChatRequest { messages, ..(**request).clone() }).await?;
                let parts = chunks.map(|chunk| match chunk {
                    Ok(chunk) => stream::iter(wire_parts(chunk)).map(Ok).boxed(),
                    Err(error) => stream::iter([Err(anyhow::Error::from(error))]).boxed(),
                });
                Ok(parts.flatten().boxed())
            }
        }
    }
}

/// The runtime and the model's name; `None` is the first one that chats.
fn find(args: &ChatArgs) -> anyhow::Result<(Runtime, Option<String>)> {
    if let Some(path) = args.model.as_deref().map(Path::new).filter(|path| path.is_file()) {
        let (runtime, model) = Setup::for_file(path, args.load.defaults())?;
        return Ok((runtime, Some(model)));
    }
    let setup = Setup {
        models_path: args.folder.models_path.clone(),
        config_file: args.folder.models_config_file.clone(),
        defaults: args.load.defaults(),
        residency: ingle::ResidencyOptions::default(),
    };
    let runtime = setup.runtime()?;
    let downloads = Downloads::new(Arc::default());
    let name = args.model.as_deref().map(|what| locate(runtime.catalog(), what, ON_THE_WAY, &downloads));
    let name = name.transpose()?;
    Ok((runtime, name))
}

fn options_of(args: &ChatArgs) -> AnswerOptions {
    let seed = args.seed.map(u64::from);
    AnswerOptions {
        max_tokens: args.max_tokens.map(|n_tokens| n_tokens as usize),
        sampling: SamplingOverrides { temperature: args.temperature, seed, ..SamplingOverrides::default() },
        ..AnswerOptions::default()
    }
}

fn request_of(args: &ChatArgs) -> openai::ChatRequest {
    openai::ChatRequest {
        model: args.model.clone(),
        stream_options: Some(openai::StreamOptions { include_usage: Some(true) }),
        max_tokens: args.max_tokens.map(i64::from),
        temperature: args.temperature,
        seed: args.seed.map(i64::from),
        ..openai::ChatRequest::default()
    }
}

fn part(event: ChatEvent) -> Option<Part> {
    match event {
        ChatEvent::Content(text) => Some(Part::Text(text)),
        ChatEvent::Reasoning(text) => Some(Part::Reasoning(text)),
        // A conversation in the terminal offers no tools.
        ChatEvent::Tokens(_) | ChatEvent::CallStart { .. } | ChatEvent::CallArguments(_) | ChatEvent::CallEnd => None,
        ChatEvent::Done(ChatCompletion { completion, .. }) => Some(Part::End(Totals {
            prompt_tokens: completion.usage.prompt_tokens as u64,
            cached_tokens: completion.usage.cached_tokens as u64,
            completion_tokens: completion.usage.completion_tokens as u64,
            times: Some((completion.timings.queued + completion.timings.prompt, completion.timings.generation)),
        })),
    }
}

fn wire_message(message: &Message) -> openai::ChatMessage {
    let text = message.content.iter().filter_map(|part| match part {
        ContentPart::Text(text) => Some(text.as_str()),
        ContentPart::Image(_) | ContentPart::Audio(_) | ContentPart::Video(_) => None,
    });
    openai::ChatMessage {
        role: match message.role {
            Role::System => openai::Role::System,
            Role::Developer => openai::Role::Developer,
            Role::User => openai::Role::User,
            Role::Assistant => openai::Role::Assistant,
            Role::Tool => openai::Role::Tool,
        },
        content: Some(openai::Content::Text(text.collect())),
        name: None,
        tool_calls: None,
        tool_call_id: None,
        function_call: None,
        reasoning_content: None,
        reasoning: None,
        refusal: None,
    }
}

fn wire_parts(chunk: openai::ChatChunk) -> Vec<Part> {
    let mut parts = Vec::new();
    for choice in chunk.choices {
        parts.extend(choice.delta.reasoning_content.or(choice.delta.reasoning).map(Part::Reasoning));
        parts.extend(choice.delta.content.map(Part::Text));
    }
    parts.extend(chunk.usage.flatten().map(|usage| {
        Part::End(Totals {
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.prompt_tokens_details.map_or(0, |details| details.cached_tokens),
            completion_tokens: usage.completion_tokens,
            times: None,
        })
    }));
    // The head of a stream carries an empty text, which is no token yet.
    parts.retain(|part| !matches!(part, Part::Text(text) | Part::Reasoning(text) if text.is_empty()));
    parts
}

#[cfg(test)]
mod tests {
    use super::Totals;
    use std::time::Duration;

    #[test]
    fn totals_are_told_in_one_line() {
        let totals = Totals { prompt_tokens: 40, cached_tokens: 12, completion_tokens: 21, times: None };
        let timed = totals.with_times((Duration::from_millis(250), Duration::from_secs(2)));
        assert_eq!(timed.to_string(), "21 tokens, 10.0 tok/s; prompt of 40 tokens (12 cached) in 0.25 s");
        assert!(Totals::default().to_string().starts_with("0 tokens, 0.0 tok/s"));
    }
}
