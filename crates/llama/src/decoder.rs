//! llama.cpp's context as the batching loop's [`Decoder`].

use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ingle_engine::{
    BatchToken, CacheRefused, DecodeError, Decoder, DecoderLimits, EngineError, FaultReporter, FlashAttention,
    LoadOptions, PrefixSharing, RopeScaling, RowWork, Seat, SeqId, TokenId,
};

use crate::exit::{self, Call};
use crate::fault::FaultDomain;
use crate::ffi::{self, guarded, sys};
use crate::log::{self, Buffer};
use crate::lora;
use crate::model::{Model, failure, load_error, option_error, or_unknown};
use crate::plan::{Plan, ggml_type, n_window_cells};
use crate::pool::ThreadPool;

/// llama.cpp's result for a cache without a place for the batch.
const NO_ROOM: i32 = 1;

/// From so many logits in all rows of a step on, the compute threads share the rows: a job for them costs some ten
/// microseconds, in which one thread looks at about as many logits.
const SHARE_FROM: usize = 1 << 18;

/// A model with its cache and its compute threads.
pub struct LlamaDecoder {
    context: Context,
    limits: DecoderLimits,
    batch: Batch,
    /// By entry of the last successful step: was a row asked for?
    has_row: Vec<bool>,
    /// Sequences of the current step and the length each had before it.
    lengths: Vec<(SeqId, usize)>,
    /// Also the draft model's.
    pool: Arc<Mutex<ThreadPool>>,
    n_threads: usize,
    /// Cores for a step; not asked for while the model is loaded.
    seat: Option<Arc<Seat>>,
    faults: FaultDomain,
    _model: Arc<Model>,
}

/// Owner of a `llama_context`.
pub(crate) struct Context(pub(crate) NonNull<sys::llama_context>);

// SAFETY: a context may be used by any thread, one at a time; it is owned by one decoder, whose methods that touch it
// mutably take `&mut self`, and the decoder is not `Sync`.
unsafe impl Send for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        let _running = Call::begin();
        // SAFETY: made by `llama_init_from_model` and not used any more; the model outlives it, see the field order.
        unsafe { sys::llama_free(self.0.as_ptr()) };
    }
}

impl Context {
    pub(crate) fn memory(&self) -> sys::llama_memory_t {
        // SAFETY: the context is alive.
        unsafe { sys::llama_get_memory(self.0.as_ptr()) }
    }

    /// Steps run on the threads of `pool`, which must outlive the context, and end early when the process does.
    pub(crate) fn use_pool(&self, pool: &ThreadPool) {
        // SAFETY: context and pool are alive, and the callback needs no data.
        unsafe {
            sys::llama_attach_threadpool(self.0.as_ptr(), pool.as_ptr(), pool.as_ptr());
            sys::llama_set_abort_callback(self.0.as_ptr(), Some(exit::ends_step), std::ptr::null_mut());
        }
    }
}

/// Arrays that a `llama_batch` points to, `[n_batch]` each.
pub(crate) struct Batch {
    tokens: Vec<i32>,
    positions: Vec<i32>,
    n_seq_ids: Vec<i32>,
    seq_ids: Vec<i32>,
    /// Entry `i` points to `seq_ids[i]`.
    seq_id_pointers: Vec<*mut i32>,
    wants_row: Vec<i8>,
}

// SAFETY: the pointers lead into this struct's own heap memory and are set anew before each use.
unsafe impl Send for Batch {}

impl Batch {
    pub(crate) fn new(n_batch: usize) -> Self {
        Self {
            tokens: vec![0; n_batch],
            positions: vec![0; n_batch],
            n_seq_ids: vec![1; n_batch],
            seq_ids: vec![0; n_batch],
            seq_id_pointers: vec![std::ptr::null_mut(); n_batch],
            wants_row: vec![0; n_batch],
        }
    }

    /// Fills the arrays; `entries` fit, and their numbers are in range.
    pub(crate) fn fill(&mut self, entries: &[BatchToken]) -> sys::llama_batch {
        for (entry_idx, entry) in entries.iter().enumerate() {
            self.tokens[entry_idx] = entry.token as i32;
            self.positions[entry_idx] = entry.position as i32;
            self.seq_ids[entry_idx] = entry.seq as i32;
            self.wants_row[entry_idx] = i8::from(entry.wants_row);
        }
        for (pointer, seq_id) in self.seq_id_pointers.iter_mut().zip(&mut self.seq_ids) {
            *pointer = seq_id;
        }
        sys::llama_batch {
            n_tokens: entries.len() as i32,
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.n_seq_ids.as_mut_ptr(),
            seq_id: self.seq_id_pointers.as_mut_ptr(),
            logits: self.wants_row.as_mut_ptr(),
        }
    }
}

/// One engine thread uses a pool, so nobody waits here.
fn lock(pool: &Mutex<ThreadPool>) -> MutexGuard<'_, ThreadPool> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A row of logits on its way to the threads.
struct Row(*const f32);

// SAFETY: the row is only read, and stays where it is as long as this is used.
unsafe impl Sync for Row {}

impl LlamaDecoder {
    pub(crate) fn new(
        model: &Arc<Model>,
        options: &LoadOptions,
        plan: &Plan,
        faults: &FaultDomain,
        pool: Option<Arc<Mutex<ThreadPool>>>,
    ) -> Result<(Self, Vec<Buffer>), EngineError> {
        let params = context_params(options, plan)?;
        // SAFETY: the model is alive, and the parameters hold no pointers.
        let make = || guarded(|| unsafe { ffi::llama_init_from_model(model.as_ptr(), params) });
        let (made, captured) = log::capture(make);
        let made = made.map_err(|reason| failure(&options.path, reason))?;
        let refused = || refused_context(options, plan, &captured.complaints());
        let context = NonNull::new(made).map(Context).ok_or_else(refused)?;
        // A graph uses as many of the pool's threads as it is made for.
        let n_threads = plan.n_threads.max(plan.n_prompt_threads);
        let pool = match pool {
            Some(pool) => pool,
            None => {
                let pool = ThreadPool::new(n_threads, faults).map_err(|reason| load_error(&options.path, reason))?;
                Arc::new(Mutex::new(pool))
            }
        };
        context.use_pool(&lock(&pool));
        lora::attach(model, context.0, &options.loras)?;
        let limits = limits(model, options, plan, &context);
        let batch = Batch::new(limits.n_batch);
        let model = Arc::clone(model);
        let decoder = Self {
            context,
            limits,
            batch,
            has_row: Vec::new(),
            lengths: Vec::new(),
            pool,
            n_threads: gate_threads(plan, n_threads, &model),
            seat: None,
            faults: faults.clone(),
            _model: model,
        };
        Ok((decoder, captured.buffers))
    }

    /// Computes one token and looks at the result: fuzzed weights load without complaint.
    pub(crate) fn warm_up(&mut self, path: &Path, token: TokenId) -> Result<(), EngineError> {
        let entry = BatchToken { token, position: 0, seq: 0, wants_row: true };
        self.decode(&[entry]).map_err(|error| load_error(path, format!("its first step failed: {error}")))?;
        let row = self.row(0)?;
        if row.iter().any(|logit| logit.is_nan()) || !row.iter().any(|logit| logit.is_finite()) {
            return Err(load_error(path, "its weights produce NaN; the file is damaged, download it again"));
        }
        // SAFETY: the memory belongs to a living context.
        let clear = || unsafe { ffi::llama_memory_clear(self.context.memory(), true) };
        guarded(clear).map_err(|reason| load_error(path, reason))
    }

    /// Its compute threads, for a second context of the same engine.
    pub(crate) fn pool(&self) -> Arc<Mutex<ThreadPool>> {
        Arc::clone(&self.pool)
    }

    /// Faults are reported to `reporter` from now on, and the calling thread becomes the engine's.
    pub fn adopt(&mut self, reporter: FaultReporter) {
        let seat = Arc::new(Seat::new());
        let dying = Arc::clone(&seat);
        self.faults.set_sink(Box::new(move |reason| {
            dying.leave();
            reporter.report(reason);
        }));
        self.faults.adopt_thread();
        self.seat = Some(seat);
    }

    /// Belongs to the engine of `other`, in whose turn for cores it computes.
    pub(crate) fn take_seat_of(&mut self, other: &Self) {
        self.seat = other.seat.clone();
    }

    /// Runs `job` once on each compute thread, with the thread's number; number 0 is the calling thread. `job` must
    /// not panic.
    ///
    /// # Errors
    /// [`EngineError::Decode`] when the threads cannot run it.
    pub fn for_each_thread(&mut self, job: &(dyn Fn(usize) + Sync)) -> Result<(), EngineError> {
        let (pool, n_threads) = (&self.pool, self.n_threads);
        let done = match &self.seat {
            Some(seat) => seat.with_cores(n_threads, || lock(pool).for_each(job)),
            None => lock(pool).for_each(job),
        };
        done.map_err(|reason| EngineError::Decode { reason })
    }

    /// Shares the rows among the compute threads; false when those cannot work, and then `work` has run for no row.
    fn share_rows(&mut self, entry_idxs: &[usize], work: &RowWork<'_>) -> bool {
        let n_vocab = self.limits.n_vocab;
        // The rows are in one place of the context, which nobody changes until `work` has run for all of them.
        let rows: Vec<_> = entry_idxs.iter().map(|&idx| self.row(idx).map(|row| Row(row.as_ptr()))).collect();
        let next = AtomicUsize::new(0);
        let pool = Arc::clone(&self.pool);
        let done = lock(&pool).for_each(&|_| {
            loop {
                let idx = next.fetch_add(1, Ordering::Relaxed);
                let Some(row) = rows.get(idx) else { return };
                // SAFETY: a row has `n_vocab` floats, and the context is not touched while the pool works on this job.
                let row = row.as_ref().map(|row| unsafe { std::slice::from_raw_parts(row.0, n_vocab) });
                work(idx, row.map_err(Clone::clone));
            }
        });
        done.is_ok() || next.load(Ordering::Relaxed) > 0
    }

    /// Refuses what C++ would answer with an abort or an unspecific error, and notes the lengths of the sequences.
    fn check(&mut self, batch: &[BatchToken]) -> Result<(), String> {
        let limits = &self.limits;
        if batch.is_empty() || batch.len() > limits.n_batch {
            return Err(format!("a batch of {} tokens; it must have 1 to {}", batch.len(), limits.n_batch));
        }
        let n_rows = batch.iter().filter(|entry| entry.wants_row).count();
        if n_rows > limits.n_seqs {
            return Err(format!("{n_rows} rows in one step; at most {} can be had", limits.n_seqs));
        }
        if let Some(entry) = batch.iter().find(|entry| entry.token as usize >= limits.n_vocab) {
            return Err(format!("token {} does not exist", entry.token));
        }
        if let Some(entry) = batch.iter().find(|entry| entry.seq as usize >= limits.n_seqs) {
            return Err(format!("sequence {} does not exist", entry.seq));
        }
        self.check_positions(batch)
    }

    fn check_positions(&mut self, batch: &[BatchToken]) -> Result<(), String> {
        self.lengths.clear();
        let mut next: Vec<usize> = Vec::new();
        for entry in batch {
            let known = self.lengths.iter().rposition(|&(seq, _)| seq == entry.seq);
            let idx = known.unwrap_or_else(|| {
                let length = self.length(entry.seq);
                self.lengths.push((entry.seq, length));
                next.push(length);
                next.len() - 1
            });
            if entry.position != next[idx] || entry.position >= self.limits.n_cells {
                return Err(format!(
                    "position {} of sequence {} is not {}, which is next",
                    entry.position, entry.seq, next[idx]
                ));
            }
            next[idx] += 1;
        }
        Ok(())
    }

    /// Tokens that `seq` holds, those that have left a sliding window included.
    fn length(&self, seq: SeqId) -> usize {
        // SAFETY: the memory belongs to a living context, and the sequence was checked.
        let last = unsafe { sys::llama_memory_seq_pos_max(self.context.memory(), seq as i32) };
        usize::try_from(last + 1).unwrap_or(0)
    }

    /// Can `seq` be continued behind its first `n_tokens`? Cells that have left a sliding window are overwritten by any
    /// sequence's step, by a state that is brought back, and in part by a step that fails, so only the cache itself
    /// can tell.
    fn holds(&self, seq: SeqId, n_tokens: usize) -> Result<(), CacheRefused> {
        let holds = self.length(seq) >= n_tokens && self.limits.can_continue(n_tokens, self.first_held(seq));
        if holds { Ok(()) } else { Err(CacheRefused) }
    }

    /// After a failed step: every sequence goes back to the length it had. Says whether all of them could; the others
    /// hold nothing any more.
    fn put_back(&mut self) -> bool {
        let mut all_back = true;
        for (seq, length) in std::mem::take(&mut self.lengths) {
            if self.cut(seq, length).is_err() {
                self.clear(seq);
                all_back = false;
            }
        }
        all_back
    }

    /// Drops positions `from..to` of `seq`; -1 is llama.cpp's word for an open end.
    fn remove(&mut self, seq: SeqId, from: i32, to: i32) -> Result<(), CacheRefused> {
        let memory = self.context.memory();
        // SAFETY: the memory belongs to a living context; llama.cpp checks the range, `seq` was checked by the caller.
        let removed = guarded(|| unsafe { ffi::llama_memory_seq_rm(memory, seq as i32, from, to) });
        if removed.unwrap_or(false) { Ok(()) } else { Err(CacheRefused) }
    }

    fn is_sequence(&self, seq: SeqId) -> Result<(), CacheRefused> {
        if (seq as usize) < self.limits.n_seqs { Ok(()) } else { Err(CacheRefused) }
    }
}

/// A position as C++ has it; positions beyond are refused.
fn position(n_tokens: usize) -> Result<i32, CacheRefused> {
    i32::try_from(n_tokens).map_err(|_| CacheRefused)
}

impl Decoder for LlamaDecoder {
    fn limits(&self) -> &DecoderLimits {
        &self.limits
    }

    fn decode(&mut self, batch: &[BatchToken]) -> Result<(), DecodeError> {
        self.has_row.clear();
        self.check(batch).map_err(|reason| DecodeError::Failed { reason })?;
        let raw = self.batch.fill(batch);
        let context = self.context.0.as_ptr();
        // SAFETY: the arrays hold `n_tokens` entries each and live until the next call; the numbers were checked.
        // A GPU computes on after `llama_decode` has returned: what comes next needs the result, and the engine measures
        // what a step costs.
        let decode = || unsafe {
            let status = ffi::llama_decode(context, raw);
            ffi::llama_synchronize(context);
            status
        };
        let step = || log::capture(|| guarded(decode));
        let (result, captured) = match &self.seat {
            Some(seat) => seat.with_cores(self.n_threads, step),
            None => step(),
        };
        let error = match result {
            Ok(0) => {
                self.has_row.extend(batch.iter().map(|entry| entry.wants_row));
                return Ok(());
            }
            Ok(NO_ROOM) => DecodeError::NoRoom,
            Ok(code) => DecodeError::Failed { reason: format!("{} (code {code})", or_unknown(&captured.complaints())) },
            Err(reason) => DecodeError::Failed { reason },
        };
        if self.put_back() {
            return Err(error);
        }
        // The same step could not succeed later either.
        Err(DecodeError::Failed { reason: format!("{error}, and what came before it is lost") })
    }

    fn row(&mut self, entry_idx: usize) -> Result<&[f32], EngineError> {
        let missing = || EngineError::Decode { reason: format!("entry {entry_idx} asked for no row") };
        if self.has_row.get(entry_idx) != Some(&true) {
            return Err(missing());
        }
        let context = self.context.0.as_ptr();
        // SAFETY: the context is alive, and the entry of its last step has a row.
        let row = guarded(|| unsafe { ffi::llama_get_logits_ith(context, entry_idx as i32) });
        let row = NonNull::new(row.map_err(|reason| EngineError::Decode { reason })?).ok_or_else(missing)?;
        // SAFETY: a row has `n_vocab` floats and stays until the next call that takes the context mutably.
        Ok(unsafe { std::slice::from_raw_parts(row.as_ptr(), self.limits.n_vocab) })
    }

    fn for_each_row(&mut self, entry_idxs: &[usize], work: &RowWork<'_>) {
        let n_threads = lock(&self.pool).n_threads();
        let is_worth_it = n_threads > 1 && entry_idxs.len() > 1 && entry_idxs.len() * self.limits.n_vocab >= SHARE_FROM;
        // Where another model waits for the cores, this thread goes on by itself.
        let is_done = match self.seat.clone() {
            _ if !is_worth_it => false,
            Some(seat) => seat.with_free_cores(n_threads, || self.share_rows(entry_idxs, work)).unwrap_or(false),
            None => self.share_rows(entry_idxs, work),
        };
        if !is_done {
            entry_idxs.iter().enumerate().for_each(|(idx, &entry_idx)| work(idx, self.row(entry_idx)));
        }
    }

    fn copy_prefix(&mut self, from: SeqId, to: SeqId, n_tokens: usize) -> Result<(), CacheRefused> {
        self.is_sequence(from)?;
        self.is_sequence(to)?;
        if self.limits.sharing != PrefixSharing::Copy || self.length(to) > 0 {
            return Err(CacheRefused);
        }
        self.holds(from, n_tokens)?;
        let (memory, end) = (self.context.memory(), position(n_tokens)?);
        // SAFETY: the memory belongs to a living context, and the sequences were checked.
        guarded(|| unsafe { ffi::llama_memory_seq_cp(memory, from as i32, to as i32, 0, end) })
            .map_err(|_| CacheRefused)
    }

    fn cut(&mut self, seq: SeqId, n_tokens: usize) -> Result<(), CacheRefused> {
        self.is_sequence(seq)?;
        if n_tokens > 0 {
            self.holds(seq, n_tokens)?;
        }
        self.remove(seq, position(n_tokens)?, -1)
    }

    fn clear(&mut self, seq: SeqId) {
        // Removing a whole sequence never fails, and one that does not exist holds nothing.
        let _ = self.is_sequence(seq).and_then(|()| self.remove(seq, -1, -1));
    }

    fn shift(&mut self, seq: SeqId, keep: usize, discard: usize) -> Result<(), CacheRefused> {
        self.is_sequence(seq)?;
        let (start, end) = (position(keep)?, position(keep.saturating_add(discard))?);
        if !self.limits.can_shift || self.length(seq) < keep.saturating_add(discard) {
            return Err(CacheRefused);
        }
        self.remove(seq, start, end)?;
        let memory = self.context.memory();
        // SAFETY: the memory belongs to a living context that can shift, and the sequence was checked.
        guarded(|| unsafe { ffi::llama_memory_seq_add(memory, seq as i32, end, -1, start - end) })
            .map_err(|_| CacheRefused)
    }

    fn save(&mut self, seq: SeqId) -> Option<Vec<u8>> {
        self.is_sequence(seq).ok()?;
        let context = self.context.0.as_ptr();
        // SAFETY: the context is alive, and the sequence was checked.
        let size = guarded(|| unsafe { ffi::llama_state_seq_get_size(context, seq as i32) }).ok()?;
        let mut state = Vec::new();
        state.try_reserve_exact(size).ok()?;
        state.resize(size, 0);
        let to = state.as_mut_ptr();
        // SAFETY: the buffer has `size` bytes; the rest as above.
        let written = guarded(|| unsafe { ffi::llama_state_seq_get_data(context, to, size, seq as i32) }).ok()?;
        (written > 0 && written <= size).then(|| {
            state.truncate(written);
            state
        })
    }

    fn restore(&mut self, to: SeqId, state: &[u8]) -> Result<(), CacheRefused> {
        self.is_sequence(to)?;
        let context = self.context.0.as_ptr();
        let read = || {
            // SAFETY: the context is alive, the sequence was checked, and the bytes live for the call; llama.cpp
            // checks them as it reads.
            guarded(|| unsafe { ffi::llama_state_seq_set_data(context, state.as_ptr(), state.len(), to as i32) })
        };
        let (read, _) = log::capture(read);
        if read.is_ok_and(|n_bytes| n_bytes > 0) {
            return Ok(());
        }
        self.clear(to);
        Err(CacheRefused)
    }

    fn first_held(&self, seq: SeqId) -> usize {
        if self.limits.sliding_window.is_none() || self.is_sequence(seq).is_err() {
            return 0;
        }
        // SAFETY: the memory belongs to a living context, and the sequence was checked.
        let first = unsafe { sys::llama_memory_seq_pos_min(self.context.memory(), seq as i32) };
        usize::try_from(first).unwrap_or(0)
    }
}

/// Threads that compute during a step: one where the whole model is on the GPU.
pub(crate) fn gate_threads(plan: &Plan, n_threads: usize, model: &Model) -> usize {
    if plan.placement.n_gpu_layers > model.n_layers() { 1 } else { n_threads }
}

pub(crate) fn context_params(options: &LoadOptions, plan: &Plan) -> Result<sys::llama_context_params, EngineError> {
    let count = |option: &str, value: usize| {
        u32::try_from(value).map_err(|_| option_error(option, format!("{value} is too large")))
    };
    // SAFETY: has no preconditions.
    let mut params = unsafe { sys::llama_context_default_params() };
    params.n_ctx = count("context_size", plan.n_cells)?;
    params.n_batch = count("batch", plan.n_batch)?;
    params.n_ubatch = count("n_ubatch", plan.n_physical_batch)?;
    params.n_seq_max = count("parallel", plan.n_seqs)?;
    // A step has at most one row per sequence; the default would reserve a row for every token of a batch.
    params.n_outputs_max = params.n_seq_max;
    params.n_threads = count("threads", plan.n_threads)? as i32;
    params.n_threads_batch = count("threads_batch", plan.n_prompt_threads)? as i32;
    params.kv_unified = true;
    params.swa_full = options.swa_full;
    params.offload_kqv = !options.no_kv_offload;
    params.no_perf = true;
    params.type_k = ggml_type(options.cache_type_k) as sys::ggml_type;
    params.type_v = ggml_type(options.cache_type_v) as sys::ggml_type;
    params.flash_attn_type = match options.flash_attention {
        FlashAttention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
        FlashAttention::On => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
        FlashAttention::Off => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
    };
    params.rope_freq_base = options.rope_freq_base.unwrap_or(0.0);
    params.rope_freq_scale = options.rope_freq_scale.unwrap_or(0.0);
    params.rope_scaling_type = match options.rope_scaling {
        None => sys::LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED,
        Some(RopeScaling::None) => sys::LLAMA_ROPE_SCALING_TYPE_NONE,
        Some(RopeScaling::Linear) => sys::LLAMA_ROPE_SCALING_TYPE_LINEAR,
        Some(RopeScaling::Yarn) => sys::LLAMA_ROPE_SCALING_TYPE_YARN,
    };
    let yarn = &options.yarn;
    for (given, param) in [
        (yarn.ext_factor, &mut params.yarn_ext_factor),
        (yarn.attn_factor, &mut params.yarn_attn_factor),
        (yarn.beta_fast, &mut params.yarn_beta_fast),
        (yarn.beta_slow, &mut params.yarn_beta_slow),
    ] {
        *param = given.unwrap_or(*param);
    }
    Ok(params)
}

pub(crate) fn refused_context(options: &LoadOptions, plan: &Plan, complaints: &str) -> EngineError {
    let reason = format!(
        "llama.cpp made no context of {} tokens: {}; lower context_size or change the cache types",
        plan.n_cells,
        or_unknown(complaints)
    );
    failure(&options.path, reason)
}

fn limits(model: &Model, options: &LoadOptions, plan: &Plan, context: &Context) -> DecoderLimits {
    let raw = context.0.as_ptr();
    // SAFETY: context and model are alive.
    let (n_cells, n_batch, n_physical_batch, n_vocab, can_shift) = unsafe {
        let n_vocab = sys::llama_vocab_n_tokens(model.vocab());
        let can_shift = sys::llama_memory_can_shift(context.memory());
        let sizes = (sys::llama_n_ctx(raw), sys::llama_n_batch(raw), sys::llama_n_ubatch(raw));
        (sizes.0 as usize, sizes.1 as usize, sizes.2 as usize, n_vocab, can_shift)
    };
    // A full cache for these layers puts off when cells behind the window are lost, and does not end it: they are
    // overwritten as soon as the search for free cells comes past, and no saved state has them.
    let window = model.sliding_window();
    DecoderLimits {
        n_cells: plan.n_cells.min(n_cells),
        n_sequence_tokens: plan.n_sequence_tokens.min(n_cells),
        n_seqs: plan.n_seqs,
        n_batch: plan.n_batch.min(n_batch),
        n_physical_batch: plan.n_physical_batch.min(n_physical_batch).max(1),
        n_vocab: usize::try_from(n_vocab).unwrap_or(0),
        sharing: match window {
            _ if model.has_recurrent_state() => PrefixSharing::TakeOverWhole,
            // Shared cells are never given up, not even behind the window: without a cell for every token they could
            // fill the cache of the sliding-window layers.
            Some(window)
                if !options.swa_full
                    && n_window_cells(window, n_cells, plan.n_seqs, plan.n_physical_batch) < n_cells =>
            {
                PrefixSharing::TakeOver
            }
            Some(_) | None => PrefixSharing::Copy,
        },
        sliding_window: window,
        can_shift,
    }
}
