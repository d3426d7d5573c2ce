//! Emit: nodes that the reference has in place of an operator, one call at a time.
//!
//! Invariants: every value gets a new name, but for those that are given the name of an output; all operators exist in
//! every operator set with these inputs, but for the axes of a sum, which are an attribute before set 13.

use std::collections::BTreeSet;

use super::masked::constant;
use crate::engine::ElementType;
use crate::proto::onnx::{AttributeProto, NodeProto, attribute_proto::AttributeType};

/// Nodes in the order in which they were asked for.
pub(super) struct Emitter {
    /// What was emitted so far.
    pub(super) nodes: Vec<NodeProto>,
    /// The type that is computed in.
    pub(super) element: ElementType,
    opset: i64,
    names: BTreeSet<String>,
}

impl Emitter {
    /// For a model with this operator set and these names in use.
    pub(super) fn new(opset: i64, names: BTreeSet<String>) -> Self {
        Self { nodes: Vec::new(), element: ElementType::Float, opset, names }
    }

    /// `operator(inputs…)`.
    pub(super) fn call(&mut self, operator: &str, inputs: &[&str]) -> String {
        self.node(operator, inputs, Vec::new())
    }

    /// The value in another type.
    pub(super) fn cast(&mut self, input: &str, to: ElementType) -> String {
        self.node("Cast", &[input], vec![int("to", to as i64)])
    }

    /// The value in another shape.
    pub(super) fn reshape(&mut self, input: &str, shape: &[usize]) -> String {
        let shape = self.integers(shape);
        self.node("Reshape", &[input, &shape], Vec::new())
    }

    /// The sum over axes, which keep the extent 1.
    pub(super) fn sum(&mut self, input: &str, axes: &[usize]) -> String {
        if self.opset >= 13 {
            let axes = self.integers(axes);
            return self.node("ReduceSum", &[input, &axes], vec![int("keepdims", 1)]);
        }
        let ints = axes.iter().filter_map(|axis| i64::try_from(*axis).ok()).collect();
        let r#type = Some(AttributeType::Ints as i32);
        let axes = AttributeProto { name: Some("axes".into()), ints, r#type, ..Default::default() };
        self.node("ReduceSum", &[input], vec![axes, int("keepdims", 1)])
    }

    /// Gives a value, in this type, the name of an output of the node that it stands for.
    pub(super) fn name(&mut self, input: &str, element: ElementType, output: &str) {
        self.cast(input, element);
        if let Some(last) = self.nodes.last_mut() {
            last.output = vec![output.to_owned()];
        }
    }

    /// A constant of the type that is computed in.
    pub(super) fn numbers(&mut self, shape: &[usize], values: &[f64]) -> String {
        let double = self.element == ElementType::Double;
        let bytes = |v: &f64| if double { v.to_le_bytes().to_vec() } else { (*v as f32).to_le_bytes().to_vec() };
        let data = values.iter().flat_map(bytes).collect();
        self.constant(self.element, shape, data)
    }

    fn integers(&mut self, values: &[usize]) -> String {
        let data = values.iter().flat_map(|v| (*v as u64).to_le_bytes()).collect();
        self.constant(ElementType::Int64, &[values.len()], data)
    }

    fn constant(&mut self, element: ElementType, shape: &[usize], data: Vec<u8>) -> String {
        let name = self.fresh();
        let dims = shape.iter().filter_map(|extent| i64::try_from(*extent).ok()).collect();
        self.nodes.push(constant(&name, element, dims, data));
        name
    }

    fn node(&mut self, operator: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        let output = self.fresh();
        self.nodes.push(NodeProto {
            op_type: Some(operator.into()),
            name: Some(output.clone()),
            input: inputs.iter().map(|i| (*i).to_owned()).collect(),
            output: vec![output.clone()],
            attribute,
            ..Default::default()
        });
        output
    }

    fn fresh(&mut self) -> String {
        let mut n = self.names.len();
        loop {
            let name = format!("remaining/{n}");
            if self.names.insert(name.clone()) {
                return name;
            }
            n += 1;
        }
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        i: Some(i),
        r#type: Some(AttributeType::Int as i32),
        ..Default::default()
    }
}
