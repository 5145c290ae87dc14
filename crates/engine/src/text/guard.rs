//! Constraints on their way between the engine thread and the thread that computes masks while the model computes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::inbox::Inbox;
use crate::{Allowed, Constraint, ConstraintError, TokenId, TokenMask};

/// How long sampling waits for a mask that is not ready when the step is: other answers wait as well. What comes later
/// is sampled when it comes.
const PATIENCE: Duration = Duration::from_millis(2);

/// Forced tokens that are taken at once: they are computed in one step, beside the tokens of other answers.
const MOST_FORCED: usize = 32;

/// A constraint with the tokens that must follow, which it has accepted, and what it allows behind them.
type Outcome = Result<(Box<dyn Constraint>, Vec<TokenId>, Allowed), ConstraintError>;

/// What happens where only one text can follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forcing {
    /// Its tokens are taken without asking the model for each.
    Takes,
    /// The model samples them one by one: somebody wants to know their probabilities.
    Samples,
}

struct Job {
    constraint: Box<dyn Constraint>,
    /// The token that has become part of the text since it was asked last.
    accepted: Option<TokenId>,
    forcing: Forcing,
    reply: Sender<Outcome>,
}

/// The thread that computes masks; it ends when this is dropped. At most one job for each running request is under way.
pub(super) struct MaskThread {
    /// `None` while it is being dropped.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl MaskThread {
    /// Starts it; `inbox` is rung after each job.
    pub(super) fn start(model: &str, inbox: Arc<Inbox>) -> std::io::Result<Self> {
        let (jobs, received) = mpsc::channel::<Job>();
        let body = move || {
            for Job { constraint, accepted, forcing, reply } in received {
                // Nobody waits for it any more when the request has ended.
                drop(reply.send(compute(constraint, accepted, forcing)));
                inbox.wake();
            }
        };
        let thread = std::thread::Builder::new().name(format!("masks {model}")).spawn(body)?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    fn send(&self, constraint: Box<dyn Constraint>, accepted: Option<TokenId>, forcing: Forcing) -> Receiver<Outcome> {
        let (reply, receiver) = mpsc::channel();
        if let Some(jobs) = &self.jobs {
            // Without the thread the receiver is closed, which is noticed there.
            drop(jobs.send(Job { constraint, accepted, forcing, reply }));
        }
        receiver
    }
}

impl Drop for MaskThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic in a constraint was caught inside.
            drop(thread.join());
        }
    }
}

fn compute(mut constraint: Box<dyn Constraint>, accepted: Option<TokenId>, forcing: Forcing) -> Outcome {
    let work = || {
        if let Some(token) = accepted {
            constraint.accept(token)?;
        }
        let forced = match forcing {
            Forcing::Takes => constraint.forced(),
            Forcing::Samples => Vec::new(),
        };
        forced.iter().try_for_each(|&token| constraint.accept(token))?;
        Ok((forced, constraint.allowed()?))
    };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(found) => found.map(|(forced, allowed)| (constraint, forced, allowed)),
        Err(_) => Err(failed("it panicked; this is a bug")),
    }
}

fn failed(reason: &str) -> ConstraintError {
    ConstraintError { reason: reason.to_owned() }
}

/// The constraint of one running request.
pub(super) enum Guard {
    /// There is none.
    Free,
    /// The mask for the next token is being computed.
    Away(Receiver<Outcome>),
    /// The mask is here, for behind the forced tokens that come first.
    Here { constraint: Box<dyn Constraint>, forced: Vec<TokenId>, allowed: Allowed },
    /// It failed, and allows nothing any more.
    Failed(ConstraintError),
}

/// What a guard says about the next token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// Any token.
    All,
    /// One of these.
    These(TokenMask),
    /// These tokens in this order, one at least: there is no choice. They are accepted.
    Forced(Vec<TokenId>),
    /// The text is complete.
    Complete,
    /// Not known yet.
    Late,
    /// The constraint cannot go on.
    Failed(ConstraintError),
}

/// How long to wait for a ruling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// A moment.
    Short,
    /// Not at all.
    None,
}

impl Guard {
    /// Begins to compute the first mask.
    pub(super) fn new(constraint: Option<Box<dyn Constraint>>, forcing: Forcing, masks: Option<&MaskThread>) -> Self {
        match (constraint, masks) {
            (None, _) => Self::Free,
            (Some(constraint), Some(masks)) => Self::Away(masks.send(constraint, None, forcing)),
            (Some(_), None) => Self::Failed(failed("the thread for masks could not be started")),
        }
    }

    /// What may come next.
    pub(super) fn ruling(&mut self, patience: Patience) -> Ruling {
        if let Self::Away(receiver) = self {
            let outcome = match patience {
                Patience::Short => receiver.recv_timeout(PATIENCE),
                Patience::None => receiver.recv_timeout(Duration::ZERO),
            };
            *self = match outcome {
                Ok(Ok((constraint, forced, allowed))) => Self::Here { constraint, forced, allowed },
                Ok(Err(error)) => Self::Failed(error),
                Err(RecvTimeoutError::Timeout) => return Ruling::Late,
                Err(RecvTimeoutError::Disconnected) => Self::Failed(failed("its thread has ended")),
            };
        }
        match self {
            Self::Here { forced, .. } if !forced.is_empty() => {
                Ruling::Forced(forced.drain(..forced.len().min(MOST_FORCED)).collect())
            }
            Self::Free | Self::Here { allowed: Allowed::All, .. } => Ruling::All,
            Self::Here { allowed: Allowed::These(mask), .. } => Ruling::These(Arc::clone(mask)),
            Self::Here { allowed: Allowed::Nothing, .. } => Ruling::Complete,
            Self::Failed(error) => Ruling::Failed(error.clone()),
            Self::Away(_) => Ruling::Late,
        }
    }

    /// Takes the sampled token into the text and begins to compute the next mask.
    pub(super) fn accept(&mut self, token: TokenId, forcing: Forcing, masks: Option<&MaskThread>) {
        let before = std::mem::replace(self, Self::Free);
        *self = match (before, masks) {
            (Self::Here { constraint, .. }, Some(masks)) => Self::Away(masks.send(constraint, Some(token), forcing)),
            (Self::Here { .. }, None) => Self::Failed(failed("its thread is gone")),
            (unchanged, _) => unchanged,
        };
    }
}
