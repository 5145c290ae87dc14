//! What the writer keeps between steps: keys and values of its own words, and those of what was heard.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor};

/// Rows by which a cache grows.
const GROWTH: usize = 64;

/// Keys and values of texts that are being written, for each layer `[n_texts, n_rows, width]`.
pub struct Cache {
    n: usize,
    n_most: usize,
    layers: Vec<Option<(Tensor, Tensor)>>,
    /// `[n_texts]`: tokens of each that are computed.
    past: Vec<usize>,
}

impl Cache {
    /// For `n` texts of at most `n_most` tokens.
    pub fn new(n: usize, n_layers: usize, n_most: usize) -> Self {
        Self { n, n_most, layers: vec![None; n_layers], past: vec![0; n] }
    }

    /// Tokens of each text that are computed.
    pub fn past(&self) -> &[usize] {
        &self.past
    }

    /// Counts the tokens of the last step, `n_new` for each text.
    pub fn advance(&mut self, n_new: &[usize]) {
        assert_eq!(n_new.len(), self.n, "a step has a row for each text");
        for (past, n_new) in self.past.iter_mut().zip(n_new) {
            *past += n_new;
        }
    }

    /// Writes the rows of a step, `[n_texts, n_new, width]`, behind those of the steps before and returns all keys and
    /// values of the layer, `[n_texts, n_rows, width]`; rows behind a text's end are not defined.
    ///
    /// # Errors
    /// When a text becomes longer than the model can write.
    pub fn append(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let (n, n_new, width) = keys.dims3()?;
        let n_rows = self.past.iter().max().map_or(0, |past| past + n_new);
        if n != self.n || n_rows > self.n_most + n_new {
            candle_core::bail!("{n} texts of up to {n_rows} tokens in a cache for {} of {}", self.n, self.n_most);
        }
        let capacity = n_rows.next_multiple_of(GROWTH);
        let (old_keys, old_values) = match self.layers[layer].take() {
            Some((keys, values)) if keys.dim(1)? >= n_rows => (keys, values),
            old => {
                let zeros = || Tensor::zeros((n, capacity, width), keys.dtype(), keys.device());
                let grown = (zeros()?, zeros()?);
                if let Some((keys, values)) = old {
                    grown.0.slice_set(&keys, 1, 0)?;
                    grown.1.slice_set(&values, 1, 0)?;
                }
                grown
            }
        };
        self.put(&old_keys, keys)?;
        self.put(&old_values, values)?;
        self.layers[layer] = Some((old_keys.clone(), old_values.clone()));
        Ok((old_keys, old_values))
    }

    fn put(&self, all: &Tensor, new: &Tensor) -> Result<()> {
        if all.device().is_cpu() {
            return all.inplace_op2(new, &Put { past: &self.past });
        }
        let new = new.contiguous()?;
        for (row, &past) in self.past.iter().enumerate() {
            all.narrow(0, row, 1)?.slice_set(&new.narrow(0, row, 1)?, 1, past)?;
        }
        Ok(())
    }

    /// The texts `rows` of this cache as a new one, in that order; a text may occur more than once. Layers are replaced
    /// one by one, so that no two caches are held at a time.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn select(self, rows: &[usize]) -> Result<Self> {
        let index: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        let mut layers = self.layers;
        for layer in &mut layers {
            let Some((keys, values)) = layer.take() else { continue };
            let index = Tensor::new(&index[..], keys.device())?;
            let pick = |tensor: Tensor| tensor.index_select(&index, 0);
            *layer = Some((pick(keys)?, pick(values)?));
        }
        let past = rows.iter().map(|&row| self.past[row]).collect();
        Ok(Self { n: rows.len(), n_most: self.n_most, layers, past })
    }
}

/// Copies the rows of a step to where each text ends.
struct Put<'a> {
    past: &'a [usize],
}

impl InplaceOp2 for Put<'_> {
    fn name(&self) -> &'static str {
        "speech-cache-put"
    }

    fn cpu_fwd(&self, all: &mut CpuStorage, l1: &Layout, new: &CpuStorage, l2: &Layout) -> Result<()> {
        let (CpuStorage::F32(all), CpuStorage::F32(new)) = (all, new) else {
            candle_core::bail!("the CPU path of speech models computes in f32");
        };
        let (_, n_rows, width) = l1.shape().dims3()?;
        let (n, n_new, _) = l2.shape().dims3()?;
        let &[item_stride, row_stride, 1] = l2.stride() else {
            candle_core::bail!("the columns of a speech tensor must lie side by side");
        };
        for item in 0..n {
            for row in 0..n_new.min(n_rows - self.past[item]) {
                let from = l2.start_offset() + item * item_stride + row * row_stride;
                let to = l1.start_offset() + (item * n_rows + self.past[item] + row) * width;
                all[to..to + width].copy_from_slice(&new[from..from + width]);
            }
        }
        Ok(())
    }
}

/// What the listener made of recordings: for each layer of the writer keys and values side by side,
/// `[n_recordings, n_audio, 2 · width]`.
pub struct Heard {
    layers: Vec<Tensor>,
    /// `[n_texts]`: the recording each text is written of. Texts of one recording follow each other.
    pub source: Vec<usize>,
}

impl Heard {
    /// From each layer's tensors, one a recording, with one text for each recording.
    ///
    /// # Errors
    /// When they do not fit each other.
    pub fn new(layers: &[Vec<Tensor>]) -> Result<Self> {
        let join = |tensors: &Vec<Tensor>| match &tensors[..] {
            [one] => Ok(one.clone()),
            several => Tensor::cat(several, 0),
        };
        let layers = layers.iter().map(join).collect::<Result<Vec<_>>>()?;
        let n = layers.first().map_or(Ok(0), |layer| layer.dim(0))?;
        Ok(Self { layers, source: (0..n).collect() })
    }

    /// The same recordings for other texts: `source[i]` is the recording of text `i`.
    pub fn for_texts(&self, source: Vec<usize>) -> Self {
        Self { layers: self.layers.clone(), source }
    }

    /// One recording alone.
    ///
    /// # Errors
    /// When there is none of this number.
    pub fn only(&self, recording: usize) -> Result<Self> {
        let layers = self.layers.iter().map(|layer| layer.narrow(0, recording, 1)).collect::<Result<_>>()?;
        Ok(Self { layers, source: vec![0] })
    }

    /// Keys and values of a layer, each `[n_recordings, n_audio, width]`.
    pub(super) fn layer(&self, layer: usize) -> Result<(Tensor, Tensor)> {
        let memory = &self.layers[layer];
        let width = memory.dim(2)? / 2;
        Ok((memory.narrow(2, 0, width)?, memory.narrow(2, width, width)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn texts_change_places_with_what_they_hold() {
        let rows = |values: &[f32]| Tensor::from_slice(values, (values.len(), 1, 1), &Device::Cpu).unwrap();
        let mut cache = Cache::new(2, 2, 10);
        for layer in 0..2 {
            cache.append(layer, &rows(&[1.0, 2.0]), &rows(&[3.0, 4.0])).unwrap();
        }
        cache.advance(&[1, 1]);
        let mut cache = cache.select(&[1, 1, 0]).unwrap();
        assert_eq!(cache.past(), [1, 1, 1]);
        for layer in 0..2 {
            let (keys, values) = cache.append(layer, &rows(&[5.0, 6.0, 7.0]), &rows(&[0.0; 3])).unwrap();
            let first = |tensor: &Tensor| tensor.narrow(1, 0, 2).unwrap().squeeze(2).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(first(&keys), [[2.0, 5.0], [2.0, 6.0], [1.0, 7.0]]);
            assert_eq!(first(&values), [[4.0, 0.0], [4.0, 0.0], [3.0, 0.0]]);
        }
    }
}
