//! Running, draining, stopped: what requests need to know of the server's end.
use std::future::Future;

use tokio::sync::watch;

use crate::error::ApiError;

/// How far the server's end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Requests come and go.
    Running,
    /// No new connections; what runs may end in its time.
    Draining,
    /// What still runs is cancelled.
    Cancelled,
}

/// The stage, and a way to wait for the last one.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    stage: watch::Sender<Stage>,
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self { stage: watch::Sender::new(Stage::Running) }
    }

    /// Goes on to a later stage.
    pub(crate) fn advance(&self, stage: Stage) {
        self.stage.send_if_modified(|current| {
            let is_later = stage > *current;
            if is_later {
                *current = stage;
            }
            is_later
        });
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Ends when running requests must end; a future of its own, without a borrow.
    pub(crate) fn cancelled(&self) -> impl Future<Output = ApiError> + Send + use<> {
        let mut stage = self.stage.subscribe();
        async move {
            // The sender outlives every request; if it were gone, the server would be too.
            let _ = stage.wait_for(|stage| *stage == Stage::Cancelled).await;
            ApiError::unavailable("shutting_down", "the server is stopping; send the request again", 5)
        }
    }

    /// The outcome of `work`, or a failure when the server stops first.
    pub(crate) async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        tokio::select! {
            biased;
            outcome = work => outcome,
            error = self.cancelled() => Err(error),
        }
    }
}
