//! What a token under a GBNF grammar costs: our masks beside llama.cpp's sampler, over the same outputs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ingle::{Allowed, Compiled, GrammarEnvironment, GrammarSource, TokenId};
use ingle_engine::{Constraint, LoadOptions, Segment, Surround, Tokenizer};
use ingle_llama::{LlamaBackend, PeerVocabulary};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The model's file.
    #[arg(long)]
    file: PathBuf,
    /// Rows `{"name", "grammar", "outputs": [text]}`; the outputs are followed in order.
    #[arg(long)]
    rows: PathBuf,
    /// Tokens that llama.cpp's sampler is timed over for each grammar: it needs milliseconds for each.
    #[arg(long, default_value_t = 40)]
    peer_tokens: usize,
    /// Further outputs of each grammar: random walks, in which every allowed token is as likely as any other.
    #[arg(long, default_value_t = 0)]
    walks: usize,
    /// Tokens of a walk at most.
    #[arg(long, default_value_t = 64)]
    walk_tokens: usize,
}

/// Prints a table in microseconds a token. A mask is cold where it had to be found, warm where it was looked up; each is
/// timed with its application to a whole row of logits.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let load =
        LoadOptions { name: "m".into(), path: options.file.clone(), context_size: Some(256), ..LoadOptions::default() };
    let tokenizer = LlamaBackend.load_model(&load, &ingle_runtime::hardware::detect())?.tokenizer;
    let n_vocab = tokenizer.n_vocab();
    let peer = PeerVocabulary::open(&options.file);
    let environment = Arc::new(GrammarEnvironment::new(Arc::clone(&tokenizer) as Arc<dyn Tokenizer>)?);
    let logits = vec![0.5_f32; n_vocab];
    println!("{n_vocab} tokens in the vocabulary; µs a token");
    println!("| grammar | compile | tokens | warm p50 | p99 | cold | p50 | p99 | hits | llama.cpp p50 | p99 |");
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let mut all = Costs::default();
    for line in std::fs::read_to_string(&options.rows)?.lines() {
        let row: serde_json::Value = serde_json::from_str(line)?;
        let grammar = row["grammar"].as_str().unwrap_or_default();
        let texts = row["outputs"].as_array().into_iter().flatten().filter_map(|text| text.as_str());
        let outputs = texts.map(|text| tokenizer.tokenize(&[Segment::plain(text)], Surround::Nothing));
        let mut outputs = outputs.collect::<Result<Vec<Vec<TokenId>>, _>>()?;
        let begun = Instant::now();
        let compiled = Compiled::new(&environment, &GrammarSource::Gbnf(grammar.to_owned()))?;
        let compile = micros(begun);
        let mut costs = Costs::default();
        outputs.iter().for_each(|output| costs.follow(&compiled, output, &logits));
        for walk in 0..options.walks {
            let mut dice = Dice(walk as u64 + 1);
            outputs.push(costs.walk(&compiled, options.walk_tokens, &logits, &mut dice));
        }
        if let Some(peer) = &peer {
            costs.follow_peer(peer, grammar, &outputs, n_vocab, options.peer_tokens);
        }
        println!("| {} | {compile:.0} | {} |", row["name"].as_str().unwrap_or("?"), costs.columns());
        all.warm.extend(costs.warm);
        all.cold.extend(costs.cold);
        all.peer.extend(costs.peer);
    }
    println!("| all | | {} |", all.columns());
    Ok(())
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// Random numbers after splitmix64 (Steele, Lea and Flood 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of the tokens of a mask.
    fn pick(&mut self, mask: &[u32]) -> TokenId {
        let n_tokens: u32 = mask.iter().map(|word| word.count_ones()).sum();
        let mut nth = (self.roll() % u64::from(n_tokens.max(1))) as u32;
        for (idx, &word) in mask.iter().enumerate() {
            if nth < word.count_ones() {
                let bit = (0..32).filter(|bit| (word >> bit) & 1 == 1).nth(nth as usize).unwrap_or(0);
                return idx as u32 * 32 + bit;
            }
            nth -= word.count_ones();
        }
        0
    }
}

#[derive(Default)]
struct Costs {
    warm: Vec<f64>,
    cold: Vec<f64>,
    peer: Vec<f64>,
}

impl Costs {
    /// Times the mask before each token of an output.
    fn follow(&mut self, compiled: &Compiled, output: &[TokenId], logits: &[f32]) {
        let mut constraint = compiled.start();
        let mut maxima = ingle_kernels::BlockMaxima::default();
        for &token in output {
            self.step(compiled, constraint.as_mut(), logits, &mut maxima);
            if constraint.accept(token).is_err() {
                return;
            }
        }
    }

    /// Times the mask before each token of a random output, and returns that.
    fn walk(&mut self, compiled: &Compiled, most: usize, logits: &[f32], dice: &mut Dice) -> Vec<TokenId> {
        let mut constraint = compiled.start();
        let mut maxima = ingle_kernels::BlockMaxima::default();
        let mut output = Vec::new();
        while output.len() < most {
            let Some(Allowed::These(mask)) = self.step(compiled, constraint.as_mut(), logits, &mut maxima) else {
                break;
            };
            let token = dice.pick(&mask);
            // What ends an answer is allowed and cannot be taken.
            if constraint.accept(token).is_err() {
                break;
            }
            output.push(token);
        }
        output
    }

    fn step(
        &mut self,
        compiled: &Compiled,
        constraint: &mut dyn Constraint,
        logits: &[f32],
        maxima: &mut ingle_kernels::BlockMaxima,
    ) -> Option<Allowed> {
        let found = compiled.masks_found();
        let begun = Instant::now();
        let allowed = constraint.allowed();
        if let Ok(Allowed::These(mask)) = &allowed {
            // As sampling does; the logits are sound.
            let _ = maxima.scan_masked(logits, mask);
        }
        let cost = micros(begun);
        std::hint::black_box(&maxima);
        let times = if compiled.masks_found() > found { &mut self.cold } else { &mut self.warm };
        times.push(cost);
        allowed.ok()
    }

    /// The same with llama.cpp's sampler, over the first tokens.
    fn follow_peer(
        &mut self,
        peer: &PeerVocabulary,
        grammar: &str,
        outputs: &[Vec<TokenId>],
        n_vocab: usize,
        most: usize,
    ) {
        for output in outputs {
            let Some(mut sampler) = peer.grammar(grammar) else { return };
            for &token in output {
                if self.peer.len() >= most {
                    return;
                }
                sampler.fill(n_vocab);
                let begun = Instant::now();
                sampler.apply();
                self.peer.push(micros(begun));
                if !sampler.accept(token) {
                    break;
                }
            }
        }
    }

    fn columns(&mut self) -> String {
        let n_tokens = self.warm.len() + self.cold.len();
        let hits = 100.0 * self.warm.len() as f64 / n_tokens.max(1) as f64;
        let [warm, cold, peer] = [&mut self.warm, &mut self.cold, &mut self.peer].map(|values| {
            values.sort_by(f64::total_cmp);
            let at = |q: f64| values.get((values.len().saturating_sub(1) as f64 * q).round() as usize);
            [0.5, 0.99].map(|q| at(q).map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"))).join(" | ")
        });
        format!("{n_tokens} | {warm} | {} | {cold} | {hits:.1} % | {peer}", self.cold.len())
    }
}
