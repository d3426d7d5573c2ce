//! Operators that make or read shapes: Shape, Size, ConstantOfShape, Range and OneHot.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Shape.html> and its neighbours. Reading a shape says nothing about the
//! channels behind it, so Shape and Size lock nothing: their results are re-evaluated after pruning. `start` and `end` of
//! Shape come with operator set 15.

use super::follow::{entries, entry, follow, letters, unknown};
use super::rearrange::count;
use super::{Change, Edit, Integers, MAX_ENTRIES, NodeView, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;
use crate::proto::tensor;

/// The extents of a tensor.
pub(super) struct Shape;

/// The number of elements of a tensor.
pub(super) struct Size;

/// A tensor of one value.
pub(super) struct ConstantOfShape;

/// Numbers at equal distances.
pub(super) struct Range;

/// Indices as rows of zeros with a one.
pub(super) struct OneHot;

impl Rule for Shape {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let read = Extent::from(extents_read(node)?.len());
        let mut signature = Signature::default();
        signature.inputs = vec![Some(letters(&mut signature, "A", node.shape(0)?))];
        let output = signature.fixed("r", Some(read), "an axis of a shape");
        signature.outputs = vec![Some(vec![output])];
        Ok(signature)
    }

    fn evaluate(&self, node: &NodeView) -> Option<Vec<Option<Integers>>> {
        let extents = extents_read(node).ok()?.iter().cloned().map(Some).collect();
        Some(vec![Some(Integers::vector(extents))])
    }
}

/// The extents between `start` and `end`.
fn extents_read<'a>(node: &'a NodeView) -> Refused<&'a [Extent]> {
    let shape = node.shape(0)?;
    let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
    let at = |axis: i64| {
        let from_front = if axis < 0 { axis.saturating_add(rank) } else { axis };
        usize::try_from(from_front.clamp(0, rank)).unwrap_or(0)
    };
    let (start, end) = (at(node.int("start", 0)), at(node.int("end", rank)));
    Ok(shape.get(start..end).unwrap_or_default())
}

impl Rule for Size {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let mut signature = Signature::default();
        signature.inputs = vec![Some(letters(&mut signature, "A", node.shape(0)?))];
        signature.outputs = vec![Some(Vec::new())];
        Ok(signature)
    }

    fn evaluate(&self, node: &NodeView) -> Option<Vec<Option<Integers>>> {
        Some(vec![Some(Integers::scalar(Extent::product(node.shape(0).ok()?)))])
    }
}

impl Rule for ConstantOfShape {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let target = entries(node, "shape", 0)?.ok_or_else(|| Refusal::new("its shape is missing"))?;
        let mut signature = Signature { inputs: vec![None], ..Default::default() };
        let mut output = Vec::with_capacity(target.len());
        for (axis, extent) in target.into_iter().enumerate() {
            output.push(match extent {
                Some(extent) if extent.value() == Some(0) => {
                    signature.fixed(format!("x{axis}"), Some(extent), "it is empty")
                }
                Some(extent) => signature.free(format!("X{axis}"), Some(extent)),
                None => {
                    let why = "its extent is not known before the model runs";
                    signature.fixed(format!("x{axis}"), Some(unknown(node, axis)), why)
                }
            });
        }
        signature.outputs = vec![Some(output)];
        Ok(signature)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let missing = || Refusal::new("its shape is not known");
        let old = entries(before, "shape", 0)?.ok_or_else(missing)?;
        let now = entries(change.after, "shape", 0)?.ok_or_else(missing)?;
        let needed = change.outputs_after.first().and_then(Option::as_ref).ok_or_else(missing)?;
        let was = change.outputs_before.first().and_then(Option::as_ref).ok_or_else(missing)?;
        let mut wanted = Vec::with_capacity(now.len());
        for (axis, now) in now.iter().enumerate() {
            let needed = needed.get(axis).ok_or_else(missing)?;
            wanted.push(entry(now.as_ref(), needed, old.get(axis) == Some(now) && was.get(axis) == Some(needed))?);
        }
        follow(change.after, "shape", 0, &wanted)
    }

    fn evaluate(&self, node: &NodeView) -> Option<Vec<Option<Integers>>> {
        let target = node.known_integers(0)?;
        let dims: Vec<usize> = target.into_iter().map(|n| usize::try_from(n).ok()).collect::<Option<_>>()?;
        let entry = Integers::from_tensor(node.node.attribute("value")?.t.as_ref()?)?.only()?.clone();
        Some(vec![Some(Integers { values: vec![Some(entry); count(&dims)?], dims })])
    }
}

impl Rule for Range {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let extent = match (numbers(node), floats(node)) {
            (Some((start, limit, delta)), _) => Extent::known(steps(start, limit, delta)?),
            (None, Some([start, limit, delta])) => {
                let steps = ((f64::from(limit) - f64::from(start)) / f64::from(delta)).ceil();
                if steps.is_finite() { Extent::known(steps as i64) } else { unknown(node, 0) }
            }
            (None, None) => counted(node).unwrap_or_else(|| unknown(node, 0)),
        };
        if extent.value().is_some_and(|n| n < 1) {
            return Err(Refusal::new("it has an empty tensor"));
        }
        let mut signature = Signature { inputs: vec![None; 3], ..Default::default() };
        let output = signature.fixed("r", Some(extent), "a range counts along it");
        signature.outputs = vec![Some(vec![output])];
        Ok(signature)
    }

    fn evaluate(&self, node: &NodeView) -> Option<Vec<Option<Integers>>> {
        let (start, limit, delta) = numbers(node)?;
        let count = usize::try_from(steps(start, limit, delta).ok()?).ok().filter(|n| *n <= MAX_ENTRIES)?;
        let number = |i: usize| i64::try_from(i).ok()?.checked_mul(delta)?.checked_add(start).map(Extent::known);
        Some(vec![Some(Integers::vector((0..count).map(number).collect()))])
    }
}

/// Start, limit and delta of a Range of known integers.
fn numbers(node: &NodeView) -> Option<(i64, i64, i64)> {
    let number = |slot| node.integers(slot).and_then(Integers::only).and_then(Extent::value);
    Some((number(0)?, number(1)?, number(2)?))
}

/// Start, limit and delta of a Range of constant floats.
fn floats(node: &NodeView) -> Option<[f32; 3]> {
    let number = |slot| match tensor::to_f32(node.constant(slot)?).ok()?.as_slice() {
        [only] => Some(*only),
        _ => None,
    };
    Some([number(0)?, number(1)?, number(2)?])
}

/// The extent of a Range from 0 in steps of 1 to a symbolic limit.
fn counted(node: &NodeView) -> Option<Extent> {
    let number = |slot| node.integers(slot).and_then(Integers::only);
    (number(0)?.value() == Some(0) && number(2)?.is_one()).then(|| number(1).cloned())?
}

fn steps(start: i64, limit: i64, delta: i64) -> Refused<i64> {
    let wrong = || Refusal::new("its range cannot be counted");
    let span = limit.checked_sub(start).ok_or_else(wrong)?;
    let (span, delta) =
        if delta < 0 { (span.checked_neg().ok_or_else(wrong)?, -(delta.max(-i64::MAX))) } else { (span, delta) };
    match delta {
        0 => Err(wrong()),
        _ => Ok(if span <= 0 { 0 } else { (span - 1) / delta + 1 }),
    }
}

impl Rule for OneHot {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let shape = node.shape(0)?;
        let axis = node.axis("axis", -1, shape.len() + 1)?;
        let depth = node.integers(1).and_then(Integers::only).cloned().unwrap_or_else(|| unknown(node, axis));
        let mut signature = Signature::default();
        let input = letters(&mut signature, "A", shape);
        let mut output: Vec<Term> = input.clone();
        output.insert(axis, signature.fixed("d", Some(depth), "an index is compared with it"));
        signature.inputs = vec![Some(input), None, None];
        signature.outputs = vec![Some(output)];
        Ok(signature)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::patch;
    use super::*;

    #[test]
    fn the_shape_of_a_constant_tensor_follows() {
        let model = |h: usize| {
            format!(
                "in x [n,{h}]\ns = Shape(x)\nn = Gather(s, {{0}})\nt = Concat({{2}}, n, {{8}}, axis=0)
                 y = ConstantOfShape(t)\nout y"
            )
        };
        let edits = patch(&model(8), &model(8), "[2,n,5]", &[], &[]);
        assert_eq!(edits, Ok(vec![Edit::Entries(0, vec![(2, 5)])]));
        assert_eq!(patch(&model(8), &model(8), "[2,n,8]", &[], &[]), Ok(Vec::new()));
        let edits = patch("y = ConstantOfShape({2,8})\nout y", "y = ConstantOfShape({2,8})\nout y", "[2,5]", &[], &[]);
        assert_eq!(edits, Ok(vec![Edit::Constant(0, vec![2, 5])]));
    }

    #[test]
    fn ranges_are_counted_as_the_standard_counts_them() {
        assert_eq!(steps(0, 5, 2), Ok(3));
        assert_eq!(steps(10, 4, -2), Ok(3));
        assert_eq!(steps(3, 3, 1), Ok(0));
        assert!(steps(0, 3, 0).is_err());
        assert!(steps(i64::MIN, i64::MAX, 1).is_err());
    }
}
