//! Quantised weights as the numbers they stand for: (stored - zero point) × scale.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html>. Stored integers say nothing about the magnitude
//! of a channel, because every channel with a scale of its own fills their range, and unsigned ones are far from 0
//! where they stand for zero. Invariants: only constants are looked at; a number belongs to as many neighbours along
//! each axis as there are positions for one number.

use crate::graph::Graph;
use crate::groups::Member;
use crate::ops::{Signature, Term};
use crate::proto::onnx::TensorProto;
use crate::proto::tensor;

/// The weights that the reader of `member`, of this signature, makes of it, or `None` if it makes none: no quantised
/// constant, or one whose scale or zero point the model computes.
pub(super) fn weights(graph: &Graph, signature: &Signature, member: &Member) -> Option<TensorProto> {
    let [scale, zero] = signature.quantisation?;
    let inputs = &graph.node(member.node).inputs;
    if inputs.first()? != &Some(member.value) {
        return None;
    }
    let constant = |slot: usize| -> Option<&TensorProto> {
        let value = (*inputs.get(slot)?)?;
        Some(graph.value(value).constant()?.tensor.as_ref())
    };
    let stored = constant(0)?;
    let extents: Vec<usize> = stored.dims.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<_>>()?;
    let values = numbers(stored)?;
    let scales = tensor::to_f32(constant(scale)?).ok()?;
    let scale_at = Steps::of(signature, scale, constant(scale)?, &extents)?;
    let zeros = match inputs.get(zero).copied().flatten() {
        None => None,
        Some(_) => {
            let points = constant(zero)?;
            Some((numbers(points)?, Steps::of(signature, zero, points, &extents)?))
        }
    };
    let real = |(position, stored): (usize, f32)| {
        let zero = match &zeros {
            None => 0.0,
            Some((numbers, steps)) => *numbers.get(steps.at(position))?,
        };
        Some((stored - zero) * scales.get(scale_at.at(position))?)
    };
    let real: Vec<f32> = values.into_iter().enumerate().map(real).collect::<Option<_>>()?;
    Some(tensor::from_f32(stored.name(), &stored.dims, &real))
}

/// Stored numbers: integers, or floats of eight bits.
fn numbers(tensor: &TensorProto) -> Option<Vec<f32>> {
    match tensor::to_i64(tensor) {
        Ok(values) => Some(values.into_iter().map(|v| v as f32).collect()),
        Err(_) => tensor::to_f32(tensor).ok(),
    }
}

/// How the position of a weight leads to the position of its number.
struct Steps {
    /// Per axis that has several numbers: stride and extent of the weight, positions per number, stride of the numbers.
    axes: Vec<[usize; 4]>,
}

impl Steps {
    fn of(signature: &Signature, slot: usize, numbers: &TensorProto, extents: &[usize]) -> Option<Self> {
        let counts: Vec<usize> = numbers.dims.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<_>>()?;
        let weight = signature.inputs.first()?.as_ref()?;
        let terms: &[Term] = signature.inputs.get(slot)?.as_ref()?;
        let mut axes = Vec::new();
        let mut stride = 1usize;
        for (place, count) in counts.iter().enumerate().rev() {
            // A vector runs along the axis of the same letter, blocks have the axes of the weight.
            let axis = if counts.len() == extents.len() && counts.len() > 1 {
                place
            } else {
                weight.iter().position(|term| Some(term) == terms.get(place)).unwrap_or(0)
            };
            let extent = *extents.get(axis)?;
            if *count > 1 {
                let inner = extents.get(axis + 1..)?.iter().try_fold(1usize, |all, e| all.checked_mul(*e))?;
                axes.push([inner.max(1), extent.max(1), extent.div_ceil(*count).max(1), stride]);
            }
            stride = stride.checked_mul(*count)?;
        }
        Some(Self { axes })
    }

    fn at(&self, position: usize) -> usize {
        self.axes.iter().map(|[inner, extent, block, stride]| position / inner % extent / block * stride).sum()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::by_weights;
    use crate::text;

    /// Rows (3, 1) - 1 times 0.5 and (4, 0) - 2 times 2; the second weight is 1 and 10; the mean of both counts.
    #[test]
    fn scales_and_zero_points_count() {
        let model = "in x [1,2]
             w = DequantizeLinear(a, s<0.5,2.0>, z:uint8{1,2}, axis=0)
             t = Transpose(w, perm=[1,0])
             h = MatMul(x, t)
             v = DequantizeLinear(b, <1.0>)
             y = MatMul(h, v)
             out y";
        let model = model.replace("(a,", "(a:int8[2,2],").replace("(b,", "(b:int8[2,1],");
        let mut parsed = text::parse(&model).unwrap();
        let graph = parsed.graph.as_mut().unwrap();
        for (name, values) in [("a", vec![3u8, 1, 4, 0]), ("b", vec![1, 10])] {
            graph.initializer.iter_mut().find(|t| t.name() == name).unwrap().raw_data = Some(values.into());
        }
        assert_eq!(by_weights(&parsed, "l1"), [(1.0 + 1.0) / 2.0, (8.0 + 10.0) / 2.0]);
    }
}
