//! Low-rank adapters on top of a model's weights.

use std::ffi::CString;
use std::fs::File;
use std::io::BufReader;
use std::ptr::NonNull;

use ingle_engine::{EngineError, Lora};
use ingle_gguf::{FileKind, Header, validate_shards};

use crate::ffi::{guarded, sys};
use crate::log;
use crate::model::{Model, load_error, or_unknown};

/// Loads `loras` and lets `context` use them. llama.cpp frees them with the model.
///
/// # Errors
/// [`EngineError::Load`] for a file that is missing, no adapter, or made for another model.
pub(crate) fn attach(model: &Model, context: NonNull<sys::llama_context>, loras: &[Lora]) -> Result<(), EngineError> {
    if loras.is_empty() {
        return Ok(());
    }
    let mut adapters = Vec::with_capacity(loras.len());
    for lora in loras {
        adapters.push(load(model, lora)?.as_ptr());
    }
    let mut scales: Vec<f32> = loras.iter().map(|lora| lora.scale).collect();
    // SAFETY: context and adapters are alive, and both arrays have the length given.
    let set = || unsafe {
        sys::llama_set_adapters_lora(context.as_ptr(), adapters.as_mut_ptr(), adapters.len(), scales.as_mut_ptr())
    };
    match guarded(set) {
        Ok(0) => Ok(()),
        Ok(status) => Err(load_error(&loras[0].path, format!("llama.cpp did not take the adapters ({status})"))),
        Err(reason) => Err(load_error(&loras[0].path, reason)),
    }
}

fn load(model: &Model, lora: &Lora) -> Result<NonNull<sys::llama_adapter_lora>, EngineError> {
    let path = &lora.path;
    check(lora)?;
    let c_path = CString::new(path.as_os_str().as_encoded_bytes());
    let c_path = c_path.map_err(|_| load_error(path, "its path holds a zero byte"))?;
    // SAFETY: the model is alive, and the path lives until the call returns.
    let init = || guarded(|| unsafe { sys::llama_adapter_lora_init(model.as_ptr(), c_path.as_ptr()) });
    let (made, captured) = log::capture(init);
    let made = made.map_err(|reason| load_error(path, reason))?;
    let refused = || load_error(path, format!("llama.cpp refused the adapter: {}", or_unknown(&captured.complaints())));
    NonNull::new(made).ok_or_else(refused)
}

/// Is the file an adapter at all? llama.cpp is not asked to read others.
fn check(lora: &Lora) -> Result<(), EngineError> {
    let path = &lora.path;
    let unreadable = |error: std::io::Error| load_error(path, format!("the adapter cannot be read: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    let header = Header::read(&mut BufReader::new(file), bytes);
    let header = header.map_err(|error| load_error(path, format!("the adapter is damaged: {error}")))?;
    match validate_shards(&header, &[]) {
        Ok(info) if info.kind == FileKind::Adapter => Ok(()),
        _ => Err(load_error(
            path,
            "it is not a LoRA adapter in GGUF; convert it with llama.cpp's convert_lora_to_gguf.py",
        )),
    }
}
