//! Plain completions: the prompt's forms, and the answers.
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize as DeriveDeserialize, Serialize};
use serde_with::skip_serializing_none;

use super::logprobs::CompletionLogprobs;
use super::response::{FinishReason, FormReport};
use super::usage::Usage;

/// What to complete: text or the model's own token ids, one prompt or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Prompt {
    /// One text.
    Text(String),
    /// Several texts; an empty list is this form.
    Texts(Vec<String>),
    /// One list of token ids.
    Tokens(Vec<u32>),
    /// Several lists of token ids.
    TokenLists(Vec<Vec<u32>>),
}

impl Prompt {
    fn push<E: de::Error>(&mut self, element: PromptElement) -> Result<(), E> {
        match (self, element) {
            (Self::Texts(texts), PromptElement::Text(text)) => texts.push(text),
            (Self::Tokens(tokens), PromptElement::Token(token)) => tokens.push(token),
            (Self::TokenLists(lists), PromptElement::Tokens(tokens)) => lists.push(tokens),
            _ => return Err(E::custom("a list must hold only strings, only token ids or only lists of token ids")),
        }
        Ok(())
    }
}

impl From<PromptElement> for Prompt {
    fn from(first: PromptElement) -> Self {
        match first {
            PromptElement::Text(text) => Self::Texts(vec![text]),
            PromptElement::Token(token) => Self::Tokens(vec![token]),
            PromptElement::Tokens(tokens) => Self::TokenLists(vec![tokens]),
        }
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PromptVisitor)
    }
}

struct PromptVisitor;

impl<'de> Visitor<'de> for PromptVisitor {
    type Value = Prompt;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a list of strings, a list of token ids or a list of such lists")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Prompt, E> {
        Ok(Prompt::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompt, A::Error> {
        let Some(first) = seq.next_element::<PromptElement>()? else {
            return Ok(Prompt::Texts(Vec::new()));
        };
        let mut prompt = Prompt::from(first);
        while let Some(element) = seq.next_element()? {
            prompt.push(element)?;
        }
        Ok(prompt)
    }
}

enum PromptElement {
    Text(String),
    Token(u32),
    Tokens(Vec<u32>),
}

impl<'de> Deserialize<'de> for PromptElement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ElementVisitor)
    }
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = PromptElement;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a token id or a list of token ids")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PromptElement, E> {
        Ok(PromptElement::Text(text.to_owned()))
    }

    fn visit_u64<E: de::Error>(self, token: u64) -> Result<PromptElement, E> {
        let token = u32::try_from(token).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(token), &self))?;
        Ok(PromptElement::Token(token))
    }

    fn visit_f64<E: de::Error>(self, token: f64) -> Result<PromptElement, E> {
        if token.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&token) {
            Ok(PromptElement::Token(token as u32))
        } else {
            Err(E::invalid_value(de::Unexpected::Float(token), &self))
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<PromptElement, A::Error> {
        let mut tokens = Vec::new();
        while let Some(token) = seq.next_element()? {
            tokens.push(token);
        }
        Ok(PromptElement::Tokens(tokens))
    }
}

/// The answer of `POST /v1/completions`.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, DeriveDeserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Completion {
    /// `cmpl-` and something unique.
    pub id: String,
    /// Always `text_completion`.
    pub object: String,
    /// When the request came, in Unix seconds.
    pub created: u64,
    /// The model's name, as the request gave it.
    pub model: String,
    /// The answers: `n` for each prompt, in the order of the prompts.
    pub choices: Vec<CompletionChoice>,
    /// What it cost.
    pub usage: Option<Usage>,
    /// Names the model's state on this server.
    pub system_fingerprint: Option<String>,
    /// What this server adds: only where a lenient schema could not be enforced as a whole.
    #[serde(default)]
    pub ingle: Option<FormReport>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, DeriveDeserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CompletionChoice {
    /// Its place among the answers.
    pub index: u32,
    /// What was generated, after the prompt when `echo` asked for it.
    pub text: String,
    /// Log probabilities, when asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// Why it ended.
    pub finish_reason: Option<FinishReason>,
}

/// One frame of a streamed completion.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, DeriveDeserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CompletionChunk {
    /// The same in every frame.
    pub id: String,
    /// Always `text_completion`.
    pub object: String,
    /// The same in every frame.
    pub created: u64,
    /// The same in every frame.
    pub model: String,
    /// One piece of one answer; none in the frame that carries the usage.
    pub choices: Vec<CompletionChunkChoice>,
    /// Absent without `include_usage`; with it `null` but in the last frame.
    #[serde(default)]
    pub usage: Option<Option<Usage>>,
    /// In the last piece of an answer: what this server adds where a lenient schema could not be enforced as a whole.
    #[serde(default)]
    pub ingle: Option<FormReport>,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, DeriveDeserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CompletionChunkChoice {
    /// Which answer this belongs to.
    pub index: u32,
    /// What was generated since the last piece.
    pub text: String,
    /// Log probabilities of this piece, when asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// Why the answer ended, in its last piece.
    pub finish_reason: Option<FinishReason>,
}
