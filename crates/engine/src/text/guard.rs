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

/// A constraint with what it allows next.
type Outcome = Result<(Box<dyn Constraint>, Allowed), ConstraintError>;

struct Job {
    constraint: Box<dyn Constraint>,
    /// The token that has become part of the text since it was asked last.
    accepted: Option<TokenId>,
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
            for Job { constraint, accepted, reply } in received {
                // Nobody waits for it any more when the request has ended.
                drop(reply.send(compute(constraint, accepted)));
                inbox.wake();
            }
        };
        let thread = std::thread::Builder::new().name(format!("masks {model}")).spawn(body)?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    fn send(&self, constraint: Box<dyn Constraint>, accepted: Option<TokenId>) -> Receiver<Outcome> {
        let (reply, receiver) = mpsc::channel();
        if let Some(jobs) = &self.jobs {
            // Without the thread the receiver is closed, which is noticed there.
            drop(jobs.send(Job { constraint, accepted, reply }));
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

fn compute(mut constraint: Box<dyn Constraint>, accepted: Option<TokenId>) -> Outcome {
    let work = || {
        if let Some(token) = accepted {
            constraint.accept(token)?;
        }
        constraint.allowed()
    };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(allowed) => allowed.map(|allowed| (constraint, allowed)),
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
    /// The mask is here.
    Here(Box<dyn Constraint>, Allowed),
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
    pub(super) fn new(constraint: Option<Box<dyn Constraint>>, masks: Option<&MaskThread>) -> Self {
        match (constraint, masks) {
            (None, _) => Self::Free,
            (Some(constraint), Some(masks)) => Self::Away(masks.send(constraint, None)),
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
                Ok(Ok((constraint, allowed))) => Self::Here(constraint, allowed),
                Ok(Err(error)) => Self::Failed(error),
                Err(RecvTimeoutError::Timeout) => return Ruling::Late,
                Err(RecvTimeoutError::Disconnected) => Self::Failed(failed("its thread has ended")),
            };
        }
        match self {
            Self::Free | Self::Here(_, Allowed::All) => Ruling::All,
            Self::Here(_, Allowed::These(mask)) => Ruling::These(Arc::clone(mask)),
            Self::Here(_, Allowed::Nothing) => Ruling::Complete,
            Self::Failed(error) => Ruling::Failed(error.clone()),
            Self::Away(_) => Ruling::Late,
        }
    }

    /// Takes the sampled token into the text and begins to compute the next mask.
    pub(super) fn accept(&mut self, token: TokenId, masks: Option<&MaskThread>) {
        let before = std::mem::replace(self, Self::Free);
        *self = match (before, masks) {
            (Self::Here(constraint, _), Some(masks)) => Self::Away(masks.send(constraint, Some(token))),
            (Self::Here(..), None) => Self::Failed(failed("its thread is gone")),
            (unchanged, _) => unchanged,
        };
    }
}
