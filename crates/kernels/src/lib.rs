//! The few SIMD loops Ingle owns: what happens to one row of logits between the decoder and the chosen token, and to
//! rows of an encoder between two matrix products; two products that ggml leaves slow on processors: weights in small
//! blocks ([`Product`]), and attention over a cache that many sequences share ([`Attention`]); and a product in
//! 16-bit floats for encoders ([`Bf16`]).
//!
//! Every loop over rows is written once, as a safe function over fixed-width lanes, and compiled for each instruction set
//! that can matter on the machine (AVX-512, AVX2, the target's baseline); the CPU is asked at run time. No fused
//! multiply-add and the same lanes everywhere: the result is the same to the last bit whatever the instruction set, so
//! a seed gives the same text on another machine. Each loop has a scalar twin in the tests.
//!
//! The crate deliberately knows nothing about sampling rules, models or threads.
//!
//! Rows are `[n_vocab]`, f32. A row is *sound* when [`BlockMaxima::scan`] or [`argmax`] accepted it; the other loops
//! do not look for NaN again.
#![allow(unsafe_code)]

mod attention;
mod bf16;
mod encoder;
mod exponent;
mod isa;
mod mask;
mod peak;
mod product;
mod select;
mod stats;
mod tiles;

pub use attention::{Attention, AttentionScratch, Cells, HEAD_STEP, Queries};
pub use bf16::{Bf16, Finish, PANEL, Pane, Part, Rows as Bf16Rows, Weights as Bf16Weights};
pub use encoder::{gelu, gelu_tanh, layer_norm, multiply, rms_norm, rotate_halves, silu, softmax};
pub use exponent::{EXP_BLOCK, ExpMoments, exp_block_sums, exp_moments, exp_non_positive, sum_exp, sum_exp_at_least};
pub use mask::{MaskTooShort, copy_masked, mask_words};
pub use peak::{BlockMaxima, Peak, RowFault, argmax};
pub use product::{BLOCK, Columns, Form, Product, Rows, STEP, column_bytes};
pub use select::{Candidate, by_rank, gather_at_least, gather_masked, keep_top, masked_top_k, top_k};
pub use stats::{MeanDeviation, copy_divided, divide_row, mean_deviation};
pub use tiles::{KeysValues, LANES, LEAST_LANES, QueryRows, RowMasks, Tile};

#[cfg(test)]
mod tests;
