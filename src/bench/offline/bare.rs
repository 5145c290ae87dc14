//! The bare loop: nothing but the model and the likeliest token, as a yardstick for the engine around it.

use std::time::Instant;

use ingle::sampling::{Sampler, SamplingParams};
use ingle::{BatchToken, Decoder, LoadOptions, TokenId};

use crate::bench::stop::End;
use crate::cli::Operations;

/// A second context of the same model.
pub(in crate::bench) struct Bare {
    decoder: Box<dyn Decoder>,
}

impl Bare {
    #[cfg(feature = "llama")]
    pub(super) fn open(options: &LoadOptions) -> anyhow::Result<Self> {
        let loaded = ingle_llama::LlamaBackend.load_model(options, &ingle::hardware_in_use())?;
        Ok(Self { decoder: Box::new(loaded.decoder) })
    }

    #[cfg(not(feature = "llama"))]
    pub(super) fn open(_options: &LoadOptions) -> anyhow::Result<Self> {
        anyhow::bail!("--bare needs a program with the backend llama")
    }

    /// Tokens a second of all sequences together, over `n_steps` steps behind the prompts; `None` when it is time to end.
    pub(super) fn decode(
        &mut self,
        prompts: &[Vec<TokenId>],
        n_steps: usize,
        end: &End,
    ) -> anyhow::Result<Option<f64>> {
        let limits = self.decoder.limits().clone();
        let mut sampler = Sampler::new(SamplingParams::greedy(), limits.n_vocab, 0)?;
        let mut next = Vec::with_capacity(prompts.len());
        for (seq, prompt) in (0..).zip(prompts) {
            self.decoder.clear(seq);
            let entries: Vec<BatchToken> = (prompt.iter().enumerate())
                .map(|(position, &token)| BatchToken { token, position, seq, wants_row: position + 1 == prompt.len() })
                .collect();
            let mut last = 0;
            for piece in entries.chunks(limits.n_batch) {
                if end.is_over() {
                    return Ok(None);
                }
                self.decoder.decode(piece)?;
                last = piece.len() - 1;
            }
            next.push(sampler.sample(self.decoder.row(last)?, None)?.token);
        }
        let begun = Instant::now();
        let mut batch = Vec::with_capacity(prompts.len());
        for step in 0..n_steps {
            if end.is_over() {
                return Ok(None);
            }
            batch.clear();
            batch.extend((0..).zip(prompts).zip(&next).map(|((seq, prompt), &token)| BatchToken {
                token,
                position: prompt.len() + step,
                seq,
                wants_row: true,
            }));
            self.decoder.decode(&batch)?;
            for (entry_idx, token) in next.iter_mut().enumerate() {
                *token = sampler.sample(self.decoder.row(entry_idx)?, None)?.token;
            }
        }
        let rate = (n_steps * prompts.len()) as f64 / begun.elapsed().as_secs_f64();
        (0..).zip(prompts).for_each(|(seq, _)| self.decoder.clear(seq));
        Ok(Some(rate))
    }
}

/// Chooses who computes on the processor, for the whole process and before a model is loaded.
pub(super) fn use_operations(operations: Operations) -> anyhow::Result<()> {
    #[cfg(feature = "llama")]
    {
        // The environment has its say when llama.cpp is initialised; this choice comes behind it.
        ingle::hardware_in_use();
        ingle_llama::use_own_operations(operations == Operations::Ours);
        Ok(())
    }
    #[cfg(not(feature = "llama"))]
    match operations {
        Operations::Ggml => Ok(()),
        Operations::Ours => anyhow::bail!("this program has no operations of its own: it was built without llama.cpp"),
    }
}
