//! Products with a weight matrix that stays.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmUninitOptions, PackedBMatrix};
use rten_simd::{SimdOp, SimdUnaryOp};

use rten_tensor::{Matrix, MatrixLayout, NdTensorView};
use rten_vecmath::{ExtendInit, Gelu, MinMax, Quantize};

use super::{f32_slice, row_stride};

/// In which numbers a CPU multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 8-bit integers: weights scaled by output, inputs scaled by row while they are computed.
    Int8,
}

/// What is applied to each result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// `x Φ(x)`, with the error function.
    Gelu,
}

/// `y = activation(x Wᵀ + b)`.
pub struct Linear {
    weight: Weight,
    n_in: usize,
    n_out: usize,
}

enum Weight {
    F32 {
        packed: PackedBMatrix<f32>,
        bias: Option<Vec<f32>>,
    },
    Int8 {
        packed: PackedBMatrix<i8>,
        columns: Vec<Column>,
        bias: Option<Vec<f32>>,
    },
    /// For devices that are not the CPU: `[n_out, n_in]` and `[n_out]`.
    Device {
        weight: Tensor,
        bias: Option<Tensor>,
    },
}

/// What turns sums of 8-bit products of one output into its value.
#[derive(Clone, Copy)]
struct Column {
    scale: f32,
    /// Σ of its numbers.
    sum: i32,
}

impl Linear {
    /// A product with `weight`, `[n_out, n_in]`, plus `bias`, `[n_out]`, both f32 on the CPU. It computes on `device`;
    /// `precision` counts on the CPU only.
    ///
    /// # Errors
    /// When the shapes do not fit each other or the device is out of memory.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, precision: Precision, device: &Device) -> Result<Self> {
        let (n_out, n_in) = weight.dims2()?;
        if let Some(bias) = bias.filter(|bias| bias.dims() != [n_out]) {
            candle_core::bail!("a bias of shape {:?} does not fit a weight of {n_out} outputs", bias.shape());
        }
        let weight = match (device, precision) {
            (Device::Cpu, Precision::F32) => {
                let values = weight.flatten_all()?.to_vec1::<f32>()?;
                let view = NdTensorView::from_data([n_out, n_in], &values[..]);
                let packed = GemmExecutor::<f32>::default().prepack_b(view.transposed());
                Weight::F32 { packed, bias: bias.map(|bias| bias.to_vec1()).transpose()? }
            }
            (Device::Cpu, Precision::Int8) => {
                let (values, columns) = quantize_rows(&weight.flatten_all()?.to_vec1::<f32>()?, n_in);
                let view = NdTensorView::from_data([n_out, n_in], &values[..]);
                let packed = GemmExecutor::<u8, i8, i32>::default().prepack_b(view.transposed());
                let bias = bias.map(|bias| bias.to_vec1()).transpose()?;
                Weight::Int8 { packed, columns, bias }
            }
            (device, _) => return Self::elsewhere(weight, bias, device),
        };
        Ok(Self { weight, n_in, n_out })
    }

    /// In candle's own operations, which every device has.
    pub(super) fn elsewhere(weight: &Tensor, bias: Option<&Tensor>, device: &Device) -> Result<Self> {
        let (n_out, n_in) = weight.dims2()?;
        let bias = bias.map(|bias| bias.to_device(device)).transpose()?;
        Ok(Self { weight: Weight::Device { weight: weight.to_device(device)?, bias }, n_in, n_out })
    }

    /// Outputs of a row.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// `[.., n_rows, n_in]` to `[.., n_rows, n_out]`.
    ///
    /// # Errors
    /// When the input's last dimension is not `n_in`.
    pub fn forward(&self, input: &Tensor, activation: Activation) -> Result<Tensor> {
        let Weight::Device { weight, bias } = &self.weight else {
            return input.contiguous()?.apply_op1_no_bwd(&OnCpu { linear: self, activation });
        };
        let rows = input.flatten_to(input.rank() - 2)?;
        let mut output = rows.matmul(&weight.t()?)?;
        if let Some(bias) = bias {
            output = output.broadcast_add(bias)?;
        }
        if activation == Activation::Gelu {
            output = output.gelu_erf()?;
        }
        let mut shape = input.dims().to_vec();
        *shape.last_mut().expect("a tensor with rows has a last dimension") = self.n_out;
        output.reshape(shape)
    }

    /// The rows of `input`, which may overlap (a convolution reads them so), to `[n_rows, n_out]`. CPU only.
    pub(super) fn rows_on_cpu(&self, input: Matrix<f32>, activation: Activation) -> Result<Vec<f32>> {
        let mut output = match &self.weight {
            Weight::F32 { packed, bias } => multiply(input, packed, bias.as_deref())?,
            Weight::Int8 { packed, columns, bias } => multiply_int8(input, packed, columns, bias.as_deref())?,
            Weight::Device { .. } => candle_core::bail!("this weight is not on the CPU; this is a bug"),
        };
        if activation == Activation::Gelu {
            for row in output.chunks_mut(self.n_out) {
                Gelu {}.map_mut(row);
            }
        }
        Ok(output)
    }
}

struct OnCpu<'a> {
    linear: &'a Linear,
    activation: Activation,
}

impl CustomOp1 for OnCpu<'_> {
    fn name(&self) -> &'static str {
        "speech-linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut shape = layout.dims().to_vec();
        let n_rows = shape[..shape.len() - 1].iter().product();
        if shape.last() != Some(&self.linear.n_in) {
            candle_core::bail!("rows of {shape:?} do not fit a weight of {} inputs", self.linear.n_in);
        }
        let values = f32_slice(storage, layout)?;
        let stride = row_stride(layout)?;
        let input = NdTensorView::from_slice_with_strides([n_rows, self.linear.n_in], values, [stride, 1]);
        let input = input.map_err(candle_core::Error::wrap)?;
        let output = self.linear.rows_on_cpu(input, self.activation)?;
        if let Some(last) = shape.last_mut() {
            *last = self.linear.n_out;
        }
        Ok((CpuStorage::F32(output), shape.into()))
    }
}

fn multiply(input: Matrix<f32>, packed: &PackedBMatrix<f32>, bias: Option<&[f32]>) -> Result<Vec<f32>> {
    if input.cols() != packed.rows() {
        candle_core::bail!("rows of {} numbers do not fit a weight of {} inputs", input.cols(), packed.rows());
    }
    let n_values = input.rows() * packed.cols();
    let mut output = Vec::with_capacity(n_values);
    output.extend_init(|room| {
        let options = GemmUninitOptions { bias: bias.map(BiasVector::Row), ..Default::default() };
        let (a, b) = (GemmInputA::Unpacked(input), GemmInputB::Packed(packed));
        let written = GemmExecutor::<f32>::default().gemm_uninit(&mut room[..n_values], a, b, options);
        written.expect("the shapes were compared above; this is a bug")
    });
    Ok(output)
}

/// Rows in 8-bit numbers: `value = (number - zero) · scale`, with a zero and a scale for each row.
struct QuantizedRows {
    /// `[n_rows, n_in]`
    numbers: Vec<u8>,
    /// `[n_rows]`
    zeros: Vec<u8>,
    /// `[n_rows]`
    scales: Vec<f32>,
}

fn multiply_int8(
    input: Matrix<f32>,
    packed: &PackedBMatrix<i8>,
    columns: &[Column],
    bias: Option<&[f32]>,
) -> Result<Vec<f32>> {
    let (n_rows, n_in, n_out) = (input.rows(), input.cols(), packed.cols());
    if n_in != packed.rows() {
        candle_core::bail!("rows of {n_in} numbers do not fit a weight of {} inputs", packed.rows());
    }
    let executor = GemmExecutor::<u8, i8, i32>::default();
    // Without VNNI two products are added in 16 bits: 7 bits for the inputs then keep the sum in range.
    let rows = quantize_inputs(input, if executor.may_saturate() { 127.0 } else { 255.0 });
    let mut sums = Vec::with_capacity(n_rows * n_out);
    sums.extend_init(|room| {
        // Zeros of rows are left to the loop below: rten-gemm 0.27 uses those of the first rows for all.
        let options = GemmUninitOptions::default();
        let numbers = GemmInputA::Unpacked(NdTensorView::from_data([n_rows, n_in], &rows.numbers[..]));
        let written = executor.gemm_uninit(&mut room[..n_rows * n_out], numbers, GemmInputB::Packed(packed), options);
        written.expect("the shapes were compared above; this is a bug")
    });
    let mut output = vec![0.0; n_rows * n_out];
    let parts = output.chunks_mut(n_out).zip(sums.chunks(n_out)).zip(rows.scales.iter().zip(&rows.zeros));
    for ((output, sums), (&row_scale, &zero)) in parts {
        let zero = i32::from(zero);
        for ((value, &sum), column) in output.iter_mut().zip(sums).zip(columns) {
            *value = (sum - zero * column.sum) as f32 * (row_scale * column.scale);
        }
        for (value, bias) in output.iter_mut().zip(bias.unwrap_or_default()) {
            *value += bias;
        }
    }
    Ok(output)
}

/// `largest` is the largest 8-bit number to use.
fn quantize_inputs(input: Matrix<f32>, largest: f32) -> QuantizedRows {
    let (n_rows, n_in) = (input.rows(), input.cols());
    let mut rows = QuantizedRows {
        numbers: Vec::with_capacity(n_rows * n_in),
        zeros: Vec::with_capacity(n_rows),
        scales: Vec::with_capacity(n_rows),
    };
    for row_idx in 0..n_rows {
        let row = input.slice(row_idx);
        let row = row.to_contiguous();
        let (least, most) = MinMax::new(row.data()).dispatch();
        // Zero must be a number of its own, so that silence stays silence.
        let (least, most) = (least.min(0.0), most.max(0.0));
        let scale = if most > least { (most - least) / largest } else { 1.0 };
        let zero = (-least / scale).round().clamp(0.0, largest) as u8;
        rows.numbers.extend_init(|room| Quantize::new(row.data(), &mut room[..n_in], 1.0 / scale, zero).dispatch());
        rows.zeros.push(zero);
        rows.scales.push(scale);
    }
    rows
}

/// Rows of `n_in` numbers as `number · scale`, numbers from -127 to 127 and a scale for each row.
fn quantize_rows(values: &[f32], n_in: usize) -> (Vec<i8>, Vec<Column>) {
    let mut numbers = Vec::with_capacity(values.len());
    let mut columns = Vec::with_capacity(values.len() / n_in.max(1));
    for row in values.chunks(n_in.max(1)) {
        let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        let start = numbers.len();
        numbers.extend(row.iter().map(|value| (value / scale).round() as i8));
        columns.push(Column { scale, sum: numbers[start..].iter().map(|&number| i32::from(number)).sum() });
    }
    (numbers, columns)
}
