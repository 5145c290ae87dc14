//! Speaks HTTP.
