//! The two request bodies that generate text, and the fields they share.
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize as DeriveDeserialize, Serialize};
use serde_json::{Map, Value};
use serde_with::skip_serializing_none;

use super::chat::{ChatMessage, FunctionDefinition, Tool};
use super::choice::{FunctionCallChoice, ResponseFormat, ToolChoice};
use super::completion::Prompt;
use crate::lenient::integer;

/// One string or a list of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "StopSchema"))]
#[serde(transparent)]
pub struct StopSequences(pub Vec<String>);

#[cfg(feature = "schema")]
#[derive(schemars::JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code)]
enum StopSchema {
    One(String),
    Many(Vec<String>),
}

impl<'de> Deserialize<'de> for StopSequences {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StopVisitor)
    }
}

struct StopVisitor;

impl<'de> Visitor<'de> for StopVisitor {
    type Value = StopSequences;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<StopSequences, E> {
        Ok(StopSequences(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<StopSequences, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = seq.next_element()? {
            texts.push(text);
        }
        Ok(StopSequences(texts))
    }
}

/// Log probabilities wanted: yes or no (chat), or how many alternatives a token (completions).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected a boolean or an integer")]
pub enum LogprobsRequest {
    /// Yes or no.
    Flag(bool),
    /// How many alternatives to list.
    Count(i64),
}

/// What is added to the logits of tokens, by token id; the keys are strings in JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct LogitBias(pub BTreeMap<u32, f32>);

impl<'de> Deserialize<'de> for LogitBias {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let by_text = BTreeMap::<String, f32>::deserialize(deserializer)?;
        let pairs = by_text.into_iter().map(|(key, bias)| match key.trim().parse() {
            Ok(token_id) => Ok((token_id, bias)),
            Err(_) => Err(de::Error::custom(format!("key `{}` is not a token id", key.escape_debug()))),
        });
        Ok(Self(pairs.collect::<Result<_, D::Error>>()?))
    }
}

/// What a stream carries besides text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct StreamOptions {
    /// Send the token counts in a last chunk of their own?
    pub include_usage: Option<bool>,
}

/// Defines [`SamplingFields`] and a macro that gives a request the same fields in line, without serde's `flatten`.
macro_rules! sampling_fields {
    ($d:tt
     numbers { $( #[doc = $doc:literal] $(#[serde($($attr:tt)*)])? $field:ident: $kind:ty, )* }
     integers { $( #[doc = $int_doc:literal] $int_field:ident: $int_kind:ty, )* }) => {
        /// The fields that say how tokens are chosen; the same in every request that generates text.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct SamplingFields {
            $( #[doc = $doc] pub $field: Option<$kind>, )*
            $( #[doc = $int_doc] pub $int_field: Option<$int_kind>, )*
        }

        macro_rules! text_request {
            ($d(#[$d meta:meta])* pub struct $d name:ident { $d($d own:tt)* }) => {
                #[skip_serializing_none]
                $d(#[$d meta])*
                #[derive(Debug, Clone, Default, PartialEq, Serialize, DeriveDeserialize)]
                #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
                #[serde(default)]
                pub struct $d name {
                    $d($d own)*
                    $( #[doc = $doc] $(#[serde($($attr)*)])? pub $field: Option<$kind>, )*
                    $( #[doc = $int_doc] #[serde(deserialize_with = "integer")] pub $int_field: Option<$int_kind>, )*
                }

                impl $d name {
                    /// The fields that say how tokens are chosen.
                    pub fn sampling(&self) -> SamplingFields {
                        SamplingFields {
                            $( $field: self.$field.clone(), )*
                            $( $int_field: self.$int_field, )*
                        }
                    }
                }
            };
        }
    };
}

sampling_fields! { $
    numbers {
        /// Strings that end the answer and are not part of it.
        stop: StopSequences,
        /// Divides the logits; 0 always takes the likeliest token.
        temperature: f32,
        /// Keeps the likeliest tokens whose probabilities reach this sum.
        top_p: f32,
        /// Keeps tokens at least this likely, relative to the likeliest.
        min_p: f32,
        /// Keeps tokens whose surprise is close to the expected one.
        typical_p: f32,
        /// Keeps tokens within so many standard deviations of the best logit.
        top_n_sigma: f32,
        /// Chance that the likeliest tokens are left out (XTC).
        xtc_probability: f32,
        /// How likely a token must be for XTC to leave it out.
        xtc_threshold: f32,
        /// Half the range of a temperature that follows the entropy.
        dynatemp_range: f32,
        /// How the temperature follows the entropy.
        dynatemp_exponent: f32,
        /// Divides the logits of tokens seen lately.
        #[serde(alias = "repetition_penalty")]
        repeat_penalty: f32,
        /// Subtracted from the logits of tokens seen lately.
        presence_penalty: f32,
        /// Subtracted once for each time a token was seen lately.
        frequency_penalty: f32,
        /// Strength of the penalty on repeated sequences (DRY); 0 is off.
        dry_multiplier: f32,
        /// Base of DRY's growth with the length of a repetition.
        dry_base: f32,
        /// Strings at which DRY's memory of a sequence ends.
        dry_sequence_breakers: Vec<String>,
        /// Mirostat's wanted surprise.
        mirostat_tau: f32,
        /// Mirostat's learning rate.
        mirostat_eta: f32,
        /// Added to logits, by token id.
        logit_bias: LogitBias,
        /// Go on past the end of the answer?
        ignore_eos: bool,
        /// May a cached prefix be used, and left behind for others?
        cache_prompt: bool,
        /// A GBNF grammar that the answer must satisfy.
        grammar: String,
        /// Functions as a JSON Schema, one of which the answer must call (LocalAI).
        grammar_json_functions: Value,
        /// JSON Schema that the answer must satisfy (llama.cpp).
        json_schema: Value,
        /// A regular expression that the whole answer must match.
        regex: String,
        /// A Lark grammar that the answer must satisfy.
        lark: String,
        /// What form the answer must have.
        response_format: ResponseFormat,
    }
    integers {
        /// How many tokens may be generated; 0 and −1 mean no limit.
        max_tokens: i64,
        /// Keeps so many of the likeliest tokens; 0 keeps all.
        top_k: i64,
        /// How many tokens a filter leaves at least.
        min_keep: i64,
        /// How far back the penalties look, in tokens; −1 is the whole context.
        repeat_last_n: i64,
        /// The longest repetition that DRY lets pass, in tokens.
        dry_allowed_length: i64,
        /// How far back DRY looks, in tokens; −1 is the whole context.
        dry_penalty_last_n: i64,
        /// Mirostat's version; 0 is off.
        mirostat: i64,
        /// Equal seeds give equal answers; −1 is a new one each time.
        seed: i64,
        /// Tokens at the beginning that a context shift keeps.
        n_keep: i64,
        /// How many answers to give.
        n: i64,
    }
}

text_request! {
    /// The body of `POST /v1/chat/completions`.
    pub struct ChatRequest {
        /// Which model answers; absent, the server's first one that can.
        pub model: Option<String>,
        /// The conversation so far.
        pub messages: Vec<ChatMessage>,
        /// Answer in a stream of events?
        pub stream: Option<bool>,
        /// What the stream carries besides text.
        pub stream_options: Option<StreamOptions>,
        /// The newer name of `max_tokens`, which it overrides.
        #[serde(deserialize_with = "integer")]
        pub max_completion_tokens: Option<i64>,
        /// Log probabilities of the tokens?
        pub logprobs: Option<LogprobsRequest>,
        /// How many alternatives to list for each token.
        #[serde(deserialize_with = "integer")]
        pub top_logprobs: Option<i64>,
        /// What the model may call.
        pub tools: Option<Vec<Tool>>,
        /// May, must or must not it call something?
        pub tool_choice: Option<ToolChoice>,
        /// May it call several at once?
        pub parallel_tool_calls: Option<bool>,
        /// What the model may call, in the old form.
        pub functions: Option<Vec<FunctionDefinition>>,
        /// May, must or must not it call something, in the old form?
        pub function_call: Option<FunctionCallChoice>,
        /// How hard to think: `none`, `minimal`, `low`, `medium`, `high`.
        pub reasoning_effort: Option<String>,
        /// Variables for the model's chat template.
        pub chat_template_kwargs: Option<Map<String, Value>>,
        /// Labels of the caller; LocalAI hands them to the chat template too.
        pub metadata: Option<Map<String, Value>>,
        /// End the prompt with the opening of an answer? Absent: yes.
        pub add_generation_prompt: Option<bool>,
        /// Go on with the last message instead of answering it? Absent: no.
        pub continue_final_message: Option<bool>,
    }
}

text_request! {
    /// The body of `POST /v1/completions`.
    pub struct CompletionRequest {
        /// Which model answers; absent, the server's first one that can.
        pub model: Option<String>,
        /// What to go on from.
        pub prompt: Option<Prompt>,
        /// Text that comes after the answer; not every model can use it.
        pub suffix: Option<String>,
        /// Begin the answer with the prompt?
        pub echo: Option<bool>,
        /// Answer in a stream of events?
        pub stream: Option<bool>,
        /// What the stream carries besides text.
        pub stream_options: Option<StreamOptions>,
        /// The newer name of `max_tokens`, which it overrides.
        #[serde(deserialize_with = "integer")]
        pub max_completion_tokens: Option<i64>,
        /// Log probabilities of the tokens, with so many alternatives?
        pub logprobs: Option<LogprobsRequest>,
        /// How many answers to make, of which the best is given.
        #[serde(deserialize_with = "integer")]
        pub best_of: Option<i64>,
    }
}

text_request! {
    /// The body of `POST /v1/edits`.
    pub struct EditRequest {
        /// Which model answers; absent, the server's first one that can.
        pub model: Option<String>,
        /// The text to change, or several.
        pub input: Option<Prompt>,
        /// What to do with it.
        pub instruction: Option<String>,
    }
}
