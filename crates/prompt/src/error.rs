//! The crate's error.

/// Why a prompt could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// The template source does not parse: the model file or its configured template must change.
    #[error("the chat template does not parse at line {line}: {reason}")]
    Syntax {
        /// One-based line of the template source.
        line: usize,
        /// What was found and what was expected.
        reason: String,
    },
    /// A Go template of the model's configuration does not parse or fails: the configuration must change.
    #[error("`{key}`, a Go template of the model's configuration: {reason}")]
    Go {
        /// The key in the YAML.
        key: &'static str,
        /// What is wrong, with its line where it is known.
        reason: String,
    },
    /// The template itself refused the conversation (`raise_exception`): the messages must change.
    #[error("the chat template refuses this conversation: {message}")]
    Refused {
        /// The template's own words.
        message: String,
    },
    /// The template asked for something its data does not have or cannot do.
    #[error("the chat template failed on this conversation: {reason}")]
    Render {
        /// What failed, in the words of the template language.
        reason: String,
    },
    /// Rendering went over a limit that keeps a hostile template from hanging or filling memory.
    #[error("the chat template went over its limit of {limit} {resource}")]
    Limit {
        /// What ran out: steps, bytes, nesting.
        resource: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A row or an option has the wrong shape.
    #[error("`{field}` must be {expected}")]
    Input {
        /// Which key.
        field: String,
        /// What it has to hold.
        expected: &'static str,
    },
}
