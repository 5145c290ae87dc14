//! From the text of a grammar to something that answers can follow.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use ingle_engine::Constraint;
use llguidance::Matcher;
use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};

use crate::composed::{self, Piece};
use crate::expressions;
use crate::formats;
use crate::gbnf::{Gbnf, TextMatch};
use crate::instance;
use crate::matcher::GrammarMatcher;
use crate::places;
use crate::{Environment, GrammarError};

/// Largest grammar that is compiled, in bytes of its text; the largest honest schemas have half a megabyte.
const MAX_BYTES: usize = 2 << 20;

/// White space between the tokens of a JSON text: one blank, or a line end with an indentation of blanks or of tabs. A
/// model that may write any amount of it, or mix the two, sometimes never stops.
const WHITESPACE: &str = r" |\n(?: {0,32}|\t{0,8})";

const NO_TEXT: &str = "no text satisfies it, or it takes too long to find one";

/// White space inside a tool call: calls are written in one line.
pub(crate) const CALL_WHITESPACE: &str = " ";

/// The key under which llguidance takes options out of a schema; a client's schema must not set any.
const OPTIONS_KEY: &str = "x-guidance";

/// What happens with a keyword of a schema that cannot be enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strictness {
    /// The schema is refused.
    Strict,
    /// The answer satisfies the rest of the schema; [`Compiled::unenforced`] tells, and [`Compiled::validate`] looks.
    Lenient,
}

/// A grammar as its user writes it.
#[derive(Debug, Clone, PartialEq)]
pub enum GrammarSource {
    /// JSON that satisfies a schema; properties come in the schema's order.
    JsonSchema {
        /// The schema.
        schema: Value,
        /// Must every keyword be enforced?
        strictness: Strictness,
    },
    /// Any JSON object.
    JsonObject,
    /// A regular expression (Rust's syntax) that the whole answer matches.
    Regex(String),
    /// A grammar in llguidance's dialect of Lark; its rule `start` is the answer.
    Lark(String),
    /// A grammar in llama.cpp's language; its rule `root` is the answer.
    Gbnf(String),
    /// Tool calls: a form put together of texts and schemas.
    Calls {
        /// The form.
        form: Piece,
        /// The schema of each tool's arguments, by the tool's name; what [`Compiled::validate_call`] looks at.
        schemas: Vec<(String, Value)>,
        /// What of the schemas the form leaves out, in words.
        unenforced: Vec<String>,
    },
}

impl GrammarSource {
    /// What it is called in messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::JsonSchema { .. } | Self::JsonObject => "JSON schema",
            Self::Regex(_) => "regular expression",
            Self::Lark(_) => "Lark grammar",
            Self::Gbnf(_) => "GBNF grammar",
            Self::Calls { .. } => "JSON schema of a tool",
        }
    }
}

/// How answers follow a grammar.
enum Engine {
    /// llguidance, as it was at the beginning; each answer gets a copy. The lock is held for that only.
    Guidance(Box<Mutex<Matcher>>),
    Gbnf(Arc<Gbnf>),
}

/// A grammar that answers can follow. Cheap to share.
pub struct Compiled {
    engine: Engine,
    environment: Arc<Environment>,
    unenforced: Vec<String>,
    validator: Option<jsonschema::Validator>,
    /// By the name of a tool.
    call_validators: Vec<(String, jsonschema::Validator)>,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiled").field("unenforced", &self.unenforced).finish_non_exhaustive()
    }
}

impl Compiled {
    /// Compiles a grammar for the model of `environment`. Takes a millisecond for a common schema, up to a second or
    /// two for one of half a megabyte.
    ///
    /// # Errors
    /// [`GrammarError`] for a grammar that is wrong, too large or cannot be enforced.
    pub fn new(environment: &Arc<Environment>, source: &GrammarSource) -> Result<Self, GrammarError> {
        let kind = source.kind();
        let refused = |reason: String| GrammarError::Refused { kind, reason };
        check_size(source)?;
        if let GrammarSource::Gbnf(text) = source {
            return Self::gbnf(environment, text).map_err(refused);
        }
        let compile = || {
            let parser = environment.factory.create_parser(top_level(source, environment)?)?;
            let mut matcher = Matcher::new(Ok(parser));
            // The first mask shows a grammar of which no text is ever complete, and one that costs too much.
            let first = matcher.deep_clone().compute_mask();
            match (matcher.get_error(), first) {
                (Some(error), _) => Err(error.into()),
                (None, Err(_)) => Err(NO_TEXT.into()),
                (None, Ok(mask)) if mask.is_zero() => Err(NO_TEXT.into()),
                (None, Ok(_)) => {
                    let warnings = matcher.grammar_warnings();
                    Ok((matcher, warnings))
                }
            }
        };
        let compiled: Result<Result<_, Box<dyn std::error::Error>>, _> = catch_unwind(AssertUnwindSafe(compile));
        let compiled = compiled.map_err(|_| refused("the compiler has a fault with it; simplify it".into()))?;
        let (matcher, unenforced) = compiled.map_err(|error| {
            let tools: &[(String, Value)] = match source {
                GrammarSource::Calls { schemas, .. } => schemas,
                _ => &[],
            };
            let at_fault = tool_at_fault(environment, tools, &[Strictness::Lenient, Strictness::Strict]);
            refused(at_fault.unwrap_or_else(|| one_line(&located(&error.to_string(), source))))
        })?;
        let validator = match source {
            GrammarSource::JsonSchema { schema, .. } => Some(validator(schema).map_err(refused)?),
            _ => None,
        };
        let left_out: &[String] = match source {
            GrammarSource::Calls { unenforced, .. } => unenforced,
            _ => &[],
        };
        let unenforced =
            left_out.iter().chain(&unenforced).map(|warning| one_line(&located(warning, source))).collect();
        let call_validators = match source {
            GrammarSource::Calls { schemas, .. } => {
                let recursive: Vec<_> =
                    schemas.iter().filter(|(_, schema)| has_reference(schema, 0)).cloned().collect();
                // The first mask of a form is of its marks: arguments without an end show only when they are looked at.
                match tool_at_fault(environment, &recursive, &[Strictness::Lenient]) {
                    Some(reason) => return Err(refused(reason)),
                    None => composed::validators(schemas)?,
                }
            }
            _ => Vec::new(),
        };
        let engine = Engine::Guidance(Box::new(Mutex::new(matcher)));
        Ok(Self { engine, environment: Arc::clone(environment), unenforced, validator, call_validators })
    }

    /// A GBNF grammar whose first mask could be found, so that one which costs too much is refused before the answer.
    fn gbnf(environment: &Arc<Environment>, text: &str) -> Result<Self, String> {
        let gbnf = Arc::new(Gbnf::new(text, environment.named_tokens(), &|text| environment.token(text))?);
        gbnf.start(environment).allowed().map_err(|error| error.reason)?;
        let environment = Arc::clone(environment);
        let (unenforced, call_validators) = (Vec::new(), Vec::new());
        Ok(Self { engine: Engine::Gbnf(gbnf), environment, unenforced, validator: None, call_validators })
    }

    /// The constraint of a new answer.
    pub fn start(&self) -> Box<dyn Constraint> {
        match &self.engine {
            Engine::Gbnf(gbnf) => Box::new(gbnf.start(&self.environment)),
            Engine::Guidance(prototype) => {
                // A copy leaves the prototype as it is, also when it panics.
                let prototype = prototype.lock().unwrap_or_else(PoisonError::into_inner);
                Box::new(GrammarMatcher::new(prototype.deep_clone(), Arc::clone(&self.environment)))
            }
        }
    }

    /// How far a text follows the grammar, whatever the vocabulary. Tokens that a GBNF grammar names are no text.
    pub fn follow(&self, text: &str) -> TextMatch {
        match &self.engine {
            Engine::Gbnf(gbnf) => gbnf.follow(text.as_bytes()),
            Engine::Guidance(prototype) => {
                let prototype = prototype.lock().unwrap_or_else(PoisonError::into_inner);
                follow(&mut prototype.deep_clone(), &self.environment, text.as_bytes())
            }
        }
    }

    /// Masks of all answers that had to be found, not looked up; 0 for grammars that llguidance matches, which does not
    /// count them. For measurements.
    pub fn masks_found(&self) -> u64 {
        match &self.engine {
            Engine::Gbnf(gbnf) => gbnf.n_masks_found(),
            Engine::Guidance(_) => 0,
        }
    }

    /// What of a lenient schema is not enforced, in words that name the keyword; empty when all of it is.
    pub fn unenforced(&self) -> &[String] {
        &self.unenforced
    }

    /// Does a whole answer satisfy all of the schema? `None` for grammars that are no schema.
    pub fn validate(&self, answer: &str) -> Option<bool> {
        let validator = self.validator.as_ref()?;
        Some(instance::parse(answer).is_some_and(|value| validator.is_valid(&value)))
    }

    /// Do the arguments of a call satisfy all of its tool's schema? `None` for a tool without one.
    pub fn validate_call(&self, tool: &str, arguments: &str) -> Option<bool> {
        let (_, validator) = self.call_validators.iter().find(|(name, _)| name == tool)?;
        Some(instance::parse(arguments).is_some_and(|value| validator.is_valid(&value)))
    }
}

/// A reason with the places of the keywords it names.
fn located(reason: &str, source: &GrammarSource) -> String {
    match source {
        GrammarSource::JsonSchema { schema, .. } => places::with_places(reason, schema),
        GrammarSource::Calls { schemas, .. } => {
            // A warning does not say of which tool it is: the first that has the keyword is named.
            let placed = schemas.iter().map(|(name, schema)| (name, places::with_places(reason, schema)));
            let found = placed.into_iter().find(|(_, placed)| placed.contains("` at "));
            found.map_or_else(|| reason.to_owned(), |(name, placed)| format!("{name}: {placed}"))
        }
        _ => reason.to_owned(),
    }
}

/// Does a schema refer to another part of itself?
fn has_reference(schema: &Value, depth: usize) -> bool {
    match schema {
        Value::Object(entries) if depth < formats::MAX_DEPTH => {
            entries.iter().any(|(key, value)| key == "$ref" || has_reference(value, depth + 1))
        }
        Value::Array(items) if depth < formats::MAX_DEPTH => items.iter().any(|item| has_reference(item, depth + 1)),
        _ => false,
    }
}

/// The first of several tools whose schema cannot be enforced, and why.
fn tool_at_fault(
    environment: &Arc<Environment>,
    tools: &[(String, Value)],
    strictnesses: &[Strictness],
) -> Option<String> {
    strictnesses.iter().find_map(|&strictness| {
        tools.iter().find_map(|(name, schema)| {
            let alone = GrammarSource::JsonSchema { schema: schema.clone(), strictness };
            match Compiled::new(environment, &alone) {
                Err(GrammarError::Refused { reason, .. }) => Some(format!("{name}: {reason}")),
                Ok(_) | Err(_) => None,
            }
        })
    })
}

/// As [`Compiled::follow`]. Over a vocabulary of bytes the place is exact, over another it is where a token begins.
fn follow(matcher: &mut Matcher, environment: &Environment, text: &[u8]) -> TextMatch {
    let trie = environment.trie();
    let tokens = trie.greedy_tokenize(text);
    let n_taken = matcher.try_consume_tokens(&tokens).unwrap_or(0);
    if n_taken < tokens.len() {
        return TextMatch::Refused { at: tokens[..n_taken].iter().map(|&token| trie.token_len(token)).sum() };
    }
    match matcher.is_accepting() {
        Ok(true) => TextMatch::Complete,
        _ => TextMatch::Incomplete,
    }
}

fn check_size(source: &GrammarSource) -> Result<(), GrammarError> {
    let bytes = match source {
        GrammarSource::JsonSchema { schema, .. } => schema.to_string().len(),
        GrammarSource::JsonObject => 0,
        GrammarSource::Regex(text) | GrammarSource::Lark(text) | GrammarSource::Gbnf(text) => text.len(),
        GrammarSource::Calls { form, .. } => form.size(),
    };
    match bytes > MAX_BYTES {
        true => Err(GrammarError::TooLarge { kind: source.kind(), bytes, limit: MAX_BYTES }),
        false => Ok(()),
    }
}

fn top_level(source: &GrammarSource, environment: &Environment) -> Result<TopLevelGrammar, Box<dyn std::error::Error>> {
    let any_object = json!({"type": "object"});
    match source {
        GrammarSource::JsonSchema { schema, strictness } => with_options(schema, *strictness),
        GrammarSource::JsonObject => with_options(&any_object, Strictness::Strict),
        GrammarSource::Regex(text) => {
            expressions::check(text)?;
            Ok(TopLevelGrammar::from_regex(text))
        }
        GrammarSource::Lark(text) => {
            expressions::check_lark(text)?;
            Ok(TopLevelGrammar::from_lark(text.clone()))
        }
        GrammarSource::Calls { form, .. } => Ok(TopLevelGrammar::from_lark(composed::lark(form, environment)?)),
        GrammarSource::Gbnf(_) => Err("GBNF is not matched by llguidance".into()),
    }
}

fn with_options(schema: &Value, strictness: Strictness) -> Result<TopLevelGrammar, Box<dyn std::error::Error>> {
    Ok(TopLevelGrammar::from_json_schema(schema_with_options(schema, strictness, WHITESPACE)?))
}

/// The schema as llguidance takes it: formats narrowed, white space bounded.
pub(crate) fn schema_with_options(
    schema: &Value,
    strictness: Strictness,
    whitespace: &str,
) -> Result<Value, Box<dyn std::error::Error>> {
    let mut schema = match schema {
        Value::Bool(true) => json!({}),
        Value::Bool(false) => return Err("the schema `false` allows nothing".into()),
        other => other.clone(),
    };
    formats::narrow(&mut schema, 0)?;
    let object = schema.as_object_mut().ok_or("a schema is an object")?;
    let lenient = strictness == Strictness::Lenient;
    object.insert(OPTIONS_KEY.into(), json!({"whitespace_pattern": whitespace, "lenient": lenient}));
    Ok(schema)
}

/// Checks whole answers; knows nothing outside the schema itself.
pub(crate) fn validator(schema: &Value) -> Result<jsonschema::Validator, String> {
    jsonschema::options().build(schema).map_err(|error| {
        let path = error.instance_path().to_string();
        let place = if path.is_empty() { "its top".to_owned() } else { path };
        one_line(&format!("it is not a valid schema at {place}: {error}"))
    })
}

/// A message for a header or an error: no line ends, not endless.
fn one_line(text: &str) -> String {
    const MOST: usize = 500;
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > MOST {
        let end = (0..=MOST).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    line
}
