//! Convolutions over time with a kernel of three frames, as at the entrance of Whisper's encoder.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Module, Result, Shape, Tensor};
use candle_nn::{Conv1d, Conv1dConfig};
use rten_tensor::NdTensorView;

use super::{Activation, Linear, Precision, f32_slice};

const KERNEL: usize = 3;

/// `gelu(conv(x))`, three frames wide, one frame of zeros at each end.
pub struct Convolution {
    stride: usize,
    kind: Kind,
}

enum Kind {
    /// Rows of three frames lie side by side in memory once the frames do, so the convolution is one product over
    /// overlapping rows.
    Cpu(Linear),
    Device(Conv1d),
}

impl Convolution {
    /// With `weight`, `[n_out, n_in, 3]`, and `bias`, `[n_out]`, moving by `stride` frames.
    ///
    /// # Errors
    /// When the shapes do not fit or the device is out of memory.
    pub fn new(weight: &Tensor, bias: &Tensor, stride: usize, device: &Device) -> Result<Self> {
        let (n_out, n_in, kernel) = weight.dims3()?;
        if kernel != KERNEL {
            candle_core::bail!("a kernel of {kernel} frames where {KERNEL} are expected");
        }
        if !device.is_cpu() {
            return Self::elsewhere(weight, bias, stride, device);
        }
        let rows = weight.transpose(1, 2)?.contiguous()?.reshape((n_out, KERNEL * n_in))?;
        Ok(Self { stride, kind: Kind::Cpu(Linear::new(&rows, Some(bias), Precision::F32, device)?) })
    }

    /// In candle's own operations, which every device has.
    pub(super) fn elsewhere(weight: &Tensor, bias: &Tensor, stride: usize, device: &Device) -> Result<Self> {
        let config = Conv1dConfig { padding: 1, stride, ..Default::default() };
        let convolution = Conv1d::new(weight.to_device(device)?, Some(bias.to_device(device)?), config);
        Ok(Self { stride, kind: Kind::Device(convolution) })
    }

    /// `[n, n_frames, n_in]` to `[n, n_frames / stride rounded up, n_out]`.
    ///
    /// # Errors
    /// When the last dimension does not fit.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        match &self.kind {
            Kind::Cpu(linear) => input.contiguous()?.apply_op1_no_bwd(&OnCpu { linear, stride: self.stride }),
            Kind::Device(conv) => {
                conv.forward(&input.transpose(1, 2)?.contiguous()?)?.gelu_erf()?.transpose(1, 2)?.contiguous()
            }
        }
    }
}

struct OnCpu<'a> {
    linear: &'a Linear,
    stride: usize,
}

impl CustomOp1 for OnCpu<'_> {
    fn name(&self) -> &'static str {
        "speech-convolution"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, n_frames, n_in) = layout.shape().dims3()?;
        let input = &f32_slice(storage, layout)?[..n * n_frames * n_in];
        let n_out_frames = n_frames.div_ceil(self.stride);
        let mut output = Vec::with_capacity(n * n_out_frames * self.linear.n_out());
        for item in input.chunks(n_frames * n_in) {
            // One frame of zeros in front and as many behind as the last row reaches.
            let mut padded = vec![0.0; (n_out_frames.saturating_sub(1) * self.stride + KERNEL) * n_in];
            let n_used = item.len().min(padded.len() - n_in);
            padded[n_in..n_in + n_used].copy_from_slice(&item[..n_used]);
            let shape = [n_out_frames, KERNEL * n_in];
            let rows = NdTensorView::from_slice_with_strides(shape, &padded, [self.stride * n_in, 1]);
            let rows = rows.map_err(candle_core::Error::wrap)?;
            output.extend(self.linear.rows_on_cpu(rows, Activation::Gelu)?);
        }
        Ok((CpuStorage::F32(output), (n, n_out_frames, self.linear.n_out()).into()))
    }
}
