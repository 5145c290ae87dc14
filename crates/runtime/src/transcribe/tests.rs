//! Over a detector and a listener made of arithmetic.

use std::io::Cursor;
use std::sync::Arc;

use ingle_catalog::{Catalog, CatalogOptions};
use ingle_engine::{
    Backend, BatchConfig, BatchModel, BatchThread, Device, Engine, EngineError, Hardware, HeardWord, HearingInfo,
    Interrupt, LoadOptions, MemoryEstimate, TranscribeModel, VoiceActivity, VoiceChunk, VoiceInfo, VoiceModel,
};
use pollster::block_on;

use super::*;
use crate::{LoadDefaults, ResidencyOptions, RuntimeConfig};

#[test]
fn silence_and_clicks_are_no_speech() {
    let tone = |len: usize, peak: f32| -> Vec<f32> { (0..len).map(|n| peak * (n as f32 * 0.1).sin()).collect() };
    assert!(is_mute(&[]) && is_mute(&[0.5]) && is_mute(&[0.0; 480_000]));
    assert!(is_mute(&tone(16_000, 1e-5)) && is_mute(&tone(700, 0.5)));
    assert!(!is_mute(&tone(16_000, 1e-3)) && !is_mute(&tone(1600, 0.1)));
    let mut late = vec![0.0; 32_000];
    late.extend(tone(1600, 0.01));
    assert!(!is_mute(&late), "quiet at first");
}

/// Loud frames are speech.
struct Loud;

impl BatchModel for Loud {
    type Request = VoiceChunk;
    type Response = VoiceActivity;

    fn run(&mut self, batch: &[VoiceChunk], _: &Interrupt<'_>) -> Result<Vec<VoiceActivity>, EngineError> {
        let listen = |chunk: &VoiceChunk| VoiceActivity {
            probabilities: chunk
                .samples
                .chunks(512)
                .map(|frame| if frame[0].abs() > 0.2 { 0.9 } else { 0.1 })
                .collect(),
            memory: Vec::new(),
        };
        Ok(batch.iter().map(listen).collect())
    }
}

/// Writes one word for each stretch of the same loudness above 0.2 that a window has, `+` or `-` by its sign.
struct Signs;

impl BatchModel for Signs {
    type Request = HearingWindow;
    type Response = HeardWindow;

    fn run(&mut self, batch: &[HearingWindow], _: &Interrupt<'_>) -> Result<Vec<HeardWindow>, EngineError> {
        Ok(batch.iter().map(signs).collect())
    }
}

fn signs(window: &HearingWindow) -> HeardWindow {
    assert!(window.last_speech_secs <= 0.0, "{}", window.last_speech_secs);
    let mut segments: Vec<HeardSegment> = Vec::new();
    let samples = &window.samples;
    let mut at = 0;
    while at < samples.len() {
        let to = (at..samples.len()).find(|&to| samples[to] != samples[at]).unwrap_or(samples.len());
        if samples[at].abs() > 0.2 {
            let text = if samples[at] > 0.0 { " +" } else { " -" }.to_owned();
            let (start_secs, end_secs) = (secs(at as u64), secs(to as u64));
            let word = HeardWord { text: text.clone(), start_secs, end_secs, probability: 1.0 };
            segments.push(HeardSegment {
                start_secs,
                end_secs,
                text,
                tokens: vec![1],
                words: if window.options.word_times { vec![word] } else { Vec::new() },
                temperature: 0.0,
                avg_logprob: -0.1,
                compression_ratio: 1.0,
                no_speech_prob: 0.0,
            });
        }
        at = to;
    }
    let (language, language_name) = ("en", "english");
    HeardWindow { language, language_name, segments, resume_secs: None, is_trusted: true, n_tokens: 1 }
}

struct Ears;

impl Backend for Ears {
    fn name(&self) -> &str {
        "whisper"
    }

    fn other_names(&self) -> &[&str] {
        &["silero-vad"]
    }

    fn estimate(&self, _: &LoadOptions) -> Result<MemoryEstimate, EngineError> {
        Ok(MemoryEstimate::default())
    }

    fn load(&self, options: &LoadOptions, _: &Hardware) -> Result<Engine, EngineError> {
        let config = |unit| BatchConfig {
            name: options.name.clone(),
            unit,
            step_budget: 60,
            max_waiting: 16,
            max_waiting_cost: 3600,
        };
        if options.name == "vad" {
            let thread = BatchThread::start(config("seconds"), |_| Ok(Loud))?;
            return Ok(Engine {
                voice: Some(VoiceModel { thread, info: VoiceInfo { frame_len: 512 } }),
                ..Engine::default()
            });
        }
        let info = HearingInfo {
            window_len: 30 * HEARING_RATE,
            languages: vec!["en"],
            is_multilingual: false,
            architecture: "fake".into(),
        };
        let thread = BatchThread::start(config("windows"), |_| Ok(Signs))?;
        Ok(Engine { transcribe: Some(TranscribeModel { thread, info: Arc::new(info) }), ..Engine::default() })
    }
}

/// A runtime with a model that hears, and a detector or none.
fn runtime(has_detector: bool, options: &str) -> (Runtime, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ears.bin", "vad.onnx"] {
        std::fs::write(folder.path().join(name), [0; 10]).unwrap();
    }
    let ears = format!("name: ears\nbackend: whisper\noptions: [{options}]\nparameters: {{model: ears.bin}}\n");
    std::fs::write(folder.path().join("ears.yaml"), ears).unwrap();
    if has_detector {
        let yaml = "name: vad\nbackend: silero-vad\nparameters: {model: vad.onnx}\n";
        std::fs::write(folder.path().join("vad.yaml"), yaml).unwrap();
    }
    let hardware = || {
        let cpu = Device { name: "test".into(), total_bytes: 1 << 30, free_bytes: 1 << 30, ..Device::default() };
        Hardware { devices: vec![cpu], n_cores: 2, ..Hardware::default() }
    };
    let runtime = Runtime::new(RuntimeConfig {
        catalog: Catalog::open(folder.path(), CatalogOptions::default()).unwrap(),
        backends: vec![Arc::new(Ears)],
        hardware: Arc::new(hardware),
        defaults: LoadDefaults::default(),
        residency: ResidencyOptions::default(),
    });
    (runtime, folder)
}

fn call(samples: &[f32], voice_filter: VoiceFilter, word_times: bool) -> TranscribeCall {
    TranscribeCall {
        model: Some("ears".into()),
        audio: Box::new(Cursor::new(crate::media::wav(samples, HEARING_RATE as u32))),
        language: None,
        task: None,
        prompt: String::new(),
        temperature: None,
        n_beams: None,
        word_times,
        voice_filter,
    }
}

/// Seconds of levels, one behind the other.
fn levels(stretches: &[(f32, usize)]) -> Vec<f32> {
    stretches.iter().flat_map(|&(level, secs)| std::iter::repeat_n(level, secs * HEARING_RATE)).collect()
}

/// Text, start and end of a segment.
type Written = (String, f64, f64);

/// The segments that come, and how long the recording is.
fn written(runtime: &Runtime, call: TranscribeCall) -> Result<(Vec<Written>, f64), RuntimeError> {
    let mut transcription = block_on(runtime.transcribe(call))?;
    let mut found = Vec::new();
    while let Some(segment) = block_on(transcription.next())? {
        assert!(transcription.window_secs() <= segment.start_secs);
        assert!(transcription.done_secs() + 1e-9 >= segment.start_secs);
        found.push((segment.text, segment.start_secs, segment.end_secs));
    }
    Ok((found, transcription.done_secs()))
}

#[test]
fn times_are_those_of_the_recording_with_and_without_a_filter() {
    let (runtime, _folder) = runtime(true, "");
    // The noise between is below what the detector takes for speech, and the recording ends with it.
    let sound = levels(&[(0.01, 10), (0.5, 2), (0.01, 100), (-0.5, 3), (0.01, 5), (0.5, 1), (0.01, 50)]);
    let wanted = [(" +", 10.0, 12.0), (" -", 112.0, 115.0), (" +", 120.0, 121.0)];
    for (filter, word_times) in [
        (VoiceFilter::Configured, false),
        (VoiceFilter::Off, true),
        (VoiceFilter::Available, true),
        (VoiceFilter::On(VoiceFilterOptions::default()), true),
        (VoiceFilter::On(VoiceFilterOptions::default()), false),
    ] {
        let (found, duration_secs) = written(&runtime, call(&sound, filter, word_times)).unwrap();
        assert_eq!(duration_secs, 171.0, "{filter:?}");
        assert_eq!(found.len(), wanted.len(), "{filter:?}: {found:?}");
        for (found, wanted) in found.iter().zip(wanted) {
            let near = (found.1 - wanted.1).abs() < 1e-3 && (found.2 - wanted.2).abs() < 1e-3;
            assert!(found.0 == wanted.0 && near, "{filter:?}: {found:?} where {wanted:?} is");
        }
    }
}

#[test]
fn silence_alone_is_nothing_and_as_long_as_it_is() {
    let (runtime, _folder) = runtime(true, "'vad_filter:true', 'vad_model:vad'");
    let (found, duration_secs) =
        written(&runtime, call(&levels(&[(0.01, 95)]), VoiceFilter::Configured, true)).unwrap();
    assert_eq!((found.len(), duration_secs), (0, 95.0));
}

#[test]
fn a_filter_needs_a_detector() {
    let sound = levels(&[(0.5, 2)]);
    let on = VoiceFilter::On(VoiceFilterOptions::default());
    let (without, _folder) = runtime(false, "");
    let error = written(&without, call(&sound, on, false)).unwrap_err();
    assert_eq!(error.to_string(), "no model finds speech; install silero-vad");
    assert_eq!(written(&without, call(&sound, VoiceFilter::Available, false)).unwrap().0.len(), 1);
    let (configured, _folder) = runtime(false, "'vad_filter:true'");
    assert!(matches!(
        written(&configured, call(&sound, VoiceFilter::Configured, false)),
        Err(RuntimeError::NoDetector)
    ));
    assert_eq!(written(&configured, call(&sound, VoiceFilter::Off, false)).unwrap().0.len(), 1);
    let (wrong, _folder) = runtime(true, "'vad_filter:true', 'min_silence_duration_ms:99999'");
    let error = written(&wrong, call(&sound, VoiceFilter::Configured, false)).unwrap_err();
    assert!(matches!(error, RuntimeError::InvalidParameter { .. }), "{error}");
}
