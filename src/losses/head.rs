//! Head: what the model makes of an output last, so that logits, probabilities and their logarithms are told apart.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Softmax.html>; before set 13 Softmax flattens what stands from its axis
//! on, and the default axis is 1 instead of -1.

use std::collections::BTreeMap;

use crate::proto::onnx::{ModelProto, NodeProto};

/// The function that made an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// None that is known: logits, or a regression.
    None,
    /// Probabilities of classes.
    Softmax,
    /// Their logarithms.
    LogSoftmax,
    /// Probabilities, each for itself.
    Sigmoid,
}

/// How an output comes about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The function.
    pub activation: Activation,
    /// The axis of the output along which it was taken, if that is known.
    pub axis: Option<usize>,
    /// The value that it was taken of, if the output has the same axes.
    pub before: Option<String>,
}

impl Head {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self { activation: Activation::None, axis: None, before: None };

    /// Walks back from an output of a known rank, through what only hands values on.
    pub fn of(model: &ModelProto, output: &str, rank: usize) -> Self {
        let Some(graph) = &model.graph else { return Self::UNKNOWN };
        let opset = crate::proto::opset(model);
        let producers: BTreeMap<&str, &NodeProto> =
            graph.node.iter().filter_map(|n| Some((n.output.first()?.as_str(), n))).collect();
        let mut name = output;
        // Which axis of the value at hand each axis of the output is; none once axes were put together.
        let mut axes: Option<Vec<usize>> = Some((0..rank).collect());
        let mut is_direct = true;
        while let Some(node) = producers.get(name) {
            let Some(input) = node.input.first() else { break };
            let found = match node.op_type() {
                "Softmax" => Activation::Softmax,
                "LogSoftmax" => Activation::LogSoftmax,
                "Sigmoid" => Activation::Sigmoid,
                _ => Activation::None,
            };
            if found != Activation::None {
                let taken = softmax_axis(node, opset, rank);
                let axis = axes.as_ref().and_then(|axes| axes.iter().position(|axis| Some(*axis) == taken));
                let axis = axis.filter(|_| found != Activation::Sigmoid);
                let before = (is_direct && (axis.is_some() || found == Activation::Sigmoid)).then(|| input.clone());
                return Self { activation: found, axis, before };
            }
            match node.op_type() {
                "Identity" | "Dropout" => {}
                "Cast" => is_direct = false,
                "Transpose" => {
                    is_direct = false;
                    axes = axes.and_then(|axes| permuted(node, &axes));
                }
                "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => (is_direct, axes) = (false, None),
                _ => break,
            }
            name = input;
        }
        Self::UNKNOWN
    }
}

/// The axis of a softmax, if it is over one axis.
fn softmax_axis(node: &NodeProto, opset: i64, rank: usize) -> Option<usize> {
    let given = node.attribute.iter().find(|a| a.name() == "axis").map(|a| a.i());
    let axis = given.unwrap_or(if opset < 13 { 1 } else { -1 });
    let axis = if axis < 0 { axis.checked_add(i64::try_from(rank).ok()?)? } else { axis };
    let axis = usize::try_from(axis).ok().filter(|axis| *axis < rank)?;
    (opset >= 13 || axis + 1 == rank).then_some(axis)
}

fn permuted(node: &NodeProto, axes: &[usize]) -> Option<Vec<usize>> {
    let order: Vec<usize> = match node.attribute.iter().find(|a| a.name() == "perm") {
        Some(perm) => perm.ints.iter().map(|p| usize::try_from(*p).ok()).collect::<Option<_>>()?,
        None => (0..axes.len()).rev().collect(),
    };
    axes.iter().map(|axis| order.get(*axis).copied()).collect()
}
