//! From what was heard to tokens: greedy, sampled or by beam search, for several recordings at once.

use candle_core::{Result, Tensor};

use super::cache::{Cache, Heard};
use super::model::Network;
use super::rules::{Rules, log_sum_exp};
use super::vocabulary::Vocabulary;

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Search {
    /// The likeliest.
    Greedy,
    /// The likeliest text that a search over this many beams finds.
    Beam(usize),
    /// The best of several texts that are drawn.
    Sampled {
        /// Flattens (above 1) or sharpens the distribution.
        temperature: f32,
        /// Texts to draw.
        best_of: usize,
        /// Of the draws.
        seed: u64,
    },
}

impl Search {
    fn n_texts(&self) -> usize {
        match *self {
            Self::Greedy => 1,
            Self::Beam(n) => n.max(1),
            Self::Sampled { best_of, .. } => best_of.max(1),
        }
    }
}

/// One recording to write down.
#[derive(Debug, Clone)]
pub struct Job {
    /// Number of the recording in [`Heard`].
    pub recording: usize,
    /// Tokens before the first that is chosen.
    pub prompt: Vec<u32>,
    /// Place of the start token in the prompt.
    pub start: usize,
    /// Whether the text has timestamps.
    pub timestamps: bool,
    /// How tokens are chosen.
    pub search: Search,
}

/// One text.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// Tokens behind the prompt, without the end.
    pub tokens: Vec<u32>,
    /// Σ ln p of the tokens, the end included where it was reached.
    pub sum_logprob: f64,
    /// Probability that there is no speech.
    pub no_speech_prob: f32,
}

impl Written {
    /// ln p of a token on average, the end counted.
    pub fn avg_logprob(&self) -> f64 {
        self.sum_logprob / (self.tokens.len() + 1) as f64
    }
}

/// Writes recordings down.
pub struct Decoding<'a> {
    /// The network.
    pub network: &'a Network,
    /// Its words.
    pub vocabulary: &'a Vocabulary,
    /// What may be said.
    pub rules: &'a Rules,
    /// What was heard.
    pub heard: &'a Heard,
    /// Whether the client of a recording is gone.
    pub cancelled: &'a dyn Fn(usize) -> bool,
}

/// A text that is being written.
#[derive(Clone)]
struct Draft {
    job: usize,
    tokens: Vec<u32>,
    sum_logprob: f64,
}

/// The texts of one job.
struct Progress {
    search: Search,
    random: fastrand::Rng,
    no_speech_prob: f32,
    finished: Vec<Written>,
}

impl Decoding<'_> {
    /// The best text of each job, in order. Jobs of cancelled recordings get an empty one.
    ///
    /// # Errors
    /// When the device fails.
    pub fn run(&self, jobs: &[Job]) -> Result<Vec<Written>> {
        let Some(mut step) = self.prompts(jobs)? else { return Ok(Vec::new()) };
        let mut progress: Vec<Progress> = jobs.iter().zip(&step.no_speech).map(progress_of).collect();
        let n_most = self.network.dims.n_text / 2;
        for n_said in 0..n_most {
            step = step.without(|draft| (self.cancelled)(jobs[draft.job].recording))?;
            let next = self.choose(jobs, &mut progress, &mut step);
            if next.is_empty() {
                break;
            }
            let last = n_said + 1 == n_most || next.iter().any(|next| self.is_full(jobs, &next.draft));
            if last {
                next.into_iter().for_each(|next| finish(&mut progress, next.draft));
                break;
            }
            step = self.step(next, step, jobs)?;
        }
        Ok(progress.into_iter().map(best).collect())
    }

    fn is_full(&self, jobs: &[Job], draft: &Draft) -> bool {
        jobs[draft.job].prompt.len() + draft.tokens.len() >= self.network.dims.n_text
    }

    /// Computes the prompts and makes the first texts of each job.
    fn prompts(&self, jobs: &[Job]) -> Result<Option<Step>> {
        if jobs.is_empty() {
            return Ok(None);
        }
        let heard = self.heard.for_texts(jobs.iter().map(|job| job.recording).collect());
        let prompts: Vec<Vec<u32>> = jobs.iter().map(|job| job.prompt.clone()).collect();
        let mut cache = self.network.cache(jobs.len());
        let rows = self.network.write(&prompts, &mut cache, &heard)?;
        cache.advance(&prompts.iter().map(Vec::len).collect::<Vec<_>>());
        let row = |item: usize, at: usize| rows.narrow(0, item, 1)?.narrow(1, at, 1)?.flatten_to(1);
        let mut wanted = Vec::new();
        for (item, job) in jobs.iter().enumerate() {
            wanted.push(row(item, job.prompt.len() - 1)?);
        }
        for (item, job) in jobs.iter().enumerate() {
            wanted.push(row(item, job.start)?);
        }
        let mut logits = self.network.logits(&Tensor::cat(&wanted, 0)?)?;
        let starts = logits.split_off(jobs.len());
        let no_speech = self.vocabulary.no_speech() as usize;
        let no_speech = starts.iter().map(|row| (row[no_speech] - log_sum_exp(row)).exp()).collect();
        let drafts = (0..jobs.len()).map(|job| Draft { job, tokens: Vec::new(), sum_logprob: 0.0 }).collect();
        Ok(Some(Step { drafts, logits, cache, no_speech }))
    }

    /// What each job goes on with.
    fn choose(&self, jobs: &[Job], progress: &mut [Progress], step: &mut Step) -> Vec<Next> {
        for (draft, logits) in step.drafts.iter().zip(&mut step.logits) {
            self.rules.apply(logits, &draft.tokens, jobs[draft.job].timestamps);
        }
        let mut chosen = Vec::new();
        let mut first = 0;
        while first < step.drafts.len() {
            let job = step.drafts[first].job;
            let n = step.drafts[first..].iter().take_while(|draft| draft.job == job).count();
            let (drafts, logits) = (&step.drafts[first..first + n], &step.logits[first..first + n]);
            let progress = &mut progress[job];
            let next = match progress.search {
                Search::Beam(n_beams) => self.beams(drafts, logits, n_beams, progress),
                Search::Greedy => self.draws(drafts, logits, None, progress),
                Search::Sampled { temperature, .. } => self.draws(drafts, logits, Some(temperature), progress),
            };
            chosen.extend(next.into_iter().map(|next| Next { row: first + next.row, ..next }));
            first += n;
        }
        chosen
    }

    /// Each text goes on with one token.
    fn draws(
        &self,
        drafts: &[Draft],
        logits: &[Vec<f32>],
        temperature: Option<f32>,
        progress: &mut Progress,
    ) -> Vec<Next> {
        // The first step has one row for all texts of a job.
        let n_texts = if drafts[0].tokens.is_empty() { progress.search.n_texts() } else { drafts.len() };
        let mut next = Vec::new();
        for text in 0..n_texts {
            let row = text.min(drafts.len() - 1);
            let token = match temperature {
                Some(temperature) => draw(&logits[row], temperature, &mut progress.random),
                None => likeliest(&logits[row]),
            };
            let logprob = logits[row][token as usize] - log_sum_exp(&logits[row]);
            let draft = drafts[row].with(token, logprob);
            if token == self.vocabulary.end() {
                progress.finish(draft);
            } else {
                next.push(Next { row, draft });
            }
        }
        next
    }

    /// The likeliest continuations of all beams together. A job is done when it has as many finished texts as beams.
    fn beams(&self, drafts: &[Draft], logits: &[Vec<f32>], n_beams: usize, progress: &mut Progress) -> Vec<Next> {
        let mut candidates = Vec::new();
        for (row, (draft, logits)) in drafts.iter().zip(logits).enumerate() {
            let total = log_sum_exp(logits);
            for (token, logit) in likeliest_of(logits, n_beams + 1) {
                candidates.push((row, token, draft.sum_logprob + f64::from(logit - total)));
            }
        }
        candidates.sort_by(|a, b| b.2.total_cmp(&a.2));
        let mut next: Vec<Next> = Vec::new();
        for (row, token, sum_logprob) in candidates {
            let mut draft = Draft { sum_logprob, ..drafts[row].clone() };
            draft.tokens.push(token);
            if token == self.vocabulary.end() {
                progress.finish(draft);
            } else {
                next.push(Next { row, draft });
            }
            if next.len() == n_beams {
                break;
            }
        }
        if progress.finished.len() >= n_beams { Vec::new() } else { next }
    }

    /// Computes the chosen tokens.
    fn step(&self, next: Vec<Next>, step: Step, jobs: &[Job]) -> Result<Step> {
        let Step { cache, no_speech, drafts: old, .. } = step;
        let rows: Vec<usize> = next.iter().map(|next| next.row).collect();
        let same = rows.len() == old.len() && rows.iter().enumerate().all(|(at, &row)| at == row);
        let mut cache = if same { cache } else { cache.select(&rows)? };
        let drafts: Vec<Draft> = next.into_iter().map(|next| next.draft).collect();
        let tokens: Vec<Vec<u32>> = drafts.iter().filter_map(|draft| Some(vec![*draft.tokens.last()?])).collect();
        let heard = self.heard.for_texts(drafts.iter().map(|draft| jobs[draft.job].recording).collect());
        let rows = self.network.write(&tokens, &mut cache, &heard)?;
        cache.advance(&vec![1; drafts.len()]);
        let logits = self.network.logits(&rows.squeeze(1)?)?;
        Ok(Step { drafts, logits, cache, no_speech })
    }
}

/// A text and the row of the last step that it continues.
struct Next {
    row: usize,
    draft: Draft,
}

/// The texts that are being written and the logits behind each.
struct Step {
    /// Texts of one job follow each other.
    drafts: Vec<Draft>,
    logits: Vec<Vec<f32>>,
    cache: Cache,
    /// `[n_jobs]`
    no_speech: Vec<f32>,
}

impl Step {
    fn without(mut self, gone: impl Fn(&Draft) -> bool) -> Result<Self> {
        let kept: Vec<usize> = (0..self.drafts.len()).filter(|&at| !gone(&self.drafts[at])).collect();
        if kept.is_empty() {
            self.drafts.clear();
            self.logits.clear();
        }
        if kept.len() < self.drafts.len() {
            self.cache = self.cache.select(&kept)?;
            self.drafts = kept.iter().map(|&at| self.drafts[at].clone()).collect();
            self.logits = kept.iter().map(|&at| std::mem::take(&mut self.logits[at])).collect();
        }
        Ok(self)
    }
}

impl Draft {
    fn with(&self, token: u32, logprob: f32) -> Self {
        let mut draft = self.clone();
        draft.tokens.push(token);
        draft.sum_logprob += f64::from(logprob);
        draft
    }
}

impl Progress {
    fn finish(&mut self, mut draft: Draft) {
        // Only a text that reached its end comes here with the end as its last token; others are finished by `finish`.
        draft.tokens.pop();
        let Draft { tokens, sum_logprob, .. } = draft;
        self.finished.push(Written { tokens, sum_logprob, no_speech_prob: self.no_speech_prob });
    }
}

fn progress_of((job, &no_speech_prob): (&Job, &f32)) -> Progress {
    let seed = match job.search {
        Search::Sampled { seed, .. } => seed,
        Search::Greedy | Search::Beam(_) => 0,
    };
    let random = fastrand::Rng::with_seed(seed);
    Progress { search: job.search, random, no_speech_prob, finished: Vec::new() }
}

/// Ends a text that may not become longer.
fn finish(progress: &mut [Progress], draft: Draft) {
    let progress = &mut progress[draft.job];
    let Draft { tokens, sum_logprob, .. } = draft;
    progress.finished.push(Written { tokens, sum_logprob, no_speech_prob: progress.no_speech_prob });
}

/// The text whose tokens are the likeliest on average.
fn best(progress: Progress) -> Written {
    let nothing = Written { no_speech_prob: progress.no_speech_prob, ..Written::default() };
    let best = progress.finished.into_iter().max_by(|a, b| a.avg_logprob().total_cmp(&b.avg_logprob()));
    best.unwrap_or(nothing)
}

fn likeliest(logits: &[f32]) -> u32 {
    ingle_kernels::argmax(logits).map_or(0, |peak| peak.index as u32)
}

/// The `n` largest logits and their tokens.
fn likeliest_of(logits: &[f32], n: usize) -> Vec<(u32, f32)> {
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(n + 1);
    for (token, &logit) in logits.iter().enumerate() {
        if best.len() == n && logit <= best[n - 1].1 || logit == f32::NEG_INFINITY {
            continue;
        }
        let at = best.partition_point(|&(_, other)| other >= logit);
        best.insert(at, (token as u32, logit));
        best.truncate(n);
    }
    best
}

/// Draws a token with probability ∝ e^(logit / temperature).
fn draw(logits: &[f32], temperature: f32, random: &mut fastrand::Rng) -> u32 {
    let largest = super::rules::largest(logits);
    let weight = |logit: &f32| f64::from(((logit - largest) / temperature).exp());
    let total: f64 = logits.iter().map(weight).sum();
    let mut left = random.f64() * total;
    for (token, logit) in logits.iter().enumerate() {
        left -= weight(logit);
        if left < 0.0 {
            return token as u32;
        }
    }
    likeliest(logits)
}
