//! The CPU path against candle's own operations.

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_nn::{Conv1d, Conv1dConfig};

use super::{Activation, Attention, Convolution, LayerNorm, Linear, Precision, Visible};

fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut random = fastrand::Rng::with_seed(seed);
    let n = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|_| random.f32() * 2.0 - 1.0).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Largest difference as a share of the largest number.
fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (a, b) = (numbers(a), numbers(b));
    let most = b.iter().fold(1e-9_f32, |most, value| most.max(value.abs()));
    a.iter().zip(&b).map(|(a, b)| if a.is_finite() { (a - b).abs() } else { f32::INFINITY }).fold(0.0, f32::max) / most
}

fn linear(n_rows: usize, n_in: usize, n_out: usize, precision: Precision) -> f32 {
    let (weight, bias) = (random(&[n_out, n_in], 1), random(&[n_out], 2));
    let input = random(&[2, n_rows, n_in], 3);
    let linear = Linear::new(&weight, Some(&bias), precision, &Device::Cpu).unwrap();
    let found = linear.forward(&input, Activation::Gelu).unwrap();
    let rows = input.reshape((2 * n_rows, n_in)).unwrap();
    let wanted = rows.matmul(&weight.t().unwrap()).unwrap().broadcast_add(&bias).unwrap().gelu_erf().unwrap();
    difference(&found, &wanted.reshape((2, n_rows, n_out)).unwrap())
}

#[test]
fn products_are_those_of_candle() {
    for (n_rows, n_in, n_out) in
        [(1, 64, 48), (200, 384, 100), (7, 384, 1152), (50, 1536, 384), (1, 1536, 384), (3, 5120, 1280)]
    {
        let exact = linear(n_rows, n_in, n_out, Precision::F32);
        assert!(exact < 1e-5, "{n_rows}x{n_in}x{n_out}: {exact}");
        let coarse = linear(n_rows, n_in, n_out, Precision::Int8);
        assert!(coarse < 0.01, "{n_rows}x{n_in}x{n_out} in 8 bits: {coarse}");
    }
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let linear = Linear::new(&random(&[8, 16], 1), None, Precision::F32, &Device::Cpu).unwrap();
    assert!(linear.forward(&random(&[2, 15], 2), Activation::None).is_err());
    assert!(Linear::new(&random(&[8, 16], 1), Some(&random(&[7], 2)), Precision::F32, &Device::Cpu).is_err());
}

#[test]
fn convolutions_are_those_of_candle() -> Result<()> {
    for (stride, n_frames) in [(1, 30), (2, 30), (2, 31)] {
        let (weight, bias) = (random(&[48, 20, 3], 1), random(&[48], 2));
        let input = random(&[2, n_frames, 20], 3);
        let found = Convolution::new(&weight, &bias, stride, &Device::Cpu)?.forward(&input)?;
        let config = Conv1dConfig { padding: 1, stride, ..Default::default() };
        let wanted = Conv1d::new(weight, Some(bias), config).forward(&input.transpose(1, 2)?.contiguous()?)?;
        let wanted = wanted.gelu_erf()?.transpose(1, 2)?.contiguous()?;
        assert!(difference(&found, &wanted) < 1e-5, "stride {stride}, {n_frames} frames");
    }
    Ok(())
}

#[test]
fn normalisation_is_candles() -> Result<()> {
    let (gamma, beta, input) = (random(&[384], 1), random(&[384], 2), random(&[2, 5, 384], 3));
    let found = LayerNorm::new(&gamma, &beta, &Device::Cpu)?.forward(&input)?;
    assert!(difference(&found, &candle_nn::ops::layer_norm_slow(&input, &gamma, &beta, 1e-5)?) < 1e-5);
    Ok(())
}

/// What is computed on a GPU, in 32 and in 16 bits, on the CPU.
#[test]
fn other_devices_get_the_same() -> Result<()> {
    let cpu = &Device::Cpu;
    let (weight, kernel) = (random(&[48, 64], 1), random(&[48, 64, 3], 2));
    let (bias, gamma, beta) = (random(&[48], 3), random(&[64], 4), random(&[64], 5));
    // Queries as a product of several projections gives them: columns of wider rows.
    let wide = random(&[2, 31, 192], 6);
    let input = wide.narrow(2, 64, 64)?;
    let linear = Linear::new(&weight, Some(&bias), Precision::F32, cpu)?.forward(&input, Activation::Gelu)?;
    let convolution = Convolution::new(&kernel, &bias, 2, cpu)?.forward(&input)?;
    let norm = LayerNorm::new(&gamma, &beta, cpu)?.forward(&input)?;
    for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F16, 5e-3)] {
        let as_there = |tensor: &Tensor| tensor.to_dtype(dtype);
        let (weight, kernel, bias) = (as_there(&weight)?, as_there(&kernel)?, as_there(&bias)?);
        let input = as_there(&wide)?.narrow(2, 64, 64)?;
        let close = |found: Tensor, wanted: &Tensor, what: &str| {
            let found = difference(&found.to_dtype(DType::F32)?, wanted);
            assert!(found < tolerance, "{what} in {dtype:?}: {found}");
            Ok::<_, candle_core::Error>(())
        };
        let found = Linear::elsewhere(&weight, Some(&bias), cpu)?.forward(&input, Activation::Gelu)?;
        close(found, &linear, "a product")?;
        let found = Convolution::elsewhere(&kernel, &bias, 2, cpu)?.forward(&input)?;
        close(found, &convolution, "a convolution")?;
        let found = LayerNorm::elsewhere(&as_there(&gamma)?, &as_there(&beta)?, cpu)?.forward(&input)?;
        close(found, &norm, "a normalisation")?;
    }
    Ok(())
}

fn attention(attention: &Attention, n_items: usize, n_queries: usize, n_keys: usize) -> f32 {
    let n_sources = attention.source.iter().max().map_or(0, |most| most + 1);
    let queries = random(&[n_items, n_queries, 96], 1);
    // Keys and values side by side, as projections of several make them.
    let both = random(&[n_sources, n_keys, 192], 2);
    let (keys, values) = (both.narrow(2, 0, 96).unwrap(), both.narrow(2, 96, 96).unwrap());
    let found = attention.forward(&queries, &keys, &values).unwrap();
    difference(&found, &attention.composed(&queries, &keys, &values).unwrap())
}

#[test]
fn attention_is_that_of_candle() {
    let all = |n: usize| Attention { n_heads: 6, visible: Visible::All, source: (0..n).collect() };
    for (n_items, n_queries, n_keys) in [(1, 1, 70), (2, 150, 150), (3, 5, 33)] {
        let found = attention(&all(n_items), n_items, n_queries, n_keys);
        assert!(found < 1e-5, "{n_items} items, {n_queries} queries, {n_keys} keys: {found}");
    }
    let beams = Attention { n_heads: 6, visible: Visible::All, source: vec![0, 0, 0, 2, 2, 1] };
    assert!(attention(&beams, 6, 1, 90) < 1e-5);
    for (past, n_queries) in [(vec![0, 0], 7), (vec![3, 20], 1), (vec![12, 0], 30)] {
        let causal = Attention { n_heads: 6, visible: Visible::Causal { past: past.clone() }, source: vec![0, 1] };
        let found = attention(&causal, 2, n_queries, 64);
        assert!(found < 1e-5, "{past:?} before {n_queries}: {found}");
    }
}

#[test]
fn attention_refuses_what_does_not_fit() {
    let attention = Attention { n_heads: 6, visible: Visible::Causal { past: vec![60] }, source: vec![0] };
    let rows = random(&[1, 8, 96], 1);
    assert!(attention.forward(&rows, &random(&[1, 64, 96], 2), &random(&[1, 64, 96], 3)).is_err());
    let attention = Attention { n_heads: 7, visible: Visible::All, source: vec![0] };
    assert!(attention.forward(&rows, &rows, &rows).is_err());
}
