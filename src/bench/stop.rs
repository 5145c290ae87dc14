//! Ctrl-C and SIGTERM: the first one ends a measurement and keeps what is done, the second one ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

/// Status of a program that was ended by an interrupt.
const INTERRUPTED: i32 = 130;

/// Whether the measurement is to end; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Requested by an interrupt. A thread of its own waits for it, since the measurement blocks.
    pub(crate) fn on_interrupt() -> anyhow::Result<Self> {
        let stop = Self::default();
        let requested = stop.clone();
        let executor = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let wait = move || {
            executor.block_on(async {
                while interrupt().await.is_ok() {
                    if requested.0.swap(true, Ordering::Relaxed) {
                        std::process::exit(INTERRUPTED);
                    }
                    eprintln!("stopping; what is done is kept (press again to end at once)");
                }
            });
        };
        std::thread::Builder::new().name("interrupts".into()).spawn(wait).context("no thread for interrupts")?;
        Ok(stop)
    }

    /// Asks for the end.
    #[cfg(test)]
    pub(crate) fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Is the measurement to end?
    pub(crate) fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The next signal that asks for the end.
async fn interrupt() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
