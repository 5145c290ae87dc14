//! Matrix products with weights that are packed once, when the model is loaded.
//!
//! The products are rten's: it packs the right-hand side ahead, adds the bias and the residual in the same pass, and
//! picks AVX-512, AVX2 or NEON at run time. On the processors measured it is the fastest of the pure Rust ones for the
//! few rows of a short text, which is where packing the weights anew for each product costs most.

use ingle_engine::EngineError;
use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_tensor::NdTensorView;

use crate::weights::Weights;

/// A matrix inside a slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) data: &'a [f32],
    pub(super) n_rows: usize,
    pub(super) n_cols: usize,
    /// From one row to the next, and from one column to the next.
    pub(super) strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Rows one behind the other.
    pub(super) fn of_rows(data: &'a [f32], n_cols: usize) -> Self {
        Self { data, n_rows: data.len() / n_cols, n_cols, strides: [n_cols, 1] }
    }

    /// Rows and columns change places.
    pub(super) fn transposed(self) -> Self {
        Self { n_rows: self.n_cols, n_cols: self.n_rows, strides: [self.strides[1], self.strides[0]], ..self }
    }

    fn view(&self) -> NdTensorView<'a, f32, 2> {
        let len = match self.n_rows * self.n_cols {
            0 => 0,
            _ => (self.n_rows - 1) * self.strides[0] + (self.n_cols - 1) * self.strides[1] + 1,
        };
        NdTensorView::from_slice_with_strides([self.n_rows, self.n_cols], &self.data[..len], self.strides)
            .expect("a matrix lies within its slice; this is a bug")
    }
}

/// What becomes of the numbers that stand where a product goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// They are replaced.
    Replace,
    /// The product is added to them.
    Add,
}

/// `out = scale · a · b`, `[a.n_rows, b.n_cols]`.
pub(super) fn product(gemm: &GemmExecutor, a: Matrix<'_>, b: Matrix<'_>, scale: f32, out: &mut [f32]) {
    let options = GemmOptions { alpha: scale, ..GemmOptions::default() };
    gemm.gemm(out, GemmInputA::Unpacked(a.view()), GemmInputB::Unpacked(b.view()), options)
        .expect("the shapes of a product fit; this is a bug");
}

/// A layer `x · Wᵀ + b`.
pub(super) struct Linear {
    /// `[n_in, n_out]`, in the kernel's own order.
    weight: PackedBMatrix<f32>,
    /// `[n_out]`
    bias: Option<Vec<f32>>,
    pub(super) n_in: usize,
    pub(super) n_out: usize,
}

impl std::fmt::Debug for Linear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linear").field("n_in", &self.n_in).field("n_out", &self.n_out).finish_non_exhaustive()
    }
}

/// Does a layer have a bias?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bias {
    /// Yes.
    Needed,
    /// If there is a tensor of its name.
    IfThere,
}

impl Linear {
    /// Packs `weight`, `[n_out, n_in]` row-major.
    pub(super) fn new(weight: &[f32], bias: Option<Vec<f32>>, n_in: usize) -> Self {
        let matrix = Matrix::of_rows(weight, n_in);
        let packed = GemmExecutor::<f32>::new().prepack_b(matrix.transposed().view());
        Self { weight: packed, bias, n_in, n_out: matrix.n_rows }
    }

    /// The layer called `name`.
    pub(super) fn load(
        weights: &mut Weights,
        name: &str,
        [n_in, n_out]: [usize; 2],
        bias: Bias,
    ) -> Result<Self, EngineError> {
        Self::fused(weights, &[(name, n_out)], n_in, bias)
    }

    /// Layers of one input as one layer: their outputs stand side by side. `parts` are names and output sizes.
    pub(super) fn fused(
        weights: &mut Weights,
        parts: &[(&str, usize)],
        n_in: usize,
        bias: Bias,
    ) -> Result<Self, EngineError> {
        let (mut weight, mut biases) = (Vec::new(), Vec::new());
        for (name, n_out) in parts {
            weight.extend(weights.tensor(&format!("{name}.weight"), &[*n_out, n_in])?);
            let name = format!("{name}.bias");
            if bias == Bias::Needed || weights.has(&name) {
                biases.extend(weights.tensor(&name, &[*n_out])?);
            }
        }
        let n_out: usize = parts.iter().map(|(_, n_out)| n_out).sum();
        // Either all parts have a bias or none has one; a mixture would not fill the rows.
        let bias = match biases.len() {
            0 => None,
            n if n == n_out => Some(biases),
            _ => {
                let reason =
                    format!("only some of {:?} have a bias", parts.iter().map(|(name, _)| name).collect::<Vec<_>>());
                return Err(EngineError::Load { path: "model.safetensors".into(), reason });
            }
        };
        Ok(Self::new(&weight, bias, n_in))
    }

    /// Applies the layer to `x`, `[n_rows, n_in]`, and writes `out`, `[n_rows, n_out]`.
    pub(super) fn apply(&self, gemm: &GemmExecutor, x: Matrix<'_>, output: Output, out: &mut [f32]) {
        let options = GemmOptions {
            beta: if output == Output::Add { 1.0 } else { 0.0 },
            bias: self.bias.as_deref().map(BiasVector::Row),
            ..GemmOptions::default()
        };
        let a = GemmInputA::Unpacked(x.view());
        gemm.gemm(out, a, GemmInputB::Packed(&self.weight), options).expect("the shapes of a layer fit; this is a bug");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_what_its_formula_says() {
        let (n_in, n_out) = (5, 3);
        let weight: Vec<f32> = (0..15).map(|idx| idx as f32 - 7.0).collect();
        let linear = Linear::new(&weight, Some(vec![1.0, 2.0, 3.0]), n_in);
        let gemm = GemmExecutor::new();
        for n_rows in [1, 2, 9] {
            let x: Vec<f32> = (0..n_rows * n_in).map(|idx| (idx % 4) as f32).collect();
            let expected = |row: usize, col: usize| -> f32 {
                let products = (0..n_in).map(|k| x[row * n_in + k] * weight[col * n_in + k]);
                products.sum::<f32>() + [1.0, 2.0, 3.0][col]
            };
            let mut out = vec![10.0; n_rows * n_out];
            linear.apply(&gemm, Matrix::of_rows(&x, n_in), Output::Add, &mut out);
            for row in 0..n_rows {
                for col in 0..n_out {
                    assert_eq!(out[row * n_out + col], 10.0 + expected(row, col), "{n_rows} rows");
                }
            }
            linear.apply(&gemm, Matrix::of_rows(&x, n_in), Output::Replace, &mut out);
            assert_eq!(out[0], expected(0, 0));
        }
    }
}
