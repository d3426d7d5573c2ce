//! Softmax, LogSoftmax, Hardmax: an entry is compared with all others along the axis, so that axis is locked.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Softmax.html>. Before operator set 13 the input is flattened to two axes
//! at `axis` (default 1), so all axes from there on are compared; since 13 it is the one axis (default the last).

use super::norm::locked_axes;
use super::{NodeView, Refused, Rule, Signature};

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
