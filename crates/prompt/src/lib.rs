//! From a conversation to a prompt, and from generated text back to answer and reasoning.
//!
//! Pure: no async, no I/O, no clock, no token ids. What a model's chat template renders is byte for byte what Python's
//! jinja2 renders under Hugging Face's settings.
//!
//! # Control tokens
//!
//! A prompt is text with control tokens in it, and a client must not be able to write one. Searching client strings for
//! spellings before rendering is not enough: a spelling may be put together of two strings, or of a string and the
//! template's own text, and templates legitimately split messages at `</think>`. So the crate renders with its own small
//! interpreter (module `jinja`) whose strings carry the origin of every byte through all operations. A control token
//! reaches the tokenizer as one ([`ingle_engine::SpecialTokens::Parse`]) only if the template, or the operator's
//! `bos_token` and `eos_token`, wrote each of its characters; all other text is plain, whatever it spells. No marker
//! goes into any string, so there is none to forge, and comparisons, lengths and trimming see the client's text as it is.
//! Printed numbers and constants count as the client's too, as they may be its data or be computed from it.
//!
//! # Why not minijinja
//!
//! It was tried and measured. A source with `not `, `+a` or `{% elif %}` 200,000 times overflows the stack and aborts the
//! process, even with fuel set, while a template comes from a downloaded file. Its strings have no place for the origin
//! of a byte. And with filters, methods and printing after Python's put on top of it, 14 of 239 differential cases still
//! came out otherwise than from jinja2; here the cases that differ are named in `testdata/jinja_more_cases.json`.
#![forbid(unsafe_code)]

mod edits;
mod error;
mod fallback;
mod go;
mod jinja;
mod message;
mod probe;
mod reasoning;
mod row;
mod segments;
mod template;
mod tools;
mod variables;

#[cfg(test)]
mod tests;

pub use edits::AnswerEdits;
pub use error::PromptError;
pub use fallback::fallback_for;
pub use go::{GoSources, GoTemplates};
pub use message::{
    ContentPart, Conversation, Message, PromptEnding, Role, TemplateOptions, Tool, ToolArguments, ToolCall,
};
pub use reasoning::{ReasoningFormat, ReasoningTags};
pub use row::render_row;
pub use segments::{ControlTokens, RenderedPrompt};
pub use template::{ChatTemplate, TemplateSupport, TemplateVocabulary};
pub use tools::{
    AnswerDelta, AnswerParser, CallCount, CallForm, CallFormat, CallRuleOptions, CallRules, CallSyntax, CallTrigger,
};
