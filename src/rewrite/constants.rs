//! Constants: each is sliced once; where its readings keep different parts, every further part gets a copy.
//!
//! Invariants: the first part in reading order keeps the constant's name, unless some reading needs the whole, which
//! then keeps it; a constant that a graph returns is never renamed; copies are initializers of the main graph, which
//! every body sees (and inputs up to IR version 3, where every initializer must be one).

use std::collections::{BTreeMap, HashMap};

use super::Shrunk;
use super::names::Names;
use crate::graph::{Constant, Graph, MAIN, NodeId, Place, ValueId, find_graph_mut};
use crate::kept::KeptAxes;
use crate::proto::build::declaration;
use crate::proto::onnx::{AttributeProto, ModelProto, TensorProto, attribute_proto::AttributeType};
use crate::proto::{Slice, tensor};
use crate::{Error, Result};

/// The name under which a node's input slot finds its part of a constant, where that is not the constant's own.
pub(super) type Readings = HashMap<(NodeId, usize), String>;

/// Slices all shortened constants of the graph into `model` and `slices`.
pub(super) fn slice(
    graph: &Graph,
    shrunk: &Shrunk,
    model: &mut ModelProto,
    slices: &mut BTreeMap<usize, Slice>,
    names: &mut Names,
) -> Result<Readings> {
    let mut readings = Readings::new();
    for (place, values) in by_place(graph) {
        if values.iter().all(|v| shrunk.get(*v).is_none()) {
            continue;
        }
        let parts = parts(graph, shrunk, &values);
        for (number, (kept, values)) in parts.iter().enumerate() {
            let Some(first) = values.first() else { continue };
            let value = graph.value(*first);
            let Some(constant) = value.constant() else { continue };
            let slice = match kept {
                Some(kept) => Some(part(constant, kept).map_err(|e| e.tensor(value.name))?),
                None => None,
            };
            if number == 0 {
                if let Some(slice) = slice {
                    replace(graph, model, slices, place, slice)?;
                }
                continue;
            }
            let name = names.fresh(value.name);
            for value in values {
                readings.extend(graph.value(*value).readers.iter().map(|reader| (*reader, name.clone())));
            }
            add(model, slices, constant, &name, slice);
        }
    }
    Ok(readings)
}

/// The values that stand for each stored constant: the constant itself and its further readings.
fn by_place(graph: &Graph) -> BTreeMap<Place, Vec<ValueId>> {
    let mut places: BTreeMap<Place, Vec<ValueId>> = BTreeMap::new();
    for id in graph.value_ids() {
        if let Some(constant) = graph.value(id).constant() {
            places.entry(constant.place).or_default().push(id);
        }
    }
    places
}

/// The distinct parts that the readings keep, the one that keeps the name first.
fn parts(graph: &Graph, shrunk: &Shrunk, values: &[ValueId]) -> Vec<(Option<KeptAxes>, Vec<ValueId>)> {
    let mut parts: Vec<(Option<KeptAxes>, Vec<ValueId>)> = Vec::new();
    for id in values {
        let value = graph.value(*id);
        if value.readers.is_empty() && !value.is_output {
            continue;
        }
        let kept = shrunk.get(*id).cloned();
        match parts.iter_mut().find(|(k, _)| *k == kept) {
            Some((_, list)) => list.push(*id),
            None => parts.push((kept, vec![*id])),
        }
    }
    // What a body returns is returned by name, and a main graph returns the whole.
    let returned = |ids: &[ValueId]| ids.iter().any(|id| graph.value(*id).is_output);
    let named = parts.iter().position(|(_, ids)| returned(ids));
    if let Some(first) = named.or_else(|| parts.iter().position(|(kept, _)| kept.is_none())) {
        parts.swap(0, first);
    }
    parts
}

fn part(constant: &Constant, kept: &KeptAxes) -> Result<Slice> {
    let tensor = constant.tensor.as_ref();
    let bits = tensor::element_bits(tensor.data_type());
    let element_bits = bits.ok_or_else(|| Error::input("tensors of this type cannot be sliced"))?;
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
    let dims = dims.ok_or_else(|| Error::input("a dimension is negative"))?;
    Ok(Slice { source: tensor::raw_bytes(tensor)?, element_bits, dims, keep: kept.clone() })
}

/// Puts a part where the constant is stored.
fn replace(
    graph: &Graph,
    model: &mut ModelProto,
    slices: &mut BTreeMap<usize, Slice>,
    place: Place,
    slice: Slice,
) -> Result<()> {
    match place {
        Place::Initializer(MAIN, index) => {
            slices.insert(index, slice);
        }
        Place::Initializer(scope, index) => {
            let body = find_graph_mut(model, &graph.scopes, scope);
            let Some(tensor) = body.and_then(|g| g.initializer.get_mut(index)) else { return Ok(()) };
            *tensor = materialise(tensor, &slice)?;
        }
        Place::Node(scope, position) => {
            let holder = find_graph_mut(model, &graph.scopes, scope);
            let Some(node) = holder.and_then(|g| g.node.get_mut(position)) else { return Ok(()) };
            let Some(attribute) = node.attribute.first_mut() else { return Ok(()) };
            let old = constant_tensor(attribute);
            let new = materialise(&old, &slice)?;
            *attribute = AttributeProto {
                name: Some("value".to_owned()),
                t: Some(new),
                r#type: Some(AttributeType::Tensor as i32),
                doc_string: attribute.doc_string.clone(),
                ..Default::default()
            };
        }
    }
    Ok(())
}

/// The tensor of a `Constant` node's attribute; lists of numbers have a type but no tensor.
fn constant_tensor(attribute: &AttributeProto) -> TensorProto {
    use crate::proto::onnx::tensor_proto::DataType;
    match &attribute.t {
        Some(tensor) => tensor.clone(),
        None => {
            let data_type = if attribute.floats.is_empty() { DataType::Int64 } else { DataType::Float };
            TensorProto { data_type: Some(data_type as i32), ..Default::default() }
        }
    }
}

/// A part as a tensor of its own; name, type and documentation stay.
fn materialise(old: &TensorProto, slice: &Slice) -> Result<TensorProto> {
    Ok(TensorProto {
        dims: slice.dims_after().iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX)).collect(),
        data_type: old.data_type,
        name: old.name.clone(),
        doc_string: old.doc_string.clone(),
        raw_data: Some(slice.materialize()?),
        metadata_props: old.metadata_props.clone(),
        ..Default::default()
    })
}

/// Adds a part under a name of its own.
fn add(
    model: &mut ModelProto,
    slices: &mut BTreeMap<usize, Slice>,
    constant: &Constant,
    name: &str,
    slice: Option<Slice>,
) {
    let is_early = model.ir_version() < 4;
    let Some(graph) = model.graph.as_mut() else { return };
    let mut tensor = constant.tensor.as_ref().clone();
    tensor.name = Some(name.to_owned());
    let dims = slice.as_ref().map_or_else(
        || tensor.dims.clone(),
        |s| s.dims_after().iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX)).collect(),
    );
    if is_early {
        graph.input.push(declaration(name, tensor.data_type(), &dims));
    }
    if let Some(slice) = slice {
        slices.insert(graph.initializer.len(), slice);
    }
    graph.initializer.push(tensor);
}
