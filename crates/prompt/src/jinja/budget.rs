//! The limits that keep a hostile template from hanging, filling memory or exhausting the stack.

use std::cell::Cell;

use super::value::{Fault, Outcome, Value};

/// Steps granted to every rendering.
const BASE_STEPS: u64 = 16_000_000;
/// Further steps for each byte of the conversation: a long one may take longer.
const STEPS_PER_INPUT_BYTE: u64 = 256;
/// Bytes of text that cost one step.
const BYTES_PER_STEP: usize = 16;
/// Longest single string, on top of eight times the conversation.
const BASE_TEXT_BYTES: usize = 16 << 20;
/// Deepest nesting of evaluation: expressions in statements in macro calls.
const MAX_DEPTH: usize = 280;
/// Deepest nesting of lists and dictionaries.
pub(crate) const MAX_VALUE_DEPTH: usize = 130;
/// Longest list a template may make of nothing, as in jinja2's sandbox.
pub(crate) const MAX_RANGE: usize = 100_000;

/// Counts down while a template renders.
#[derive(Debug)]
pub(crate) struct Budget {
    steps_left: Cell<u64>,
    steps: u64,
    text_bytes: usize,
    depth: Cell<usize>,
}

impl Budget {
    /// A budget for a conversation of `input_bytes`.
    pub fn new(input_bytes: usize) -> Self {
        let steps = BASE_STEPS.saturating_add((input_bytes as u64).saturating_mul(STEPS_PER_INPUT_BYTE));
        Self {
            steps_left: Cell::new(steps),
            steps,
            text_bytes: input_bytes.saturating_mul(8).saturating_add(BASE_TEXT_BYTES),
            depth: Cell::new(0),
        }
    }

    /// Spends `steps`.
    pub fn charge(&self, steps: usize) -> Outcome<()> {
        match self.steps_left.get().checked_sub(steps as u64) {
            Some(left) => {
                self.steps_left.set(left);
                Ok(())
            }
            None => Err(Fault::Limit { resource: "steps", limit: self.steps }),
        }
    }

    /// Pays for making a string of `bytes`, before it is made.
    pub fn text(&self, bytes: usize) -> Outcome<()> {
        self.text_limit(bytes)?;
        self.charge(1 + bytes / BYTES_PER_STEP)
    }

    /// Refuses a string longer than any may be.
    pub fn text_limit(&self, bytes: usize) -> Outcome<()> {
        if bytes > self.text_bytes {
            return Err(Fault::Limit { resource: "bytes in one string", limit: self.text_bytes as u64 });
        }
        Ok(())
    }

    /// One level deeper; [`Budget::leave`] goes back up.
    pub fn enter(&self) -> Outcome<()> {
        let depth = self.depth.get() + 1;
        if depth > MAX_DEPTH {
            return Err(Fault::Limit { resource: "nested levels", limit: MAX_DEPTH as u64 });
        }
        self.depth.set(depth);
        self.charge(1)
    }

    /// One level up.
    pub fn leave(&self) {
        self.depth.set(self.depth.get().saturating_sub(1));
    }

    /// Checks that a value just made of others does not nest too deeply to be walked or freed.
    pub fn shallow(&self, value: Value) -> Outcome<Value> {
        self.check_depth(&value, MAX_VALUE_DEPTH)?;
        Ok(value)
    }

    fn check_depth(&self, value: &Value, levels: usize) -> Outcome<()> {
        let Some(below) = levels.checked_sub(1) else {
            return Err(Fault::Limit { resource: "nested values", limit: MAX_VALUE_DEPTH as u64 });
        };
        match value {
            Value::Seq(_, items) => self.check_all(items, below),
            Value::Loop(state) => self.check_all(&state.items, below),
            Value::Generator(items) => items.borrow().as_ref().map_or(Ok(()), |items| self.check_all(items, below)),
            Value::Dict(entries) => {
                self.charge(entries.len())?;
                entries.values().try_for_each(|(_, item)| self.check_depth(item, below))
            }
            Value::Helper(helper) => match &**helper {
                super::value::Helper::Cycler { items, .. } => self.check_all(items, below),
                super::value::Helper::Joiner { .. } => Ok(()),
            },
            Value::Method(bound) => self.check_depth(&bound.0, below),
            Value::Undefined(_)
            | Value::None
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Str(_)
            | Value::Namespace(_)
            | Value::Macro(_)
            | Value::Function(_) => Ok(()),
        }
    }

    fn check_all(&self, items: &[Value], levels: usize) -> Outcome<()> {
        self.charge(items.len())?;
        items.iter().try_for_each(|item| self.check_depth(item, levels))
    }
}
