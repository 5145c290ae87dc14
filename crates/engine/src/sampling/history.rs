//! The last tokens of a sequence and how often each stands in the penalty window.

use std::collections::{HashMap, VecDeque};

/// The last tokens of prompt and answer.
#[derive(Debug, Clone)]
pub(super) struct History {
    /// Oldest first, at most `capacity`.
    tokens: VecDeque<u32>,
    capacity: usize,
    /// How many of the last tokens `counts` covers; at most `capacity`.
    window: usize,
    counts: HashMap<u32, u32>,
}

impl History {
    /// Remembers `capacity` tokens and counts the last `window` of them.
    pub(super) fn new(window: usize, capacity: usize) -> Self {
        assert!(window <= capacity, "the counted window lies within the remembered tokens");
        Self { tokens: VecDeque::new(), capacity, window, counts: HashMap::new() }
    }

    pub(super) fn push(&mut self, token: u32) {
        if self.capacity == 0 {
            return;
        }
        if self.window > 0 {
            *self.counts.entry(token).or_insert(0) += 1;
            if self.tokens.len() >= self.window {
                self.forget(self.tokens[self.tokens.len() - self.window]);
            }
        }
        if self.tokens.len() == self.capacity {
            self.tokens.pop_front();
        }
        self.tokens.push_back(token);
    }

    fn forget(&mut self, token: u32) {
        if let Some(count) = self.counts.get_mut(&token) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&token);
            }
        }
    }

    /// Takes the end of a prompt: what lies further back can never be looked at.
    pub(super) fn extend_from_prompt(&mut self, prompt: &[u32]) {
        let start = prompt.len().saturating_sub(self.capacity);
        prompt[start..].iter().for_each(|&token| self.push(token));
    }

    /// Occurrences of each token in the penalty window.
    pub(super) fn counts(&self) -> &HashMap<u32, u32> {
        &self.counts
    }

    /// The `age`-th token from the end, 0 being the newest. `age` is below [`Self::len`].
    pub(super) fn recent(&self, age: usize) -> u32 {
        self.tokens[self.tokens.len() - 1 - age]
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }
}
