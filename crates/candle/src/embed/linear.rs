//! Matrix products with weights that are packed once, when the model is loaded.
//!
//! The products are rten's: it packs the right-hand side ahead, adds the bias and the residual in the same pass, and
//! picks AVX-512, AVX2 or NEON at run time. On the processors measured it is the fastest of the pure Rust ones for the
//! few rows of a short text, which is where packing the weights anew for each product costs most.
//!
//! Where the options ask for 16-bit floats, the layers of the encoder are computed by `kernels`: weights and inputs are
//! rounded to bf16, sums are f32. Attention, norms and what is behind pooling stay as they are: little time, and there
//! the rounding would be felt.

use std::cell::Cell;

use ingle_engine::{EngineError, Precision};
use ingle_kernels::{Bf16, Bf16Rows, Bf16Weights, Finish, Pane};
use rayon::prelude::*;
use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_tensor::NdTensorView;

use crate::weights::Weights;

/// Multiplications of a product that are not worth a second thread.
const SHARE_FROM: usize = 1 << 19;

/// Numbers to round that are not worth a second thread.
const ROUND_FROM: usize = 1 << 16;

thread_local! {
    /// Memory for rounded inputs. A layer takes it out while it runs: a thread that waits for others' shares may begin
    /// with another pack, whose layers then make their own.
    static ROUNDED: Cell<Bf16Rows> = Cell::default();
}

/// What products are computed in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Products {
    /// 32-bit floats.
    F32,
    /// Factors of 16 bits, sums of 32: with the right to run it.
    Bf16(Bf16),
    /// Weights stay as they are, for a device that takes them over (`embed::device`).
    Elsewhere,
}

impl Products {
    /// What the options ask for.
    ///
    /// # Errors
    /// [`EngineError::Option`] when this CPU cannot: whoever asked for speed should not get its absence silently.
    pub(super) fn of(precision: Precision) -> Result<Self, EngineError> {
        Self::of_cpu(precision, Bf16::detect())
    }

    /// For the few products behind the encoder, which are never rounded.
    pub(super) fn of_head(self) -> Self {
        match self {
            Self::F32 | Self::Bf16(_) => Self::F32,
            Self::Elsewhere => Self::Elsewhere,
        }
    }

    fn of_cpu(precision: Precision, bf16: Option<Bf16>) -> Result<Self, EngineError> {
        match (precision, bf16) {
            (Precision::F32, _) => Ok(Self::F32),
            (Precision::Bf16, Some(bf16)) => Ok(Self::Bf16(bf16)),
            (Precision::Bf16, None) => {
                let needs = Bf16::NEEDS;
                let reason =
                    format!("bf16 needs a processor with {needs}, and this one has none; leave the option out");
                Err(EngineError::Option { option: "precision".into(), reason })
            }
        }
    }
}

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
    weight: Packed,
    pub(super) n_in: usize,
    pub(super) n_out: usize,
}

/// `[n_in, n_out]`, in the kernel's own order, and a bias, `[n_out]`.
enum Packed {
    F32 {
        weight: PackedBMatrix<f32>,
        bias: Option<Vec<f32>>,
    },
    Bf16 {
        weight: Bf16Weights,
        bf16: Bf16,
    },
    /// `[n_out, n_in]`, row-major.
    Plain {
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
    },
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
    pub(super) fn new(weight: Vec<f32>, bias: Option<Vec<f32>>, n_in: usize, products: Products) -> Self {
        let matrix = Matrix::of_rows(&weight, n_in);
        let n_out = matrix.n_rows;
        let packed = match products {
            Products::F32 => {
                let weight = GemmExecutor::<f32>::new().prepack_b(matrix.transposed().view());
                Packed::F32 { weight, bias }
            }
            Products::Bf16(bf16) => Packed::Bf16 { weight: Bf16Weights::pack(&weight, bias.as_deref(), n_in), bf16 },
            Products::Elsewhere => Packed::Plain { weight, bias },
        };
        Self { weight: packed, n_in, n_out }
    }

    /// The layer called `name`.
    pub(super) fn load(
        weights: &mut Weights,
        name: &str,
        [n_in, n_out]: [usize; 2],
        bias: Bias,
        products: Products,
    ) -> Result<Self, EngineError> {
        Self::fused(weights, &[(name, n_out)], n_in, bias, products)
    }

    /// Layers of one input as one layer: their outputs stand side by side. `parts` are names and output sizes.
    pub(super) fn fused(
        weights: &mut Weights,
        parts: &[(&str, usize)],
        n_in: usize,
        bias: Bias,
        products: Products,
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
        Ok(Self::new(weight, bias, n_in, products))
    }

    /// The weight, `[n_out, n_in]` row-major, and the bias, `[n_out]`, of a layer that was made for another device.
    pub(super) fn into_plain(self) -> (Vec<f32>, Option<Vec<f32>>) {
        match self.weight {
            Packed::Plain { weight, bias } => (weight, bias),
            Packed::F32 { .. } | Packed::Bf16 { .. } => panic!("weights that are packed stay here; this is a bug"),
        }
    }

    /// Applies the layer to `x`, `[n_rows, n_in]`, and writes `out`, `[n_rows, n_out]`.
    pub(super) fn apply(&self, gemm: &GemmExecutor, x: Matrix<'_>, output: Output, out: &mut [f32]) {
        let (weight, bias) = match &self.weight {
            Packed::F32 { weight, bias } => (weight, bias),
            Packed::Bf16 { weight, bf16 } => return apply_bf16(*bf16, weight, x, output, out),
            Packed::Plain { .. } => unreachable!("weights of another device are not multiplied here; this is a bug"),
        };
        let options = GemmOptions {
            beta: if output == Output::Add { 1.0 } else { 0.0 },
            bias: bias.as_deref().map(BiasVector::Row),
            ..GemmOptions::default()
        };
        let a = GemmInputA::Unpacked(x.view());
        gemm.gemm(out, a, GemmInputB::Packed(weight), options).expect("the shapes of a layer fit; this is a bug");
    }
}

/// As [`Linear::apply`]: the input is rounded once, then each thread of the pool computes some columns.
fn apply_bf16(bf16: Bf16, weight: &Bf16Weights, x: Matrix<'_>, output: Output, out: &mut [f32]) {
    let Matrix { data, n_rows, n_cols, strides: [stride, step] } = x;
    assert_eq!(step, 1, "numbers of a row lie one behind the other");
    let mut rows = ROUNDED.take();
    let n_threads = rayon::current_num_threads();
    if n_threads == 1 || n_rows * n_cols < ROUND_FROM {
        rows.parts([n_rows, n_cols], n_rows.max(1)).for_each(|part| bf16.round(data, stride, part));
    } else {
        let part_rows = n_rows.div_ceil(n_threads);
        let parts: Vec<_> = rows.parts([n_rows, n_cols], part_rows).zip(data.chunks(part_rows * stride)).collect();
        parts.into_par_iter().for_each(|(part, data)| bf16.round(data, stride, part));
    }
    let finish = match output {
        Output::Replace => Finish::Replace,
        Output::Add => Finish::Add,
    };
    let n_panes = if n_rows * n_cols * weight.n_out() < SHARE_FROM { 1 } else { n_threads };
    let panes: Vec<Pane<'_>> = Pane::split(out, weight.n_out(), n_panes).collect();
    match n_panes {
        1 => panes.into_iter().for_each(|pane| bf16.multiply(&rows, weight, finish, pane)),
        _ => panes.into_par_iter().for_each(|pane| bf16.multiply(&rows, weight, finish, pane)),
    }
    ROUNDED.set(rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_what_its_formula_says() {
        let (n_in, n_out) = (5, 3);
        let weight: Vec<f32> = (0..15).map(|idx| idx as f32 - 7.0).collect();
        let gemm = GemmExecutor::new();
        // These small numbers are exact in 16 bits, too.
        let ways = [Some(Products::F32), Bf16::detect().map(Products::Bf16)];
        for (products, n_rows) in ways.into_iter().flatten().flat_map(|way| [(way, 1), (way, 2), (way, 9)]) {
            let linear = Linear::new(weight.clone(), Some(vec![1.0, 2.0, 3.0]), n_in, products);
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

    #[test]
    fn sixteen_bits_on_several_threads_are_those_of_one() {
        let Some(bf16) = Bf16::detect() else { return };
        let (n_rows, n_in, n_out) = (150, 450, 130);
        let number = |idx: usize| (idx * 37 % 101) as f32 / 101.0 - 0.5;
        let weight: Vec<f32> = (0..n_in * n_out).map(number).collect();
        let linear = Linear::new(weight, None, n_in, Products::Bf16(bf16));
        let x: Vec<f32> = (0..n_rows * (n_in + 7)).map(number).collect();
        let x = Matrix { n_cols: n_in, ..Matrix::of_rows(&x, n_in + 7) };
        let on_threads = |n_threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("threads start");
            let mut out = vec![0.0; n_rows * n_out];
            pool.install(|| linear.apply(&GemmExecutor::new(), x, Output::Replace, &mut out));
            out
        };
        let alone = on_threads(1);
        assert_eq!(alone, on_threads(2));
        assert_eq!(alone, on_threads(7));
    }

    #[test]
    fn a_processor_without_sixteen_bits_is_told_what_it_needs() {
        assert!(matches!(Products::of_cpu(Precision::F32, None), Ok(Products::F32)));
        let error = Products::of_cpu(Precision::Bf16, None).expect_err("it cannot").to_string();
        for word in ["precision", "avx512_bf16", "leave the option out"] {
            assert!(error.contains(word), "{word} is missing in: {error}");
        }
    }
}
