//! Conv: x [n, C, spatial…], W [O, C / group, kernel…], B [O] -> y [n, O, spatial…].
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Conv.html>. A grouped convolution is (G C) -> (G O): whole groups may go,
//! or the same positions in every group; depthwise is C = 1. Spatial axes slide, so they are locked.

use super::{Change, Edit, NodeView, Refusal, Refused, Rule, Signature};
use crate::axes::Extent;

/// Convolution of any rank and group count.
pub(super) struct Conv;

impl Rule for Conv {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let rank = node.rank(0)?;
        if rank < 3 || node.rank(1)? != rank {
            return Err(Refusal::new("the ranks of input and kernel differ"));
        }
        let group = Extent::known(node.int("group", 1));
        let words = |prefix: &str| (2..rank).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>().join(" ");
        let (x, k, y) = (words("h"), words("k"), words("p"));
        let bias = if node.has(2) { ", (G O)" } else { "" };
        let text = if group.is_one() {
            format!("n C {x}, O C {k}{} -> n O {y}", bias.replace("(G O)", "O"))
        } else {
            format!("n (G C) {x}, (G O) C {k}{bias} -> n (G O) {y}")
        };
        let mut signature = Signature::parse(&text, "a convolution slides over it or runs it sample by sample")?
            .with("G", group);
        for i in 2..rank {
            let extent = convolved(node, &node.extent(0, i)?, &node.extent(1, i)?, i - 2, rank - 2)?;
            signature = signature.with(&format!("p{i}"), extent);
        }
        Ok(signature)
    }

    fn patch(&self, _before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let node = change.after;
        let old = node.int("group", 1);
        if old == 1 {
            return Ok(Vec::new());
        }
        let channels = node.extent(0, 1)?;
        let group = channels
            .divided_by(&node.extent(1, 1)?)
            .and_then(|g| g.value())
            .ok_or_else(|| Refusal::new("the kept channels do not fall into equal groups"))?;
        Ok(if group == old { Vec::new() } else { vec![Edit::Int("group", group)] })
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        let output = outputs.first()?.as_ref()?;
        let kernel = node.shape(1).ok()?.get(1..)?;
        Extent::product(output.iter().chain(kernel))
    }
}

/// The output extent of one spatial axis of a convolution.
fn convolved(node: &NodeView, input: &Extent, kernel: &Extent, axis: usize, axes: usize) -> Refused<Extent> {
    let kernel = kernel.value().ok_or_else(|| Refusal::new("the kernel's size is not known"))?;
    window(node, input, kernel, axis, axes, false)
}

/// The output extent of a window of `kernel` sliding over spatial axis `axis` of `axes`: strides, pads, dilations and
/// auto_pad as the ONNX convolution and pooling operators define them.
pub(super) fn window(
    node: &NodeView,
    input: &Extent,
    kernel: i64,
    axis: usize,
    axes: usize,
    round_up: bool,
) -> Refused<Extent> {
    let at = |name: &str, index: usize, default: i64| {
        node.ints(name).map_or(Some(default), |l| if l.is_empty() { Some(default) } else { l.get(index).copied() })
    };
    let missing = || Refusal::new("an attribute list is shorter than the spatial rank");
    let stride = at("strides", axis, 1).filter(|s| *s > 0).ok_or_else(missing)?;
    let dilation = at("dilations", axis, 1).filter(|d| *d > 0).ok_or_else(missing)?;
    let begin = at("pads", axis, 0).ok_or_else(missing)?;
    let end = at("pads", axis + axes, 0).ok_or_else(missing)?;
    let overflow = || Refusal::new("the window's extent overflows");
    let reach = kernel.checked_sub(1).and_then(|k| k.checked_mul(dilation)).and_then(|k| k.checked_add(1));
    let reach = reach.ok_or_else(overflow)?;
    let Some(n) = input.value() else {
        let key = format!(
            "window{kernel},{stride},{dilation},{begin},{end},{},{round_up}",
            node.string("auto_pad", "NOTSET")
        );
        // A stride of 1 with pads that make up for the kernel keeps the extent, whatever it is.
        let same = stride == 1 && begin.checked_add(end).and_then(|p| p.checked_add(1)) == Some(reach);
        let auto = node.string("auto_pad", "NOTSET");
        if (auto == "NOTSET" && same) || (auto.starts_with("SAME") && stride == 1) {
            return Ok(input.clone());
        }
        return Ok(node.symbolic(|s| s.computed(&key, std::slice::from_ref(input))));
    };
    let rounded = |n: i64| {
        let steps = if round_up { n.checked_add(stride - 1) } else { Some(n) };
        steps.map(|s| s.div_euclid(stride))
    };
    let extent = match node.string("auto_pad", "NOTSET").as_str() {
        "SAME_UPPER" | "SAME_LOWER" => n.checked_add(stride - 1).map(|n| n / stride),
        "VALID" => n.checked_sub(reach).and_then(rounded).map(|e| e + 1),
        _ => {
            let padded = n.checked_add(begin).and_then(|n| n.checked_add(end)).and_then(|n| n.checked_sub(reach));
            let extent = padded.and_then(rounded).map(|e| e + 1).ok_or_else(overflow)?;
            // A last window that would start in the padding at the end is dropped.
            let starts = (extent - 1).checked_mul(stride).ok_or_else(overflow)?;
            Some(if round_up && starts >= n.saturating_add(begin) { extent - 1 } else { extent })
        }
    };
    match extent {
        Some(extent) if extent > 0 => Ok(Extent::known(extent)),
        _ => Err(Refusal::new("the window is larger than its padded input")),
    }
}
