//! A whole model: from windows of sound to segments of text.

use std::path::Path;

use candle_core::Result;
use ingle_engine::{HeardSegment, HeardWindow, HearingOptions, HearingTask, HearingWindow, LANGUAGES};

use super::align::Alignment;
use super::cache::Heard;
use super::decode::{Decoding, Job, Search, Written};
use super::mel::{HOP, Mel, SAMPLE_RATE};
use super::model::{Dims, Network, Placement};
use super::rules::Rules;
use super::segments::{Span, compression_ratio, spans};
use super::vocabulary::{Task, Vocabulary};
use super::weights::{ModelFiles, WeightsError};
use super::words::give_words;

/// Bytes of a prompt's end that are looked at; more than fits is cut off in front.
const MAX_PROMPT_BYTES: usize = 8192;
/// Up to this temperature a text may be given to the next window as what came before.
const MAX_TRUSTED_TEMPERATURE: f32 = 0.5;
/// Frames behind the encoder in a second.
const FRAMES_PER_SEC: usize = SAMPLE_RATE / HOP / 2;

/// A loaded model.
pub struct Whisper {
    network: Network,
    vocabulary: Vocabulary,
    rules: Rules,
    mel: Mel,
    alignment_heads: Vec<(usize, usize)>,
    /// Beams at temperature 0 where a request does not say.
    n_beams: usize,
}

/// A window on its way through the temperatures.
struct Try<'a> {
    window: &'a HearingWindow,
    language: usize,
    /// Behind the tokens of what came before.
    start: Vec<u32>,
    /// What was written at each temperature so far.
    outcomes: Vec<Outcome>,
    n_tokens: usize,
}

struct Outcome {
    written: Written,
    temperature: f32,
    compression_ratio: f64,
    text: String,
}

impl Whisper {
    /// Reads the model at `path`. `n_beams` counts for requests that do not say.
    ///
    /// # Errors
    /// When a file is missing or not valid.
    pub fn load(path: &Path, placement: &Placement, n_beams: usize) -> std::result::Result<Self, WeightsError> {
        Self::from_files(ModelFiles::open(path)?, placement, n_beams)
    }

    /// As [`Whisper::load`], from files that are open.
    pub(super) fn from_files(
        mut files: ModelFiles,
        placement: &Placement,
        n_beams: usize,
    ) -> std::result::Result<Self, WeightsError> {
        let network = Network::load(&mut files, placement)?;
        let ModelFiles { vocabulary, mel_filters, alignment_heads, .. } = files;
        if vocabulary.n_vocab > network.dims.n_vocab {
            let reason = format!("{} words and {} embeddings of words", vocabulary.n_vocab, network.dims.n_vocab);
            return Err(WeightsError::Shapes(candle_core::Error::Msg(reason)));
        }
        let dims = network.dims;
        let usual = || super::usual_alignment_heads(&dims, vocabulary.multilingual);
        let exists = |&(layer, head): &(usize, usize)| layer < dims.n_decoder_layers && head < dims.n_heads;
        let alignment_heads = alignment_heads.unwrap_or_else(usual).into_iter().filter(exists).collect();
        let (mel, rules) = (Mel::new(dims.n_mels, mel_filters.as_deref()), Rules::new(&vocabulary));
        Ok(Self { network, vocabulary, rules, mel, alignment_heads, n_beams: n_beams.max(1) })
    }

    /// Its sizes.
    pub fn dims(&self) -> &Dims {
        &self.network.dims
    }

    /// Codes of the languages it knows.
    pub fn languages(&self) -> Vec<&'static str> {
        let n_languages = if self.vocabulary.multilingual { self.vocabulary.n_languages } else { 1 };
        (0..n_languages).map(|index| self.vocabulary.language_code(index)).collect()
    }

    /// Its words.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// Writes windows down; `cancelled` tells that nobody waits for them any more. Then the windows come back empty: an
    /// error would be taken for one of the windows' and each would be tried again by itself.
    ///
    /// # Errors
    /// When the device fails.
    pub fn transcribe(&self, windows: &[HearingWindow], cancelled: &dyn Fn() -> bool) -> Result<Vec<HeardWindow>> {
        let nothing = || Ok(windows.iter().map(|_| nothing_heard(0, 0)).collect());
        let Some(heard) = self.listen(windows, cancelled)? else { return nothing() };
        let languages = self.languages_of(windows, &heard)?;
        let mut tries: Vec<Try> =
            windows.iter().zip(languages).map(|(window, language)| self.first_try(window, language)).collect();
        let n_rounds = windows.iter().map(|window| window.options.temperatures.len().max(1)).max().unwrap_or(0);
        for round in 0..n_rounds {
            if cancelled() || !self.round(round, &mut tries, &heard, cancelled)? {
                break;
            }
        }
        let mut results = Vec::with_capacity(windows.len());
        for (index, found) in tries.into_iter().enumerate() {
            if cancelled() {
                return nothing();
            }
            results.push(self.result(found, &heard, index)?);
        }
        Ok(results)
    }

    fn listen(&self, windows: &[HearingWindow], cancelled: &dyn Fn() -> bool) -> Result<Option<Heard>> {
        let mut spectrograms: Vec<Vec<f32>> = Vec::with_capacity(windows.len());
        for window in windows {
            if cancelled() {
                return Ok(None);
            }
            spectrograms.push(self.mel.spectrogram(&window.samples));
        }
        self.network.listen(&spectrograms, cancelled)
    }

    fn first_try<'a>(&self, window: &'a HearingWindow, language: usize) -> Try<'a> {
        let task = match window.options.task {
            HearingTask::Transcribe => Task::Transcribe,
            HearingTask::Translate => Task::Translate,
        };
        let mut start = vec![self.vocabulary.start()];
        if self.vocabulary.multilingual {
            start.extend([self.vocabulary.language(language), self.vocabulary.task(task)]);
        }
        Try { window, language, start, outcomes: Vec::new(), n_tokens: 0 }
    }

    /// The language of each window, by its position in the list.
    fn languages_of(&self, windows: &[HearingWindow], heard: &Heard) -> Result<Vec<usize>> {
        let named = |window: &HearingWindow| {
            window.options.language.as_deref().and_then(|language| self.vocabulary.find_language(language))
        };
        let mut languages: Vec<Option<usize>> = windows.iter().map(named).collect();
        if !self.vocabulary.multilingual {
            languages.fill(Some(0));
        }
        let unknown: Vec<usize> = (0..windows.len()).filter(|&index| languages[index].is_none()).collect();
        if !unknown.is_empty() {
            for (index, language) in unknown.iter().zip(self.detect(heard, &unknown)?) {
                languages[*index] = Some(language);
            }
        }
        Ok(languages.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// The likeliest language of some recordings.
    fn detect(&self, heard: &Heard, recordings: &[usize]) -> Result<Vec<usize>> {
        let heard = heard.for_texts(recordings.to_vec());
        let mut cache = self.network.cache(recordings.len());
        let start = vec![vec![self.vocabulary.start()]; recordings.len()];
        let rows = self.network.write(&start, &mut cache, &heard)?.squeeze(1)?;
        let first = self.vocabulary.language(0) as usize;
        let likeliest = |row: &Vec<f32>| {
            let languages = &row[first..first + self.vocabulary.n_languages];
            ingle_kernels::argmax(languages).map_or(0, |peak| peak.index)
        };
        Ok(self.network.logits(&rows)?.iter().map(likeliest).collect())
    }

    /// Tries the `round`-th temperature for all windows that are not done. False: all are done.
    fn round(&self, round: usize, tries: &mut [Try], heard: &Heard, cancelled: &dyn Fn() -> bool) -> Result<bool> {
        let open: Vec<usize> = (0..tries.len()).filter(|&index| self.is_open(&tries[index], round)).collect();
        if open.is_empty() {
            return Ok(false);
        }
        let jobs: Vec<Job> = open.iter().map(|&index| self.job(&tries[index], index, round)).collect();
        let (network, vocabulary, rules) = (&self.network, &self.vocabulary, &self.rules);
        let cancelled = &|_: usize| cancelled();
        let written = Decoding { network, vocabulary, rules, heard, cancelled }.run(&jobs)?;
        for (index, written) in open.into_iter().zip(written) {
            let found = &mut tries[index];
            let text = self.vocabulary.text(&written.tokens).trim().to_owned();
            found.n_tokens += written.tokens.len();
            let temperature = temperature(&found.window.options, round);
            let compression_ratio = compression_ratio(&text);
            found.outcomes.push(Outcome { compression_ratio, written, temperature, text });
        }
        Ok(true)
    }

    fn is_open(&self, found: &Try, round: usize) -> bool {
        let options = &found.window.options;
        match found.outcomes.last() {
            None => true,
            Some(_) if round >= options.temperatures.len() => false,
            Some(outcome) => !is_silence(options, outcome) && !is_good(options, outcome),
        }
    }

    fn job(&self, found: &Try, recording: usize, round: usize) -> Job {
        let options = &found.window.options;
        let temperature = temperature(options, round);
        let search = if temperature > 0.0 {
            let seed = options.seed.wrapping_add(round as u64);
            Search::Sampled { temperature, best_of: options.best_of, seed }
        } else {
            match options.n_beams.unwrap_or(self.n_beams) {
                0 | 1 => Search::Greedy,
                n_beams => Search::Beam(n_beams),
            }
        };
        let mut prompt = self.before(found.window);
        let start = prompt.len();
        prompt.extend(&found.start);
        Job { recording, prompt, start, timestamps: true, search }
    }

    /// What was said before, as much of its end as fits.
    fn before(&self, window: &HearingWindow) -> Vec<u32> {
        let text = window.prompt.trim();
        let cut = text.len().saturating_sub(MAX_PROMPT_BYTES);
        let cut = (cut..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
        let mut tokens = match &text[cut..] {
            "" => Vec::new(),
            text => self.vocabulary.encode(&format!(" {text}")),
        };
        tokens.extend(window.previous.iter().filter(|&&token| (token as usize) < self.vocabulary.n_vocab));
        let n_most = (self.network.dims.n_text / 2).saturating_sub(1);
        let cut = tokens.len().saturating_sub(n_most);
        if tokens.is_empty() {
            return tokens;
        }
        std::iter::once(self.vocabulary.start_of_previous()).chain(tokens.drain(cut..)).collect()
    }

    fn result(&self, found: Try, heard: &Heard, index: usize) -> Result<HeardWindow> {
        let Try { window, language, start, mut outcomes, n_tokens } = found;
        let code = LANGUAGES[language].0;
        let mut result = nothing_heard(language, n_tokens);
        let Some(last) = outcomes.last() else { return Ok(result) };
        // What was written before is a help only where no temperature had to be raised far.
        let is_trusted = last.temperature <= MAX_TRUSTED_TEMPERATURE;
        let outcome = outcomes.swap_remove(chosen(&window.options, &outcomes));
        if is_silence(&window.options, &outcome) {
            return Ok(result);
        }
        let duration_secs = window.samples.len() as f64 / SAMPLE_RATE as f64;
        let cut = spans(&outcome.written.tokens, &self.vocabulary, duration_secs);
        result.resume_secs = cut.resume_secs.filter(|&secs| secs < duration_secs);
        result.is_trusted = is_trusted;
        result.segments = cut.spans.iter().filter_map(|span| self.segment(span, &outcome, duration_secs)).collect();
        if window.options.word_times && !result.segments.is_empty() {
            let n_frames = (window.samples.len() * FRAMES_PER_SEC).div_ceil(SAMPLE_RATE).min(self.network.dims.n_audio);
            let heard = heard.only(index)?;
            let (network, vocabulary, heads) = (&self.network, &self.vocabulary, &self.alignment_heads[..]);
            let alignment = Alignment { network, vocabulary, heads, heard: &heard, n_frames };
            let end = self.vocabulary.end();
            let text: Vec<u32> = result
                .segments
                .iter()
                .flat_map(|segment| &segment.tokens)
                .copied()
                .filter(|&token| token < end)
                .collect();
            let aligned = alignment.words(&start, &text, code)?;
            give_words(&mut result.segments, aligned, end, window.last_speech_secs);
            let last = result.segments.iter().rev().find_map(|segment| segment.words.last()).map(|word| word.end_secs);
            result.resume_secs = result.resume_secs.map(|secs| last.filter(|&last| last > 0.0).unwrap_or(secs));
        }
        Ok(result)
    }

    fn segment(&self, span: &Span, outcome: &Outcome, duration_secs: f64) -> Option<HeardSegment> {
        let text = self.vocabulary.text(&span.tokens);
        // A segment without text or time says nothing.
        if text.trim().is_empty() || span.start_secs >= span.end_secs || span.start_secs >= duration_secs {
            return None;
        }
        Some(HeardSegment {
            start_secs: span.start_secs,
            end_secs: span.end_secs.min(duration_secs),
            text,
            tokens: span.tokens.clone(),
            words: Vec::new(),
            temperature: outcome.temperature,
            avg_logprob: outcome.written.avg_logprob(),
            compression_ratio: outcome.compression_ratio,
            no_speech_prob: f64::from(outcome.written.no_speech_prob),
        })
    }
}

/// A window in which nothing was said.
fn nothing_heard(language: usize, n_tokens: usize) -> HeardWindow {
    let (language, language_name) = LANGUAGES[language];
    HeardWindow { language, language_name, segments: Vec::new(), resume_secs: None, is_trusted: false, n_tokens }
}

/// Which of the texts of a window counts: the last where it will do. Where all temperatures failed, the likeliest of
/// those that do not repeat themselves, or of all where all do.
fn chosen(options: &HearingOptions, outcomes: &[Outcome]) -> usize {
    let last = outcomes.len() - 1;
    if is_good(options, &outcomes[last]) || is_silence(options, &outcomes[last]) {
        return last;
    }
    let repeats = |at: &usize| outcomes[*at].compression_ratio > options.max_compression;
    let logprob = |at: &usize| outcomes[*at].written.avg_logprob();
    // The first of equals, as the temperatures rise.
    let likeliest = |among: &mut dyn DoubleEndedIterator<Item = usize>| {
        among.rev().max_by(|a, b| logprob(a).total_cmp(&logprob(b)))
    };
    let plain = likeliest(&mut (0..outcomes.len()).filter(|at| !repeats(at)));
    plain.or_else(|| likeliest(&mut (0..outcomes.len()))).unwrap_or(last)
}

fn temperature(options: &HearingOptions, round: usize) -> f32 {
    options.temperatures.get(round).copied().unwrap_or(0.0)
}

fn is_good(options: &HearingOptions, outcome: &Outcome) -> bool {
    outcome.compression_ratio <= options.max_compression && outcome.written.avg_logprob() >= options.min_avg_logprob
}

fn is_silence(options: &HearingOptions, outcome: &Outcome) -> bool {
    outcome.text.is_empty()
        || f64::from(outcome.written.no_speech_prob) > options.max_no_speech_prob
            && outcome.written.avg_logprob() < options.min_avg_logprob
}

#[cfg(test)]
mod tests;
