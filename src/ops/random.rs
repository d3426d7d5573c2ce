//! Operators that draw random numbers. The numbers are drawn one after the other, so that an index that goes would change
//! those behind it: every axis is locked, and the shape is known.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__RandomNormal.html>, <https://onnx.ai/onnx/operators/onnx__Bernoulli.html>,
//! <https://onnx.ai/onnx/operators/onnx__Multinomial.html>.

use super::written::{Number, Written, written};
use super::{NodeView, Refusal, Refused, Rule, Signature};
use crate::axes::Extent;

const WHY: &str = "random numbers are drawn one after the other";

/// RandomNormalLike, RandomUniformLike, Bernoulli: as many numbers as the input has.
pub(super) static DRAWN_LIKE: Written = written(&["a* -> a*"], WHY);

/// Logarithms of probabilities [b, classes] -> drawn classes [b, samples].
pub(super) static MULTINOMIAL: Written =
    Written { texts: &["b c -> b s"], why: WHY, extents: &[("s", Number::AttributeOr("sample_size", 1))] };

/// RandomNormal, RandomUniform: the shape is an attribute.
pub(super) struct Drawn;

impl Rule for Drawn {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let shape = node.ints("shape").ok_or_else(|| Refusal::new("it has no `shape`"))?;
        let mut signature = Signature::default();
        let output = shape.iter().enumerate().map(|(i, n)| (format!("a{i}"), Extent::known(*n)));
        let output = output.map(|(name, extent)| signature.fixed(name, Some(extent), WHY)).collect();
        signature.outputs = vec![Some(output)];
        Ok(signature)
    }
}
