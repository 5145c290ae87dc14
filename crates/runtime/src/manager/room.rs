//! Room for a model that is about to be loaded: who has to go, and when.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ingle_catalog::{ModelConfig, Residency};
use ingle_engine::{Backend, Hardware, LoadOptions};
use tokio::sync::watch as channel;

use super::{Manager, Resident, Slot, State, lock};
use crate::RuntimeError;

/// A context that a model can always do with.
const LEAST_CONTEXT: usize = 1024;

/// Share of the memory that models may fill.
const USABLE_SHARE: f64 = 0.95;

/// A turn of being in memory is never shorter, so that whoever waited for a model gets to use it.
const SHORTEST_TURN: Duration = Duration::from_millis(100);

/// How long a wait goes on before it looks around again.
const LOOK: Duration = Duration::from_millis(50);

/// Loads one after the other, in the order in which they were asked for.
#[derive(Default)]
pub(super) struct Turns {
    line: Mutex<Line>,
    moved: Condvar,
}

#[derive(Default)]
struct Line {
    /// The next number to give out, and the one whose turn it is.
    next: u64,
    serving: u64,
    /// Later ones that have left the line.
    left: BTreeSet<u64>,
}

/// A place in the line; dropping it ends the turn, or leaves the line.
pub(super) struct Ticket {
    turns: Arc<Turns>,
    number: u64,
}

impl Turns {
    /// A place at the end of the line.
    pub(super) fn take(self: &Arc<Self>) -> Ticket {
        let mut line = lock(&self.line);
        line.next += 1;
        Ticket { turns: Arc::clone(self), number: line.next - 1 }
    }
}

impl Ticket {
    /// Waits for its turn.
    pub(super) fn wait(&self) {
        let mut line = lock(&self.turns.line);
        while line.serving != self.number {
            line = self.turns.moved.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut line = lock(&self.turns.line);
        line.left.insert(self.number);
        loop {
            let serving = line.serving;
            if !line.left.remove(&serving) {
                break;
            }
            line.serving += 1;
        }
        drop(line);
        self.turns.moved.notify_all();
    }
}

/// What a model needs.
struct Need<'a> {
    config: &'a ModelConfig,
    /// With the context it may have.
    wanted_bytes: u64,
    /// With the least context that will do.
    least_bytes: u64,
    /// May it go onto GPUs?
    wants_gpus: bool,
}

/// A bound on what models take, with what is left of it now.
struct Bound {
    free_bytes: u64,
    /// What the end of a model gives back to it.
    gives: fn(&Resident) -> u64,
}

impl Manager {
    /// Takes models out until the new one fits. Nothing is taken out in vain. A model that may choose its own context is
    /// made smaller by its backend, so only the least it can do with is insisted on.
    pub(super) fn make_room(
        &self,
        backend: &dyn Backend,
        options: &LoadOptions,
        config: &ModelConfig,
    ) -> Result<(), RuntimeError> {
        let least = match options.context_size {
            Some(_) => backend.estimate(options)?,
            None => backend.estimate(&LoadOptions { context_size: Some(LEAST_CONTEXT), ..options.clone() })?,
        };
        let need = Need {
            config,
            wanted_bytes: backend.estimate(options)?.total_bytes(),
            least_bytes: least.total_bytes(),
            wants_gpus: backend.uses_gpus(options),
        };
        loop {
            let Some(victim) = self.next_victim(&need)? else { return Ok(()) };
            self.evict(&victim, &need)?;
        }
    }

    /// The model that has to go next; `None` when there is room.
    fn next_victim(&self, need: &Need<'_>) -> Result<Option<Arc<Resident>>, RuntimeError> {
        let hardware = (self.probe)();
        let state = lock(&self.state);
        let others = self.others(&state, need.config);
        let tightest = self.tightest(&hardware, need, &others);
        let mut candidates: Vec<&Arc<Resident>> =
            others.iter().filter(|resident| resident.config.residency != Residency::Pinned).collect();
        self.sort(&mut candidates);
        let first = |residents: &[&Arc<Resident>]| residents.first().map(|resident| Arc::clone(resident));

        let shares_group = |resident: &&&Arc<Resident>| {
            let groups = &resident.config.concurrency_groups;
            need.config.concurrency_groups.iter().any(|group| groups.contains(group))
        };
        if let Some(resident) = others.iter().collect::<Vec<_>>().iter().find(shares_group) {
            return Ok(Some(Arc::clone(resident)));
        }
        if self.residency.max_models.is_some_and(|most| others.len() >= most.max(1)) {
            return match first(&candidates) {
                Some(victim) => Ok(Some(victim)),
                None => Err(self.no_room(need, tightest.map_or(0, |bound| bound.free_bytes), others.len())),
            };
        }
        // Those in use go only when there is no other way.
        let idle: Vec<&Arc<Resident>> = candidates.iter().copied().filter(|resident| resident.is_idle()).collect();
        if crowds_gpus(&hardware, need, &idle) {
            return Ok(idle.iter().find(|resident| resident.gpu_bytes() > 0).map(|resident| Arc::clone(resident)));
        }
        let Some(bound) = tightest.filter(|bound| need.wanted_bytes > bound.free_bytes) else { return Ok(None) };
        let free = bound.free_bytes;
        let gives = |resident: &&Arc<Resident>| (bound.gives)(resident.as_ref());
        let evictable: u64 = candidates.iter().map(gives).sum();
        if need.least_bytes > free.saturating_add(evictable) {
            let n_pinned = others.len() - candidates.len();
            return Err(self.no_room(need, free + evictable, n_pinned));
        }
        match idle.iter().find(|resident| gives(resident) > 0) {
            Some(victim) => Ok(Some(Arc::clone(victim))),
            None if need.least_bytes <= free => Ok(None),
            None => Ok(candidates.iter().find(|resident| gives(resident) > 0).map(|resident| Arc::clone(resident))),
        }
    }

    /// The bound with the least left, of those that a model of this need meets; `None` when nothing is known of any.
    fn tightest(&self, hardware: &Hardware, need: &Need<'_>, others: &[Arc<Resident>]) -> Option<Bound> {
        let bound = |budget: Option<u64>, gives: fn(&Resident) -> u64| {
            let taken: u64 = others.iter().map(|resident| gives(resident)).sum();
            budget.map(|budget| Bound { free_bytes: budget.saturating_sub(taken), gives })
        };
        let bytes: fn(&Resident) -> u64 = Resident::bytes;
        let machine = usable_bytes(hardware, need.wants_gpus)
            .map(|free_bytes| Bound { free_bytes, gives: if need.wants_gpus { bytes } else { Resident::main_bytes } });
        let all = bound(self.residency.memory_budget_bytes, bytes);
        let on_gpus = bound(self.residency.gpu_budget_bytes.filter(|_| need.wants_gpus), Resident::gpu_bytes);
        machine.into_iter().chain(all).chain(on_gpus).min_by_key(|bound| bound.free_bytes)
    }

    /// Every model in memory but the one that is to be loaded.
    fn others(&self, state: &State, config: &ModelConfig) -> Vec<Arc<Resident>> {
        let others = state.slots.iter().filter(|(name, _)| **name != config.name);
        let resident = |(_, slot): (&String, &Slot)| match slot {
            Slot::Ready(resident) | Slot::Leaving(resident, _) => Some(Arc::clone(resident)),
            Slot::Loading(_) => None,
        };
        others.filter_map(resident).collect()
    }

    /// Idle ones first; among them the largest or the one that was used least recently.
    fn sort(&self, residents: &mut [&Arc<Resident>]) {
        match self.residency.evicts_largest {
            true => residents.sort_by_key(|resident| (!resident.is_idle(), std::cmp::Reverse(resident.bytes()))),
            false => residents.sort_by_key(|resident| (!resident.is_idle(), resident.last_used())),
        }
    }

    fn no_room(&self, need: &Need<'_>, free_bytes: u64, n_busy: usize) -> RuntimeError {
        RuntimeError::OutOfMemory {
            model: need.config.name.clone(),
            needed_mib: need.least_bytes >> 20,
            free_mib: free_bytes >> 20,
            n_busy,
        }
    }

    /// Waits until a model has had its turn and its answers have ended, and takes it out of memory.
    fn evict(&self, victim: &Arc<Resident>, need: &Need<'_>) -> Result<(), RuntimeError> {
        let name = &victim.config.name;
        let turn = self.residency.min_residence.max(SHORTEST_TURN);
        std::thread::sleep((victim.since + turn).saturating_duration_since(Instant::now()));
        let mut state = lock(&self.state);
        match state.slots.get(name) {
            Some(Slot::Ready(resident)) if Arc::ptr_eq(resident, victim) => {
                let (left, _) = channel::channel(());
                state.slots.insert(name.clone(), Slot::Leaving(Arc::clone(victim), left));
            }
            // It has gone meanwhile.
            Some(_) | None => return Ok(()),
        }
        let deadline = Instant::now() + self.residency.busy_wait;
        while !victim.is_idle() {
            if self.residency.ends_busy_models {
                tracing::warn!(model = name, "its answers are ended to make room for {}", need.config.name);
                victim.engine.close();
                break;
            }
            if Instant::now() >= deadline {
                // Dropping the sender lets those in who waited for it.
                state.slots.insert(name.clone(), Slot::Ready(Arc::clone(victim)));
                let others = self.others(&state, need.config).len();
                return Err(self.no_room(need, 0, others));
            }
            let waited = self.ended.wait_timeout(state, LOOK);
            state = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
        let removed = match state.slots.get(name) {
            Some(Slot::Leaving(..)) => state.slots.remove(name),
            Some(_) | None => None,
        };
        drop(state);
        tracing::info!(model = name, "evicted to make room for {}", need.config.name);
        // Its memory is there once its thread has ended; only then may those ask for it who wait.
        if let Some(Slot::Leaving(resident, left)) = removed {
            free(resident, victim);
            drop(left);
        }
        Ok(())
    }
}

/// Drops the handles of an engine but the caller's, which goes right after: then its thread ends.
fn free(resident: Arc<Resident>, victim: &Arc<Resident>) {
    drop(resident);
    // An ended answer may hold the model for another moment.
    let patience = Instant::now() + Duration::from_secs(5);
    while Arc::strong_count(victim) > 1 && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Would the model fit on the GPUs as a whole, were it not for idle ones that are there? Half on the CPU it would be
/// several times slower, which costs more than loading an idle model again when it is asked for.
fn crowds_gpus(hardware: &Hardware, need: &Need<'_>, idle: &[&Arc<Resident>]) -> bool {
    let free_bytes = hardware.gpus().map(|gpu| gpu.free_bytes).sum::<u64>() as f64 * USABLE_SHARE;
    let idle_bytes: u64 = idle.iter().map(|resident| resident.gpu_bytes()).sum();
    let wanted_bytes = need.wanted_bytes as f64;
    need.wants_gpus && idle_bytes > 0 && free_bytes < wanted_bytes && wanted_bytes <= free_bytes + idle_bytes as f64
}

/// Bytes that models may still take; `None` when the machine does not tell. A model that does not fit on the GPUs may
/// still run partly on the CPU, so both count for it; one that is for the CPU alone has main memory only.
fn usable_bytes(hardware: &Hardware, wants_gpus: bool) -> Option<u64> {
    let cpu = hardware.cpu().filter(|cpu| cpu.total_bytes > 0)?;
    let gpu_bytes: u64 = hardware.gpus().map(|gpu| gpu.free_bytes).sum();
    let free_bytes = cpu.free_bytes + if wants_gpus { gpu_bytes } else { 0 };
    Some((free_bytes as f64 * USABLE_SHARE) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_given_up_holds_nobody_up() {
        let turns = Arc::new(Turns::default());
        let (first, second, third) = (turns.take(), turns.take(), turns.take());
        drop(second);
        first.wait();
        let waiting = std::thread::spawn(move || third.wait());
        drop(first);
        waiting.join().expect("it is the third's turn");
        turns.take().wait();
    }
}
