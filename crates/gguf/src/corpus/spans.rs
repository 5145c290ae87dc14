//! Where the fields of a whole GGUF file lie.

use std::ops::Range;

use crate::ValueType;

/// A key and its value.
pub(crate) struct KeySpan {
    pub name: String,
    /// The whole entry.
    pub entry: Range<usize>,
    /// Position of the type field.
    pub type_at: usize,
    pub value_type: ValueType,
    /// The value: of an array its elements, of a string its text.
    pub value: Range<usize>,
    /// Of an array: position of the element type; the count follows 4 bytes later.
    pub array_at: Option<usize>,
    /// Of an array of strings: the texts.
    pub texts: Vec<Range<usize>>,
}

/// An entry of the tensor list.
pub(crate) struct TensorSpan {
    pub entry: Range<usize>,
    pub name: Range<usize>,
    pub dims_at: usize,
    pub n_dims: usize,
    pub type_at: usize,
    pub offset_at: usize,
}

/// All of them.
pub(crate) struct Spans {
    pub keys: Vec<KeySpan>,
    pub tensors: Vec<TensorSpan>,
    /// Where the tensor list ends, before the padding.
    pub header_end: usize,
    /// Where the tensor data begins.
    pub data_at: usize,
    pub alignment: usize,
}

impl Spans {
    /// `None` if the file is not a whole GGUF file.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let header = crate::Header::from_bytes(bytes, bytes.len() as u64).ok()?;
        let mut walk = Walk { bytes, at: 24 };
        let keys = (0..header.metadata.len()).map(|_| walk.key()).collect::<Option<Vec<_>>>()?;
        let tensors = (0..header.tensors.len()).map(|_| walk.tensor()).collect::<Option<Vec<_>>>()?;
        let (data_at, alignment) = (header.data_offset as usize, header.alignment as usize);
        Some(Self { keys, tensors, header_end: walk.at, data_at, alignment })
    }
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    fn take(&mut self, len: usize) -> Option<Range<usize>> {
        let range = self.at..self.at.checked_add(len)?;
        self.bytes.get(range.clone())?;
        self.at = range.end;
        Some(range)
    }

    fn number(&mut self, len: usize) -> Option<usize> {
        let range = self.take(len)?;
        let number = self.bytes[range].iter().rev().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
        number.try_into().ok()
    }

    fn string(&mut self) -> Option<Range<usize>> {
        let len = self.number(8)?;
        self.take(len)
    }

    fn value_type(&mut self) -> Option<ValueType> {
        ValueType::from_id(self.number(4)? as u32)
    }

    fn key(&mut self) -> Option<KeySpan> {
        let start = self.at;
        let name = self.string()?;
        let name = String::from_utf8_lossy(&self.bytes[name]).into_owned();
        let type_at = self.at;
        let value_type = self.value_type()?;
        let mut span =
            KeySpan { name, entry: 0..0, type_at, value_type, value: 0..0, array_at: None, texts: Vec::new() };
        span.value = match value_type {
            ValueType::Array => {
                span.array_at = Some(self.at);
                self.array(&mut span.texts)?
            }
            ValueType::Str => self.string()?,
            other => self.take(other.min_bytes() as usize)?,
        };
        span.entry = start..self.at;
        Some(span)
    }

    fn array(&mut self, texts: &mut Vec<Range<usize>>) -> Option<Range<usize>> {
        let element = self.value_type()?;
        let len = self.number(8)?;
        let start = self.at;
        match element {
            ValueType::Str => {
                for _ in 0..len {
                    texts.push(self.string()?);
                }
            }
            other => {
                self.take(len * other.min_bytes() as usize)?;
            }
        }
        Some(start..self.at)
    }

    fn tensor(&mut self) -> Option<TensorSpan> {
        let start = self.at;
        let name = self.string()?;
        let dims_at = self.at;
        let n_dims = self.number(4)?;
        self.take(n_dims * 8)?;
        let type_at = self.at;
        self.take(4)?;
        let offset_at = self.at;
        self.take(8)?;
        Some(TensorSpan { entry: start..self.at, name, dims_at, n_dims, type_at, offset_at })
    }
}
