//! Conv: x [n, C, spatial…], W [O, C / group, kernel…], B [O] -> y [n, O, spatial…]; ConvTranspose: W [C, O / group, …].
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Conv.html>, <https://onnx.ai/onnx/operators/onnx__ConvTranspose.html>. A
//! grouped convolution is (G C) -> (G O): whole groups may go, or the same positions in every group; depthwise is C = 1.
//! Spatial axes slide, so they are locked.

use super::follow::unknown;
use super::window::{transposed, window};
use super::written::{Number, Written};
use super::{Change, Edit, NodeView, Refusal, Refused, Rule, Signature};
use crate::axes::Extent;

/// Convolution of any rank and group count.
pub(super) struct Conv;

/// Transposed convolution of any rank and group count.
pub(super) struct ConvTranspose;

impl Rule for Conv {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        convolution(node, 1, node.has(2))
    }

    fn patch(&self, _before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        regroup(change.after, 1, &change.after.extent(0, 1)?)
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        multiplications(node, 1, outputs)
    }
}

impl Rule for ConvTranspose {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        signature(node, 1, node.has(2), ["(G C) O", "C O"], transposed)
    }

    fn patch(&self, _before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let output = change.outputs_after.first().and_then(Option::as_ref).and_then(|shape| shape.get(1));
        let output = output.ok_or_else(|| Refusal::new("the shape of its output is not known"))?;
        regroup(change.after, 1, output)
    }

    fn macs(&self, node: &NodeView, _outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        let kernel = node.shape(1).ok()?.get(1..)?;
        Extent::product(node.shape(0).ok()?.iter().chain(kernel))
    }
}

/// CausalConvWithState: a depthwise convolution of x [n, C, l] over the past, which goes on from a state [n, C, p].
pub(super) static CAUSAL: Written = Written {
    texts: &["n C l, C 1 k, C, n C p -> n C l, n C p"],
    why: "a convolution slides over it or runs it sample by sample",
    extents: &[("p", Number::Unknown(0))],
};

/// ConvTransposeWithDynamicPads of com.microsoft: pads in slot 2, the bias in slot 3.
pub(super) struct ConvTransposeDynamic;

impl Rule for ConvTransposeDynamic {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let padded = |node: &NodeView, _: &Extent, _: i64, axis: usize, _: usize| Ok(unknown(node, axis + 2));
        let spatial: Spatial = if node.has(2) { padded } else { transposed };
        let mut signature = signature(node, 1, node.has(3), ["(G C) O", "C O"], spatial)?;
        signature.inputs.insert(2, None);
        Ok(signature)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        ConvTranspose.patch(before, change)
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        ConvTranspose.macs(node, outputs)
    }
}

/// The signature of a convolution of input 0 with the kernel in slot `kernel`: input, kernel and, with one, bias.
///
/// # Errors
/// A refusal if the shapes do not fit.
pub(super) fn convolution(node: &NodeView, kernel: usize, has_bias: bool) -> Refused<Signature> {
    signature(node, kernel, has_bias, ["(G O) C", "O C"], window_of)
}

/// The multiplications of a convolution with the kernel in slot `kernel`.
pub(super) fn multiplications(node: &NodeView, kernel: usize, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
    let output = outputs.first()?.as_ref()?;
    let kernel = node.shape(kernel).ok()?.get(1..)?;
    Extent::product(output.iter().chain(kernel))
}

/// Gives the output extent of a spatial axis: node, input extent, kernel extent, axis, count of axes.
type Spatial = fn(&NodeView, &Extent, i64, usize, usize) -> Refused<Extent>;

fn window_of(node: &NodeView, input: &Extent, kernel: i64, axis: usize, axes: usize) -> Refused<Extent> {
    window(node, input, kernel, axis, axes, false)
}

/// The signature with the kernel in slot `slot`; `channels` are the first two axes of the kernel, grouped and not.
fn signature(
    node: &NodeView,
    slot: usize,
    has_bias: bool,
    channels: [&str; 2],
    spatial: Spatial,
) -> Refused<Signature> {
    let rank = node.rank(0)?;
    if rank < 3 || node.rank(slot)? != rank {
        return Err(Refusal::new("the ranks of input and kernel differ"));
    }
    let group = Extent::known(node.int("group", 1));
    let words = |prefix: &str| (2..rank).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>().join(" ");
    let (x, k, y) = (words("h"), words("k"), words("p"));
    let [grouped, plain] = channels;
    let text = if group.is_one() {
        let bias = if has_bias { ", O" } else { "" };
        format!("n C {x}, {plain} {k}{bias} -> n O {y}")
    } else {
        let bias = if has_bias { ", (G O)" } else { "" };
        format!("n (G C) {x}, {grouped} {k}{bias} -> n (G O) {y}")
    };
    let mut signature =
        Signature::parse(&text, "a convolution slides over it or runs it sample by sample")?.with("G", group);
    for i in 2..rank {
        let kernel = node.extent(slot, i)?.value().ok_or_else(|| Refusal::new("the kernel's size is not known"))?;
        let extent = spatial(node, &node.extent(0, i)?, kernel, i - 2, rank - 2)?;
        signature = signature.with(&format!("p{i}"), extent);
    }
    Ok(signature)
}

/// Sets `group` to what is left of it: `channels` of one side over that side's channels in one group, which are axis 1
/// of the kernel in slot `kernel`.
///
/// # Errors
/// A refusal if groups differ in size.
pub(super) fn regroup(node: &NodeView, kernel: usize, channels: &Extent) -> Refused<Vec<Edit>> {
    let old = node.int("group", 1);
    // Symbolic extents do not shrink, and with them neither groups nor what each of them reads.
    if old == 1 || channels.value().is_none() {
        return Ok(Vec::new());
    }
    let group = channels
        .divided_by(&node.extent(kernel, 1)?)
        .and_then(|g| g.value())
        .ok_or_else(|| Refusal::new("the kept channels do not fall into equal groups"))?;
    Ok(if group == old { Vec::new() } else { vec![Edit::Int("group", group)] })
}
