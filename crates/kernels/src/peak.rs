//! The largest value of a row, and the largest value of each block of it.

use crate::isa::kernel;
use crate::mask::mask_words;

/// Independent running maxima: four 512-bit registers, enough to hide the latency of a comparison.
const WIDE: usize = 64;

/// The same for short blocks, where folding the lanes together costs as much as the comparisons.
const NARROW: usize = 32;

/// Values a block maximum of [`argmax`] covers.
const ARGMAX_BLOCK: usize = 4096;

/// The largest value of a row and where it stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// Lowest index that holds the largest value.
    pub index: usize,
    /// The largest value; −∞ when the row holds nothing else.
    pub value: f32,
}

/// Why a row has no peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFault {
    /// The row has no values.
    Empty,
    /// The row holds a NaN.
    NotANumber {
        /// Where the first NaN stands.
        index: usize,
    },
}

/// Maximum of `block`; raises the flag of each lane that met a NaN (NaN never wins the comparison).
#[inline(always)]
fn block_max<const LANES: usize>(block: &[f32], unordered: &mut [u32; LANES]) -> f32 {
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let (chunks, tail) = block.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let value = chunk[lane];
            maxima[lane] = larger(value, maxima[lane]);
            unordered[lane] |= u32::from(value.is_nan());
        }
    }
    for (lane, &value) in tail.iter().enumerate() {
        maxima[lane] = larger(value, maxima[lane]);
        unordered[lane] |= u32::from(value.is_nan());
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            maxima[lane] = larger(maxima[lane + width], maxima[lane]);
        }
        width /= 2;
    }
    maxima[0]
}

/// `challenger` when it is larger, else `holder`: one vector instruction, which `f32::max` is not.
#[inline(always)]
fn larger(challenger: f32, holder: f32) -> f32 {
    if challenger > holder { challenger } else { holder }
}

/// Index of the block with the row's first maximum, that maximum, and whether a NaN was met.
#[inline(always)]
fn best_block(row: &[f32]) -> (usize, f32, bool) {
    let (mut best, mut best_value, mut unordered) = (0, f32::NEG_INFINITY, [0; WIDE]);
    for (block_idx, block) in row.chunks(ARGMAX_BLOCK).enumerate() {
        let value = block_max(block, &mut unordered);
        if value > best_value {
            (best, best_value) = (block_idx, value);
        }
    }
    (best, best_value, unordered.contains(&1))
}

kernel! {
    fn best_block_of, best_block_on(row: &[f32]) -> (usize, f32, bool) = best_block;
}

/// The largest value of `row`, `[n]`; ties go to the lowest index, and a NaN anywhere is reported.
///
/// # Errors
/// [`RowFault`] for an empty row or one with a NaN.
pub fn argmax(row: &[f32]) -> Result<Peak, RowFault> {
    let (block_idx, value, any_nan) = best_block_of(row);
    if any_nan {
        return Err(first_nan(row));
    }
    let start = block_idx * ARGMAX_BLOCK;
    let offset = row[start.min(row.len())..].iter().position(|&x| x == value).ok_or(RowFault::Empty)?;
    Ok(Peak { index: start + offset, value })
}

#[cold]
fn first_nan(row: &[f32]) -> RowFault {
    row.iter().position(|x| x.is_nan()).map_or(RowFault::Empty, |index| RowFault::NotANumber { index })
}

/// The maximum of each block of a row: one pass that answers "how large can a value of this block be", so that later
/// steps look only into the few blocks that matter. The buffer is reused from row to row.
#[derive(Debug, Clone, Default)]
pub struct BlockMaxima {
    /// `[n_blocks]`
    values: Vec<f32>,
    block_len: usize,
}

#[inline(always)]
fn fill_maxima(row: &[f32], block_len: usize, values: &mut [f32]) -> bool {
    let mut unordered = [0; NARROW];
    for (block, value) in row.chunks(block_len).zip(values) {
        *value = block_max(block, &mut unordered);
    }
    unordered.contains(&1)
}

kernel! {
    fn fill_maxima_of, fill_maxima_on(row: &[f32], block_len: usize, values: &mut [f32]) -> bool = fill_maxima;
}

/// As [`fill_maxima`], of the values whose bit in `mask` is set; a NaN among 32 values of which none is set is not met.
#[inline(always)]
fn fill_masked(row: &[f32], mask: &[u32], block_len: usize, values: &mut [f32]) -> bool {
    let mut unordered = [0u32; NARROW];
    let words = mask.chunks(block_len / NARROW);
    for ((block, words), target) in row.chunks(block_len).zip(words).zip(values) {
        let mut maxima = [f32::NEG_INFINITY; NARROW];
        let (chunks, tail) = block.as_chunks::<NARROW>();
        for (chunk, &word) in chunks.iter().zip(words) {
            match word {
                0 => {}
                u32::MAX => {
                    for lane in 0..NARROW {
                        maxima[lane] = larger(chunk[lane], maxima[lane]);
                        unordered[lane] |= u32::from(chunk[lane].is_nan());
                    }
                }
                _ => {
                    for lane in 0..NARROW {
                        let allowed = if word & (1 << lane) != 0 { chunk[lane] } else { f32::NEG_INFINITY };
                        maxima[lane] = larger(allowed, maxima[lane]);
                        unordered[lane] |= u32::from(chunk[lane].is_nan());
                    }
                }
            }
        }
        let last_word = words.get(chunks.len()).copied().unwrap_or(0);
        for (lane, &value) in tail.iter().enumerate() {
            unordered[lane] |= u32::from(value.is_nan());
            let allowed = if last_word & (1 << lane) != 0 { value } else { f32::NEG_INFINITY };
            maxima[lane] = larger(allowed, maxima[lane]);
        }
        *target = block_max::<NARROW>(&maxima, &mut [0; NARROW]);
    }
    unordered.contains(&1)
}

kernel! {
    fn fill_masked_of, fill_masked_on(row: &[f32], mask: &[u32], block_len: usize, values: &mut [f32]) -> bool =
        fill_masked;
}

impl BlockMaxima {
    /// Scans the values of `row`, `[n]`, whose bit in `mask`, `[mask_words(n)]`, is set; the others count as −∞. The row
    /// is read once and nothing is copied.
    ///
    /// # Errors
    /// [`RowFault`] for an empty row or one with a NaN near an allowed value; the maxima are then meaningless. Where the
    /// mask excludes 32 values together they are not read.
    ///
    /// # Panics
    /// When the mask is too short.
    pub fn scan_masked(&mut self, row: &[f32], mask: &[u32]) -> Result<(), RowFault> {
        assert!(mask.len() >= mask_words(row.len()), "the mask covers the row");
        if row.is_empty() {
            return Err(RowFault::Empty);
        }
        self.block_len = block_len_for(row.len());
        self.values.resize(row.len().div_ceil(self.block_len), 0.0);
        if fill_masked_of(row, mask, self.block_len, &mut self.values) {
            return Err(first_nan(row));
        }
        Ok(())
    }

    /// As [`BlockMaxima::peak`], after [`BlockMaxima::scan_masked`] with this mask.
    pub fn masked_peak(&self, row: &[f32], mask: &[u32]) -> Option<Peak> {
        let value = self.max();
        let block_idx = self.values.iter().position(|&max| max == value)?;
        let start = block_idx * self.block_len;
        let is_set = |at: usize| mask[at / 32] >> (at % 32) & 1 == 1;
        let block = row.get(start..)?.iter().enumerate();
        let mut found = block.filter(|&(offset, &x)| x == value && is_set(start + offset));
        found.next().map(|(offset, _)| Peak { index: start + offset, value })
    }

    /// Scans `row`, `[n]`.
    ///
    /// # Errors
    /// [`RowFault`] for an empty row or one with a NaN; the maxima are then meaningless.
    pub fn scan(&mut self, row: &[f32]) -> Result<(), RowFault> {
        if row.is_empty() {
            return Err(RowFault::Empty);
        }
        self.block_len = block_len_for(row.len());
        self.values.resize(row.len().div_ceil(self.block_len), 0.0);
        if fill_maxima_of(row, self.block_len, &mut self.values) {
            return Err(first_nan(row));
        }
        Ok(())
    }

    /// Scans again the block of `row` that holds `index`, after that value was changed.
    ///
    /// # Panics
    /// When `row` is shorter than the one that was scanned.
    pub fn refresh(&mut self, row: &[f32], index: usize) {
        let block_idx = index / self.block_len;
        let start = block_idx * self.block_len;
        let end = (start + self.block_len).min(row.len());
        fill_maxima_of(&row[start..end], self.block_len, &mut self.values[block_idx..=block_idx]);
    }

    /// Makes this the scan of the same row divided by `divisor`, which is positive: division keeps the order.
    pub fn divide(&mut self, divisor: f32) {
        for value in &mut self.values {
            *value /= divisor;
        }
    }

    /// Values per block; the last block may be shorter.
    pub fn block_len(&self) -> usize {
        self.block_len
    }

    /// `[n_blocks]`, in the order of the row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The largest value of the row: −∞ when nothing is scanned.
    pub fn max(&self) -> f32 {
        block_max(&self.values, &mut [0; NARROW])
    }

    /// The largest value of `row`, the row that was scanned, with its lowest index; `None` when nothing is scanned.
    pub fn peak(&self, row: &[f32]) -> Option<Peak> {
        let value = self.max();
        let block_idx = self.values.iter().position(|&max| max == value)?;
        let start = block_idx * self.block_len;
        let offset = row.get(start..)?.iter().position(|&x| x == value)?;
        Some(Peak { index: start + offset, value })
    }
}

/// About a thousand blocks, whole lanes each: few enough to select among, small enough to search one.
fn block_len_for(row_len: usize) -> usize {
    (row_len / 1024).next_multiple_of(64).clamp(128, 1024)
}
