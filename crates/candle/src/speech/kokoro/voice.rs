//! One network and its voices: from a sentence to its sound.

use std::path::Path;
use std::sync::Arc;

use rten::{Model, NodeId, ThreadPool};
use rten_tensor::{NdTensor, NdTensorView};

use super::super::phonemes::{Espeak, parts};
use super::super::{VoiceError, network};
use super::styles::{self, STYLE_LEN, Style};
use super::symbols;

/// Samples in a second.
const SAMPLE_RATE: u32 = 24_000;
/// Symbols that are spoken at once at the usual speed or faster, of the 510 that the networks can take: nothing ends a run,
/// and this much takes a few seconds. Slow speech, which is longer, has fewer.
const MAX_SYMBOLS: usize = 200;
/// Fewest symbols that are spoken at once, however slowly.
const MIN_SYMBOLS: usize = 50;
/// Stands at both ends of what is said.
const PAD: i32 = 0;
/// What is fainter than this at both ends is cut off, but for [`MARGIN`].
const SILENCE: f32 = 0.005;
/// Samples of silence that are left at both ends: 40 ms.
const MARGIN: usize = SAMPLE_RATE as usize / 25;
/// The speaker of a request that names none, where it is there: the best of all voices by its makers' own grades.
const USUAL: &str = "af_heart";

/// A loaded network with its voices.
pub struct Kokoro {
    model: Model,
    threads: Arc<ThreadPool>,
    styles: Vec<Style>,
    tokens: NodeId,
    style: NodeId,
    speed: NodeId,
    output: NodeId,
}

impl Kokoro {
    /// Reads the network at `path`, a file or a folder with one, and the voices beside it.
    ///
    /// # Errors
    /// When a file is missing or not valid.
    pub fn load(path: &Path, n_threads: usize) -> Result<Self, VoiceError> {
        let wrong = |reason: String| VoiceError::Network { family: "Kokoro", path: path.to_owned(), reason };
        let file =
            styles::network_of(path).ok_or_else(|| wrong("it is no .onnx file, nor a folder with one".into()))?;
        let styles = styles::read(&file)?;
        let model = network::load(&file).map_err(&wrong)?;
        let node = |name: &str| model.node_id(name).map_err(|_| wrong(format!("it has no input {name}")));
        // Exports differ in one name.
        let tokens = model.find_node("input_ids").map_or_else(|| node("tokens"), Ok)?;
        let (style, speed) = (node("style")?, node("speed")?);
        let output = *model.output_ids().first().ok_or_else(|| wrong("it has no output".into()))?;
        let threads = Arc::new(ThreadPool::with_num_threads(n_threads));
        Ok(Self { model, threads, styles, tokens, style, speed, output })
    }

    /// Samples in a second of what it says.
    pub fn sample_rate(&self) -> u32 {
        SAMPLE_RATE
    }

    /// Its voices, by number.
    pub fn styles(&self) -> &[Style] {
        &self.styles
    }

    /// The number of the voice that speaks when none is named.
    fn usual(&self) -> usize {
        self.styles.iter().position(|style| style.name == USUAL).unwrap_or(0)
    }

    /// What a voice would say, in the network's symbols; those it does not know are passed over.
    ///
    /// # Errors
    /// When espeak-ng is absent or the speaker unknown.
    pub fn symbols(&self, sentence: &str, speaker: Option<usize>) -> Result<String, VoiceError> {
        let style = self.style(speaker)?;
        let phonemes = Espeak::find()?.tied_phonemes(sentence, style.language.espeak_voice())?;
        Ok(style.language.symbols(&phonemes))
    }

    fn style(&self, speaker: Option<usize>) -> Result<&Style, VoiceError> {
        let speaker = speaker.unwrap_or_else(|| self.usual());
        let n_speakers = self.styles.len();
        self.styles.get(speaker).ok_or(VoiceError::Speaker { speaker, n_speakers })
    }

    /// Speaks a sentence in the language of the voice: samples from −1 to 1; none where there is nothing to speak.
    /// `cancelled` tells that nobody waits for the rest.
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
        let style = self.style(speaker)?;
        let said = self.symbols(sentence, speaker)?;
        let most = ((MAX_SYMBOLS as f32 * speed.min(1.0)) as usize).max(MIN_SYMBOLS);
        let mut sound = Vec::new();
        for part in parts(&said, most, |symbol| usize::from(symbols::id(symbol).is_some())) {
            let ids: Vec<i32> = part.trim().chars().filter_map(symbols::id).collect();
            if cancelled() || !part.chars().any(char::is_alphabetic) || ids.is_empty() {
                continue;
            }
            sound.extend(trimmed(self.sound(&ids, style.row(ids.len()), speed)?));
        }
        Ok(sound)
    }

    fn sound(&self, ids: &[i32], style: &[f32], speed: f32) -> Result<Vec<f32>, VoiceError> {
        let ids = [&[PAD], ids, &[PAD]].concat();
        let inputs = vec![
            (self.tokens, NdTensorView::from_data([1, ids.len()], &ids[..]).into()),
            (self.style, NdTensorView::from_data([1, STYLE_LEN], style).into()),
            (self.speed, NdTensor::from_data([1], vec![speed]).into()),
        ];
        let sound = network::sound(&self.model, &self.threads, inputs, self.output)?;
        Ok(sound.into_iter().map(|sample| sample.clamp(-1.0, 1.0)).collect())
    }
}

/// Without the silence at both ends, of which the networks leave up to half a second.
fn trimmed(mut sound: Vec<f32>) -> Vec<f32> {
    let is_heard = |sample: &f32| sample.abs() > SILENCE;
    let Some(first) = sound.iter().position(is_heard) else { return sound };
    let last = sound.iter().rposition(is_heard).unwrap_or(first);
    sound.truncate(last + 1 + MARGIN);
    sound.drain(..first.saturating_sub(MARGIN));
    sound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_at_both_ends_goes_but_for_a_margin() {
        let sound =
            |before: usize, after: usize| [vec![0.001; before], vec![0.5, 0.0, -0.5], vec![-0.001; after]].concat();
        assert_eq!(trimmed(sound(5000, 9000)).len(), 2 * MARGIN + 3);
        assert_eq!(trimmed(sound(10, 20)).len(), 33);
        assert_eq!(trimmed(vec![0.0; 100]).len(), 100);
        assert!(trimmed(Vec::new()).is_empty());
    }
}
