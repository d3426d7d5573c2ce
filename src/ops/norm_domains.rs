//! Normalisations of other domains: GroupNorm and SkipGroupNorm of com.microsoft over groups of channels that stand last,
//! Normalizer of ai.onnx.ml.
//!
//! Spec: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>. x [N, h, w, (G c)], or
//! [N, (G c), h, w] if `channels_last` is 0; numbers per channel [(G c)]. Whole groups may go. What SkipGroupNorm adds
//! before is a picture, or one number per sample and channel, and a bias; its second output is the sum.

use super::norm::locked_axes;
use super::{Change, Edit, NodeView, Refusal, Refused, Rule, Signature};
use crate::axes::Extent;

/// Normalisation over groups, and an activation.
pub(super) struct GroupNorm;

const STATISTICS: &str = "its statistics are taken over this axis";

fn channel_axis(node: &NodeView) -> usize {
    if node.int("channels_last", 1) != 0 { 3 } else { 1 }
}

impl Rule for GroupNorm {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let groups = node.maybe_int("groups").filter(|g| *g > 0).ok_or_else(|| Refusal::new("it has no `groups`"))?;
        if node.rank(0)? != 4 {
            return Err(Refusal::new("its input has not four axes"));
        }
        let x = if channel_axis(node) == 3 { "N h w (G c)" } else { "N (G c) h w" };
        let one_for_all = |slot| Ok::<_, Refusal>(node.extent(slot, 0)?.is_one() && !node.extent(0, 0)?.is_one());
        let skip = match (node.has(3), node.rank(3)) {
            (false, _) => "_",
            (true, Ok(2)) => "N (G c)",
            (true, Ok(4)) if node.extent(3, 1)?.is_one() && !node.extent(0, 1)?.is_one() => {
                if one_for_all(3)? {
                    "1 1 1 (G c)"
                } else {
                    "N 1 1 (G c)"
                }
            }
            (true, Ok(4)) => x,
            _ => return Err(Refusal::new("what is added to its input has an unexpected rank")),
        };
        let bias = if node.has(4) { "(G c)" } else { "_" };
        let text = format!("{x}, (G c), (G c), {skip}, {bias} -> {x}, {x}");
        let mut signature = Signature::parse(&text, STATISTICS)?.with("G", Extent::known(groups)).scaled_by(1);
        signature.inputs.truncate(node.input_count());
        signature.outputs.truncate(node.outputs.max(1));
        Ok(signature)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let (axis, old) = (channel_axis(before), before.int("groups", 1));
        let group = before.extent(0, axis)?.divided_by(&Extent::known(old));
        let groups = group.and_then(|group| change.after.extent(0, axis).ok()?.divided_by(&group)?.value());
        let groups = groups.ok_or_else(|| Refusal::new("the kept channels do not fall into whole groups"))?;
        Ok(if groups == old { Vec::new() } else { vec![Edit::Int("groups", groups)] })
    }
}

/// Normalizer: rows divided by a norm of their features, the last axis. Sums of magnitudes and of squares take a feature
/// that is zero as they take one that is gone; the largest entry does not.
pub(super) struct Normalizer;

impl Rule for Normalizer {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let rank = node.rank(0)?;
        let features = match node.string("norm", "MAX").as_str() {
            "L1" | "L2" => None,
            _ => rank.checked_sub(1),
        };
        locked_axes(node, features.as_slice(), "every feature is divided by the largest one")
    }
}
