//! Whisper's weights, read from whichever form they come in, one tensor at a time.
//!
//! All readers answer to the names of Hugging Face's `transformers` without `model.` in front, such as
//! `encoder.layers.0.self_attn.q_proj.weight`.

mod ctranslate2;
mod ggml;
mod safetensors;

use std::path::{Path, PathBuf};

use candle_core::Tensor;

use super::vocabulary::Vocabulary;

/// Why a model's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file is missing or cannot be read.
    #[error("{path} cannot be read: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{path} is not valid: {reason}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor that Whisper needs is not there.
    #[error("tensor {name} is missing; is this a Whisper model?")]
    Missing {
        /// Its name, as Hugging Face spells it.
        name: String,
    },
    /// None of the known forms.
    #[error(
        "{path} is no Whisper model: it must be a whisper.cpp file (ggml-*.bin), or a folder with model.safetensors and \
         tokenizer.json or vocab.json, or a folder with CTranslate2's model.bin and vocabulary",
        path = path.display()
    )]
    Unknown {
        /// The file or folder.
        path: PathBuf,
    },
    /// Shapes that do not fit each other.
    #[error("the weights do not fit each other: {0}")]
    Shapes(#[from] candle_core::Error),
}

/// One model's files, opened.
pub struct ModelFiles {
    /// The tensors.
    pub weights: Box<dyn Weights>,
    /// Words of the text decoder.
    pub vocabulary: Vocabulary,
    /// Heads of each attention, where a file tells.
    pub n_heads: Option<usize>,
    /// `(layer, head)` of the decoder whose cross attention follows the words, where a file tells.
    pub alignment_heads: Option<Vec<(usize, usize)>>,
    /// The mel filters `[n_mels, n_bins]`, where a file has its own.
    pub mel_filters: Option<Vec<f32>>,
    /// Bytes of the tensors on disk.
    pub n_bytes: u64,
}

/// Something that tensors can be read from. Tensors are f32, on the CPU.
pub trait Weights {
    /// Whether there is a tensor of this name.
    fn has(&self, name: &str) -> bool;

    /// Reads a tensor.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    fn read(&mut self, name: &str) -> Result<Tensor, WeightsError>;
}

impl ModelFiles {
    /// Whether a folder has files that [`ModelFiles::open`] would open.
    pub fn are_in(folder: &Path) -> bool {
        ["model.bin", "model.safetensors", "model.safetensors.index.json"]
            .iter()
            .any(|name| folder.join(name).is_file())
    }

    /// Opens the model at `path`: a file of whisper.cpp or a folder of Hugging Face's or CTranslate2's.
    ///
    /// # Errors
    /// When the form is unknown or a file is not valid.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        if path.is_file() {
            return match path.file_name().and_then(|name| name.to_str()) {
                Some("model.safetensors") => safetensors::open(parent(path)),
                Some("model.bin") => ctranslate2::open(parent(path)),
                _ => ggml::open(path),
            };
        }
        if path.join("model.bin").is_file() {
            return ctranslate2::open(path);
        }
        if path.join("model.safetensors").is_file() || path.join("model.safetensors.index.json").is_file() {
            return safetensors::open(path);
        }
        if !path.exists() {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(WeightsError::Io { path: path.to_owned(), source });
        }
        Err(WeightsError::Unknown { path: path.to_owned() })
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

fn io_error(path: &Path) -> impl Fn(std::io::Error) -> WeightsError + '_ {
    |source| WeightsError::Io { path: path.to_owned(), source }
}

fn invalid(path: &Path, reason: impl Into<String>) -> WeightsError {
    WeightsError::Invalid { path: path.to_owned(), reason: reason.into() }
}

/// `[[layer, head], ...]` of a configuration.
fn alignment_heads(config: &serde_json::Value) -> Option<Vec<(usize, usize)>> {
    let pairs = config.get("alignment_heads")?.as_array()?;
    let number = |pair: &serde_json::Value, at: usize| Some(pair.get(at)?.as_u64()? as usize);
    pairs.iter().map(|pair| Some((number(pair, 0)?, number(pair, 1)?))).collect()
}

fn read_json(path: &Path) -> Result<serde_json::Value, WeightsError> {
    let text = std::fs::read(path).map_err(io_error(path))?;
    serde_json::from_slice(&text).map_err(|error| invalid(path, error.to_string()))
}

/// Little-endian numbers as f32.
fn floats(bytes: &[u8], kind: NumberKind) -> Vec<f32> {
    let pairs = || bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    match kind {
        NumberKind::F32 => {
            bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
        }
        NumberKind::F16 => pairs().map(|pair| half::f16::from_le_bytes(pair).to_f32()).collect(),
        NumberKind::Bf16 => pairs().map(|pair| half::bf16::from_le_bytes(pair).to_f32()).collect(),
        NumberKind::I8 => bytes.iter().map(|&byte| f32::from(byte as i8)).collect(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NumberKind {
    F32,
    F16,
    Bf16,
    I8,
}

impl NumberKind {
    fn n_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::I8 => 1,
        }
    }
}

/// A file that numbers are read from in order, with a check that lengths in it do not reach behind its end.
struct Reader {
    path: PathBuf,
    file: std::io::BufReader<std::fs::File>,
    position: u64,
    len: u64,
}

impl Reader {
    fn open(path: &Path) -> Result<Self, WeightsError> {
        let file = std::fs::File::open(path).map_err(io_error(path))?;
        let len = file.metadata().map_err(io_error(path))?.len();
        Ok(Self { path: path.to_owned(), file: std::io::BufReader::new(file), position: 0, len })
    }

    fn bytes(&mut self, n_bytes: u64) -> Result<Vec<u8>, WeightsError> {
        self.check(n_bytes)?;
        let mut bytes = vec![0; n_bytes as usize];
        std::io::Read::read_exact(&mut self.file, &mut bytes).map_err(io_error(&self.path))?;
        self.position += n_bytes;
        Ok(bytes)
    }

    fn skip(&mut self, n_bytes: u64) -> Result<(), WeightsError> {
        self.check(n_bytes)?;
        self.seek(self.position + n_bytes)
    }

    fn seek(&mut self, position: u64) -> Result<(), WeightsError> {
        let by = position as i64 - self.position as i64;
        self.file.seek_relative(by).map_err(io_error(&self.path))?;
        self.position = position;
        Ok(())
    }

    fn check(&self, n_bytes: u64) -> Result<(), WeightsError> {
        if n_bytes > self.len - self.position {
            let left = self.len - self.position;
            return Err(invalid(&self.path, format!("{n_bytes} bytes are announced where {left} are left: cut off?")));
        }
        Ok(())
    }

    fn u8(&mut self) -> Result<u8, WeightsError> {
        Ok(self.bytes(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, WeightsError> {
        let bytes = self.bytes(2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, WeightsError> {
        let bytes = self.bytes(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

#[cfg(test)]
mod tests;
