//! DFT, and the inverse of matrices.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__DFT.html>, and
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use super::sample::signed;
use crate::proto::build::int;

/// The transform the other way of the gradient, without its normalisation: a sum over e^(-iθ) gets one over e^(iθ).
pub(crate) fn fourier(step: &Step, context: &mut Context) -> Gradients {
    let (g, x) = (step.gradient()?, step.input(0)?);
    let (before, after) = (context.shape(x)?, context.shape(step.output()?)?);
    let rank = before.len();
    let (is_half, is_back) = (step.int("onesided", 0) != 0, step.int("inverse", 0) != 0);
    let axis = match step.optional(2) {
        Some(axis) => context.constant(axis)?.first().copied().ok_or("no axis")?,
        None => step.int("axis", if context.opset < 20 { 1 } else { -2 }),
    };
    let axis = context.axis(x, axis)?;
    let get = |shape: &[usize], axis: usize| shape.get(axis).copied().ok_or("no axis");
    let (length, given) = (get(before, axis)?, get(after, axis)?);
    if is_back && is_half || given != if is_half { length / 2 + 1 } else { length } || axis + 1 >= rank {
        return Err("a length of its own, or a real inverse".to_owned());
    }
    let mut g = g.to_owned();
    if is_half {
        // What was not given gets nothing.
        let mut pads = vec![0; 2 * rank];
        let rest = signed(length - given)?;
        pads.iter_mut().skip(rank + axis).take(1).for_each(|pad| *pad = rest);
        let pads = context.nodes.integers(&pads);
        g = context.op("Pad", &[&g, &pads]);
    }
    let inverse = int("inverse", i64::from(!is_back));
    let turned = if context.opset < 20 {
        context.node("DFT", &[&g], vec![int("axis", signed(axis)?), inverse])
    } else {
        let axis = signed(axis)?.to_le_bytes().to_vec();
        let axis = context.nodes.constant(crate::engine::ElementType::Int64, &[], axis);
        context.node("DFT", &[&g, "", &axis], vec![inverse])
    };
    let factor = if is_back { 1.0 / length as f64 } else { length as f64 };
    let mut gradient = context.scale(&turned, x, factor)?;
    if before.last() == Some(&1) {
        let (first, one) = (context.nodes.integers(&[0]), context.nodes.integers(&[1]));
        let last = context.nodes.integers(&[signed(rank - 1)?]);
        gradient = context.op("Slice", &[&gradient, &first, &one, &last]);
    }
    step.first(gradient)
}

/// -Yᵀ g Yᵀ
pub(crate) fn inverse(step: &Step, context: &mut Context) -> Gradients {
    let (g, y) = (step.gradient()?, step.output()?);
    let mut order: Vec<usize> = (0..context.shape(y)?.len()).collect();
    if let Some(last) = order.last_chunk_mut::<2>() {
        last.swap(0, 1);
    }
    let turned = context.transpose(y, &order);
    let product = context.op("MatMul", &[&turned, g]);
    let product = context.op("MatMul", &[&product, &turned]);
    let gradient = context.op("Neg", &[&product]);
    step.first(gradient)
}
