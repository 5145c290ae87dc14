//! When a measurement ends before its time: by Ctrl-C or SIGTERM, or because its time is used up. What is done is kept; a
//! second signal ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

/// Status of a program that was ended by an interrupt.
const INTERRUPTED: i32 = 130;

/// Nobody is woken by an interrupt, so whoever waits looks this often.
const LOOK: Duration = Duration::from_millis(50);

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

/// The end of a measurement: an interrupt, or the clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct End {
    pub(crate) stop: Stop,
    pub(crate) deadline: Option<Instant>,
}

impl End {
    /// Is it time to end?
    pub(crate) fn is_over(&self) -> bool {
        self.stop.is_requested() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// The time until the deadline, `limit` at most.
    pub(crate) fn left(&self, limit: Duration) -> Duration {
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        self.deadline.map_or(limit, |deadline| left(deadline).min(limit))
    }

    /// What `work` gives; `None` when it is time to end before it is done, and the work is dropped then.
    pub(crate) async fn unless_over<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let over = async {
            while !self.is_over() {
                tokio::time::sleep(self.left(LOOK)).await;
            }
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = over => None,
        }
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{End, Stop};

    fn wait(end: &End, work: impl Future<Output = u32>) -> Option<u32> {
        let executor = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        executor.block_on(end.unless_over(work))
    }

    #[test]
    fn whoever_waits_is_let_go_by_the_clock_and_by_a_request() {
        let begun = Instant::now();
        let soon = End { deadline: Some(begun + Duration::from_millis(80)), ..End::default() };
        assert_eq!(wait(&soon, std::future::pending()), None);
        assert!((80..2000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
        assert_eq!(soon.left(Duration::from_secs(5)), Duration::ZERO);
        let (stop, begun) = (Stop::default(), Instant::now());
        let end = End { stop: stop.clone(), deadline: None };
        assert_eq!((wait(&end, async { 7 }), end.left(Duration::from_secs(5))), (Some(7), Duration::from_secs(5)));
        let asking = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(80));
            stop.request();
        });
        assert_eq!(wait(&end, std::future::pending()), None);
        assert!(end.is_over() && begun.elapsed() < Duration::from_secs(2));
        asking.join().unwrap();
    }
}
