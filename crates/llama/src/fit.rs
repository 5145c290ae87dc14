//! Which layers go to which GPU: arithmetic over a header and free memory.
//!
//! llama.cpp puts the last layers of a model onto the GPUs, in the order of the devices, and what turns the last hidden
//! state into logits behind them. Layers of a device are neighbours, so a placement is the number of layers on GPUs and
//! where one GPU ends and the next begins.

use ingle_engine::{GpuLayers, LoadOptions, MemoryEstimate, SplitMode};
use ingle_gguf::ModelInfo;

/// Memory of a GPU that is left alone: the driver's own needs grow a little while a model runs.
const MARGIN_BYTES: u64 = 256 << 20;
/// And this part (1 / n) of what is free.
const MARGIN_SHARE: u64 = 32;
/// Steps in the search for an even load.
const BALANCE_STEPS: u32 = 24;

/// Where the weights go.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Placement {
    /// Layers on GPUs, the output matrix counted as one.
    pub n_gpu_layers: u32,
    /// Layers on each GPU, in the order of the devices; empty where llama.cpp or the options decide.
    pub layers_by_gpu: Vec<u32>,
    /// The experts of that many layers, from the first on, stay in main memory.
    pub n_cpu_experts: u32,
}

/// What has to find a place.
pub(crate) struct Demand<'a> {
    pub info: &'a ModelInfo,
    pub options: &'a LoadOptions,
    pub memory: MemoryEstimate,
}

impl Demand<'_> {
    /// The placement for GPUs with so many bytes free.
    pub(crate) fn place(&self, free_bytes: &[u64]) -> Placement {
        let all = self.info.n_layers + 1;
        match self.options.gpu_layers {
            GpuLayers::Count(count) => {
                let n_cpu_experts = self.options.n_cpu_experts.unwrap_or(0).min(self.info.n_layers);
                Placement { n_gpu_layers: count.min(all), layers_by_gpu: Vec::new(), n_cpu_experts }
            }
            GpuLayers::Auto => self.place_what_fits(free_bytes),
        }
    }

    /// Does everything find a place on GPUs?
    pub(crate) fn fits(&self, free_bytes: &[u64]) -> bool {
        self.spread(&self.units(self.options.n_cpu_experts.unwrap_or(0)), self.all(), free_bytes).is_some()
    }

    fn all(&self) -> usize {
        self.info.n_layers as usize + 1
    }

    fn place_what_fits(&self, free_bytes: &[u64]) -> Placement {
        let fixed = self.options.n_cpu_experts.map(|count| count.min(self.info.n_layers));
        let try_all = |n_cpu_experts: u32| {
            let layers = self.spread(&self.units(n_cpu_experts), self.all(), free_bytes)?;
            Some(self.placement(self.all(), layers, n_cpu_experts))
        };
        if let Some(placement) = try_all(fixed.unwrap_or(0)) {
            return placement;
        }
        // A token visits few experts, and attention is what a GPU speeds up most: they leave first.
        let is_mixture = fixed.is_none() && self.info.expert_bytes.iter().any(|&bytes| bytes > 0);
        let mut counts = (1..=self.info.n_layers).filter(|_| is_mixture);
        if let Some(placement) = counts.find_map(try_all) {
            return placement;
        }
        let n_cpu_experts = fixed.unwrap_or(0);
        let units = self.units(n_cpu_experts);
        let fitting = (1..self.all()).rev().find_map(|count| Some((count, self.spread(&units, count, free_bytes)?)));
        match fitting {
            Some((count, layers)) => self.placement(count, layers, n_cpu_experts),
            None => Placement::default(),
        }
    }

    fn placement(&self, count: usize, layers: Vec<u32>, n_cpu_experts: u32) -> Placement {
        let decides_itself =
            layers.len() > 1 && self.options.tensor_split.is_empty() && self.options.main_gpu.is_none();
        Placement {
            n_gpu_layers: count as u32,
            layers_by_gpu: if decides_itself { layers } else { Vec::new() },
            n_cpu_experts,
        }
    }

    /// Bytes of each layer with its cache, and of the output at the end.
    fn units(&self, n_cpu_experts: u32) -> Vec<u64> {
        let info = self.info;
        let cache = match self.options.no_kv_offload {
            true => 0,
            false => self.memory.cache_bytes / u64::from(info.n_layers.max(1)),
        };
        // A tied embedding table is kept twice: for the input in main memory, for the output on the GPU.
        let output = if info.is_output_tied { info.input_bytes } else { info.output_bytes };
        let expert = |layer: usize| info.expert_bytes.get(layer).copied().unwrap_or(0);
        let layer = |(layer, &bytes): (usize, &u64)| match layer < n_cpu_experts as usize {
            true => bytes.saturating_sub(expert(layer)).saturating_add(cache),
            false => bytes.saturating_add(cache),
        };
        info.layer_bytes.iter().enumerate().map(layer).chain([output]).collect()
    }

    /// How many of the last `count` units each GPU takes; `None` when they do not fit.
    fn spread(&self, units: &[u64], count: usize, free_bytes: &[u64]) -> Option<Vec<u32>> {
        let room: Vec<u64> = free_bytes.iter().map(|&free| self.room_for_units(free)).collect();
        let units = &units[units.len() - count..];
        if let Some(main) = self.single_gpu() {
            let room = room.get(main)?;
            return (units.iter().sum::<u64>() <= *room).then(|| vec![count as u32]);
        }
        if !self.options.tensor_split.is_empty() {
            return by_shares(units, &self.options.tensor_split, &room);
        }
        if self.options.split_mode == SplitMode::Row {
            // Rows of every matrix are on all GPUs, in proportion to their memory.
            return (units.iter().sum::<u64>() <= room.iter().sum()).then(|| vec![count as u32]);
        }
        evenly(units, &room)
    }

    fn single_gpu(&self) -> Option<usize> {
        match (self.options.main_gpu, self.options.split_mode) {
            (main, SplitMode::None) => Some(main.unwrap_or(0)),
            // Whoever names one GPU and no shares wants that one.
            (Some(main), SplitMode::Layer) if self.options.tensor_split.is_empty() => Some(main),
            (_, SplitMode::Layer | SplitMode::Row) => None,
        }
    }

    /// What is left of a GPU for layers: each one in use has buffers for the computation of its own.
    fn room_for_units(&self, free_bytes: u64) -> u64 {
        let margin = MARGIN_BYTES.max(free_bytes / MARGIN_SHARE);
        free_bytes.saturating_sub(margin).saturating_sub(self.memory.compute_bytes)
    }
}

/// Fills the GPUs in order, each to the same share of its room: the smallest share with which everything fits.
fn evenly(units: &[u64], room: &[u64]) -> Option<Vec<u32>> {
    let mut best = fill(units, room)?;
    let (mut too_small, mut enough) = (0.0, 1.0);
    for _ in 0..BALANCE_STEPS {
        let share = f64::midpoint(too_small, enough);
        let part: Vec<u64> = room.iter().map(|&bytes| (bytes as f64 * share) as u64).collect();
        match fill(units, &part) {
            Some(layers) => (best, enough) = (layers, share),
            None => too_small = share,
        }
    }
    Some(best)
}

/// Fills the GPUs in order, each as far as it goes. As layers have an order, nothing that fits is missed.
fn fill(units: &[u64], room: &[u64]) -> Option<Vec<u32>> {
    let mut counts = Vec::with_capacity(room.len());
    let mut rest = units;
    for &bytes in room {
        let mut left = bytes;
        let n_fitting = rest.iter().take_while(|&&unit| take(&mut left, unit)).count();
        counts.push(n_fitting as u32);
        rest = &rest[n_fitting..];
    }
    rest.is_empty().then_some(counts)
}

/// Takes `bytes` out of `left` if they are there.
fn take(left: &mut u64, bytes: u64) -> bool {
    match left.checked_sub(bytes) {
        Some(rest) => {
            *left = rest;
            true
        }
        None => false,
    }
}

/// The GPUs' parts as llama.cpp cuts them by shares (`llama_model::load_tensors`): unit `i` of `n` goes to the first GPU
/// whose cumulated share lies above `i / n`.
fn by_shares(units: &[u64], shares: &[f32], room: &[u64]) -> Option<Vec<u32>> {
    let total: f32 = shares.iter().sum();
    let mut taken = vec![(0_u32, 0_u64); room.len()];
    let cumulated: Vec<f32> = shares
        .iter()
        .scan(0.0, |sum, share| {
            *sum += share / total;
            Some(*sum)
        })
        .collect();
    for (nth, &bytes) in units.iter().enumerate() {
        let place = nth as f32 / units.len() as f32;
        let gpu = cumulated.iter().position(|&sum| sum > place).unwrap_or(shares.len().saturating_sub(1));
        let (count, sum) = taken.get_mut(gpu)?;
        *count += 1;
        *sum = sum.saturating_add(bytes);
    }
    let fits = taken.iter().zip(room).all(|((_, sum), room)| sum <= room);
    fits.then(|| taken.into_iter().map(|(count, _)| count).collect())
}

#[cfg(test)]
mod tests;
