//! Reranking: documents in the order of their relevance to a query.

use std::time::Duration;

use ingle_catalog::Usecase;
use ingle_engine::Answered;

use crate::embed::check_text;
use crate::{Runtime, RuntimeError};

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

impl Runtime {
    /// Scores every document by the query and orders them.
    ///
    /// # Errors
    /// As [`Runtime::lease`]; [`RuntimeError::InvalidParameter`] without a query or documents, or for a `top_n` of 0;
    /// [`RuntimeError::Input`] for a document that is empty or too long; the engine's own.
    pub async fn rerank(&self, call: RerankCall) -> Result<Ranking, RuntimeError> {
        let empty = |parameter, permitted: &str| RuntimeError::InvalidParameter {
            parameter,
            value: "empty".into(),
            permitted: permitted.into(),
        };
        if call.query.is_empty() {
            return Err(empty("query", "a text"));
        }
        if call.documents.is_empty() {
            return Err(empty("documents", "at least one text"));
        }
        if call.top_n == Some(0) {
            let permitted = "1 or more, or leave it out for all".into();
            return Err(RuntimeError::InvalidParameter { parameter: "top_n", value: "0".into(), permitted });
        }
        let lease = self.lease(call.model.as_deref(), Usecase::Rerank).await?;
        let model = lease.rerank()?;
        let (mut sequences, mut n_cut) = (Vec::with_capacity(call.documents.len()), 0);
        for (idx, document) in call.documents.iter().enumerate() {
            let at = |error| RuntimeError::Input { idx, error };
            check_text(document).map_err(at)?;
            let encoded = model.encoder.encode_pair(&call.query, document).map_err(at)?;
            n_cut += usize::from(encoded.is_cut());
            sequences.push(encoded.sequence);
        }
        let prompt_tokens = sequences.iter().map(|sequence| sequence.tokens.len()).sum();
        let Answered { responses, waited, took } = model.thread.submit(sequences, self.time_limit())?.await?;
        if responses.iter().any(|score| score.is_nan()) {
            return Err(RuntimeError::NotANumber { model: lease.model().to_owned() });
        }
        let n_scored = responses.len();
        let scored = responses.into_iter().enumerate();
        let mut results: Vec<Ranked> = scored.map(|(document_idx, score)| Ranked { document_idx, score }).collect();
        results.sort_by(|a, b| b.score.total_cmp(&a.score));
        results.truncate(call.top_n.unwrap_or(usize::MAX));
        Ok(Ranking { model: lease.model().to_owned(), results, n_scored, prompt_tokens, n_cut, waited, took })
    }
}
