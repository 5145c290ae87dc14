//! Memory of this process, as Linux counts it, and how fast memory can be read.

use std::hint::black_box;
use std::time::Instant;

use super::stats::median;

/// Bytes that each thread reads: far more than the caches hold.
const BLOCK_BYTES: usize = 128 << 20;
/// Bytes that are timed at once.
const PIECE_BYTES: usize = 4 << 20;
const PASSES: usize = 4;

/// Sets the highest resident size back to the present one; `None` where that is not possible.
pub(crate) fn reset_peak() -> Option<()> {
    std::fs::write("/proc/self/clear_refs", "5").ok()
}

/// The highest resident size since [`reset_peak`], in bytes.
pub(crate) fn peak_bytes() -> Option<u64> {
    status_bytes("VmHWM:")
}

fn status_bytes(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    kib_of(&status, key).map(|kib| kib << 10)
}

/// The number behind `key` in a text of lines such as `VmHWM:  123 kB`.
fn kib_of(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes a second that `n_threads` threads together read from main memory: each one sums blocks of its own, and the
/// median time of a piece counts, so that other programs on the machine disturb little.
pub(crate) fn read_bandwidth(n_threads: usize) -> f64 {
    let read = |seed: usize| {
        let block = vec![seed as u64 + 1; BLOCK_BYTES / 8];
        let pieces = (0..PASSES).flat_map(|_| block.chunks_exact(PIECE_BYTES / 8));
        let times: Vec<f64> = pieces
            .map(|piece| {
                let begun = Instant::now();
                black_box(sum(black_box(piece)));
                begun.elapsed().as_secs_f64()
            })
            .collect();
        PIECE_BYTES as f64 / median(&times)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads.max(1)).map(|seed| scope.spawn(move || read(seed))).collect();
        threads.into_iter().map(|thread| thread.join().expect("reading memory does not panic")).sum()
    })
}

/// Many sums at once, so that the compiler uses vectors and the additions do not wait for each other.
fn sum(block: &[u64]) -> u64 {
    const LANES: usize = 32;
    let mut lanes = [0_u64; LANES];
    for chunk in block.chunks_exact(LANES) {
        lanes.iter_mut().zip(chunk).for_each(|(lane, word)| *lane = lane.wrapping_add(*word));
    }
    lanes.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
}

#[cfg(test)]
mod tests {
    use super::{kib_of, sum};

    #[test]
    fn lines_of_proc_are_read() {
        let status = "Name:\tingle\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n";
        assert_eq!(kib_of(status, "VmHWM:"), Some(2048));
        assert_eq!(kib_of(status, "Pss:"), None);
    }

    #[test]
    fn every_word_is_read() {
        assert_eq!(sum(&[3; 320]), 960);
    }
}
