//! The few tensor operations that speech models spend their time in, fused for the CPU and composed of candle's own
//! operations on other devices.
//!
//! On a CPU candle packs the weights again for each product and runs softmax, GELU and normalisation as separate passes
//! over memory. Here weights are packed once, when the model is loaded, and what follows a product is done while its rows are still in
//! the cache. The other path gives the same numbers (a test holds the two together) and runs on any device of candle's.

mod attention;
mod convolution;
mod linear;
mod norm;

pub use attention::{Attention, Visible};
pub use convolution::Convolution;
pub use linear::{Activation, Linear, Precision};
pub use norm::LayerNorm;

use candle_core::{CpuStorage, Layout, Result};

/// The numbers of a tensor from its first element on, whatever its strides.
fn f32_slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match storage {
        CpuStorage::F32(values) => Ok(&values[layout.start_offset()..]),
        other => candle_core::bail!("the CPU path of speech models computes in f32, not in {:?}", other_type(other)),
    }
}

fn other_type(storage: &CpuStorage) -> candle_core::DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}

/// The stride between rows of a tensor `[.., n_rows, n_columns]` whose columns lie side by side.
fn row_stride(layout: &Layout) -> Result<usize> {
    match layout.stride() {
        [.., row, 1] => Ok(*row),
        strides => candle_core::bail!("the columns of a speech tensor must lie side by side, strides are {strides:?}"),
    }
}

#[cfg(test)]
mod tests;
