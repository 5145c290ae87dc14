//! Book-keeping of cache cells: which are held, by how many sequences, and whether a running request needs them.
//!
//! The ids here are the scheduler's own; a backend may place a cell wherever it likes. What must agree is the count.

/// A cell of the cache.
pub(super) type CellId = u32;

/// Who holds a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// A request that runs: its cells cannot be taken away.
    Running,
    /// A finished sequence kept for its prefix: can be evicted.
    Cached,
}

/// All cells with their reference counts.
#[derive(Debug)]
pub(super) struct CellPool {
    /// References by running sequences, by cell.
    running: Vec<u16>,
    /// References by cached sequences, by cell.
    cached: Vec<u16>,
    /// Cells nobody holds; the last one is handed out next.
    free: Vec<CellId>,
    /// Cells with at least one running holder.
    n_pinned: usize,
}

impl CellPool {
    pub(super) fn new(n_cells: usize) -> Self {
        let n = u32::try_from(n_cells).expect("a cache has fewer than 2^32 cells");
        Self { running: vec![0; n_cells], cached: vec![0; n_cells], free: (0..n).rev().collect(), n_pinned: 0 }
    }

    pub(super) fn n_cells(&self) -> usize {
        self.running.len()
    }

    pub(super) fn n_free(&self) -> usize {
        self.free.len()
    }

    /// Cells that a running sequence holds.
    pub(super) fn n_pinned(&self) -> usize {
        self.n_pinned
    }

    pub(super) fn is_pinned(&self, cell: CellId) -> bool {
        self.running[cell as usize] > 0
    }

    /// Sequences that hold `cell`.
    pub(super) fn n_holders(&self, cell: CellId) -> usize {
        usize::from(self.running[cell as usize]) + usize::from(self.cached[cell as usize])
    }

    /// A free cell, held by one running sequence from now on.
    pub(super) fn take(&mut self) -> Option<CellId> {
        let cell = self.free.pop()?;
        self.running[cell as usize] = 1;
        self.n_pinned += 1;
        Some(cell)
    }

    pub(super) fn add(&mut self, cell: CellId, holder: Holder) {
        match holder {
            Holder::Running => {
                self.n_pinned += usize::from(self.running[cell as usize] == 0);
                self.running[cell as usize] += 1;
            }
            Holder::Cached => self.cached[cell as usize] += 1,
        }
    }

    pub(super) fn release(&mut self, cell: CellId, holder: Holder) {
        let idx = cell as usize;
        match holder {
            Holder::Running => {
                assert!(self.running[idx] > 0, "a running cell is released once; this is a bug");
                self.running[idx] -= 1;
                self.n_pinned -= usize::from(self.running[idx] == 0);
            }
            Holder::Cached => {
                assert!(self.cached[idx] > 0, "a cached cell is released once; this is a bug");
                self.cached[idx] -= 1;
            }
        }
        if self.n_holders(cell) == 0 {
            self.free.push(cell);
        }
    }

    /// Moves one reference from a running sequence to a cached one, or back.
    pub(super) fn convert(&mut self, cell: CellId, to: Holder) {
        let from = match to {
            Holder::Running => Holder::Cached,
            Holder::Cached => Holder::Running,
        };
        self.add(cell, to);
        self.release(cell, from);
    }

    /// Panics unless `held` (every sequence's cells with its holder) is exactly what the counts say.
    pub(super) fn check<'a>(&self, held: impl Iterator<Item = (&'a [CellId], Holder)>) {
        let (mut running, mut cached) = (vec![0u16; self.n_cells()], vec![0u16; self.n_cells()]);
        for (cells, holder) in held {
            let counts = match holder {
                Holder::Running => &mut running,
                Holder::Cached => &mut cached,
            };
            cells.iter().for_each(|&cell| counts[cell as usize] += 1);
        }
        assert_eq!(running, self.running, "references by running sequences");
        assert_eq!(cached, self.cached, "references by cached sequences");
        let n_held = (0..self.n_cells()).filter(|&idx| running[idx] + cached[idx] > 0).count();
        assert_eq!(n_held + self.n_free(), self.n_cells(), "free and held cells equal the total");
        assert_eq!(self.n_pinned, running.iter().filter(|&&n| n > 0).count(), "pinned cells");
    }
}
