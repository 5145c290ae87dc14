//! Keeps the right models in memory; every capability as a plain async call.
