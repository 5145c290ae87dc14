//! Loading: from options to a running [`TextModel`].

use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};

use ingle_engine::{
    Backend, Draft, DraftConfig, Engine, EngineError, GpuLayers, Hardware, LoadOptions, MemoryEstimate, Task,
    TextConfig, TextModel, Tokenizer,
};
use ingle_gguf::ModelInfo;

use crate::decoder::LlamaDecoder;
use crate::fault::{self, FaultDomain};
use crate::log::{Buffer, Purpose};
use crate::model::{Model, load_error};
use crate::plan::{Plan, Room};
use crate::pool::ThreadPool;
use crate::process::{self, GpuDevice};
use crate::tokenizer::LlamaTokenizer;
use crate::{draft, encoders, exit, header, placement, plugins};

/// Requests that may wait unless the options say otherwise.
const DEFAULT_MAX_WAITING: usize = 256;

/// A load that finds less memory on the GPUs than it was told is tried so often again, each time with an eighth less.
const MOST_TRIES_ON_GPUS: u32 = 4;

/// Loads GGUF models with llama.cpp.
#[derive(Debug, Clone, Copy, Default)]
pub struct LlamaBackend;

/// A model in memory whose engine thread has not been started.
pub struct LoadedModel {
    /// The context, the cache and the compute threads.
    pub decoder: LlamaDecoder,
    /// A draft model's.
    pub draft: Option<LlamaDecoder>,
    /// How that is used.
    pub draft_config: DraftConfig,
    /// The vocabulary.
    pub tokenizer: Arc<LlamaTokenizer>,
    /// Settings for the engine thread.
    pub config: TextConfig,
    /// The devices it is on, for logs and reports.
    pub placement: String,
    /// What it takes.
    pub memory: MemoryEstimate,
    /// What of it is on GPUs.
    pub gpu_bytes: u64,
}

impl LoadedModel {
    /// Starts the engine thread.
    ///
    /// # Errors
    /// As [`TextModel::start`].
    pub fn start(self) -> Result<Engine, EngineError> {
        let Self { mut decoder, draft, draft_config, tokenizer, config, placement, memory, gpu_bytes } = self;
        let text = TextModel::start_with_draft(config, tokenizer, move |faults| {
            decoder.adopt(faults);
            let draft = draft.map(|mut draft| {
                draft.take_seat_of(&decoder);
                Draft { decoder: Box::new(draft), config: draft_config }
            });
            Ok((decoder, draft))
        })?;
        Ok(Engine { text: Some(text), placement, memory, gpu_bytes, ..Engine::default() })
    }
}

impl LlamaBackend {
    /// Loads a model and runs its first step, without starting an engine: for callers that decode by themselves.
    ///
    /// # Errors
    /// As [`Backend::load`].
    pub fn load_model(&self, options: &LoadOptions, hardware: &Hardware) -> Result<LoadedModel, EngineError> {
        let job = Job::new(options, hardware)?;
        let Some(draft) = draft::options_for(options) else {
            return on_loader_thread(&options.name, options.path.clone(), move |faults| job.run(faults, None));
        };
        // It is small and comes first, so that the model is fitted beside it.
        let (drafting, options, hardware) = (Job::new(&draft, hardware)?, options.clone(), hardware.clone());
        draft::may_be_of_one_family(&draft.path, &job.info, &drafting.info)?;
        on_loader_thread(&job.options.name, job.options.path.clone(), move |faults| {
            let draft = drafting.run(faults, None)?;
            let job = Job::new(&options, &draft::beside(&hardware, &draft))?;
            let model = job.run(faults, Some(draft.decoder.pool()))?;
            draft::join(model, draft, &options)
        })
    }
}

impl Backend for LlamaBackend {
    fn name(&self) -> &str {
        "llama-cpp"
    }

    fn uses_gpus(&self, options: &LoadOptions) -> bool {
        // One that only another backend reaches is of no use here.
        options.gpu_layers != GpuLayers::Count(0) && !process::gpu_devices().is_empty()
    }

    fn poison(&self) -> Option<String> {
        fault::poison().map(str::to_owned)
    }

    fn estimate(&self, options: &LoadOptions) -> Result<MemoryEstimate, EngineError> {
        let info = header::read_model(options)?;
        let estimate =
            |options: &LoadOptions| Ok::<_, EngineError>(Plan::new(options, &info, &Room::unlimited())?.memory);
        let mut memory = MemoryEstimate::default();
        if options.tasks.is_empty() || options.tasks.contains(&Task::Text) {
            memory = memory.beside(estimate(options)?);
            if let Some(draft) = draft::options_for(options) {
                let info = header::read_model(&draft)?;
                memory = memory.and(Plan::new(&draft, &info, &Room::unlimited())?.memory);
            }
        }
        for _ in options.tasks.iter().filter(|task| **task != Task::Text) {
            memory = memory.beside(estimate(&encoders::options_for(options, &info))?);
        }
        Ok(memory)
    }

    fn load(&self, options: &LoadOptions, hardware: &Hardware) -> Result<Engine, EngineError> {
        let wants = |task| options.tasks.contains(&task);
        let mut engine = match options.tasks.is_empty() || wants(Task::Text) {
            true => self.load_model(options, hardware)?.start()?,
            false => Engine::default(),
        };
        // Each task has a context and a thread of its own, so that embeddings never hold up an answer. The file is
        // mapped, so its pages are in memory once.
        for task in [Task::Embed, Task::Rerank].into_iter().filter(|&task| wants(task)) {
            encoders::load(Job::new(options, hardware)?, hardware, task)?.start(task, &mut engine)?;
        }
        Ok(engine)
    }
}

/// Runs `work` on a thread of its own, so that an abort in llama.cpp costs that thread and not the caller's.
pub(crate) fn on_loader_thread<R: Send + 'static>(
    name: &str,
    path: std::path::PathBuf,
    work: impl FnOnce(&FaultDomain) -> Result<R, EngineError> + Send + 'static,
) -> Result<R, EngineError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let fault_sender = sender.clone();
    let fault_path = path.clone();
    let faults = FaultDomain::new(Box::new(move |reason| {
        // A full channel means that the result is there already.
        let _ = fault_sender.try_send(Err(load_error(&fault_path, reason)));
    }));
    let thread = std::thread::Builder::new().name(format!("load {name}")).spawn(move || {
        faults.adopt_thread();
        let result = work(&faults);
        exit::register();
        faults.release_thread();
        // Nobody waits any more only if the caller is gone, and then the model is dropped.
        let _ = sender.send(result);
    });
    thread.map_err(|error| load_error(&path, format!("its loader could not be started: {error}")))?;
    receiver.recv().unwrap_or_else(|_| Err(load_error(&path, "its loader panicked")))
}

/// One load, from the plan to a context that has run a step.
pub(crate) struct Job {
    pub(crate) options: LoadOptions,
    pub(crate) info: ModelInfo,
    pub(crate) gpus: Vec<GpuDevice>,
    pub(crate) hardware: Hardware,
}

impl Job {
    fn new(options: &LoadOptions, hardware: &Hardware) -> Result<Self, EngineError> {
        let info = header::read_model(options)?;
        if !process::has_devices() {
            return Err(load_error(&options.path, plugins::missing()));
        }
        Ok(Self { options: options.clone(), info, gpus: process::gpu_devices(), hardware: hardware.clone() })
    }

    /// Loads onto the threads of `pool`, or onto threads of its own.
    fn run(&self, faults: &FaultDomain, pool: Option<Arc<Mutex<ThreadPool>>>) -> Result<LoadedModel, EngineError> {
        let room = Room::new(&self.hardware, self.gpus.iter().map(|gpu| gpu.free_bytes).collect());
        with_less(&self.options, &self.info, room, |plan| {
            log_plan(&self.options, &self.info, plan);
            self.build(plan, faults, pool.clone())
        })
    }

    fn build(
        &self,
        plan: &Plan,
        faults: &FaultDomain,
        pool: Option<Arc<Mutex<ThreadPool>>>,
    ) -> Result<LoadedModel, EngineError> {
        let (options, info) = (&self.options, &self.info);
        let path: &Path = &options.path;
        let (model, mut buffers) = Model::load(options, info, &plan.placement)?;
        let model = Arc::new(model);
        if !model.generates_text() {
            return Err(load_error(path, "it does not continue a text token by token; choose a language model"));
        }
        let tokenizer = LlamaTokenizer::new(Arc::clone(&model), faults.clone());
        let tokenizer = Arc::new(tokenizer.map_err(|reason| load_error(path, reason))?);
        let (mut decoder, more) = LlamaDecoder::new(&model, options, plan, faults, pool)?;
        buffers.extend(more);
        decoder.warm_up(path, tokenizer.beginning_of_sequence().unwrap_or(0))?;
        let config = TextConfig {
            name: options.name.clone(),
            n_slots: plan.n_slots,
            max_waiting: options.max_waiting.unwrap_or(DEFAULT_MAX_WAITING),
            most_saved_bytes: plan.most_saved_bytes,
            speculation: options.speculation,
            overflow: options.overflow,
            chat_template: info.chat_template.clone(),
            architecture: info.architecture.clone().unwrap_or_default(),
        };
        let placement = placement::describe(plan, options, &self.gpus, &self.hardware);
        let (memory, gpu_bytes) = (taken(&options.name, &buffers), on_gpus(&buffers, &self.gpus));
        let (draft, draft_config) = (None, DraftConfig::default());
        Ok(LoadedModel { decoder, draft, draft_config, tokenizer, config, placement, memory, gpu_bytes })
    }
}

/// Tries with less where memory cannot be had, as far as the options allow: fewer layers on the GPUs first, then a
/// shorter context.
pub(crate) fn with_less<T>(
    wanted: &LoadOptions,
    info: &ModelInfo,
    mut room: Room,
    mut attempt: impl FnMut(&Plan) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let mut options = wanted.clone();
    let mut n_tries_on_gpus = 0;
    loop {
        let plan = Plan::new(&options, info, &room)?;
        let error = match attempt(&plan) {
            Err(error @ EngineError::OutOfMemory { .. }) => error,
            outcome => return outcome,
        };
        let is_on_gpus = plan.placement.n_gpu_layers > 0 && options.gpu_layers == GpuLayers::Auto;
        if is_on_gpus && n_tries_on_gpus < MOST_TRIES_ON_GPUS {
            n_tries_on_gpus += 1;
            room = room.tightened(plan.memory.total_bytes());
        } else if let Some(smaller) = plan.halved(wanted) {
            options = smaller;
        } else {
            return Err(error);
        }
        tracing::warn!(model = wanted.name, %error, "memory could not be had: trying with less");
    }
}

/// What llama.cpp has allocated, with a line in the log for each device.
pub(crate) fn taken(name: &str, buffers: &[Buffer]) -> MemoryEstimate {
    let mut devices: Vec<&str> = buffers.iter().map(|buffer| buffer.device.as_str()).collect();
    devices.sort_unstable();
    devices.dedup();
    let sum = |device: Option<&str>, purpose: Purpose| -> u64 {
        let is_counted =
            |buffer: &&Buffer| buffer.purpose == purpose && device.is_none_or(|device| buffer.device == device);
        buffers.iter().filter(is_counted).map(|buffer| buffer.n_bytes).sum()
    };
    for device in devices {
        let mib = |purpose| sum(Some(device), purpose) >> 20;
        let (weights, cache, compute) = (mib(Purpose::Weights), mib(Purpose::Cache), mib(Purpose::Compute));
        tracing::debug!(model = name, device, weights, cache, compute, "MiB taken");
    }
    MemoryEstimate {
        weight_bytes: sum(None, Purpose::Weights),
        cache_bytes: sum(None, Purpose::Cache),
        compute_bytes: sum(None, Purpose::Compute),
    }
}

/// What of the buffers is in memory of GPUs. Buffers are called like the device they are on, those of rows after all of
/// its kind (`CUDA_Split`), and main memory that a GPU can reach after its kind too (`CUDA_Host`).
pub(crate) fn on_gpus(buffers: &[Buffer], gpus: &[GpuDevice]) -> u64 {
    let is_on_gpu = |buffer: &&Buffer| {
        buffer.device.ends_with("_Split") || gpus.iter().any(|gpu| buffer.device.starts_with(&gpu.name))
    };
    buffers.iter().filter(is_on_gpu).map(|buffer| buffer.n_bytes).sum()
}

pub(crate) fn log_plan(options: &LoadOptions, info: &ModelInfo, plan: &Plan) {
    tracing::info!(
        model = options.name,
        architecture = info.architecture.as_deref().unwrap_or("unknown"),
        context = plan.n_cells,
        slots = plan.n_slots,
        sequences = plan.n_seqs,
        batch = plan.n_batch,
        threads = plan.n_threads,
        gpu_layers = plan.placement.n_gpu_layers,
        cpu_experts = plan.placement.n_cpu_experts,
        bytes = plan.memory.total_bytes(),
        "loading a model"
    );
    if plan.n_sequence_tokens < plan.n_cells {
        tracing::info!(
            model = options.name,
            trained = info.n_ctx_train,
            context = plan.n_cells,
            "one request uses at most the context the model was trained with; all requests share the whole"
        );
    }
}

#[cfg(test)]
mod tests {
    use ingle_gguf::{Header, writer};

    use super::*;

    const GIB: u64 = 1 << 30;

    /// 32 layers of 128 MiB, trained with 32,768 tokens.
    fn info() -> ModelInfo {
        let bytes = writer::tiny_llama().bytes();
        let mut info = Header::from_bytes(&bytes, bytes.len() as u64).unwrap().validate().unwrap();
        info.n_ctx_train = 32_768;
        info.n_layers = 32;
        info.layer_bytes = vec![GIB / 8; 32];
        info.weight_bytes = 4 * GIB;
        info
    }

    /// Layers on the GPU and cells of each attempt; the first `n_failures` find no memory.
    fn attempts(options: &LoadOptions, gpu_bytes: Vec<u64>, n_failures: usize) -> (Vec<(u32, usize)>, bool) {
        let mut tried = Vec::new();
        let room = Room { n_cores: 1, main_bytes: Some(64 * GIB), gpu_bytes };
        let outcome = with_less(options, &info(), room, |plan| {
            tried.push((plan.placement.n_gpu_layers, plan.n_cells));
            let fails = tried.len() <= n_failures;
            let error = EngineError::OutOfMemory { path: "x".into(), reason: "cudaMalloc failed".into() };
            if fails { Err(error) } else { Ok(()) }
        });
        (tried, outcome.is_ok())
    }

    #[test]
    fn an_allocation_that_fails_is_tried_with_less() {
        let free = LoadOptions::default();
        let (tried, is_loaded) = attempts(&free, Vec::new(), 2);
        assert_eq!((tried, is_loaded), (vec![(0, 16_384), (0, 8192), (0, 4096)], true));
        let (tried, is_loaded) = attempts(&free, Vec::new(), 99);
        assert_eq!((tried.last(), is_loaded), (Some(&(0, 1024)), false), "it ends");
        let fixed = LoadOptions { context_size: Some(8192), ..LoadOptions::default() };
        assert_eq!(attempts(&fixed, Vec::new(), 99), (vec![(0, 8192)], false), "what was asked for is not cut");
    }

    #[test]
    fn layers_leave_the_gpu_before_the_context_shrinks() {
        let fixed = LoadOptions { context_size: Some(8192), ..LoadOptions::default() };
        let (tried, is_loaded) = attempts(&fixed, vec![8 * GIB], 3);
        assert!(is_loaded);
        let layers: Vec<u32> = tried.iter().map(|(layers, _)| *layers).collect();
        assert_eq!(layers[0], 33);
        assert!(layers.is_sorted_by(|one, next| one >= next) && layers.last() < Some(&33), "{layers:?}");
        assert!(tried.iter().all(|(_, cells)| *cells == 8192), "{tried:?}");
        let (tried, is_loaded) = attempts(&fixed, vec![8 * GIB], 99);
        assert_eq!((tried.len(), is_loaded), (1 + MOST_TRIES_ON_GPUS as usize, false));
        let told = LoadOptions { gpu_layers: GpuLayers::Count(5), ..fixed };
        assert_eq!(attempts(&told, vec![8 * GIB], 99), (vec![(5, 8192)], false));
    }

    #[test]
    fn memory_of_gpus_is_told_from_main_memory() {
        let buffer = |device: &str| Buffer { device: device.to_owned(), purpose: Purpose::Weights, n_bytes: 1 };
        let gpu = |name: &str| GpuDevice { name: name.to_owned(), description: String::new(), free_bytes: 0 };
        let buffers = ["CUDA0", "CUDA1", "CUDA_Split", "CUDA_Host", "CPU", "CPU_Mapped", "CPU_REPACK"].map(buffer);
        assert_eq!(on_gpus(&buffers, &[gpu("CUDA0"), gpu("CUDA1")]), 3);
        assert_eq!(on_gpus(&[buffer("CPU_Mapped"), buffer("CPU")], &[]), 0);
    }

    #[test]
    fn other_failures_are_final() {
        let room = Room { n_cores: 1, main_bytes: None, gpu_bytes: Vec::new() };
        let mut n_tries = 0;
        let outcome = with_less(&LoadOptions::default(), &info(), room, |_| {
            n_tries += 1;
            Err::<(), _>(load_error(Path::new("x"), "damaged"))
        });
        assert!(matches!(outcome, Err(EngineError::Load { .. })));
        assert_eq!(n_tries, 1);
    }
}
