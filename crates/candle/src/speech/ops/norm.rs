//! Layer normalisation.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use rten_simd::SimdOp;
use rten_vecmath::{Normalize, NormalizeOptions, Sum, SumSquareSub};

use super::f32_slice;

/// PyTorch's and Whisper's.
const EPSILON: f32 = 1e-5;

/// `y = (x - mean) / √(variance + 1e-5) · γ + β` over the last dimension.
pub struct LayerNorm {
    /// `[n]`, on the model's device.
    gamma: Tensor,
    /// `[n]`, on the model's device.
    beta: Tensor,
    /// The same as plain numbers, where the device is the CPU.
    on_cpu: Option<(Vec<f32>, Vec<f32>)>,
}

impl LayerNorm {
    /// With `gamma` and `beta`, both `[n]`.
    ///
    /// # Errors
    /// When they are not of one length or the device is out of memory.
    pub fn new(gamma: &Tensor, beta: &Tensor, device: &Device) -> Result<Self> {
        if gamma.dims1()? != beta.dims1()? {
            candle_core::bail!("scale and shift of a normalisation are {:?} and {:?}", gamma.shape(), beta.shape());
        }
        let on_cpu = device.is_cpu().then(|| Ok::<_, candle_core::Error>((gamma.to_vec1()?, beta.to_vec1()?)));
        Ok(Self { on_cpu: on_cpu.transpose()?, ..Self::elsewhere(gamma, beta, device)? })
    }

    /// In candle's own operations, which every device has.
    pub(super) fn elsewhere(gamma: &Tensor, beta: &Tensor, device: &Device) -> Result<Self> {
        Ok(Self { gamma: gamma.to_device(device)?, beta: beta.to_device(device)?, on_cpu: None })
    }

    /// Any shape whose last dimension is `n`, to the same shape.
    ///
    /// # Errors
    /// When the last dimension differs.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let input = input.contiguous()?;
        match &self.on_cpu {
            Some((gamma, beta)) => input.apply_op1_no_bwd(&OnCpu { gamma, beta }),
            None => candle_nn::ops::layer_norm(&input, &self.gamma, &self.beta, EPSILON),
        }
    }
}

struct OnCpu<'a> {
    gamma: &'a [f32],
    beta: &'a [f32],
}

impl CustomOp1 for OnCpu<'_> {
    fn name(&self) -> &'static str {
        "speech-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let n = self.gamma.len();
        if layout.dims().last() != Some(&n) {
            candle_core::bail!("a normalisation over {n} numbers does not fit {:?}", layout.shape());
        }
        let input = &f32_slice(storage, layout)?[..layout.shape().elem_count()];
        let mut output = input.to_vec();
        for row in output.chunks_mut(n) {
            let mean = Sum::new(row).dispatch() / n as f32;
            let variance = SumSquareSub::new(row, mean).dispatch() / n as f32;
            let options = NormalizeOptions {
                pre_scale_bias: mean,
                scale: 1.0 / (variance + EPSILON).sqrt(),
                element_scale: Some(self.gamma),
                element_bias: Some(self.beta),
                ..Default::default()
            };
            Normalize::new_mut(row, options).dispatch();
        }
        Ok((CpuStorage::F32(output), layout.shape().clone()))
    }
}
