//! Which outer values the subgraphs of a node read.
//!
//! Spec: <https://github.com/onnx/onnx/blob/main/docs/IR.md> (names of a subgraph shadow nothing and may refer to any
//! value of the graphs around it). Invariant: the walk is iterative in breadth and bounded in depth by the reader.

use std::collections::BTreeSet;

use crate::proto::onnx::{AttributeProto, GraphProto, NodeProto};

/// The names that the subgraphs of `node` read from outside, in order of name.
pub(super) fn captured_names(node: &NodeProto) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for graph in subgraphs(node) {
        free_names(graph, &mut names);
    }
    names
}

/// The subgraphs that a node holds in its attributes.
pub(super) fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs))
}

fn free_names<'m>(graph: &'m GraphProto, free: &mut BTreeSet<&'m str>) {
    let mut own: BTreeSet<&str> = BTreeSet::new();
    own.extend(graph.input.iter().map(|i| i.name()));
    own.extend(graph.initializer.iter().map(|i| i.name()));
    own.extend(graph.sparse_initializer.iter().filter_map(|i| i.values.as_ref()).map(|v| v.name()));
    own.extend(graph.node.iter().flat_map(|n| n.output.iter().map(String::as_str)));
    let mut read: BTreeSet<&str> = BTreeSet::new();
    for node in &graph.node {
        read.extend(node.input.iter().map(String::as_str));
        for inner in subgraphs(node) {
            free_names(inner, &mut read);
        }
    }
    read.extend(graph.output.iter().map(|o| o.name()));
    free.extend(read.into_iter().filter(|name| !name.is_empty() && !own.contains(name)));
}

/// The subgraphs of a node, to be changed.
pub(super) fn bodies_mut(node: &mut NodeProto) -> impl Iterator<Item = &mut GraphProto> {
    node.attribute.iter_mut().flat_map(|a| a.g.iter_mut().chain(&mut a.graphs))
}

/// The subgraphs of a node, each with its attribute and its number there.
pub(super) fn named_bodies(node: &NodeProto) -> impl Iterator<Item = (&str, usize, &GraphProto)> {
    let of = |a| AttributeProto::name(a);
    node.attribute.iter().flat_map(move |a| a.g.iter().chain(&a.graphs).enumerate().map(move |(i, g)| (of(a), i, g)))
}
