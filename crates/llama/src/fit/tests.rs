use ingle_gguf::{Header, writer};

use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// 10 layers of 100 MiB, half of that experts where there are any, and 100 MiB of output.
fn info(has_experts: bool) -> ModelInfo {
    let bytes = writer::tiny_llama().bytes();
    let mut info = Header::from_bytes(&bytes, bytes.len() as u64).unwrap().validate().unwrap();
    info.n_layers = 10;
    info.layer_bytes = vec![100 * MIB; 10];
    info.expert_bytes = vec![if has_experts { 50 * MIB } else { 0 }; 10];
    info.output_bytes = 100 * MIB;
    info.is_output_tied = false;
    info
}

/// 10 MiB of cache a layer and 50 MiB of buffers.
fn memory() -> MemoryEstimate {
    MemoryEstimate { weight_bytes: 1100 * MIB, cache_bytes: 100 * MIB, compute_bytes: 50 * MIB }
}

/// Free bytes of a GPU on which just `bytes` of layers fit.
fn gpu_for(bytes: u64) -> u64 {
    bytes + memory().compute_bytes + MARGIN_BYTES
}

fn place(options: &LoadOptions, has_experts: bool, free_bytes: &[u64]) -> Placement {
    let info = info(has_experts);
    Demand { info: &info, options, memory: memory() }.place(free_bytes)
}

#[test]
fn as_many_layers_as_fit_and_not_one_more() {
    let options = LoadOptions::default();
    // The output first, then layers of 110 MiB with their cache.
    let cases = [(1200, 11), (1199, 10), (980, 9), (979, 8), (100, 1), (99, 0), (0, 0)];
    for (mib, expected) in cases {
        let found = place(&options, false, &[gpu_for(mib * MIB)]);
        assert_eq!(found, Placement { n_gpu_layers: expected, ..Placement::default() }, "{mib} MiB");
    }
    assert_eq!(place(&options, false, &[]).n_gpu_layers, 0, "no GPU");
    let without_cache = LoadOptions { no_kv_offload: true, ..LoadOptions::default() };
    assert_eq!(place(&without_cache, false, &[gpu_for(1100 * MIB)]).n_gpu_layers, 11);
}

#[test]
fn several_gpus_are_loaded_evenly_and_never_over_their_room() {
    let options = LoadOptions::default();
    let two = place(&options, false, &[80 * GIB, 80 * GIB]);
    assert_eq!((two.n_gpu_layers, two.layers_by_gpu), (11, vec![5, 6]));
    let uneven = place(&options, false, &[24 * GIB, 8 * GIB]);
    assert_eq!((uneven.n_gpu_layers, uneven.layers_by_gpu), (11, vec![8, 3]));
    let full = [gpu_for(300 * MIB), gpu_for(0), gpu_for(450 * MIB)];
    let tight = place(&options, false, &full);
    // 100 + 6 × 110 do not fit into 300 + 450, since layers are not cut: 2 × 110 and 3 × 110 + 100.
    assert_eq!((tight.n_gpu_layers, tight.layers_by_gpu), (6, vec![2, 0, 4]));
}

#[test]
fn experts_leave_before_layers_do() {
    let options = LoadOptions::default();
    let all = place(&options, true, &[gpu_for(1200 * MIB)]);
    assert_eq!((all.n_gpu_layers, all.n_cpu_experts), (11, 0));
    // 1200 - 4 × 50.
    let some = place(&options, true, &[gpu_for(1000 * MIB)]);
    assert_eq!((some.n_gpu_layers, some.n_cpu_experts), (11, 4));
    let most = place(&options, true, &[gpu_for(700 * MIB)]);
    assert_eq!((most.n_gpu_layers, most.n_cpu_experts), (11, 10));
    let too_small = place(&options, true, &[gpu_for(699 * MIB)]);
    assert_eq!((too_small.n_gpu_layers, too_small.n_cpu_experts), (6, 0));
    let told = LoadOptions { n_cpu_experts: Some(u32::MAX), ..LoadOptions::default() };
    let told = place(&told, true, &[80 * GIB]);
    assert_eq!((told.n_gpu_layers, told.n_cpu_experts), (11, 10));
}

#[test]
fn options_are_kept_to() {
    let count = LoadOptions { gpu_layers: GpuLayers::Count(3), ..LoadOptions::default() };
    assert_eq!(place(&count, false, &[1]).n_gpu_layers, 3, "what was asked for is tried");
    let too_many = LoadOptions { gpu_layers: GpuLayers::Count(99), ..LoadOptions::default() };
    assert_eq!(place(&too_many, false, &[1]).n_gpu_layers, 11);
    let free = [gpu_for(1200 * MIB), gpu_for(320 * MIB)];
    let second = LoadOptions { main_gpu: Some(1), ..LoadOptions::default() };
    let found = place(&second, false, &free);
    assert_eq!((found.n_gpu_layers, found.layers_by_gpu), (3, vec![]), "one GPU was named");
    let none = LoadOptions { split_mode: SplitMode::None, ..LoadOptions::default() };
    assert_eq!(place(&none, false, &free).n_gpu_layers, 11, "the first one");
    let rows = LoadOptions { split_mode: SplitMode::Row, ..LoadOptions::default() };
    assert_eq!(place(&rows, false, &[gpu_for(600 * MIB), gpu_for(600 * MIB)]).n_gpu_layers, 11);
    let missing = LoadOptions { main_gpu: Some(7), ..LoadOptions::default() };
    assert_eq!(place(&missing, false, &free).n_gpu_layers, 0);
}

#[test]
fn given_shares_decide_what_fits() {
    let options = LoadOptions { tensor_split: vec![1.0, 3.0], ..LoadOptions::default() };
    let place = |free: [u64; 2]| place(&options, false, &free);
    let all = place([80 * GIB, 80 * GIB]);
    assert_eq!((all.n_gpu_layers, all.layers_by_gpu.len()), (11, 0), "llama.cpp cuts by the same shares");
    // Of 4 units the first goes to GPU 0: 110 MiB there, 2 × 110 + 100 on the other.
    assert_eq!(place([gpu_for(110 * MIB), gpu_for(320 * MIB)]).n_gpu_layers, 4);
    assert_eq!(place([gpu_for(0), gpu_for(320 * MIB)]).n_gpu_layers, 0);
}

#[test]
fn nothing_that_fits_is_missed() {
    // Against trying every way of cutting 6 units between 2 GPUs.
    let units = [30, 10, 50, 20, 40, 60];
    for first in (0..=220).step_by(5) {
        for second in (0..=220).step_by(5) {
            let sum = |range: std::ops::Range<usize>| units[range].iter().sum::<u64>();
            let possible = (0..=6).any(|cut| sum(0..cut) <= first && sum(cut..6) <= second);
            let found = evenly(&units, &[first, second]);
            assert_eq!(found.is_some(), possible, "{first} {second}");
            if let Some(layers) = found {
                let cut = layers[0] as usize;
                assert!(sum(0..cut) <= first && sum(cut..6) <= second, "{first} {second} {layers:?}");
            }
        }
    }
}
