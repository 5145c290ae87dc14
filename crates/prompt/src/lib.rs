//! From conversation to prompt and back.
