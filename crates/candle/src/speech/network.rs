//! ONNX networks for rten.
//!
//! Three operators are rewritten while a file is read. onnxruntime's `FusedMatMul`, a product whose factors may be
//! transposed, is not known to rten: it becomes a `MatMul` behind an `Einsum` for each factor that is, since that turns the
//! last two dimensions of any number of them. `ConvInteger` (rten 0.27) fills its margins with another number than the
//! zero point, which spoils both ends of a sound: it gets a `Pad` in front of it. `Atan` of a quotient is what exporters
//! make of PyTorch's `atan2`, whose result for two zeros is 0 and not 0 divided by 0: it is followed by a choice. Only the
//! bytes of such nodes change, by the field numbers of `onnx.proto`.

mod wire;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use rten::{Model, NodeId, RunOptions, ThreadPool, ValueOrView};
use rten_tensor::prelude::*;

use super::VoiceError;
use wire::{Field, Fields, fields, put, put_integer};

/// Field numbers of `onnx.proto`.
mod field {
    /// `ModelProto.graph`.
    pub(super) const GRAPH: u64 = 7;
    /// `GraphProto.node`.
    pub(super) const NODE: u64 = 1;
    /// `GraphProto.initializer`.
    pub(super) const INITIALIZER: u64 = 5;
    /// `NodeProto.input`.
    pub(super) const INPUT: u64 = 1;
    /// `NodeProto.output`.
    pub(super) const OUTPUT: u64 = 2;
    /// `NodeProto.op_type`.
    pub(super) const OPERATOR: u64 = 4;
    /// `NodeProto.attribute`.
    pub(super) const ATTRIBUTE: u64 = 5;
    /// `NodeProto.domain`.
    pub(super) const DOMAIN: u64 = 7;
    /// `AttributeProto.name`.
    pub(super) const NAME: u64 = 1;
    /// `AttributeProto.f`.
    pub(super) const FLOAT: u64 = 2;
    /// `AttributeProto.i`.
    pub(super) const INTEGER: u64 = 3;
    /// `AttributeProto.s`.
    pub(super) const STRING: u64 = 4;
    /// `AttributeProto.ints`.
    pub(super) const INTEGERS: u64 = 8;
    /// `AttributeProto.type`.
    pub(super) const TYPE: u64 = 20;
    /// `TensorProto.dims`.
    pub(super) const DIMS: u64 = 1;
    /// `TensorProto.data_type`.
    pub(super) const DATA_TYPE: u64 = 2;
    /// `TensorProto.name`.
    pub(super) const TENSOR_NAME: u64 = 8;
    /// `TensorProto.raw_data`.
    pub(super) const RAW_DATA: u64 = 9;
}

/// `AttributeProto.AttributeType.STRING`.
const TYPE_STRING: u64 = 3;
/// `AttributeProto.AttributeType.INTS`.
const TYPE_INTEGERS: u64 = 7;
/// `TensorProto.DataType.FLOAT`.
const FLOAT: u64 = 1;
/// `TensorProto.DataType.INT64`.
const INT64: u64 = 7;
/// Why a node cannot be rewritten.
const CUT_OFF: &str = "one of its nodes is cut off";

/// Reads a network.
///
/// # Errors
/// Why rten cannot run it.
pub(super) fn load(path: &Path) -> Result<Model, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let model = match rewritten(&bytes)? {
        Some(bytes) => Model::load(bytes),
        // Read anew, since weights may lie in files beside it.
        None => Model::load_file(path),
    };
    model.map_err(|error| error.to_string())
}

/// The sound that a voice's network makes of its inputs.
///
/// # Errors
/// [`VoiceError::Run`].
pub(super) fn sound(
    model: &Model,
    threads: &Arc<ThreadPool>,
    inputs: Vec<(NodeId, ValueOrView<'_>)>,
    output: NodeId,
) -> Result<Vec<f32>, VoiceError> {
    let failed = |reason: String| VoiceError::Run { reason };
    let options = RunOptions::default().with_thread_pool(Some(Arc::clone(threads)));
    let outputs = model.run(inputs, &[output], Some(options));
    let output = outputs.map_err(|error| failed(error.to_string()))?.swap_remove(0);
    let sound: rten_tensor::Tensor<f32> = output.try_into().map_err(|_| failed("its output is not a sound".into()))?;
    let sound = sound.to_vec();
    if sound.iter().any(|sample| !sample.is_finite()) {
        return Err(failed("what it says is not finite".into()));
    }
    Ok(sound)
}

/// The same network, as rten can run it; none where it can as it is.
fn rewritten(bytes: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let has = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    if !has(b"FusedMatMul") && !has(b"ConvInteger") && !has(b"Atan") {
        return Ok(None);
    }
    let mut model = Vec::with_capacity(bytes.len() + (64 << 10));
    for field in Fields(bytes) {
        // What is no network at all is told by rten.
        let Some(field) = field else { return Ok(None) };
        match field.number {
            field::GRAPH => put(&mut model, field::GRAPH, &graph(field.content)?),
            _ => model.extend_from_slice(field.whole),
        }
    }
    Ok(Some(model))
}

fn graph(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut graph = Vec::with_capacity(bytes.len() + (64 << 10));
    let mut quotients = HashSet::new();
    for field in Fields(bytes) {
        let field = field.ok_or("its graph is cut off")?;
        if field.number != field::NODE {
            graph.extend_from_slice(field.whole);
            continue;
        }
        let node = Node::read(field.content)?;
        match node.operator {
            b"FusedMatMul" => put_product(&mut graph, &node)?,
            b"Atan" if node.inputs.iter().any(|input| quotients.contains(input)) => put_angle(&mut graph, &node),
            b"ConvInteger" if node.has_margins()? => put_convolution(&mut graph, &node)?,
            _ => graph.extend_from_slice(field.whole),
        }
        if node.operator == b"Div" {
            quotients.insert(node.output);
        }
    }
    Ok(graph)
}

struct Node<'a> {
    operator: &'a [u8],
    inputs: Vec<&'a [u8]>,
    /// The first output.
    output: &'a [u8],
    attributes: Vec<&'a [u8]>,
    fields: Vec<Field<'a>>,
}

impl<'a> Node<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let fields = fields(bytes).ok_or(CUT_OFF)?;
        let all = |number| -> Vec<&'a [u8]> {
            fields.iter().filter(|field| field.number == number).map(|field| field.content).collect()
        };
        let first = |number| all(number).first().copied().unwrap_or_default();
        let (operator, output) = (first(field::OPERATOR), first(field::OUTPUT));
        Ok(Self { operator, inputs: all(field::INPUT), output, attributes: all(field::ATTRIBUTE), fields })
    }

    /// How far a convolution reaches beyond its input, at the start of each dimension and then at the end of each.
    fn margins(&self) -> Result<Vec<u64>, String> {
        for attribute in &self.attributes {
            let fields = fields(attribute).ok_or(CUT_OFF)?;
            if fields.iter().any(|field| field.number == field::NAME && field.content == b"pads") {
                // The format writes each integer as a field.
                let lens = fields.iter().filter(|field| field.number == field::INTEGERS);
                return Ok(lens.map(|field| field.value).collect());
            }
        }
        Ok(Vec::new())
    }

    fn has_margins(&self) -> Result<bool, String> {
        Ok(self.margins()?.iter().any(|&len| len > 0))
    }

    /// The same node with other inputs and another operator of the standard, and with the attributes that `keeps` says.
    fn changed(&self, operator: &[u8], inputs: &[Vec<u8>], keeps: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut node = Vec::new();
        inputs.iter().for_each(|input| put(&mut node, field::INPUT, input));
        put(&mut node, field::OPERATOR, operator);
        for field in &self.fields {
            match field.number {
                // The standard's domain is the absent one.
                field::INPUT | field::OPERATOR | field::DOMAIN => {}
                field::ATTRIBUTE if !keeps(field.content) => {}
                _ => node.extend_from_slice(field.whole),
            }
        }
        node
    }
}

fn put_product(graph: &mut Vec<u8>, node: &Node<'_>) -> Result<(), String> {
    let mut is_transposed = [false; 2];
    for attribute in &node.attributes {
        match attribute_of(attribute).ok_or(CUT_OFF)? {
            (b"transA", value) if value != 0.0 => is_transposed[0] = true,
            (b"transB", value) if value != 0.0 => is_transposed[1] = true,
            (b"alpha", 1.0) => {}
            (name, 0.0) if name != b"alpha" => {}
            (name, value) => {
                let name = String::from_utf8_lossy(name);
                return Err(format!("its operator FusedMatMul has {name}={value}, which is not computed here"));
            }
        }
    }
    let mut inputs = Vec::new();
    for (factor, (input, is_transposed)) in node.inputs.iter().zip(is_transposed).enumerate() {
        if is_transposed {
            let name = [node.output, b"/factor", factor.to_string().as_bytes()].concat();
            put(graph, field::NODE, &turned(input, &name));
            inputs.push(name);
        } else {
            inputs.push(input.to_vec());
        }
    }
    put(graph, field::NODE, &node.changed(b"MatMul", &inputs, |_| false));
    Ok(())
}

/// The angle, or 0 where there is none.
fn put_angle(graph: &mut Vec<u8>, node: &Node<'_>) {
    let name = |ending: &[u8]| [node.output, ending].concat();
    let (angle, is_none, zero) = (name(b"/angle"), name(b"/is_none"), name(b"/zero"));
    let mut tensor = Vec::new();
    put_integer(&mut tensor, field::DATA_TYPE, FLOAT);
    put(&mut tensor, field::TENSOR_NAME, &zero);
    put(&mut tensor, field::RAW_DATA, &0.0_f32.to_le_bytes());
    put(graph, field::INITIALIZER, &tensor);
    put(graph, field::NODE, &new_node(b"Atan", &node.inputs, &angle, None));
    put(graph, field::NODE, &new_node(b"IsNaN", &[&angle], &is_none, None));
    put(graph, field::NODE, &new_node(b"Where", &[&is_none, &zero, &angle], node.output, None));
}

/// A node that exchanges the last two dimensions of `input`.
fn turned(input: &[u8], output: &[u8]) -> Vec<u8> {
    let mut equation = Vec::new();
    put(&mut equation, field::NAME, b"equation");
    put(&mut equation, field::STRING, b"...ab->...ba");
    put_integer(&mut equation, field::TYPE, TYPE_STRING);
    new_node(b"Einsum", &[input], output, Some(&equation))
}

fn new_node(operator: &[u8], inputs: &[&[u8]], output: &[u8], attribute: Option<&[u8]>) -> Vec<u8> {
    let mut node = Vec::new();
    inputs.iter().for_each(|input| put(&mut node, field::INPUT, input));
    put(&mut node, field::OUTPUT, output);
    put(&mut node, field::OPERATOR, operator);
    if let Some(attribute) = attribute {
        put(&mut node, field::ATTRIBUTE, attribute);
    }
    node
}

/// The margins are filled with the zero point, the third input, by a node of their own.
fn put_convolution(graph: &mut Vec<u8>, node: &Node<'_>) -> Result<(), String> {
    let margins = node.margins()?;
    let name = |ending: &[u8]| [node.output, ending].concat();
    let (pads, padded) = (name(b"/pads"), name(b"/padded"));
    // Of images of a batch and channels: none.
    let half = margins.len() / 2;
    let widths = [&[0, 0], &margins[..half], &[0, 0], &margins[half..]].concat();
    let mut tensor = Vec::new();
    put_integer(&mut tensor, field::DIMS, widths.len() as u64);
    put_integer(&mut tensor, field::DATA_TYPE, INT64);
    put(&mut tensor, field::TENSOR_NAME, &pads);
    put(&mut tensor, field::RAW_DATA, &widths.iter().flat_map(|width| width.to_le_bytes()).collect::<Vec<u8>>());
    put(graph, field::INITIALIZER, &tensor);
    let mut inputs: Vec<Vec<u8>> = node.inputs.iter().map(|input| input.to_vec()).collect();
    let first = inputs.first_mut().ok_or("a convolution has no input")?;
    let input = std::mem::replace(first, padded.clone());
    let zero_point = node.inputs.get(2).filter(|name| !name.is_empty());
    let of_pad: Vec<&[u8]> = [&input[..], &pads].into_iter().chain(zero_point.copied()).collect();
    put(graph, field::NODE, &new_node(b"Pad", &of_pad, &padded, None));
    let is_other = |attribute: &[u8]| attribute_of(attribute).is_some_and(|(name, _)| name != b"pads");
    let mut convolution = node.changed(b"ConvInteger", &inputs, is_other);
    // rten takes absent margins for those of two dimensions.
    let mut none = Vec::new();
    put(&mut none, field::NAME, b"pads");
    margins.iter().for_each(|_| put_integer(&mut none, field::INTEGERS, 0));
    put_integer(&mut none, field::TYPE, TYPE_INTEGERS);
    put(&mut convolution, field::ATTRIBUTE, &none);
    put(graph, field::NODE, &convolution);
    Ok(())
}

/// Name and number of an attribute.
fn attribute_of(bytes: &[u8]) -> Option<(&[u8], f64)> {
    let fields = fields(bytes)?;
    let of = |number| fields.iter().find(|field| field.number == number);
    let float = of(field::FLOAT).and_then(|field| Some(f64::from(f32::from_le_bytes(field.content.try_into().ok()?))));
    let integer = of(field::INTEGER).map(|field| field.value as f64);
    // Numbers that are 0 need not be written.
    Some((
        of(field::NAME).map_or(&[][..], |field| field.content),
        integer.filter(|&i| i != 0.0).or(float).unwrap_or(0.0),
    ))
}

#[cfg(test)]
mod tests;
