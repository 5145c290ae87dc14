//! Where the tensor data lies: contiguous, inside the file, and mappable.

use std::collections::HashSet;

use crate::{GgufError, Header};

/// ggml wraps mapped weights in a buffer and asserts that it starts at a multiple of this.
const MAPPED_ALIGNMENT: u64 = 32;

/// Checks names, offsets and the length of the file.
pub(crate) fn check(header: &Header) -> Result<(), GgufError> {
    let mut names = HashSet::with_capacity(header.tensors.len());
    let mut expected_offset = 0_u64;
    for tensor in &header.tensors {
        let name = &tensor.name;
        if !names.insert(name.as_str()) {
            return Err(GgufError::DuplicateTensor { name: name.clone() });
        }
        if tensor.offset != expected_offset {
            let problem = format!("its data is at offset {} instead of {expected_offset}", tensor.offset);
            return Err(GgufError::Tensor { name: name.clone(), problem });
        }
        expected_offset = tensor
            .n_bytes
            .checked_next_multiple_of(header.alignment)
            .and_then(|padded| padded.checked_add(expected_offset))
            .ok_or_else(|| GgufError::Tensor { name: name.clone(), problem: "the sizes overflow".into() })?;
    }
    check_end(header)
}

fn check_end(header: &Header) -> Result<(), GgufError> {
    let Some(last) = header.tensors.last() else { return Ok(()) };
    let needed_bytes = header.data_offset.saturating_add(last.offset).saturating_add(last.n_bytes);
    match needed_bytes > header.file_bytes {
        true => Err(GgufError::Truncated { needed_bytes, file_bytes: header.file_bytes }),
        false => Ok(()),
    }
}

/// Checks that every tensor of a model can be used where `mmap` puts it.
pub(crate) fn check_mappable(header: &Header) -> Result<(), GgufError> {
    let is_aligned = |offset: u64| (header.data_offset + offset).is_multiple_of(MAPPED_ALIGNMENT);
    match header.tensors.iter().all(|tensor| is_aligned(tensor.offset)) {
        true => Ok(()),
        false => Err(GgufError::Alignment {
            alignment: header.alignment,
            reason: "tensors that do not lie at multiples of 32 bytes cannot be memory-mapped",
        }),
    }
}
