//! What guesses bring where it is known beforehand how many of them are right: a script gives every next token, at the
//! real cost of a model. With copies from the prompt they should pay, on free text they must not cost.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ingle_engine::sampling::SamplingParams;
use ingle_engine::{
    BatchToken, CacheRefused, DecodeError, Decoder, DecoderLimits, EndOfGeneration, EngineError, GenerationEvent,
    GenerationRequest, LoadOptions, PrefixReuse, SeqId, Speculation, TextModel, TokenId,
};
use ingle_llama::{LlamaBackend, LlamaDecoder};

use crate::common::{Random, quantile};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The model's file.
    #[arg(long)]
    file: PathBuf,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Pairs of answers, with and without guesses in turn; which one goes first alternates.
    #[arg(long, default_value_t = 10)]
    pairs: usize,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 512)]
    prompt: usize,
    /// Tokens of the answer.
    #[arg(long, default_value_t = 256)]
    answer: usize,
    /// Tokens of each piece that the answer copies from the prompt…
    #[arg(long, default_value_t = 48)]
    copied: usize,
    /// …and of its own in front of each.
    #[arg(long, default_value_t = 8)]
    own: usize,
}

/// Token ids of prompts and answers: those of bytes and control tokens are below them in every vocabulary here.
const FIRST_ID: usize = 1000;

/// The prompt and the answer behind it.
type Script = Arc<Mutex<Vec<TokenId>>>;

/// A decoder whose rows say what the script says.
struct Scripted {
    inner: LlamaDecoder,
    script: Script,
    /// Positions of the entries of the last step.
    positions: Vec<usize>,
    row: Vec<f32>,
}

impl Decoder for Scripted {
    fn limits(&self) -> &DecoderLimits {
        self.inner.limits()
    }

    fn decode(&mut self, batch: &[BatchToken]) -> Result<(), DecodeError> {
        self.positions.clear();
        self.positions.extend(batch.iter().map(|entry| entry.position));
        self.inner.decode(batch)
    }

    fn row(&mut self, entry_idx: usize) -> Result<&[f32], EngineError> {
        self.row.clear();
        self.row.extend_from_slice(self.inner.row(entry_idx)?);
        let script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&next) = script.get(self.positions[entry_idx] + 1) {
            self.row[next as usize] = f32::MAX;
        }
        Ok(&self.row)
    }

    fn copy_prefix(&mut self, from: SeqId, to: SeqId, n_tokens: usize) -> Result<(), CacheRefused> {
        self.inner.copy_prefix(from, to, n_tokens)
    }

    fn cut(&mut self, seq: SeqId, n_tokens: usize) -> Result<(), CacheRefused> {
        self.inner.cut(seq, n_tokens)
    }

    fn clear(&mut self, seq: SeqId) {
        self.inner.clear(seq);
    }

    fn shift(&mut self, seq: SeqId, keep: usize, discard: usize) -> Result<(), CacheRefused> {
        self.inner.shift(seq, keep, discard)
    }

    fn save(&mut self, seq: SeqId) -> Option<Vec<u8>> {
        self.inner.save(seq)
    }

    fn restore(&mut self, to: SeqId, state: &[u8]) -> Result<(), CacheRefused> {
        self.inner.restore(to, state)
    }

    fn first_held(&self, seq: SeqId) -> usize {
        self.inner.first_held(seq)
    }
}

/// A model that guesses, or does not.
fn open(options: &Options, speculation: Speculation, script: &Script) -> anyhow::Result<TextModel> {
    let load = LoadOptions {
        name: format!("{speculation:?}"),
        path: options.file.clone(),
        context_size: Some((options.prompt + options.answer).next_multiple_of(256) * 2),
        threads: Some(options.threads),
        speculation,
        ..LoadOptions::default()
    };
    let loaded = LlamaBackend.load_model(&load, &ingle_runtime::hardware::detect())?;
    let (mut inner, script) = (loaded.decoder, Arc::clone(script));
    let model = TextModel::start(loaded.config, loaded.tokenizer, move |faults| {
        inner.adopt(faults);
        Ok(Scripted { inner, script, positions: Vec::new(), row: Vec::new() })
    });
    Ok(model?)
}

/// Tokens a second behind the first one.
fn rate(model: &TextModel, options: &Options, script: &Script) -> anyhow::Result<f64> {
    let text = script.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let request = GenerationRequest {
        prompt: text[..options.prompt].to_vec(),
        sampling: SamplingParams::greedy(),
        max_tokens: Some(options.answer),
        end_of_generation: EndOfGeneration::Ignored,
        prefix_reuse: PrefixReuse::Never,
        ..GenerationRequest::default()
    };
    let (mut begun, mut said) = (None, Vec::new());
    for event in model.submit(request)? {
        if let GenerationEvent::Piece(piece) = event? {
            begun.get_or_insert_with(Instant::now);
            said.extend(piece.tokens.iter().map(|token| token.id));
        }
    }
    anyhow::ensure!(said == text[options.prompt..], "the answer is not the script");
    let begun = begun.ok_or_else(|| anyhow::anyhow!("the answer has no piece"))?;
    Ok((options.answer - 1) as f64 / begun.elapsed().as_secs_f64())
}

/// A prompt of tokens that do not repeat, and an answer with or without copies from it.
fn write(options: &Options, copies: bool, n_vocab: usize, random: &mut Random) -> Vec<TokenId> {
    let token = |random: &mut Random| (FIRST_ID + random.below(n_vocab - FIRST_ID - 256)) as TokenId;
    let mut text: Vec<TokenId> = (0..options.prompt).map(|_| token(random)).collect();
    let len = options.prompt + options.answer;
    while text.len() < len {
        text.extend((0..options.own).map(|_| token(random)));
        if copies {
            let from = random.below(options.prompt - options.copied);
            text.extend_from_within(from..from + options.copied);
        }
    }
    text.truncate(len);
    text
}

/// Prints the rates of each pair and the median ratio, for both kinds of text.
pub fn run(options: &Options) -> anyhow::Result<()> {
    anyhow::ensure!(options.prompt > options.copied && options.answer > 1, "the prompt is too short to copy from");
    let script = Script::default();
    let guessing = open(options, Speculation::PromptLookup, &script)?;
    let plain = open(options, Speculation::Off, &script)?;
    let n_vocab = guessing.limits().n_vocab;
    let mut random = Random(11);
    for copies in [true, false] {
        let mut ratios = Vec::new();
        let before = guessing.stats();
        // The first pair warms both up.
        for pair in 0..=options.pairs {
            *script.lock().unwrap_or_else(PoisonError::into_inner) = write(options, copies, n_vocab, &mut random);
            let mut with = if pair % 2 == 0 { rate(&guessing, options, &script)? } else { 0.0 };
            let without = rate(&plain, options, &script)?;
            if pair % 2 == 1 {
                with = rate(&guessing, options, &script)?;
            }
            if pair > 0 {
                println!("pair {pair}: {with:.1} tok/s with guesses, {without:.1} without: {:.3}", with / without);
                ratios.push(with / without);
            }
        }
        let after = guessing.stats();
        let (n_checked, n_right) = (after.guesses - before.guesses, after.guesses_right - before.guesses_right);
        let n_tokens = (options.answer * (options.pairs + 1)) as f64;
        println!(
            "{}: {:.3} (median; {:.3} to {:.3}), {n_checked} guesses checked and {n_right} right: {:.2} of the tokens",
            if copies { "copies from the prompt" } else { "free text" },
            quantile(&mut ratios.clone(), 0.5),
            quantile(&mut ratios.clone(), 0.0),
            quantile(&mut ratios, 1.0),
            n_right as f64 / n_tokens,
        );
    }
    Ok(())
}
