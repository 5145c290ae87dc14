//! Prompt text as it reaches a tokenizer.

/// Whether text may be read as control tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpecialTokens {
    /// Spellings of control tokens become these tokens: text that a chat template put there.
    Parse,
    /// The text stays text whatever it spells: everything that came from a client.
    Plain,
}

/// A piece of a prompt with its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The text, byte for byte as it goes into the prompt.
    pub text: String,
    /// May it become control tokens?
    pub special: SpecialTokens,
}

impl Segment {
    /// Text from a template: may become control tokens.
    pub fn parse(text: impl Into<String>) -> Self {
        Self { text: text.into(), special: SpecialTokens::Parse }
    }

    /// Text from a client: never becomes control tokens.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), special: SpecialTokens::Plain }
    }
}
