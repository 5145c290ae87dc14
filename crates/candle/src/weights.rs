//! Safetensors files of a model folder, read tensor by tensor: only what is asked for is in memory.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ingle_engine::EngineError;
use safetensors::Dtype;
use safetensors::tensor::Metadata;

/// Bytes of the number in front of a header.
const LENGTH_BYTES: u64 = 8;

/// No header of a real file is larger; it bounds the memory for a damaged one.
const MAX_HEADER_BYTES: u64 = 64 << 20;

/// An [`EngineError::Load`].
pub(crate) fn load_error(path: &Path, reason: impl Into<String>) -> EngineError {
    EngineError::Load { path: path.display().to_string(), reason: reason.into() }
}

/// Reads a text file of a model; `what` names it in the error.
pub(crate) fn read_text(path: &Path) -> Result<String, EngineError> {
    const MAX_BYTES: u64 = 64 << 20;
    let refused = |error: std::io::Error| load_error(path, error.to_string());
    let file = File::open(path).map_err(refused)?;
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(refused)?;
    Ok(text)
}

/// Reads a JSON file of a model.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, EngineError> {
    serde_json::from_str(&read_text(path)?).map_err(|error| load_error(path, format!("it is no valid JSON: {error}")))
}

/// One file.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// Where the numbers begin.
    data_at: u64,
}

impl Part {
    fn open(path: PathBuf) -> Result<Self, EngineError> {
        let refused = |error: std::io::Error| load_error(&path, error.to_string());
        let mut file = File::open(&path).map_err(refused)?;
        let file_bytes = file.metadata().map_err(refused)?.len();
        let mut length = [0; LENGTH_BYTES as usize];
        file.read_exact(&mut length).map_err(|_| load_error(&path, "it is too short for a safetensors file"))?;
        let header_bytes = u64::from_le_bytes(length);
        if header_bytes > MAX_HEADER_BYTES || header_bytes > file_bytes - LENGTH_BYTES {
            return Err(load_error(&path, format!("its header claims {header_bytes} bytes; the file is damaged")));
        }
        let mut header = vec![0; header_bytes as usize];
        file.read_exact(&mut header).map_err(refused)?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| load_error(&path, format!("its header is not valid: {error}; the file is damaged")))?;
        let data_at = LENGTH_BYTES + header_bytes;
        let expected = data_at + metadata.data_len() as u64;
        if file_bytes != expected {
            let reason = format!("it has {file_bytes} bytes and its header asks for {expected}; download it again");
            return Err(load_error(&path, reason));
        }
        Ok(Self { path, file, metadata, data_at })
    }
}

/// The tensors of a model folder, or of one file.
#[derive(Debug)]
pub(crate) struct Weights {
    parts: Vec<Part>,
    /// Which part has a tensor.
    places: HashMap<String, usize>,
    /// In front of every name that is asked for.
    prefix: String,
}

/// The part of an index file that counts.
#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Opens `model.safetensors`, or the parts that `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// [`EngineError::Load`] naming the file that is missing, cut off or damaged.
    pub(crate) fn open(folder: &Path) -> Result<Self, EngineError> {
        let (single, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
        if single.is_file() || !index.is_file() {
            return Self::of_files(vec![single]);
        }
        let mut names: Vec<String> = read_json::<Index>(&index)?.weight_map.into_values().collect();
        names.sort();
        names.dedup();
        if let Some(name) = names.iter().find(|name| name.contains(['/', '\\']) || name.starts_with('.')) {
            return Err(load_error(&index, format!("{name:?} is no file beside it")));
        }
        Self::of_files(names.into_iter().map(|name| folder.join(name)).collect())
    }

    /// Opens these files.
    pub(crate) fn of_files(paths: Vec<PathBuf>) -> Result<Self, EngineError> {
        let parts: Vec<Part> = paths.into_iter().map(Part::open).collect::<Result<_, _>>()?;
        let mut places = HashMap::new();
        for (idx, part) in parts.iter().enumerate() {
            places.extend(part.metadata.offset_keys().into_iter().map(|name| (name, idx)));
        }
        Ok(Self { parts, places, prefix: String::new() })
    }

    /// From now on names are looked for behind the first of these prefixes under which there is a tensor `probe`.
    ///
    /// # Errors
    /// [`EngineError::Load`] when there is none.
    pub(crate) fn find_prefix(&mut self, prefixes: &[&str], probe: &str) -> Result<(), EngineError> {
        let found = prefixes.iter().find(|prefix| self.places.contains_key(&format!("{prefix}{probe}")));
        match found {
            Some(prefix) => {
                self.prefix = (*prefix).to_owned();
                Ok(())
            }
            None => Err(load_error(self.path(), format!("the tensor {probe} is missing; is it another architecture?"))),
        }
    }

    /// Names count as they are from now on.
    pub(crate) fn clear_prefix(&mut self) {
        self.prefix.clear();
    }

    /// Bytes of all tensors as f32.
    pub(crate) fn bytes_as_f32(&self) -> u64 {
        let numbers =
            self.parts.iter().flat_map(|part| part.metadata.tensors().into_values().cloned().collect::<Vec<_>>());
        numbers.map(|info| 4 * info.shape.iter().map(|&n| n as u64).product::<u64>()).sum()
    }

    fn path(&self) -> &Path {
        self.parts.first().map_or(Path::new("model.safetensors"), |part| &part.path)
    }

    /// Is there such a tensor?
    pub(crate) fn has(&self, name: &str) -> bool {
        self.places.contains_key(&format!("{}{name}", self.prefix))
    }

    /// Its shape.
    pub(crate) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let name = format!("{}{name}", self.prefix);
        let part = &self.parts[*self.places.get(&name)?];
        part.metadata.info(&name).map(|info| info.shape.clone())
    }

    /// The numbers of a tensor of this shape, row-major, as f32.
    ///
    /// # Errors
    /// [`EngineError::Load`] naming the tensor, when it is missing, of another shape or of a type that is no float.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EngineError> {
        let name = format!("{}{name}", self.prefix);
        let Some(&idx) = self.places.get(&name) else {
            return Err(load_error(self.path(), format!("the tensor {name} is missing")));
        };
        let part = &mut self.parts[idx];
        let info = part.metadata.info(&name).cloned();
        let Some(info) = info.filter(|info| info.shape == shape) else {
            let found = part.metadata.info(&name).map(|info| info.shape.clone()).unwrap_or_default();
            let reason = format!("the tensor {name} has the shape {found:?} and config.json asks for {shape:?}");
            return Err(load_error(&part.path, reason));
        };
        let (from, to) = info.data_offsets;
        let mut bytes = vec![0; to - from];
        let read = part.file.seek(SeekFrom::Start(part.data_at + from as u64));
        read.and_then(|_| part.file.read_exact(&mut bytes))
            .map_err(|error| load_error(&part.path, format!("the tensor {name} cannot be read: {error}")))?;
        floats(info.dtype, &bytes).ok_or_else(|| {
            load_error(&part.path, format!("the tensor {name} is of type {:?}, not a float", info.dtype))
        })
    }
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let pairs = || bytes.as_chunks::<2>().0.iter();
    match dtype {
        Dtype::F32 => Some(bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect()),
        // A bfloat16 is the upper half of an f32.
        Dtype::BF16 => Some(pairs().map(|pair| f32::from_le_bytes([0, 0, pair[0], pair[1]])).collect()),
        Dtype::F16 => Some(pairs().map(|pair| half(u16::from_le_bytes(*pair))).collect()),
        Dtype::F64 => Some(bytes.as_chunks::<8>().0.iter().map(|number| f64::from_le_bytes(*number) as f32).collect()),
        _ => None,
    }
}

/// An IEEE 754 half as an f32.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A safetensors file with one tensor `a` of this type and these bytes.
    fn file(folder: &Path, dtype: &str, n: usize, bytes: &[u8]) -> PathBuf {
        let header = format!(r#"{{"a":{{"dtype":"{dtype}","shape":[{n}],"data_offsets":[0,{}]}}}}"#, bytes.len());
        let path = folder.join("model.safetensors");
        let parts = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), bytes];
        std::fs::write(&path, parts.concat()).expect("the folder is writable");
        path
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn every_float_type_is_read() {
        let cases: [(&str, &[u8]); 4] = [
            ("F32", &[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]),
            ("BF16", &[0x80, 0x3f, 0, 0xc0]),
            ("F16", &[0, 0x3c, 0, 0xc0]),
            ("F64", &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0xc0]),
        ];
        for (dtype, bytes) in cases {
            let folder = folder();
            file(folder.path(), dtype, 2, bytes);
            let mut weights = Weights::open(folder.path()).expect("it opens");
            assert_eq!(weights.tensor("a", &[2]).expect("it is there"), [1.0, -2.0], "{dtype}");
        }
        assert_eq!(half(0x0001), 2f32.powi(-24));
        assert_eq!(half(0x7bff), 65504.0);
        assert!(half(0x7e00).is_nan());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let folder = folder();
        let told = |reason: &str, found: Result<Weights, EngineError>| {
            let error = found.expect_err("it is damaged").to_string();
            assert!(error.contains("model.safetensors") && error.contains(reason), "{error}");
        };
        told("No such file", Weights::open(folder.path()));
        let path = file(folder.path(), "F32", 1, &[0; 4]);
        let mut weights = Weights::open(folder.path()).expect("it opens");
        let missing = weights.tensor("b", &[1]).expect_err("it is missing").to_string();
        assert!(missing.contains("the tensor b is missing"), "{missing}");
        let shape = weights.tensor("a", &[2, 1]).expect_err("it is of another shape").to_string();
        assert!(shape.contains("[1]") && shape.contains("[2, 1]"), "{shape}");
        let whole = std::fs::read(&path).expect("it is there");
        std::fs::write(&path, &whole[..whole.len() - 1]).expect("the folder is writable");
        told("download it again", Weights::open(folder.path()));
        std::fs::write(&path, &whole[..5]).expect("the folder is writable");
        told("too short", Weights::open(folder.path()));
        std::fs::write(&path, [u64::MAX.to_le_bytes().as_slice(), b"{}"].concat()).expect("the folder is writable");
        told("damaged", Weights::open(folder.path()));
        std::fs::write(&path, [3u64.to_le_bytes().as_slice(), b"{]}"].concat()).expect("the folder is writable");
        told("its header is not valid", Weights::open(folder.path()));
        file(folder.path(), "I32", 1, &[0; 4]);
        let mut weights = Weights::open(folder.path()).expect("it opens");
        assert!(weights.tensor("a", &[1]).expect_err("no float").to_string().contains("not a float"));
    }
}
