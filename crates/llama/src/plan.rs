//! How large everything is made: arithmetic over options, header and hardware; no device is asked.

use ingle_engine::{CacheType, EngineError, GpuLayers, Hardware, LoadOptions, Lora, MemoryEstimate, RopeScaling};
use ingle_gguf::{GgmlType, ModelInfo};

use crate::fit::{Demand, Placement};
use crate::model::option_error;

/// Requests that run at the same time.
const DEFAULT_SLOTS: usize = 8;
const DEFAULT_BATCH: usize = 512;
/// A default context is no longer than this for one request, and twice that in total.
const DEFAULT_SEQUENCE: usize = 8192;
/// llama.cpp's limit of sequences in one context.
const MAX_SEQUENCES: usize = 256;
/// Sequences that are added at most so that the caches of sliding-window layers become as long as the context.
const MAX_WINDOW_SEQUENCES: usize = 64;
/// Finished prefixes outside the cache take at most this part (1 / n) of the memory that is left, never more than the
/// second number, and never more than the cache itself, so that the memory a model takes can be foreseen.
const SAVED_SHARE: u64 = 8;
const MOST_SAVED_BYTES: usize = 2 << 30;
/// llama.cpp rounds cache lengths up to this.
const CELL_BLOCK: usize = 256;
/// A default context is never made smaller than this to save memory.
const LEAST_CONTEXT: usize = 1024;
/// Nor than this so that the model fits on the GPUs as a whole.
const LEAST_GPU_CONTEXT: usize = 4096;
const MAX_THREADS: usize = 512;
/// Most tokens that llama.cpp computes at once; larger batches are taken apart by it.
const MAX_PHYSICAL_BATCH: usize = 512;

/// The sizes of one loaded model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// Cells in the cache, shared by all sequences.
    pub n_cells: usize,
    /// Most tokens of one sequence.
    pub n_sequence_tokens: usize,
    pub n_batch: usize,
    /// Tokens that llama.cpp computes at once.
    pub n_physical_batch: usize,
    pub n_slots: usize,
    /// Slots, and sequences that hold cached prefixes.
    pub n_seqs: usize,
    pub n_threads: usize,
    /// Compute threads for prompts.
    pub n_prompt_threads: usize,
    /// Layers of the model, the output matrix not counted.
    pub n_layers: u32,
    /// Where the weights go.
    pub placement: Placement,
    /// Main memory for finished prefixes outside the cache.
    pub most_saved_bytes: usize,
    pub memory: MemoryEstimate,
}

/// What the machine has, as far as sizes depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Room {
    pub n_cores: usize,
    /// Main memory free; `None` when unknown.
    pub main_bytes: Option<u64>,
    /// Memory free on each GPU that this build can use.
    pub gpu_bytes: Vec<u64>,
}

impl Room {
    pub(crate) fn new(hardware: &Hardware, gpu_bytes: Vec<u64>) -> Self {
        let main_bytes = hardware.cpu().map(|cpu| cpu.free_bytes).filter(|&bytes| bytes > 0);
        Self { n_cores: hardware.n_cores.max(1), main_bytes, gpu_bytes }
    }

    /// For estimates before the machine is looked at.
    pub(crate) fn unlimited() -> Self {
        Self { n_cores: 1, main_bytes: None, gpu_bytes: Vec::new() }
    }

    /// With an eighth less on the GPUs than a model that found no memory there wanted, or than there seemed to be.
    pub(crate) fn tightened(&self, wanted_bytes: u64) -> Self {
        let free_bytes: u64 = self.gpu_bytes.iter().sum();
        let share = 0.875 * (wanted_bytes as f64 / free_bytes.max(1) as f64).min(1.0);
        let gpu_bytes = self.gpu_bytes.iter().map(|&bytes| (bytes as f64 * share) as u64).collect();
        Self { gpu_bytes, ..self.clone() }
    }
}

impl Plan {
    /// Chooses what `options` leave open.
    ///
    /// # Errors
    /// [`EngineError::Option`] for options that contradict each other or llama.cpp's limits.
    pub(crate) fn new(options: &LoadOptions, info: &ModelInfo, room: &Room) -> Result<Self, EngineError> {
        check_options(options)?;
        // "As much as it was trained with" is a context without end.
        let trained = LoadOptions { context_size: Some(info.n_ctx_train.max(1) as usize), ..options.clone() };
        let options = if options.context_size == Some(usize::MAX) { &trained } else { options };
        let n_slots = options.parallel.unwrap_or(DEFAULT_SLOTS);
        let n_batch = options.batch.unwrap_or(DEFAULT_BATCH);
        let with_cells = |n_cells| Self::with_cells(options, info, n_cells, n_slots, n_batch);
        let n_cells = match options.context_size {
            Some(n_cells) => n_cells,
            None => default_context(info, options, room, &with_cells),
        };
        let mut plan = with_cells(n_cells);
        plan.n_threads = options.threads.unwrap_or(room.n_cores);
        plan.n_prompt_threads = options.prompt_threads.unwrap_or(plan.n_threads);
        plan.placement = Demand { info, options, memory: plan.memory }.place(&room.gpu_bytes);
        let main_left = room.main_bytes.map_or(0, |bytes| bytes.saturating_sub(plan.memory.total_bytes()));
        let share = (main_left / SAVED_SHARE).min(plan.memory.cache_bytes);
        plan.most_saved_bytes = usize::try_from(share).unwrap_or(usize::MAX).min(MOST_SAVED_BYTES);
        if plan.n_batch < n_slots {
            let reason = format!("{n_slots} requests do not fit into a batch of {}; lower it", plan.n_batch);
            return Err(option_error("parallel", reason));
        }
        Ok(plan)
    }

    /// The same with half the context, where nobody asked for a certain one and it has not become tiny.
    pub(crate) fn halved(&self, options: &LoadOptions) -> Option<LoadOptions> {
        let n_cells = self.n_cells / 2;
        let may_shrink = options.context_size.is_none() && n_cells >= LEAST_CONTEXT;
        may_shrink.then(|| LoadOptions { context_size: Some(n_cells), ..options.clone() })
    }

    fn with_cells(options: &LoadOptions, info: &ModelInfo, n_cells: usize, n_slots: usize, n_batch: usize) -> Self {
        let n_batch = n_batch.min(n_cells.next_multiple_of(CELL_BLOCK));
        let n_seqs = n_sequences(options, info, n_cells, n_slots, n_batch);
        let is_stretched = options.rope_freq_base.is_some()
            || options.rope_freq_scale.is_some()
            || matches!(options.rope_scaling, Some(RopeScaling::Linear | RopeScaling::Yarn));
        let n_trained = info.n_ctx_train as usize;
        let n_sequence_tokens = if is_stretched { n_cells } else { n_cells.min(n_trained) };
        let n_physical_batch = physical_batch(options, n_batch);
        let sizes = Sizes { n_cells, n_seqs, n_batch, n_physical_batch };
        let memory = estimate(options, info, sizes);
        Self {
            n_cells,
            n_sequence_tokens,
            n_batch,
            n_physical_batch,
            n_slots,
            n_seqs,
            n_threads: 1,
            n_prompt_threads: 1,
            n_layers: info.n_layers,
            placement: Placement::default(),
            most_saved_bytes: 0,
            memory,
        }
    }
}

/// Lengths of the caches and of a step.
#[derive(Clone, Copy)]
struct Sizes {
    n_cells: usize,
    n_seqs: usize,
    n_batch: usize,
    n_physical_batch: usize,
}

/// Tokens that llama.cpp computes at once, of a batch of `n_batch`.
fn physical_batch(options: &LoadOptions, n_batch: usize) -> usize {
    n_batch.min(options.physical_batch.unwrap_or(MAX_PHYSICAL_BATCH))
}

fn check_options(options: &LoadOptions) -> Result<(), EngineError> {
    let check = |option: &str, value: Option<usize>, limit: usize| match value {
        Some(value) if !(1..=limit).contains(&value) => {
            Err(option_error(option, format!("it is {value} and must be between 1 and {limit}")))
        }
        Some(_) | None => Ok(()),
    };
    check("parallel", options.parallel, MAX_SEQUENCES)?;
    check("batch", options.batch, 1 << 16)?;
    check("threads", options.threads, MAX_THREADS)?;
    check("context_size", options.context_size.filter(|&size| size != usize::MAX), 1 << 27)?;
    check("n_ubatch", options.physical_batch, 1 << 16)?;
    check("threads_batch", options.prompt_threads, MAX_THREADS)?;
    for (option, value) in [("rope_freq_base", options.rope_freq_base), ("rope_freq_scale", options.rope_freq_scale)] {
        if value.is_some_and(|value| !value.is_finite() || value <= 0.0) {
            return Err(option_error(option, "it must be a positive number"));
        }
    }
    Ok(())
}

fn default_cells(info: &ModelInfo) -> usize {
    2 * (info.n_ctx_train as usize).min(DEFAULT_SEQUENCE)
}

/// The context where nobody asked for one: halved until the memory holds it, and, where that is what it takes, until
/// the model fits on the GPUs as a whole.
fn default_context(info: &ModelInfo, options: &LoadOptions, room: &Room, with_cells: &dyn Fn(usize) -> Plan) -> usize {
    let sizes = || {
        std::iter::successors(Some(default_cells(info)), |&n_cells| {
            Some(n_cells / 2).filter(|&half| half >= LEAST_CONTEXT)
        })
    };
    let gpu_bytes: u64 = room.gpu_bytes.iter().sum();
    if gpu_bytes > 0 && options.gpu_layers == GpuLayers::Auto {
        let on_gpus =
            |n_cells: &usize| Demand { info, options, memory: with_cells(*n_cells).memory }.fits(&room.gpu_bytes);
        let long_enough = sizes().take_while(|&n_cells| n_cells >= LEAST_GPU_CONTEXT.min(default_cells(info)));
        if let Some(n_cells) = long_enough.into_iter().find(on_gpus) {
            return n_cells;
        }
    }
    let Some(main_bytes) = room.main_bytes else { return default_cells(info) };
    let limit = main_bytes.saturating_add(gpu_bytes);
    let fits = |n_cells: &usize| with_cells(*n_cells).memory.total_bytes() <= limit;
    sizes().find(fits).or_else(|| sizes().last()).unwrap_or(LEAST_CONTEXT)
}

/// Slots plus room for cached prefixes. Recurrent models pay for each with a whole state.
fn n_sequences(options: &LoadOptions, info: &ModelInfo, n_cells: usize, n_slots: usize, n_batch: usize) -> usize {
    let has_state = info.is_recurrent || info.is_hybrid;
    let mut n_seqs = if has_state { 2 * n_slots } else { (2 * n_slots).max(n_slots + 16) };
    if let Some(window) = info.sliding_window.filter(|_| !options.swa_full && !has_state) {
        let n_whole = n_cells.saturating_sub(physical_batch(options, n_batch)).div_ceil(window as usize);
        if n_whole <= MAX_WINDOW_SEQUENCES {
            n_seqs = n_seqs.max(n_whole);
        }
    }
    n_seqs.min(MAX_SEQUENCES).min(n_batch)
}

/// Cells that llama.cpp gives the sliding-window layers of a unified cache.
pub(crate) fn n_window_cells(window: usize, n_cells: usize, n_seqs: usize, n_physical: usize) -> usize {
    n_cells.min(window.saturating_mul(n_seqs).saturating_add(n_physical)).next_multiple_of(CELL_BLOCK)
}

fn estimate(options: &LoadOptions, info: &ModelInfo, sizes: Sizes) -> MemoryEstimate {
    let Sizes { n_cells, n_seqs, n_batch, n_physical_batch } = sizes;
    let (key_type, value_type) = (ggml_type(options.cache_type_k), ggml_type(options.cache_type_v));
    let n_padded = n_cells.next_multiple_of(CELL_BLOCK);
    let n_window = match info.sliding_window {
        Some(window) if !options.swa_full => n_window_cells(window as usize, n_padded, n_seqs, n_physical_batch),
        Some(_) | None => n_padded,
    };
    let kv_bytes = info.windowed_kv_cache_bytes(n_padded as u64, n_window as u64, key_type, value_type);
    // An adapter that cannot be read is an error when it is loaded.
    let lora_bytes = |lora: &Lora| std::fs::metadata(&lora.path).map_or(0, |metadata| metadata.len());
    MemoryEstimate {
        weight_bytes: info.weight_bytes + info.relaid_bytes + options.loras.iter().map(lora_bytes).sum::<u64>(),
        cache_bytes: kv_bytes.saturating_add(info.recurrent_bytes(n_seqs as u64)),
        compute_bytes: compute_bytes(info, n_padded as u64, n_seqs as u64, n_batch as u64),
    }
}

/// A bound on the buffers of one step: rows of logits (twice, in the graph and out of it), the widest activations of a
/// layer, and the attention mask in both formats.
fn compute_bytes(info: &ModelInfo, n_cells: u64, n_rows: u64, n_batch: u64) -> u64 {
    let n_ff = info.n_ff.iter().copied().max().unwrap_or(0);
    let rows = u64::from(info.n_vocab).saturating_mul(n_rows).saturating_mul(8);
    let width = 3 * u64::from(n_ff) + 8 * u64::from(info.n_embd);
    let activations = width.saturating_mul(n_batch).saturating_mul(4);
    let masks = n_cells.saturating_mul(n_batch).saturating_mul(6);
    rows.saturating_add(activations).saturating_add(masks)
}

pub(crate) fn ggml_type(cache_type: CacheType) -> GgmlType {
    match cache_type {
        CacheType::F32 => GgmlType::F32,
        CacheType::F16 => GgmlType::F16,
        CacheType::Bf16 => GgmlType::BF16,
        CacheType::Q8_0 => GgmlType::Q8_0,
        CacheType::Q4_0 => GgmlType::Q4_0,
        CacheType::Q4_1 => GgmlType::Q4_1,
        CacheType::Q5_0 => GgmlType::Q5_0,
        CacheType::Q5_1 => GgmlType::Q5_1,
        CacheType::Iq4Nl => GgmlType::IQ4_NL,
    }
}

#[cfg(test)]
mod tests {
    use ingle_gguf::{Header, writer};

    use super::*;

    /// A tiny model with its numbers changed.
    fn info(change: impl FnOnce(&mut ModelInfo)) -> ModelInfo {
        let bytes = writer::tiny_llama().bytes();
        let mut info = Header::from_bytes(&bytes, bytes.len() as u64).unwrap().validate().unwrap();
        info.n_ctx_train = 4096;
        change(&mut info);
        info
    }

    fn plan(options: LoadOptions, info: &ModelInfo) -> Plan {
        Plan::new(&options, info, &Room::unlimited()).unwrap()
    }

    #[test]
    fn sizes_are_chosen_where_options_leave_them_open() {
        let defaults = plan(LoadOptions::default(), &info(|_| {}));
        assert_eq!((defaults.n_cells, defaults.n_sequence_tokens), (8192, 4096));
        assert_eq!((defaults.n_slots, defaults.n_seqs, defaults.n_batch), (8, 24, 512));
        let long = plan(LoadOptions::default(), &info(|info| info.n_ctx_train = 131_072));
        assert_eq!((long.n_cells, long.n_sequence_tokens), (16_384, 16_384));
        let small = LoadOptions { context_size: Some(300), parallel: Some(64), ..LoadOptions::default() };
        let small = plan(small, &info(|_| {}));
        assert_eq!((small.n_cells, small.n_sequence_tokens, small.n_batch, small.n_seqs), (300, 300, 512, 128));
        let stretched = LoadOptions { context_size: Some(8192), rope_freq_scale: Some(0.5), ..LoadOptions::default() };
        assert_eq!(plan(stretched, &info(|_| {})).n_sequence_tokens, 8192);
    }

    #[test]
    fn sequences_are_added_until_window_caches_are_whole() {
        let windowed = info(|info| info.sliding_window = Some(512));
        let options = LoadOptions { context_size: Some(16_384), ..LoadOptions::default() };
        let added = plan(options.clone(), &windowed);
        assert_eq!(added.n_seqs, 31);
        assert_eq!(n_window_cells(512, 16_384, added.n_seqs, added.n_physical_batch), 16_384);
        let full = LoadOptions { swa_full: true, ..options.clone() };
        assert_eq!(plan(full, &windowed).n_seqs, 24);
        let narrow = info(|info| info.sliding_window = Some(128));
        assert_eq!(plan(options, &narrow).n_seqs, 24, "too many would be needed");
    }

    #[test]
    fn a_default_context_shrinks_to_the_memory_there_is() {
        let info = info(|_| {});
        let all = plan(LoadOptions::default(), &info);
        let room = Room { n_cores: 3, main_bytes: Some(all.memory.total_bytes() - 1), gpu_bytes: Vec::new() };
        let shrunk = Plan::new(&LoadOptions::default(), &info, &room).unwrap();
        assert_eq!((shrunk.n_cells, shrunk.n_threads), (4096, 3));
        let fixed = LoadOptions { context_size: Some(8192), ..LoadOptions::default() };
        assert_eq!(Plan::new(&fixed, &info, &room).unwrap().n_cells, 8192, "what was asked for is tried");
        let none = Room { main_bytes: Some(0), ..room };
        assert_eq!(Plan::new(&LoadOptions::default(), &info, &none).unwrap().n_cells, 1024);
    }

    #[test]
    fn what_failed_is_tried_with_half_the_context() {
        let info = info(|_| {});
        let mut options = LoadOptions::default();
        let mut sizes = Vec::new();
        loop {
            let plan = plan(options.clone(), &info);
            sizes.push(plan.n_cells);
            let free = LoadOptions { context_size: None, ..options };
            let Some(smaller) = plan.halved(&free) else { break };
            options = smaller;
        }
        assert_eq!(sizes, [8192, 4096, 2048, 1024]);
        let fixed = LoadOptions { context_size: Some(8192), ..LoadOptions::default() };
        assert_eq!(plan(fixed.clone(), &info).halved(&fixed), None, "a context that was asked for is kept");
    }
}
