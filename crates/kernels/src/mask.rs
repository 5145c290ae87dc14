//! Bit masks over a vocabulary.

use crate::isa::kernel;

/// A mask has fewer bits than the row has values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskTooShort {
    /// Words the row needs.
    pub needed_words: usize,
    /// Words the mask has.
    pub words: usize,
}

/// Words of a mask for `n` values: bit `i % 32` of word `i / 32` belongs to value `i`.
pub const fn mask_words(n: usize) -> usize {
    n.div_ceil(32)
}

#[inline(always)]
fn copy_masked_body(row: &[f32], mask: &[u32], out: &mut [f32]) -> bool {
    let mut any_nan = 0u32;
    let (chunks, tail) = row.as_chunks::<32>();
    let (out_chunks, out_tail) = out.as_chunks_mut::<32>();
    for ((chunk, target), &word) in chunks.iter().zip(out_chunks).zip(mask) {
        let mut unordered = [0u32; 32];
        for bit in 0..32 {
            let value = chunk[bit];
            target[bit] = if word & (1 << bit) != 0 { value } else { f32::NEG_INFINITY };
            unordered[bit] = u32::from(value.is_nan());
        }
        for flag in unordered {
            any_nan |= flag;
        }
    }
    let last_word = mask.get(chunks.len()).copied().unwrap_or(0);
    for (bit, (&value, target)) in tail.iter().zip(out_tail).enumerate() {
        *target = if last_word & (1 << bit) != 0 { value } else { f32::NEG_INFINITY };
        any_nan |= u32::from(value.is_nan());
    }
    any_nan != 0
}

kernel! {
    fn copy_masked_of, copy_masked_on(row: &[f32], mask: &[u32], out: &mut [f32]) -> bool = copy_masked_body;
}

/// Copies `row`, `[n]`, into `out` with −∞ where the bit of `mask`, `[mask_words(n)]`, is 0. Answers whether `row`
/// holds a NaN, also behind the mask. Bits past `n` are ignored.
///
/// # Errors
/// [`MaskTooShort`]; `out` is then unchanged.
pub fn copy_masked(row: &[f32], mask: &[u32], out: &mut Vec<f32>) -> Result<bool, MaskTooShort> {
    let needed_words = mask_words(row.len());
    if mask.len() < needed_words {
        return Err(MaskTooShort { needed_words, words: mask.len() });
    }
    out.resize(row.len(), 0.0);
    Ok(copy_masked_of(row, mask, out))
}
