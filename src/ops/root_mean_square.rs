//! Division by the root of the mean square: exact over axes that shrink, once the divisor is put right.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__RMSNormalization.html> and
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md> (SkipSimplifiedLayerNormalization, the
//! same over a sum of inputs). Of C entries K stay and the others are zero in the masked original, so with S the sum of
//! squares S / C + e = K / C (S / K + e C / K): the call on K entries with epsilon e C / K gives the masked original's
//! result times the root of K / C, and so does its further output, the inverse of the root.

use super::norm::normalisation;
use super::{Change, Edit, NodeView, Refused, Rule, Signature};

/// RMSNormalization, SimplifiedLayerNormalization; over input + skip (+ bias) if `skip`.
pub(super) struct RootMeanSquare {
    /// True if inputs 0 and 1 are summed, gamma is input 2, and output 3 is the sum.
    pub(super) skip: bool,
}

impl Rule for RootMeanSquare {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let (mut signature, _) = normalisation(node)?;
        if self.skip {
            signature = signature.scaled_by(2);
            if node.outputs > 3 {
                let sum = signature.outputs.first().cloned().flatten();
                signature.outputs.push(sum);
            }
        }
        Ok(signature)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let rank = before.rank(0)?;
        let mut kept = 1.0;
        for axis in before.axis("axis", -1, rank)?..rank {
            // Symbolic extents do not shrink.
            if let (Some(old), Some(new)) = (before.extent(0, axis)?.value(), change.after.extent(0, axis)?.value()) {
                kept *= new as f64 / old as f64;
            }
        }
        if kept == 1.0 {
            return Ok(Vec::new());
        }
        let epsilon = before.float("epsilon", if self.skip { 1e-12 } else { 1e-5 });
        let mut edits = vec![Edit::Float("epsilon", (f64::from(epsilon) / kept) as f32)];
        let inverse = if self.skip { 2 } else { 1 };
        for slot in [0, inverse] {
            if before.node.outputs.get(slot).is_some_and(Option::is_some) {
                edits.push(Edit::Scale(slot, kept.powf(-0.5)));
            }
        }
        Ok(edits)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::patch;
    use super::*;

    #[test]
    fn epsilon_and_outputs_follow() {
        let model = |c: i64, call: &str| format!("opset 23\nin x [n,{c}]\n{call}\nout y");
        let run = |call: &str| patch(&model(8, call), &model(2, call), "[n,2] [n,1]", &[((0, 1), &[1, 5])], &[]);
        let one = run("y = RMSNormalization(x, epsilon=0.5)").unwrap();
        assert_eq!(one, [Edit::Float("epsilon", 2.0), Edit::Scale(0, 0.5f64.powi(-1))]);
        let two = run("y, inverse = SimplifiedLayerNormalization(x, epsilon=0.25)").unwrap();
        assert_eq!(two, [Edit::Float("epsilon", 1.0), Edit::Scale(0, 2.0), Edit::Scale(1, 2.0)]);
        let whole =
            patch(&model(8, "y = RMSNormalization(x)"), &model(8, "y = RMSNormalization(x)"), "[n,8]", &[], &[]);
        assert_eq!(whole.unwrap(), []);
    }
}
