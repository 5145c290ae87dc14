//! A backend made of arithmetic: what every crate above is tested against.
//!
//! The fake vocabulary is the 256 bytes and a few control tokens. The decoder keeps the tokens of every sequence as a
//! real cache would, refuses what a real one refuses, and makes logits from a hash of what it holds: an answer comes
//! out right only if every cell it attends to is the right one and was computed behind the right ones. With a sliding
//! window it loses what has left the window whenever llama.cpp might: when cells are needed, for whatever sequence.

mod encoders;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use encoders::{FakeEmbed, FakeEncoder, FakeRerank, N_EMBD, embed_model, rerank_model, vector};

use crate::{
    Backend, BatchToken, CacheRefused, ContextOverflow, DecodeError, Decoder, DecoderLimits, Engine, EngineError,
    FaultReporter, GpuLayers, Hardware, LoadOptions, MemoryEstimate, PrefixSharing, RowWork, Segment, SeqId,
    SpecialTokens, Surround, Task, TextConfig, TextModel, TokenId, TokenKind, Tokenizer,
};

/// Beginning of sequence.
pub const BOS: TokenId = 256;
/// End of sequence; ends an answer.
pub const EOS: TokenId = 257;
/// `<|im_start|>`.
pub const IM_START: TokenId = 258;
/// `<|im_end|>`; ends an answer.
pub const IM_END: TokenId = 259;
/// A step with this token fails.
pub const POISON_STEP: TokenId = 260;
/// A step with this token panics.
pub const POISON_PANIC: TokenId = 261;
/// A row for this token is NaN.
pub const POISON_NAN: TokenId = 262;
/// A step with this token declares the engine dead, as an abort inside C++ does.
pub const POISON_ABORT: TokenId = 263;

const SPELLINGS: [&str; 8] =
    ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|step|>", "<|panic|>", "<|nan|>", "<|abort|>"];

/// Entries in the fake vocabulary.
pub const N_VOCAB: usize = 256 + SPELLINGS.len();

/// Bytes and a few control tokens.
#[derive(Debug)]
pub struct FakeTokenizer {
    bytes: [u8; 256],
}

impl Default for FakeTokenizer {
    fn default() -> Self {
        Self { bytes: std::array::from_fn(|idx| idx as u8) }
    }
}

impl Tokenizer for FakeTokenizer {
    fn n_vocab(&self) -> usize {
        N_VOCAB
    }

    fn token_bytes(&self, token: TokenId) -> &[u8] {
        let idx = token as usize;
        match idx.checked_sub(256) {
            None => &self.bytes[idx..=idx],
            Some(control) => SPELLINGS.get(control).map_or(&[], |text| text.as_bytes()),
        }
    }

    fn token_kind(&self, token: TokenId) -> TokenKind {
        match token as usize {
            0..256 => TokenKind::Normal,
            256..N_VOCAB => TokenKind::Control,
            _ => TokenKind::Unused,
        }
    }

    fn end_of_generation(&self) -> &[TokenId] {
        &[EOS, IM_END]
    }

    fn beginning_of_sequence(&self) -> Option<TokenId> {
        Some(BOS)
    }

    fn end_of_sequence(&self) -> Option<TokenId> {
        Some(EOS)
    }

    fn tokenize(&self, segments: &[Segment], surround: Surround) -> Result<Vec<TokenId>, EngineError> {
        let mut tokens = match surround {
            Surround::AsModelWants => vec![BOS],
            Surround::Nothing => Vec::new(),
        };
        for segment in segments {
            let mut rest = segment.text.as_str();
            while !rest.is_empty() {
                let control = SPELLINGS.iter().position(|spelling| rest.starts_with(spelling));
                match (segment.special, control) {
                    (SpecialTokens::Parse, Some(idx)) => {
                        tokens.push(256 + idx as TokenId);
                        rest = &rest[SPELLINGS[idx].len()..];
                    }
                    _ => {
                        let n = rest.chars().next().map_or(1, char::len_utf8);
                        tokens.extend(rest.as_bytes()[..n].iter().map(|&byte| TokenId::from(byte)));
                        rest = &rest[n..];
                    }
                }
            }
        }
        Ok(tokens)
    }
}

/// One computed token in the fake cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FakeCell {
    /// Which cell: shared ones have the same number.
    cell: u64,
    token: TokenId,
    /// Hash of what it attended to when it was computed.
    context: u64,
}

impl FakeCell {
    /// Bytes of a saved one.
    const N_BYTES: usize = 12;

    /// The hash of what comes before it and of this one. A cell that was computed in another context spoils it.
    fn hash_behind(&self, before: u64) -> u64 {
        let strangeness = (self.context ^ before).rotate_left(17);
        (before ^ u64::from(self.token) ^ strangeness).wrapping_mul(FNV_PRIME)
    }
}

/// Hash of nothing, and the factor for each token (FNV-1a).
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// What a fake model answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answers {
    /// Letters that depend on every token held; now and then an end.
    Hash,
    /// This text, then the end of the sequence, whatever the prompt.
    Text(String),
}

/// A decoder made of arithmetic.
#[derive(Debug)]
pub struct FakeDecoder {
    limits: DecoderLimits,
    answers: Answers,
    sequences: Vec<Vec<FakeCell>>,
    /// By sequence: position of the first row of the answer, and of the last row.
    rows_at: Vec<Option<(usize, usize)>>,
    /// By sequence: positions before this one have left the attention window.
    first_held: Vec<usize>,
    /// Of so many chances to overwrite cells behind the window one is taken; 0 takes none.
    overwrites: u64,
    n_chances: u64,
    next_cell: u64,
    /// Rows of the last step: entry index and logits.
    rows: Vec<(usize, Vec<f32>)>,
    faults: Option<FaultReporter>,
}

/// Limits of a small fake model.
pub fn limits() -> DecoderLimits {
    DecoderLimits {
        n_cells: 512,
        n_sequence_tokens: 512,
        n_seqs: 8,
        n_batch: 64,
        n_physical_batch: 64,
        n_vocab: N_VOCAB,
        sharing: PrefixSharing::Copy,
        sliding_window: None,
        can_shift: true,
    }
}

impl FakeDecoder {
    /// An empty cache.
    pub fn new(limits: DecoderLimits, answers: Answers) -> Self {
        let n_seqs = limits.n_seqs;
        Self {
            limits,
            answers,
            sequences: vec![Vec::new(); n_seqs],
            rows_at: vec![None; n_seqs],
            first_held: vec![0; n_seqs],
            overwrites: 1,
            n_chances: 0,
            next_cell: 0,
            rows: Vec::new(),
            faults: None,
        }
    }

    /// Where [`POISON_ABORT`] reports to.
    pub fn with_faults(mut self, faults: FaultReporter) -> Self {
        self.faults = Some(faults);
        self
    }

    /// From now on one of `n` chances to overwrite cells behind the window is taken; 0 takes none, 1 (at first) all.
    pub fn set_overwrites(&mut self, n: u64) {
        self.overwrites = n;
    }

    /// As llama.cpp looks for cells: those that one sequence alone holds and that its next token does not attend to may
    /// be overwritten, and with one of them the sequence loses all that come before it.
    fn overwrite(&mut self) {
        let Some(window) = self.limits.sliding_window else { return };
        let mut n_holders: BTreeMap<u64, usize> = BTreeMap::new();
        for (cells, &first_held) in self.sequences.iter().zip(&self.first_held) {
            for cell in cells.iter().skip(first_held) {
                *n_holders.entry(cell.cell).or_default() += 1;
            }
        }
        for (cells, first_held) in self.sequences.iter().zip(&mut self.first_held) {
            self.n_chances += 1;
            let hash = (self.n_chances ^ FNV_BASIS).wrapping_mul(FNV_PRIME);
            if self.overwrites == 0 || !(hash >> 20).is_multiple_of(self.overwrites) {
                continue;
            }
            let masked = *first_held..(cells.len() + 1).saturating_sub(window);
            let lost = masked.rev().find(|&position| n_holders[&cells[position].cell] == 1);
            *first_held = lost.map_or(*first_held, |position| position + 1);
        }
    }

    /// Can `seq` be continued behind its first `n_tokens`?
    fn holds(&self, seq: SeqId, n_tokens: usize) -> bool {
        let held = self.sequences[seq as usize].len();
        held >= n_tokens && self.limits.can_continue(n_tokens, self.first_held[seq as usize])
    }

    /// Appends a token to its sequence, which hashes to `before`; the hash behind it.
    fn compute(&mut self, entry: &BatchToken, before: u64) -> u64 {
        let seq = entry.seq as usize;
        assert_eq!(self.sequences[seq].len(), entry.position, "positions follow what is held");
        let first_held = self.first_held[seq];
        let attends = self.limits.can_continue(entry.position, first_held);
        assert!(attends, "position {} needs cells before {first_held}", entry.position);
        let cell = FakeCell { cell: self.next_cell, token: entry.token, context: before };
        self.next_cell += 1;
        self.sequences[seq].push(cell);
        cell.hash_behind(before)
    }

    fn n_cells_used(&self) -> usize {
        self.sequences.iter().flatten().map(|cell| cell.cell).collect::<BTreeSet<_>>().len()
    }

    /// The row of an entry; all that it attends to hashes to `hash`.
    fn logits(&mut self, entry: &BatchToken, hash: u64) -> Vec<f32> {
        let mut row = vec![0.0; N_VOCAB];
        if entry.token == POISON_NAN {
            row.fill(f32::NAN);
            return row;
        }
        let seq = entry.seq as usize;
        let start = match self.rows_at[seq] {
            // Forced tokens stand between two rows of an answer; a prompt is longer.
            Some((start, last)) if (last + 1..last + 40).contains(&entry.position) => start,
            _ => entry.position,
        };
        self.rows_at[seq] = Some((start, entry.position));
        let token = match &self.answers {
            Answers::Text(text) => text.as_bytes().get(entry.position - start).map_or(EOS, |&byte| TokenId::from(byte)),
            Answers::Hash => token_of(hash),
        };
        for (idx, logit) in row.iter_mut().enumerate() {
            *logit = -((idx as f32 - token as f32).abs() / 64.0);
        }
        row[256..].fill(-1000.0);
        row[token as usize] = 100.0;
        row
    }
}

/// The token that follows `tokens` in the fake model's mind (FNV-1a over them): what it says without any cache.
pub fn next_of(tokens: &[TokenId]) -> TokenId {
    token_of(tokens.iter().fold(FNV_BASIS, |hash, &token| (hash ^ u64::from(token)).wrapping_mul(FNV_PRIME)))
}

fn token_of(hash: u64) -> TokenId {
    match (hash >> 32) % 40 {
        39 => EOS,
        letter => TokenId::from(b'a') + (letter % 26) as TokenId,
    }
}

impl Decoder for FakeDecoder {
    fn limits(&self) -> &DecoderLimits {
        &self.limits
    }

    fn decode(&mut self, batch: &[BatchToken]) -> Result<(), DecodeError> {
        assert!(!batch.is_empty(), "an empty batch is never sent");
        assert!(batch.len() <= self.limits.n_batch, "a batch has a bound");
        for entry in batch {
            match (entry.token, &self.faults) {
                (POISON_STEP, _) => return Err(DecodeError::Failed { reason: "poisoned step".into() }),
                (POISON_PANIC, _) => panic!("poisoned decoder"),
                (POISON_ABORT, Some(faults)) => faults.report("poisoned abort"),
                _ => {}
            }
        }
        if self.n_cells_used() + batch.len() > self.limits.n_cells {
            return Err(DecodeError::NoRoom);
        }
        self.rows.clear();
        let mut hashes: BTreeMap<SeqId, u64> = BTreeMap::new();
        for (entry_idx, entry) in batch.iter().enumerate() {
            if entry_idx % self.limits.n_physical_batch == 0 {
                self.overwrite();
            }
            let held = &self.sequences[entry.seq as usize];
            let of_held = || held.iter().fold(FNV_BASIS, |hash, cell| cell.hash_behind(hash));
            let before = *hashes.entry(entry.seq).or_insert_with(of_held);
            let hash = self.compute(entry, before);
            hashes.insert(entry.seq, hash);
            if entry.wants_row {
                let row = self.logits(entry, hash);
                self.rows.push((entry_idx, row));
            }
        }
        Ok(())
    }

    fn row(&mut self, entry_idx: usize) -> Result<&[f32], EngineError> {
        let row = self.rows.iter().find(|(idx, _)| *idx == entry_idx);
        let missing = || EngineError::Decode { reason: format!("entry {entry_idx} asked for no row") };
        row.map(|(_, row)| row.as_slice()).ok_or_else(missing)
    }

    fn for_each_row(&mut self, entry_idxs: &[usize], work: &RowWork<'_>) {
        let rows: Vec<_> = entry_idxs.iter().map(|&entry_idx| self.row(entry_idx).map(<[f32]>::to_vec)).collect();
        let half = |odd: usize| {
            let rows = rows.iter().enumerate().filter(|(idx, _)| idx % 2 == odd);
            rows.for_each(|(idx, row)| work(idx, row.as_deref().map_err(Clone::clone)));
        };
        if rows.len() < 2 {
            return half(0);
        }
        std::thread::scope(|scope| {
            scope.spawn(|| half(1));
            half(0);
        });
    }

    fn copy_prefix(&mut self, from: SeqId, to: SeqId, n_tokens: usize) -> Result<(), CacheRefused> {
        if self.limits.sharing != PrefixSharing::Copy || !self.holds(from, n_tokens) {
            return Err(CacheRefused);
        }
        assert!(self.sequences[to as usize].is_empty(), "a copy goes into an empty sequence");
        self.sequences[to as usize] = self.sequences[from as usize][..n_tokens].to_vec();
        self.first_held[to as usize] = self.first_held[from as usize];
        Ok(())
    }

    fn cut(&mut self, seq: SeqId, n_tokens: usize) -> Result<(), CacheRefused> {
        let is_whole = n_tokens >= self.sequences[seq as usize].len();
        if (self.limits.sharing == PrefixSharing::TakeOverWhole && !is_whole) || !self.holds(seq, n_tokens) {
            return Err(CacheRefused);
        }
        self.sequences[seq as usize].truncate(n_tokens);
        // Wrong guesses go, and the answer goes on.
        let is_guessed = |&(start, last): &(usize, usize)| start < n_tokens && last < n_tokens + 32;
        self.rows_at[seq as usize] =
            self.rows_at[seq as usize].filter(is_guessed).map(|(start, _)| (start, n_tokens - 1));
        Ok(())
    }

    fn clear(&mut self, seq: SeqId) {
        self.sequences[seq as usize].clear();
        self.rows_at[seq as usize] = None;
        self.first_held[seq as usize] = 0;
    }

    fn shift(&mut self, seq: SeqId, keep: usize, discard: usize) -> Result<(), CacheRefused> {
        if !self.limits.can_shift || self.sequences[seq as usize].len() < keep + discard {
            return Err(CacheRefused);
        }
        self.sequences[seq as usize].drain(keep..keep + discard);
        let first_held = &mut self.first_held[seq as usize];
        *first_held = first_held.saturating_sub(discard).max(keep.min(*first_held));
        Ok(())
    }

    fn save(&mut self, seq: SeqId) -> Option<Vec<u8>> {
        let cells = &self.sequences[seq as usize];
        // As in llama.cpp, a state has what its last token attends to and no more.
        let attended = self.limits.sliding_window.map_or(0, |window| cells.len().saturating_sub(window));
        let mut state = (attended.max(self.first_held[seq as usize]) as u32).to_le_bytes().to_vec();
        for cell in cells {
            state.extend(cell.token.to_le_bytes());
            state.extend(cell.context.to_le_bytes());
        }
        Some(state)
    }

    fn restore(&mut self, to: SeqId, state: &[u8]) -> Result<(), CacheRefused> {
        let (first_held, cells) = state.split_first_chunk::<4>().ok_or(CacheRefused)?;
        if self.n_cells_used() + cells.len() / FakeCell::N_BYTES > self.limits.n_cells {
            return Err(CacheRefused);
        }
        assert!(self.sequences[to as usize].is_empty(), "a state goes into an empty sequence");
        self.overwrite();
        for bytes in cells.chunks_exact(FakeCell::N_BYTES) {
            let (token, context) = bytes.split_first_chunk::<4>().ok_or(CacheRefused)?;
            let context = u64::from_le_bytes(context.try_into().map_err(|_| CacheRefused)?);
            let cell = FakeCell { cell: self.next_cell, token: u32::from_le_bytes(*token), context };
            self.sequences[to as usize].push(cell);
            self.next_cell += 1;
        }
        self.first_held[to as usize] = u32::from_le_bytes(*first_held) as usize;
        Ok(())
    }

    fn first_held(&self, seq: SeqId) -> usize {
        self.first_held[seq as usize]
    }
}

/// Settings of a fake text model with `n_slots` slots.
pub fn config(n_slots: usize) -> TextConfig {
    TextConfig {
        speculation: crate::Speculation::default(),
        name: "fake".into(),
        n_slots,
        max_waiting: 256,
        most_saved_bytes: 1 << 20,
        overflow: ContextOverflow::Stop,
        chat_template: None,
        architecture: "fake".into(),
    }
}

/// Starts a fake text model with `n_slots` slots.
///
/// # Errors
/// As [`TextModel::start`].
pub fn start(limits: DecoderLimits, n_slots: usize, answers: Answers) -> Result<TextModel, EngineError> {
    TextModel::start(config(n_slots), Arc::new(FakeTokenizer::default()), move |faults| {
        Ok(FakeDecoder::new(limits, answers).with_faults(faults))
    })
}

/// A backend whose models are fake; it loads any path that exists.
#[derive(Debug, Clone)]
pub struct FakeBackend {
    /// What its models answer.
    pub answers: Answers,
    /// Requests that may wait.
    pub max_waiting: usize,
    /// Chat template of its models.
    pub chat_template: Option<String>,
}

impl Default for FakeBackend {
    fn default() -> Self {
        Self { answers: Answers::Hash, max_waiting: 256, chat_template: None }
    }
}

impl Backend for FakeBackend {
    fn name(&self) -> &str {
        "llama-cpp"
    }

    fn uses_gpus(&self, options: &LoadOptions) -> bool {
        options.gpu_layers != GpuLayers::Count(0)
    }

    fn estimate(&self, options: &LoadOptions) -> Result<MemoryEstimate, EngineError> {
        let metadata = std::fs::metadata(&options.path).map_err(|error| EngineError::Load {
            path: options.path.display().to_string(),
            reason: error.to_string(),
        })?;
        Ok(MemoryEstimate { weight_bytes: metadata.len(), ..MemoryEstimate::default() })
    }

    fn load(&self, options: &LoadOptions, hardware: &Hardware) -> Result<Engine, EngineError> {
        let memory = self.estimate(options)?;
        // All of it on the GPUs or nothing, as if it always fitted.
        let is_on_gpus = hardware.gpus().next().is_some() && options.gpu_layers != GpuLayers::Count(0);
        let max_waiting = options.max_waiting.unwrap_or(self.max_waiting);
        let does = |task| options.tasks.contains(&task);
        let is_text = options.tasks.is_empty() || does(Task::Text);
        Ok(Engine {
            text: is_text.then(|| self.text(options)).transpose()?,
            embed: does(Task::Embed).then(|| embed_model(options, max_waiting)).transpose()?,
            rerank: does(Task::Rerank).then(|| rerank_model(options, max_waiting)).transpose()?,
            placement: "arithmetic".into(),
            memory,
            gpu_bytes: if is_on_gpus { memory.total_bytes() } else { 0 },
            ..Engine::default()
        })
    }
}

impl FakeBackend {
    fn text(&self, options: &LoadOptions) -> Result<TextModel, EngineError> {
        let n_cells = options.context_size.unwrap_or(512);
        let limits = DecoderLimits { n_cells, n_sequence_tokens: n_cells, ..limits() };
        let config = TextConfig {
            speculation: options.speculation,
            name: options.name.clone(),
            n_slots: options.parallel.unwrap_or(4).min(limits.n_seqs),
            max_waiting: options.max_waiting.unwrap_or(self.max_waiting),
            most_saved_bytes: 1 << 20,
            overflow: options.overflow,
            chat_template: self.chat_template.clone(),
            architecture: "fake".into(),
        };
        let answers = self.answers.clone();
        TextModel::start(config, Arc::new(FakeTokenizer::default()), move |faults| {
            Ok(FakeDecoder::new(limits, answers).with_faults(faults))
        })
    }
}
