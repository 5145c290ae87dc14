//! The loop of the engine thread: gather, run, split.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::queue::{Shared, Step, Taken};
use super::{BatchModel, Interrupt};
use crate::EngineError;
use crate::text::Mortal;

/// Runs `body`; a panic kills the engine, not the process.
pub(super) fn guard<Q: Send, R: Send>(shared: &Shared<Q, R>, body: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let reason = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown panic");
        tracing::error!(model = shared.config.name, reason, "the engine panicked");
        shared.die(&format!("internal error: {reason}"));
    }
}

/// Works steps off until the last handle is dropped.
pub(super) fn run<M: BatchModel>(mut model: M, shared: &Shared<M::Request, M::Response>) {
    while let Some(step) = shared.next_step() {
        let (begun, n_requests, cost) = (Instant::now(), step.requests.len(), step.cost);
        let outcomes = work_off(&mut model, shared, &step);
        // Booked first: whoever has an answer finds it counted.
        shared.finish(n_requests, cost, begun.elapsed());
        for (one, outcome) in step.taken.iter().zip(outcomes) {
            match outcome {
                Ok(response) => one.reply.fill(one.request_idx, response),
                Err(error) => one.reply.end(Err(error)),
            }
        }
    }
}

/// One outcome for each request of the step.
fn work_off<M: BatchModel>(
    model: &mut M,
    shared: &Shared<M::Request, M::Response>,
    Step { requests, taken, .. }: &Step<M::Request, M::Response>,
) -> Vec<Result<M::Response, EngineError>> {
    let error = match attempt(model, shared, requests, taken) {
        Ok(responses) => return responses.into_iter().map(Ok).collect(),
        Err(error) if taken.len() == 1 || is_vain(shared, taken) => {
            return taken.iter().map(|_| Err(error.clone())).collect();
        }
        Err(error) => error,
    };
    tracing::warn!(model = shared.config.name, %error, n = taken.len(), "a step failed; one by one now");
    let mut alone = |idx: usize| {
        if taken[idx].reply.is_over() {
            return Err(error.clone());
        }
        let responses = attempt(model, shared, &requests[idx..=idx], &taken[idx..=idx])?;
        Ok(responses.into_iter().next().expect("an attempt gives one response for each request"))
    };
    (0..taken.len()).map(&mut alone).collect()
}

/// Does nobody wait for these requests any more? Calls whose time is up end here.
fn is_vain<Q, R>(shared: &Shared<Q, R>, taken: &[Taken<R>]) -> bool {
    taken.iter().for_each(|one| one.reply.end_if_late());
    shared.is_closed() || taken.iter().all(|one| one.reply.is_over())
}

fn attempt<M: BatchModel>(
    model: &mut M,
    shared: &Shared<M::Request, M::Response>,
    requests: &[M::Request],
    taken: &[Taken<M::Response>],
) -> Result<Vec<M::Response>, EngineError> {
    let is_raised = || is_vain(shared, taken);
    let responses = model.run(requests, &Interrupt::new(&is_raised))?;
    if responses.len() != requests.len() {
        let reason = format!("{} responses came for {} requests; this is a bug", responses.len(), requests.len());
        return Err(EngineError::Decode { reason });
    }
    Ok(responses)
}
