//! llama.cpp's own grammar sampler, to compare ours with. It can hang or crash on a hostile grammar: nothing on the way of
//! an answer uses it.

use std::ffi::CString;
use std::path::Path;

use ingle_engine::TokenId;
use llama_cpp_sys_2 as sys;

/// The vocabulary of a model, loaded without its weights.
pub struct PeerVocabulary {
    model: *mut sys::llama_model,
}

impl PeerVocabulary {
    /// Reads it from a GGUF file; `None` where llama.cpp cannot.
    pub fn open(path: &Path) -> Option<Self> {
        let path = CString::new(path.to_str()?).ok()?;
        // SAFETY: the parameters are llama.cpp's own; the path outlives the call.
        let model = unsafe {
            let mut params = sys::llama_model_default_params();
            params.vocab_only = true;
            sys::llama_model_load_from_file(path.as_ptr(), params)
        };
        (!model.is_null()).then_some(Self { model })
    }

    /// A sampler for a grammar whose rule is `root`; `None` where llama.cpp refuses it.
    pub fn grammar(&self, grammar: &str) -> Option<PeerGrammar<'_>> {
        let grammar = CString::new(grammar).ok()?;
        // SAFETY: model and texts are alive.
        let sampler = unsafe {
            let vocab = sys::llama_model_get_vocab(self.model);
            sys::llama_sampler_init_grammar(vocab, grammar.as_ptr(), c"root".as_ptr())
        };
        (!sampler.is_null()).then_some(PeerGrammar { sampler, data: Vec::new(), vocabulary: std::marker::PhantomData })
    }
}

impl Drop for PeerVocabulary {
    fn drop(&mut self) {
        // SAFETY: samplers borrow the vocabulary, so none is alive.
        unsafe { sys::llama_model_free(self.model) }
    }
}

/// One text on its way through a grammar.
pub struct PeerGrammar<'v> {
    sampler: *mut sys::llama_sampler,
    data: Vec<sys::llama_token_data>,
    vocabulary: std::marker::PhantomData<&'v PeerVocabulary>,
}

impl PeerGrammar<'_> {
    /// Fills the row that the sampler looks at, `n_vocab` equal logits.
    pub fn fill(&mut self, n_vocab: usize) {
        self.data.clear();
        self.data.extend((0..n_vocab).map(|id| sys::llama_token_data { id: id as i32, logit: 0.5, p: 0.0 }));
    }

    /// Excludes what the grammar does not allow from the row.
    pub fn apply(&mut self) {
        let (data, size) = (self.data.as_mut_ptr(), self.data.len());
        let mut array = sys::llama_token_data_array { data, size, selected: -1, sorted: false };
        // SAFETY: the array describes `data`, which a grammar neither moves nor shortens.
        unsafe { sys::llama_sampler_apply(self.sampler, &mut array) }
    }

    /// Takes a token that the last [`PeerGrammar::apply`] left; says no to any other.
    pub fn accept(&mut self, token: TokenId) -> bool {
        let is_left = self.data.get(token as usize).is_some_and(|entry| entry.logit > f32::NEG_INFINITY);
        if is_left {
            // SAFETY: the sampler is alive; a token that it refuses, which would throw, is not handed to it.
            unsafe { sys::llama_sampler_accept(self.sampler, token as i32) }
        }
        is_left
    }
}

impl Drop for PeerGrammar<'_> {
    fn drop(&mut self) {
        // SAFETY: it is not used again.
        unsafe { sys::llama_sampler_free(self.sampler) }
    }
}
