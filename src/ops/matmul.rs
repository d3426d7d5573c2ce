//! Gemm and MatMul: contractions, so that every axis may shrink.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Gemm.html>, <https://onnx.ai/onnx/operators/onnx__MatMul.html>. MatMul is
//! numpy's: operands of rank 1 are a row or a column that the output does not have, batch axes broadcast. C of Gemm
//! broadcasts to [M, N] in every operator set.

use super::elementwise::align;
use super::{NodeView, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;

/// alpha A B + beta C over matrices, either of A and B transposed.
pub(super) struct Gemm;

impl Rule for Gemm {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        if node.rank(0)? != 2 || node.rank(1)? != 2 {
            return Err(Refusal::new("an operand is no matrix"));
        }
        let (first, second) = (node.int("transA", 0) != 0, node.int("transB", 0) != 0);
        let a = if first { "K M" } else { "M K" };
        let b = if second { "N K" } else { "K N" };
        let mut signature = Signature::parse(&format!("{a}, {b} -> M N"), "")?;
        if !node.has(2) {
            return Ok(signature);
        }
        let result = [node.extent(0, usize::from(first))?, node.extent(1, usize::from(!second))?];
        let output = signature.outputs.first().cloned().flatten().unwrap_or_default();
        let c = node.shape(2)?;
        let Some(missing) = output.len().checked_sub(c.len()) else {
            return Err(Refusal::new("operand C has more than two axes"));
        };
        let terms = c.iter().zip(result.iter().zip(&output).skip(missing)).map(|(own, (extent, letter))| match own {
            own if own == extent => Ok(letter.clone()),
            own if own.is_one() => Ok(Term::One),
            _ => Err(Refusal::new("operand C does not broadcast to the product")),
        });
        let terms = terms.collect::<Refused<Vec<_>>>()?;
        signature.inputs.push(Some(terms));
        Ok(signature)
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        let contracted = node.extent(0, usize::from(node.int("transA", 0) == 0)).ok()?;
        Extent::product(outputs.first()?.as_ref()?)?.times(&contracted)
    }
}

/// A B over the last two axes.
pub(super) struct MatMul;

impl Rule for MatMul {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        product(node, [0, 1])
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        Extent::product(outputs.first()?.as_ref()?)?.times(node.shape(0).ok()?.last()?)
    }
}

/// The signature of a product of the inputs in two slots: both operands and the product.
///
/// # Errors
/// A refusal if the shapes do not fit.
pub(super) fn product(node: &NodeView, [first, second]: [usize; 2]) -> Refused<Signature> {
    let (a, b) = (node.shape(first)?, node.shape(second)?);
    if a.is_empty() || b.is_empty() {
        return Err(Refusal::new("an operand is a scalar"));
    }
    let mut signature = Signature::default();
    let (batch_a, matrix_a) = a.split_at(a.len().saturating_sub(2));
    let (batch_b, matrix_b) = b.split_at(b.len().saturating_sub(2));
    let (batches, mut output) = align(node, &mut signature, &[batch_a, batch_b], "B")?;
    let contracted = signature.free("K", None);
    let rows = (matrix_a.len() == 2).then(|| signature.free("M", None));
    let columns = (matrix_b.len() == 2).then(|| signature.free("N", None));
    for (side, batch) in batches.into_iter().enumerate() {
        let matrix = if side == 0 {
            rows.iter().chain([&contracted]).cloned().collect::<Vec<_>>()
        } else {
            [&contracted].into_iter().chain(&columns).cloned().collect()
        };
        signature.inputs.push(Some([batch, matrix].concat()));
    }
    output.extend(rows);
    output.extend(columns);
    signature.outputs = vec![Some(output)];
    Ok(signature)
}
