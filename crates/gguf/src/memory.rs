//! How much memory a model's caches take. Arithmetic only; devices and compute buffers are not looked at.

use crate::hparams::{Hparams, Keys};
use crate::{GgmlType, GgufError, Header, ModelInfo, rules};

/// What one layer keeps for each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Elements of the key of one token, all heads together; 0 if the layer has no KV cache.
    pub n_key: u32,
    /// Elements of the value; 0 where values are derived from the keys (latent attention).
    pub n_value: u32,
    /// Only the last `sliding_window` tokens are looked at.
    pub is_windowed: bool,
    /// Elements of recurrent state for each sequence, f32.
    pub n_state: u64,
}

impl AttentionShape {
    fn bytes_per_token(&self, key_type: GgmlType, value_type: GgmlType) -> u64 {
        let bytes = |n_elements: u32, ggml_type: GgmlType| ggml_type.bytes_for(n_elements.into());
        bytes(self.n_key, key_type)
            .unwrap_or(u64::MAX)
            .saturating_add(bytes(self.n_value, value_type).unwrap_or(u64::MAX))
    }
}

impl ModelInfo {
    /// Bytes that one more token takes in the KV caches of all layers.
    pub fn kv_bytes_per_token(&self, key_type: GgmlType, value_type: GgmlType) -> u64 {
        self.attention.iter().map(|layer| layer.bytes_per_token(key_type, value_type)).fold(0, u64::saturating_add)
    }

    /// Bytes of the KV caches with `n_cells` tokens in every layer, sliding windows kept whole.
    pub fn kv_cache_bytes(&self, n_cells: u64, key_type: GgmlType, value_type: GgmlType) -> u64 {
        self.kv_bytes_per_token(key_type, value_type).saturating_mul(n_cells)
    }

    /// Bytes of the KV caches when layers with a sliding window hold only `n_window_cells`.
    pub fn windowed_kv_cache_bytes(
        &self,
        n_cells: u64,
        n_window_cells: u64,
        key_type: GgmlType,
        value_type: GgmlType,
    ) -> u64 {
        let layer_bytes = |layer: &AttentionShape| {
            let cells = if layer.is_windowed { n_window_cells.min(n_cells) } else { n_cells };
            layer.bytes_per_token(key_type, value_type).saturating_mul(cells)
        };
        self.attention.iter().map(layer_bytes).fold(0, u64::saturating_add)
    }

    /// Bytes of recurrent state (f32) for `n_sequences` sequences.
    pub fn recurrent_bytes(&self, n_sequences: u64) -> u64 {
        let per_sequence = self.attention.iter().map(|layer| layer.n_state).fold(0, u64::saturating_add);
        per_sequence.saturating_mul(4).saturating_mul(n_sequences)
    }
}

/// The shapes of all layers.
pub(crate) fn shapes(header: &Header, architecture: &str, hparams: &Hparams) -> Result<Vec<AttentionShape>, GgufError> {
    let keys = Keys { metadata: &header.metadata, architecture };
    let is_latent = keys.u32("attention.key_length_mla")?.is_some();
    let window_key = keys.u32("attention.key_length_swa")?.unwrap_or(hparams.head_dim_k);
    let window_value = keys.u32("attention.value_length_swa")?.unwrap_or(hparams.head_dim_v);
    let interval = keys.u32("full_attention_interval")?.or_else(|| rules::attention_interval(architecture));
    let n_state = state_len(&keys, hparams)?;
    let n_trunk = hparams.n_layers - hparams.n_layers_nextn;
    let shape = |layer: u32| {
        let is_windowed = hparams.is_windowed[layer as usize];
        let (key_len, value_len) = match is_windowed {
            true => (window_key, window_value),
            false => (hparams.head_dim_k, hparams.head_dim_v),
        };
        let n_head_kv = hparams.n_head_kv[layer as usize];
        let is_interval = interval.is_none_or(|interval| interval > 0 && (layer + 1).is_multiple_of(interval));
        let has_kv = layer < n_trunk && is_interval && !rules::is_recurrent(architecture);
        let has_state = !has_kv || n_head_kv == 0 || architecture == "falcon-h1";
        AttentionShape {
            n_key: if has_kv { key_len.saturating_mul(n_head_kv) } else { 0 },
            n_value: if has_kv && !is_latent { value_len.saturating_mul(n_head_kv) } else { 0 },
            is_windowed,
            n_state: if has_state && layer < n_trunk { n_state } else { 0 },
        }
    };
    Ok((0..hparams.n_layers).map(shape).collect())
}

/// Elements of recurrent state in one recurrent layer.
fn state_len(keys: &Keys<'_>, hparams: &Hparams) -> Result<u64, GgufError> {
    let n_embd = u64::from(hparams.n_embd);
    let number = |suffix: &str| keys.u32(suffix).map(|value| u64::from(value.unwrap_or(0)));
    let wkv = number("wkv.head_size")?;
    if wkv > 0 {
        let shifts = keys.u32("token_shift_count")?.unwrap_or(2);
        return Ok(n_embd.saturating_mul(wkv.saturating_add(shifts.into())));
    }
    let cache = number("shortconv.l_cache")?;
    if cache > 0 {
        return Ok(n_embd.saturating_mul(cache - 1));
    }
    let (conv, inner) = (number("ssm.conv_kernel")?, number("ssm.inner_size")?);
    let (state, groups) = (number("ssm.state_size")?, number("ssm.group_count")?);
    let convolved = inner.saturating_add(groups.saturating_mul(state).saturating_mul(2));
    Ok(conv.saturating_sub(1).saturating_mul(convolved).saturating_add(state.saturating_mul(inner)))
}
