//! Gemm and MatMul: contractions, so that every axis may shrink.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Gemm.html>, <https://onnx.ai/onnx/operators/onnx__MatMul.html>. MatMul is
//! numpy's: operands of rank 1 are a row or a column that the output does not have, batch axes broadcast. C of Gemm
//! broadcasts to [M, N] in every operator set.

use super::elementwise::align;
use super::{NodeView, Part, Refusal, Refused, Rule, Signature, Term};
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

/// How an operand of rank 2 or more lies in memory; all false is numpy's `batch…, rows, columns`.
#[derive(Clone, Copy, Default)]
pub(super) struct Layout {
    /// Rows and columns are exchanged.
    pub(super) transposed: bool,
    /// The matrix axis in front of the last one stands before the batch axes.
    pub(super) rows_first: bool,
}

impl Layout {
    /// The axes of an operand of `rank` in numpy's order: batch axes, rows, columns; one of rank 1 lies one way only.
    pub(super) fn order(self, rank: usize) -> Vec<usize> {
        let Some(last) = rank.checked_sub(1).filter(|last| *last > 0) else { return (0..rank).collect() };
        let (batch, matrix) = if self.rows_first { (1..last, 0) } else { (0..last - 1, last - 1) };
        let matrix = if self.transposed { [last, matrix] } else { [matrix, last] };
        batch.chain(matrix).collect()
    }
}

/// The signature of a product of the inputs in two slots: both operands and the product. Where both are activations, as
/// in attention, the batch axes that they share are heads, and what is multiplied there are head dimensions.
///
/// # Errors
/// A refusal if the shapes do not fit.
pub(super) fn product(node: &NodeView, slots: [usize; 2]) -> Refused<Signature> {
    arranged(node, slots.map(|slot| (slot, Layout::default())))
}

/// The same for operands in other layouts.
///
/// # Errors
/// As [`product`].
pub(super) fn arranged(node: &NodeView, operands: [(usize, Layout); 2]) -> Refused<Signature> {
    let mut orders = Vec::new();
    let mut shapes = Vec::new();
    for (slot, layout) in operands {
        let shape = node.shape(slot)?;
        if shape.is_empty() {
            return Err(Refusal::new("an operand is a scalar"));
        }
        let order = layout.order(shape.len());
        shapes.push(order.iter().filter_map(|axis| shape.get(*axis)).cloned().collect::<Vec<_>>());
        orders.push(order);
    }
    let batch_axes = |shape: &Vec<Extent>| shape.len().saturating_sub(2);
    let batches: Vec<&[Extent]> = shapes.iter().map(|shape| shape.split_at(batch_axes(shape)).0).collect();
    let is_matrix: Vec<bool> = shapes.iter().map(|shape| shape.len() > 1).collect();
    let mut signature = Signature::default();
    let (batches, mut output) = align(node, &mut signature, &batches, "B")?;
    let multiplies_activations = operands.iter().all(|(slot, _)| node.constant(*slot).is_none());
    let contracted = signature.free("K", None);
    let rows = (is_matrix.first() == Some(&true)).then(|| signature.free("M", None));
    let columns = (is_matrix.get(1) == Some(&true)).then(|| signature.free("N", None));
    if multiplies_activations {
        let shared: Vec<Term> = output.iter().filter(|t| batches.iter().all(|b| b.contains(t))).cloned().collect();
        shared.iter().for_each(|term| signature.mark(term, Part::Heads));
        rows.iter().chain(&columns).chain([&contracted]).for_each(|t| signature.mark(t, Part::HeadDimensions));
    }
    for (side, (batch, order)) in batches.into_iter().zip(orders).enumerate() {
        let matrix: Vec<Term> = if side == 0 {
            rows.iter().chain([&contracted]).cloned().collect()
        } else {
            [&contracted].into_iter().chain(&columns).cloned().collect()
        };
        let mut terms: Vec<(usize, Term)> = order.into_iter().zip([batch, matrix].concat()).collect();
        terms.sort_by_key(|(axis, _)| *axis);
        signature.inputs.push(Some(terms.into_iter().map(|(_, term)| term).collect()));
    }
    output.extend(rows);
    output.extend(columns);
    signature.outputs = vec![Some(output)];
    Ok(signature)
}
