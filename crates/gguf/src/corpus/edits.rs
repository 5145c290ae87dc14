//! The single changes, by kind.

use std::ops::Range;

use super::Random;
use super::spans::{KeySpan, Spans, TensorSpan};
use crate::ValueType;

/// One change of a file.
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    Truncate(usize),
    /// Overwrites bytes in place.
    Write(Vec<(usize, Vec<u8>)>),
    /// Replaces a part of the header and moves the tensor data to its new place; `n_keys` changes by the last number.
    Splice(Range<usize>, Vec<u8>, i64),
    /// Something else altogether.
    Whole(Vec<u8>),
    Append(Vec<u8>),
}

type Kind = Vec<(String, Edit)>;

impl Edit {
    /// The changed file.
    pub fn apply(self, original: &[u8], spans: Option<&Spans>) -> Vec<u8> {
        match self {
            Self::Truncate(len) => original[..len.min(original.len())].to_vec(),
            Self::Whole(bytes) => bytes,
            Self::Append(tail) => [original, &tail].concat(),
            Self::Write(writes) => {
                let mut bytes = original.to_vec();
                for (at, replacement) in writes {
                    let end = (at + replacement.len()).min(bytes.len());
                    let at = at.min(end);
                    bytes[at..end].copy_from_slice(&replacement[..end - at]);
                }
                bytes
            }
            Self::Splice(range, replacement, keys) => match spans {
                Some(spans) => splice(original, spans, range, &replacement, keys),
                None => original.to_vec(),
            },
        }
    }
}

fn splice(original: &[u8], spans: &Spans, range: Range<usize>, replacement: &[u8], n_more_keys: i64) -> Vec<u8> {
    let mut bytes = original[..range.start].to_vec();
    bytes.extend(replacement);
    bytes.extend(&original[range.end..spans.header_end]);
    bytes.resize(bytes.len().next_multiple_of(spans.alignment), 0);
    bytes.extend(&original[spans.data_at.min(original.len())..]);
    let n_keys = spans.keys.len() as i64 + n_more_keys;
    bytes[16..24].copy_from_slice(&n_keys.to_le_bytes());
    bytes
}

/// Every planned change, one list for each kind.
pub(crate) fn all_kinds(original: &[u8], spans: &Option<Spans>) -> Vec<Kind> {
    let mut kinds = vec![garbage(original)];
    if let Some(spans) = spans {
        kinds.extend([
            truncations(original, spans),
            counts(spans),
            spans.keys.iter().flat_map(key_names).collect(),
            spans.keys.iter().flat_map(|key| values(original, key)).collect(),
            spans.keys.iter().flat_map(arrays).collect(),
            spans.tensors.iter().flat_map(|tensor| tensors(original, tensor)).collect(),
            spans.keys.iter().flat_map(|key| texts(original, key)).collect(),
            entries(original, spans),
        ]);
    }
    kinds
}

/// One to four flipped bits in the first `len` bytes.
pub(crate) fn bit_flips(random: &mut Random, len: usize) -> (String, Edit) {
    let writes = (0..=random.below(4)).map(|_| (random.below(len), vec![random.next() as u8])).collect::<Vec<_>>();
    let places = writes.iter().map(|(at, _)| at.to_string()).collect::<Vec<_>>().join(", ");
    (format!("random bytes at {places}"), Edit::Write(writes))
}

fn write(label: String, at: usize, bytes: impl Into<Vec<u8>>) -> (String, Edit) {
    (label, Edit::Write(vec![(at, bytes.into())]))
}

fn garbage(original: &[u8]) -> Kind {
    let mut random = Random(original.len() as u64);
    let mut noise = |len: usize| (0..len).map(|_| random.next() as u8).collect::<Vec<_>>();
    let after_magic = |tail: Vec<u8>| [b"GGUF\x03\0\0\0".as_slice(), &tail].concat();
    vec![
        ("empty file".into(), Edit::Whole(Vec::new())),
        ("one byte".into(), Edit::Whole(vec![b'G'])),
        ("noise of 1 KiB".into(), Edit::Whole(noise(1 << 10))),
        ("noise of 64 KiB".into(), Edit::Whole(noise(1 << 16))),
        ("magic and version, then noise".into(), Edit::Whole(after_magic(noise(1 << 12)))),
        ("magic and version, then zeros".into(), Edit::Whole(after_magic(vec![0; 1 << 12]))),
        ("magic and version, then ones".into(), Edit::Whole(after_magic(vec![0xff; 1 << 12]))),
        ("a text file".into(), Edit::Whole(b"version https://git-lfs.github.com/spec/v1\n".to_vec())),
        ("trailing noise".into(), Edit::Append(noise(333))),
        write("magic of another format".into(), 0, *b"ggjt"),
    ]
}

fn truncations(original: &[u8], spans: &Spans) -> Kind {
    let key_ends = spans.keys.iter().flat_map(|key| [key.type_at, key.entry.end, key.entry.end - 1]);
    let tensor_ends = spans.tensors.iter().flat_map(|tensor| [tensor.dims_at, tensor.type_at, tensor.entry.end]);
    let borders = [3, 4, 7, 8, 15, 16, 23, 24, spans.header_end, spans.data_at.saturating_sub(1), spans.data_at];
    let data = [spans.data_at + 1, (spans.data_at + original.len()) / 2, original.len() - 1, original.len() - 64];
    let places = borders.into_iter().chain(data).chain(key_ends).chain(tensor_ends);
    places.map(|len| (format!("truncated to {len} bytes"), Edit::Truncate(len))).collect()
}

fn counts(spans: &Spans) -> Kind {
    let versions = [0, 1, 2, 4, 0x0300_0000, u32::MAX];
    let versions = versions.map(|version| write(format!("version {version}"), 4, version.to_le_bytes()));
    let fields = [("tensors", 8, spans.tensors.len() as u64), ("keys", 16, spans.keys.len() as u64)];
    let counts = fields.into_iter().flat_map(|(name, at, count)| {
        let changed = [0, 1, count - 1, count + 1, count * 2, 1 << 20, 1 << 40, i64::MAX as u64, u64::MAX];
        changed.map(|changed| write(format!("{changed} {name} instead of {count}"), at, changed.to_le_bytes()))
    });
    versions.into_iter().chain(counts).collect()
}

fn key_names(key: &KeySpan) -> Kind {
    let KeySpan { name, entry, type_at, .. } = key;
    let lengths = [0, name.len() as u64 - 1, name.len() as u64 + 1, 1 << 33, u64::MAX];
    let lengths = lengths.map(|len| write(format!("{name}: name length {len}"), entry.start, len.to_le_bytes()));
    let types = [0_u32, 4, 5, 6, 7, 8, 9, 10, 12, 13, u32::MAX];
    let types = types.map(|id| write(format!("{name}: value type {id}"), *type_at, id.to_le_bytes()));
    let renames = [b'x', 0xff, 0].map(|byte| write(format!("{name}: last letter {byte}"), type_at - 1, [byte]));
    lengths.into_iter().chain(types).chain(renames).collect()
}

fn values(original: &[u8], key: &KeySpan) -> Kind {
    let KeySpan { name, value, .. } = key;
    let set = |what: String, bytes: Vec<u8>| write(format!("{name}: {what}"), value.start, bytes);
    match key.value_type {
        ValueType::U32 | ValueType::I32 => {
            let old = u32::from_le_bytes(original[value.clone()].try_into().expect("the value has 4 bytes"));
            let new = [0, 1, 2, 3, 7, 511, 513, 100_000, 1 << 24, 1 << 31, u32::MAX, old + 1, old.wrapping_sub(1)];
            new.map(|new| set(format!("{old} becomes {new}"), new.to_le_bytes().into())).into()
        }
        ValueType::F32 => {
            let new = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, 0.0, -0.0, f32::MAX, 1e-40];
            new.map(|new| set(format!("becomes {new}"), new.to_le_bytes().into())).into()
        }
        ValueType::Bool => [0, 1, 2, 255].map(|new| set(format!("becomes {new}"), vec![new])).into(),
        ValueType::Str => strings(name, value),
        _ => vec![set("all bits set".into(), vec![0xff; value.len().min(8)])],
    }
}

fn strings(name: &str, value: &Range<usize>) -> Kind {
    let len = value.len() as u64;
    let lengths = [0, len + 1, 1 << 33, i64::MAX as u64, u64::MAX];
    let lengths = lengths.map(|new| write(format!("{name}: text length {new}"), value.start - 8, new.to_le_bytes()));
    let fills = [0, b'x', 0xff]
        .map(|byte| write(format!("{name}: text of bytes {byte}"), value.start, vec![byte; value.len().min(1 << 16)]));
    let words = ["clip", "mamba", "rwkv6", "gpt2", "bert", "none", "(unknown)", "adapter", ""];
    let words = words.map(|word| {
        let bytes = [(word.len() as u64).to_le_bytes().as_slice(), word.as_bytes()].concat();
        (format!("{name}: {word:?}"), Edit::Splice(value.start - 8..value.end, bytes, 0))
    });
    lengths.into_iter().chain(fills).chain(words).collect()
}

fn arrays(key: &KeySpan) -> Kind {
    let Some(at) = key.array_at else { return Vec::new() };
    let name = &key.name;
    let types = [0_u32, 1, 4, 5, 6, 7, 8, 9, 10, 13, u32::MAX];
    let types = types.map(|id| write(format!("{name}: element type {id}"), at, id.to_le_bytes()));
    let lengths = [0, 1, 1 << 16, 1 << 30, 1 << 40, i64::MAX as u64, u64::MAX];
    let lengths = lengths.map(|len| write(format!("{name}: {len} elements"), at + 4, len.to_le_bytes()));
    let fill = write(format!("{name}: elements of ones"), key.value.start, vec![0xff; key.value.len().min(64)]);
    let empty = [&[0; 4][..], &0_u64.to_le_bytes()].concat();
    let empty = (format!("{name}: an empty array of bytes"), Edit::Splice(at..key.value.end, empty, 0));
    types.into_iter().chain(lengths).chain([fill, empty]).collect()
}

fn tensors(original: &[u8], tensor: &TensorSpan) -> Kind {
    let name = String::from_utf8_lossy(&original[tensor.name.clone()]).into_owned();
    let dims = [0_u32, 1, 3, 4, 5, u32::MAX];
    let dims = dims.map(|dims| write(format!("{name}: {dims} dimensions"), tensor.dims_at, dims.to_le_bytes()));
    let sizes = (0..tensor.n_dims).flat_map(|dim| {
        let sizes = [0, 1, 31, 32, 1 << 32, 1 << 62, i64::MAX as u64, u64::MAX];
        let at = tensor.dims_at + 4 + dim * 8;
        sizes.map(|size| write(format!("{name}: dimension {dim} is {size}"), at, size.to_le_bytes()))
    });
    let types = (0..=44).chain([u32::MAX, 1 << 31]);
    let types = types.map(|id| write(format!("{name}: type {id}"), tensor.type_at, id.to_le_bytes()));
    let offsets = [0, 1, 32, 1 << 40, i64::MAX as u64, u64::MAX - 31];
    let offsets = offsets.map(|at| write(format!("{name}: offset {at}"), tensor.offset_at, at.to_le_bytes()));
    let letters = [b'x', 0, 0xff].map(|byte| write(format!("{name}: first letter {byte}"), tensor.name.start, [byte]));
    let len = write(format!("{name}: name length 64"), tensor.entry.start, 64_u64.to_le_bytes());
    dims.into_iter().chain(sizes).chain(types).chain(offsets).chain(letters).chain([len]).collect()
}

/// Damage to single texts of an array: tokens and merges.
fn texts(original: &[u8], key: &KeySpan) -> Kind {
    let name = &key.name;
    let n_texts = key.texts.len();
    let places = [0, 1, 2, n_texts / 2, n_texts.saturating_sub(1)];
    let mut kind = Kind::new();
    for (index, text) in places.into_iter().filter_map(|index| Some((index, key.texts.get(index)?))) {
        let twin = &original[key.texts[(index + 1) % n_texts].clone()];
        let twin = [(twin.len() as u64).to_le_bytes().as_slice(), twin].concat();
        kind.extend([
            (format!("{name}: text {index} twice"), Edit::Splice(text.start - 8..text.end, twin, 0)),
            (format!("{name}: text {index} empty"), Edit::Splice(text.start - 8..text.end, vec![0; 8], 0)),
            write(format!("{name}: text {index} of ones"), text.start, vec![0xff; text.len()]),
            write(format!("{name}: text {index} too long"), text.start - 8, u64::MAX.to_le_bytes()),
        ]);
    }
    kind
}

/// Whole entries: gone, twice, or with a name that stands before.
fn entries(original: &[u8], spans: &Spans) -> Kind {
    let mut kind = Kind::new();
    for KeySpan { name, entry, .. } in &spans.keys {
        let twin = original[entry.clone()].to_vec();
        kind.push((format!("{name}: removed"), Edit::Splice(entry.clone(), Vec::new(), -1)));
        kind.push((format!("{name}: twice"), Edit::Splice(entry.end..entry.end, twin, 1)));
    }
    for pair in spans.tensors.windows(2) {
        let twin = original[pair[0].entry.start..pair[0].name.end].to_vec();
        let range = pair[1].entry.start..pair[1].name.end;
        kind.push((format!("tensor name at {} twice", range.start), Edit::Splice(range, twin, 0)));
    }
    kind
}
