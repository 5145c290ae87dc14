use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};

use super::*;

fn value_info(name: &str) -> Vec<u8> {
    let mut value = Vec::new();
    put(&mut value, 1, name.as_bytes());
    value
}

fn attribute(name: &str, value: u64) -> Vec<u8> {
    let mut attribute = Vec::new();
    put(&mut attribute, field::NAME, name.as_bytes());
    put_integer(&mut attribute, field::INTEGER, value);
    put_integer(&mut attribute, field::TYPE, 2);
    attribute
}

fn alpha(value: f32) -> Vec<u8> {
    let mut attribute = Vec::new();
    put(&mut attribute, field::NAME, b"alpha");
    wire::put_number(&mut attribute, field::FLOAT << 3 | 5);
    attribute.extend(value.to_le_bytes());
    put_integer(&mut attribute, field::TYPE, 1);
    attribute
}

/// A network of one fused product of `a` and `b`.
fn product(attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut node = Vec::new();
    for (number, text) in [(1, "a"), (1, "b"), (2, "c"), (3, "node"), (field::OPERATOR, "FusedMatMul")] {
        put(&mut node, number, text.as_bytes());
    }
    for attribute in attributes {
        put(&mut node, field::ATTRIBUTE, attribute);
    }
    put(&mut node, field::DOMAIN, b"com.microsoft");
    model(&node, &["a", "b"])
}

/// A network of a node with these inputs and the output `c`.
fn model(node: &[u8], inputs: &[&str]) -> Vec<u8> {
    model_of(&[node.to_vec()], inputs)
}

fn model_of(nodes: &[Vec<u8>], inputs: &[&str]) -> Vec<u8> {
    let mut graph = Vec::new();
    nodes.iter().for_each(|node| put(&mut graph, field::NODE, node));
    put(&mut graph, 2, b"graph");
    inputs.iter().for_each(|name| put(&mut graph, 11, &value_info(name)));
    put(&mut graph, 12, &value_info("c"));
    let mut opset = Vec::new();
    put_integer(&mut opset, 2, 17);
    let mut model = Vec::new();
    put_integer(&mut model, 1, 8);
    put(&mut model, field::GRAPH, &graph);
    put(&mut model, 8, &opset);
    model
}

fn load_bytes(bytes: &[u8]) -> Result<Model, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    std::fs::write(&path, bytes).unwrap();
    load(&path)
}

#[test]
fn transposed_products_are_computed() {
    let data = |n: usize| (0..n).map(|value| value as f32).collect::<Vec<_>>();
    for (trans_a, trans_b) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let bytes = product(&[alpha(1.0), attribute("transA", trans_a), attribute("transB", trans_b)]);
        let model = load_bytes(&bytes).unwrap();
        let a = NdTensor::from_data([2, 3, 4], data(24));
        // One matrix for all of the other factor's.
        let b = NdTensor::from_data([4, 5], data(20));
        let wanted = |i: usize, m: usize, n: usize| -> f32 { (0..4).map(|k| a[[i, m, k]] * b[[k, n]]).sum() };
        let turned_a = if trans_a == 1 { a.permuted([0, 2, 1]).to_tensor() } else { a.clone() };
        let turned_b = if trans_b == 1 { b.permuted([1, 0]).to_tensor() } else { b.clone() };
        let inputs =
            vec![(model.node_id("a").unwrap(), turned_a.into()), (model.node_id("b").unwrap(), turned_b.into())];
        let output = model.run(inputs, &[model.node_id("c").unwrap()], None).unwrap().swap_remove(0);
        let found: Tensor<f32> = output.try_into().unwrap();
        assert_eq!(found.shape(), &[2, 3, 5]);
        for (i, m, n) in [(0, 0, 0), (0, 2, 4), (1, 1, 3), (1, 2, 0)] {
            assert!((found[[i, m, n]] - wanted(i, m, n)).abs() < 1e-3, "{trans_a} {trans_b} {i} {m} {n}");
        }
    }
}

/// The margins of a convolution are worth as much as its zero point, that is nothing.
#[test]
fn margins_are_the_zero_point() {
    for has_zero_point in [true, false] {
        let names = if has_zero_point { ["x", "w", "x0", "w0"] } else { ["x", "w", "", "w0"] };
        let inputs: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let mut node = new_node(b"ConvInteger", &inputs, b"c", None);
        for (name, values) in [("pads", &[2, 1][..]), ("strides", &[1]), ("dilations", &[1])] {
            let mut attribute = Vec::new();
            put(&mut attribute, field::NAME, name.as_bytes());
            values.iter().for_each(|&value| put_integer(&mut attribute, field::INTEGERS, value));
            put_integer(&mut attribute, field::TYPE, TYPE_INTEGERS);
            put(&mut node, field::ATTRIBUTE, &attribute);
        }
        let present: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
        let network = load_bytes(&model(&node, &present)).unwrap();
        let x: Vec<u8> = vec![90, 200, 0, 100, 255, 30, 20, 10];
        let w: Vec<u8> = vec![1, 70, 255, 60, 3, 99];
        let (x0, w0) = (if has_zero_point { 100 } else { 0 }, 60);
        let mut given = vec![
            (network.node_id("x").unwrap(), NdTensor::from_data([1, 2, 4], x.clone()).into()),
            (network.node_id("w").unwrap(), NdTensor::from_data([1, 2, 3], w.clone()).into()),
            (network.node_id("w0").unwrap(), NdTensor::from_data([], vec![w0 as u8]).into()),
        ];
        if has_zero_point {
            given.push((network.node_id("x0").unwrap(), NdTensor::from_data([], vec![x0 as u8]).into()));
        }
        let output = network.run(given, &[network.node_id("c").unwrap()], None).unwrap().swap_remove(0);
        let found: Tensor<i32> = output.try_into().unwrap();
        let at = |channel: usize, place: usize, tap: usize| -> i32 {
            let inside = (place + tap).checked_sub(2).filter(|&at| at < 4);
            inside.map_or(0, |at| (i32::from(x[channel * 4 + at]) - x0) * (i32::from(w[channel * 3 + tap]) - w0))
        };
        let sum = |place| {
            (0..2).flat_map(|channel| (0..3).map(move |tap| (channel, tap))).map(|(c, t)| at(c, place, t)).sum()
        };
        assert_eq!(found.to_vec(), (0..5).map(sum).collect::<Vec<i32>>(), "{has_zero_point}");
    }
}

#[test]
fn no_direction_has_the_angle_zero() {
    let nodes = [new_node(b"Div", &[b"y", b"x"], b"q", None), new_node(b"Atan", &[b"q"], b"c", None)];
    let network = load_bytes(&model_of(&nodes, &["y", "x"])).unwrap();
    let numbers = |values: [f32; 4]| NdTensor::from_data([4], values.to_vec());
    let given = vec![
        (network.node_id("y").unwrap(), numbers([0.0, 2.0, -1.0, 0.0]).into()),
        (network.node_id("x").unwrap(), numbers([0.0, 2.0, 0.0, -3.0]).into()),
    ];
    let output = network.run(given, &[network.node_id("c").unwrap()], None).unwrap().swap_remove(0);
    let found: Tensor<f32> = output.try_into().unwrap();
    let wanted = [0.0, std::f32::consts::FRAC_PI_4, -std::f32::consts::FRAC_PI_2, 0.0];
    assert!(found.to_vec().iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
}

#[test]
fn what_cannot_be_computed_or_read_is_told() {
    for attribute in [alpha(0.5), alpha(0.0), attribute("transBatchA", 1)] {
        let error = load_bytes(&product(&[attribute])).err().unwrap();
        assert!(error.contains("FusedMatMul has "), "{error}");
    }
    let bytes = product(&[attribute("transA", 1)]);
    for len in 0..bytes.len() {
        // Some cuts leave a smaller network that is whole.
        let _ = load_bytes(&bytes[..len]);
    }
    assert!(load_bytes(b"FusedMatMul").is_err());
}
