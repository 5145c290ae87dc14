//! Embedding models and rerankers from safetensors.
//!
//! A folder is a sentence-transformers model, a plain encoder, or a cross-encoder. Weights are packed for the matrix
//! kernels once; a step runs sequences of several clients packed one behind the other, each attending to itself.

mod attention;
mod config;
mod device;
mod encoder;
mod folder;
mod head;
mod linear;
mod models;
#[cfg(test)]
mod tests;
mod tokenizer;

use std::path::Path;
use std::sync::Arc;

use ingle_engine::{
    BatchConfig, BatchModel, BatchThread, Dimensions, EmbedInfo, EmbedModel, Engine, EngineError, GpuLayers, Hardware,
    Interrupt, LoadOptions, MemoryEstimate, Pooling, RerankModel, Seat, Sequence, Task,
};
use rayon::ThreadPool;

use config::Config;
use encoder::{Course, Encoder};
use folder::{SentenceFolder, Step, tokenizer_limit};
use head::{Scorer, Transform};
use linear::Products;
use models::{MOST_TOKENS, Model};
use tokenizer::FolderEncoder;

use crate::device::{Place, may_use_gpu};
use crate::weights::{Weights, load_error};

/// Tokens of a step at most: enough that the products are at their best.
const STEP_TOKENS: usize = 2048;

/// Tokens of a step at least, however large the model: fewer would read the weights too often.
const LEAST_STEP_TOKENS: usize = 256;

/// Multiplications that a thread does in about a second: the aim for a step, so that a new call does not wait long.
const STEP_WORK: u64 = 25_000_000_000;

/// Multiplications of a part of a step, for each thread: some ten milliseconds, for which an answer of a language model
/// may be held up.
const PART_WORK: u64 = 1 << 30;

/// Tokens that may wait, all calls together.
const MOST_WAITING_TOKENS: usize = 8 << 20;

/// Calls that may wait unless the options say otherwise.
const DEFAULT_MAX_WAITING: usize = 1024;

/// Rows of the width of a hidden state that a step keeps for a token: hidden state, its norm, queries, keys, values,
/// what they give, and some room for heads that are wider than that.
const ROWS_PER_TOKEN: u64 = 8;

/// Bytes the model will take: its weights as f32, and the buffers of a step, or of one text where that may be longer.
///
/// # Errors
/// [`EngineError::Load`] when files are missing or `config.json` cannot be read.
pub(crate) fn estimate(options: &LoadOptions) -> Result<MemoryEstimate, EngineError> {
    let folder = SentenceFolder::read(&options.path)?;
    let config = Config::read(&folder.encoder)?;
    let size = |names: &[&str], otherwise: usize| -> Result<usize, EngineError> {
        Ok(config.optional_size(names)?.unwrap_or(otherwise))
    };
    let n_embd = size(&["hidden_size", "dim", "n_embd"], 1024)? as u64;
    let n_inner = size(&["intermediate_size", "n_inner", "hidden_dim"], 4096)? as u64;
    let longest = limit(options, folder.max_tokens, size(&["n_positions", "max_position_embeddings"], 512)?);
    let longest = longest.min(MOST_TOKENS);
    let compute_bytes = if may_use_gpu(options) {
        device::compute_bytes([n_embd, n_inner], options.batch, longest)
    } else {
        let n_tokens = options.batch.unwrap_or(STEP_TOKENS).max(longest) as u64;
        n_tokens * (ROWS_PER_TOKEN * n_embd + 2 * n_inner) * size_of::<f32>() as u64
    };
    Ok(MemoryEstimate { weight_bytes: Weights::open(&folder.encoder)?.bytes_as_f32(), cache_bytes: 0, compute_bytes })
}

/// Loads the folder for what the options ask for, or for what it is made for.
///
/// # Errors
/// [`EngineError::Load`] naming the file, and the field or tensor that is wrong; [`EngineError::OutOfMemory`] when a GPU
/// has too little.
pub(crate) fn load(options: &LoadOptions, hardware: &Hardware) -> Result<Engine, EngineError> {
    let reranks = match options.tasks.iter().next() {
        Some(Task::Rerank) => true,
        Some(Task::Embed) => false,
        Some(Task::Text) => return Err(load_error(&options.path, "it does not generate text")),
        None => Config::read(&options.path)?.architecture().ends_with("ForSequenceClassification"),
    };
    let job = Job::new(options, hardware)?;
    if reranks { load_reranker(&job) } else { load_embedder(&job) }
}

/// One load.
struct Job<'a> {
    options: &'a LoadOptions,
    place: Place,
    products: Products,
    n_threads: usize,
}

/// A running model, as its thread has it.
struct Started<R> {
    thread: BatchThread<Sequence, R>,
    memory: MemoryEstimate,
}

impl<'a> Job<'a> {
    fn new(options: &'a LoadOptions, hardware: &Hardware) -> Result<Self, EngineError> {
        let place = Place::choose(options, hardware);
        let products = if place.device.is_cpu() { Products::of(options.embed.precision)? } else { Products::Elsewhere };
        let n_threads = options.threads.unwrap_or(hardware.n_cores).clamp(1, hardware.n_cores.max(1));
        Ok(Self { options, place, products, n_threads })
    }

    /// Is it for the threads of the CPU, with weights that are packed for them?
    fn is_for_cpu(&self) -> bool {
        match self.products {
            Products::F32 | Products::Bf16(_) => true,
            Products::Elsewhere => false,
        }
    }

    /// Starts a model on the threads of the CPU.
    fn start_on_cpu<M>(
        &self,
        encoder: Encoder,
        build: impl FnOnce(Encoder, Cores) -> M,
    ) -> Result<Started<M::Response>, EngineError>
    where
        M: BatchModel<Request = Sequence> + Send + 'static,
    {
        let config = batch_config(self.options, step_tokens(encoder.work_per_token(), self.n_threads));
        let model = build(encoder, Cores::new(&self.options.path, self.n_threads)?);
        // What it takes here, where a GPU was possible as well.
        let memory = estimate(&LoadOptions { gpu_layers: GpuLayers::Count(0), ..self.options.clone() })?;
        Ok(Started { thread: BatchThread::start(config, move |_| Ok(model))?, memory })
    }

    /// Starts a model whose encoder goes onto the device; `longest` is the longest text.
    fn start_on_device<M>(
        &self,
        encoder: Encoder,
        longest: usize,
        build: impl FnOnce(device::Encoder) -> candle_core::Result<M>,
    ) -> Result<Started<M::Response>, EngineError>
    where
        M: BatchModel<Request = Sequence> + Send + 'static,
    {
        let told = |error| self.place.load_error(self.options, &error);
        let sizes = encoder.sizes();
        let encoder = device::Encoder::new(encoder, &self.place.device, device::dtype(self.options.embed.precision));
        let encoder = encoder.map_err(told)?;
        encoder.first_step().map_err(told)?;
        let weight_bytes = encoder.n_bytes();
        let free_bytes = self.place.free_bytes.saturating_sub(weight_bytes);
        let config = batch_config(self.options, encoder.step_tokens(free_bytes, sizes));
        let compute_bytes = device::compute_bytes(sizes, Some(config.step_budget), longest);
        let model = build(encoder).map_err(told)?;
        // The device has done all of this thread's work before another one goes on.
        self.place.device.synchronize().map_err(told)?;
        let thread = BatchThread::start(config, move |_| Ok(model))?;
        Ok(Started { thread, memory: MemoryEstimate { weight_bytes, cache_bytes: 0, compute_bytes } })
    }

    /// What is told of the engine; its capability is still to come.
    fn engine(&self, memory: MemoryEstimate) -> Engine {
        Engine {
            placement: self.place.describe(&format!("CPU, {} threads", self.n_threads)),
            memory,
            gpu_bytes: if self.is_for_cpu() { 0 } else { memory.total_bytes() },
            ..Engine::default()
        }
    }
}

fn load_embedder(job: &Job<'_>) -> Result<Engine, EngineError> {
    let options = job.options;
    let mut folder = SentenceFolder::read(&options.path)?;
    if let Some(pooling) = options.embed.pooling {
        folder.poolings = vec![pooling];
    }
    match options.embed.is_normalized {
        Some(true) if folder.steps.last() != Some(&Step::Normalize) => folder.steps.push(Step::Normalize),
        Some(false) => folder.steps.retain(|step| *step != Step::Normalize),
        Some(true) | None => {}
    }
    let config = Config::read(&folder.encoder)?;
    let mut weights = Weights::open(&folder.encoder)?;
    let Model { encoder, max_tokens, name } = models::build(&config, &mut weights, job.products)?;
    let n = encoder.embeddings.n_embd;
    let (transforms, n_embd) = head::load_steps(&folder.steps, n * folder.poolings.len(), job.products)?;
    let max_tokens = limit(options, folder.max_tokens, max_tokens);
    let n_vocab = encoder.embeddings.words.len() / n;
    let tokens = FolderEncoder::read(&folder.encoder, max_tokens, n_vocab, folder.lower_case)?;
    let info = EmbedInfo {
        n_embd,
        dimensions: dimensions(options, &config, n_embd),
        is_normalized: folder.steps.last() == Some(&Step::Normalize),
        prompts: folder.prompts,
        default_prompt: folder.default_prompt,
        architecture: name.to_owned(),
    };
    let poolings = folder.poolings;
    let Started { thread, memory } = if job.is_for_cpu() {
        job.start_on_cpu(encoder, |encoder, cores| Embedder { encoder, poolings, transforms, cores })?
    } else {
        job.start_on_device(encoder, max_tokens, |encoder| {
            Ok(device::Embedder { encoder, poolings, steps: device::Steps::new(transforms, &job.place.device)? })
        })?
    };
    let embed = EmbedModel { thread, encoder: Arc::new(tokens), info: Arc::new(info) };
    Ok(Engine { embed: Some(embed), ..job.engine(memory) })
}

fn load_reranker(job: &Job<'_>) -> Result<Engine, EngineError> {
    let path = &job.options.path;
    let config = Config::read(path)?;
    let mut weights = Weights::open(path)?;
    let Model { encoder, max_tokens, name } = models::build(&config, &mut weights, job.products)?;
    let n = encoder.embeddings.n_embd;
    let scorer = Scorer::load(&config, &mut weights, n, job.products)?;
    let max_tokens = limit(job.options, tokenizer_limit(path)?, max_tokens);
    let n_vocab = encoder.embeddings.words.len() / n;
    let tokens = FolderEncoder::read(path, max_tokens, n_vocab, false)?;
    let Started { thread, memory } = if job.is_for_cpu() {
        job.start_on_cpu(encoder, |encoder, cores| Reranker { encoder, scorer, cores })?
    } else {
        job.start_on_device(encoder, max_tokens, |encoder| {
            Ok(device::Reranker { encoder, classifier: device::Classifier::new(scorer, &job.place.device)? })
        })?
    };
    let rerank = RerankModel { thread, encoder: Arc::new(tokens), architecture: name.to_owned() };
    Ok(Engine { rerank: Some(rerank), ..job.engine(memory) })
}

/// The longest text: what the folder says, at most what the model was trained for, at most what the options want.
fn limit(options: &LoadOptions, of_folder: Option<usize>, of_model: usize) -> usize {
    let limit = of_folder.map_or(of_model, |limit| limit.min(of_model));
    options.context_size.map_or(limit, |size| size.min(limit))
}

/// Shorter vectors that may be asked for: those of the YAML, or those that the model's configuration lists.
fn dimensions(options: &LoadOptions, config: &Config, n_embd: usize) -> Dimensions {
    let listed = config.value("matryoshka_dimensions").as_array().into_iter().flatten();
    let listed: Vec<usize> = listed.filter_map(|size| Some(size.as_u64()? as usize)).collect();
    let sizes = if options.embed.dimensions.is_empty() { listed } else { options.embed.dimensions.clone() };
    let sizes: Vec<usize> = sizes.into_iter().filter(|size| (1..n_embd).contains(size)).collect();
    match (sizes.is_empty(), config.model_type()) {
        (false, _) => Dimensions::Listed(sizes),
        // Its authors train it for every size.
        (true, "qwen3") => Dimensions::Any,
        (true, _) => Dimensions::Whole,
    }
}

/// `step_tokens` unless the options say otherwise.
fn batch_config(options: &LoadOptions, step_tokens: usize) -> BatchConfig {
    BatchConfig {
        name: options.name.clone(),
        unit: "tokens",
        step_budget: options.batch.unwrap_or(step_tokens),
        max_waiting: options.max_waiting.unwrap_or(DEFAULT_MAX_WAITING),
        max_waiting_cost: MOST_WAITING_TOKENS,
    }
}

/// Tokens of a step that takes about a second, for a model with so many multiplications for each token.
fn step_tokens(work_per_token: u64, n_threads: usize) -> usize {
    let n_tokens = STEP_WORK.saturating_mul(n_threads as u64) / work_per_token.max(1);
    usize::try_from(n_tokens).unwrap_or(usize::MAX).clamp(LEAST_STEP_TOKENS, STEP_TOKENS)
}

/// The threads of one model, and its place in the line for cores.
struct Cores {
    threads: ThreadPool,
    seat: Seat,
}

impl Cores {
    fn new(path: &Path, n_threads: usize) -> Result<Self, EngineError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).thread_name(|idx| format!("encoder {idx}"));
        let threads =
            pool.build().map_err(|error| load_error(path, format!("its threads could not be started: {error}")))?;
        Ok(Self { threads, seat: Seat::new() })
    }

    fn course<'a>(&'a self, interrupt: &'a Interrupt<'a>) -> Course<'a> {
        Course { threads: &self.threads, seat: &self.seat, interrupt, part: PART_WORK }
    }
}

/// Sequences to vectors.
struct Embedder {
    encoder: Encoder,
    poolings: Vec<Pooling>,
    transforms: Vec<Transform>,
    cores: Cores,
}

impl BatchModel for Embedder {
    type Request = Sequence;
    type Response = Vec<f32>;

    fn run(&mut self, batch: &[Sequence], interrupt: &Interrupt<'_>) -> Result<Vec<Vec<f32>>, EngineError> {
        let Self { encoder, poolings, transforms, cores } = self;
        let n = encoder.embeddings.n_embd;
        let batch: Vec<&Sequence> = batch.iter().collect();
        encoder.run(&batch, &cores.course(interrupt), |gemm, hidden| {
            let pooled = poolings.iter().flat_map(|&pooling| head::pool(pooling, hidden, n)).collect();
            head::transform(transforms, gemm, pooled)
        })
    }
}

/// Pairs to scores.
struct Reranker {
    encoder: Encoder,
    scorer: Scorer,
    cores: Cores,
}

impl BatchModel for Reranker {
    type Request = Sequence;
    type Response = f32;

    fn run(&mut self, batch: &[Sequence], interrupt: &Interrupt<'_>) -> Result<Vec<f32>, EngineError> {
        let Self { encoder, scorer, cores } = self;
        let n = encoder.embeddings.n_embd;
        let batch: Vec<&Sequence> = batch.iter().collect();
        encoder.run(&batch, &cores.course(interrupt), |gemm, hidden| scorer.score(gemm, hidden, n))
    }
}
