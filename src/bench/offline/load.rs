//! Where a model is, and how it gets into memory for a measurement.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ingle::catalog::{CatalogError, Usecase};
use ingle::{Backend, Engine, LoadDefaults, LoadOptions, LoadPlan, Runtime, RuntimeError, Setup, Speculation, Task};

use super::{Case, LoadCase};
use crate::bench::files;
use crate::bench::report::Subject;
use crate::cli::{FolderArgs, OfflineArgs};
use crate::commands::locate::{INSTALL, locate};
use crate::commands::progress::Downloads;

/// Cells that a context has beyond what the cases need: finished prefixes are dropped a little later than they could.
const SPARE_CELLS: usize = 256;

/// A model that was found.
pub(in crate::bench) struct Source {
    pub(in crate::bench) name: String,
    pub(in crate::bench) backend: Arc<dyn Backend>,
    pub(in crate::bench) options: LoadOptions,
}

/// A model in memory.
pub(super) struct Loaded {
    pub(super) engine: Engine,
    pub(super) options: LoadOptions,
    /// How long it took.
    pub(super) secs: f64,
}

impl Source {
    /// A file, or what the models folder and the gallery know.
    pub(super) fn find(model: &str, args: &OfflineArgs) -> anyhow::Result<Self> {
        let mut source = Self::open(model, &args.folder)?;
        source.options.speculation = if args.speculation { Speculation::PromptLookup } else { Speculation::Off };
        if let Some(gpu_layers) = args.gpu_layers {
            source.options.gpu_layers = gpu_layers;
        }
        Ok(source)
    }

    /// The same for other measurements.
    pub(in crate::bench) fn open(model: &str, folder: &FolderArgs) -> anyhow::Result<Self> {
        let is_file = Path::new(model).is_file() && model.to_ascii_lowercase().ends_with(".gguf");
        let (runtime, name) = if is_file {
            Setup::for_file(Path::new(model), LoadDefaults::default())?
        } else {
            let setup = Setup { config_file: folder.models_config_file.clone(), ..Setup::new(&folder.models_path) };
            let runtime = setup.runtime()?;
            let name = locate(runtime.catalog(), model, INSTALL, &Downloads::default())?;
            (runtime, name)
        };
        let LoadPlan { backend, options } = plan(&runtime, &name)?;
        Ok(Self { name, backend, options })
    }

    /// File, size and hash.
    pub(in crate::bench) fn subject(&self) -> anyhow::Result<Subject> {
        files::model_subject(&self.name, &self.options.path)
    }

    /// Loads it with room for `cases`.
    pub(super) fn load(&self, load: &LoadCase, cases: &[Case]) -> anyhow::Result<Loaded> {
        let size = |n: u32| n as usize;
        let mut options = self.options.clone();
        let n_cells = cases.iter().map(|case| case.parallel * case.n_sequence()).max().unwrap_or(0);
        if options.tasks.is_empty() || options.tasks.contains(&Task::Text) {
            options.context_size = Some(n_cells + SPARE_CELLS);
            options.parallel = cases.iter().map(|case| case.parallel).max();
        }
        options.threads = load.threads.map(size).or(options.threads);
        options.batch = load.batch.map(size).or(options.batch);
        options.cache_type_k = load.cache_type_k.unwrap_or(options.cache_type_k);
        options.cache_type_v = load.cache_type_v.unwrap_or(options.cache_type_v);
        options.flash_attention = load.attention.map_or(options.flash_attention, Into::into);
        let begun = Instant::now();
        let engine = self.backend.load(&options, &ingle::hardware_in_use())?;
        Ok(Loaded { engine, options, secs: begun.elapsed().as_secs_f64() })
    }
}

/// How the model is loaded for the first thing that it does and that is measured.
fn plan(runtime: &Runtime, name: &str) -> Result<LoadPlan, RuntimeError> {
    let further = [Usecase::Embeddings, Usecase::Rerank, Usecase::Transcript, Usecase::Tts];
    let unsuited = match runtime.load_plan(Some(name), Usecase::Completion) {
        Err(RuntimeError::Catalog(error)) if matches!(*error, CatalogError::Unsuited { .. }) => error,
        planned => return planned,
    };
    let planned = further.into_iter().find_map(|usecase| runtime.load_plan(Some(name), usecase).ok());
    planned.ok_or(RuntimeError::Catalog(unsuited))
}
