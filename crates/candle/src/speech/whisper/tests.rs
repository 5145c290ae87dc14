//! The real model, where there is one: `INGLE_TEST_MODELS` names the folder.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use ingle_engine::{HearingOptions, HearingWindow};

use super::vocabulary::tests::small;
use super::weights::{ModelFiles, Weights, WeightsError};
use super::{Placement, Whisper};
use crate::speech::ops::Precision;

fn model() -> Option<PathBuf> {
    let folder = std::env::var_os("INGLE_TEST_MODELS").map(PathBuf::from);
    let model = folder.map(|folder| folder.join("whisper-tiny.en")).filter(|model| model.is_dir());
    if model.is_none() {
        eprintln!("no whisper-tiny.en in INGLE_TEST_MODELS: passed over");
    }
    model
}

fn window(samples: Vec<f32>, options: &HearingOptions) -> HearingWindow {
    let options = Arc::new(options.clone());
    let (prompt, previous) = (String::new(), Vec::new());
    HearingWindow { samples: samples.into(), prompt, previous, last_speech_secs: 0.0, options }
}

/// Something like speech: vowels of changing pitch. What the model makes of it does not matter, only that it is the
/// same in every way of computing it.
fn babble(seed: usize, secs: usize) -> Vec<f32> {
    let sample = |at: usize| {
        let time = at as f32 / 16_000.0;
        let syllable = ((time * 4.0) as usize).wrapping_mul(2_654_435_761).wrapping_add(seed);
        let pitch = 100.0 + (syllable % 90) as f32;
        let vowel = |formant: f32| (time * formant * std::f32::consts::TAU).sin();
        let voice = (time * pitch * std::f32::consts::TAU).sin();
        voice
            * 0.3
            * (vowel(300.0 + (syllable % 500) as f32) + vowel(900.0 + (syllable % 1400) as f32))
            * (time * 12.0).sin().abs()
    };
    (0..secs * 16_000).map(sample).collect()
}

#[test]
fn together_is_as_alone() {
    let Some(model) = model() else { return };
    let whisper = Whisper::load(&model, &Placement { device: Device::Cpu, precision: Precision::F32 }, 1).unwrap();
    for n_beams in [1, 3] {
        let options =
            HearingOptions { temperatures: vec![0.0], n_beams: Some(n_beams), word_times: true, ..Default::default() };
        let windows: Vec<HearingWindow> = (0..3).map(|seed| window(babble(seed, 4 + 9 * seed), &options)).collect();
        let together = whisper.transcribe(&windows, &|| false).unwrap();
        for (window, together) in windows.iter().zip(&together) {
            let alone = whisper.transcribe(std::slice::from_ref(window), &|| false).unwrap().remove(0);
            let texts = |heard: &ingle_engine::HeardWindow| -> Vec<Vec<u32>> {
                heard.segments.iter().map(|segment| segment.tokens.clone()).collect()
            };
            assert_eq!(texts(&alone), texts(together), "{n_beams} beams");
            assert_eq!((alone.language, alone.resume_secs), ("en", together.resume_secs));
        }
    }
}

#[test]
fn silence_and_scraps_end() {
    let Some(model) = model() else { return };
    let whisper = Whisper::load(&model, &Placement { device: Device::Cpu, precision: Precision::Int8 }, 1).unwrap();
    let options = HearingOptions { word_times: true, ..Default::default() };
    for samples in [vec![0.0; 480_000], vec![0.5], vec![0.0; 1600], vec![f32::MAX; 16_000], Vec::new()] {
        let n = samples.len();
        let heard = whisper.transcribe(&[window(samples, &options)], &|| false).unwrap();
        let ends = heard[0].segments.iter().map(|segment| segment.end_secs);
        assert!(ends.into_iter().all(|end| end <= n as f64 / 16_000.0 + 1e-6), "{n} samples: {:?}", heard[0]);
    }
    let stopped = whisper.transcribe(&[window(babble(1, 20), &options)], &|| true).unwrap();
    assert!(stopped[0].segments.is_empty());
}

/// Width of a model that says nothing.
const WIDTH: usize = 64;

/// Random weights of two layers each.
struct Made(fastrand::Rng);

impl Weights for Made {
    fn has(&self, name: &str) -> bool {
        ["layers.0.", "layers.1."].iter().any(|layer| name.contains(layer))
    }

    fn read(&mut self, name: &str) -> Result<Tensor, WeightsError> {
        let shape: &[usize] = match name {
            "encoder.conv1.weight" => &[WIDTH, 80, 3],
            "encoder.conv2.weight" => &[WIDTH, WIDTH, 3],
            "encoder.embed_positions.weight" => &[1500, WIDTH],
            "decoder.embed_positions.weight" => &[448, WIDTH],
            "decoder.embed_tokens.weight" => &[51_864, WIDTH],
            name if name.ends_with("fc1.weight") => &[2 * WIDTH, WIDTH],
            name if name.ends_with("fc1.bias") => &[2 * WIDTH],
            name if name.ends_with("fc2.weight") => &[WIDTH, 2 * WIDTH],
            name if name.ends_with(".bias") || name.contains("norm") => &[WIDTH],
            _ => &[WIDTH, WIDTH],
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.0.f32() * 0.2 - 0.1).collect();
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }
}

fn made() -> Whisper {
    let files = ModelFiles {
        weights: Box::new(Made(fastrand::Rng::with_seed(1))),
        vocabulary: small(51_864),
        n_heads: Some(1),
        alignment_heads: None,
        mel_filters: None,
        n_bytes: 0,
    };
    Whisper::from_files(files, &Placement { device: Device::Cpu, precision: Precision::F32 }, 1).unwrap()
}

#[test]
fn nobody_waiting_ends_a_step_within_a_layer() {
    let whisper = made();
    let windows = [window(babble(1, 3), &HearingOptions::default()), window(babble(2, 3), &HearingOptions::default())];
    // Two spectrograms and two layers for each window are listened to before anything is written.
    for last in 0..10 {
        let n_asked = Cell::new(0);
        let cancelled = || {
            n_asked.set(n_asked.get() + 1);
            n_asked.get() > last
        };
        let heard = whisper.transcribe(&windows, &cancelled).unwrap();
        assert!(heard.len() == 2 && heard.iter().all(|heard| heard.segments.is_empty()), "{heard:?}");
        let most = if last < 6 { last + 1 } else { last + 8 };
        assert!(n_asked.get() <= most, "asked {} times, the answer was yes after {last}", n_asked.get());
    }
}
