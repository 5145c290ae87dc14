//! The parser. It trusts no count: each is compared with the rest of the file before memory is reserved, and memory
//! grows only with bytes that were really read.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use crate::{Array, GgmlType, GgufError, Header, Metadata, StringArray, TensorInfo, Value, ValueType};

/// A header of a 262k-token vocabulary takes 10 MB.
const MAX_HEADER_BYTES: u64 = 1 << 29;
const MAX_KEYS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 20;
const MAX_ARRAY_LEN: u64 = 1 << 26;
/// ggml keeps names in 64 bytes with a closing zero.
const MAX_NAME_BYTES: u64 = 63;
const MAX_DIMS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;
/// Reserved at once at most; longer arrays grow while they are read.
const RESERVE_BYTES: u64 = 1 << 20;

pub(crate) fn read_header(reader: &mut (impl Read + Seek), file_bytes: u64) -> Result<Header, GgufError> {
    reader.seek(SeekFrom::Start(0))?;
    let mut source = Source { reader: BufReader::with_capacity(1 << 18, reader), offset: 0, file_bytes };
    let version = read_version(&mut source)?;
    let n_tensors = source.read_count("the number of tensors", 24, MAX_TENSORS)?;
    let n_keys = source.read_count("the number of keys", 13, MAX_KEYS)?;
    let metadata = read_metadata(&mut source, n_keys)?;
    let alignment = read_alignment(&metadata)?;
    let tensors = (0..n_tensors).map(|_| read_tensor(&mut source)).collect::<Result<Vec<_>, _>>()?;
    let data_offset = match n_tensors {
        0 => source.offset,
        _ => source.offset.next_multiple_of(alignment),
    };
    Ok(Header { version, metadata, tensors, data_offset, alignment, file_bytes })
}

fn read_version<R: Read>(source: &mut Source<R>) -> Result<u32, GgufError> {
    let mut magic = Vec::new();
    source.reader.by_ref().take(4).read_to_end(&mut magic)?;
    if magic != b"GGUF" {
        return Err(GgufError::NotGguf { found: magic });
    }
    source.offset = 4;
    let version = source.u32("the version")?;
    let reason = match version {
        2 | 3 => return Ok(version),
        1 => "version 1 was given up in 2023",
        _ if version & 0xffff == 0 && version != 0 => "a big-endian file",
        _ => "unknown",
    };
    Err(GgufError::Version { version, reason })
}

fn read_metadata<R: Read>(source: &mut Source<R>, n_keys: u64) -> Result<Metadata, GgufError> {
    let mut metadata = Metadata::default();
    for index in 0..n_keys {
        let key = source.name("a key", MAX_HEADER_BYTES)?;
        if key.is_empty() {
            return Err(GgufError::EmptyKey { index });
        }
        let value = read_value(source, &key)?;
        metadata.insert(key, value)?;
    }
    Ok(metadata)
}

fn read_alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    let alignment = match metadata.get("general.alignment") {
        None => return Ok(DEFAULT_ALIGNMENT),
        Some(Value::U32(alignment)) => u64::from(*alignment),
        Some(other) => {
            let (key, found) = ("general.alignment".into(), other.value_type());
            return Err(GgufError::WrongType { key, found, expected: "u32" });
        }
    };
    match alignment.is_power_of_two() {
        true => Ok(alignment),
        false => Err(GgufError::Alignment { alignment, reason: "it is not a power of two" }),
    }
}

fn read_value<R: Read>(source: &mut Source<R>, key: &str) -> Result<Value, GgufError> {
    Ok(match read_value_type(source, key)? {
        ValueType::U8 => Value::U8(u8::from_le_bytes(source.bytes(key)?)),
        ValueType::I8 => Value::I8(i8::from_le_bytes(source.bytes(key)?)),
        ValueType::U16 => Value::U16(u16::from_le_bytes(source.bytes(key)?)),
        ValueType::I16 => Value::I16(i16::from_le_bytes(source.bytes(key)?)),
        ValueType::U32 => Value::U32(u32::from_le_bytes(source.bytes(key)?)),
        ValueType::I32 => Value::I32(i32::from_le_bytes(source.bytes(key)?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(source.bytes(key)?)),
        ValueType::Bool => Value::Bool(source.bytes::<1>(key)? != [0]),
        ValueType::Str => Value::Str(String::from_utf8_lossy(&source.string(key, MAX_HEADER_BYTES)?).into_owned()),
        ValueType::Array => Value::Array(read_array(source, key)?),
        ValueType::U64 => Value::U64(u64::from_le_bytes(source.bytes(key)?)),
        ValueType::I64 => Value::I64(i64::from_le_bytes(source.bytes(key)?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(source.bytes(key)?)),
    })
}

fn read_value_type<R: Read>(source: &mut Source<R>, key: &str) -> Result<ValueType, GgufError> {
    let type_id = source.u32(key)?;
    ValueType::from_id(type_id).ok_or_else(|| GgufError::UnknownValueType { key: key.into(), type_id })
}

fn read_array<R: Read>(source: &mut Source<R>, key: &str) -> Result<Array, GgufError> {
    let element = read_value_type(source, key)?;
    let len = source.read_count(&format!("the length of array \"{key}\""), element.min_bytes(), MAX_ARRAY_LEN)?;
    Ok(match element {
        ValueType::U8 => Array::U8(source.numbers(key, len, u8::from_le_bytes)?),
        ValueType::I8 => Array::I8(source.numbers(key, len, i8::from_le_bytes)?),
        ValueType::U16 => Array::U16(source.numbers(key, len, u16::from_le_bytes)?),
        ValueType::I16 => Array::I16(source.numbers(key, len, i16::from_le_bytes)?),
        ValueType::U32 => Array::U32(source.numbers(key, len, u32::from_le_bytes)?),
        ValueType::I32 => Array::I32(source.numbers(key, len, i32::from_le_bytes)?),
        ValueType::F32 => Array::F32(source.numbers(key, len, f32::from_le_bytes)?),
        ValueType::Bool => Array::Bool(source.numbers(key, len, |byte: [u8; 1]| byte != [0])?),
        ValueType::Str => Array::Str(source.strings(key, len)?),
        ValueType::Array => {
            return Err(GgufError::UnknownValueType { key: key.into(), type_id: ValueType::Array.id() });
        }
        ValueType::U64 => Array::U64(source.numbers(key, len, u64::from_le_bytes)?),
        ValueType::I64 => Array::I64(source.numbers(key, len, i64::from_le_bytes)?),
        ValueType::F64 => Array::F64(source.numbers(key, len, f64::from_le_bytes)?),
    })
}

fn read_tensor<R: Read>(source: &mut Source<R>) -> Result<TensorInfo, GgufError> {
    let name = source.name("a tensor name", MAX_NAME_BYTES)?;
    let malformed = |problem: String| GgufError::Tensor { name: name.clone(), problem };
    let n_dims = source.u32(&name)?;
    if n_dims > MAX_DIMS {
        return Err(malformed(format!("it has {n_dims} dimensions and {MAX_DIMS} is the limit")));
    }
    let dims = (0..n_dims).map(|_| source.u64(&name)).collect::<Result<Vec<_>, _>>()?;
    let type_id = source.u32(&name)?;
    let offset = source.u64(&name)?;
    let ggml_type = GgmlType::from_id(type_id).ok_or_else(|| malformed(format!("its type {type_id} is unknown")))?;
    let n_bytes = tensor_bytes(&dims, ggml_type).map_err(malformed)?;
    Ok(TensorInfo { name, dims, ggml_type, offset, n_bytes })
}

fn tensor_bytes(dims: &[u64], ggml_type: GgmlType) -> Result<u64, String> {
    if dims.contains(&0) {
        return Err(format!("its shape {dims:?} has a zero"));
    }
    let too_large = || format!("its shape {dims:?} overflows");
    let n_elements = dims.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim)).ok_or_else(too_large)?;
    if n_elements > i64::MAX as u64 {
        return Err(too_large());
    }
    let row_len = dims.first().copied().unwrap_or(1);
    if !row_len.is_multiple_of(ggml_type.block_len()) {
        let block_len = ggml_type.block_len();
        return Err(format!(
            "its rows of {row_len} are no multiple of the {block_len} elements in a {ggml_type} block"
        ));
    }
    ggml_type.bytes_for(n_elements).ok_or_else(too_large)
}

/// A reader that knows where it is and how much can still follow.
struct Source<R: Read> {
    reader: BufReader<R>,
    offset: u64,
    file_bytes: u64,
}

impl<R: Read> Source<R> {
    /// Fails unless the file can hold `needed_bytes` more, and the header stays below its limit.
    fn demand(&self, what: &str, needed_bytes: u64) -> Result<(), GgufError> {
        let end = self.offset.saturating_add(needed_bytes);
        if end > self.file_bytes {
            return Err(self.truncated(what, needed_bytes));
        }
        if end > MAX_HEADER_BYTES {
            let what = format!("the size of the header up to {what}");
            return Err(GgufError::OverLimit { what, count: end, limit: MAX_HEADER_BYTES });
        }
        Ok(())
    }

    fn truncated(&self, what: &str, needed_bytes: u64) -> GgufError {
        GgufError::HeaderTruncated {
            what: format!("\"{}\"", what.chars().take(80).collect::<String>()),
            offset: self.offset,
            needed_bytes,
            file_bytes: self.file_bytes,
        }
    }

    fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        self.demand(what, N as u64)?;
        let mut bytes = [0; N];
        match self.reader.read_exact(&mut bytes) {
            Ok(()) => self.offset += N as u64,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(self.truncated(what, N as u64));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `min_bytes` each.
    fn read_count(&mut self, what: &str, min_bytes: u64, limit: u64) -> Result<u64, GgufError> {
        let count = self.u64(what)?;
        if count > limit {
            return Err(GgufError::OverLimit { what: what.into(), count, limit });
        }
        self.demand(what, count.saturating_mul(min_bytes))?;
        Ok(count)
    }

    /// Appends exactly `len` bytes to `buffer`.
    fn append(&mut self, what: &str, len: u64, buffer: &mut Vec<u8>) -> Result<(), GgufError> {
        self.demand(what, len)?;
        let n_read = self.reader.by_ref().take(len).read_to_end(buffer)? as u64;
        if n_read < len {
            return Err(self.truncated(what, len));
        }
        self.offset += len;
        Ok(())
    }

    fn string_len(&mut self, what: &str, limit: u64) -> Result<u64, GgufError> {
        let len = self.u64(what)?;
        if len > limit {
            return Err(GgufError::OverLimit { what: format!("the length of {what}"), count: len, limit });
        }
        Ok(len)
    }

    fn string(&mut self, what: &str, limit: u64) -> Result<Vec<u8>, GgufError> {
        let len = self.string_len(what, limit)?;
        let mut text = Vec::new();
        self.append(what, len, &mut text)?;
        Ok(text)
    }

    fn name(&mut self, what: &'static str, limit: u64) -> Result<String, GgufError> {
        let offset = self.offset + 8;
        String::from_utf8(self.string(what, limit)?).map_err(|_| GgufError::InvalidUtf8 { what, offset })
    }

    fn strings(&mut self, what: &str, len: u64) -> Result<StringArray, GgufError> {
        let mut array = StringArray::default();
        for _ in 0..len {
            let text_len = self.string_len(what, MAX_HEADER_BYTES)?;
            self.append_short(what, text_len, array.buffer())?;
            array.finish_string();
        }
        Ok(array)
    }

    /// [`Source::append`] for the many short strings of a vocabulary: straight out of the read buffer if it is there.
    fn append_short(&mut self, what: &str, len: u64, buffer: &mut Vec<u8>) -> Result<(), GgufError> {
        self.demand(what, len)?;
        let Some(text) = self.reader.buffer().get(..len as usize) else { return self.append(what, len, buffer) };
        buffer.extend_from_slice(text);
        self.reader.consume(len as usize);
        self.offset += len;
        Ok(())
    }

    fn numbers<T, const N: usize>(
        &mut self,
        what: &str,
        len: u64,
        convert: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, GgufError> {
        let n_bytes = len * N as u64;
        let mut bytes = Vec::with_capacity(n_bytes.min(RESERVE_BYTES) as usize);
        self.append(what, n_bytes, &mut bytes)?;
        Ok(bytes.as_chunks::<N>().0.iter().map(|chunk| convert(*chunk)).collect())
    }
}
