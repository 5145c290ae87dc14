//! From what single answers cost to what a request cost, and to the metrics.
use std::time::Duration;

use ingle_api::openai::{CompletionTokensDetails, PromptTokensDetails, Usage};
use ingle_runtime::{Completion, FinishReason};

use super::Timing;
use crate::metrics::FinishedAnswer;

/// What the answers of one request cost so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Bill {
    prompt_tokens: usize,
    cached_tokens: usize,
    completion_tokens: usize,
    reasoning_tokens: usize,
    /// The longest of the answers, which run side by side.
    prompt_time: Duration,
    generation_time: Duration,
}

impl Bill {
    /// Adds an answer. A prompt that several answers share is paid once: only its first one counts it.
    pub(super) fn add(&mut self, completion: &Completion, reasoning_tokens: usize, shares_prompt: SharesPrompt) {
        if shares_prompt == SharesPrompt::No {
            self.prompt_tokens += completion.usage.prompt_tokens;
            self.cached_tokens += completion.usage.cached_tokens;
        }
        self.completion_tokens += completion.usage.completion_tokens;
        self.reasoning_tokens += reasoning_tokens;
        self.prompt_time = self.prompt_time.max(completion.timings.prompt);
        self.generation_time = self.generation_time.max(completion.timings.generation);
    }

    /// The bill in the dialect's words.
    pub(super) fn usage(&self, timing: Timing) -> Usage {
        let millis = |time: Duration| (timing == Timing::Included).then_some(time.as_secs_f64() * 1e3);
        let reasoning = CompletionTokensDetails { reasoning_tokens: self.reasoning_tokens as u64 };
        Usage {
            prompt_tokens: self.prompt_tokens as u64,
            completion_tokens: self.completion_tokens as u64,
            total_tokens: (self.prompt_tokens + self.completion_tokens) as u64,
            prompt_tokens_details: Some(PromptTokensDetails { cached_tokens: self.cached_tokens as u64 }),
            completion_tokens_details: (self.reasoning_tokens > 0).then_some(reasoning),
            timing_prompt_processing: millis(self.prompt_time),
            timing_token_generation: millis(self.generation_time),
        }
    }
}

/// Is an answer's prompt already on the bill?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SharesPrompt {
    /// Yes, another answer brought it.
    Yes,
    /// No.
    No,
}

impl SharesPrompt {
    /// Of the answer `idx`, when every prompt has `n` answers in a row.
    pub(super) fn of(idx: usize, n: usize) -> Self {
        if idx.is_multiple_of(n) { Self::No } else { Self::Yes }
    }
}

/// A finished answer for the metrics.
pub(super) fn finished(model: &str, completion: &Completion) -> FinishedAnswer {
    FinishedAnswer {
        model: model.to_owned(),
        finish: match completion.reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        },
        prompt_tokens: completion.usage.prompt_tokens,
        cached_tokens: completion.usage.cached_tokens,
        completion_tokens: completion.usage.completion_tokens,
        first_token: completion.timings.queued + completion.timings.prompt,
        generation: completion.timings.generation,
    }
}
