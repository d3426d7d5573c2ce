//! Emit: the nodes of losses, and the inputs that they need beside those of the model.
//!
//! Spec: <https://onnx.ai/onnx/operators/>; axes of ReduceSum and Unsqueeze are inputs from set 13 on, attributes before.

use std::collections::BTreeSet;

use super::fill::{Feed, Fill};
use crate::engine::ElementType;
use crate::proto::build::{Nodes, int, ints};
use crate::proto::onnx::NodeProto;

/// Emits nodes behind a model.
pub struct Emitter {
    nodes: Nodes,
    names: BTreeSet<String>,
    opset: i64,
    element: ElementType,
    feeds: Vec<Feed>,
}

impl Emitter {
    /// For a model of a version of the default operator set, whose `names` stay free.
    pub fn new(opset: i64, names: BTreeSet<String>) -> Self {
        let nodes = Nodes::new("loss", names.clone());
        Self { nodes, names, opset, element: ElementType::Float, feeds: Vec::new() }
    }

    /// What was emitted: nodes, and inputs to feed.
    pub fn finish(self) -> (Vec<NodeProto>, Vec<Feed>) {
        (self.nodes.list, self.feeds)
    }

    /// A value in the precision that its loss is computed in, which all that follows is computed in.
    pub(super) fn begin(&mut self, value: &str, element: ElementType) -> String {
        self.element = if element == ElementType::Double { element } else { ElementType::Float };
        if self.element == element { value.to_owned() } else { self.cast(value) }
    }

    /// `sum + weight · loss`; a sum of losses is in single precision.
    pub(crate) fn weighted_sum(&mut self, sum: Option<&str>, loss: &str, weight: f64) -> String {
        let loss = self.scaled(loss, weight);
        self.element = ElementType::Float;
        match sum {
            None => loss,
            Some(sum) => {
                let (sum, loss) = (self.cast(sum), self.cast(&loss));
                self.op("Add", &[&sum, &loss])
            }
        }
    }

    pub(super) fn op(&mut self, operator: &str, inputs: &[&str]) -> String {
        self.nodes.node(operator, inputs, Vec::new())
    }

    /// A number in the precision of the loss.
    pub(super) fn number(&mut self, value: f64) -> String {
        let data = match self.element {
            ElementType::Double => value.to_le_bytes().to_vec(),
            _ => (value as f32).to_le_bytes().to_vec(),
        };
        self.nodes.constant(self.element, &[], data)
    }

    /// 0, 1, 2 … as integers.
    pub(super) fn counted(&mut self, count: usize) -> String {
        let numbers: Vec<i64> = (0..count).map(signed).collect();
        self.nodes.integers(&numbers)
    }

    /// In the precision of the loss; 1 and 0 for true and false.
    pub(super) fn cast(&mut self, value: &str) -> String {
        self.nodes.node("Cast", &[value], vec![int("to", i64::from(self.element as i32))])
    }

    /// One row of numbers per sample, of the given extents.
    pub(super) fn rows(&mut self, value: &str, extents: &[usize]) -> String {
        let shape: Vec<i64> = std::iter::once(-1).chain(extents.iter().copied().map(signed)).collect();
        let shape = self.nodes.integers(&shape);
        self.op("Reshape", &[value, &shape])
    }

    pub(super) fn transpose(&mut self, value: &str, order: &[usize]) -> String {
        self.nodes.node("Transpose", &[value], vec![ints("perm", order)])
    }

    /// The sum over one axis, which is kept with extent 1 or dropped.
    pub(super) fn sum(&mut self, value: &str, axis: usize, keep: bool) -> String {
        let keep = int("keepdims", i64::from(keep));
        if self.opset < 13 {
            return self.nodes.node("ReduceSum", &[value], vec![ints("axes", &[axis]), keep]);
        }
        let axes = self.nodes.integers(&[signed(axis)]);
        self.nodes.node("ReduceSum", &[value, &axes], vec![keep])
    }

    /// The mean of each row: [batch, count] becomes [batch].
    pub(super) fn mean(&mut self, rows: &str, count: usize) -> String {
        let sum = self.sum(rows, 1, false);
        self.scaled(&sum, 1.0 / count.max(1) as f64)
    }

    pub(super) fn scaled(&mut self, value: &str, factor: f64) -> String {
        if factor == 1.0 {
            return value.to_owned();
        }
        let factor = self.number(factor);
        self.op("Mul", &[value, &factor])
    }

    /// Along the last axis of a value of rank 3.
    pub(super) fn log_softmax(&mut self, value: &str) -> String {
        self.nodes.node("LogSoftmax", &[value], vec![int("axis", 2)])
    }

    /// The place of the largest along the last axis of a value of rank 3.
    pub(super) fn arg_max(&mut self, value: &str) -> String {
        self.nodes.node("ArgMax", &[value], vec![int("axis", 2), int("keepdims", 1)])
    }

    /// Another input, of the given extents for every sample; in the precision of the loss unless it holds classes.
    pub(super) fn input(&mut self, of: &str, extents: &[usize], fill: Fill) -> String {
        let what = match &fill {
            Fill::Classes { .. } | Fill::Numbers { .. } => "labels",
            Fill::Random { .. } => "random",
        };
        let mut name = format!("{what}/{of}");
        while !self.names.insert(name.clone()) {
            name.push('_');
        }
        let element = if matches!(fill, Fill::Classes { .. }) { ElementType::Int64 } else { self.element };
        self.feeds.push(Feed { name: name.clone(), of: of.to_owned(), element, extents: extents.to_vec(), fill });
        name
    }
}

fn signed(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
