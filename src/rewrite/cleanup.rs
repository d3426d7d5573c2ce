//! What must not lie or lie about after pruning: declared shapes and constants that nobody reads any more.
//!
//! Invariants: inputs and outputs of the graph are never touched; a declared shape is changed on shortened axes only.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Shrunk;
use super::constants::Readings;
use crate::graph::{Graph, MAIN, ScopeId, find_graph_mut};
use crate::proto::Slice;
use crate::proto::onnx::{GraphProto, ModelProto, ValueInfoProto, tensor_shape_proto::dimension, type_proto};

/// Brings the declared shapes of inner values, and of initializers listed as inputs, up to date.
pub(super) fn declarations(graph: &Graph, shrunk: &Shrunk, readings: &Readings, model: &mut ModelProto) {
    let mut changed: BTreeMap<ScopeId, HashMap<&str, Vec<Option<usize>>>> = BTreeMap::new();
    for id in graph.value_ids() {
        let value = graph.value(id);
        // Readings of a constant that keep another part than the first have names of their own in the file.
        let is_renamed = value.readers.iter().any(|reader| readings.contains_key(reader));
        if let Some(kept) = shrunk.get(id).filter(|_| !is_renamed) {
            let extents = || kept.iter().map(|k| k.as_ref().map(|k| k.len())).collect();
            changed.entry(value.scope).or_default().entry(value.name).or_insert_with(extents);
        }
    }
    for (scope, changed) in changed {
        let Some(target) = find_graph_mut(model, &graph.scopes, scope) else { continue };
        let initializers: HashSet<String> = target.initializer.iter().map(|t| t.name().to_owned()).collect();
        // What a body takes and returns may shrink; what the main graph does may not.
        let inputs = target.input.iter_mut().filter(|i| scope != MAIN || initializers.contains(i.name()));
        let outputs = target.output.iter_mut().filter(|_| scope != MAIN);
        for info in target.value_info.iter_mut().chain(inputs).chain(outputs) {
            if let Some(extents) = changed.get(info.name()) {
                declare(info, extents);
            }
        }
    }
}

fn declare(info: &mut ValueInfoProto, extents: &[Option<usize>]) {
    let tensor = match info.r#type.as_mut().and_then(|t| t.value.as_mut()) {
        Some(type_proto::Value::TensorType(tensor)) => tensor,
        _ => return,
    };
    let Some(shape) = tensor.shape.as_mut() else { return };
    if shape.dim.len() != extents.len() {
        // A declaration of another rank lied before; without a shape it lies no more.
        tensor.shape = None;
        return;
    }
    for (dim, extent) in shape.dim.iter_mut().zip(extents) {
        if let Some(extent) = extent {
            dim.value = Some(dimension::Value::DimValue(i64::try_from(*extent).unwrap_or(i64::MAX)));
        }
    }
}

/// Drops initializers and `Constant` nodes that nothing reads, with their declarations.
pub(super) fn dead_constants(model: &mut ModelProto, slices: &mut BTreeMap<usize, Slice>) {
    let mut read: HashSet<String> = HashSet::new();
    let Some(graph) = model.graph.as_mut() else { return };
    names_read(graph, &mut read);
    let mut dead: HashSet<String> = HashSet::new();
    let old = std::mem::take(&mut graph.initializer);
    let mut moved = BTreeMap::new();
    for (index, tensor) in old.into_iter().enumerate() {
        if read.contains(tensor.name()) {
            if let Some(slice) = slices.remove(&index) {
                moved.insert(graph.initializer.len(), slice);
            }
            graph.initializer.push(tensor);
        } else {
            dead.insert(tensor.name().to_owned());
        }
    }
    *slices = moved;
    dead_nodes(graph, &read, &mut dead);
    graph.input.retain(|info| !dead.contains(info.name()));
}

/// Drops `Constant` nodes, and inside bodies initializers, that nothing reads.
fn dead_nodes(graph: &mut GraphProto, read: &HashSet<String>, dead: &mut HashSet<String>) {
    graph.node.retain(|node| {
        let is_dead = crate::graph::is_constant(node) && node.output.iter().all(|o| !read.contains(o));
        if is_dead {
            dead.extend(node.output.iter().cloned());
        }
        !is_dead
    });
    graph.value_info.retain(|info| !dead.contains(info.name()));
    for inner in graph.node.iter_mut().flat_map(|n| &mut n.attribute).flat_map(|a| a.g.iter_mut().chain(&mut a.graphs))
    {
        // A name that is dead in one body may be alive in another.
        let mut dead = HashSet::new();
        let inputs: HashSet<String> = inner.input.iter().map(|i| i.name().to_owned()).collect();
        inner.initializer.retain(|tensor| {
            let is_dead = !read.contains(tensor.name()) && !inputs.contains(tensor.name());
            if is_dead {
                dead.insert(tensor.name().to_owned());
            }
            !is_dead
        });
        dead_nodes(inner, read, &mut dead);
    }
}

fn names_read(graph: &GraphProto, read: &mut HashSet<String>) {
    read.extend(graph.output.iter().map(|o| o.name().to_owned()));
    for annotation in &graph.quantization_annotation {
        read.extend(annotation.quant_parameter_tensor_names.iter().map(|e| e.value().to_owned()));
    }
    for node in &graph.node {
        read.extend(node.input.iter().cloned());
        for inner in node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)) {
            names_read(inner, read);
        }
    }
}
