//! What ONNX Runtime's optimiser writes in place of several operators: a convolution or product with its activation, a
//! residual sum with the normalisation behind it, an embedding with its normalisation.
//!
//! Spec: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>. Activations inside a fused
//! operator are f(x), index by index, so the axes are those of the plain operator.

use super::conv::Conv;
use super::matmul::{Layout, arranged};
use super::norm::LayerNormalization;
use super::{Change, Edit, NodeView, Refused, Rule, Signature};
use crate::axes::Extent;

/// Convolution, plus Z with the axes of the output, then an activation.
pub(super) struct FusedConv;

impl Rule for FusedConv {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let mut signature = Conv.signature(node)?;
        if node.has(3) {
            let output = signature.outputs.first().cloned().flatten();
            signature.inputs.resize(3, None);
            signature.inputs.push(output);
        }
        Ok(signature)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        Conv.patch(before, change)
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        Conv.macs(node, outputs)
    }
}

/// alpha A B over the last two axes, either operand transposed; `transBatchA` and `transBatchB` say that an operand is
/// [rows, batch…, columns] before that.
pub(super) struct FusedMatMul;

fn layouts(node: &NodeView) -> [Layout; 2] {
    [("transA", "transBatchA"), ("transB", "transBatchB")]
        .map(|(matrix, batch)| Layout { transposed: node.int(matrix, 0) != 0, rows_first: node.int(batch, 0) != 0 })
}

impl Rule for FusedMatMul {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let [a, b] = layouts(node);
        arranged(node, [(0, a), (1, b)])
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        let [layout, _] = layouts(node);
        let shape = node.shape(0).ok()?;
        let contracted = shape.get(*layout.order(shape.len()).last()?)?;
        Extent::product(outputs.first()?.as_ref()?)?.times(contracted)
    }
}

/// Normalisation of x + skip (+ bias) over the last axis; output 3 is the sum. Gamma, beta and bias behind the two
/// summands are vectors along the last axis.
pub(super) struct SkipLayerNormalization;

impl Rule for SkipLayerNormalization {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let mut signature = LayerNormalization.signature(node)?.scaled_by(2);
        if node.outputs > 3 {
            let sum = signature.outputs.first().cloned().flatten();
            signature.outputs.push(sum);
        }
        Ok(signature)
    }

    fn approximate(&self) -> Option<&'static str> {
        Some("the last axis")
    }
}

/// The sum of word, position and segment embeddings, normalised over the last axis.
///
/// ids [b, s], segment ids, word [v, h], position [p, h], segment [t, h], gamma [h], beta [h], mask, position ids ->
/// [b, s, h], [b], [b, s, h].
pub(super) struct EmbedLayerNormalization;

impl Rule for EmbedLayerNormalization {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let signature = Signature::parse(
            "b s, _, v h, p h, t h, h, h -> b s h, b, b s h",
            "its embeddings are looked up along this axis",
        )?;
        let mut signature = signature.because("h", super::norm::STATISTICS).approximately(&["h"]).scaled_by(5);
        if !node.has(4)
            && let Some(segments) = signature.inputs.get_mut(4)
        {
            *segments = None;
        }
        signature.outputs.truncate(node.outputs.max(1));
        Ok(signature)
    }

    fn approximate(&self) -> Option<&'static str> {
        Some("the width of the embeddings")
    }
}
