//! What an operator does to every channel of one operand alone: a factor and a shift, or the sum with another value.
//!
//! Spec: <https://onnx.ai/onnx/operators/> (BatchNormalization, Add, Sub, Mul, Div, Sum, Identity). Invariants: nothing
//! here mixes channels or positions.

use crate::proto::onnx::NodeProto;

/// What a node computes from the operand in one slot; slots name the other operands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Affine {
    /// The operand itself.
    Same,
    /// The operand plus, or minus, what stands in this slot.
    Plus(usize, f64),
    /// The operand times what stands in this slot.
    Times(usize),
    /// The operand divided by what stands in this slot.
    Over(usize),
    /// Normalised with constants: slots of scale, shift, mean and variance, and what is added to the variance.
    Normalised([usize; 4], f64),
}

impl Affine {
    /// What `node` does with the operand in `slot`, if it is one of these.
    pub fn of(node: &NodeProto, slot: usize) -> Option<Self> {
        if !matches!(node.domain(), "" | "ai.onnx") {
            return None;
        }
        let other = match (slot, node.input.len()) {
            (0, 2) => Some(1),
            (1, 2) => Some(0),
            _ => None,
        };
        let float = |name: &str| node.attribute.iter().find(|a| a.name() == name).map(|a| f64::from(a.f()));
        let integer = |name: &str| node.attribute.iter().find(|a| a.name() == name).map_or(0, |a| a.i());
        match node.op_type() {
            "Identity" if slot == 0 => Some(Self::Same),
            "Add" | "Sum" => other.map(|other| Self::Plus(other, 1.0)),
            "Sub" if slot == 0 => other.map(|other| Self::Plus(other, -1.0)),
            "Mul" => other.map(Self::Times),
            "Div" if slot == 0 => other.map(Self::Over),
            "BatchNormalization" if slot == 0 && integer("training_mode") == 0 && node.output.len() == 1 => {
                Some(Self::Normalised([1, 2, 3, 4], float("epsilon").unwrap_or(1e-5)))
            }
            _ => None,
        }
    }
}
