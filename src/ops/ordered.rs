//! Operators whose result depends on the order or rank of entries along an axis: TopK, CumSum, CumProd. The axis is
//! locked, the others pass through.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__TopK.html>, <https://onnx.ai/onnx/operators/onnx__CumSum.html>. `k` is an
//! attribute before operator set 10 and an input since.

use super::norm::locked_axes;
use super::{NodeView, Refusal, Refused, Rule, Signature};
use crate::axes::Extent;

/// The k largest or smallest entries and their indices.
pub(super) struct TopK;

impl Rule for TopK {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let why = "the entries along it are sorted";
        let axis = node.axis("axis", -1, node.rank(0)?)?;
        let k = match node.maybe_int("k") {
            Some(k) => Extent::known(k),
            None => node.integers(1).and_then(|k| k.only().cloned()).unwrap_or_else(|| node.fresh("k")),
        };
        let mut signature = locked_axes(node, &[axis], why)?;
        let best = signature.fixed("k", Some(k), why);
        let output = signature.outputs.pop().flatten().map(|mut terms| {
            if let Some(term) = terms.get_mut(axis) {
                *term = best;
            }
            terms
        });
        signature.outputs = vec![output.clone(), output];
        Ok(signature)
    }
}

/// Running sums and products.
pub(super) struct Cumulative;

impl Rule for Cumulative {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let axis = node.known_integers(1).and_then(|axis| axis.first().copied());
        let axis = axis.ok_or_else(|| Refusal::new("its axis is computed when the model runs"))?;
        let axis = super::normalise_axis(axis, node.rank(0)?)?;
        locked_axes(node, &[axis], "entries are added up along it, in order")
    }
}
