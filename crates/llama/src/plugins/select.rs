//! Which plug-ins to load: policy over what a probe says, without touching a file.

/// What stands before the kind in a plug-in's name.
const PREFIX: &str = "libggml-";
/// Kinds that reach GPUs: loaded only where they are asked for. All others (BLAS, RPC) do no harm.
pub(crate) const GPU_KINDS: &[&str] = &["cuda", "hip", "sycl", "vulkan", "metal", "musa", "opencl", "cann"];

/// A plug-in in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedPlugin {
    /// Name of the file in the folder, such as `libggml-cpu-zen4.so`.
    pub file: String,
    /// `cpu`, `cuda`, …
    pub kind: String,
    /// Devices that it reaches.
    pub n_devices: usize,
    /// What it complained about while it was loaded; empty for nothing.
    pub complaint: String,
}

impl LoadedPlugin {
    /// A sentence about a plug-in for GPUs that reaches none, although one was expected: otherwise it is not loaded.
    pub fn blindness(&self) -> Option<String> {
        if self.n_devices > 0 || !GPU_KINDS.contains(&self.kind.as_str()) {
            return None;
        }
        let why = match self.complaint.as_str() {
            "" => "it does not say why (may this user open the devices of the driver?)",
            complaint => complaint,
        };
        Some(format!("{} is loaded and finds no GPU: {why}", self.file))
    }
}

/// A plug-in that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedPlugin {
    /// Name of the file in the folder.
    pub file: String,
    /// Why not, and what to change.
    pub reason: String,
}

/// A file that may be a plug-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Name in the folder.
    pub(super) file: String,
    /// `cpu`, `cuda`, …
    pub(super) kind: String,
    /// The whole path.
    pub(super) path: std::path::PathBuf,
}

impl Candidate {
    /// `None` for names that no plug-in has; `libggml-base.so` is the library they all stand on.
    pub(super) fn new(folder: &std::path::Path, file: &str) -> Option<Self> {
        let name = file.strip_prefix(PREFIX)?.strip_suffix(".so")?;
        let kind = name.split('-').next().filter(|kind| !kind.is_empty() && *kind != "base")?;
        Some(Self { file: file.to_owned(), kind: kind.to_owned(), path: folder.join(file) })
    }
}

/// Looks into one file.
pub(super) trait Probe {
    /// How well it suits this processor: 0 not at all, `None` where it makes no difference.
    ///
    /// # Errors
    /// Why it must not be loaded.
    fn score(&self, candidate: &Candidate) -> Result<Option<u32>, String>;
}

/// What to load.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// Of each group the first that loads, the CPU's group first.
    pub(super) chosen: Vec<Vec<Candidate>>,
    pub(super) refused: Vec<RefusedPlugin>,
}

/// Chooses among `candidates`; `wanted` names the kinds for GPUs that may be loaded.
pub(super) fn select(candidates: &[Candidate], wanted: &[String], probe: &dyn Probe) -> Selection {
    let mut selection = Selection::default();
    let mut variants: Vec<(u32, Candidate)> = Vec::new();
    let mut others = Vec::new();
    for candidate in candidates {
        let is_gpu = GPU_KINDS.contains(&candidate.kind.as_str());
        if is_gpu && !wanted.contains(&candidate.kind) {
            tracing::debug!(file = candidate.file.as_str(), "not loaded: no such GPU answers");
            continue;
        }
        match probe.score(candidate) {
            Err(reason) => selection.refused.push(RefusedPlugin { file: candidate.file.clone(), reason }),
            Ok(Some(0)) => {}
            Ok(score) if candidate.kind == "cpu" => variants.push((score.unwrap_or(0), candidate.clone())),
            Ok(_) => others.push(vec![candidate.clone()]),
        }
    }
    // The best first; the sort is stable, so that equal ones stay in the order of their names.
    variants.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    let group: Vec<Candidate> = variants.into_iter().map(|(_, candidate)| candidate).collect();
    selection.chosen = if group.is_empty() { others } else { std::iter::once(group).chain(others).collect() };
    selection
}
