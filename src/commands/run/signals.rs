//! The end of the program: the first signal asks for it, the second one brings it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use tokio::sync::watch;

/// Status of a program that was ended by an interrupt.
const INTERRUPTED: i32 = 130;

/// Whether the program is to stop; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    sender: Arc<watch::Sender<bool>>,
    /// The same for threads that may not wait.
    flag: Arc<AtomicBool>,
}

impl Stop {
    /// Requested by SIGINT or SIGTERM; another one of them ends the process at once.
    pub(super) fn on_signals() -> anyhow::Result<Self> {
        let stop = Self { sender: Arc::new(watch::Sender::new(false)), flag: Arc::default() };
        let mut signals = Signals::new().context("signals cannot be received")?;
        let on_signal = stop.clone();
        tokio::spawn(async move {
            signals.next().await;
            on_signal.request();
            signals.next().await;
            tracing::warn!("stopped by a second signal");
            std::process::exit(INTERRUPTED);
        });
        Ok(stop)
    }

    /// Asks for the end.
    pub(super) fn request(&self) {
        self.flag.store(true, Ordering::Relaxed);
        self.sender.send_replace(true);
    }

    /// Ends when the end is asked for.
    pub(super) async fn requested(self) {
        // The sender is part of `self`, so waiting cannot fail.
        let _ = self.sender.subscribe().wait_for(|stop| *stop).await;
    }

    /// True once the end is asked for.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "signals cannot be received");
            std::future::pending::<()>().await;
        }
    }
}
