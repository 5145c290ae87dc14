//! Whisper, OpenAI's speech recognition, on candle's tensors.
//!
//! Candle's own module computes the whole text again for each token and searches greedily. This one keeps the keys and
//! values of what it heard and wrote, writes several recordings at once, each as one text, several draws or beams, and
//! tells when each word was said.

mod align;
mod cache;
mod decode;
mod listen;
mod mel;
mod model;
mod rules;
mod segments;
mod vocabulary;
mod weights;
mod words;

pub use listen::Whisper;
pub use mel::{N_SAMPLES as WINDOW_LEN, SAMPLE_RATE};
pub use model::{Dims, Placement};
pub use vocabulary::Task;
pub use weights::{ModelFiles, WeightsError};

/// Layers, heads, English-only or not, mel bands, and the heads.
type AlignmentRow = (usize, usize, Option<bool>, Option<usize>, &'static str);

/// Heads of the decoder whose cross attention follows the words, as OpenAI found them, as `layer.head`: for decoders of
/// so many layers and heads, English-only or not, and so many mel bands where that tells models apart.
const ALIGNMENT: &[AlignmentRow] = &[
    (4, 6, Some(false), None, "1.0 2.0 2.5 3.0 3.1 3.2 3.3 3.4"),
    (4, 6, Some(true), None, "2.2 3.0 3.2 3.3 3.4 3.5"),
    (6, 8, Some(false), None, "3.3 4.7 5.1 5.5 5.7"),
    (6, 8, Some(true), None, "3.1 4.2 4.3 4.7 5.1 5.2 5.4 5.6"),
    (
        12,
        12,
        Some(false),
        None,
        "6.6 7.0 7.3 7.8 8.2 8.5 8.7 9.0 9.4 9.8 9.10 10.0 10.1 10.2 10.3 10.6 10.11 11.2 11.4",
    ),
    (12, 12, Some(true), None, "5.3 5.9 8.0 8.4 8.7 8.8 9.0 9.7 9.9 10.5"),
    (
        24,
        16,
        Some(false),
        None,
        "11.4 14.1 14.12 14.14 15.4 16.0 16.4 16.9 17.12 17.14 18.7 18.10 18.15 20.0 20.3 20.9 20.14 21.12",
    ),
    (24, 16, Some(true), None, "13.15 15.4 15.15 16.1 20.0 23.4"),
    (32, 20, None, Some(128), "7.0 10.17 12.18 13.12 16.1 17.14 19.11 21.4 24.1 25.6"),
    (
        32,
        20,
        None,
        Some(80),
        "10.12 13.17 16.11 16.12 16.13 17.15 17.16 18.4 18.11 18.19 19.11 21.2 21.3 22.3 22.9 22.12 23.5 23.7 23.13 25.5 \
         26.1 26.12 27.15",
    ),
    (4, 20, None, Some(128), "2.4 2.11 3.3 3.6 3.11 3.14"),
];

/// `(layer, head)` for models whose files do not tell: OpenAI's, or all heads of the upper half.
fn usual_alignment_heads(dims: &Dims, is_multilingual: bool) -> Vec<(usize, usize)> {
    let fits = |&&(n_layers, n_heads, multilingual, n_mels, _): &&(usize, usize, Option<bool>, Option<usize>, &str)| {
        (n_layers, n_heads) == (dims.n_decoder_layers, dims.n_heads)
            && multilingual.is_none_or(|multilingual| multilingual == is_multilingual)
            && n_mels.is_none_or(|n_mels| n_mels == dims.n_mels)
    };
    let pair = |text: &str| {
        let (layer, head) = text.split_once('.')?;
        Some((layer.parse().ok()?, head.parse().ok()?))
    };
    match ALIGNMENT.iter().find(fits) {
        Some((.., heads)) => heads.split_whitespace().filter_map(pair).collect(),
        None => {
            let layers = dims.n_decoder_layers / 2..dims.n_decoder_layers;
            layers.flat_map(|layer| (0..dims.n_heads).map(move |head| (layer, head))).collect()
        }
    }
}

#[cfg(test)]
mod tests;
