//! A model as it is handed to ONNX Runtime: with the wanted values as its outputs and the given shapes at its inputs.
//!
//! Spec: <https://github.com/onnx/onnx/blob/main/docs/IR.md>. Invariants: the reader has put external data into
//! `raw_data`, so nothing refers to a file any more; no encoded model passes the 2 GB that protobuf allows.

use std::collections::BTreeSet;

use ort::value::DynValue;
use prost::Message;

use super::super::InputFact;
use super::tensor;
use crate::proto::build::{declaration, signed};
use crate::proto::onnx::tensor_proto::DataLocation;
use crate::proto::onnx::{GraphProto, ModelProto, StringStringEntryProto, TensorProto, ValueInfoProto, type_proto};
use crate::proto::visit;
use crate::{Error, Result};

/// What a session is made of.
pub(super) struct Prepared {
    /// The encoded model.
    pub(super) bytes: Vec<u8>,
    /// Weights that are not in it, by name.
    pub(super) weights: Vec<(String, DynValue)>,
    /// The inputs, with the shapes that they are fed in.
    pub(super) inputs: Vec<InputFact>,
    /// The values to return, in this order; they may repeat.
    pub(super) wanted: Vec<String>,
    /// Which of them the model computes: those that are no inputs.
    pub(super) computed: BTreeSet<String>,
}

/// Weights of fewer bytes stay in the encoded model.
const WEIGHT_BYTES: usize = 1 << 16;

/// What protobuf allows.
const MOST_ENCODED: usize = i32::MAX as usize;

/// Where weights that are handed over one by one are said to lie. Nothing is read from there.
const NOWHERE: &str = "in-memory";

/// Makes `model` return `wanted` from `inputs`. Models of more than `most_inline` bytes get their weights one by one.
pub(super) fn prepare(
    model: &ModelProto,
    inputs: &[InputFact],
    wanted: &[String],
    most_inline: usize,
) -> Result<Prepared> {
    let mut copy = model.clone();
    // Calls for training are not run, and may hold as much as the graph.
    copy.training_info.clear();
    visit::tensors_mut(&mut copy, &mut |tensor| {
        if tensor.raw_data.is_some() {
            tensor.data_location = None;
            tensor.external_data.clear();
        }
        Ok(())
    })?;
    let graph = copy.graph.as_mut().ok_or_else(|| Error::engine("the model has no graph"))?;
    let (inputs, retyped) = fix_inputs(graph, inputs)?;
    let computed = select_outputs(graph, &inputs, wanted)?;
    forget_shapes(graph, retyped);
    let mut weights = Vec::new();
    if copy.encoded_len() > most_inline
        && let Some(graph) = copy.graph.as_mut()
    {
        for tensor in &mut graph.initializer {
            take_out(tensor, &mut weights)?;
        }
    }
    let bytes = copy.encoded_len();
    if bytes > MOST_ENCODED {
        let what =
            format!("{bytes} bytes of the model are not plain weights of its main graph, and protobuf ends at 2 GB");
        return Err(Error::engine(what).help("use --engine tract"));
    }
    Ok(Prepared { bytes: copy.encode_to_vec(), weights, inputs, wanted: wanted.to_vec(), computed })
}

/// Declares every input as it will be fed; gives the facts of those that must be, and whether a type has changed.
fn fix_inputs(graph: &mut GraphProto, facts: &[InputFact]) -> Result<(Vec<InputFact>, bool)> {
    let initializers: BTreeSet<&str> = graph.initializer.iter().map(TensorProto::name).collect();
    let (mut fed, mut retyped) = (Vec::new(), false);
    for input in graph.input.iter_mut().filter(|i| !initializers.contains(i.name())) {
        let fact = facts.iter().find(|fact| fact.name == input.name());
        let fact = fact.ok_or_else(|| Error::engine("no shape is known for a graph input").tensor(input.name()))?;
        let declared = input.r#type.as_ref().and_then(|t| t.value.as_ref());
        retyped |= !matches!(declared, Some(type_proto::Value::TensorType(t)) if t.elem_type() == fact.element as i32);
        input.r#type = declaration(&fact.name, fact.element as i32, &signed(&fact.shape)).r#type;
        fed.push(fact.clone());
    }
    Ok((fed, retyped))
}

/// Makes the wanted values the outputs. Types need not be told; they are inferred.
fn select_outputs(graph: &mut GraphProto, inputs: &[InputFact], wanted: &[String]) -> Result<BTreeSet<String>> {
    let fed: BTreeSet<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
    let made = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
    let known: BTreeSet<&str> = made
        .chain(graph.initializer.iter().map(TensorProto::name))
        .chain(graph.sparse_initializer.iter().filter_map(|s| s.values.as_ref()).map(TensorProto::name))
        .collect();
    let mut computed = BTreeSet::new();
    for name in wanted.iter().filter(|name| !fed.contains(name.as_str())) {
        if name.is_empty() || !known.contains(name.as_str()) {
            return Err(Error::engine("the model has no such value").tensor(name));
        }
        computed.insert(name.clone());
    }
    let untyped = |name: &String| ValueInfoProto { name: Some(name.clone()), ..ValueInfoProto::default() };
    let declared = graph.output.iter().map(|o| (o.name().to_owned(), o.clone()));
    let declared: std::collections::BTreeMap<String, ValueInfoProto> = declared.collect();
    graph.output = computed.iter().map(|name| declared.get(name).cloned().unwrap_or_else(|| untyped(name))).collect();
    Ok(computed)
}

/// Pruned files may carry stale shapes, and the inputs may come in another batch, or of another type, than the file was
/// exported with.
fn forget_shapes(graph: &mut GraphProto, retyped: bool) {
    for value in graph.output.iter_mut().chain(&mut graph.value_info) {
        if retyped {
            value.r#type = None;
        } else if let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_mut().and_then(|t| t.value.as_mut())
        {
            tensor.shape = None;
        }
    }
    graph.value_info.retain(|value| value.r#type.is_some());
}

/// Moves a big weight out of the model, which then says that its data is elsewhere.
fn take_out(tensor: &mut TensorProto, weights: &mut Vec<(String, DynValue)>) -> Result<()> {
    if tensor.raw_data.as_ref().is_none_or(|raw| raw.len() < WEIGHT_BYTES) {
        return Ok(());
    }
    let Some(value) = tensor::weight(tensor)? else { return Ok(()) };
    tensor.raw_data = None;
    tensor.set_data_location(DataLocation::External);
    tensor.external_data =
        vec![StringStringEntryProto { key: Some("location".to_owned()), value: Some(NOWHERE.to_owned()) }];
    weights.push((tensor.name().to_owned(), value));
    Ok(())
}
