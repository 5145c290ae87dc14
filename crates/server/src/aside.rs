//! Work that keeps a thread busy, away from the threads that serve connections.
use std::future::Future;

use crate::error::ApiError;

/// Runs `work`, which computes more than it waits (templates, tokenizing), on a thread for such work. There are few
/// threads for connections, and each of them serves many.
///
/// # Errors
/// What `work` says; an internal error when it panics.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let executor = tokio::runtime::Handle::current();
    let done = tokio::task::spawn_blocking(move || executor.block_on(work)).await;
    done.unwrap_or_else(|_| Err(ApiError::internal("the server has a fault; its log says more")))
}

/// A model's name as a request gives it; an empty one is none.
pub(crate) fn named(model: Option<String>) -> Option<String> {
    model.filter(|name| !name.trim().is_empty())
}
