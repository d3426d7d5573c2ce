//! DepthToSpace and SpaceToDepth: blocks of channels become blocks of pixels, and back.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__DepthToSpace.html>,
//! <https://onnx.ai/onnx/operators/onnx__SpaceToDepth.html>. `mode` (operator set 11) says whether the block is the outer
//! (`DCR`, the default and the only one before) or the inner (`CRD`) part of the channels. The block size is one number
//! for both directions, so the block itself is locked.

use super::{NodeView, Refusal, Refused, Rule, Signature};
use crate::axes::Extent;

const WHY: &str = "a position inside a block of pixels";

/// Channels to pixels.
pub(super) struct DepthToSpace;

/// Pixels to channels.
pub(super) struct SpaceToDepth;

impl Rule for DepthToSpace {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let text = match node.string("mode", "DCR").as_str() {
            "DCR" => "N (r s C) H W -> N C (H r) (W s)",
            "CRD" => "N (C r s) H W -> N C (H r) (W s)",
            other => return Err(Refusal::new(format!("its mode `{other}` is not known"))),
        };
        blocks(node, text)
    }
}

impl Rule for SpaceToDepth {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        blocks(node, "N C (H r) (W s) -> N (r s C) H W")
    }
}

fn blocks(node: &NodeView, text: &str) -> Refused<Signature> {
    let size = node.maybe_int("blocksize").filter(|b| *b > 0).ok_or_else(|| Refusal::new("it has no block size"))?;
    let size = Extent::known(size);
    Ok(Signature::parse(text, WHY)?.with("r", size.clone()).with("s", size))
}
