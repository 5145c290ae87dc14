//! Work that keeps a thread busy, away from the threads that serve connections.
use std::future::Future;

use tokio::sync::oneshot;

use crate::error::ApiError;

/// Runs `work`, which computes more than it waits (templates, tokenizing), on a thread for such work. There are few
/// threads for connections, and each of them serves many. When nobody waits for it any more, the work ends where it
/// waits next.
///
/// # Errors
/// What `work` says; an internal error when it panics.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let executor = tokio::runtime::Handle::current();
    let (_waiting, left) = oneshot::channel::<()>();
    let until_left = async move {
        tokio::select! {
            biased;
            // The other end is never used, only dropped.
            _ = left => Err(ApiError::internal("nobody waits for it any more")),
            done = work => done,
        }
    };
    let done = tokio::task::spawn_blocking(move || executor.block_on(until_left)).await;
    done.unwrap_or_else(|_| Err(ApiError::internal("the server has a fault; its log says more")))
}

/// A model's name as a request gives it; an empty one is none.
pub(crate) fn named(model: Option<String>) -> Option<String> {
    model.filter(|name| !name.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Says when it is dropped.
    struct Kept(Option<std::sync::mpsc::Sender<()>>);

    impl Drop for Kept {
        fn drop(&mut self) {
            let _ = self.0.take().map(|sender| sender.send(()));
        }
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_ends() {
        let (sender, dropped) = std::sync::mpsc::channel();
        let (started, has_started) = oneshot::channel();
        let kept = Kept(Some(sender));
        let work = async move {
            let _kept = kept;
            let _ = started.send(());
            std::future::pending::<Result<(), ApiError>>().await
        };
        let waiting = tokio::spawn(aside(work));
        has_started.await.expect("it starts");
        assert!(dropped.try_recv().is_err(), "somebody waits for it");
        waiting.abort();
        let ended = tokio::task::spawn_blocking(move || dropped.recv_timeout(Duration::from_secs(10))).await;
        assert_eq!(ended.expect("it does not panic"), Ok(()));
        assert_eq!(aside(async { Ok(7) }).await.ok(), Some(7));
    }
}
