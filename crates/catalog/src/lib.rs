//! Which models exist, how they are configured, and how their files get onto the disk.
//!
//! A models folder holds YAML configurations (LocalAI's keys), bare GGUF files and gallery indexes; [`Catalog`] is the
//! view of it that follows the files. A [`Gallery`] lists what can be installed, and with feature `download` the
//! installer fetches it: hub first, pip last, verified, resumable, into the user's cache with a link in the folder.
//!
//! It deliberately never loads a model, asks about devices or renders a prompt: templates pass through as text.
//! What a YAML says ([`ModelYaml`]) and what it means ([`ModelConfig`]) are two types, so that odd values end here and
//! nobody behind this crate meets a −1. A broken file is a [`Problem`] beside the models, never an error that hides them.

#![forbid(unsafe_code)]

mod config;
mod error;
#[cfg(feature = "download")]
mod fetch;
mod gallery;
#[cfg(feature = "download")]
mod install;
#[cfg(feature = "download")]
mod jobs;
mod keys;
mod model_yaml;
mod names;
#[cfg(feature = "download")]
mod quants;
mod registry;
mod scan;
mod summary;
mod uri;
mod usecase;
mod weights;
mod yaml;

pub use config::{
    Availability, BackendOptions, CANDLE, ContextSize, DownloadFile, EmbedDefaults, FlashAttention, FunctionConfig,
    GpuLayers, HEARING, LLAMA_CPP, Limits, LoadConfig, Mirostat, MirostatVersion, Modalities, ModelConfig,
    OutputConfig, ReasoningConfig, RequestDefaults, Residency, RopeScaling, SILERO_VAD, SPEAKING, SpeechDefaults,
    SplitMode, TemplateConfig, TokenCount, TokenPooling, VectorEncoding, VoiceFilterConfig, WindowPooling, Yarn,
};
pub use error::{Attempt, CatalogError, Retry, meant};
#[cfg(feature = "download")]
pub use fetch::{
    DiskSpace, Event, FetchPolicy, FetchSettings, Fetched, Fetcher, HttpSettings, HubAccess, HubSettings, LocalFiles,
    NoProgress, Outcome, PipSettings, PipUse, Progress, Reach, SpaceProbe, Verification, is_public_address,
};
pub use gallery::{FileSource, Gallery, GalleryEntry, GalleryFile, PipMember, SourcePlace};
#[cfg(feature = "download")]
pub use install::{ConfigOutcome, Installed, InstalledFile, Installer};
#[cfg(feature = "download")]
pub use jobs::{ApplyFile, ApplyRequest, GallerySource, JobBoard, JobStatus, Offer, Phase};
pub use keys::{ENCODER_OPTIONS, HEARING_OPTIONS, KOKORO_OPTIONS, KeyWarning, LLAMA_OPTIONS, MODEL_KEYS, Standing};
pub use model_yaml::{
    DownloadYaml, Flag, FunctionGrammarYaml, FunctionYaml, LimitsYaml, ModelYaml, ParametersYaml, Real, ReasoningYaml,
    ReplacementYaml, TagPairYaml, TemplateYaml, Text, Whole,
};
pub use names::check_model_name;
pub use registry::{Catalog, CatalogOptions, ModelEntry, ModelSource, ModelState, Weights};
pub use scan::Problem;
pub use summary::{MemoryEstimate, ModelSummary};
pub use uri::{FileUri, HubFile, ImageRef, RegistryKind};
pub use usecase::Usecase;

/// The value of one YAML document as JSON.
///
/// # Errors
/// What is wrong and in which line.
pub fn yaml_to_json(text: &str) -> Result<serde_json::Value, String> {
    let node = yaml::parse(text).map_err(|error| format!("line {}: {}", error.line, error.message))?;
    Ok(node.to_json())
}
