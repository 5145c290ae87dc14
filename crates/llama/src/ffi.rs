//! The calls into llama.cpp that may throw, declared so that an exception may pass, and the guard that catches it.

use std::ffi::{CStr, c_char, c_void};

pub(crate) use llama_cpp_sys_2 as sys;

use crate::exit;

// These repeat declarations of `llama_cpp_sys_2` with the one difference that unwinding out of them is allowed.
unsafe extern "C-unwind" {
    pub(crate) fn llama_model_load_from_file(
        path: *const c_char,
        params: sys::llama_model_params,
    ) -> *mut sys::llama_model;
    pub(crate) fn llama_init_from_model(
        model: *mut sys::llama_model,
        params: sys::llama_context_params,
    ) -> *mut sys::llama_context;
    pub(crate) fn llama_decode(context: *mut sys::llama_context, batch: sys::llama_batch) -> i32;
    pub(crate) fn llama_encode(context: *mut sys::llama_context, batch: sys::llama_batch) -> i32;
    pub(crate) fn llama_get_embeddings_seq(context: *mut sys::llama_context, seq: i32) -> *mut f32;
    pub(crate) fn llama_synchronize(context: *mut sys::llama_context);
    pub(crate) fn llama_get_logits_ith(context: *mut sys::llama_context, entry_idx: i32) -> *mut f32;
    pub(crate) fn llama_tokenize(
        vocab: *const sys::llama_vocab,
        text: *const c_char,
        text_len: i32,
        tokens: *mut sys::llama_token,
        n_tokens_max: i32,
        add_special: bool,
        parse_special: bool,
    ) -> i32;
    pub(crate) fn llama_token_to_piece(
        vocab: *const sys::llama_vocab,
        token: sys::llama_token,
        buffer: *mut c_char,
        length: i32,
        lstrip: i32,
        special: bool,
    ) -> i32;
    pub(crate) fn llama_memory_clear(memory: sys::llama_memory_t, data: bool);
    pub(crate) fn llama_memory_seq_rm(memory: sys::llama_memory_t, seq: i32, from: i32, to: i32) -> bool;
    pub(crate) fn llama_memory_seq_cp(memory: sys::llama_memory_t, seq: i32, into: i32, from: i32, to: i32);
    pub(crate) fn llama_state_seq_get_size(context: *mut sys::llama_context, seq: i32) -> usize;
    pub(crate) fn llama_state_seq_get_data(
        context: *mut sys::llama_context,
        to: *mut u8,
        size: usize,
        seq: i32,
    ) -> usize;
    pub(crate) fn llama_state_seq_set_data(
        context: *mut sys::llama_context,
        from: *const u8,
        size: usize,
        seq: i32,
    ) -> usize;
    pub(crate) fn llama_memory_seq_add(memory: sys::llama_memory_t, seq: i32, from: i32, to: i32, delta: i32);
}

unsafe extern "C" {
    /// See `guard.cpp`.
    fn ingle_llama_guard(
        body: unsafe extern "C-unwind" fn(*mut c_void),
        data: *mut c_void,
        message: *mut c_char,
        capacity: usize,
    ) -> bool;
}

struct Call<F, R> {
    function: Option<F>,
    result: Option<R>,
}

unsafe extern "C-unwind" fn run<F: FnOnce() -> R, R>(data: *mut c_void) {
    // SAFETY: `guarded` passes a `Call<F, R>` of these very types that nobody else touches meanwhile.
    let call = unsafe { &mut *data.cast::<Call<F, R>>() };
    call.result = call.function.take().map(|function| function());
}

/// Runs `function`, which calls into llama.cpp and must not panic; a C++ exception becomes an error with its text.
pub(crate) fn guarded<F: FnOnce() -> R, R>(function: F) -> Result<R, String> {
    let _running = exit::Call::begin();
    let mut call = Call { function: Some(function), result: None };
    let mut message = [0_u8; 512];
    let data = (&raw mut call).cast();
    // SAFETY: `run::<F, R>` gets the call it is made for, which outlives the guard; the buffer has the length given.
    let has_returned = unsafe { ingle_llama_guard(run::<F, R>, data, message.as_mut_ptr().cast(), message.len()) };
    match call.result {
        Some(result) if has_returned => Ok(result),
        _ => {
            let text = CStr::from_bytes_until_nul(&message).unwrap_or_default();
            Err(format!("llama.cpp threw an exception: {}", text.to_string_lossy()))
        }
    }
}
