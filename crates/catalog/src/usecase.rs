//! What a model is good for, in LocalAI's words.

use std::fmt;

macro_rules! usecases {
    ($($variant:ident $word:literal $doc:literal),* $(,)?) => {
        /// One thing a model can be asked to do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Usecase { $(#[doc = $doc] $variant),* }

        impl Usecase {
            /// Every usecase.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word in YAML files.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }
    };
}

usecases! {
    Chat "chat" "Answers a conversation.",
    Completion "completion" "Continues a text.",
    Edit "edit" "Changes a text by instruction.",
    Embeddings "embeddings" "Turns text into vectors.",
    Rerank "rerank" "Orders documents by a query.",
    Tokenize "tokenize" "Splits text into tokens.",
    Vision "vision" "Looks at images.",
    Image "image" "Draws images.",
    Video "video" "Makes videos.",
    Transcript "transcript" "Writes down speech.",
    Tts "tts" "Speaks text.",
    SoundGeneration "sound_generation" "Makes sounds.",
    Vad "vad" "Finds speech in sound.",
    Detection "detection" "Finds objects in images.",
}

impl Usecase {
    /// The usecase that `word` names, in any case; LocalAI's older `FLAG_CHAT` spelling is understood.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let lower = word.trim().to_ascii_lowercase();
        let plain = lower.strip_prefix("flag_").unwrap_or(&lower);
        Self::ALL.iter().copied().find(|usecase| usecase.word() == plain)
    }
}

impl fmt::Display for Usecase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for usecase in Usecase::ALL {
            assert_eq!(Usecase::parse(usecase.word()), Some(*usecase));
            assert_eq!(Usecase::parse(&format!("FLAG_{}", usecase.word().to_uppercase())), Some(*usecase));
        }
        assert_eq!(Usecase::parse("dance"), None);
    }
}
