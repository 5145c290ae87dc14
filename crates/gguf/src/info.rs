//! What a validated file is: [`ModelInfo`].

use std::fmt;

use crate::hparams::Hparams;
use crate::vocab::Vocabulary;
use crate::{
    Array, AttentionShape, FileType, GgufError, Header, Metadata, SpecialTokens, TensorInfo, Value, layout, memory,
    projector, relaid, rules, types,
};

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A model that llama.cpp can load.
    Model,
    /// The vision or audio encoder of a multimodal model (`mmproj`).
    Projector,
    /// A LoRA adapter.
    Adapter,
    /// A later shard of a split model: tensors without a description.
    Shard,
    /// Something else in GGUF form: an importance matrix, a control vector, the weights of another engine.
    Other,
}

/// The place of a file in a split model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// From 0.
    pub index: u32,
    /// How many shards there are.
    pub count: u32,
}

/// Something doubtful with which the model still runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// llama.cpp ignores this special token.
    SpecialTokenOutOfRange {
        /// The key in the file.
        key: String,
        /// Its value.
        id: u32,
        /// Size of the vocabulary.
        n_tokens: u32,
    },
    /// A SentencePiece vocabulary that cannot spell all bytes: llama.cpp throws when it meets one.
    MissingByteTokens {
        /// How many bytes have no token.
        missing: u32,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpecialTokenOutOfRange { key, id, n_tokens } => {
                write!(f, "{key} is {id} in a vocabulary of {n_tokens} tokens and is ignored")
            }
            Self::MissingByteTokens { missing } => {
                write!(f, "{missing} of 256 bytes have no token: some texts cannot be tokenized")
            }
        }
    }
}

/// Facts about a validated file. For other kinds than [`FileKind::Model`] the numbers of the model are zero and its
/// lists empty; names, sizes and types are filled for all.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// What kind of file it is.
    pub kind: FileKind,
    /// `general.architecture`; absent in a later shard.
    pub architecture: Option<String>,
    /// `general.name`.
    pub name: Option<String>,
    /// `general.size_label`, such as `270M`.
    pub size_label: Option<String>,
    /// `general.license`.
    pub license: Option<String>,
    /// `general.file_type`.
    pub file_type: Option<FileType>,
    /// Blocks, those for multi-token prediction included.
    pub n_layers: u32,
    /// Trailing blocks for multi-token prediction.
    pub n_layers_nextn: u32,
    /// Width of the hidden state.
    pub n_embd: u32,
    /// Attention heads per layer.
    pub n_head: Vec<u32>,
    /// Key-value heads per layer, 0 where a layer has none.
    pub n_head_kv: Vec<u32>,
    /// Width of the feed-forward part per layer.
    pub n_ff: Vec<u32>,
    /// Elements of one key head.
    pub head_dim_k: u32,
    /// Elements of one value head.
    pub head_dim_v: u32,
    /// Tokens that the model was trained to look at.
    pub n_ctx_train: u32,
    /// Tokens in the vocabulary.
    pub n_vocab: u32,
    /// Experts per layer, 0 in a dense model.
    pub n_expert: u32,
    /// Experts that each token visits at most.
    pub n_expert_used: u32,
    /// How far layers with a sliding window look back, in tokens.
    pub sliding_window: Option<u32>,
    /// What each layer keeps per token and per sequence.
    pub attention: Vec<AttentionShape>,
    /// All layers are recurrent: a cached sequence cannot be cut.
    pub is_recurrent: bool,
    /// Some layers are recurrent.
    pub is_hybrid: bool,
    /// Tokens see only earlier ones. False in encoders, which need the whole input in one physical batch.
    pub is_causal: bool,
    /// Pooling of embeddings: 0 none, 1 mean, 2 first token, 3 last token, 4 rank.
    pub pooling_type: Option<u32>,
    /// It has the weights that turn a text into a score: it can rerank.
    pub has_classifier: bool,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
    /// `tokenizer.chat_template.<name>`, by name.
    pub named_templates: Vec<(String, String)>,
    /// Special tokens inside the vocabulary.
    pub special_tokens: SpecialTokens,
    /// Whether the file says to put bos before every text; `None` leaves it to the tokenizer.
    pub add_bos: Option<bool>,
    /// Whether the file says to put eos behind every text.
    pub add_eos: Option<bool>,
    /// Elements of all tensors.
    pub n_params: u64,
    /// Bytes of all tensors.
    pub weight_bytes: u64,
    /// Bytes of the tensors of each block.
    pub layer_bytes: Vec<u64>,
    /// Of those, bytes of the tensors of experts, 0 in dense blocks.
    pub expert_bytes: Vec<u64>,
    /// Bytes of the tensors that turn the last hidden state into logits; 0 if the embedding table is used for it.
    pub output_bytes: u64,
    /// Bytes of all other tensors, the embedding table above all. Layers, output and these are `weight_bytes`.
    pub input_bytes: u64,
    /// The embedding table is used as output matrix as well.
    pub is_output_tied: bool,
    /// What matrices take on top of `weight_bytes` where they get a second form. The file does not say: 0 until somebody who
    /// knows the processor puts [`MatrixForms::extra_bytes`](crate::MatrixForms::extra_bytes) here.
    pub relaid_bytes: u64,
    /// The place in a split model.
    pub split: Option<Split>,
    /// Doubts that do not stop the model from running.
    pub warnings: Vec<Warning>,
}

/// Validates a split model: `first` is shard 0, `others` the following ones in order. Sizes are totals of all shards.
///
/// # Errors
/// [`GgufError::Shards`] if the shards do not belong together, otherwise as [`Header::validate`].
pub fn validate_shards(first: &Header, others: &[Header]) -> Result<ModelInfo, GgufError> {
    let count = read_split(&first.metadata)?.map_or(1, |split| split.count);
    if others.len() as u64 + 1 != u64::from(count) {
        let problem = format!("the first names {count} shards and {} were given", others.len() + 1);
        return Err(GgufError::Shards { problem });
    }
    for (index, header) in (0_u32..).zip(std::iter::once(first).chain(others)) {
        match read_split(&header.metadata)? {
            Some(split) if split != (Split { index, count }) => {
                let problem =
                    format!("shard {} of {} stands where {index} of {count} should", split.index, split.count);
                return Err(GgufError::Shards { problem });
            }
            None if count > 1 => {
                return Err(GgufError::Shards { problem: format!("number {index} is not a shard") });
            }
            Some(_) | None => {}
        }
    }
    ModelInfo::of(first, others)
}

impl ModelInfo {
    /// Elements of the weights that each token goes through: all tensors of the layers, of the experts those it visits.
    /// From their bytes, so an estimate.
    pub fn layer_params(&self) -> u64 {
        let layer = |(layer_bytes, expert_bytes): (&u64, &u64)| {
            let visited = expert_bytes / u64::from(self.n_expert.max(1)) * u64::from(self.n_expert_used.max(1));
            layer_bytes.saturating_sub(*expert_bytes) + visited.min(*expert_bytes)
        };
        let n_bytes: u64 = self.layer_bytes.iter().zip(&self.expert_bytes).map(layer).sum();
        let bytes_per_param = self.weight_bytes as f64 / self.n_params.max(1) as f64;
        (n_bytes as f64 / bytes_per_param.max(0.01)) as u64
    }

    /// Validates `header` and sums up tensors over it and the `others`.
    pub(crate) fn of(header: &Header, others: &[Header]) -> Result<Self, GgufError> {
        others.iter().chain([header]).try_for_each(layout::check)?;
        let split = read_split(&header.metadata)?;
        let mut info = Self::describe(&header.metadata, split)?;
        match info.kind {
            FileKind::Model => info.read_model(header)?,
            FileKind::Projector => {
                projector::check(header)?;
                types::check_weights(&header.tensors)?;
            }
            FileKind::Adapter => check_adapter(header)?,
            FileKind::Shard | FileKind::Other => {}
        }
        for shard in others.iter().chain([header]) {
            if info.kind == FileKind::Model {
                layout::check_mappable(shard)?;
                types::check_model(&shard.tensors)?;
            }
            shard.tensors.iter().for_each(|tensor| info.count(tensor));
            info.has_classifier |= has_classifier(&info, shard);
        }
        info.is_output_tied = info.kind == FileKind::Model && info.output_bytes == 0;
        Ok(info)
    }

    /// What the general keys say.
    fn describe(metadata: &Metadata, split: Option<Split>) -> Result<Self, GgufError> {
        let text = |key: &str| metadata.get_str(key).map(|text| text.map(str::to_owned));
        // Labels that are no strings are worth no refusal.
        let label = |key: &str| text(key).ok().flatten();
        Ok(Self {
            kind: read_kind(metadata, split)?,
            architecture: text("general.architecture")?,
            name: label("general.name"),
            size_label: label("general.size_label"),
            license: label("general.license"),
            file_type: metadata.get_u32("general.file_type")?.map(FileType),
            n_layers: 0,
            n_layers_nextn: 0,
            n_embd: 0,
            n_head: Vec::new(),
            n_head_kv: Vec::new(),
            n_ff: Vec::new(),
            head_dim_k: 0,
            head_dim_v: 0,
            n_ctx_train: 0,
            n_vocab: 0,
            n_expert: 0,
            n_expert_used: 0,
            sliding_window: None,
            attention: Vec::new(),
            is_recurrent: false,
            is_hybrid: false,
            is_causal: true,
            pooling_type: None,
            has_classifier: false,
            chat_template: text("tokenizer.chat_template")?,
            named_templates: named_templates(metadata),
            special_tokens: SpecialTokens::default(),
            add_bos: None,
            add_eos: None,
            n_params: 0,
            weight_bytes: 0,
            layer_bytes: Vec::new(),
            expert_bytes: Vec::new(),
            output_bytes: 0,
            input_bytes: 0,
            is_output_tied: false,
            relaid_bytes: 0,
            split,
            warnings: Vec::new(),
        })
    }

    /// Hyper-parameters and vocabulary.
    fn read_model(&mut self, header: &Header) -> Result<(), GgufError> {
        let architecture = self.architecture.clone().unwrap_or_default();
        let vocabulary = Vocabulary::read(&header.metadata, &architecture)?;
        let hparams = Hparams::read(header, &architecture)?;
        self.attention = memory::shapes(header, &architecture, &hparams)?;
        self.is_recurrent = rules::is_recurrent(&architecture);
        self.is_hybrid = rules::is_hybrid(&architecture);
        self.n_layers = hparams.n_layers;
        self.n_layers_nextn = hparams.n_layers_nextn;
        self.n_embd = hparams.n_embd;
        self.n_head = hparams.n_head;
        self.n_head_kv = hparams.n_head_kv;
        self.n_ff = hparams.n_ff;
        self.head_dim_k = hparams.head_dim_k;
        self.head_dim_v = hparams.head_dim_v;
        self.n_ctx_train = hparams.n_ctx_train;
        self.n_expert = hparams.n_expert;
        self.n_expert_used = hparams.n_expert_used;
        self.sliding_window = hparams.sliding_window.filter(|_| hparams.is_windowed.contains(&true));
        self.is_causal = hparams.is_causal;
        self.pooling_type = hparams.pooling_type;
        self.layer_bytes = vec![0; hparams.n_layers as usize];
        self.expert_bytes = vec![0; hparams.n_layers as usize];
        self.n_vocab = vocabulary.n_tokens;
        self.special_tokens = vocabulary.special;
        self.add_bos = vocabulary.add_bos;
        self.add_eos = vocabulary.add_eos;
        self.warnings = vocabulary.warnings;
        Ok(())
    }

    fn count(&mut self, tensor: &TensorInfo) {
        self.n_params = self.n_params.saturating_add(tensor.n_elements());
        self.weight_bytes = self.weight_bytes.saturating_add(tensor.n_bytes);
        if let Some(bytes) = layer_of(&tensor.name).and_then(|layer| self.expert_bytes.get_mut(layer))
            && relaid::is_expert(&tensor.name)
        {
            *bytes = bytes.saturating_add(tensor.n_bytes);
        }
        let layer = layer_of(&tensor.name).and_then(|layer| self.layer_bytes.get_mut(layer));
        let place = match layer {
            Some(layer) => layer,
            None if tensor.name.starts_with("output.") => &mut self.output_bytes,
            None => &mut self.input_bytes,
        };
        *place = place.saturating_add(tensor.n_bytes);
    }
}

/// Does this shard hold what turns a hidden state into a score? In all architectures but one it is the last layer of the
/// classifier; the one has a single layer under the name of the first.
fn has_classifier(info: &ModelInfo, shard: &Header) -> bool {
    let name = match info.architecture.as_deref() {
        Some("jina-bert-v2") => "cls.weight",
        Some(_) | None => "cls.output.weight",
    };
    shard.tensors.iter().any(|tensor| tensor.name == name)
}

/// The block that a tensor such as `blk.3.attn_q.weight` belongs to.
fn layer_of(name: &str) -> Option<usize> {
    let name = name.strip_prefix("enc.").or_else(|| name.strip_prefix("dec.")).unwrap_or(name);
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

fn read_kind(metadata: &Metadata, split: Option<Split>) -> Result<FileKind, GgufError> {
    let key = "general.architecture";
    let general_type = metadata.get_str("general.type")?;
    let Some(architecture) = metadata.get_str(key)? else {
        return match split {
            Some(Split { index, .. }) if index > 0 => Ok(FileKind::Shard),
            _ => Err(GgufError::MissingKey { key: key.into() }),
        };
    };
    let is_language_model = metadata.get(&format!("{architecture}.block_count")).is_some()
        || metadata.get("tokenizer.ggml.model").is_some();
    Ok(match general_type {
        Some("adapter") => FileKind::Adapter,
        Some("mmproj") => FileKind::Projector,
        _ if architecture == "clip" => FileKind::Projector,
        _ if matches!(split, Some(Split { index, .. }) if index > 0) => FileKind::Shard,
        Some("model") | None if is_language_model => FileKind::Model,
        _ => FileKind::Other,
    })
}

/// llama.cpp asserts that `split.no` is a u16 when it opens later shards.
fn read_split(metadata: &Metadata) -> Result<Option<Split>, GgufError> {
    let number = |key: &str| match metadata.get(key) {
        None => Ok(None),
        Some(Value::U16(number)) => Ok(Some(u32::from(*number))),
        Some(other) => Err(GgufError::WrongType { key: key.into(), found: other.value_type(), expected: "u16" }),
    };
    let (index, count) = (number("split.no")?.unwrap_or(0), number("split.count")?.unwrap_or(0));
    if count == 0 && index == 0 {
        return Ok(None);
    }
    match index < count {
        true => Ok(Some(Split { index, count })),
        false => Err(GgufError::range("split.no", index, format!("less than split.count, which is {count}"))),
    }
}

fn named_templates(metadata: &Metadata) -> Vec<(String, String)> {
    let template = |(key, value): (&str, &Value)| match (key.strip_prefix("tokenizer.chat_template."), value) {
        (Some(name), Value::Str(text)) => Some((name.to_owned(), text.clone())),
        _ => None,
    };
    metadata.iter().filter_map(template).collect()
}

/// The adapter loader asserts the types of these keys.
fn check_adapter(header: &Header) -> Result<(), GgufError> {
    let metadata = &header.metadata;
    let key = "adapter.type";
    if metadata.get_str(key)?.is_none() {
        return Err(GgufError::MissingKey { key: key.into() });
    }
    match metadata.get("adapter.lora.alpha") {
        None => {}
        Some(Value::F32(alpha)) if alpha.is_finite() => {}
        Some(Value::F32(alpha)) => return Err(GgufError::range("adapter.lora.alpha", alpha, "finite")),
        Some(other) => {
            let (key, found) = ("adapter.lora.alpha".into(), other.value_type());
            return Err(GgufError::WrongType { key, found, expected: "f32" });
        }
    }
    if let Some(Value::Array(Array::Str(_))) = metadata.get("adapter.alora.invocation_tokens") {
        return Err(GgufError::range("adapter.alora.invocation_tokens", "an array of strings", "an array of u32"));
    }
    types::check_weights(&header.tensors)
}
