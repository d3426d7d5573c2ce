//! Emit: the nodes that measure values inside the graph, one call at a time.
//!
//! Spec: <https://onnx.ai/onnx/operators/>. Axes of a reduction are an attribute before set 18 (before set 13 for
//! ReduceSum) and an input from then on. Invariants: every value gets a new name; everything is computed in single
//! precision, because half precision is too coarse for sums.

use std::collections::BTreeSet;

use crate::engine::ElementType;
use crate::proto::build::{Nodes, int, ints};
use crate::proto::onnx::{GraphProto, ModelProto};

/// How a value is reduced over axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reduction {
    Sum,
    Mean,
    Minimum,
    Maximum,
}

impl Reduction {
    fn operator(self) -> &'static str {
        match self {
            Self::Sum => "ReduceSum",
            Self::Mean => "ReduceMean",
            Self::Minimum => "ReduceMin",
            Self::Maximum => "ReduceMax",
        }
    }

    /// The operator set from which the axes are an input.
    fn axes_are_input_since(self) -> i64 {
        if self == Self::Sum { 13 } else { 18 }
    }
}

/// Nodes in the order in which they were asked for.
pub(super) struct Emitter {
    /// What was emitted so far.
    pub(super) nodes: Nodes,
    opset: i64,
}

impl Emitter {
    /// For a model, whose names stay free.
    pub(super) fn new(model: &ModelProto) -> Self {
        let opset = model.opset_import.iter().find(|o| matches!(o.domain(), "" | "ai.onnx"));
        let mut names = BTreeSet::new();
        if let Some(graph) = &model.graph {
            collect_names(graph, &mut names);
        }
        Self { nodes: Nodes::new("calibration", names), opset: opset.map_or(1, |o| o.version()) }
    }

    /// The value in single precision.
    pub(super) fn float(&mut self, input: &str) -> String {
        self.cast(input, ElementType::Float)
    }

    /// 1 where the value is not zero, and 0 where it is.
    pub(super) fn is_not_zero(&mut self, input: &str) -> String {
        let flags = self.cast(input, ElementType::Bool);
        self.cast(&flags, ElementType::Float)
    }

    /// The difference of two values.
    pub(super) fn subtract(&mut self, from: &str, what: &str) -> String {
        self.nodes.node("Sub", &[from, what], Vec::new())
    }

    /// The value times itself.
    pub(super) fn square(&mut self, input: &str) -> String {
        self.nodes.node("Mul", &[input, input], Vec::new())
    }

    /// The magnitudes of a value.
    pub(super) fn magnitude(&mut self, input: &str) -> String {
        self.nodes.node("Abs", &[input], Vec::new())
    }

    /// The value where it is positive, and 0 elsewhere.
    pub(super) fn positive(&mut self, input: &str) -> String {
        self.nodes.node("Relu", &[input], Vec::new())
    }

    /// The mean of each channel in each sample, one after the other, for values of rank 3 or more with channels second.
    pub(super) fn means(&mut self, input: &str) -> String {
        let means = self.nodes.node("GlobalAveragePool", &[input], Vec::new());
        // Without a node of its own behind it, the runtime measures it when all else is done.
        self.reshape(&means, &[-1])
    }

    /// The largest number of each channel in each sample, as for [`Emitter::means`].
    pub(super) fn largest(&mut self, input: &str) -> String {
        self.nodes.node("GlobalMaxPool", &[input], Vec::new())
    }

    /// The sum of two values.
    pub(super) fn add(&mut self, left: &str, right: &str) -> String {
        self.nodes.node("Add", &[left, right], Vec::new())
    }

    /// The matrix product of two stacks of matrices.
    pub(super) fn product(&mut self, left: &str, right: &str) -> String {
        self.nodes.node("MatMul", &[left, right], Vec::new())
    }

    /// The value with its axes in another order.
    pub(super) fn transpose(&mut self, input: &str, order: &[usize]) -> String {
        self.nodes.node("Transpose", &[input], vec![ints("perm", order)])
    }

    /// The value in another shape; 0 keeps an extent and -1 stands for the rest, as in the operator.
    pub(super) fn reshape(&mut self, input: &str, shape: &[i64]) -> String {
        let shape = self.nodes.integers(shape);
        self.nodes.node("Reshape", &[input, &shape], Vec::new())
    }

    /// The positions `from..to` of one axis.
    pub(super) fn slice(&mut self, input: &str, axis: usize, from: usize, to: usize) -> String {
        if self.opset < 10 {
            let attributes = vec![ints("starts", &[from]), ints("ends", &[to]), ints("axes", &[axis])];
            return self.nodes.node("Slice", &[input], attributes);
        }
        let [from, to, axis] = [from, to, axis].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        let parts = [from, to, axis].map(|n| self.nodes.integers(&[n]));
        self.nodes.node("Slice", &[input, &parts[0], &parts[1], &parts[2]], Vec::new())
    }

    /// The extents of a value.
    pub(super) fn shape(&mut self, input: &str) -> String {
        self.nodes.node("Shape", &[input], Vec::new())
    }

    /// The value reduced over axes, of which there must be one at least; they are dropped.
    pub(super) fn reduce(&mut self, how: Reduction, input: &str, axes: &[usize]) -> String {
        let flat = int("keepdims", 0);
        if self.opset < how.axes_are_input_since() {
            return self.nodes.node(how.operator(), &[input], vec![ints("axes", axes), flat]);
        }
        let axes: Vec<i64> = axes.iter().filter_map(|axis| i64::try_from(*axis).ok()).collect();
        let axes = self.nodes.integers(&axes);
        self.nodes.node(how.operator(), &[input, &axes], vec![flat])
    }

    /// One number in single precision.
    pub(super) fn number(&mut self, value: f32) -> String {
        self.nodes.constant(ElementType::Float, &[], value.to_le_bytes().to_vec())
    }

    fn cast(&mut self, input: &str, to: ElementType) -> String {
        self.nodes.node("Cast", &[input], vec![int("to", to as i64)])
    }
}

/// The names of all values and nodes, at every depth.
pub(crate) fn collect_names(graph: &GraphProto, names: &mut BTreeSet<String>) {
    names.extend(graph.initializer.iter().map(|t| t.name().to_owned()));
    names.extend(graph.input.iter().map(|i| i.name().to_owned()));
    for node in &graph.node {
        names.insert(node.name().to_owned());
        names.extend(node.input.iter().chain(&node.output).cloned());
        for attribute in &node.attribute {
            attribute.g.iter().chain(&attribute.graphs).for_each(|inner| collect_names(inner, names));
        }
    }
}
