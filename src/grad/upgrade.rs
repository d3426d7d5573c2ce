//! Upgrade: models of operator sets 9 and 10 in the form of set 11, which gradients are written for.
//!
//! Invariants: values keep their names, nodes their order; what set 11 takes as inputs and older sets as attributes
//! becomes constants in front of the node.

use std::collections::{BTreeMap, BTreeSet};

use super::backward::constants;
use super::facts::Facts;
use crate::engine::ElementType;
use crate::proto::build::{Nodes, text};
use crate::proto::onnx::{GraphProto, ModelProto, NodeProto};
use crate::proto::tensor::to_f32;

/// The set that models are brought to.
pub(super) const TARGET: i64 = 11;
/// The oldest set that they are brought from.
pub(super) const OLDEST: i64 = 9;

/// The model in the form of set 11.
///
/// # Errors
/// A node whose attributes are not understood, as text.
pub(super) fn upgrade(model: &ModelProto, facts: &Facts, names: BTreeSet<String>) -> Result<ModelProto, String> {
    let mut model = model.clone();
    let is_default = |domain: &str| matches!(domain, "" | "ai.onnx");
    let before = crate::proto::opset(&model);
    model.opset_import.iter_mut().filter(|o| is_default(o.domain())).for_each(|o| o.version = Some(TARGET));
    let Some(graph) = model.graph.as_mut() else { return Ok(model) };
    let scales = scales(graph);
    let mut nodes = Nodes::new("upgraded", names);
    for mut node in std::mem::take(&mut graph.node) {
        if is_default(node.domain()) {
            change(&mut node, &mut nodes, facts, before, &scales)?;
        }
        nodes.list.push(node);
    }
    graph.node = nodes.list;
    Ok(model)
}

/// The constant scales of resizing nodes, by name.
fn scales(graph: &GraphProto) -> BTreeMap<String, Vec<f32>> {
    let constants = constants(graph);
    let resizing = graph.node.iter().filter(|node| matches!(node.op_type(), "Upsample" | "Resize"));
    let scales = resizing.filter_map(|node| {
        let name = node.input.get(1)?;
        Some((name.clone(), to_f32(constants.get(name.as_str())?).ok()?))
    });
    scales.collect()
}

fn change(
    node: &mut NodeProto,
    nodes: &mut Nodes,
    facts: &Facts,
    before: i64,
    scales: &BTreeMap<String, Vec<f32>>,
) -> Result<(), String> {
    let operator = node.op_type().to_owned();
    match operator.as_str() {
        "Clip" => {
            let bounds = ["min", "max"].map(|name| float(node, name));
            let bounds = bounds.map(|bound| bound.map(|bound| numbers(node, nodes, facts, bound)).transpose());
            let [low, high] = bounds;
            let [low, high] = [low?, high?];
            if low.is_some() || high.is_some() {
                node.input.push(low.unwrap_or_default());
                node.input.extend(high);
            }
            node.attribute.clear();
        }
        "Pad" => {
            let pads = ints(node, "pads").ok_or("a Pad without pads")?;
            let value = float(node, "value").unwrap_or(0.0);
            let inputs = [nodes.integers(&pads), numbers(node, nodes, facts, value)?];
            node.input.extend(inputs);
            node.attribute.retain(|a| a.name() == "mode");
        }
        "Slice" if before < 10 => {
            let (starts, ends) = (ints(node, "starts"), ints(node, "ends"));
            let (Some(starts), Some(ends)) = (starts, ends) else { return Err("a Slice without bounds".to_owned()) };
            let axes = ints(node, "axes").unwrap_or_else(|| (0..).take(starts.len()).collect());
            let inputs = [nodes.integers(&starts), nodes.integers(&ends), nodes.integers(&axes)];
            node.input.extend(inputs);
            node.attribute.clear();
        }
        "Upsample" | "Resize" => {
            node.op_type = Some("Resize".to_owned());
            // Before set 11 engines rounded down on axes that grow, and up on those that shrink.
            let scales = node.input.get(1).and_then(|name| scales.get(name)).map(Vec::as_slice).unwrap_or_default();
            let shrinks = scales.iter().any(|scale| *scale < 1.0);
            if shrinks && scales.iter().any(|scale| *scale > 1.0) {
                return Err(
                    "a Resize of an operator set below 11 that makes one axis longer and one shorter".to_owned()
                );
            }
            let region = nodes.constant(ElementType::Float, &[0], Vec::new());
            let place = node.input.len().min(1);
            node.input.insert(place, region);
            node.attribute.push(text("coordinate_transformation_mode", "asymmetric"));
            node.attribute.push(text("nearest_mode", if shrinks { "ceil" } else { "floor" }));
        }
        "Scatter" => node.op_type = Some("ScatterElements".to_owned()),
        "If" | "Loop" | "Scan" => return Err("a body of an operator set below 11".to_owned()),
        _ => {}
    }
    Ok(())
}

fn float(node: &NodeProto, name: &str) -> Option<f32> {
    node.attribute.iter().find(|a| a.name() == name).map(|a| a.f())
}

fn ints(node: &NodeProto, name: &str) -> Option<Vec<i64>> {
    node.attribute.iter().find(|a| a.name() == name).map(|a| a.ints.clone())
}

/// A number of the type of the node's input.
fn numbers(node: &NodeProto, nodes: &mut Nodes, facts: &Facts, value: f32) -> Result<String, String> {
    let input = node.input.first().ok_or("a node without inputs")?;
    let element = facts.get(input).ok_or_else(|| format!("the type of `{input}` is not known"))?.element;
    Ok(nodes.constant(element, &[], super::context::bytes(element, f64::from(value))?))
}
