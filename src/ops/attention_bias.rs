//! Biases of attention that depend on distances: RelativePositionBias and GatedRelativePositionBias of com.microsoft.
//!
//! Spec: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>. Every head has numbers of its
//! own, so whole heads may go.

use super::written::{Number, Written};
use super::{Change, Edit, NodeView, Refusal, Refused, Rule, Signature};
use crate::axes::Extent;

const WHY: &str = "positions are counted along it, or distances between them";

/// A table [buckets, H] and the numbers of queries and keys -> [1, H, queries, keys].
pub(super) static RELATIVE: Written = Written {
    texts: &["k H, _, _ -> 1 H q l"],
    why: WHY,
    extents: &[("q", Number::Entry(1, 0)), ("l", Number::Entry(2, 0))],
};

/// Queries [b, s, (H d)], their bias, distances [1, H, s, s], gates [d, e] with a bias [e] and a factor [1, H, 1, 1] ->
/// [b, H, s, s].
pub(super) struct GatedBias;

impl Rule for GatedBias {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let heads = node.maybe_int("num_heads").filter(|n| *n > 0);
        let heads = heads.ok_or_else(|| Refusal::new("it has no `num_heads`"))?;
        if node.has(6) {
            return Err(Refusal::new("how its sequences are packed is not described"));
        }
        let text = "b s (H d), (H d), 1 H s s, d e, e, 1 H 1 1 -> b H s s";
        let signature = Signature::parse(text, WHY)?.because("d", "the gates of a head are computed from all of it");
        Ok(signature.with("H", Extent::known(heads)))
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let heads = change.after.extent(2, 1)?.value();
        let heads = heads.ok_or_else(|| Refusal::new("the number of its heads is not known"))?;
        Ok(if heads == before.int("num_heads", 0) { Vec::new() } else { vec![Edit::Int("num_heads", heads)] })
    }
}
