//! Log probabilities in the forms of chat and completions.
use indexmap::IndexMap;
use ingle_api::openai::{ChatLogprobs, CompletionLogprobs, TokenLogprob, TopLogprob};
use ingle_runtime::{AnswerToken, Lease, TokenId};

/// JSON has no infinities.
const FLOOR: f32 = -9999.0;

/// Names the tokens of a model.
pub(super) struct Vocabulary(Lease);

impl Vocabulary {
    pub(super) fn new(lease: &Lease) -> Self {
        Self(lease.clone())
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        // A model that gives tokens has a text handle.
        self.0.text().map(|model| model.tokenizer().token_bytes(token).to_vec()).unwrap_or_default()
    }

    /// The chat form.
    pub(super) fn chat(&self, tokens: &[AnswerToken]) -> ChatLogprobs {
        ChatLogprobs { content: tokens.iter().map(|token| self.chat_token(token)).collect() }
    }

    fn chat_token(&self, token: &AnswerToken) -> TokenLogprob {
        let top = token.logprob.iter().flat_map(|logprob| &logprob.top);
        let top_logprobs = top.map(|&(id, logprob)| {
            let bytes = self.bytes(id);
            TopLogprob { token: lossy(&bytes), logprob: finite(logprob), bytes: Some(bytes) }
        });
        TokenLogprob {
            token: lossy(&token.bytes),
            logprob: own(token).unwrap_or(FLOOR),
            bytes: Some(token.bytes.clone()),
            top_logprobs: top_logprobs.collect(),
        }
    }

    /// The completions form; `offset` counts the characters in front and is moved on.
    pub(super) fn completion(&self, tokens: &[AnswerToken], offset: &mut usize) -> CompletionLogprobs {
        let mut lists = CompletionLogprobs::default();
        for token in tokens {
            lists.tokens.push(lossy(&token.bytes));
            lists.token_logprobs.push(own(token));
            lists.top_logprobs.push(self.top_map(token));
            lists.text_offset.push(*offset);
            *offset += token.bytes.iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
        }
        lists
    }

    /// By text: tokens that read the same are one entry, the likeliest.
    fn top_map(&self, token: &AnswerToken) -> Option<IndexMap<String, f32>> {
        let top = &token.logprob.as_ref()?.top;
        let mut map = IndexMap::new();
        for &(id, logprob) in top {
            map.entry(lossy(&self.bytes(id))).or_insert(finite(logprob));
        }
        Some(map)
    }
}

fn own(token: &AnswerToken) -> Option<f32> {
    token.logprob.as_ref().map(|logprob| finite(logprob.logprob))
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_nan() { FLOOR } else { logprob.clamp(FLOOR, 0.0) }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
