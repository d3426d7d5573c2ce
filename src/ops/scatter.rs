//! Writing into a tensor at computed places: ScatterElements, ScatterND, and the triangles of Trilu.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__ScatterND.html>, <https://onnx.ai/onnx/operators/onnx__Trilu.html>. The output has
//! the shape of the first input. Where indices are computed, any position of any axis may be meant, so all axes of the
//! data are locked; what is known is the shape. Trilu compares the indices of the last two axes.

use super::{NodeView, Refusal, Refused, Rule, Signature, Term};

/// ScatterElements (Scatter before operator set 11) and ScatterND.
pub(super) struct Scatter;

/// The upper or lower triangle of matrices.
pub(super) struct Trilu;

impl Rule for Scatter {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        like_the_data(node, 0, "it is written to at computed places")
    }
}

impl Rule for Trilu {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let free = node.rank(0)?.checked_sub(2).ok_or_else(|| Refusal::new("a triangle needs two axes"))?;
        like_the_data(node, free, "a triangle compares its indices")
    }
}

/// Input and output alike, the first `free` axes free; the other inputs stay undescribed.
fn like_the_data(node: &NodeView, free: usize, why: &str) -> Refused<Signature> {
    let mut signature = Signature::default();
    let shape = node.shape(0)?;
    let axes: Vec<Term> = shape
        .iter()
        .enumerate()
        .map(|(i, extent)| match i < free {
            true => signature.free(format!("A{i}"), Some(extent.clone())),
            false => signature.fixed(format!("a{i}"), Some(extent.clone()), why),
        })
        .collect();
    signature.inputs = vec![None; node.input_count()];
    if let Some(first) = signature.inputs.first_mut() {
        *first = Some(axes.clone());
    }
    signature.outputs = vec![Some(axes)];
    Ok(signature)
}
