//! Silero's voice activity detector: a small recurrent network as an ONNX file, run by rten.

use std::path::{Path, PathBuf};

use rten::{Model, NodeId};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, NdTensorView};

/// Samples of a frame at 16 kHz: 32 ms.
pub const FRAME_LEN: usize = 512;
/// Samples of the frame before that the network sees again.
const CONTEXT_LEN: usize = 64;
/// Numbers the network remembers.
const STATE_LEN: usize = 2 * 128;

/// Why a detector cannot be loaded or fails.
#[derive(Debug, thiserror::Error)]
pub enum VadError {
    /// The file.
    #[error("{path} is no voice activity detector of Silero's (version 5 or later): {reason}", path = path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The network failed.
    #[error("the voice activity detector failed: {reason}")]
    Run {
        /// What it said.
        reason: String,
    },
}

/// A loaded detector.
pub struct Vad {
    model: Model,
    input: NodeId,
    state: NodeId,
    rate: Option<NodeId>,
    output: NodeId,
    new_state: NodeId,
}

impl Vad {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is missing or not valid.
    pub fn load(path: &Path) -> Result<Self, VadError> {
        let wrong = |reason: String| VadError::Load { path: path.to_owned(), reason };
        let model = Model::load_file(path).map_err(|error| wrong(error.to_string()))?;
        let node = |name: &str| model.node_id(name).map_err(|_| wrong(format!("it has no {name}")));
        let (input, state, output, new_state) = (node("input")?, node("state")?, node("output")?, node("stateN")?);
        let rate = model.find_node("sr").filter(|node| model.input_ids().contains(node));
        Ok(Self { input, state, rate, output, new_state, model })
    }

    /// Probability of speech for each frame of `samples` at 16 kHz; the last frame is filled up with silence. `memory` is
    /// what the call before returned, empty at the start of a recording, and is returned for the next.
    ///
    /// # Errors
    /// When the network fails or `memory` is of another model.
    pub fn probabilities(&self, samples: &[f32], memory: &[f32]) -> Result<(Vec<f32>, Vec<f32>), VadError> {
        let mut memory = match memory.len() {
            0 => vec![0.0; STATE_LEN + CONTEXT_LEN],
            n if n == STATE_LEN + CONTEXT_LEN => memory.to_vec(),
            n => return Err(VadError::Run { reason: format!("a memory of {n} numbers") }),
        };
        let mut frame = vec![0.0; CONTEXT_LEN + FRAME_LEN];
        let mut probabilities = Vec::with_capacity(samples.len().div_ceil(FRAME_LEN));
        for piece in samples.chunks(FRAME_LEN) {
            frame[..CONTEXT_LEN].copy_from_slice(&memory[STATE_LEN..]);
            frame[CONTEXT_LEN..][..piece.len()].copy_from_slice(piece);
            frame[CONTEXT_LEN + piece.len()..].fill(0.0);
            let (probability, state) = self.frame(&frame, &memory[..STATE_LEN])?;
            probabilities.push(probability);
            memory[..STATE_LEN].copy_from_slice(&state);
            memory[STATE_LEN..].copy_from_slice(&frame[FRAME_LEN..]);
        }
        Ok((probabilities, memory))
    }

    fn frame(&self, frame: &[f32], state: &[f32]) -> Result<(f32, Vec<f32>), VadError> {
        let failed = |reason: String| VadError::Run { reason };
        let mut inputs = vec![
            (self.input, NdTensorView::from_data([1, frame.len()], frame).into()),
            (self.state, NdTensorView::from_data([2, 1, STATE_LEN / 2], state).into()),
        ];
        if let Some(rate) = self.rate {
            inputs.push((rate, NdTensor::from_scalar(super::whisper::SAMPLE_RATE as i32).into()));
        }
        let outputs = self.model.run_n(inputs, [self.output, self.new_state], None);
        let [probability, state] = outputs.map_err(|error| failed(error.to_string()))?;
        let numbers = |value: rten::Value| -> Result<Vec<f32>, VadError> {
            let tensor: rten_tensor::Tensor<f32> =
                value.try_into().map_err(|_| failed("its output is not made of floats".into()))?;
            Ok(tensor.to_vec())
        };
        let (probability, state) = (numbers(probability)?, numbers(state)?);
        match probability[..] {
            [probability] if state.len() == STATE_LEN => Ok((probability, state)),
            _ => Err(failed(format!("{} probabilities and a state of {}", probability.len(), state.len()))),
        }
    }
}
