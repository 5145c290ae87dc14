//! `POST /v1/rerank`: Jina's form, which LocalAI and others share.
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use ingle_api::openai::InputUsage;
use ingle_api::rerank::{DocumentText, RerankDocument, RerankRequest, RerankResponse, RerankResult};
use ingle_runtime::catalog::Usecase;
use ingle_runtime::{Ranked, RerankCall};
use uuid::Uuid;

use crate::aside::named;
use crate::body::JsonBody;
use crate::error::ApiError;
use crate::metrics::FinishedCall;
use crate::openai::{TRUNCATED, beside};
use crate::state::ServerState;

/// `POST /v1/rerank`
pub(crate) async fn rerank(
    State(state): State<ServerState>,
    JsonBody(request): JsonBody<RerankRequest>,
) -> Result<Response, ApiError> {
    let top_n = top_n(request.top_n)?;
    let query = request.query.ok_or_else(|| ApiError::invalid_value("query", "`query` is missing; send a text"))?;
    let documents = request
        .documents
        .ok_or_else(|| ApiError::invalid_value("documents", "`documents` is missing; send a list of texts to order"))?;
    let documents: Vec<String> = documents.into_iter().map(RerankDocument::into_text).collect();
    let n_bytes = documents.iter().map(|document| document.len() + query.len()).sum();
    let texts = if request.return_documents == Some(false) { Vec::new() } else { documents.clone() };
    let model = named(request.model);
    let call = RerankCall { model: model.clone(), query, documents, top_n };
    let runtime = state.runtime().clone();
    let ranking = async {
        call.check()?;
        // Loading and computing are waited for here; what goes aside is work.
        let _lease = runtime.lease(call.model.as_deref(), Usecase::Rerank).await?;
        let runtime = runtime.clone();
        let pending = beside(n_bytes, async move { Ok(runtime.begin_rerank(call).await?) }).await?;
        Ok(pending.finish().await?)
    };
    let ranking = state.lifecycle().unless_cancelled(ranking).await;
    let ranking = ranking.map_err(|error: ApiError| error.renamed("prompt", "documents"))?;
    state.metrics().record_call(&FinishedCall {
        model: ranking.model.clone(),
        task: "rerank",
        inputs: ranking.n_scored,
        tokens: ranking.prompt_tokens,
        waited: ranking.waited,
        took: ranking.took,
    });
    let result = |ranked: &Ranked| RerankResult {
        index: ranked.document_idx as u32,
        document: texts.get(ranked.document_idx).map(|text| DocumentText { text: text.clone() }),
        relevance_score: ranked.score,
    };
    let mut response = Json(RerankResponse {
        results: ranking.results.iter().map(result).collect(),
        model: model.unwrap_or(ranking.model),
        usage: InputUsage::new(ranking.prompt_tokens),
        id: format!("rerank-{}", Uuid::new_v4().simple()),
    })
    .into_response();
    if ranking.n_cut > 0 {
        response.headers_mut().insert(TRUNCATED, HeaderValue::from(ranking.n_cut));
    }
    Ok(response)
}

/// LocalAI answers 422 to fewer than one.
fn top_n(asked: Option<i64>) -> Result<Option<usize>, ApiError> {
    let Some(asked) = asked else { return Ok(None) };
    match usize::try_from(asked) {
        Ok(top_n) if top_n > 0 => Ok(Some(top_n)),
        Ok(_) | Err(_) => {
            let message = format!("`top_n` is {asked}; use 1 or more, or leave it out for all documents");
            Err(ApiError { status: StatusCode::UNPROCESSABLE_ENTITY, ..ApiError::invalid_value("top_n", message) })
        }
    }
}
