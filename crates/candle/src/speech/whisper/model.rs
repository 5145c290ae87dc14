//! Whisper's network: a transformer that listens and one that writes.
//!
//! After "Robust Speech Recognition via Large-Scale Weak Supervision" (Radford et al., 2022).

use candle_core::{DType, Device, Result, Tensor};

use super::cache::{Cache, Heard};
use super::weights::{ModelFiles, Weights, WeightsError};
use crate::speech::ops::{Activation, Attention, Convolution, LayerNorm, Linear, Precision, Visible};

/// Width of a head in all of OpenAI's models.
const HEAD_WIDTH: usize = 64;
/// Most layers of a stack; large has 32.
const MAX_LAYERS: usize = 256;

/// Sizes of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    /// Mel bands.
    pub n_mels: usize,
    /// Frames behind the encoder: one for two of the spectrogram.
    pub n_audio: usize,
    /// Most tokens of a text, prompt included.
    pub n_text: usize,
    /// Width of a row.
    pub width: usize,
    /// Heads of each attention.
    pub n_heads: usize,
    /// Ids of the vocabulary.
    pub n_vocab: usize,
    /// Layers of the encoder.
    pub n_encoder_layers: usize,
    /// Layers of the decoder.
    pub n_decoder_layers: usize,
}

impl Dims {
    /// Reads them off the tensors.
    ///
    /// # Errors
    /// When a tensor that tells a size is missing.
    pub fn of(files: &mut ModelFiles) -> std::result::Result<Self, WeightsError> {
        let n_heads = files.n_heads;
        let weights = &mut files.weights;
        let (width, n_mels, _) = weights.read("encoder.conv1.weight")?.dims3()?;
        let (n_audio, _) = weights.read("encoder.embed_positions.weight")?.dims2()?;
        let (n_text, _) = weights.read("decoder.embed_positions.weight")?.dims2()?;
        let (n_vocab, _) = weights.read("decoder.embed_tokens.weight")?.dims2()?;
        let layers = |stack: &str| {
            (0..MAX_LAYERS).take_while(|layer| weights.has(&format!("{stack}.layers.{layer}.fc1.weight"))).count()
        };
        let (n_encoder_layers, n_decoder_layers) = (layers("encoder"), layers("decoder"));
        let n_heads = n_heads.unwrap_or(width / HEAD_WIDTH).max(1);
        if !width.is_multiple_of(n_heads) {
            let reason = format!("{n_heads} heads do not divide a width of {width}");
            return Err(WeightsError::Shapes(candle_core::Error::Msg(reason)));
        }
        Ok(Self { n_mels, n_audio, n_text, width, n_heads, n_vocab, n_encoder_layers, n_decoder_layers })
    }

    /// Numbers in all weights, nearly.
    pub fn n_parameters(&self) -> u64 {
        let (width, square) = (self.width as u64, (self.width * self.width) as u64);
        let embeddings = (self.n_vocab + self.n_text + self.n_audio) as u64 * width;
        let convolutions = 3 * (self.n_mels as u64 * width + square);
        12 * square * self.n_encoder_layers as u64
            + 16 * square * self.n_decoder_layers as u64
            + embeddings
            + convolutions
    }
}

struct SelfAttention {
    /// Queries, keys and values side by side.
    input: Linear,
    output: Linear,
    norm: LayerNorm,
}

struct CrossAttention {
    query: Linear,
    /// Keys and values side by side.
    memory: Linear,
    output: Linear,
    norm: LayerNorm,
}

struct FeedForward {
    inner: Linear,
    outer: Linear,
    norm: LayerNorm,
}

struct EncoderLayer {
    attention: SelfAttention,
    feed_forward: FeedForward,
}

struct DecoderLayer {
    attention: SelfAttention,
    cross: CrossAttention,
    feed_forward: FeedForward,
}

/// The network with its weights.
pub struct Network {
    /// Sizes.
    pub dims: Dims,
    device: Device,
    dtype: DType,
    conv1: Convolution,
    conv2: Convolution,
    /// `[n_audio, width]`
    audio_positions: Tensor,
    encoder: Vec<EncoderLayer>,
    encoder_norm: LayerNorm,
    /// `[n_vocab, width]`
    words: Tensor,
    /// `[n_text, width]`
    text_positions: Tensor,
    decoder: Vec<DecoderLayer>,
    decoder_norm: LayerNorm,
    logits: Linear,
}

/// Where and in which numbers a network computes.
#[derive(Clone)]
pub struct Placement {
    /// The device.
    pub device: Device,
    /// In which numbers a CPU multiplies.
    pub precision: Precision,
}

impl Placement {
    fn dtype(&self) -> DType {
        if self.device.is_cpu() { DType::F32 } else { DType::F16 }
    }
}

/// Reads modules out of weights.
struct Loader<'a> {
    weights: &'a mut dyn Weights,
    placement: &'a Placement,
}

impl Loader<'_> {
    fn tensor(&mut self, name: &str) -> std::result::Result<Tensor, WeightsError> {
        Ok(self.weights.read(name)?.to_dtype(self.placement.dtype())?)
    }

    fn on_device(&mut self, name: &str) -> std::result::Result<Tensor, WeightsError> {
        Ok(self.tensor(name)?.to_device(&self.placement.device)?)
    }

    /// One product for several projections of the same input. Whisper's key projections have no bias.
    fn linear(&mut self, names: &[String]) -> std::result::Result<Linear, WeightsError> {
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for name in names {
            let weight = self.tensor(&format!("{name}.weight"))?;
            let bias_name = format!("{name}.bias");
            let bias = if self.weights.has(&bias_name) && !name.ends_with("k_proj") {
                self.tensor(&bias_name)?
            } else {
                Tensor::zeros(weight.dim(0)?, weight.dtype(), &Device::Cpu)?
            };
            weights.push(weight);
            biases.push(bias);
        }
        let (weight, bias) = (Tensor::cat(&weights, 0)?, Tensor::cat(&biases, 0)?);
        Ok(Linear::new(&weight, Some(&bias), self.placement.precision, &self.placement.device)?)
    }

    fn norm(&mut self, name: &str) -> std::result::Result<LayerNorm, WeightsError> {
        let (gamma, beta) = (self.tensor(&format!("{name}.weight"))?, self.tensor(&format!("{name}.bias"))?);
        Ok(LayerNorm::new(&gamma, &beta, &self.placement.device)?)
    }

    fn convolution(&mut self, name: &str, stride: usize) -> std::result::Result<Convolution, WeightsError> {
        let (weight, bias) = (self.tensor(&format!("{name}.weight"))?, self.tensor(&format!("{name}.bias"))?);
        Ok(Convolution::new(&weight, &bias, stride, &self.placement.device)?)
    }

    fn self_attention(&mut self, layer: &str) -> std::result::Result<SelfAttention, WeightsError> {
        Ok(SelfAttention {
            input: self.linear(&["q_proj", "k_proj", "v_proj"].map(|name| format!("{layer}.self_attn.{name}")))?,
            output: self.linear(&[format!("{layer}.self_attn.out_proj")])?,
            norm: self.norm(&format!("{layer}.self_attn_layer_norm"))?,
        })
    }

    fn cross_attention(&mut self, layer: &str) -> std::result::Result<CrossAttention, WeightsError> {
        Ok(CrossAttention {
            query: self.linear(&[format!("{layer}.encoder_attn.q_proj")])?,
            memory: self.linear(&["k_proj", "v_proj"].map(|name| format!("{layer}.encoder_attn.{name}")))?,
            output: self.linear(&[format!("{layer}.encoder_attn.out_proj")])?,
            norm: self.norm(&format!("{layer}.encoder_attn_layer_norm"))?,
        })
    }

    fn feed_forward(&mut self, layer: &str) -> std::result::Result<FeedForward, WeightsError> {
        Ok(FeedForward {
            inner: self.linear(&[format!("{layer}.fc1")])?,
            outer: self.linear(&[format!("{layer}.fc2")])?,
            norm: self.norm(&format!("{layer}.final_layer_norm"))?,
        })
    }

    fn encoder_layer(&mut self, layer: usize) -> std::result::Result<EncoderLayer, WeightsError> {
        let layer = format!("encoder.layers.{layer}");
        Ok(EncoderLayer { attention: self.self_attention(&layer)?, feed_forward: self.feed_forward(&layer)? })
    }

    fn decoder_layer(&mut self, layer: usize) -> std::result::Result<DecoderLayer, WeightsError> {
        let layer = format!("decoder.layers.{layer}");
        Ok(DecoderLayer {
            attention: self.self_attention(&layer)?,
            cross: self.cross_attention(&layer)?,
            feed_forward: self.feed_forward(&layer)?,
        })
    }
}

impl SelfAttention {
    fn encode(&self, x: &Tensor, n_heads: usize) -> Result<Tensor> {
        let (n, _, width) = x.dims3()?;
        let input = self.input.forward(&self.norm.forward(x)?, Activation::None)?;
        let part = |index: usize| input.narrow(2, index * width, width);
        let attention = Attention { n_heads, visible: Visible::All, source: (0..n).collect() };
        let heard = attention.forward(&part(0)?, &part(1)?, &part(2)?)?;
        x + self.output.forward(&heard, Activation::None)?
    }

    fn decode(&self, x: &Tensor, n_heads: usize, cache: &mut Cache, layer: usize) -> Result<Tensor> {
        let (n, _, width) = x.dims3()?;
        let input = self.input.forward(&self.norm.forward(x)?, Activation::None)?;
        let part = |index: usize| input.narrow(2, index * width, width);
        let (keys, values) = cache.append(layer, &part(1)?, &part(2)?)?;
        let visible = Visible::Causal { past: cache.past().to_vec() };
        let attention = Attention { n_heads, visible, source: (0..n).collect() };
        let seen = attention.forward(&part(0)?, &keys, &values)?;
        x + self.output.forward(&seen, Activation::None)?
    }
}

impl CrossAttention {
    fn decode(&self, x: &Tensor, n_heads: usize, heard: &Heard, layer: usize) -> Result<Tensor> {
        let query = self.query.forward(&self.norm.forward(x)?, Activation::None)?;
        let (keys, values) = heard.layer(layer)?;
        let attention = Attention { n_heads, visible: Visible::All, source: heard.source.clone() };
        x + self.output.forward(&attention.forward(&query, &keys, &values)?, Activation::None)?
    }

    /// Attention of some heads, `[n_heads chosen, n_queries, n_audio]`, for a batch of one text.
    fn weights(&self, x: &Tensor, heads: &[usize], n_heads: usize, keys: &Tensor) -> Result<Vec<Tensor>> {
        let query = self.query.forward(&self.norm.forward(x)?, Activation::None)?.squeeze(0)?;
        let keys = keys.squeeze(0)?;
        let width = query.dim(1)? / n_heads;
        let head = |head: &usize| {
            let (query, keys) = (query.narrow(1, head * width, width)?, keys.narrow(1, head * width, width)?);
            let scores = query.contiguous()?.matmul(&keys.contiguous()?.t()?)?;
            (scores * (1.0 / (width as f64).sqrt()))?.to_dtype(DType::F32)
        };
        heads.iter().map(head).collect()
    }
}

impl FeedForward {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let inner = self.inner.forward(&self.norm.forward(x)?, Activation::Gelu)?;
        x + self.outer.forward(&inner, Activation::None)?
    }
}

impl Network {
    /// Reads all weights.
    ///
    /// # Errors
    /// When a tensor is missing or does not fit.
    pub fn load(files: &mut ModelFiles, placement: &Placement) -> std::result::Result<Self, WeightsError> {
        let dims = Dims::of(files)?;
        let mut loader = Loader { weights: &mut *files.weights, placement };
        let words = loader.tensor("decoder.embed_tokens.weight")?;
        let logits = Linear::new(&words, None, placement.precision, &placement.device)?;
        let encoder = (0..dims.n_encoder_layers)
            .map(|layer| loader.encoder_layer(layer))
            .collect::<std::result::Result<_, _>>()?;
        let decoder = (0..dims.n_decoder_layers)
            .map(|layer| loader.decoder_layer(layer))
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self {
            dims,
            device: placement.device.clone(),
            dtype: placement.dtype(),
            conv1: loader.convolution("encoder.conv1", 1)?,
            conv2: loader.convolution("encoder.conv2", 2)?,
            audio_positions: loader.on_device("encoder.embed_positions.weight")?,
            encoder,
            encoder_norm: loader.norm("encoder.layer_norm")?,
            words: words.to_device(&placement.device)?,
            text_positions: loader.on_device("decoder.embed_positions.weight")?,
            decoder,
            decoder_norm: loader.norm("decoder.layer_norm")?,
            logits,
        })
    }

    /// Listens to spectrograms, each `[2 · n_audio, n_mels]`, and keeps what the writer needs of them. None: `cancelled`,
    /// which is asked before each layer, told that nobody waits any more.
    ///
    /// # Errors
    /// When a spectrogram has another size or the device fails.
    pub fn listen(&self, spectrograms: &[Vec<f32>], cancelled: &dyn Fn() -> bool) -> Result<Option<Heard>> {
        let shape = (1, 2 * self.dims.n_audio, self.dims.n_mels);
        let mut layers: Vec<Vec<Tensor>> = vec![Vec::new(); self.decoder.len()];
        // One after the other: a spectrogram has rows enough to keep every core busy, and memory stays small.
        for spectrogram in spectrograms {
            let input = Tensor::from_slice(spectrogram, shape, &Device::Cpu)?;
            let input = input.to_dtype(self.dtype)?.to_device(&self.device)?;
            let x = self.conv2.forward(&self.conv1.forward(&input)?)?;
            let mut x = x.broadcast_add(&self.audio_positions)?;
            for layer in &self.encoder {
                if cancelled() {
                    return Ok(None);
                }
                x = layer.attention.encode(&x, self.dims.n_heads)?;
                x = layer.feed_forward.forward(&x)?;
            }
            let x = self.encoder_norm.forward(&x)?;
            for (layer, memory) in self.decoder.iter().zip(&mut layers) {
                memory.push(layer.cross.memory.forward(&x, Activation::None)?);
            }
        }
        Heard::new(&layers).map(Some)
    }

    /// An empty cache for texts of `n` rows.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn cache(&self, n: usize) -> Cache {
        Cache::new(n, self.decoder.len(), self.dims.n_text)
    }

    /// Continues texts by `tokens`, `[n, n_new]`, and returns the last layer's rows, `[n, n_new, width]`. Rows of
    /// `tokens` that are shorter than the longest are filled up; call [`Cache::advance`] with the real lengths.
    ///
    /// # Errors
    /// When a text grows too long or the device fails.
    pub fn write(&self, tokens: &[Vec<u32>], cache: &mut Cache, heard: &Heard) -> Result<Tensor> {
        let mut x = self.embed(tokens, cache.past())?;
        for (index, layer) in self.decoder.iter().enumerate() {
            x = layer.attention.decode(&x, self.dims.n_heads, cache, index)?;
            x = layer.cross.decode(&x, self.dims.n_heads, heard, index)?;
            x = layer.feed_forward.forward(&x)?;
        }
        self.decoder_norm.forward(&x)
    }

    fn embed(&self, tokens: &[Vec<u32>], past: &[usize]) -> Result<Tensor> {
        let (n, n_new) = (tokens.len(), tokens.iter().map(Vec::len).max().unwrap_or(0));
        let mut ids = Vec::with_capacity(n * n_new);
        let mut positions = Vec::with_capacity(n * n_new);
        for (row, past) in tokens.iter().zip(past) {
            ids.extend(row.iter().copied().chain(std::iter::repeat_n(0, n_new - row.len())));
            // Filled-up places may lie behind the last position; nobody looks at them.
            positions.extend((0..n_new).map(|at| (past + at).min(self.dims.n_text - 1) as u32));
        }
        let look_up = |table: &Tensor, ids: Vec<u32>| table.index_select(&Tensor::new(ids, &self.device)?, 0);
        let x = (look_up(&self.words, ids)? + look_up(&self.text_positions, positions)?)?;
        x.reshape((n, n_new, self.dims.width))
    }

    /// Logits of rows `[n, width]`, each `[n_vocab]`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn logits(&self, rows: &Tensor) -> Result<Vec<Vec<f32>>> {
        self.logits.forward(rows, Activation::None)?.to_dtype(DType::F32)?.to_vec2()
    }

    /// Scores of the cross attention of `heads`, `(layer, head)`, for one text over one recording: for each head
    /// `[n_tokens, n_audio]`; and the last layer's rows, `[1, n_tokens, width]`.
    ///
    /// # Errors
    /// When the text is too long or the device fails.
    pub fn align(&self, tokens: &[u32], heard: &Heard, heads: &[(usize, usize)]) -> Result<(Vec<Tensor>, Tensor)> {
        let mut cache = self.cache(1);
        let mut x = self.embed(&[tokens.to_vec()], &[0])?;
        let mut scores = Vec::new();
        for (index, layer) in self.decoder.iter().enumerate() {
            x = layer.attention.decode(&x, self.dims.n_heads, &mut cache, index)?;
            let wanted: Vec<usize> = heads.iter().filter(|head| head.0 == index).map(|head| head.1).collect();
            if !wanted.is_empty() {
                let (keys, _) = heard.layer(index)?;
                scores.extend(layer.cross.weights(&x, &wanted, self.dims.n_heads, &keys)?);
            }
            x = layer.cross.decode(&x, self.dims.n_heads, heard, index)?;
            x = layer.feed_forward.forward(&x)?;
        }
        Ok((scores, self.decoder_norm.forward(&x)?))
    }
}
