//! Damaged GGUF files, made from a whole one. Seeded: the same original, seed and count give the same files.
//!
//! The generator knows where each field lies, so that most files are damaged in one place and right otherwise. The
//! kinds take turns: truncation, fields of the fixed header, keys, values, arrays, tensors, vocabulary, deletions and
//! duplicates, bit flips, and files that are not GGUF at all.

mod edits;
mod spans;

use edits::Edit;
use spans::Spans;

/// Yields `count` damaged versions of `original`, each with a label that says what was done. Some are still
/// valid (a changed name, a flipped bit in a text): what is asked of a reader is to survive them all.
pub fn mutations(original: &[u8], seed: u64, count: usize) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
    let spans = Spans::of(original);
    let mut random = Random(seed);
    let mut kinds = edits::all_kinds(original, &spans);
    kinds.iter_mut().for_each(|kind| random.shuffle(kind));
    let header_len = spans.as_ref().map_or(original.len(), |spans| spans.header_end).max(1);
    (0..count).map(move |index| {
        let n_kinds = kinds.len();
        let planned = (0..n_kinds).find_map(|step| kinds[(index + step) % n_kinds].pop());
        let (label, edit) = planned.unwrap_or_else(|| edits::bit_flips(&mut random, header_len));
        (format!("{index:04} {label}"), edit.apply(original, spans.as_ref()))
    })
}

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn shuffle(&mut self, items: &mut [(String, Edit)]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
