//! Backward: one backward pass per task behind one forward pass.

use std::collections::{BTreeMap, BTreeSet};

use super::forward::Forward;
use crate::Result;
use crate::calibration::collect_names;
use crate::grad::{self, Stop};
use crate::proto::build::{Nodes, int, ints};
use crate::proto::onnx::{GraphProto, ModelProto, ValueInfoProto};

/// Where a gradient is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gradient {
    /// In a value of the model.
    In(String),
    /// Nowhere: the loss does not depend on it.
    Zero,
    /// Nowhere: gradients stop before it.
    Unknown,
}

/// The gradients of the loss of one task.
#[derive(Clone, Debug)]
pub(super) struct OfTask {
    /// The values of the loss, [batch].
    pub(super) loss: String,
    /// The input by which each sample's loss is multiplied.
    pub(super) cotangent: String,
    /// By tap.
    pub(super) gates: Vec<Gradient>,
    /// By tap: sums of |a dL/da| over all axes but the first, where it counts samples, and that of the channels.
    pub(super) activations: Vec<Vec<String>>,
    /// By weight.
    pub(super) weights: Vec<Gradient>,
    pub(super) stops: Vec<Stop>,
}

/// Differentiates the losses one after the other; by task, none where a task has no loss.
///
/// # Errors
/// A model that cannot be differentiated, as [`grad::backward`] says.
pub(super) fn backward(
    forward: &Forward,
    weights: &[String],
    activations: bool,
) -> Result<(ModelProto, Vec<Option<OfTask>>)> {
    let mut model = forward.model.clone();
    let outputs = model.graph.as_ref().map(|graph| graph.output.clone()).unwrap_or_default();
    let mut found = Vec::new();
    for (task, loss) in forward.losses.iter().enumerate() {
        let Some(loss) = loss else {
            found.push(None);
            continue;
        };
        let mut wanted: Vec<String> = forward.gates.iter().flatten().map(|gate| gate.input.clone()).collect();
        if activations {
            wanted.extend(forward.gates.iter().flatten().flat_map(|gate| gate.values.iter().map(|(_, v)| v.clone())));
        }
        wanted.extend(weights.iter().filter(|name| forward.facts.contains_key(*name)).cloned());
        let result = grad::backward(&model, &forward.facts, std::slice::from_ref(loss), &wanted)?;
        model = result.model;
        let Some(graph) = &mut model.graph else { continue };
        let names = renamed(graph, task, &result.gradients);
        graph.output.clone_from(&outputs);
        let unconnected: BTreeSet<String> = result.unconnected.into_iter().collect();
        let gradient = |name: &str| match names.get(name) {
            Some(value) => Gradient::In(value.clone()),
            None if unconnected.contains(name) => Gradient::Zero,
            None => Gradient::Unknown,
        };
        let gates =
            forward.gates.iter().map(|gate| gate.as_ref().map_or(Gradient::Unknown, |gate| gradient(&gate.input)));
        let gates = gates.collect();
        let of_weights = weights.iter().map(|name| gradient(name)).collect();
        let mut magnitudes = vec![Vec::new(); forward.gates.len()];
        if activations {
            let mut names_taken = BTreeSet::new();
            collect_names(graph, &mut names_taken);
            let mut nodes = Nodes::new("magnitude", names_taken);
            for (gate, own) in forward.gates.iter().zip(&mut magnitudes) {
                let Some(gate) = gate else { continue };
                for (value, product) in &gate.values {
                    if let Gradient::In(gradient) = gradient(product) {
                        let mut kept = vec![gate.axis];
                        kept.extend(gate.per_sample.map(|_| 0));
                        let axes: Vec<usize> = (0..gate.rank).filter(|axis| !kept.contains(axis)).collect();
                        own.push(magnitude(&mut nodes, forward.opset, value, &gradient, &axes));
                    }
                }
            }
            graph.node.extend(nodes.list);
        }
        found.push(Some(OfTask {
            loss: loss.clone(),
            cotangent: format!("gradient/{loss}"),
            gates,
            activations: magnitudes,
            weights: of_weights,
            stops: result.stopped,
        }));
    }
    Ok((model, found))
}

/// Gives the gradients names of their task, so that the next pass finds theirs free.
fn renamed(graph: &mut GraphProto, task: usize, gradients: &[(String, String)]) -> BTreeMap<String, String> {
    let name_of = |name: &str| format!("task/{task}/{name}");
    let from = graph.node.len().saturating_sub(gradients.len());
    for node in graph.node.iter_mut().skip(from) {
        node.name = node.name.as_deref().map(name_of);
        node.output.iter_mut().for_each(|output| *output = name_of(output));
    }
    graph.output = Vec::<ValueInfoProto>::new();
    gradients.iter().map(|(of, value)| (of.clone(), name_of(value))).collect()
}

/// The sum of |a dL/da| over axes.
fn magnitude(nodes: &mut Nodes, opset: i64, value: &str, gradient: &str, axes: &[usize]) -> String {
    let product = nodes.node("Mul", &[value, gradient], Vec::new());
    let mut size = nodes.node("Abs", &[&product], Vec::new());
    if !axes.is_empty() && opset < 13 {
        size = nodes.node("ReduceSum", &[&size], vec![ints("axes", axes), int("keepdims", 0)]);
    } else if !axes.is_empty() {
        let axes = nodes.integers(&crate::proto::build::signed(axes));
        size = nodes.node("ReduceSum", &[&size, &axes], vec![int("keepdims", 0)]);
    }
    size
}
