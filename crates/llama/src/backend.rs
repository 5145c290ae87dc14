//! Loading: from options to a running [`TextModel`].

use std::path::Path;
use std::sync::{Arc, mpsc};

use ingle_engine::{
    Backend, Engine, EngineError, Hardware, LoadOptions, MemoryEstimate, TextConfig, TextModel, Tokenizer,
};
use ingle_gguf::ModelInfo;

use crate::decoder::LlamaDecoder;
use crate::fault::FaultDomain;
use crate::header;
use crate::model::{Model, load_error};
use crate::plan::{Plan, Room};
use crate::plugins;
use crate::process::{self, GpuDevice};
use crate::tokenizer::LlamaTokenizer;

/// Requests that may wait unless the options say otherwise.
const DEFAULT_MAX_WAITING: usize = 256;

/// Loads GGUF models with llama.cpp.
#[derive(Debug, Clone, Copy, Default)]
pub struct LlamaBackend;

/// A model in memory whose engine thread has not been started.
pub struct LoadedModel {
    /// The context, the cache and the compute threads.
    pub decoder: LlamaDecoder,
    /// The vocabulary.
    pub tokenizer: Arc<LlamaTokenizer>,
    /// Settings for the engine thread.
    pub config: TextConfig,
    /// The devices it is on, for logs and reports.
    pub placement: String,
    /// What it takes.
    pub memory: MemoryEstimate,
}

impl LoadedModel {
    /// Starts the engine thread.
    ///
    /// # Errors
    /// As [`TextModel::start`].
    pub fn start(self) -> Result<Engine, EngineError> {
        let Self { mut decoder, tokenizer, config, placement, memory } = self;
        let text = TextModel::start(config, tokenizer, move |faults| {
            decoder.adopt(faults);
            Ok(decoder)
        })?;
        Ok(Engine { text: Some(text), placement, memory })
    }
}

impl LlamaBackend {
    /// Loads a model and runs its first step, without starting an engine: for callers that decode by themselves.
    ///
    /// # Errors
    /// As [`Backend::load`].
    pub fn load_model(&self, options: &LoadOptions, hardware: &Hardware) -> Result<LoadedModel, EngineError> {
        let info = header::read_model(&options.path)?;
        if !process::has_devices() {
            return Err(load_error(&options.path, plugins::missing()));
        }
        let gpus = process::gpu_devices();
        let room = Room::new(hardware, gpus.iter().map(|gpu| gpu.free_bytes).sum());
        let plan = Plan::new(options, &info, room)?;
        log_plan(options, &info, &plan);
        let placement = placement(&plan, &info, &gpus, hardware);
        let (options, name) = (options.clone(), options.name.clone());
        on_loader_thread(&name, options.path.clone(), move |faults| build(&options, &info, &plan, faults, placement))
    }
}

impl Backend for LlamaBackend {
    fn name(&self) -> &str {
        "llama-cpp"
    }

    fn estimate(&self, options: &LoadOptions) -> Result<MemoryEstimate, EngineError> {
        let info = header::read_model(&options.path)?;
        Ok(Plan::new(options, &info, Room::unlimited())?.memory)
    }

    fn load(&self, options: &LoadOptions, hardware: &Hardware) -> Result<Engine, EngineError> {
        self.load_model(options, hardware)?.start()
    }
}

/// Runs `work` on a thread of its own, so that an abort in llama.cpp costs that thread and not the caller's.
fn on_loader_thread<R: Send + 'static>(
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
        faults.release_thread();
        // Nobody waits any more only if the caller is gone, and then the model is dropped.
        let _ = sender.send(result);
    });
    thread.map_err(|error| load_error(&path, format!("its loader could not be started: {error}")))?;
    receiver.recv().unwrap_or_else(|_| Err(load_error(&path, "its loader panicked")))
}

fn build(
    options: &LoadOptions,
    info: &ModelInfo,
    plan: &Plan,
    faults: &FaultDomain,
    placement: String,
) -> Result<LoadedModel, EngineError> {
    let path: &Path = &options.path;
    let model = Arc::new(Model::load(options, plan.n_gpu_layers)?);
    if !model.generates_text() {
        return Err(load_error(path, "it does not continue a text token by token; choose a language model"));
    }
    let tokenizer = LlamaTokenizer::new(Arc::clone(&model), faults.clone());
    let tokenizer = Arc::new(tokenizer.map_err(|reason| load_error(path, reason))?);
    let mut decoder = LlamaDecoder::new(&model, options, plan, faults)?;
    decoder.warm_up(path, tokenizer.beginning_of_sequence().unwrap_or(0))?;
    let config = TextConfig {
        name: options.name.clone(),
        n_slots: plan.n_slots,
        max_waiting: options.max_waiting.unwrap_or(DEFAULT_MAX_WAITING),
        most_saved_bytes: plan.most_saved_bytes,
        overflow: options.overflow,
        chat_template: info.chat_template.clone(),
        architecture: info.architecture.clone().unwrap_or_default(),
    };
    let memory = MemoryEstimate { weight_bytes: model.weight_bytes(), ..plan.memory };
    Ok(LoadedModel { decoder, tokenizer, config, placement, memory })
}

fn log_plan(options: &LoadOptions, info: &ModelInfo, plan: &Plan) {
    tracing::info!(
        model = options.name,
        architecture = info.architecture.as_deref().unwrap_or("unknown"),
        context = plan.n_cells,
        slots = plan.n_slots,
        sequences = plan.n_seqs,
        batch = plan.n_batch,
        threads = plan.n_threads,
        gpu_layers = plan.n_gpu_layers,
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

/// Says where the model is, and warns when a GPU lies idle because of how the program was built.
fn placement(plan: &Plan, info: &ModelInfo, gpus: &[GpuDevice], hardware: &Hardware) -> String {
    let idle = hardware.gpus().next().filter(|_| gpus.is_empty());
    if let Some(gpu) = idle {
        tracing::warn!(gpu = gpu.name, "this build has no GPU support: the model runs on the CPU; build with cuda");
        return format!("CPU ({} is not used: this build has no GPU support)", gpu.name);
    }
    if gpus.is_empty() || plan.n_gpu_layers == 0 {
        return "CPU".into();
    }
    let names: Vec<&str> = gpus.iter().map(|gpu| gpu.name.as_str()).collect();
    format!("{} ({}/{} layers)", names.join(", "), plan.n_gpu_layers, info.n_layers + 1)
}
