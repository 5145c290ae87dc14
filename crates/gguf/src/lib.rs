//! From bytes to a validated GGUF header.
