//! Values that LocalAI's flags allow.

use ingle::GpuLayers;

/// A number, or the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OrDefault(pub(super) Option<usize>);

/// A number; 0 means the default, as in LocalAI.
pub(super) fn number_or_default(text: &str) -> Result<OrDefault, String> {
    let number: usize = text.trim().parse().map_err(|_| "use a whole number, or 0 for the default".to_owned())?;
    Ok(OrDefault((number > 0).then_some(number)))
}

/// `auto`, or how many.
pub(super) fn gpu_layers(text: &str) -> Result<GpuLayers, String> {
    match text.trim() {
        "auto" | "all" => Ok(GpuLayers::Auto),
        number => {
            let number = number.parse().map_err(|_| "use a number of layers, or auto for as many as fit".to_owned());
            number.map(GpuLayers::Count)
        }
    }
}
