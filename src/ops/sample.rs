//! Sampling at positions, and what makes positions.
//!
//! GridSample: x [n, C, spatial…], grid [n, positions…, spatial rank] -> y [n, C, positions…].
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__GridSample.html>. Channels are sampled each by itself; space is locked.
//! Operator set 16 has two spatial axes, 20 any number of them; the rule is the same.

use super::follow::unknown;
use super::written::{Written, written};
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

const COUNTED: &str = "positions are counted along it";

/// EyeLike: ones on a diagonal of a matrix like the input.
pub(super) static EYE: Written = written(&["a b -> a b"], "a diagonal compares its indices");

/// AffineGrid: transforms [n, d, d + 1] of a picture of `size` [n, c, spatial…] -> positions [n, spatial…, d].
pub(super) struct AffineGrid;

impl Rule for AffineGrid {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let spatial = node.extent(0, 1)?.size().filter(|d| matches!(d, 2 | 3));
        let spatial = spatial.ok_or_else(|| Refusal::new("its transforms are neither of the plane nor of space"))?;
        let names: Vec<String> = (0..spatial).map(|i| format!("h{i}")).collect();
        let mut signature = Signature::parse(&format!("n d e, _ -> n {} d", names.join(" ")), COUNTED)?;
        for (i, name) in names.iter().enumerate() {
            let entry = node.integers(1).and_then(|size| size.values.get(i + 2).cloned().flatten());
            signature = signature.with(name, entry.unwrap_or_else(|| unknown(node, i + 1)));
        }
        Ok(signature)
    }
}
