//! A smaller model of the same vocabulary, loaded beside the one that it guesses for.

use std::path::Path;

use ingle_engine::{
    ContextOverflow, DeviceKind, EngineError, GpuLayers, Hardware, LoadOptions, Speculation, TokenId, TokenKind,
    Tokenizer,
};
use ingle_gguf::ModelInfo;

use crate::backend::LoadedModel;
use crate::model::load_error;

/// llama.cpp's bound: vocabularies of one family may differ by some unused tokens at their end.
const MOST_EXTRA_TOKENS: u32 = 128;

const ADVICE: &str =
    "a draft model has the vocabulary of the model it guesses for: choose a smaller one of the same family";

/// How the draft model is loaded, if there is one: the cache as long as the model's, as many requests, the same threads.
pub(crate) fn options_for(options: &LoadOptions) -> Option<LoadOptions> {
    let draft = options.draft.as_ref().filter(|_| options.speculation != Speculation::Off)?;
    if options.overflow != ContextOverflow::Stop {
        tracing::warn!(model = options.name, "the draft model is not loaded: nothing is guessed with context_shift");
        return None;
    }
    Some(LoadOptions {
        name: options.name.clone(),
        path: draft.path.clone(),
        context_size: options.context_size,
        parallel: options.parallel,
        threads: options.threads,
        prompt_threads: options.prompt_threads,
        batch: options.batch,
        physical_batch: options.physical_batch,
        // A number of layers is one of the model's own.
        gpu_layers: if options.gpu_layers == GpuLayers::Count(0) { GpuLayers::Count(0) } else { GpuLayers::Auto },
        main_gpu: options.main_gpu,
        tensor_split: options.tensor_split.clone(),
        split_mode: options.split_mode,
        no_kv_offload: options.no_kv_offload,
        mlock: options.mlock,
        mmap: options.mmap,
        flash_attention: options.flash_attention,
        check_tensors: options.check_tensors,
        ..LoadOptions::default()
    })
}

/// The machine without what the draft model takes of its main memory. GPUs are asked anew.
pub(crate) fn beside(hardware: &Hardware, draft: &LoadedModel) -> Hardware {
    let mut left = hardware.clone();
    let taken = draft.memory.total_bytes().saturating_sub(draft.gpu_bytes);
    for cpu in left.devices.iter_mut().filter(|device| device.kind == DeviceKind::Cpu) {
        // 0 would be "unknown".
        cpu.free_bytes = cpu.free_bytes.saturating_sub(taken).max(u64::from(cpu.free_bytes > 0));
    }
    left
}

/// Both as one engine.
///
/// # Errors
/// [`EngineError::Load`] naming the first token that differs: what one proposes would be another text to the other.
pub(crate) fn join(model: LoadedModel, draft: LoadedModel, options: &LoadOptions) -> Result<LoadedModel, EngineError> {
    let Some(chosen) = &options.draft else { return Ok(model) };
    same_vocabulary(&chosen.path, &*model.tokenizer, &*draft.tokenizer)?;
    Ok(LoadedModel {
        draft_config: chosen.config,
        placement: format!("{}; its draft model: {}", model.placement, draft.placement),
        memory: model.memory.and(draft.memory),
        gpu_bytes: model.gpu_bytes + draft.gpu_bytes,
        draft: Some(draft.decoder),
        ..model
    })
}

/// Looks at the headers of both before anything is loaded.
///
/// # Errors
/// [`EngineError::Load`] for vocabularies that cannot be the same.
pub(crate) fn may_be_of_one_family(path: &Path, model: &ModelInfo, draft: &ModelInfo) -> Result<(), EngineError> {
    if [model, draft].iter().any(|info| info.is_recurrent || info.is_hybrid) {
        let reason = "a guess cannot be taken back from the state of a recurrent model: remove draft_model";
        return Err(load_error(path, reason));
    }
    let (n, n_draft) = (model.n_vocab, draft.n_vocab);
    match n.abs_diff(n_draft) > MOST_EXTRA_TOKENS {
        true => Err(load_error(path, format!("it has {n_draft} tokens and the model {n}; {ADVICE}"))),
        false => Ok(()),
    }
}

fn same_vocabulary(path: &Path, model: &dyn Tokenizer, draft: &dyn Tokenizer) -> Result<(), EngineError> {
    let (n, n_draft) = (model.n_vocab(), draft.n_vocab());
    let differs = |&token: &TokenId| {
        model.token_kind(token) == TokenKind::Normal && model.token_bytes(token) != draft.token_bytes(token)
    };
    let Some(token) = (0..n.min(n_draft) as TokenId).find(differs) else { return Ok(()) };
    let text = |tokenizer: &dyn Tokenizer| String::from_utf8_lossy(tokenizer.token_bytes(token)).into_owned();
    let (of_draft, of_model) = (text(draft), text(model));
    Err(load_error(path, format!("its token {token} is {of_draft:?} and the model's {of_model:?}; {ADVICE}")))
}
