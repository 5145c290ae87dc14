//! Reranking: documents in the order of their relevance to a query.

use std::time::Duration;

use ingle_catalog::Usecase;
use ingle_engine::{Answered, EngineError, Pending};

use crate::embed::{breathe, check_cost, check_text};
use crate::{Lease, Runtime, RuntimeError};

/// Documents to order.
#[derive(Debug, Clone, Default)]
pub struct RerankCall {
    /// The model; absent is the first one that reranks.
    pub model: Option<String>,
    /// What is looked for.
    pub query: String,
    /// Where it is looked for.
    pub documents: Vec<String>,
    /// Best documents to give back; absent is all of them.
    pub top_n: Option<usize>,
}

impl RerankCall {
    /// Refuses what nobody can mean, before a model is loaded for it.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidParameter`] without a query or documents, for a query that is too long, or for a `top_n` of 0.
    pub fn check(&self) -> Result<(), RuntimeError> {
        let wrong = |parameter, value: String, permitted: &str| {
            Err(RuntimeError::InvalidParameter { parameter, value, permitted: permitted.into() })
        };
        match check_text(&self.query) {
            Ok(()) => {}
            Err(EngineError::EmptyPrompt) => return wrong("query", "empty".into(), "a text"),
            Err(error) => return wrong("query", format!("too long: {error}"), "a shorter text"),
        }
        if self.documents.is_empty() {
            return wrong("documents", "empty".into(), "at least one text");
        }
        if self.top_n == Some(0) {
            return wrong("top_n", "0".into(), "1 or more, or leave it out for all");
        }
        Ok(())
    }
}

/// A document's place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// Index in the call's documents.
    pub document_idx: usize,
    /// Higher is more relevant.
    pub score: f32,
}

/// The documents of one call, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// The model that scored them.
    pub model: String,
    /// Best first; equal scores in the order of the call.
    pub results: Vec<Ranked>,
    /// Documents scored.
    pub n_scored: usize,
    /// Tokens computed, special ones included.
    pub prompt_tokens: usize,
    /// Pairs that were cut to what the model takes.
    pub n_cut: usize,
    /// From submission to the first step.
    pub waited: Duration,
    /// From submission to the end.
    pub took: Duration,
}

/// Pairs that are tokenized in one go; then whoever drives the call may find that nobody waits for it.
const PAIRS_AT_ONCE: usize = 16;

/// A call whose pairs are tokenized and queued; dropping it cancels the call.
#[must_use = "dropping it cancels the call"]
pub struct PendingRanking {
    pending: Pending<f32>,
    lease: Lease,
    top_n: Option<usize>,
    n_tokens: usize,
    n_cut: usize,
}

impl PendingRanking {
    /// Waits for the scores and orders the documents by them.
    ///
    /// # Errors
    /// [`RuntimeError::NotANumber`], and the engine's own.
    pub async fn finish(self) -> Result<Ranking, RuntimeError> {
        let Self { pending, lease, top_n, n_tokens, n_cut } = self;
        let Answered { responses, waited, took } = pending.await?;
        if responses.iter().any(|score| score.is_nan()) {
            return Err(RuntimeError::NotANumber { model: lease.model().to_owned() });
        }
        let n_scored = responses.len();
        let scored = responses.into_iter().enumerate();
        let mut results: Vec<Ranked> = scored.map(|(document_idx, score)| Ranked { document_idx, score }).collect();
        results.sort_by(|a, b| b.score.total_cmp(&a.score));
        results.truncate(top_n.unwrap_or(usize::MAX));
        let model = lease.model().to_owned();
        Ok(Ranking { model, results, n_scored, prompt_tokens: n_tokens, n_cut, waited, took })
    }
}

impl Runtime {
    /// Scores every document by the query and orders them.
    ///
    /// # Errors
    /// As [`Runtime::begin_rerank`] and [`PendingRanking::finish`].
    pub async fn rerank(&self, call: RerankCall) -> Result<Ranking, RuntimeError> {
        self.begin_rerank(call).await?.finish().await
    }

    /// Tokenizes every pair and queues the call: the part that keeps a thread busy. It lets go of the thread for a
    /// moment now and then, so that dropping it ends it.
    ///
    /// # Errors
    /// As [`RerankCall::check`] and [`Runtime::lease`]; [`RuntimeError::Input`] for a document that is empty or too long;
    /// the engine's own.
    pub async fn begin_rerank(&self, call: RerankCall) -> Result<PendingRanking, RuntimeError> {
        call.check()?;
        let lease = self.lease(call.model.as_deref(), Usecase::Rerank).await?;
        let model = lease.rerank()?;
        let mut sequences = Vec::with_capacity(call.documents.len());
        let (mut n_tokens, mut n_cut, mut n_read) = (0, 0, 0);
        for (idx, document) in call.documents.iter().enumerate() {
            let at = |error| RuntimeError::Input { idx, error };
            check_text(document).map_err(at)?;
            let encoded = model.encoder.encode_pair(&call.query, document).map_err(at)?;
            n_cut += usize::from(encoded.is_cut());
            n_tokens += encoded.sequence.tokens.len();
            // What is cut off has been tokenized as well: a long query once for each document.
            n_read += encoded.full_len;
            check_cost(model.thread.config(), n_read)?;
            sequences.push(encoded.sequence);
            if idx % PAIRS_AT_ONCE == PAIRS_AT_ONCE - 1 {
                breathe().await;
            }
        }
        let pending = model.thread.submit(sequences, self.time_limit())?;
        Ok(PendingRanking { pending, lease, top_n: call.top_n, n_tokens, n_cut })
    }
}
