//! Looks now and then: models that are idle for long, that have gone from the catalog, or that fill the memory.

use std::sync::Arc;
use std::time::Instant;

use ingle_catalog::Residency;
use ingle_engine::Hardware;

use super::{Manager, Resident, Slot, drop_aside, lock};

impl Manager {
    /// One look. `exists` tells whether the catalog still has a model.
    pub(crate) fn look(&self, exists: &dyn Fn(&str) -> bool) {
        let now = Instant::now();
        let is_over = |resident: &Resident| {
            self.residency
                .idle_timeout
                .is_some_and(|limit| now.saturating_duration_since(resident.last_used()) >= limit)
        };
        for resident in self.idle() {
            let name = &resident.config.name;
            if !exists(name) {
                self.take_idle(&resident, "it is no longer in the models folder");
            } else if resident.config.residency != Residency::Pinned && is_over(&resident) {
                self.take_idle(&resident, "it was idle");
            }
        }
        let Some(share) = self.residency.reclaim_threshold else { return };
        let hardware = (self.probe)();
        if used_share(&hardware) > share {
            // Where the memory of GPUs is what is looked at, only what is there gives any of it back.
            let gives = |resident: &Resident| hardware.gpus().next().is_none() || resident.gpu_bytes() > 0;
            let mut idle = self.idle();
            idle.retain(|resident| resident.config.residency != Residency::Pinned && gives(resident));
            let largest = self.residency.evicts_largest;
            let first = match largest {
                true => idle.iter().max_by_key(|resident| resident.bytes()),
                false => idle.iter().min_by_key(|resident| resident.last_used()),
            };
            first.into_iter().for_each(|resident| self.take_idle(resident, "memory is short"));
        }
    }

    /// Ready models without a call.
    fn idle(&self) -> Vec<Arc<Resident>> {
        let state = lock(&self.state);
        let ready = |slot: &Slot| match slot {
            Slot::Ready(resident) if resident.is_idle() => Some(Arc::clone(resident)),
            Slot::Ready(_) | Slot::Loading(_) | Slot::Leaving(..) => None,
        };
        state.slots.values().filter_map(ready).collect()
    }

    /// Takes a model out that is still idle: calls begin under the same lock.
    fn take_idle(&self, resident: &Arc<Resident>, why: &str) {
        let name = &resident.config.name;
        let mut state = lock(&self.state);
        let is_same = matches!(state.slots.get(name), Some(Slot::Ready(held)) if Arc::ptr_eq(held, resident));
        if is_same && resident.is_idle() {
            let removed = state.slots.remove(name);
            drop(state);
            tracing::info!(model = name, "taken out of memory: {why}");
            drop_aside(removed);
        }
    }
}

/// Share of the memory in use: that of the GPUs where there are any, else the main memory.
fn used_share(hardware: &Hardware) -> f64 {
    let gpus: Vec<_> = hardware.gpus().collect();
    let devices = if gpus.is_empty() { hardware.cpu().into_iter().collect() } else { gpus };
    let total: u64 = devices.iter().map(|device| device.total_bytes).sum();
    let free: u64 = devices.iter().map(|device| device.free_bytes).sum();
    if total == 0 { 0.0 } else { 1.0 - free as f64 / total as f64 }
}
