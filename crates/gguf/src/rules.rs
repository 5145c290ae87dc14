//! What single architectures of llama.cpp demand, as data: the assertions and divisions in its `src/models/`.

/// What must hold between the head sizes of an architecture when its graph is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadRule {
    /// Keys and values have the same size.
    pub key_is_value: bool,
    /// Values are rotated whole.
    pub value_is_rope: bool,
}

const KEY_VALUE_ROPE: &str = "apertus arcee arctic baichuan chameleon codeshell cogvlm cohere2moe dbrx deci deepseek \
    dots1 dream ernie4_5 ernie4_5-moe exaone falcon granite granite_swa graniteswitch grok grovemoe hunyuan-moe \
    hunyuan_vl hy_v3 internlm2 jais2 llada llada-moe llama llama4 maincoder mellum minimax-01 minimax-m2 mistral3 \
    nemotron olmo olmo2 olmoe orion paddleocr pangu-embedded plamo pockettts qwen2 qwen2moe qwen2vl qwen3 qwen3moe \
    qwen3vl qwen3vlmoe rnd1 seed_oss smallthinker smollm3 starcoder2 xverse";
const VALUE_ROPE: &str = "exaone-moe exaone4 talkie";
const KEY_VALUE: &str = "afmoe bailingmoe2 bert bitnet bloom chatglm clef cohere2 command-r dflash eagle3 eurobert \
    glm4 glm4moe gpt2 gptneox granitehybrid jais laguna minimax-m3 modern-bert mpt muse-glimmer nanbeige nemotron_h \
    nemotron_h_moe neo-bert openelm phi2 phi3 qwen qwen35 qwen35moe qwen3next qwen4exp refact spark2_5 stablelm \
    starcoder t5";

pub(crate) fn head_rule(architecture: &str) -> HeadRule {
    let is_in = |list: &str| list.split_whitespace().any(|name| name == architecture);
    HeadRule {
        key_is_value: is_in(KEY_VALUE_ROPE) || is_in(KEY_VALUE),
        value_is_rope: is_in(KEY_VALUE_ROPE) || is_in(VALUE_ROPE),
    }
}

/// Layers with a sliding window repeat with this period when the file does not say; the bool tells that the dense
/// layer comes first in each period instead of last.
pub(crate) fn window_period(architecture: &str) -> Option<(u32, bool)> {
    Some(match architecture {
        "afmoe" | "cohere2" | "exaone-moe" | "exaone4" | "llama4" | "mellum" | "muse-glimmer" | "olmo2" => (4, false),
        "gemma2" | "gpt-oss" => (2, false),
        "gemma3" | "gemma-embedding" => (6, false),
        "gemma3n" => (5, false),
        "plamo3" => (8, false),
        "modern-bert" => (3, true),
        "cohere2moe" | "laguna" | "smallthinker" => (4, true),
        _ => return None,
    })
}

/// Whether all layers keep a recurrent state and none has a KV cache.
pub(crate) fn is_recurrent(architecture: &str) -> bool {
    matches!(architecture, "mamba" | "mamba2" | "rwkv6" | "rwkv6qwen2" | "rwkv7" | "arwkv7")
}

/// Whether some layers keep a recurrent state and others a KV cache.
pub(crate) fn is_hybrid(architecture: &str) -> bool {
    const HYBRID: &str = "jamba falcon-h1 plamo2 granitehybrid lfm2 lfm2moe nemotron_h nemotron_h_moe qwen3next \
        kimi-linear bailingmoe3 kimi-k3 glm5-next qwen35 qwen35moe qwen4exp deepseek4 minimax-01";
    HYBRID.split_whitespace().any(|name| name == architecture)
}

/// Every how many layers one has attention, in hybrids that say so by an interval.
pub(crate) fn attention_interval(architecture: &str) -> Option<u32> {
    match architecture {
        "qwen3next" | "qwen35" | "qwen35moe" | "qwen4exp" => Some(4),
        "minimax-01" => Some(8),
        _ => None,
    }
}

/// Divisors and sizes that must not be zero wherever they occur.
pub(crate) const POSITIVE_KEYS: [&str; 16] = [
    "attention.key_length",
    "attention.value_length",
    "attention.key_length_swa",
    "attention.value_length_swa",
    "full_attention_interval",
    "wkv.head_size",
    "ssm.conv_kernel",
    "ssm.inner_size",
    "ssm.state_size",
    "ssm.time_step_rank",
    "shortconv.l_cache",
    "kda.head_dim",
    "num_loops",
    "hrm.layers_per_stack",
    "hrm.h_cycles",
    "hrm.l_cycles",
];

/// A condition on one key of one architecture.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Demand {
    /// Present and at least this.
    AtLeast(u32),
    /// Present and exactly this.
    Exactly(u32),
}

/// Assertions on single keys: architectures, key, demand.
pub(crate) const DEMANDS: [(&[&str], &str, Demand); 12] = [
    (&["bailingmoe2", "grovemoe", "llada-moe", "smallthinker", "lfm2moe"], "expert_count", Demand::AtLeast(1)),
    (&["grovemoe"], "experts_per_group", Demand::AtLeast(1)),
    (&["minimax-m3"], "attention.indexer.block_size", Demand::AtLeast(1)),
    (&["glm5-next"], "attention.indexer.kpool", Demand::AtLeast(2)),
    (&["glm5-next"], "hyper_connection.count", Demand::Exactly(4)),
    (&["dflash"], "attention.output_group_count", Demand::AtLeast(1)),
    (&["dflash"], "attention.sliding_window", Demand::AtLeast(1)),
    (&["rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"], "wkv.head_size", Demand::AtLeast(1)),
    (&["mamba", "mamba2", "jamba", "granitehybrid", "falcon-h1", "plamo2"], "ssm.inner_size", Demand::AtLeast(1)),
    (&["mamba2", "granitehybrid", "falcon-h1", "plamo2"], "ssm.time_step_rank", Demand::AtLeast(1)),
    (&["lfm2", "lfm2moe"], "shortconv.l_cache", Demand::AtLeast(1)),
    (&["hrm_text"], "hrm.layers_per_stack", Demand::AtLeast(1)),
];

/// Architectures whose state-space part must be twice as wide as the embedding.
pub(crate) const DOUBLE_INNER: [&str; 2] = ["jamba", "granitehybrid"];
