//! Loading embedding models and rerankers.

use std::sync::Arc;

use ingle_engine::{
    BatchConfig, BatchThread, Dimensions, EmbedInfo, EmbedModel, Engine, EngineError, Hardware, LoadOptions,
    MemoryEstimate, RerankModel, Task, TextEncoder,
};
use ingle_gguf::ModelInfo;

use crate::backend::{Job, log_plan, on_gpus, on_loader_thread, taken, with_less};
use crate::encoder::{LlamaEmbed, LlamaEncoder, LlamaRerank};
use crate::fault::FaultDomain;
use crate::model::{Model, load_error};
use crate::placement;
use crate::plan::{Plan, Room};
use crate::texts::LlamaTexts;
use crate::tokenizer::LlamaTokenizer;

/// Calls that may wait in front of an encoder unless the options say otherwise.
const MAX_WAITING: usize = 1024;
/// Tokens that may wait in front of an encoder.
const WAITING_TOKENS: usize = 8 << 20;
/// Texts of one step.
const SEQUENCES: usize = 64;
/// A text is no longer than this unless `context_size` says so: the buffers grow with its square.
const USUAL_TOKENS: usize = 4096;
/// A step has room for this many tokens at least, so that short texts share it.
const LEAST_STEP: usize = 512;
/// Multiplications that a thread does in about a second: the aim for a step, so that a new call does not wait long.
const STEP_WORK: u64 = 25_000_000_000;
/// llama.cpp's limit for a step.
const MOST_TOKENS: usize = 1 << 16;

/// An embedding model or reranker in memory whose engine thread has not been started.
pub(crate) struct LoadedEncoder {
    encoder: LlamaEncoder,
    texts: LlamaTexts,
    config: BatchConfig,
    architecture: String,
    dimensions: Dimensions,
    placement: String,
    memory: MemoryEstimate,
    gpu_bytes: u64,
}

/// The sizes of an encoder's context: the longest text goes through it at once, and nothing is kept for later.
pub(crate) fn options_for(options: &LoadOptions, info: &ModelInfo) -> LoadOptions {
    let n_tokens = limit(options, info).max(LEAST_STEP);
    LoadOptions {
        context_size: Some(n_tokens),
        batch: Some(n_tokens),
        physical_batch: Some(n_tokens),
        parallel: Some(SEQUENCES),
        ..options.clone()
    }
}

/// Tokens of the longest text.
fn limit(options: &LoadOptions, info: &ModelInfo) -> usize {
    let trained = (info.n_ctx_train as usize).max(1);
    options.context_size.map_or(trained.min(USUAL_TOKENS), |size| size.min(trained)).min(MOST_TOKENS)
}

/// Tokens of a step that takes about a second; the longest text goes through in one step however long that is. On a GPU
/// steps are fast enough as they are.
fn step_budget(info: &ModelInfo, plan: &Plan) -> usize {
    if plan.placement.n_gpu_layers > 0 {
        return plan.n_batch;
    }
    let n_threads = plan.n_threads.max(plan.n_prompt_threads) as u64;
    let n_tokens = STEP_WORK.saturating_mul(n_threads) / info.layer_params().max(1);
    usize::try_from(n_tokens).unwrap_or(usize::MAX).clamp(LEAST_STEP / 2, plan.n_batch.max(LEAST_STEP / 2))
}

/// Loads the model of `job` for `task` and runs its first step.
pub(crate) fn load(mut job: Job, hardware: &Hardware, task: Task) -> Result<LoadedEncoder, EngineError> {
    if task == Task::Rerank && !job.info.has_classifier {
        let reason = "it has no classifier (the tensor cls.output.weight), so it cannot rerank; choose a reranker, or say \
                      `embeddings: true` in its YAML";
        return Err(load_error(&job.options.path, reason));
    }
    let limit = limit(&job.options, &job.info);
    job.options = options_for(&job.options, &job.info);
    let room = Room::new(hardware, job.gpus.iter().map(|gpu| gpu.free_bytes).collect());
    let (name, path) = (job.options.name.clone(), job.options.path.clone());
    on_loader_thread(&name, path, move |faults| {
        with_less(&job.options, &job.info, room, |plan| {
            log_plan(&job.options, &job.info, plan);
            build(&job, plan, (task, limit), faults)
        })
    })
}

fn build(
    job: &Job,
    plan: &Plan,
    (task, limit): (Task, usize),
    faults: &FaultDomain,
) -> Result<LoadedEncoder, EngineError> {
    let (options, info) = (&job.options, &job.info);
    let (model, mut buffers) = Model::load(options, info, &plan.placement)?;
    let model = Arc::new(model);
    let tokenizer = LlamaTokenizer::new(Arc::clone(&model), faults.clone());
    let tokenizer = Arc::new(tokenizer.map_err(|reason| load_error(&options.path, reason))?);
    let pair_template = model.metadata(c"tokenizer.chat_template.rerank").filter(|_| task == Task::Rerank);
    let texts = LlamaTexts::new(tokenizer, limit, pair_template)?;
    if task == Task::Rerank && knows_second_texts(&model) {
        tracing::warn!(
            model = options.name,
            "its scores differ from the original's: llama.cpp computes BERT without the token types that tell query and \
             document apart, and GGUF files of BERT rerankers lack its pooler; the folder with safetensors gives the \
             original's scores"
        );
    }
    let (mut encoder, more) = LlamaEncoder::new(&model, options, plan, task, faults)?;
    buffers.extend(more);
    encoder.warm_up(options, texts.probe()?)?;
    let sizes = options.embed.dimensions.clone();
    Ok(LoadedEncoder {
        encoder,
        texts,
        config: BatchConfig {
            name: options.name.clone(),
            unit: "tokens",
            step_budget: step_budget(info, plan),
            max_waiting: options.max_waiting.unwrap_or(MAX_WAITING),
            max_waiting_cost: WAITING_TOKENS,
        },
        architecture: info.architecture.clone().unwrap_or_default(),
        dimensions: if sizes.is_empty() { Dimensions::Whole } else { Dimensions::Listed(sizes) },
        placement: placement::describe(plan, options, &job.gpus, &job.hardware),
        memory: taken(&options.name, &buffers),
        gpu_bytes: on_gpus(&buffers, &job.gpus),
    })
}

/// Was it trained with another token type for the second text of a pair, which llama.cpp does not compute?
fn knows_second_texts(model: &Model) -> bool {
    let is_bert = model.metadata(c"general.architecture").as_deref() == Some("bert");
    let n_types = model.metadata(c"tokenizer.ggml.token_type_count").and_then(|count| count.parse::<u32>().ok());
    is_bert && n_types.is_some_and(|count| count > 1)
}

impl LoadedEncoder {
    /// Starts the engine thread and puts its handle into `engine`.
    pub(crate) fn start(self, task: Task, engine: &mut Engine) -> Result<(), EngineError> {
        let Self { mut encoder, texts, config, architecture, dimensions, placement, memory, gpu_bytes } = self;
        engine.placement = placement;
        engine.memory = engine.memory.beside(memory);
        // Unlike mapped pages, weights on GPUs are there once for each task.
        engine.gpu_bytes += gpu_bytes;
        let info = EmbedInfo {
            n_embd: encoder.n_out(),
            dimensions,
            is_normalized: encoder.is_normalized(),
            architecture: architecture.clone(),
            ..EmbedInfo::default()
        };
        let texts: Arc<dyn TextEncoder> = Arc::new(texts);
        if task == Task::Rerank {
            let thread = BatchThread::start(config, move |faults| {
                encoder.adopt(faults);
                Ok(LlamaRerank(encoder))
            })?;
            engine.rerank = Some(RerankModel { thread, encoder: texts, architecture });
        } else {
            let thread = BatchThread::start(config, move |faults| {
                encoder.adopt(faults);
                Ok(LlamaEmbed(encoder))
            })?;
            engine.embed = Some(EmbedModel { thread, encoder: texts, info: Arc::new(info) });
        }
        Ok(())
    }
}
