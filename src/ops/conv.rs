//! Conv: x [n, C, spatial…], W [O, C / group, kernel…], B [O] -> y [n, O, spatial…]; ConvTranspose: W [C, O / group, …].
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Conv.html>, <https://onnx.ai/onnx/operators/onnx__ConvTranspose.html>. A
//! grouped convolution is (G C) -> (G O): whole groups may go, or the same positions in every group; depthwise is C = 1.
//! Spatial axes slide, so they are locked.

use super::window::{transposed, window};
use super::{Change, Edit, NodeView, Refusal, Refused, Rule, Signature};
use crate::axes::Extent;

/// Convolution of any rank and group count.
pub(super) struct Conv;

/// Transposed convolution of any rank and group count.
pub(super) struct ConvTranspose;

impl Rule for Conv {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        signature(node, ["(G O) C", "O C"], window_of)
    }

    fn patch(&self, _before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        regroup(change.after, &change.after.extent(0, 1)?)
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        let output = outputs.first()?.as_ref()?;
        let kernel = node.shape(1).ok()?.get(1..)?;
        Extent::product(output.iter().chain(kernel))
    }
}

impl Rule for ConvTranspose {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        signature(node, ["(G C) O", "C O"], transposed)
    }

    fn patch(&self, _before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let output = change.outputs_after.first().and_then(Option::as_ref).and_then(|shape| shape.get(1));
        let output = output.ok_or_else(|| Refusal::new("the shape of its output is not known"))?;
        regroup(change.after, output)
    }

    fn macs(&self, node: &NodeView, _outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        let kernel = node.shape(1).ok()?.get(1..)?;
        Extent::product(node.shape(0).ok()?.iter().chain(kernel))
    }
}

/// Gives the output extent of a spatial axis: node, input extent, kernel extent, axis, count of axes.
type Spatial = fn(&NodeView, &Extent, i64, usize, usize) -> Refused<Extent>;

fn window_of(node: &NodeView, input: &Extent, kernel: i64, axis: usize, axes: usize) -> Refused<Extent> {
    window(node, input, kernel, axis, axes, false)
}

/// The signature; `channels` are the first two axes of the kernel, grouped and not grouped.
fn signature(node: &NodeView, channels: [&str; 2], spatial: Spatial) -> Refused<Signature> {
    let rank = node.rank(0)?;
    if rank < 3 || node.rank(1)? != rank {
        return Err(Refusal::new("the ranks of input and kernel differ"));
    }
    let group = Extent::known(node.int("group", 1));
    let words = |prefix: &str| (2..rank).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>().join(" ");
    let (x, k, y) = (words("h"), words("k"), words("p"));
    let [grouped, plain] = channels;
    let text = if group.is_one() {
        let bias = if node.has(2) { ", O" } else { "" };
        format!("n C {x}, {plain} {k}{bias} -> n O {y}")
    } else {
        let bias = if node.has(2) { ", (G O)" } else { "" };
        format!("n (G C) {x}, {grouped} {k}{bias} -> n (G O) {y}")
    };
    let mut signature =
        Signature::parse(&text, "a convolution slides over it or runs it sample by sample")?.with("G", group);
    for i in 2..rank {
        let kernel = node.extent(1, i)?.value().ok_or_else(|| Refusal::new("the kernel's size is not known"))?;
        let extent = spatial(node, &node.extent(0, i)?, kernel, i - 2, rank - 2)?;
        signature = signature.with(&format!("p{i}"), extent);
    }
    Ok(signature)
}

/// Sets `group` to what is left of it: `channels` of one side over that side's channels in one group, which are axis 1
/// of the kernel.
fn regroup(node: &NodeView, channels: &Extent) -> Refused<Vec<Edit>> {
    let old = node.int("group", 1);
    if old == 1 {
        return Ok(Vec::new());
    }
    let group = channels
        .divided_by(&node.extent(1, 1)?)
        .and_then(|g| g.value())
        .ok_or_else(|| Refusal::new("the kept channels do not fall into equal groups"))?;
    Ok(if group == old { Vec::new() } else { vec![Edit::Int("group", group)] })
}
