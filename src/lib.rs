//! Ingle as a library.
