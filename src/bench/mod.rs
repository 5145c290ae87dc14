//! `ingle bench`: measures models in this process (`offline`), servers (`serve`) and what a model is worth (`quality`).
//!
//! Every measurement becomes a [`report::Report`]: cases, and for each the samples of its figures. Tables, files, plots
//! and comparisons are made of that and of nothing else, so that a new kind of measurement needs one module only.

pub(crate) mod compare;
pub(crate) mod files;
pub(crate) mod memory;
pub(crate) mod offline;
pub(crate) mod progress;
pub(crate) mod quality;
pub(crate) mod random;
pub(crate) mod report;
pub(crate) mod serve;
pub(crate) mod stats;
pub(crate) mod stop;
