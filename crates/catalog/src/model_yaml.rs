//! What a model's YAML says, key by key, in LocalAI's names and with nothing interpreted. `config` makes sense of it.

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// One model configuration as written. Unknown keys are reported by the reader, not held here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ModelYaml {
    /// Public id.
    pub name: Option<Text>,
    /// This entry only points to another model.
    pub alias: Option<Text>,
    /// Backend name, possibly an old one.
    pub backend: Option<Text>,
    /// For people.
    pub description: Option<Text>,
    /// For people.
    pub usage: Option<Text>,
    /// Defaults of requests, and the model file.
    pub parameters: Option<ParametersYaml>,
    /// Prompt templates.
    pub template: Option<TemplateYaml>,
    /// Role to text prefix, for chat without a template.
    pub roles: Option<BTreeMap<String, Text>>,
    /// Used when a conversation brings none.
    pub system_prompt: Option<Text>,
    /// Cells of the context; -1 is the trained length.
    pub context_size: Option<Whole>,
    /// Compute threads; 0 is automatic.
    pub threads: Option<Whole>,
    /// Map the file instead of reading it.
    pub mmap: Option<Flag>,
    /// Keep the file in memory.
    pub mmlock: Option<Flag>,
    /// Layers on the GPU; -1 is all.
    pub gpu_layers: Option<Whole>,
    /// GPU index.
    pub main_gpu: Option<Text>,
    /// Share of each GPU.
    pub tensor_split: Option<Text>,
    /// Stop strings.
    pub stopwords: Option<Vec<Text>>,
    /// Regular expressions, removed from the output.
    pub cutstrings: Option<Vec<Text>>,
    /// Regular expressions, kept from the output.
    pub extract_regex: Option<Vec<Text>>,
    /// Prefixes to trim.
    pub trimspace: Option<Vec<Text>>,
    /// Suffixes to trim.
    pub trimsuffix: Option<Vec<Text>>,
    /// 0, 1 or 2.
    pub mirostat: Option<Whole>,
    /// Learning rate.
    pub mirostat_eta: Option<Real>,
    /// Target entropy.
    pub mirostat_tau: Option<Real>,
    /// `on`, `off` or `auto`.
    pub flash_attention: Option<Text>,
    /// Type of the keys in the cache.
    pub cache_type_k: Option<Text>,
    /// Type of the values in the cache.
    pub cache_type_v: Option<Text>,
    /// Default grammar (GBNF).
    pub grammar: Option<Text>,
    /// A file in the models folder with the default grammar.
    pub grammar_file: Option<Text>,
    /// Tool calls.
    pub function: Option<FunctionYaml>,
    /// `key:value` for the backend.
    pub options: Option<Vec<Text>>,
    /// Usecase words.
    pub known_usecases: Option<Vec<Text>>,
    /// Embedding mode.
    pub embeddings: Option<Flag>,
    /// Rerank pooling.
    pub reranking: Option<Flag>,
    /// Speech.
    pub tts: Option<TtsYaml>,
    /// Vision projector file.
    pub mmproj: Option<Text>,
    /// Draft model file.
    pub draft_model: Option<Text>,
    /// Tokens that the draft model proposes at a time at most.
    pub n_draft: Option<Whole>,
    /// Refused when asked for.
    pub disabled: Option<Flag>,
    /// Never evicted.
    pub pinned: Option<Flag>,
    /// How reasoning is found and whether it is shown.
    pub reasoning: Option<ReasoningYaml>,
    /// Effort of requests that name none.
    pub reasoning_effort: Option<Text>,
    /// Variables of the chat template.
    pub chat_template_kwargs: Option<BTreeMap<String, Value>>,
    /// `text`, `image`, `audio`, `video`.
    pub known_input_modalities: Option<Vec<Text>>,
    /// `text`, `image`, `audio`, `video`.
    pub known_output_modalities: Option<Vec<Text>>,
    /// Files that are fetched when the program starts.
    pub download_files: Option<Vec<DownloadYaml>>,
    /// Models of one group are not in memory together.
    pub concurrency_groups: Option<Vec<Text>>,
    /// Requests at once.
    pub limits: Option<LimitsYaml>,
    /// One adapter file.
    pub lora_adapter: Option<Text>,
    /// Its weight.
    pub lora_scale: Option<Real>,
    /// Adapter files.
    pub lora_adapters: Option<Vec<Text>>,
    /// Their weights.
    pub lora_scales: Option<Vec<Real>>,
    /// `none`, `linear` or `yarn`.
    pub rope_scaling: Option<Text>,
    /// YaRN's extrapolation mix.
    pub yarn_ext_factor: Option<Real>,
    /// YaRN's attention factor.
    pub yarn_attn_factor: Option<Real>,
    /// YaRN's low correction dimension.
    pub yarn_beta_fast: Option<Real>,
    /// YaRN's high correction dimension.
    pub yarn_beta_slow: Option<Real>,
    /// The key/value cache stays in main memory.
    pub no_kv_offloading: Option<Flag>,
    /// `key=type:value`, in place of what the GGUF header says.
    pub overrides: Option<Vec<Text>>,
}

/// The `reasoning:` mapping.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ReasoningYaml {
    /// The template is told not to think.
    pub disable: Option<Flag>,
    /// Reasoning is taken out of the answer and not shown.
    pub strip_reasoning_only: Option<Flag>,
    /// What opens a reasoning that a prompt may end with.
    pub thinking_start_tokens: Option<Vec<Text>>,
    /// What opens and closes a reasoning.
    pub tag_pairs: Option<Vec<TagPairYaml>>,
}

/// What opens and closes a reasoning.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TagPairYaml {
    /// Opens.
    pub start: Option<Text>,
    /// Closes.
    pub end: Option<Text>,
}

/// A file that is fetched when the program starts.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DownloadYaml {
    /// Inside the models folder.
    pub filename: Option<Text>,
    /// Where from.
    pub uri: Option<Text>,
    /// 64 hex digits.
    pub sha256: Option<Text>,
}

/// The `limits:` mapping.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LimitsYaml {
    /// Requests at once; others are answered 503.
    pub max_concurrent: Option<Whole>,
    /// What these are told to wait.
    pub retry_after_seconds: Option<Whole>,
}

/// The `parameters:` mapping.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ParametersYaml {
    /// File in the models folder, or a URI.
    pub model: Option<Text>,
    /// 0 is greedy.
    pub temperature: Option<Real>,
    /// Nucleus.
    pub top_p: Option<Real>,
    /// 0 is off.
    pub top_k: Option<Whole>,
    /// Relative floor.
    pub min_p: Option<Real>,
    /// Locally typical mass.
    pub typical_p: Option<Real>,
    /// 0 is no limit.
    pub max_tokens: Option<Whole>,
    /// 1 is off.
    pub repeat_penalty: Option<Real>,
    /// -1 is the whole context.
    pub repeat_last_n: Option<Whole>,
    /// OpenAI's.
    pub presence_penalty: Option<Real>,
    /// OpenAI's.
    pub frequency_penalty: Option<Real>,
    /// -1 is random.
    pub seed: Option<Whole>,
    /// Go on after the end token.
    pub ignore_eos: Option<Flag>,
    /// Tokens kept when the context shifts; -1 is all.
    pub n_keep: Option<Whole>,
    /// Choices.
    pub n: Option<Whole>,
    /// Repeat the prompt in the answer.
    pub echo: Option<Flag>,
    /// Tokens of one decode call.
    pub batch: Option<Whole>,
    /// Base of the rotation.
    pub rope_freq_base: Option<Real>,
    /// Scale of the rotation.
    pub rope_freq_scale: Option<Real>,
    /// Token to bias.
    pub logit_bias: Option<BTreeMap<String, Real>>,
    /// `float` or `base64`, for embeddings.
    pub encoding_format: Option<Text>,
    /// How the pieces of a long text become one vector.
    pub pooling: Option<Text>,
    /// Tokens over which a piece's weight halves.
    pub pooling_half_life_tokens: Option<Whole>,
    /// Language of speech.
    pub language: Option<Text>,
    /// Write speech in English.
    pub translate: Option<Flag>,
    /// The speaker.
    pub voice: Option<Text>,
}

/// The `tts:` mapping.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TtsYaml {
    /// The speaker.
    pub voice: Option<Text>,
}

/// The `template:` mapping; the texts are kept as they are.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TemplateYaml {
    /// Around all messages.
    pub chat: Option<Text>,
    /// For one message.
    pub chat_message: Option<Text>,
    /// For `/completions`.
    pub completion: Option<Text>,
    /// For `/edits`.
    pub edit: Option<Text>,
    /// In place of `chat` with tools.
    pub function: Option<Text>,
    /// The model's own Jinja template.
    pub use_tokenizer_template: Option<Flag>,
    /// Between messages.
    pub join_chat_messages_by_character: Option<Text>,
    /// In front of the answer.
    pub reply_prefix: Option<Text>,
}

/// The `function:` mapping: how tool calls are found in an answer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct FunctionYaml {
    /// Key of the name in JSON calls.
    pub function_name_key: Option<Text>,
    /// Key of the arguments in JSON calls.
    pub function_arguments_key: Option<Text>,
    /// Expressions with the groups `name` and `arguments`.
    pub response_regex: Option<Vec<Text>>,
    /// Expressions whose first group is a JSON call.
    pub json_regex_match: Option<Vec<Text>>,
    /// Expressions that find one argument each.
    pub argument_regex: Option<Vec<Text>>,
    /// Group of an argument's name.
    pub argument_regex_key_name: Option<Text>,
    /// Group of an argument's value.
    pub argument_regex_value_name: Option<Text>,
    /// Replacements before calls are looked for.
    pub replace_function_results: Option<Vec<ReplacementYaml>>,
    /// Replacements in text without calls.
    pub replace_llm_results: Option<Vec<ReplacementYaml>>,
    /// Expressions whose first group is text beside calls.
    pub capture_llm_results: Option<Vec<Text>>,
    /// What answers are held to.
    pub grammar: Option<FunctionGrammarYaml>,
}

/// A regular expression and what takes the place of its matches.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ReplacementYaml {
    /// The expression.
    pub key: Option<Text>,
    /// The replacement; `$1` is the first group.
    pub value: Option<Text>,
}

/// The `function.grammar:` mapping.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct FunctionGrammarYaml {
    /// Free answers are not held to the form of calls.
    pub disable: Option<Flag>,
    /// Several calls in an answer.
    pub parallel_calls: Option<Flag>,
    /// Text before the JSON of a call.
    pub prefix: Option<Text>,
}

/// A string; a number or truth value that someone left unquoted is taken as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(pub String);

/// A truth value; `yes`, `no`, `on`, `off`, 0, 1 and quoted forms are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag(pub bool);

/// An integer; a quoted one and a fraction of zero are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole(pub i64);

/// A finite number; a quoted one is understood.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Real(pub f64);

/// Reads a scalar of any YAML type through its text.
struct ScalarVisitor<T> {
    expected: &'static str,
    read: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for ScalarVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<T, E> {
        (self.read)(value).ok_or_else(|| E::invalid_type(de::Unexpected::Str(value), &self))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
        let text = if value { "true" } else { "false" };
        (self.read)(text).ok_or_else(|| E::invalid_type(de::Unexpected::Bool(value), &self))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        (self.read)(&value.to_string()).ok_or_else(|| E::invalid_type(de::Unexpected::Signed(value), &self))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
        (self.read)(&value.to_string()).ok_or_else(|| E::invalid_type(de::Unexpected::Unsigned(value), &self))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<T, E> {
        (self.read)(&value.to_string()).ok_or_else(|| E::invalid_type(de::Unexpected::Float(value), &self))
    }
}

macro_rules! scalar {
    ($name:ident, $expected:literal, $read:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(ScalarVisitor { expected: $expected, read: $read })
            }
        }
    };
}

scalar!(Text, "a text", |text| Some(Self(text.to_owned())));
scalar!(Flag, "true or false", |text| read_flag(text).map(Self));
scalar!(Whole, "an integer", |text| read_whole(text).map(Self));
scalar!(Real, "a finite number", |text| text.trim().parse().ok().filter(|value: &f64| value.is_finite()).map(Self));

pub(crate) fn read_flag(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" | "enabled" => Some(true),
        "false" | "no" | "off" | "0" | "disabled" => Some(false),
        _ => None,
    }
}

fn read_whole(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(value) = text.parse() {
        return Some(value);
    }
    let real: f64 = text.parse().ok()?;
    // 2^53: above it a float cannot tell neighbouring integers apart.
    (real.fract() == 0.0 && real.abs() < 9_007_199_254_740_992.0).then_some(real as i64)
}
