//! Reach: what a graph's outputs need stays, everything else goes.
//!
//! Spec: <https://github.com/onnx/onnx/blob/main/docs/IR.md> (bodies read values of the graphs around them by name, and
//! no name is defined twice in reach of each other). Invariant: a body keeps its inputs, and its outputs unless all of
//! its node's bodies lose the same one with the node.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::ops::returns_by_position;
use crate::proto::onnx::{GraphProto, NodeProto};

/// Removes what feeds no output from the main graph and its bodies, and graph inputs that only that has read.
pub(super) fn reduce(graph: &mut GraphProto) {
    let before = names_read(graph);
    let constants: HashSet<String> = graph.initializer.iter().map(|tensor| tensor.name().to_owned()).collect();
    within(graph, &BTreeSet::new());
    let after = names_read(graph);
    let stays: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
    graph.input.retain(|input| match constants.contains(input.name()) {
        true => stays.contains(input.name()),
        false => after.contains(input.name()) || !before.contains(input.name()),
    });
}

/// Removes what feeds no output of one graph; `given` are the names of constants that stay in any case.
fn within(graph: &mut GraphProto, given: &BTreeSet<String>) {
    let mut gone: HashSet<String> = HashSet::new();
    loop {
        for body in graph.node.iter_mut().flat_map(bodies_mut) {
            let inputs = body.input.iter().map(|input| input.name().to_owned()).collect();
            within(body, &inputs);
        }
        let alive = alive(graph);
        let nodes = std::mem::take(&mut graph.node);
        for (node, alive) in nodes.into_iter().zip(alive) {
            if alive {
                graph.node.push(node);
            } else {
                gone.extend(node.output);
            }
        }
        let read = names_read(graph);
        let mut shortened = false;
        for node in graph.node.iter_mut().filter(|node| returns_by_position(node.domain(), node.op_type())) {
            shortened |= without_unread(node, &read, &mut gone);
        }
        if !shortened {
            break;
        }
    }
    graph.quantization_annotation.retain(|annotation| !gone.contains(annotation.tensor_name()));
    let read = names_read(graph);
    let mut stays = |name: &str| {
        let stays = read.contains(name) || given.contains(name);
        if !stays {
            gone.insert(name.to_owned());
        }
        stays
    };
    graph.initializer.retain(|tensor| stays(tensor.name()));
    graph.sparse_initializer.retain(|sparse| sparse.values.as_ref().is_none_or(|values| stays(values.name())));
    graph.value_info.retain(|info| !gone.contains(info.name()));
}

/// Which nodes feed an output.
fn alive(graph: &GraphProto) -> Vec<bool> {
    let mut producers: HashMap<&str, usize> = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        producers.extend(node.output.iter().filter(|name| !name.is_empty()).map(|name| (name.as_str(), index)));
    }
    let mut alive = vec![false; graph.node.len()];
    let mut work: Vec<usize> = graph.output.iter().filter_map(|o| producers.get(o.name()).copied()).collect();
    while let Some(index) = work.pop() {
        let (Some(alive), Some(node)) = (alive.get_mut(index), graph.node.get(index)) else { continue };
        if std::mem::replace(alive, true) {
            continue;
        }
        let mut names: HashSet<String> = HashSet::new();
        read_by(node, &mut names);
        work.extend(names.iter().filter_map(|name| producers.get(name.as_str()).copied()));
    }
    alive
}

/// Leaves out what a node and all of its bodies return and nobody reads; true if there was such an output.
fn without_unread(node: &mut NodeProto, read: &HashSet<String>, gone: &mut HashSet<String>) -> bool {
    let count = node.output.len();
    if bodies(node).any(|body| body.output.len() != count) {
        return false;
    }
    let unread: Vec<bool> = node.output.iter().map(|name| !read.contains(name)).collect();
    // A node without outputs is no node.
    if !unread.contains(&true) || !unread.contains(&false) {
        return false;
    }
    let stays = |index: usize| unread.get(index) == Some(&false);
    gone.extend(node.output.iter().zip(&unread).filter(|(_, unread)| **unread).map(|(name, _)| name.clone()));
    keep(&mut node.output, stays);
    bodies_mut(node).for_each(|body| keep(&mut body.output, stays));
    true
}

fn keep<T>(list: &mut Vec<T>, stays: impl Fn(usize) -> bool) {
    let mut index = 0;
    list.retain(|_| {
        index += 1;
        stays(index - 1)
    });
}

/// All names that a graph, its bodies included, reads or returns.
fn names_read(graph: &GraphProto) -> HashSet<String> {
    let mut names = HashSet::new();
    read_in(graph, &mut names);
    names
}

fn read_in(graph: &GraphProto, names: &mut HashSet<String>) {
    names.extend(graph.output.iter().map(|output| output.name().to_owned()));
    for annotation in &graph.quantization_annotation {
        names.extend(annotation.quant_parameter_tensor_names.iter().map(|entry| entry.value().to_owned()));
    }
    graph.node.iter().for_each(|node| read_by(node, names));
}

fn read_by(node: &NodeProto, names: &mut HashSet<String>) {
    names.extend(node.input.iter().cloned());
    bodies(node).for_each(|body| read_in(body, names));
}

fn bodies(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs))
}

fn bodies_mut(node: &mut NodeProto) -> impl Iterator<Item = &mut GraphProto> {
    node.attribute.iter_mut().flat_map(|a| a.g.iter_mut().chain(&mut a.graphs))
}
