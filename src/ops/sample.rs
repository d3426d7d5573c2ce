//! GridSample: x [n, C, spatial…], grid [n, positions…, spatial rank] -> y [n, C, positions…].
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__GridSample.html>. Channels are sampled each by itself; space is locked.
//! Operator set 16 has two spatial axes, 20 any number of them; the rule is the same.

use super::{NodeView, Refusal, Refused, Rule, Signature};
use crate::axes::Extent;

/// Sampling at given positions.
pub(super) struct GridSample;

impl Rule for GridSample {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let rank = node.rank(0)?;
        if rank < 3 || node.rank(1)? != rank {
            return Err(Refusal::new("the ranks of input and grid differ"));
        }
        let words = |prefix: &str| (2..rank).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>().join(" ");
        let (h, p) = (words("h"), words("p"));
        let text = format!("n C {h}, n {p} d -> n C {p}");
        let signature = Signature::parse(&text, "positions are sampled along it")?;
        Ok(signature.with("d", Extent::from(rank - 2)))
    }
}
