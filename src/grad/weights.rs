//! Weights: the values of a model that are trained, as far as the file tells.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Fact, Facts};
use crate::proto::onnx::{ModelProto, NodeProto};

/// The floating-point initializers of the main graph, tensors of more than one number in its `Constant` nodes, and what
/// is dequantised from constant integers; without those that are settings to all of their readers.
pub fn weights(model: &ModelProto, facts: &Facts) -> Vec<String> {
    let Some(graph) = model.graph.as_ref() else { return Vec::new() };
    let mut readers: BTreeMap<&str, Vec<(&NodeProto, usize)>> = BTreeMap::new();
    for node in &graph.node {
        for (slot, input) in node.input.iter().enumerate() {
            readers.entry(input).or_default().push((node, slot));
        }
    }
    let stored: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name()).collect();
    let literal = |node: &&NodeProto| node.op_type() == "Constant";
    let literals: BTreeSet<&str> =
        graph.node.iter().filter(literal).flat_map(|n| &n.output).map(String::as_str).collect();
    let is_constant = |name: &String| stored.contains(name.as_str()) || literals.contains(name.as_str());
    let dequantised =
        |node: &&NodeProto| node.op_type() == "DequantizeLinear" && node.input.first().is_some_and(is_constant);
    let is_large = |name: &&str| facts.get(*name).is_some_and(|f| f.shape.iter().product::<usize>() > 1);
    let constants = graph.initializer.iter().map(|t| t.name()).chain(literals.iter().copied().filter(is_large));
    let constants = constants.filter(|name| match readers.get(name) {
        Some(readers) => !readers.iter().all(|(node, slot)| is_setting(node, *slot)),
        None => true,
    });
    let all = constants.chain(graph.node.iter().filter(dequantised).flat_map(|n| &n.output).map(String::as_str));
    all.filter(|name| facts.get(*name).is_some_and(Fact::is_float)).map(str::to_owned).collect()
}

/// Inputs that say how an operator works, not what it works on.
fn is_setting(node: &NodeProto, slot: usize) -> bool {
    match node.op_type() {
        "Resize" | "Upsample" | "Clip" | "Pad" | "Dropout" | "QuantizeLinear" | "Range" | "ConstantOfShape" => slot > 0,
        "DequantizeLinear" => slot > 0,
        "OneHot" | "NonMaxSuppression" => true,
        _ => false,
    }
}
