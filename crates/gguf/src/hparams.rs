//! The hyper-parameters, checked against the bounds that llama.cpp asserts.

use crate::rules::{self, Demand};
use crate::{GgufError, Header, Metadata, Value};

/// Sizes of llama.cpp's fixed arrays.
const MAX_LAYERS: u32 = 512;
const MAX_EXPERTS: u32 = 1024;
/// Larger than any model; keeps every product of two sizes inside 64 bits and of heads inside 32.
const MAX_EMBEDDING: u32 = 1 << 20;
const MAX_HEADS: u32 = 1 << 14;
const MAX_HEAD_LEN: u32 = 1 << 16;
const MAX_POSITIONS: u32 = i32::MAX as u32;
const MAX_POOLING_TYPE: u32 = 4;
const MAX_GATING_FUNCTION: u32 = 4;

/// Keys of one architecture.
pub(crate) struct Keys<'a> {
    pub metadata: &'a Metadata,
    pub architecture: &'a str,
}

impl Keys<'_> {
    pub fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.architecture)
    }

    pub fn u32(&self, suffix: &str) -> Result<Option<u32>, GgufError> {
        self.metadata.get_u32(&self.key(suffix))
    }

    /// A number that must be there and lie in `1..=limit`.
    fn size(&self, suffix: &str, limit: u32) -> Result<u32, GgufError> {
        let key = self.key(suffix);
        let value = self.metadata.get_u32(&key)?.ok_or_else(|| GgufError::MissingKey { key: key.clone() })?;
        match (1..=limit).contains(&value) {
            true => Ok(value),
            false => Err(GgufError::range(key, value, format!("in 1..={limit}"))),
        }
    }

    /// A number that may be absent and is at most `limit`.
    fn at_most(&self, suffix: &str, limit: u32) -> Result<Option<u32>, GgufError> {
        match self.u32(suffix)? {
            Some(value) if value > limit => Err(GgufError::range(self.key(suffix), value, format!("at most {limit}"))),
            value => Ok(value),
        }
    }

    /// One number for all layers or an array with one for each; each at most `limit`.
    fn per_layer(&self, suffix: &str, n_layers: u32, limit: u32) -> Result<Option<Vec<u32>>, GgufError> {
        let key = self.key(suffix);
        let values = match self.metadata.get(&key) {
            None => return Ok(None),
            Some(Value::Array(array)) => {
                let wrong = || GgufError::range(&key, "an array of another type", "an array of 32-bit integers");
                array.to_words().ok_or_else(wrong)?
            }
            Some(_) => {
                let value = self.metadata.get_u32(&key)?.expect("the key was found above; this is a bug");
                vec![value; n_layers as usize]
            }
        };
        if values.len() != n_layers as usize {
            let found = format!("an array of {} numbers", values.len());
            return Err(GgufError::range(key, found, format!("one number or {n_layers}, one for each layer")));
        }
        match values.iter().find(|&&value| value > limit) {
            Some(value) => Err(GgufError::range(key, value, format!("at most {limit}"))),
            None => Ok(Some(values)),
        }
    }
}

/// What the graph of a model is built from.
#[derive(Debug, Clone)]
pub(crate) struct Hparams {
    /// All blocks, the ones for multi-token prediction included.
    pub n_layers: u32,
    /// Trailing blocks for multi-token prediction; they have no place in the ordinary KV cache.
    pub n_layers_nextn: u32,
    pub n_ctx_train: u32,
    pub n_embd: u32,
    /// Per layer.
    pub n_ff: Vec<u32>,
    /// Per layer.
    pub n_head: Vec<u32>,
    /// Per layer; 0 where a layer has no attention.
    pub n_head_kv: Vec<u32>,
    pub head_dim_k: u32,
    pub head_dim_v: u32,
    pub n_expert: u32,
    pub n_expert_used: u32,
    pub sliding_window: Option<u32>,
    /// Per layer: looks back no further than the sliding window.
    pub is_windowed: Vec<bool>,
    pub pooling_type: Option<u32>,
    pub is_causal: bool,
}

impl Hparams {
    pub fn read(header: &Header, architecture: &str) -> Result<Self, GgufError> {
        let keys = Keys { metadata: &header.metadata, architecture };
        check_floats(&keys)?;
        check_demands(&keys)?;
        let n_layers = keys.size("block_count", MAX_LAYERS)?;
        let n_layers_nextn = keys.at_most("nextn_predict_layers", n_layers)?.unwrap_or(0);
        let n_ctx_train = keys.size("context_length", MAX_POSITIONS)?;
        let n_embd = keys.size("embedding_length", MAX_EMBEDDING)?;
        let (n_expert, n_expert_used) = read_experts(&keys, n_layers)?;
        let zeros = || vec![0; n_layers as usize];
        let n_ff = keys.per_layer("feed_forward_length", n_layers, MAX_POSITIONS)?.unwrap_or_else(zeros);
        let n_head = keys.per_layer("attention.head_count", n_layers, MAX_HEADS)?.unwrap_or_else(zeros);
        let kv = keys.per_layer("attention.head_count_kv", n_layers, MAX_HEADS)?;
        let n_head_kv = kv.unwrap_or_else(|| n_head.clone());
        check_heads(&keys, header, &n_head, &n_head_kv)?;
        let (head_dim_k, head_dim_v) = read_head_dims(&keys, n_embd, n_head[0])?;
        check_rope(&keys, n_head[0], head_dim_k, head_dim_v)?;
        let pooling_type = keys.at_most("pooling_type", MAX_POOLING_TYPE)?;
        keys.at_most("expert_gating_func", MAX_GATING_FUNCTION)?;
        let sliding_window = keys.at_most("attention.sliding_window", MAX_POSITIONS / 2)?.filter(|&window| window > 0);
        let is_windowed = read_window_pattern(&keys, sliding_window, n_layers, n_layers_nextn)?;
        let is_causal = header.metadata.get_bool(&keys.key("attention.causal"))?.unwrap_or(true);
        Ok(Self {
            n_layers,
            n_layers_nextn,
            n_ctx_train,
            n_embd,
            n_ff,
            n_head,
            n_head_kv,
            head_dim_k,
            head_dim_v,
            n_expert,
            n_expert_used,
            sliding_window,
            is_windowed,
            pooling_type,
            is_causal,
        })
    }
}

/// All numbers of the architecture must be finite, and what is added under a square root not negative.
fn check_floats(keys: &Keys<'_>) -> Result<(), GgufError> {
    let prefix = keys.key("");
    for (key, value) in keys.metadata.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        let number = match *value {
            Value::F32(number) => f64::from(number),
            Value::F64(number) => number,
            _ => continue,
        };
        if !number.is_finite() {
            return Err(GgufError::range(key, number, "finite"));
        }
        if number < 0.0 && (key.ends_with("epsilon") || key.contains(".rope.freq_base")) {
            return Err(GgufError::range(key, number, "not negative"));
        }
    }
    Ok(())
}

fn check_demands(keys: &Keys<'_>) -> Result<(), GgufError> {
    for suffix in rules::POSITIVE_KEYS {
        if matches!(keys.metadata.get(&keys.key(suffix)), Some(value) if value.as_u64() == Some(0)) {
            return Err(GgufError::range(keys.key(suffix), 0, "at least 1"));
        }
    }
    for (architectures, suffix, demand) in rules::DEMANDS {
        if !architectures.contains(&keys.architecture) {
            continue;
        }
        let key = keys.key(suffix);
        let value = keys.metadata.get_u32(&key)?.ok_or_else(|| GgufError::MissingKey { key: key.clone() })?;
        match demand {
            Demand::AtLeast(least) if value < least => {
                return Err(GgufError::range(key, value, format!("at least {least}")));
            }
            Demand::Exactly(exact) if value != exact => return Err(GgufError::range(key, value, exact.to_string())),
            Demand::AtLeast(_) | Demand::Exactly(_) => {}
        }
    }
    check_widths(keys)
}

/// Relations between two numbers that single architectures assert.
fn check_widths(keys: &Keys<'_>) -> Result<(), GgufError> {
    if rules::DOUBLE_INNER.contains(&keys.architecture) {
        let (inner, embedding) = (keys.u32("ssm.inner_size")?, keys.u32("embedding_length")?);
        if inner.map(u64::from) != embedding.map(|length| 2 * u64::from(length)) {
            let expected = "twice the embedding length";
            return Err(GgufError::range(keys.key("ssm.inner_size"), inner.unwrap_or(0), expected));
        }
    }
    let (loops, layers) = (keys.u32("num_loops")?.unwrap_or(1), keys.u32("block_count")?.unwrap_or(1));
    if u64::from(loops) * u64::from(layers) > u64::from(MAX_LAYERS) && keys.architecture == "nanbeige" {
        return Err(GgufError::range(keys.key("num_loops"), loops, format!("at most {MAX_LAYERS} layers in total")));
    }
    Ok(())
}

fn read_experts(keys: &Keys<'_>, n_layers: u32) -> Result<(u32, u32), GgufError> {
    let n_expert = keys.at_most("expert_count", MAX_EXPERTS)?.unwrap_or(0);
    let used = keys.per_layer("expert_used_count", n_layers, u32::MAX)?;
    let n_used = used.and_then(|counts| counts.into_iter().max()).unwrap_or(0);
    let groups = keys.u32("expert_group_count")?.unwrap_or(0);
    if matches!(keys.architecture, "hunyuan_vl" | "hunyuan-dense") && n_expert <= 1 {
        return Ok((0, 0));
    }
    if n_used > n_expert || (n_expert > 0 && n_used == 0) {
        let expected = format!("between 1 and the {n_expert} experts, and absent without experts");
        return Err(GgufError::range(keys.key("expert_used_count"), n_used, expected));
    }
    let groups_fit = if n_expert == 0 { groups == 0 } else { groups < n_expert };
    if !groups_fit || (groups > 1 && !n_expert.is_multiple_of(groups)) {
        let expected = format!("a divisor of the {n_expert} experts and less than that");
        return Err(GgufError::range(keys.key("expert_group_count"), groups, expected));
    }
    let groups_used = keys.u32("expert_group_used_count")?.unwrap_or(0);
    if groups > 1 && !(1..groups).contains(&groups_used) {
        let key = keys.key("expert_group_used_count");
        return Err(GgufError::range(key, groups_used, format!("in 1..{groups}")));
    }
    Ok((n_expert, n_used))
}

fn check_heads(keys: &Keys<'_>, header: &Header, n_head: &[u32], n_head_kv: &[u32]) -> Result<(), GgufError> {
    for (&heads, &kv) in n_head.iter().zip(n_head_kv) {
        if heads > 0 && kv > 0 && !heads.is_multiple_of(kv) {
            let key = keys.key("attention.head_count_kv");
            return Err(GgufError::range(key, kv, format!("a divisor of the {heads} attention heads")));
        }
    }
    let is_attention = |name: &str| name.contains(".attn_q.") || name.contains(".attn_qkv.");
    let has_attention = header.tensors.iter().any(|tensor| is_attention(&tensor.name));
    if has_attention && !rules::is_recurrent(keys.architecture) && n_head.iter().all(|&heads| heads == 0) {
        return Err(GgufError::range(keys.key("attention.head_count"), 0, "at least 1 in a model with attention"));
    }
    Ok(())
}

fn read_head_dims(keys: &Keys<'_>, n_embd: u32, n_head: u32) -> Result<(u32, u32), GgufError> {
    let default = n_embd.checked_div(n_head).unwrap_or(0);
    let key_len = keys.at_most("attention.key_length", MAX_HEAD_LEN)?.unwrap_or(default);
    let value_len = keys.at_most("attention.value_length", MAX_HEAD_LEN)?.unwrap_or(default);
    Ok((key_len, value_len))
}

fn check_rope(keys: &Keys<'_>, n_head: u32, key_len: u32, value_len: u32) -> Result<(), GgufError> {
    check_rope_scaling(keys)?;
    if n_head == 0 {
        return Ok(());
    }
    let n_rot = keys.u32("rope.dimension_count")?.unwrap_or(key_len);
    let key = keys.key("rope.dimension_count");
    if keys.metadata.get(&key).is_some() && (n_rot > key_len || !n_rot.is_multiple_of(2)) {
        return Err(GgufError::range(key, n_rot, format!("even and at most the head size {key_len}")));
    }
    // Where layers with a window have sizes of their own, the assertions look at those.
    if keys.u32("attention.key_length_swa")?.is_some() || keys.u32("rope.dimension_count_swa")?.is_some() {
        return Ok(());
    }
    let rule = rules::head_rule(keys.architecture);
    if rule.key_is_value && key_len != value_len {
        let expected = format!("the key length {key_len} in architecture {}", keys.architecture);
        return Err(GgufError::range(keys.key("attention.value_length"), value_len, expected));
    }
    if rule.value_is_rope && n_rot != value_len {
        let expected = format!("the head size {value_len} in architecture {}", keys.architecture);
        return Err(GgufError::range(key, n_rot, expected));
    }
    Ok(())
}

fn check_rope_scaling(keys: &Keys<'_>) -> Result<(), GgufError> {
    let key = keys.key("rope.scaling.type");
    match keys.metadata.get_str(&key)? {
        None | Some("none" | "linear" | "yarn" | "longrope") => Ok(()),
        Some(other) => {
            let found = format!("{:?}", other.chars().take(40).collect::<String>());
            Err(GgufError::range(key, found, "none, linear, yarn or longrope"))
        }
    }
}

/// Which layers have a sliding window. A window without a layer that uses it trips an assertion.
fn read_window_pattern(
    keys: &Keys<'_>,
    window: Option<u32>,
    n_layers: u32,
    n_nextn: u32,
) -> Result<Vec<bool>, GgufError> {
    let none = vec![false; n_layers as usize];
    let Some((default_period, dense_first)) = rules::window_period(keys.architecture) else { return Ok(none) };
    if window.is_none() && keys.architecture != "llama4" {
        return Ok(none);
    }
    let key = keys.key("attention.sliding_window_pattern");
    let mut pattern = match keys.metadata.get(&key) {
        Some(Value::Array(array)) => {
            let wrong = || GgufError::range(&key, "an array of another type", "an array of bools");
            array.to_words().ok_or_else(wrong)?.iter().map(|&word| word != 0).collect()
        }
        _ => {
            let period = keys.u32("attention.sliding_window_pattern")?.unwrap_or(default_period);
            (0..n_layers).map(|layer| is_windowed(layer, period, dense_first)).collect::<Vec<_>>()
        }
    };
    pattern.resize(n_layers as usize, false);
    pattern[(n_layers - n_nextn) as usize..].fill(false);
    match pattern.contains(&true) || window.is_none() {
        true => Ok(pattern),
        false => Err(GgufError::range(key, "without any layer", "a pattern that gives some layer the sliding window")),
    }
}

fn is_windowed(layer: u32, period: u32, dense_first: bool) -> bool {
    match period {
        0 => true,
        _ if dense_first => !layer.is_multiple_of(period),
        _ => layer % period < period - 1,
    }
}
