//! Products, norms and units in candle's operations.

use candle_core::{DType, Device, Result, Tensor};

use crate::embed::encoder::{self, Activation};
use crate::embed::linear;

/// A layer `x · Wᵀ + b`.
#[derive(Debug)]
pub(super) struct Linear {
    /// `[n_in, n_out]`, a view of `[n_out, n_in]`.
    weight: Tensor,
    /// `[n_out]`, f32.
    bias: Option<Tensor>,
}

impl Linear {
    /// Takes a layer over; its weight is kept, and its products are made, in `dtype`.
    pub(super) fn new(layer: linear::Linear, device: &Device, dtype: DType) -> Result<Self> {
        let (n_in, n_out) = (layer.n_in, layer.n_out);
        let (weight, bias) = layer.into_plain();
        // Rounded before it is sent: in 16 bits it then never takes the room of 32 there.
        let weight = Tensor::from_vec(weight, (n_out, n_in), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?.t()?;
        Ok(Self { weight, bias: bias.map(|bias| Tensor::from_vec(bias, n_out, device)).transpose()? })
    }

    /// `x` is `[n_rows, n_in]`, f32; so is the result, `[n_rows, n_out]`.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let product = x.to_dtype(self.weight.dtype())?.matmul(&self.weight)?.to_dtype(DType::F32)?;
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }

    pub(super) fn n_bytes(&self) -> u64 {
        n_bytes(&self.weight) + self.bias.as_ref().map_or(0, n_bytes)
    }
}

/// What a tensor takes.
pub(super) fn n_bytes(tensor: &Tensor) -> u64 {
    (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64
}

/// A normalisation of rows, weight and bias `[n]`.
#[derive(Debug)]
pub(super) enum Norm {
    Layer { weight: Tensor, bias: Tensor, epsilon: f32 },
    Rms { weight: Tensor, epsilon: f32 },
}

impl Norm {
    pub(super) fn new(norm: encoder::Norm, device: &Device) -> Result<Self> {
        let tensor = |numbers: Vec<f32>| {
            let n = numbers.len();
            Tensor::from_vec(numbers, n, device)
        };
        Ok(match norm {
            encoder::Norm::Layer { weight, bias, epsilon } => {
                Self::Layer { weight: tensor(weight)?, bias: tensor(bias)?, epsilon }
            }
            encoder::Norm::Rms { weight, epsilon } => Self::Rms { weight: tensor(weight)?, epsilon },
        })
    }

    /// Over the last dimension.
    pub(super) fn apply(&self, rows: &Tensor) -> Result<Tensor> {
        let rows = rows.contiguous()?;
        match self {
            Self::Layer { weight, bias, epsilon } => candle_nn::ops::layer_norm(&rows, weight, bias, *epsilon),
            Self::Rms { weight, epsilon } => candle_nn::ops::rms_norm(&rows, weight, *epsilon),
        }
    }
}

/// Applies a unit number by number.
pub(super) fn activate(activation: Activation, numbers: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Gelu => numbers.gelu_erf(),
        Activation::GeluTanh => numbers.gelu(),
        Activation::Relu => numbers.relu(),
        Activation::Silu => numbers.silu(),
    }
}
