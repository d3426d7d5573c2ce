//! Operators of com.microsoft on quantised tensors that are those of floats, index by index or axis by axis: the numbers
//! are per tensor, so that the axes are those of the plain operator.
//!
//! Spec: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>. What a removed index stores does
//! not matter here, because nothing is summed over a free axis.

use super::concat::joined;
use super::elementwise::broadcast;
use super::norm::locked_axes;
use super::{NodeView, Refusal, Refused, Rule, Signature};

/// f(x, y, …) of the inputs in these slots, index by index; the others are scales and zero points.
pub(super) struct QLinearPointwise(pub(super) &'static [usize]);

impl Rule for QLinearPointwise {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        scalars(node, self.0)?;
        let (signature, _) = broadcast(node, self.0)?;
        Ok(signature)
    }
}

/// Scale and zero point of the output, then value, scale and zero point of every part.
pub(super) struct QLinearConcat;

impl Rule for QLinearConcat {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let parts: Vec<usize> = (2..node.input_count()).step_by(3).collect();
        scalars(node, &parts)?;
        joined(node, &parts)
    }
}

/// Softmax, by the operator set that attribute `opset` names.
pub(super) struct QLinearSoftmax;

impl Rule for QLinearSoftmax {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        scalars(node, &[0])?;
        let rank = node.rank(0)?;
        let axis = node.axis("axis", -1, rank)?;
        let since_13 = node.maybe_int("opset").is_some_and(|opset| opset >= 13);
        let locked: Vec<usize> = if since_13 { vec![axis] } else { (axis..rank).collect() };
        let mut signature = locked_axes(node, &locked, "every entry is compared with the others along this axis")?;
        signature.inputs.resize(node.input_count(), None);
        Ok(signature)
    }
}

/// True numbers only: every input that is no operand must be a single one.
fn scalars(node: &NodeView, operands: &[usize]) -> Refused<()> {
    for slot in (0..node.input_count()).filter(|slot| !operands.contains(slot) && node.has(*slot)) {
        if !node.shape(slot)?.iter().all(|extent| extent.is_one()) {
            return Err(Refusal::new(format!("input {slot} is more than one number")));
        }
    }
    Ok(())
}
