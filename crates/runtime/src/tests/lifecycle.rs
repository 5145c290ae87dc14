//! Which models are in memory, and for how long.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Instant;

use ingle_engine::{Engine, LoadOptions, MemoryEstimate};

use super::*;

/// A fake backend that counts its loads, takes its time, and fails or is poisoned when told to.
struct Counting {
    inner: FakeBackend,
    poison: Mutex<Option<String>>,
    loads: AtomicUsize,
    fails: AtomicBool,
    takes: Duration,
}

impl Backend for Counting {
    fn name(&self) -> &str {
        "llama-cpp"
    }

    fn uses_gpus(&self, options: &LoadOptions) -> bool {
        self.inner.uses_gpus(options)
    }

    fn poison(&self) -> Option<String> {
        self.poison.lock().unwrap().clone()
    }

    fn estimate(&self, options: &LoadOptions) -> Result<MemoryEstimate, EngineError> {
        self.inner.estimate(options)
    }

    fn load(&self, options: &LoadOptions, hardware: &Hardware) -> Result<Engine, EngineError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(self.takes);
        if self.fails.load(Ordering::SeqCst) {
            return Err(EngineError::Load { path: options.path.display().to_string(), reason: "told to fail".into() });
        }
        self.inner.load(options, hardware)
    }
}

/// A backend that never uses GPUs, as candle's.
struct OnCpu(FakeBackend);

impl Backend for OnCpu {
    fn name(&self) -> &str {
        "candle"
    }

    fn estimate(&self, options: &LoadOptions) -> Result<MemoryEstimate, EngineError> {
        self.0.estimate(options)
    }

    fn load(&self, options: &LoadOptions, hardware: &Hardware) -> Result<Engine, EngineError> {
        let cpu = Hardware { devices: hardware.cpu().cloned().into_iter().collect(), ..hardware.clone() };
        self.0.load(options, &cpu)
    }
}

struct Flat {
    runtime: Runtime,
    backend: Arc<Counting>,
    folder: tempfile::TempDir,
}

impl Flat {
    /// Models `one` and `two` of 1,000 bytes each, with further lines in both configurations.
    fn new(residency: ResidencyOptions, yaml: &str) -> Self {
        Self::slow(residency, yaml, Duration::ZERO)
    }

    fn slow(residency: ResidencyOptions, yaml: &str, takes: Duration) -> Self {
        Self::on(machine(&Arc::new(AtomicU64::new(1 << 30))), residency, yaml, takes)
    }

    fn on(
        hardware: Arc<dyn Fn() -> Hardware + Send + Sync>,
        residency: ResidencyOptions,
        yaml: &str,
        takes: Duration,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            write_model(folder.path(), name);
            let path = folder.path().join(format!("{name}.yaml"));
            let before = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, before + yaml).unwrap();
        }
        let backend = Arc::new(Counting {
            inner: FakeBackend::default(),
            poison: Mutex::default(),
            loads: AtomicUsize::new(0),
            fails: AtomicBool::new(false),
            takes,
        });
        let runtime = Runtime::new(RuntimeConfig {
            catalog: Catalog::open(folder.path(), CatalogOptions::default()).unwrap(),
            backends: vec![Arc::clone(&backend) as Arc<dyn Backend>, Arc::new(OnCpu(FakeBackend::default()))],
            hardware,
            defaults: LoadDefaults::default(),
            residency,
        });
        Self { runtime, backend, folder }
    }

    fn lease(&self, model: &str) -> Result<Lease, RuntimeError> {
        block_on(self.runtime.lease(Some(model), Usecase::Chat))
    }

    fn in_memory(&self) -> Vec<String> {
        self.runtime.loaded().into_iter().map(|model| model.name).collect()
    }

    fn n_loads(&self) -> usize {
        self.backend.loads.load(Ordering::SeqCst)
    }

    fn wait_until(&self, in_memory: &[&str]) {
        let patience = Instant::now() + Duration::from_secs(10);
        while self.in_memory() != in_memory {
            assert!(Instant::now() < patience, "{:?} are in memory, not {in_memory:?}", self.in_memory());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Room for one model of 1,000 bytes.
fn narrow() -> ResidencyOptions {
    ResidencyOptions { memory_budget_bytes: Some(1500), ..quick() }
}

#[test]
fn models_that_do_not_fit_together_take_turns_and_none_starves() {
    const CLIENTS: usize = 20;
    let residence = Duration::from_millis(200);
    let load = Duration::from_millis(20);
    let residency = ResidencyOptions { min_residence: residence, busy_wait: Duration::from_secs(30), ..narrow() };
    let flat = Flat::slow(residency, "", load);
    let begun = Instant::now();
    let longest = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let flat = &flat;
                scope.spawn(move || {
                    let mut longest = Duration::ZERO;
                    for turn in 0.. {
                        if begun.elapsed() > Duration::from_secs(3) {
                            return longest;
                        }
                        let model = if (client + turn) % 2 == 0 { "one" } else { "two" };
                        let asked = Instant::now();
                        let lease = flat.lease(model).expect("it is only a matter of time");
                        longest = longest.max(asked.elapsed());
                        std::thread::sleep(Duration::from_millis(2));
                        drop(lease);
                    }
                    longest
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("no client fails")).max()
    });
    let most_loads = 2 + (begun.elapsed().as_millis() / residence.as_millis()) as usize;
    assert!((3..=most_loads).contains(&flat.n_loads()), "{} loads, at most {most_loads}", flat.n_loads());
    let bound = 2 * (load + residence) + Duration::from_millis(300);
    assert!(longest <= Some(bound), "{longest:?} is more than {bound:?}");
}

#[test]
fn a_model_in_use_is_waited_for_but_not_for_ever() {
    let flat = Flat::new(narrow(), "");
    let lease = flat.lease("one").unwrap();
    let refused = flat.lease("two").unwrap_err();
    assert!(matches!(refused, RuntimeError::OutOfMemory { n_busy: 1, .. }), "{refused}");
    flat.lease("one").expect("it stays in use and lets calls in again");
    let waiting = std::thread::scope(|scope| {
        let two = scope.spawn(|| flat.lease("two").map(drop));
        std::thread::sleep(Duration::from_millis(50));
        drop(lease);
        two.join().unwrap()
    });
    waiting.expect("the other one was let go in time");
    assert_eq!(flat.in_memory(), ["two"]);
}

#[test]
fn answers_of_a_busy_model_can_be_ended() {
    let flat = Flat::new(ResidencyOptions { ends_busy_models: true, ..narrow() }, "");
    let lease = flat.lease("one").unwrap();
    flat.lease("two").expect("the other one is ended");
    let request = ingle_engine::GenerationRequest { prompt: vec![1], ..Default::default() };
    let ended = lease.text().unwrap().submit(request);
    assert!(matches!(ended, Err(EngineError::Unloaded { .. })));
}

#[test]
fn pinned_models_stay() {
    let flat = Flat::new(narrow(), "pinned: true\n");
    drop(flat.lease("one").unwrap());
    let refused = flat.lease("two").unwrap_err();
    assert!(matches!(refused, RuntimeError::OutOfMemory { n_busy: 1, .. }), "{refused}");
    assert_eq!(flat.in_memory(), ["one"]);
}

#[test]
fn a_model_that_can_never_fit_is_told_apart() {
    let flat = Flat::new(ResidencyOptions { memory_budget_bytes: Some(900), ..quick() }, "");
    let refused = flat.lease("one").unwrap_err();
    assert!(matches!(refused, RuntimeError::OutOfMemory { n_busy: 0, .. }), "{refused}");
}

#[test]
fn the_number_of_models_is_kept() {
    let flat = Flat::new(ResidencyOptions { max_models: Some(1), ..quick() }, "");
    drop(flat.lease("one").unwrap());
    drop(flat.lease("two").unwrap());
    assert_eq!(flat.in_memory(), ["two"]);
}

#[test]
fn models_of_a_group_are_not_in_memory_together() {
    let flat = Flat::new(quick(), "concurrency_groups: [heavy]\n");
    drop(flat.lease("one").unwrap());
    drop(flat.lease("two").unwrap());
    assert_eq!(flat.in_memory(), ["two"]);
    let free = Flat::new(quick(), "");
    drop((free.lease("one").unwrap(), free.lease("two").unwrap()));
    assert_eq!(free.in_memory(), ["one", "two"]);
}

#[test]
fn idle_models_leave_and_used_ones_do_not() {
    let check_interval = Duration::from_millis(10);
    let idle_timeout = Some(Duration::from_millis(60));
    let flat = Flat::new(ResidencyOptions { idle_timeout, check_interval, ..quick() }, "");
    let lease = flat.lease("one").unwrap();
    drop(flat.lease("two").unwrap());
    flat.wait_until(&["one"]);
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(flat.in_memory(), ["one"], "a call runs on it");
    drop(lease);
    flat.wait_until(&[]);
}

#[test]
fn long_answers_are_ended_only_where_that_is_asked_for() {
    let flat = Flat::new(ResidencyOptions { busy_timeout: Some(Duration::from_nanos(1)), ..quick() }, "");
    let mut asked = call("one", "hi");
    asked.options = AnswerOptions { ignore_eos: Some(true), max_tokens: Some(400), ..AnswerOptions::default() };
    let mut stream = block_on(flat.runtime.chat(asked.clone())).unwrap_or_default();
    let ended = stream.pop().map(|mut stream| {
        loop {
            match stream.wait_next().expect("it ends with an error") {
                Ok(ChatEvent::Done(_)) => panic!("it was not ended"),
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    });
    // Without a template the fake model chats all the same: the fallback is used.
    let error = ended.expect("it was started");
    assert!(matches!(error, RuntimeError::Engine(EngineError::TookTooLong { .. })), "{error}");
    let patient = Flat::new(quick(), "");
    let (_, _, done) = read(block_on(patient.runtime.chat(asked)).unwrap().pop().unwrap());
    assert_eq!(done.completion.usage.completion_tokens, 400);
}

#[test]
fn failed_loads_cool_down() {
    let flat = Flat::new(ResidencyOptions { failure_cooldown: Duration::from_millis(300), ..quick() }, "");
    flat.backend.fails.store(true, Ordering::SeqCst);
    let first = flat.lease("one").unwrap_err();
    assert!(first.to_string().contains("told to fail"), "{first}");
    let second = flat.lease("one").unwrap_err();
    assert!(matches!(second, RuntimeError::CoolingDown { retry_after_secs: 1, .. }), "{second}");
    assert!(second.to_string().contains("told to fail"), "the reason is kept: {second}");
    assert_eq!(flat.n_loads(), 1);
    std::thread::sleep(Duration::from_millis(350));
    assert!(!matches!(flat.lease("one").unwrap_err(), RuntimeError::CoolingDown { .. }));
    let doubled = Instant::now();
    flat.backend.fails.store(false, Ordering::SeqCst);
    while flat.lease("one").is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(doubled.elapsed() >= Duration::from_millis(550), "the second time is twice as long");
    // A file that has changed is tried at once.
    flat.backend.fails.store(true, Ordering::SeqCst);
    assert!(flat.lease("two").is_err());
    flat.backend.fails.store(false, Ordering::SeqCst);
    std::fs::write(flat.folder.path().join("two.gguf"), vec![0; 999]).unwrap();
    flat.lease("two").expect("its file is another one");
}

#[test]
fn what_changes_in_the_folder_is_noticed() {
    let check_interval = Duration::from_millis(10);
    let flat = Flat::new(ResidencyOptions { check_interval, ..quick() }, "");
    let old = flat.lease("one").unwrap();
    let path = flat.folder.path().join("one.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    // What concerns requests alone needs no new load.
    std::fs::write(&path, text.clone() + "system_prompt: be kind\n").unwrap();
    let same = flat.lease("one").unwrap();
    assert_eq!((flat.n_loads(), same.config().template.system_prompt.as_deref()), (1, Some("be kind")));
    std::fs::write(&path, text + "context_size: 256\n").unwrap();
    let new = flat.lease("one").unwrap();
    assert_eq!(flat.n_loads(), 2);
    let context = |lease: &Lease| lease.text().unwrap().limits().n_sequence_tokens;
    assert_eq!((context(&old), context(&new)), (512, 256), "what runs finishes on the old one");
    drop((old, same, new));
    std::fs::remove_file(path).unwrap();
    std::fs::remove_file(flat.folder.path().join("one.gguf")).unwrap();
    flat.wait_until(&[]);
}

#[test]
fn requests_at_once_are_limited() {
    let flat = Flat::new(quick(), "limits: {max_concurrent: 2, retry_after_seconds: 7}\n");
    let held = (flat.lease("one").unwrap(), flat.lease("one").unwrap());
    let refused = flat.lease("one").unwrap_err();
    assert!(matches!(refused, RuntimeError::Busy { limit: 2, retry_after_secs: 7, .. }), "{refused}");
    let clone = held.0.clone();
    drop(held);
    drop((flat.lease("one").unwrap(), clone));
    let flat = Flat::new(ResidencyOptions { max_requests: 1, ..quick() }, "");
    let held = flat.lease("one").unwrap();
    assert!(matches!(flat.lease("one").unwrap_err(), RuntimeError::Busy { limit: 1, .. }));
    drop(held);
    flat.lease("two").unwrap();
}

/// A machine with plenty of main memory and a GPU with this much free.
fn with_gpu(free: &Arc<AtomicU64>) -> Arc<dyn Fn() -> Hardware + Send + Sync> {
    with_memories(&Arc::new(AtomicU64::new(1 << 30)), free)
}

/// A machine with this much main memory and GPU memory free.
fn with_memories(main: &Arc<AtomicU64>, gpu: &Arc<AtomicU64>) -> Arc<dyn Fn() -> Hardware + Send + Sync> {
    let free = Arc::clone(gpu);
    let plain = machine(main);
    Arc::new(move || {
        let mut hardware = plain();
        hardware.devices.push(Device {
            kind: DeviceKind::Cuda,
            total_bytes: 2000,
            free_bytes: free.load(Ordering::SeqCst),
            ..Device::default()
        });
        hardware
    })
}

#[test]
fn an_idle_model_leaves_the_gpu_to_one_that_would_not_fit_beside_it() {
    // Models of 1,000 bytes: there is main memory for thousands, and GPU memory for one.
    let cases = [("", vec!["two"]), ("gpu_layers: 0\n", vec!["one", "two"])];
    for (yaml, expected) in cases {
        let free = Arc::new(AtomicU64::new(2000));
        let flat = Flat::on(with_gpu(&free), quick(), yaml, Duration::ZERO);
        drop(flat.lease("one").unwrap());
        free.store(900, Ordering::SeqCst);
        drop(flat.lease("two").unwrap());
        assert_eq!(flat.in_memory(), expected, "{yaml:?}");
    }
    // In use, it stays, and the other one goes where it can.
    let free = Arc::new(AtomicU64::new(2000));
    let flat = Flat::on(with_gpu(&free), quick(), "", Duration::ZERO);
    let _lease = flat.lease("one").unwrap();
    free.store(900, Ordering::SeqCst);
    drop(flat.lease("two").unwrap());
    assert_eq!(flat.in_memory(), ["one", "two"]);
}

/// Models `one` and `two` for the GPU, `small` and `other` for the CPU, with this much free of each.
fn mixed(main: &Arc<AtomicU64>, gpu: &Arc<AtomicU64>, residency: ResidencyOptions) -> Flat {
    let flat = Flat::on(with_memories(main, gpu), residency, "", Duration::ZERO);
    for name in ["small", "other"] {
        write_model(flat.folder.path(), name);
        let path = flat.folder.path().join(format!("{name}.yaml"));
        let yaml = std::fs::read_to_string(&path).unwrap().replace("llama-cpp", "candle");
        std::fs::write(path, yaml + "known_usecases: [chat, completion]\n").unwrap();
    }
    flat
}

#[test]
fn a_model_for_the_cpu_takes_nothing_from_the_gpu() {
    let (main, gpu) = (Arc::new(AtomicU64::new(1 << 30)), Arc::new(AtomicU64::new(2000)));
    let flat = mixed(&main, &gpu, quick());
    drop(flat.lease("one").unwrap());
    gpu.store(500, Ordering::SeqCst);
    drop(flat.lease("small").unwrap());
    assert_eq!(flat.in_memory(), ["one", "small"], "the GPU is full, which does not concern it");
    // Main memory is short: what is there of it goes, and the GPU's memory counts for nothing.
    main.store(500, Ordering::SeqCst);
    gpu.store(1 << 20, Ordering::SeqCst);
    let refused = flat.lease("other").unwrap_err();
    assert!(matches!(refused, RuntimeError::OutOfMemory { .. }), "{refused}");
    assert_eq!(flat.in_memory(), ["one"], "the model on the GPU stays, used longest ago as it is");
    // With nothing of its own to give, it is refused at once.
    assert!(flat.lease("other").is_err());
    assert_eq!(flat.in_memory(), ["one"]);
}

#[test]
fn a_gpu_is_cleared_of_what_is_on_it() {
    let (main, gpu) = (Arc::new(AtomicU64::new(1 << 30)), Arc::new(AtomicU64::new(2000)));
    let flat = mixed(&main, &gpu, quick());
    drop(flat.lease("small").unwrap());
    drop(flat.lease("one").unwrap());
    gpu.store(500, Ordering::SeqCst);
    drop(flat.lease("two").unwrap());
    assert_eq!(flat.in_memory(), ["small", "two"], "the one on the CPU would have given nothing");
}

#[test]
fn a_budget_of_gpus_is_for_models_on_gpus() {
    let (main, gpu) = (Arc::new(AtomicU64::new(1 << 30)), Arc::new(AtomicU64::new(1 << 20)));
    let flat = mixed(&main, &gpu, ResidencyOptions { gpu_budget_bytes: Some(1500), ..quick() });
    for name in ["small", "one", "other"] {
        drop(flat.lease(name).unwrap());
    }
    assert_eq!(flat.in_memory(), ["one", "other", "small"]);
    drop(flat.lease("two").unwrap());
    assert_eq!(flat.in_memory(), ["other", "small", "two"]);
}

#[test]
fn a_poisoned_backend_stays_red_and_lets_others_end() {
    let (main, gpu) = (Arc::new(AtomicU64::new(1 << 30)), Arc::new(AtomicU64::new(1 << 30)));
    let flat = mixed(&main, &gpu, quick());
    let mut asked = call("small", "hi");
    asked.options = AnswerOptions { ignore_eos: Some(true), max_tokens: Some(400), ..AnswerOptions::default() };
    let running = block_on(flat.runtime.chat(asked)).unwrap().pop().unwrap();
    let poison = PromptInput::Tokens(vec![ingle_engine::fake::POISON_PANIC]);
    let killing = CompletionCall { model: Some("one".into()), prompt: poison, options: AnswerOptions::default() };
    let mut dying = block_on(flat.runtime.complete(killing)).unwrap();
    *flat.backend.poison.lock().unwrap() = Some("CUDA error: unspecified launch failure".into());
    assert!(dying[0].wait_next().unwrap().is_err());
    let n_loads = flat.n_loads();
    for model in ["one", "two"] {
        let refused = flat.lease(model).unwrap_err();
        assert!(matches!(refused, RuntimeError::Engine(EngineError::Died { .. })), "{refused}");
        assert!(refused.to_string().contains("unspecified launch failure"), "{refused}");
    }
    assert_eq!(flat.n_loads(), n_loads, "nothing is loaded in its place");
    let Readiness::Degraded { reason } = flat.runtime.readiness() else { panic!("it looks ready") };
    assert!(reason.contains("unspecified launch failure"), "{reason}");
    assert_eq!(flat.runtime.poison(), Some(reason));
    let (_, _, done) = read(running);
    assert_eq!(done.completion.usage.completion_tokens, 400, "an answer of another engine ends in its time");
}

#[test]
fn memory_of_gpus_is_reclaimed_from_what_is_on_them() {
    let (main, gpu) = (Arc::new(AtomicU64::new(1 << 30)), Arc::new(AtomicU64::new(2000)));
    let check_interval = Duration::from_millis(10);
    let flat = mixed(&main, &gpu, ResidencyOptions { reclaim_threshold: Some(0.9), check_interval, ..quick() });
    drop(flat.lease("small").unwrap());
    drop(flat.lease("one").unwrap());
    gpu.store(100, Ordering::SeqCst);
    flat.wait_until(&["small"]);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(flat.in_memory(), ["small"], "its end would give nothing, however short memory is");
}
