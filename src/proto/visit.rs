//! Every tensor of a model, wherever it lies: initializers, attributes, nested subgraphs, functions, training graphs.
//!
//! Invariants: the order is fixed (fields as listed below), so two walks over one model agree. The recursion is as deep
//! as graphs are nested, which the decoder limits to 100 messages.

use super::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};
use crate::Result;

/// Calls `visit` on every tensor of the model and lets it change them; stops at the first error.
pub(crate) fn tensors_mut(model: &mut ModelProto, visit: &mut dyn FnMut(&mut TensorProto) -> Result<()>) -> Result<()> {
    if let Some(main) = &mut model.graph {
        graph(main, visit)?;
    }
    for training in &mut model.training_info {
        for part in [&mut training.initialization, &mut training.algorithm].into_iter().flatten() {
            graph(part, visit)?;
        }
    }
    for function in &mut model.functions {
        attributes(&mut function.attribute_proto, visit)?;
        nodes(&mut function.node, visit)?;
    }
    Ok(())
}

fn graph(graph: &mut GraphProto, visit: &mut dyn FnMut(&mut TensorProto) -> Result<()>) -> Result<()> {
    graph.initializer.iter_mut().try_for_each(&mut *visit)?;
    graph.sparse_initializer.iter_mut().try_for_each(|tensor| sparse(tensor, visit))?;
    nodes(&mut graph.node, visit)
}

fn nodes(nodes: &mut [NodeProto], visit: &mut dyn FnMut(&mut TensorProto) -> Result<()>) -> Result<()> {
    nodes.iter_mut().try_for_each(|node| attributes(&mut node.attribute, visit))
}

fn attributes(attributes: &mut [AttributeProto], visit: &mut dyn FnMut(&mut TensorProto) -> Result<()>) -> Result<()> {
    for attribute in attributes {
        attribute.t.iter_mut().chain(&mut attribute.tensors).try_for_each(&mut *visit)?;
        let single = attribute.sparse_tensor.iter_mut();
        single.chain(&mut attribute.sparse_tensors).try_for_each(|tensor| sparse(tensor, visit))?;
        attribute.g.iter_mut().chain(&mut attribute.graphs).try_for_each(|nested| graph(nested, visit))?;
    }
    Ok(())
}

fn sparse(tensor: &mut SparseTensorProto, visit: &mut dyn FnMut(&mut TensorProto) -> Result<()>) -> Result<()> {
    tensor.values.iter_mut().chain(&mut tensor.indices).try_for_each(&mut *visit)
}

/// True when `test` holds for a tensor other than the initializers of the main graph.
pub(crate) fn any_nested(model: &ModelProto, test: &dyn Fn(&TensorProto) -> bool) -> bool {
    let in_main = model.graph.iter().any(|main| any_in_graph_body(main, test));
    let mut training = model.training_info.iter().flat_map(|info| info.initialization.iter().chain(&info.algorithm));
    in_main
        || training.any(|graph| any_in_graph(graph, test))
        || model
            .functions
            .iter()
            .any(|function| any_in_attributes(&function.attribute_proto, test) || any_in_nodes(&function.node, test))
}

fn any_in_graph(graph: &GraphProto, test: &dyn Fn(&TensorProto) -> bool) -> bool {
    graph.initializer.iter().any(test) || any_in_graph_body(graph, test)
}

fn any_in_graph_body(graph: &GraphProto, test: &dyn Fn(&TensorProto) -> bool) -> bool {
    graph.sparse_initializer.iter().any(|tensor| any_in_sparse(tensor, test)) || any_in_nodes(&graph.node, test)
}

fn any_in_nodes(nodes: &[NodeProto], test: &dyn Fn(&TensorProto) -> bool) -> bool {
    nodes.iter().any(|node| any_in_attributes(&node.attribute, test))
}

fn any_in_attributes(attributes: &[AttributeProto], test: &dyn Fn(&TensorProto) -> bool) -> bool {
    attributes.iter().any(|attribute| {
        attribute.t.iter().chain(&attribute.tensors).any(test)
            || attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors).any(|tensor| any_in_sparse(tensor, test))
            || attribute.g.iter().chain(&attribute.graphs).any(|graph| any_in_graph(graph, test))
    })
}

fn any_in_sparse(tensor: &SparseTensorProto, test: &dyn Fn(&TensorProto) -> bool) -> bool {
    tensor.values.iter().chain(&tensor.indices).any(test)
}
