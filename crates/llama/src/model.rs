//! Loaded weights and their vocabulary, shared by the threads that need them.

use std::ffi::{CString, c_char};
use std::path::Path;
use std::ptr::NonNull;

use ingle_engine::{EngineError, GpuLayers, LoadOptions, SplitMode};
use ingle_gguf::ModelInfo;

use crate::exit;
use crate::ffi::{self, guarded, sys};
use crate::fit::Placement;
use crate::log::{self, Buffer};

/// Width of a hidden state from which on matrices may be laid out anew.
const LEAST_LAID_OUT: u32 = 256;

/// The weights. llama.cpp never changes them after loading, so threads share them freely.
pub(crate) struct Model(NonNull<sys::llama_model>);

// SAFETY: after loading, llama.cpp only reads a model; its functions on a const model may run on any thread.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Drop for Model {
    fn drop(&mut self) {
        let _running = exit::Call::begin();
        // SAFETY: made by `llama_model_load_from_file`, and contexts hold an `Arc` of it, so none is left.
        unsafe { sys::llama_model_free(self.0.as_ptr()) };
    }
}

/// An [`EngineError::Load`].
pub(crate) fn load_error(path: &Path, reason: impl Into<String>) -> EngineError {
    EngineError::Load { path: path.display().to_string(), reason: reason.into() }
}

/// A failure of llama.cpp as an [`EngineError`]: memory that could not be had is told apart, since less may do.
pub(crate) fn failure(path: &Path, reason: String) -> EngineError {
    const SIGNS: &[&str] = &["allocat", "out of memory", "bad_alloc", "cudaMalloc"];
    match SIGNS.iter().any(|sign| reason.contains(sign)) {
        true => EngineError::OutOfMemory { path: path.display().to_string(), reason },
        false => load_error(path, reason),
    }
}

/// May ggml lay the matrices out anew, for the processor's matrix unit? With rows of one block its kernels for AMX give NaN
/// (b11434; seen with rows of 32), and nothing would be gained there.
pub(crate) fn may_be_laid_out(info: &ModelInfo) -> bool {
    info.n_embd >= LEAST_LAID_OUT
}

/// An [`EngineError::Option`].
pub(crate) fn option_error(option: &str, reason: impl Into<String>) -> EngineError {
    EngineError::Option { option: option.into(), reason: reason.into() }
}

impl Model {
    /// Reads the weights to where `placement` says, and tells what that took.
    ///
    /// # Errors
    /// [`EngineError::Load`] with what llama.cpp logged, [`EngineError::OutOfMemory`] when there is not enough,
    /// [`EngineError::Option`] for a split it cannot make.
    pub(crate) fn load(
        options: &LoadOptions,
        info: &ModelInfo,
        placement: &Placement,
    ) -> Result<(Self, Vec<Buffer>), EngineError> {
        let path = &options.path;
        let bytes = path.as_os_str().as_encoded_bytes();
        let c_path = CString::new(bytes).map_err(|_| load_error(path, "its path holds a zero byte"))?;
        let split = tensor_split(options, placement)?;
        let patterns = expert_patterns(placement.n_cpu_experts);
        let moved = moved_to_main_memory(&patterns);
        let overrides = kv_overrides(&options.header_overrides)?;
        let mut params = model_params(options, placement, split.as_deref())?;
        params.use_extra_bufts = may_be_laid_out(info);
        if !moved.is_empty() {
            params.tensor_buft_overrides = moved.as_ptr();
        }
        if !overrides.is_empty() {
            params.kv_overrides = overrides.as_ptr();
        }
        // SAFETY: path, split, patterns and overrides live until the call returns; llama.cpp copies what it keeps.
        let load = || guarded(|| unsafe { ffi::llama_model_load_from_file(c_path.as_ptr(), params) });
        let (result, captured) = log::capture(load);
        let model = result.map_err(|reason| failure(path, reason))?;
        match NonNull::new(model) {
            Some(model) => Ok((Self(model), captured.buffers)),
            None => Err(failure(path, format!("llama.cpp refused it: {}", or_unknown(&captured.complaints())))),
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::llama_model {
        self.0.as_ptr()
    }

    pub(crate) fn vocab(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is alive, and so is its vocabulary as long as it is.
        unsafe { sys::llama_model_get_vocab(self.as_ptr()) }
    }

    /// Tokens the sliding-window layers look back; `None` without such layers.
    pub(crate) fn sliding_window(&self) -> Option<usize> {
        // SAFETY: the model is alive.
        let window = unsafe { sys::llama_model_n_swa(self.as_ptr()) };
        usize::try_from(window).ok().filter(|&window| window > 0)
    }

    /// Layers, the output matrix not counted.
    pub(crate) fn n_layers(&self) -> u32 {
        // SAFETY: the model is alive.
        u32::try_from(unsafe { sys::llama_model_n_layer(self.as_ptr()) }).unwrap_or(0)
    }

    /// Does any layer keep a state that cannot be cut?
    pub(crate) fn has_recurrent_state(&self) -> bool {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_is_recurrent(self.as_ptr()) || sys::llama_model_is_hybrid(self.as_ptr()) }
    }

    /// Numbers of an embedding: those of a hidden state, unless the file says otherwise.
    pub(crate) fn n_embd_out(&self) -> usize {
        // SAFETY: the model is alive.
        usize::try_from(unsafe { sys::llama_model_n_embd_out(self.as_ptr()) }).unwrap_or(0)
    }

    /// How the file says that vectors of tokens become one; `None` where it is silent.
    pub(crate) fn pooling(&self) -> Option<sys::llama_pooling_type> {
        let architecture = self.metadata(c"general.architecture")?;
        let key = CString::new(format!("{architecture}.pooling_type")).ok()?;
        match self.metadata(&key)?.as_str() {
            "1" => Some(sys::LLAMA_POOLING_TYPE_MEAN),
            "2" => Some(sys::LLAMA_POOLING_TYPE_CLS),
            "3" => Some(sys::LLAMA_POOLING_TYPE_LAST),
            _ => None,
        }
    }

    /// A text of the header.
    pub(crate) fn metadata(&self, key: &std::ffi::CStr) -> Option<String> {
        let mut text = vec![0_u8; 16 << 10];
        // SAFETY: the model is alive, the key ends in zero, and the buffer has the length given.
        let length =
            unsafe { sys::llama_model_meta_val_str(self.as_ptr(), key.as_ptr(), text.as_mut_ptr().cast(), text.len()) };
        // What does not fit is cut by llama.cpp: such a text is of no use.
        let length = usize::try_from(length).ok().filter(|length| *length < text.len())?;
        text.truncate(length);
        String::from_utf8(text).ok()
    }

    /// Can it continue a text token by token?
    pub(crate) fn generates_text(&self) -> bool {
        let model = self.as_ptr();
        // SAFETY: the model is alive.
        unsafe {
            sys::llama_model_has_decoder(model)
                && !sys::llama_model_has_encoder(model)
                && !sys::llama_model_is_diffusion(model)
        }
    }
}

pub(crate) fn or_unknown(complaints: &str) -> &str {
    if complaints.is_empty() { "it gave no reason" } else { complaints }
}

/// One share per device llama.cpp can have, those of the placement where the options have none; `None` without shares.
fn tensor_split(options: &LoadOptions, placement: &Placement) -> Result<Option<Vec<f32>>, EngineError> {
    let mut shares = options.tensor_split.clone();
    if shares.is_empty() {
        shares = placement.layers_by_gpu.iter().map(|&count| count as f32).collect();
    }
    if shares.is_empty() {
        return Ok(None);
    }
    // SAFETY: has no preconditions.
    let n_max = unsafe { sys::llama_max_devices() };
    let is_bad = |share: &f32| !share.is_finite() || *share < 0.0;
    if shares.len() > n_max || shares.iter().any(is_bad) {
        return Err(option_error("tensor_split", format!("give at most {n_max} shares, none of them negative")));
    }
    shares.resize(n_max, 0.0);
    Ok(Some(shares))
}

/// The names of the experts' tensors in the first layers.
fn expert_patterns(n_layers: u32) -> Vec<CString> {
    let pattern = |layer: u32| format!(r"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps");
    (0..n_layers).filter_map(|layer| CString::new(pattern(layer)).ok()).collect()
}

/// What llama.cpp takes for "these tensors stay in main memory", with the empty entry that ends it; nothing for none.
fn moved_to_main_memory(patterns: &[CString]) -> Vec<sys::llama_model_tensor_buft_override> {
    if patterns.is_empty() {
        return Vec::new();
    }
    // SAFETY: has no preconditions.
    let main_memory = unsafe { sys::ggml_backend_cpu_buffer_type() };
    let entry =
        |pattern: &CString| sys::llama_model_tensor_buft_override { pattern: pattern.as_ptr(), buft: main_memory };
    let end = sys::llama_model_tensor_buft_override { pattern: std::ptr::null(), buft: std::ptr::null_mut() };
    patterns.iter().map(entry).chain([end]).collect()
}

fn model_params(
    options: &LoadOptions,
    placement: &Placement,
    split: Option<&[f32]>,
) -> Result<sys::llama_model_params, EngineError> {
    // SAFETY: has no preconditions.
    let mut params = unsafe { sys::llama_model_default_params() };
    params.n_gpu_layers = i32::try_from(placement.n_gpu_layers).unwrap_or(i32::MAX);
    params.split_mode = match options.split_mode {
        SplitMode::Layer => sys::LLAMA_SPLIT_MODE_LAYER,
        SplitMode::Row => sys::LLAMA_SPLIT_MODE_ROW,
        SplitMode::None => sys::LLAMA_SPLIT_MODE_NONE,
    };
    if let Some(main_gpu) = options.main_gpu {
        params.main_gpu = i32::try_from(main_gpu).map_err(|_| option_error("main_gpu", "there is no such GPU"))?;
        let is_layered = options.split_mode == SplitMode::Layer;
        if split.is_none() && is_layered && options.gpu_layers != GpuLayers::Count(0) {
            params.split_mode = sys::LLAMA_SPLIT_MODE_NONE;
        }
    }
    params.tensor_split = split.map_or(std::ptr::null(), <[f32]>::as_ptr);
    params.load_mode = match (options.mmap, options.mlock) {
        (None, false) => sys::LLAMA_LOAD_MODE_AUTO,
        (Some(false), false) => sys::LLAMA_LOAD_MODE_NONE,
        (Some(true), false) => sys::LLAMA_LOAD_MODE_MMAP,
        (Some(false), true) => sys::LLAMA_LOAD_MODE_MLOCK,
        (None | Some(true), true) => sys::LLAMA_LOAD_MODE_MMAP_MLOCK,
    };
    params.check_tensors = options.check_tensors;
    params.progress_callback = Some(exit::goes_on_loading);
    Ok(params)
}

/// `key=type:value` lines as llama.cpp takes them, with the empty entry that ends them; nothing for no lines.
fn kv_overrides(lines: &[String]) -> Result<Vec<sys::llama_model_kv_override>, EngineError> {
    let mut overrides = Vec::new();
    for line in lines {
        let refused = || option_error("overrides", format!("{line:?} is not of the form key=type:value"));
        overrides.push(kv_override(line).ok_or_else(refused)?);
    }
    if !overrides.is_empty() {
        // SAFETY: a plain struct; an empty key ends the list.
        overrides.push(unsafe { std::mem::zeroed() });
    }
    Ok(overrides)
}

fn kv_override(line: &str) -> Option<sys::llama_model_kv_override> {
    let (key, rest) = line.split_once('=')?;
    let (kind, value) = rest.split_once(':')?;
    // SAFETY: a plain struct of numbers, for which zeros are valid.
    let mut entry: sys::llama_model_kv_override = unsafe { std::mem::zeroed() };
    fill(&mut entry.key, key)?;
    match kind {
        "int" => {
            entry.tag = sys::LLAMA_KV_OVERRIDE_TYPE_INT;
            entry.__bindgen_anon_1.val_i64 = value.parse().ok()?;
        }
        "float" => {
            entry.tag = sys::LLAMA_KV_OVERRIDE_TYPE_FLOAT;
            entry.__bindgen_anon_1.val_f64 = value.parse().ok()?;
        }
        "bool" => {
            entry.tag = sys::LLAMA_KV_OVERRIDE_TYPE_BOOL;
            entry.__bindgen_anon_1.val_bool = value.parse().ok()?;
        }
        "str" => {
            entry.tag = sys::LLAMA_KV_OVERRIDE_TYPE_STR;
            let mut text = [0; 128];
            fill(&mut text, value)?;
            entry.__bindgen_anon_1.val_str = text;
        }
        _ => return None,
    }
    Some(entry)
}

/// Writes `text` and a zero behind it.
fn fill(into: &mut [c_char; 128], text: &str) -> Option<()> {
    if text.is_empty() || text.len() >= into.len() || text.contains('\0') {
        return None;
    }
    for (to, byte) in into.iter_mut().zip(text.bytes()) {
        *to = byte as c_char;
    }
    Some(())
}
