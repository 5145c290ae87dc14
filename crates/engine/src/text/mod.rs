//! A text model behind its own thread.
//!
//! [`TextModel::start`] builds a [`Decoder`] on a new thread that owns it for life (a llama.cpp context may not move
//! between threads). Clones of the handle submit requests and get a [`Generation`] each.

mod channel;
#[cfg(test)]
mod constrained;
mod draft;
mod draft_policy;
#[cfg(test)]
mod drafted;
mod engine_loop;
mod generation;
mod guard;
mod guessing;
mod inbox;
mod lookup;
mod pacer;
mod parking;
mod request;
#[cfg(test)]
mod tests;
mod text_filter;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use channel::Channel;
pub use draft::{Draft, DraftConfig};
use engine_loop::EngineLoop;
pub use generation::{BlockingGeneration, Generation};
use inbox::Inbox;
use lookup::Lookup;
use request::Queued;
pub use request::{
    AnswerToken, Completion, ControlTokens, EndOfGeneration, FinishReason, GenerationEvent, GenerationRequest, Piece,
    PrefixReuse, Timings, Usage,
};

use crate::sampling::Sampler;
use crate::scheduler::{Occupancy, check_prompt_length};
use crate::{Decoder, DecoderLimits, EngineError, Tokenizer};

/// Settings of an engine thread.
#[derive(Debug, Clone)]
pub struct TextConfig {
    /// Name of the model, for messages.
    pub name: String,
    /// Requests that run at the same time.
    pub n_slots: usize,
    /// Requests that may wait.
    pub max_waiting: usize,
    /// Main memory for finished prefixes that have left the cache, in bytes.
    pub most_saved_bytes: usize,
    /// Whether tokens are guessed and checked several at a time where that is quicker.
    pub speculation: crate::Speculation,
    /// What requests do at the end of the context unless they say otherwise.
    pub overflow: crate::ContextOverflow,
    /// The chat template the model file brings, if any.
    pub chat_template: Option<String>,
    /// Architecture, such as `llama`.
    pub architecture: String,
}

/// How an engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It takes requests.
    Alive,
    /// It is dead and must be loaded again.
    Dead {
        /// Why.
        reason: String,
    },
}

/// Totals since the model was loaded, and what is occupied now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TextStats {
    /// What is occupied.
    pub occupancy: Occupancy,
    /// Prompt tokens computed.
    pub prompt_tokens_computed: u64,
    /// Prompt tokens taken from the prefix cache.
    pub prompt_tokens_cached: u64,
    /// Tokens sampled.
    pub tokens_generated: u64,
    /// Steps run.
    pub steps: u64,
    /// Microseconds spent in the model.
    pub decode_micros: u64,
    /// Tokens that were guessed and checked.
    pub guesses: u64,
    /// Of these, the right ones.
    pub guesses_right: u64,
}

/// What the handle, the thread and a fault handler share.
#[derive(Debug)]
struct Shared {
    name: String,
    inbox: Arc<Inbox>,
    /// Every request without a terminal event; touched when a request comes, starts or ends.
    registry: Mutex<Registry>,
    /// Copied out once a step.
    stats: Mutex<TextStats>,
    next_id: AtomicU64,
}

#[derive(Debug, Default)]
struct Registry {
    open: HashMap<u64, Arc<Channel>>,
    n_waiting: usize,
    died: Option<String>,
    /// Smoothed seconds a request takes once it has a slot.
    service_secs: f64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data behind these locks is valid after every statement, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn died_error(&self, reason: String) -> EngineError {
        EngineError::Died { model: self.name.clone(), reason }
    }

    /// Ends every request and takes no more. Safe to call from any thread, also one that will never return.
    fn die(&self, reason: &str) {
        self.inbox.close();
        let open: Vec<Arc<Channel>> = {
            let mut registry = lock(&self.registry);
            registry.died.get_or_insert_with(|| reason.to_owned());
            registry.n_waiting = 0;
            registry.open.drain().map(|(_, channel)| channel).collect()
        };
        for channel in open {
            channel.end(Err(self.died_error(reason.to_owned())));
        }
    }

    /// Seconds until a place is likely to be free.
    fn retry_after_secs(&self, registry: &Registry, n_slots: usize) -> u64 {
        let secs = registry.service_secs * registry.n_waiting as f64 / n_slots as f64;
        secs.ceil().clamp(1.0, 60.0) as u64
    }
}

/// Something that can be declared dead from any thread, also from one that will never return.
pub(crate) trait Mortal: Send + Sync {
    /// Ends every request and takes no more.
    fn die(&self, reason: &str);
}

impl Mortal for Shared {
    fn die(&self, reason: &str) {
        Self::die(self, reason);
    }
}

/// Lets a backend declare its engine dead from wherever a fault is noticed.
#[derive(Clone)]
pub struct FaultReporter(Arc<dyn Mortal>);

impl std::fmt::Debug for FaultReporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultReporter").finish_non_exhaustive()
    }
}

impl FaultReporter {
    pub(crate) fn new(engine: Arc<dyn Mortal>) -> Self {
        Self(engine)
    }

    /// Ends every request of the engine with [`EngineError::Died`]; the engine takes no more.
    pub fn report(&self, reason: &str) {
        self.0.die(reason);
    }
}

struct Inner {
    config: TextConfig,
    limits: DecoderLimits,
    tokenizer: Arc<dyn Tokenizer>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Handle of a running text model; clones are cheap. When the last one is dropped the model ends.
#[derive(Clone)]
pub struct TextModel(Arc<Inner>);

impl std::fmt::Debug for TextModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextModel").field("name", &self.0.config.name).field("limits", &self.0.limits).finish()
    }
}

impl TextModel {
    /// Starts the thread, builds the decoder on it and returns once that has ended.
    ///
    /// # Errors
    /// What `build` says; [`EngineError::Died`] when it panics.
    pub fn start<D, B>(config: TextConfig, tokenizer: Arc<dyn Tokenizer>, build: B) -> Result<Self, EngineError>
    where
        D: Decoder + 'static,
        B: FnOnce(FaultReporter) -> Result<D, EngineError> + Send + 'static,
    {
        Self::start_with_draft(config, tokenizer, move |faults| Ok((build(faults)?, None)))
    }

    /// As [`Self::start`], with a draft model where `build` gives one.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with_draft<D, B>(
        config: TextConfig,
        tokenizer: Arc<dyn Tokenizer>,
        build: B,
    ) -> Result<Self, EngineError>
    where
        D: Decoder + 'static,
        B: FnOnce(FaultReporter) -> Result<(D, Option<Draft>), EngineError> + Send + 'static,
    {
        let shared = Arc::new(Shared {
            name: config.name.clone(),
            inbox: Arc::new(Inbox::new()),
            registry: Mutex::default(),
            stats: Mutex::default(),
            next_id: AtomicU64::new(0),
        });
        let (built_sender, built) = mpsc::sync_channel(1);
        let thread = {
            let (owner, tokenizer, config) = (Arc::clone(&shared), Arc::clone(&tokenizer), config.clone());
            let body = move || {
                engine_loop::guard(&owner, || match build(FaultReporter::new(Arc::clone(&owner) as Arc<dyn Mortal>)) {
                    Ok(decoders) => {
                        let engine = EngineLoop::new(decoders, tokenizer, &config, Arc::clone(&owner));
                        let _ = built_sender.send(Ok(engine.limits().clone()));
                        engine.run();
                    }
                    Err(error) => {
                        let _ = built_sender.send(Err(error));
                    }
                });
            };
            let spawned = std::thread::Builder::new().name(format!("engine {}", shared.name)).spawn(body);
            spawned.map_err(|error| shared.died_error(format!("its thread could not be started: {error}")))?
        };
        let lost =
            || shared.died_error(lock(&shared.registry).died.clone().unwrap_or_else(|| "it never came up".into()));
        let limits = built.recv().map_err(|_| lost())??;
        Ok(Self(Arc::new(Inner { config, limits, tokenizer, shared, thread: Mutex::new(Some(thread)) })))
    }

    /// The model's vocabulary.
    pub fn tokenizer(&self) -> &Arc<dyn Tokenizer> {
        &self.0.tokenizer
    }

    /// What the decoder can do.
    pub fn limits(&self) -> &DecoderLimits {
        &self.0.limits
    }

    /// The settings it was started with.
    pub fn config(&self) -> &TextConfig {
        &self.0.config
    }

    /// Is it alive?
    pub fn health(&self) -> Health {
        match &lock(&self.0.shared.registry).died {
            Some(reason) => Health::Dead { reason: reason.clone() },
            None => Health::Alive,
        }
    }

    /// Totals and occupancy as of the last step.
    pub fn stats(&self) -> TextStats {
        let mut stats = *lock(&self.0.shared.stats);
        stats.occupancy.waiting = lock(&self.0.shared.registry).n_waiting;
        stats
    }

    /// Ends the model whoever still has a handle: answers that run or wait end with [`EngineError::Unloaded`].
    pub fn close(&self) {
        self.0.shared.inbox.close();
    }

    /// Queues one request.
    ///
    /// # Errors
    /// As [`TextModel::submit_all`].
    pub fn submit(&self, request: GenerationRequest) -> Result<Generation, EngineError> {
        let mut generations = self.submit_all(vec![request])?;
        Ok(generations.pop().expect("one request gives one generation"))
    }

    /// Queues all of the requests or none. Returns at once; answers come through the [`Generation`]s, in order.
    ///
    /// # Errors
    /// [`EngineError::EmptyPrompt`], [`EngineError::ContextLengthExceeded`], [`EngineError::TokenOutOfRange`],
    /// [`EngineError::Sampling`] for a request that cannot work; [`EngineError::Overloaded`] when there is no room;
    /// [`EngineError::Died`] and [`EngineError::Unloaded`] when the engine is gone.
    pub fn submit_all(&self, requests: Vec<GenerationRequest>) -> Result<Vec<Generation>, EngineError> {
        let (mut queued, mut generations) = (Vec::new(), Vec::new());
        for request in requests {
            let (request, generation) = self.prepare(request)?;
            queued.push(request);
            generations.push(generation);
        }
        self.enqueue(queued)?;
        Ok(generations)
    }

    fn check(&self, request: &GenerationRequest) -> Result<(), EngineError> {
        let n_vocab = self.0.limits.n_vocab;
        check_prompt_length(request.prompt.len(), self.0.limits.n_sequence_tokens)?;
        if let Some(&token) = request.prompt.iter().find(|&&token| token as usize >= n_vocab) {
            return Err(EngineError::TokenOutOfRange { token, n_vocab });
        }
        Ok(())
    }

    fn sampler(&self, request: &GenerationRequest) -> Result<Sampler, EngineError> {
        let mut params = request.sampling.clone();
        if request.end_of_generation == EndOfGeneration::Ignored {
            let ends = self.0.tokenizer.end_of_generation();
            params.logit_bias.extend(ends.iter().map(|&token| (token, f32::NEG_INFINITY)));
        }
        let mut sampler = Sampler::new(params, self.0.limits.n_vocab, random_seed())?;
        sampler.prime(&request.prompt);
        Ok(sampler)
    }

    /// Guessing is for some answers only. A seeded answer shall not depend on how long steps take, and a state that cannot
    /// be cut cannot take a wrong guess back.
    fn lookup(&self, request: &GenerationRequest) -> Option<Lookup> {
        let overflow = request.overflow.unwrap_or(self.0.config.overflow);
        let may_guess = self.0.config.speculation == crate::Speculation::PromptLookup
            && request.sampling.seed.is_none()
            && overflow == crate::ContextOverflow::Stop
            && self.0.limits.sharing != crate::PrefixSharing::TakeOverWhole;
        may_guess.then(|| Lookup::new(&request.prompt))
    }

    fn prepare(&self, request: GenerationRequest) -> Result<(Queued, Generation), EngineError> {
        self.check(&request)?;
        let sampler = self.sampler(&request)?;
        let shared = &self.0.shared;
        let channel = Arc::new(Channel::new(Arc::clone(&shared.inbox)));
        let generation = Generation::new(generation::Parts {
            channel: Arc::clone(&channel),
            tokenizer: Arc::clone(&self.0.tokenizer),
            stop: request.stop.clone(),
            control_tokens: request.control_tokens,
            prompt_tokens: request.prompt.len(),
            seed: sampler.seed(),
        });
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        let lookup = self.lookup(&request);
        Ok((Queued { id, request, sampler, channel, lookup }, generation))
    }

    fn enqueue(&self, queued: Vec<Queued>) -> Result<(), EngineError> {
        let shared = &self.0.shared;
        {
            let mut registry = lock(&shared.registry);
            if let Some(reason) = &registry.died {
                return Err(shared.died_error(reason.clone()));
            }
            // What runs has a slot; only what comes on top of the slots waits.
            let (limit, n_slots) = (self.0.config.max_waiting, self.0.config.n_slots);
            if queued.len() > limit + n_slots {
                let most = limit + n_slots;
                let reason = format!("{} answers at once are more than the {most} that may run and wait", queued.len());
                return Err(EngineError::Option { option: "n".into(), reason });
            }
            if registry.open.len() + queued.len() > limit + n_slots {
                let retry_after_secs = shared.retry_after_secs(&registry, self.0.config.n_slots);
                return Err(EngineError::Overloaded { waiting: registry.n_waiting, limit, retry_after_secs });
            }
            registry.n_waiting += queued.len();
            registry.open.extend(queued.iter().map(|queued| (queued.id, Arc::clone(&queued.channel))));
        }
        let Err(refused) = shared.inbox.push(queued) else { return Ok(()) };
        let mut registry = lock(&shared.registry);
        registry.n_waiting = registry.n_waiting.saturating_sub(refused.len());
        refused.iter().for_each(|queued| drop(registry.open.remove(&queued.id)));
        match &registry.died {
            Some(reason) => Err(shared.died_error(reason.clone())),
            None => Err(EngineError::Unloaded { model: shared.name.clone() }),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.inbox.close();
        let is_dead = lock(&self.shared.registry).died.is_some();
        let thread = lock(&self.thread).take();
        // The thread of a dead engine may be parked for ever; a live one ends after its current step.
        if let Some(thread) = thread.filter(|_| !is_dead) {
            let _ = thread.join();
        }
    }
}

/// A seed nobody can foresee; the standard library's hasher keys are random.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
