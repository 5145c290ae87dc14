//! llama.cpp's context as an embedding model or a reranker: whole texts in, one vector or score each out.

use std::ptr::NonNull;
use std::sync::Arc;

use ingle_engine::{
    BatchModel, BatchToken, EngineError, FaultReporter, Interrupt, LoadOptions, Pooling, Seat, Sequence, Task, TokenId,
};

use crate::decoder::{Batch, Context, context_params, gate_threads, refused_context};
use crate::exit::Call;
use crate::fault::FaultDomain;
use crate::ffi::{self, guarded, sys};
use crate::log::{self, Buffer};
use crate::model::{Model, failure, load_error, or_unknown};
use crate::plan::Plan;
use crate::pool::ThreadPool;

/// A model whose context gives vectors or scores.
pub(crate) struct LlamaEncoder {
    context: Context,
    batch: Batch,
    n_batch: usize,
    n_seqs: usize,
    /// Numbers of a vector; 1 for scores.
    n_out: usize,
    is_normalized: bool,
    _pool: ThreadPool,
    n_threads: usize,
    /// Cores for a step; not asked for while the model is loaded.
    seat: Option<Arc<Seat>>,
    faults: FaultDomain,
    _model: Arc<Model>,
}

fn decode_error(reason: impl Into<String>) -> EngineError {
    EngineError::Decode { reason: reason.into() }
}

impl LlamaEncoder {
    pub(crate) fn new(
        model: &Arc<Model>,
        options: &LoadOptions,
        plan: &Plan,
        task: Task,
        faults: &FaultDomain,
    ) -> Result<(Self, Vec<Buffer>), EngineError> {
        let mut params = context_params(options, plan)?;
        params.embeddings = true;
        params.n_outputs_max = params.n_batch;
        params.pooling_type = match task {
            Task::Rerank => sys::LLAMA_POOLING_TYPE_RANK,
            Task::Text | Task::Embed => pooling(model, options)?,
        };
        // SAFETY: the model is alive, and the parameters hold no pointers.
        let make = || guarded(|| unsafe { ffi::llama_init_from_model(model.as_ptr(), params) });
        let (made, captured) = log::capture(make);
        let made = made.map_err(|reason| failure(&options.path, reason))?;
        let refused = || refused_context(options, plan, &captured.complaints());
        let context = NonNull::new(made).map(Context).ok_or_else(refused)?;
        let n_threads = plan.n_threads.max(plan.n_prompt_threads);
        let pool = ThreadPool::new(n_threads, faults).map_err(|reason| load_error(&options.path, reason))?;
        context.use_pool(&pool);
        let encoder = Self {
            context,
            batch: Batch::new(plan.n_batch),
            n_batch: plan.n_batch,
            n_seqs: plan.n_seqs,
            n_out: if task == Task::Rerank { 1 } else { model.n_embd_out() },
            is_normalized: task != Task::Rerank && options.embed.is_normalized.unwrap_or(true),
            _pool: pool,
            n_threads: gate_threads(plan, n_threads, model),
            seat: None,
            faults: faults.clone(),
            _model: Arc::clone(model),
        };
        Ok((encoder, captured.buffers))
    }

    /// Numbers of a vector.
    pub(crate) fn n_out(&self) -> usize {
        self.n_out
    }

    /// Are vectors scaled to length 1?
    pub(crate) fn is_normalized(&self) -> bool {
        self.is_normalized
    }

    /// Computes one token and looks at the result: fuzzed weights load without complaint.
    pub(crate) fn warm_up(&mut self, options: &LoadOptions, tokens: Vec<TokenId>) -> Result<(), EngineError> {
        let vectors = self.vectors(&[Sequence::single(tokens)], &Interrupt::new(&|| false));
        let vectors = vectors.map_err(|error| load_error(&options.path, format!("its first step failed: {error}")))?;
        match vectors.iter().flatten().all(|number| number.is_finite()) {
            true => Ok(()),
            false => Err(load_error(&options.path, "its weights produce NaN; the file is damaged, download it again")),
        }
    }

    /// Faults are reported to `reporter` from now on, and the calling thread becomes the engine's.
    pub(crate) fn adopt(&mut self, reporter: FaultReporter) {
        let seat = Arc::new(Seat::new());
        let dying = Arc::clone(&seat);
        self.faults.set_sink(Box::new(move |reason| {
            dying.leave();
            reporter.report(reason);
        }));
        self.faults.adopt_thread();
        self.seat = Some(seat);
    }

    /// One vector, `[n_out]`, for each sequence. Looks at `interrupt` in front of each step of llama.cpp.
    fn vectors(&mut self, sequences: &[Sequence], interrupt: &Interrupt<'_>) -> Result<Vec<Vec<f32>>, EngineError> {
        let mut vectors = Vec::with_capacity(sequences.len());
        let mut rest = sequences;
        while !rest.is_empty() {
            if interrupt.is_raised() {
                return Err(decode_error("nobody waits for it any more"));
            }
            let (pack, others) = rest.split_at(self.n_that_fit(rest)?);
            rest = others;
            self.step(pack)?;
            for seq in 0..pack.len() {
                vectors.push(self.vector(seq)?);
            }
        }
        Ok(vectors)
    }

    /// How many of the sequences go into one step.
    fn n_that_fit(&self, sequences: &[Sequence]) -> Result<usize, EngineError> {
        let mut n_tokens = 0;
        let fits = |sequence: &&Sequence| {
            n_tokens += sequence.tokens.len();
            n_tokens <= self.n_batch
        };
        match sequences.iter().take(self.n_seqs).take_while(fits).count() {
            0 => Err(decode_error(format!("a text is longer than the {} tokens of a step", self.n_batch))),
            n => Ok(n),
        }
    }

    /// Runs the sequences, all positions of each, numbered from 0.
    fn step(&mut self, pack: &[Sequence]) -> Result<(), EngineError> {
        let mut entries = Vec::new();
        for (seq, sequence) in (0..).zip(pack) {
            let entry = |(position, &token): (usize, &TokenId)| BatchToken { token, position, seq, wants_row: true };
            entries.extend(sequence.tokens.iter().enumerate().map(entry));
        }
        if entries.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        let raw = self.batch.fill(&entries);
        let (context, memory) = (self.context.0.as_ptr(), self.context.memory());
        let step = || {
            // SAFETY: the arrays hold `n_tokens` entries each and live until the next call; tokens were checked by the
            // encoder of texts, and sequences and positions are counted from 0 within the limits. A model without a
            // cache has no memory, and only an encoder's pass.
            log::capture(|| {
                guarded(|| unsafe {
                    let status = if memory.is_null() {
                        ffi::llama_encode(context, raw)
                    } else {
                        ffi::llama_memory_clear(memory, true);
                        ffi::llama_decode(context, raw)
                    };
                    ffi::llama_synchronize(context);
                    status
                })
            })
        };
        let (result, captured) = match &self.seat {
            Some(seat) => seat.with_cores(self.n_threads, step),
            None => step(),
        };
        // A step that was cut short as the process ends is nobody's error.
        if result != Ok(0) {
            drop(Call::begin());
        }
        match result {
            Ok(0) => Ok(()),
            Ok(code) => Err(decode_error(format!("{} (code {code})", or_unknown(&captured.complaints())))),
            Err(reason) => Err(decode_error(reason)),
        }
    }

    fn vector(&self, seq: usize) -> Result<Vec<f32>, EngineError> {
        let context = self.context.0.as_ptr();
        // SAFETY: the context is alive, and the sequence was part of its last step.
        let row = guarded(|| unsafe { ffi::llama_get_embeddings_seq(context, seq as i32) });
        let row = NonNull::new(row.map_err(decode_error)?).ok_or_else(|| decode_error("a text has no vector"))?;
        // SAFETY: with pooling a sequence has `n_out` floats, which stay until the context's next step.
        let mut vector = unsafe { std::slice::from_raw_parts(row.as_ptr(), self.n_out) }.to_vec();
        if self.is_normalized {
            let length = vector.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
            let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
            vector.iter_mut().for_each(|number| *number = (f64::from(*number) * scale) as f32);
        }
        Ok(vector)
    }
}

/// What the options say, else what the file says, else the last token of a model that sees only earlier ones, and the
/// mean of one that sees all.
fn pooling(model: &Model, options: &LoadOptions) -> Result<sys::llama_pooling_type, EngineError> {
    match options.embed.pooling {
        Some(Pooling::Mean) => Ok(sys::LLAMA_POOLING_TYPE_MEAN),
        Some(Pooling::Cls) => Ok(sys::LLAMA_POOLING_TYPE_CLS),
        Some(Pooling::Last) => Ok(sys::LLAMA_POOLING_TYPE_LAST),
        Some(Pooling::Max | Pooling::WeightedMean | Pooling::MeanSqrtLen) => {
            let reason = "llama.cpp has no such pooling; use mean, cls or last".into();
            Err(EngineError::Option { option: "pooling".into(), reason })
        }
        None => Ok(match model.pooling() {
            Some(pooling) => pooling,
            None if model.generates_text() => sys::LLAMA_POOLING_TYPE_LAST,
            None => sys::LLAMA_POOLING_TYPE_MEAN,
        }),
    }
}

/// Texts to vectors.
pub(crate) struct LlamaEmbed(pub(crate) LlamaEncoder);

impl BatchModel for LlamaEmbed {
    type Request = Sequence;
    type Response = Vec<f32>;

    fn run(&mut self, batch: &[Sequence], interrupt: &Interrupt<'_>) -> Result<Vec<Vec<f32>>, EngineError> {
        self.0.vectors(batch, interrupt)
    }
}

/// Pairs to scores: the model's own numbers, of any size.
pub(crate) struct LlamaRerank(pub(crate) LlamaEncoder);

impl BatchModel for LlamaRerank {
    type Request = Sequence;
    type Response = f32;

    fn run(&mut self, batch: &[Sequence], interrupt: &Interrupt<'_>) -> Result<Vec<f32>, EngineError> {
        let vectors = self.0.vectors(batch, interrupt)?;
        Ok(vectors.into_iter().map(|vector| vector.first().copied().unwrap_or(f32::NAN)).collect())
    }
}
