//! Loading: from options to running models that hear and speak.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use ingle_engine::{
    Backend, BatchConfig, BatchModel, BatchThread, Engine, EngineError, Hardware, HeardWindow, HearingInfo,
    HearingOptions, HearingWindow, Interrupt, LoadOptions, MemoryEstimate, SpeakInfo, SpeakModel, SpokenText,
    TranscribeModel, VoiceActivity, VoiceChunk, VoiceInfo, VoiceModel,
};

use super::Precision;
use super::kokoro::{self, Kokoro};
use super::piper::Voice;
use super::vad::{FRAME_LEN, Vad};
use super::voice::VoiceError;
use super::whisper::{Dims, ModelFiles, Placement, WINDOW_LEN, WeightsError, Whisper};
use crate::device::{self, Place, may_use_gpu};

/// Calls that may wait unless the options say otherwise.
const DEFAULT_MAX_WAITING: usize = 256;
/// Windows of several clients that are written down together.
const WINDOWS_AT_ONCE: usize = 8;
/// How often a step looks whether anybody still waits for it.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(20);
/// Sound that may wait for a voice activity detector, in seconds: an hour.
const MAX_WAITING_SECS: usize = 3600;
/// Bytes of text that may wait for a voice.
const MAX_WAITING_BYTES: usize = 1 << 20;

/// Loads Whisper models, Piper's and Kokoro's voices and Silero's voice activity detector; the files tell which.
#[derive(Debug, Clone, Copy, Default)]
pub struct SpeechBackend;

enum Kind {
    Whisper,
    Piper,
    Kokoro,
    Vad,
}

fn kind(path: &Path) -> Kind {
    let is_onnx = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx"));
    let mut settings = path.as_os_str().to_owned();
    settings.push(".json");
    let is_vad = || path.file_name().is_some_and(|name| name.to_string_lossy().contains("vad"));
    match is_onnx {
        true if PathBuf::from(settings).is_file() => Kind::Piper,
        // The detector is known by its name.
        true if is_vad() => Kind::Vad,
        _ if kokoro::is_kokoro(path) && !ModelFiles::are_in(path) => Kind::Kokoro,
        false => Kind::Whisper,
        // A voice without its settings is told so by its loader.
        true => Kind::Piper,
    }
}

impl Backend for SpeechBackend {
    fn name(&self) -> &str {
        "whisper"
    }

    fn other_names(&self) -> &[&str] {
        &["faster-whisper", "whisperx", "piper", "kokoro", "kokoros", "silero-vad"]
    }

    fn uses_gpus(&self, options: &LoadOptions) -> bool {
        match kind(&options.path) {
            Kind::Whisper => may_use_gpu(options),
            Kind::Piper | Kind::Kokoro | Kind::Vad => false,
        }
    }

    fn poison(&self) -> Option<String> {
        device::poison()
    }

    fn estimate(&self, options: &LoadOptions) -> Result<MemoryEstimate, EngineError> {
        match kind(&options.path) {
            Kind::Whisper => {
                let mut files = ModelFiles::open(&options.path).map_err(|error| load_error(options, error))?;
                let dims = Dims::of(&mut files).map_err(|error| load_error(options, error))?;
                let on_cpu = whisper_memory(&dims, options);
                // Which of both it becomes shows when the GPU is opened.
                let places = [Some(on_cpu), may_use_gpu(options).then(|| gpu_memory(&dims, options))];
                Ok(places.into_iter().flatten().max_by_key(MemoryEstimate::total_bytes).unwrap_or(on_cpu))
            }
            Kind::Kokoro => kokoro_memory(options),
            Kind::Piper | Kind::Vad => onnx_memory(options),
        }
    }

    fn load(&self, options: &LoadOptions, hardware: &Hardware) -> Result<Engine, EngineError> {
        let engine = match kind(&options.path) {
            Kind::Whisper => return load_whisper(options, hardware),
            Kind::Piper => load_piper(options, hardware)?,
            Kind::Kokoro => load_kokoro(options, hardware)?,
            Kind::Vad => load_vad(options)?,
        };
        // Their networks run on rten, which computes on the CPU only.
        Ok(Engine { placement: "CPU".into(), ..engine })
    }
}

fn load_error(options: &LoadOptions, reason: impl std::fmt::Display) -> EngineError {
    EngineError::Load { path: options.path.display().to_string(), reason: reason.to_string() }
}

fn n_threads(options: &LoadOptions, hardware: &Hardware) -> usize {
    let _ = hardware;
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    options.threads.unwrap_or_else(cores).max(1)
}

/// Windows that are written down together.
fn n_windows(options: &LoadOptions) -> usize {
    options.parallel.unwrap_or(WINDOWS_AT_ONCE)
}

/// Texts that are written at once: each window as beams or, where those fail, as draws.
fn n_texts(options: &LoadOptions) -> u64 {
    let best_of = HearingOptions::default().best_of;
    n_windows(options) as u64 * options.speech.n_beams.unwrap_or(1).max(best_of) as u64
}

/// Weights as they are computed with, and what a full batch of windows needs beside them: each is written as several
/// texts at once, beams or, where those fail, draws, and each text may become as long as the model can write.
fn whisper_memory(dims: &Dims, options: &LoadOptions) -> MemoryEstimate {
    let (width, n_layers) = (dims.width as u64, dims.n_decoder_layers as u64);
    let (n_windows, n_texts) = (n_windows(options) as u64, n_texts(options));
    // Keys and values of a layer.
    let window = dims.n_audio as u64 * width * 2 * 4;
    let texts = n_texts * dims.n_text as u64 * width * 2 * 4;
    let encoder = dims.n_audio as u64 * width * 4 * 12;
    let embeddings = (dims.n_vocab as u64) * width * 4;
    let weights = dims.n_parameters() * if options.speech.is_int8 { 1 } else { 4 } + embeddings;
    MemoryEstimate {
        weight_bytes: weights,
        cache_bytes: (n_windows * window + texts) * n_layers,
        // One layer is held twice while texts change places; logits come as a tensor and as rows.
        compute_bytes: encoder + texts + n_texts * dims.n_vocab as u64 * 8,
    }
}

/// As [`whisper_memory`], in 16 bits. Attention is candle's own there: it copies the keys and values of each text and holds
/// all scores of a layer.
fn gpu_memory(dims: &Dims, options: &LoadOptions) -> MemoryEstimate {
    let (width, n_layers, n_audio) = (dims.width as u64, dims.n_decoder_layers as u64, dims.n_audio as u64);
    let (n_windows, n_texts) = (n_windows(options) as u64, n_texts(options));
    let window = n_audio * width * 2 * 2;
    let texts = n_texts * dims.n_text as u64 * width * 2 * 2;
    let encoder = n_audio * width * 2 * 12 + 3 * dims.n_heads as u64 * n_audio * n_audio * 2;
    let embeddings = dims.n_vocab as u64 * width;
    MemoryEstimate {
        weight_bytes: 2 * (dims.n_parameters() + embeddings),
        cache_bytes: (n_windows * window + texts) * n_layers,
        compute_bytes: encoder + texts + 2 * n_texts * window + n_texts * dims.n_vocab as u64 * 8,
    }
}

/// A graph keeps its weights, packed, and buffers of about half their size.
fn onnx_memory(options: &LoadOptions) -> Result<MemoryEstimate, EngineError> {
    let len = std::fs::metadata(&options.path).map_err(|error| load_error(options, error))?.len();
    Ok(MemoryEstimate { weight_bytes: len, cache_bytes: 0, compute_bytes: len + (64 << 20) })
}

/// As [`onnx_memory`] of the network, and the buffers of a vocoder, which makes 600 samples of each frame of 25 ms.
fn kokoro_memory(options: &LoadOptions) -> Result<MemoryEstimate, EngineError> {
    let network = kokoro::network_of(&options.path).unwrap_or_else(|| options.path.clone());
    let len = std::fs::metadata(network).map_err(|error| load_error(options, error))?.len();
    Ok(MemoryEstimate { weight_bytes: len, cache_bytes: 0, compute_bytes: len + (512 << 20) })
}

fn config(options: &LoadOptions, unit: &'static str, step_budget: usize, max_waiting_cost: usize) -> BatchConfig {
    BatchConfig {
        name: options.name.clone(),
        unit,
        step_budget,
        max_waiting: options.max_waiting.unwrap_or(DEFAULT_MAX_WAITING),
        max_waiting_cost,
    }
}

struct Listener {
    whisper: Whisper,
    place: Place,
    threads: rayon::ThreadPool,
}

impl BatchModel for Listener {
    type Request = HearingWindow;
    type Response = HeardWindow;

    fn run(&mut self, batch: &[HearingWindow], interrupt: &Interrupt<'_>) -> Result<Vec<HeardWindow>, EngineError> {
        let stop = AtomicBool::new(false);
        let (whisper, threads) = (&self.whisper, &self.threads);
        let found = std::thread::scope(|scope| {
            let (sender, ended) = mpsc::channel();
            let stop = &stop;
            let work = scope.spawn(move || {
                // Dropped at the end, also by a panic.
                let _sender = sender;
                threads.install(|| whisper.transcribe(batch, &|| stop.load(Ordering::Relaxed)))
            });
            // The pool's threads cannot ask the interrupt, so this one does while they compute.
            while ended.recv_timeout(INTERRUPT_INTERVAL) == Err::<(), _>(RecvTimeoutError::Timeout) {
                stop.fetch_or(interrupt.is_raised(), Ordering::Relaxed);
            }
            work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        found.map_err(|error| EngineError::Decode { reason: device::fault(&self.place.device, &error) })
    }
}

fn load_whisper(options: &LoadOptions, hardware: &Hardware) -> Result<Engine, EngineError> {
    let place = Place::choose(options, hardware);
    let is_on_cpu = place.device.is_cpu();
    if options.speech.is_int8 && !is_on_cpu {
        tracing::warn!(model = options.name, "weights of 8 bits are for the CPU: on the GPU it computes in 16");
    }
    let precision = if options.speech.is_int8 { Precision::Int8 } else { Precision::F32 };
    let placement = Placement { device: place.device.clone(), precision };
    let n_threads = n_threads(options, hardware);
    let threads = rayon::ThreadPoolBuilder::new().num_threads(n_threads).thread_name(|_| "whisper".into()).build();
    let threads = threads.map_err(|error| load_error(options, error))?;
    let n_beams = options.speech.n_beams.unwrap_or(1);
    let whisper = threads.install(|| {
        let whisper = Whisper::load(&options.path, &placement, n_beams)?;
        // On a GPU each thread has its own order of operations, and steps come from others than this one.
        placement.device.synchronize().map_err(WeightsError::Shapes)?;
        Ok::<_, WeightsError>(whisper)
    });
    let whisper = whisper.map_err(|error| place.load_error(options, &error))?;
    let info = HearingInfo {
        window_len: WINDOW_LEN,
        languages: whisper.languages(),
        is_multilingual: whisper.vocabulary().multilingual,
        architecture: "whisper".into(),
    };
    let memory = if is_on_cpu { whisper_memory(whisper.dims(), options) } else { gpu_memory(whisper.dims(), options) };
    let placement = place.describe("CPU");
    let most = options.max_waiting.unwrap_or(DEFAULT_MAX_WAITING);
    let config = config(options, "windows", n_windows(options), most);
    let thread = BatchThread::start(config, move |_| Ok(Listener { whisper, place, threads }))?;
    let transcribe = Some(TranscribeModel { thread, info: Arc::new(info) });
    let gpu_bytes = if is_on_cpu { 0 } else { memory.total_bytes() };
    Ok(Engine { transcribe, placement, memory, gpu_bytes, ..Engine::default() })
}

enum Speaker {
    Piper(Voice),
    Kokoro(Kokoro),
}

impl Speaker {
    fn speak(&self, text: &SpokenText, is_vain: &dyn Fn() -> bool) -> Result<Vec<f32>, VoiceError> {
        match self {
            Self::Piper(voice) => voice.speak(&text.text, text.speaker, text.speed, is_vain),
            Self::Kokoro(voice) => voice.speak(&text.text, text.speaker, text.speed, is_vain),
        }
    }
}

impl BatchModel for Speaker {
    type Request = SpokenText;
    type Response = Vec<f32>;

    fn run(&mut self, batch: &[SpokenText], interrupt: &Interrupt<'_>) -> Result<Vec<Vec<f32>>, EngineError> {
        let speak = |text: &SpokenText| {
            let is_vain = || interrupt.is_raised();
            if is_vain() {
                return Ok(Vec::new());
            }
            self.speak(text, &is_vain).map_err(|error| match error {
                VoiceError::Espeak(_) | VoiceError::Speaker { .. } => EngineError::Speak { reason: error.to_string() },
                error => EngineError::Decode { reason: error.to_string() },
            })
        };
        batch.iter().map(speak).collect()
    }
}

fn load_piper(options: &LoadOptions, hardware: &Hardware) -> Result<Engine, EngineError> {
    let voice = Voice::load(&options.path, n_threads(options, hardware)).map_err(|error| load_error(options, error))?;
    let info = SpeakInfo {
        sample_rate: voice.config().audio.sample_rate,
        speakers: voice.config().speakers(),
        language: voice.config().language.code.clone(),
        architecture: "piper".into(),
    };
    speaking(options, Speaker::Piper(voice), info, onnx_memory(options)?)
}

fn load_kokoro(options: &LoadOptions, hardware: &Hardware) -> Result<Engine, EngineError> {
    let voice =
        Kokoro::load(&options.path, n_threads(options, hardware)).map_err(|error| load_error(options, error))?;
    let info = SpeakInfo {
        sample_rate: voice.sample_rate(),
        speakers: voice.styles().iter().map(|style| style.name.clone()).collect(),
        // Each of its voices has a language.
        language: String::new(),
        architecture: "kokoro".into(),
    };
    speaking(options, Speaker::Kokoro(voice), info, kokoro_memory(options)?)
}

/// Sentences are spoken one after the other: a step is one of them, so that calls take turns.
fn speaking(
    options: &LoadOptions,
    speaker: Speaker,
    info: SpeakInfo,
    memory: MemoryEstimate,
) -> Result<Engine, EngineError> {
    let thread = BatchThread::start(config(options, "bytes", 1, MAX_WAITING_BYTES), move |_| Ok(speaker))?;
    Ok(Engine { speak: Some(SpeakModel { thread, info: Arc::new(info) }), memory, ..Engine::default() })
}

struct Detector(Vad);

impl BatchModel for Detector {
    type Request = VoiceChunk;
    type Response = VoiceActivity;

    fn run(&mut self, batch: &[VoiceChunk], _: &Interrupt<'_>) -> Result<Vec<VoiceActivity>, EngineError> {
        let listen = |chunk: &VoiceChunk| {
            let (probabilities, memory) = self.0.probabilities(&chunk.samples, &chunk.memory)?;
            Ok(VoiceActivity { probabilities, memory })
        };
        let heard: Result<_, super::vad::VadError> = batch.iter().map(listen).collect();
        heard.map_err(|error| EngineError::Decode { reason: error.to_string() })
    }
}

fn load_vad(options: &LoadOptions) -> Result<Engine, EngineError> {
    let vad = Vad::load(&options.path).map_err(|error| load_error(options, error))?;
    let thread = BatchThread::start(config(options, "seconds", 60, MAX_WAITING_SECS), move |_| Ok(Detector(vad)))?;
    let voice = VoiceModel { thread, info: VoiceInfo { frame_len: FRAME_LEN } };
    Ok(Engine { voice: Some(voice), memory: onnx_memory(options)?, ..Engine::default() })
}

#[cfg(test)]
mod tests {
    use ingle_engine::SpeechOptions;

    use super::*;

    /// Sizes of tiny.
    const TINY: Dims = Dims {
        n_mels: 80,
        n_audio: 1500,
        n_text: 448,
        width: 384,
        n_heads: 6,
        n_vocab: 51_865,
        n_encoder_layers: 4,
        n_decoder_layers: 4,
    };

    #[test]
    fn memory_counts_every_text_that_may_be_written_at_once() {
        let cache = |parallel, n_beams| {
            let speech = SpeechOptions { n_beams, ..SpeechOptions::default() };
            let options = LoadOptions { parallel, speech, ..LoadOptions::default() };
            whisper_memory(&TINY, &options).cache_bytes
        };
        let (window, text) = (1500 * 384 * 2 * 4 * 4, 448 * 384 * 2 * 4 * 4);
        // Draws are five, where beams are not more.
        assert_eq!(cache(None, None), 8 * (window + 5 * text));
        assert_eq!(cache(Some(1), Some(3)), window + 5 * text);
        assert_eq!(cache(Some(2), Some(10)), 2 * (window + 10 * text));
    }
}
