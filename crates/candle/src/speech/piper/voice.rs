//! One voice: from a sentence to its sound.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rten::{Model, NodeId, ThreadPool};
use rten_tensor::{NdTensor, NdTensorView};

use super::super::phonemes::Espeak;
use super::super::{VoiceError, network};
use super::VoiceConfig;

/// Ids that are spoken at once, at the usual speed or faster: about a minute of speech. Memory grows with the length of
/// the sound, so slow speech has fewer.
const MAX_IDS: usize = 4096;
/// Fewest ids that are spoken at once, however slowly.
const MIN_IDS: usize = 64;

/// A loaded voice.
pub struct Voice {
    model: Model,
    config: VoiceConfig,
    threads: Arc<ThreadPool>,
    input: NodeId,
    input_lengths: NodeId,
    scales: NodeId,
    speaker: Option<NodeId>,
    output: NodeId,
}

impl Voice {
    /// Reads the voice at `path` (`.onnx`) and its settings (`.onnx.json`).
    ///
    /// # Errors
    /// When a file is missing or not valid.
    pub fn load(path: &Path, n_threads: usize) -> Result<Self, VoiceError> {
        let config = VoiceConfig::read(&config_path(path))?;
        let wrong = |reason: String| VoiceError::Network { family: "Piper", path: path.to_owned(), reason };
        let model = network::load(path).map_err(&wrong)?;
        let node = |name: &str| model.node_id(name).map_err(|_| wrong(format!("it has no input {name}")));
        let (input, input_lengths, scales) = (node("input")?, node("input_lengths")?, node("scales")?);
        let speaker = model.find_node("sid");
        let output = *model.output_ids().first().ok_or_else(|| wrong("it has no output".into()))?;
        let threads = Arc::new(ThreadPool::with_num_threads(n_threads));
        Ok(Self { input, input_lengths, scales, speaker, output, model, config, threads })
    }

    /// Its settings.
    pub fn config(&self) -> &VoiceConfig {
        &self.config
    }

    /// Speaks a sentence: samples from −1 to 1; none where there is nothing to speak. A sentence that is too long to be
    /// spoken at once is spoken in parts. `cancelled` tells that nobody waits for the rest.
    ///
    /// # Errors
    /// When espeak-ng is absent or the speaker unknown.
    pub fn speak(
        &self,
        sentence: &str,
        speaker: Option<usize>,
        speed: f32,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<f32>, VoiceError> {
        let phonemes = match &*self.config.phoneme_type {
            "text" => sentence.to_lowercase(),
            _ => Espeak::find()?.phonemes(sentence, &self.config.espeak.voice)?,
        };
        let most = most_ids(self.config.inference.length_scale / speed);
        let mut sound = Vec::new();
        for ids in self.config.parts(&phonemes, most).into_iter().filter_map(|part| self.config.ids(part)) {
            if cancelled() {
                break;
            }
            sound.extend(self.sound(&ids, speaker.unwrap_or(0), speed)?);
        }
        Ok(loud(sound))
    }

    /// The sound of phoneme ids, as loud as the network speaks.
    fn sound(&self, ids: &[i32], speaker: usize, speed: f32) -> Result<Vec<f32>, VoiceError> {
        let n_speakers = self.config.num_speakers.max(1);
        if speaker >= n_speakers {
            return Err(VoiceError::Speaker { speaker, n_speakers });
        }
        let inference = &self.config.inference;
        let scales = [inference.noise_scale, inference.length_scale / speed, inference.noise_w];
        let mut inputs = vec![
            (self.input, NdTensorView::from_data([1, ids.len()], ids).into()),
            (self.input_lengths, NdTensor::from_data([1], vec![ids.len() as i32]).into()),
            (self.scales, NdTensor::from_data([3], scales.to_vec()).into()),
        ];
        if let Some(node) = self.speaker {
            inputs.push((node, NdTensor::from_data([1], vec![speaker as i32]).into()));
        }
        network::sound(&self.model, &self.threads, inputs, self.output)
    }
}

/// Ids that are spoken at once where speech is `stretch` times as long as usual.
fn most_ids(stretch: f32) -> usize {
    // What is no number becomes 0.
    let most = (MAX_IDS as f32 / stretch.max(1.0)) as usize;
    most.max(MIN_IDS)
}

/// `voice.onnx` has its settings in `voice.onnx.json`.
fn config_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}

/// As loud as can be, as Piper does it: the networks speak at different volumes. Near silence stays so.
fn loud(mut sound: Vec<f32>) -> Vec<f32> {
    let peak = sound.iter().fold(0.01_f32, |peak, sample| peak.max(sample.abs()));
    sound.iter_mut().for_each(|sample| *sample = (*sample / peak).clamp(-1.0, 1.0));
    sound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_speech_has_shorter_parts() {
        assert_eq!([0.25, 1.0, 2.0, 4.0].map(most_ids), [4096, 4096, 2048, 1024]);
        assert_eq!([1e9, f32::INFINITY].map(most_ids), [64, 64]);
    }
}
