//! Transpose: the axes in another order; without `perm`, reversed.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Transpose.html>.

use super::{Integers, NodeView, Refusal, Refused, Rule, Signature, normalise_axis};

/// Permuting axes.
pub(super) struct Transpose;

impl Rule for Transpose {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let shape = node.shape(0)?;
        let order = order(node, shape.len())?;
        let mut signature = Signature::default();
        let input = super::follow::letters(&mut signature, "A", shape);
        signature.outputs = vec![Some(order.iter().filter_map(|a| input.get(*a).cloned()).collect())];
        signature.inputs = vec![Some(input)];
        Ok(signature)
    }

    fn evaluate(&self, node: &NodeView) -> Option<Vec<Option<Integers>>> {
        let data = node.integers(0)?;
        Some(vec![data.transposed(&order(node, data.dims.len()).ok()?)])
    }
}

/// The input axis behind each output axis.
fn order(node: &NodeView, rank: usize) -> Refused<Vec<usize>> {
    let Some(perm) = node.ints("perm") else { return Ok((0..rank).rev().collect()) };
    let order = perm.iter().map(|a| normalise_axis(*a, rank)).collect::<Refused<Vec<_>>>()?;
    let mut sorted = order.clone();
    sorted.sort_unstable();
    match sorted.into_iter().eq(0..rank) {
        true => Ok(order),
        false => Err(Refusal::new(format!("`perm` is no order of {rank} axes"))),
    }
}
