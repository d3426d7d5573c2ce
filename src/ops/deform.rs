//! DeformConv: a convolution whose windows read at computed places.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__DeformConv.html>; operator sets 19 and 22 differ in types only. Groups are
//! those of Conv. The input's channels fall into `offset_group` parts, each with places of its own: offsets
//! [n, (parts, places), spatial…], and a weight for every place in the optional mask. Whole parts may go, or the same
//! positions in every part; with several parts, `group` must be 1 or the same number.

use super::conv::{multiplications, regroup};
use super::window::window;
use super::{Change, Edit, NodeView, Refusal, Refused, Rule, Signature};
use crate::axes::Extent;

/// Convolution at computed places.
pub(super) struct DeformConv;

const OFFSETS: usize = 2;
const MASK: usize = 4;

impl Rule for DeformConv {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let rank = node.rank(0)?;
        if rank < 3 || node.rank(1)? != rank || node.rank(OFFSETS)? != rank {
            return Err(Refusal::new("the ranks of input, kernel and offsets differ"));
        }
        let (group, parts) = (node.int("group", 1), node.int("offset_group", 1));
        let words = |prefix: &str| (2..rank).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>().join(" ");
        let (x, k, y) = (words("h"), words("k"), words("p"));
        // Input channels, kernel, output channels, offsets and mask.
        let [input, kernel, output, offsets, mask] = match (group, parts) {
            (1, 1) => ["C", "O C", "O", "t", "m"],
            (_, 1) => ["(G C)", "(G O) C", "(G O)", "t", "m"],
            (1, _) => ["(Q C)", "O (Q C)", "O", "(Q t)", "(Q m)"],
            (g, q) if g == q => ["(G C)", "(G O) C", "(G O)", "(G t)", "(G m)"],
            _ => return Err(Refusal::new("its groups of channels and of offsets cut across each other")),
        };
        let bias = if node.has(3) { output } else { "_" };
        let mask = if node.has(MASK) { format!("n {mask} {y}") } else { "_".to_owned() };
        let text = format!("n {input} {x}, {kernel} {k}, n {offsets} {y}, {bias}, {mask} -> n {output} {y}");
        let mut signature = Signature::parse(&text, "a convolution reads it at computed places or sample by sample")?
            .because("t", "it counts the places of a window")
            .because("m", "it counts the places of a window")
            .with("G", Extent::known(group))
            .with("Q", Extent::known(parts));
        for i in 2..rank {
            let kernel = node.extent(1, i)?.value().ok_or_else(|| Refusal::new("the kernel's size is not known"))?;
            let extent = window(node, &node.extent(0, i)?, kernel, i - 2, rank - 2, false)?;
            signature = signature.with(&format!("p{i}"), extent);
        }
        Ok(signature)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let mut edits = regroup(change.after, 1, &change.after.extent(0, 1)?)?;
        let old = before.int("offset_group", 1);
        // The places of one part are as many as before.
        let places = before.extent(OFFSETS, 1)?.divided_by(&Extent::known(old));
        let parts = places.and_then(|places| change.after.extent(OFFSETS, 1).ok()?.divided_by(&places)?.value());
        let parts = parts.ok_or_else(|| Refusal::new("the kept channels do not fall into whole parts"))?;
        if parts != old {
            edits.push(Edit::Int("offset_group", parts));
        }
        Ok(edits)
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        multiplications(node, 1, outputs)
    }
}
