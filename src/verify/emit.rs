//! Emit: nodes that the reference has in place of an operator, one call at a time.
//!
//! Invariants: every value gets a new name, but for those that are given the name of an output; all operators exist in
//! every operator set with these inputs, but for the axes of a sum, which are an attribute before set 13.

use std::collections::BTreeSet;

use crate::engine::ElementType;
use crate::proto::build::{Nodes, int, ints, signed};

/// Nodes in the order in which they were asked for.
pub(super) struct Emitter {
    /// What was emitted so far.
    pub(super) nodes: Nodes,
    /// The type that is computed in.
    pub(super) element: ElementType,
    opset: i64,
}

impl Emitter {
    /// For a model with this operator set and these names in use.
    pub(super) fn new(opset: i64, names: BTreeSet<String>) -> Self {
        Self { nodes: Nodes::new("remaining", names), element: ElementType::Float, opset }
    }

    /// `operator(inputs…)`.
    pub(super) fn call(&mut self, operator: &str, inputs: &[&str]) -> String {
        self.nodes.node(operator, inputs, Vec::new())
    }

    /// The value in another type.
    pub(super) fn cast(&mut self, input: &str, to: ElementType) -> String {
        self.nodes.node("Cast", &[input], vec![int("to", to as i64)])
    }

    /// The value in another shape.
    pub(super) fn reshape(&mut self, input: &str, shape: &[usize]) -> String {
        let shape = self.nodes.integers(&signed(shape));
        self.nodes.node("Reshape", &[input, &shape], Vec::new())
    }

    /// The sum over axes, which keep the extent 1.
    pub(super) fn sum(&mut self, input: &str, axes: &[usize]) -> String {
        if self.opset >= 13 {
            let axes = self.nodes.integers(&signed(axes));
            return self.nodes.node("ReduceSum", &[input, &axes], vec![int("keepdims", 1)]);
        }
        self.nodes.node("ReduceSum", &[input], vec![ints("axes", axes), int("keepdims", 1)])
    }

    /// Gives a value, in this type, the name of an output of the node that it stands for.
    pub(super) fn name(&mut self, input: &str, element: ElementType, output: &str) {
        self.cast(input, element);
        if let Some(last) = self.nodes.list.last_mut() {
            last.output = vec![output.to_owned()];
        }
    }

    /// A constant of the type that is computed in.
    pub(super) fn numbers(&mut self, shape: &[usize], values: &[f64]) -> String {
        let double = self.element == ElementType::Double;
        let bytes = |v: &f64| if double { v.to_le_bytes().to_vec() } else { (*v as f32).to_le_bytes().to_vec() };
        let data = values.iter().flat_map(bytes).collect();
        self.nodes.constant(self.element, shape, data)
    }
}
