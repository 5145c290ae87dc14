//! The vocabulary of inference: what a loaded model is, and how one is driven for many clients at once.
//!
//! The crate holds the traits a backend implements ([`Backend`], [`Decoder`], [`Tokenizer`]), the pure batching
//! [`scheduler`] with its prefix cache, the [`sampling`] chain, and the owning engine thread whose receiving end is a
//! [`Generation`]. It deliberately knows no FFI, no files, no HTTP and no JSON, so everything here is tested against a
//! decoder made of arithmetic (feature `fake`).
#![forbid(unsafe_code)]

mod backend;
mod batch;
mod constraint;
mod decoder;
mod encoder;
mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod gate;
mod hardware;
mod languages;
pub mod sampling;
pub mod scheduler;
mod segment;
mod speech;
mod text;
mod token;

pub use backend::{
    Backend, CacheType, ContextOverflow, DraftOptions, EmbedOptions, Engine, FlashAttention, GpuLayers, LoadOptions,
    Lora, MemoryEstimate, Pooling, Precision, RopeScaling, Speculation, SpeechOptions, SplitMode, Task, Yarn,
};
pub use batch::{Answered, BatchConfig, BatchHandle, BatchModel, BatchStats, BatchThread, Cost, Interrupt, Pending};
pub use constraint::{Allowed, Constraint, ConstraintError, ConstraintHandle, TokenMask};
pub use decoder::{BatchToken, CacheRefused, DecodeError, Decoder, DecoderLimits, PrefixSharing, RowWork, SeqId};
pub use encoder::{Dimensions, EmbedInfo, EmbedModel, Encoded, RerankModel, Sequence, TextEncoder};
pub use error::EngineError;
pub use gate::Seat;
pub use hardware::{Device, DeviceKind, DeviceLoad, Hardware};
pub use languages::{LANGUAGES, find_language, has_spaces};
pub use segment::{Segment, SpecialTokens};
pub use speech::{
    HEARING_RATE, HeardSegment, HeardWindow, HeardWord, HearingInfo, HearingOptions, HearingTask, HearingWindow,
    SpeakInfo, SpeakModel, SpokenText, TranscribeModel, VoiceActivity, VoiceChunk, VoiceInfo, VoiceModel,
};
pub use text::{
    AnswerToken, BlockingGeneration, Completion, ControlTokens, Draft, DraftConfig, EndOfGeneration, FaultReporter,
    FinishReason, Generation, GenerationEvent, GenerationRequest, Health, Piece, PrefixReuse, TextConfig, TextModel,
    TextStats, Timings, Usage,
};
pub use token::{Surround, TokenId, TokenKind, Tokenizer};
