//! Softmax, LogSoftmax, Hardmax: an entry is compared with all others along the axis, so that axis is locked.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Softmax.html>. Before operator set 13 the input is flattened to two axes
//! at `axis` (default 1), so all axes from there on are compared; since 13 it is the one axis (default the last).

use super::elementwise::broadcast;
use super::norm::locked_axes;
use super::{NodeView, Refusal, Refused, Rule, Signature};

/// One entry among all others of its axis.
pub(super) struct Softmax;

impl Rule for Softmax {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let rank = node.rank(0)?;
        let locked: Vec<usize> = if node.opset() < 13 {
            // 0 flattens everything into one row, also where the tensor has one axis only.
            let axis = node.int("axis", 1);
            let axis =
                if axis == i64::try_from(rank).unwrap_or(i64::MAX) { rank } else { super::normalise_axis(axis, rank)? };
            (axis..rank).collect()
        } else {
            vec![node.axis("axis", -1, rank)?]
        };
        locked_axes(node, &locked, "every entry is compared with the others along this axis")
    }
}

/// BiasSoftmax of com.microsoft: softmax of the sum of two tensors, over all axes from `axis` on.
pub(super) struct BiasSoftmax;

impl Rule for BiasSoftmax {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let rank = node.rank(0)?;
        let axis = node.axis("axis", 1, rank)?;
        if node.rank(1)? != rank {
            return Err(Refusal::new("how its bias is repeated is not described"));
        }
        let (mut signature, output) = broadcast(node, &[0, 1])?;
        for term in output.iter().skip(axis) {
            signature.fix(term, "every entry is compared with the others along this axis");
        }
        Ok(signature)
    }
}
