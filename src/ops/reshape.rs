//! Reshape and Flatten: the same elements in row-major order, under other axes.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Reshape.html>, <https://onnx.ai/onnx/operators/onnx__Flatten.html>. The
//! target is the attribute `shape` in operator set 1 and an input from 5 on, often computed when the model runs; `0`
//! copies the input's extent (unless `allowzero`, set 14), `-1` is what remains. `align` finds the common axes.

use super::align::align;
use super::follow::{entries, entry, follow, is_opaque, unknown};
use super::{Change, Edit, Integers, NodeView, Refusal, Refused, Rule, Signature};
use crate::axes::Extent;

/// Reshaping to a target.
pub(super) struct Reshape;

/// Flattening to a matrix.
pub(super) struct Flatten;

impl Rule for Reshape {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        aligned(node.shape(0)?, &reshaped(node)?)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let node = change.after;
        let data = node.shape(0)?;
        let missing = || Refusal::new("its target is not known");
        let old = entries(before, "shape", 1)?.ok_or_else(missing)?;
        let now = entries(node, "shape", 1)?.ok_or_else(missing)?;
        let needed = change.outputs_after.first().and_then(Option::as_ref).ok_or_else(missing)?;
        let was = change.outputs_before.first().and_then(Option::as_ref).ok_or_else(missing)?;
        let copies = node.int("allowzero", 0) == 0;
        let mut remaining = now.iter().filter(|e| e.as_ref().and_then(Extent::value) == Some(-1)).count();
        let mut wanted = Vec::with_capacity(needed.len());
        for (axis, needed) in needed.iter().enumerate() {
            let entry_now = now.get(axis).and_then(Option::as_ref);
            let says = match entry_now.and_then(Extent::value) {
                // What remains is right once all others are.
                Some(-1) => Some(needed),
                Some(0) if copies => data.get(axis),
                _ => entry_now,
            };
            let same = now.get(axis) == old.get(axis) && was.get(axis) == Some(needed) && says == entry_now;
            wanted.push(match entry(says, needed, same) {
                Ok(wanted) => wanted,
                Err(_) if remaining == 0 => {
                    remaining = 1;
                    Some(-1)
                }
                Err(refusal) => return Err(refusal),
            });
        }
        follow(node, "shape", 1, &wanted)
    }

    fn evaluate(&self, node: &NodeView) -> Option<Vec<Option<Integers>>> {
        relabelled(node, &reshaped(node).ok()?)
    }
}

impl Rule for Flatten {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        aligned(node.shape(0)?, &flattened(node)?)
    }

    fn evaluate(&self, node: &NodeView) -> Option<Vec<Option<Integers>>> {
        relabelled(node, &flattened(node).ok()?)
    }
}

/// The integers of input 0 under another shape.
pub(super) fn relabelled(node: &NodeView, shape: &[Extent]) -> Option<Vec<Option<Integers>>> {
    let dims: Option<Vec<usize>> = shape.iter().map(Extent::size).collect();
    Some(vec![node.integers(0)?.reshaped(dims?)])
}

/// The signature of data that keeps its order of elements.
fn aligned(input: &[Extent], output: &[Extent]) -> Refused<Signature> {
    if output.iter().any(|e| e.value().is_some_and(|n| n < 1)) {
        return Err(Refusal::new("it has an empty tensor"));
    }
    let totals = [input, output].map(|shape| Extent::product(shape).and_then(|e| e.value()));
    if let [Some(from), Some(to)] = totals
        && from != to
    {
        return Err(Refusal::new(format!("{from} elements cannot become {to}")));
    }
    let mut signature = Signature::default();
    let (from, to) = align(&mut signature, input, output);
    signature.inputs = vec![Some(from)];
    signature.outputs = vec![Some(to)];
    Ok(signature)
}

/// The output's extents as the target says them.
fn reshaped(node: &NodeView) -> Refused<Vec<Extent>> {
    let input = node.shape(0)?;
    let target = entries(node, "shape", 1)?.ok_or_else(|| Refusal::new("its target is missing"))?;
    let copies = node.int("allowzero", 0) == 0;
    let mut output: Vec<Option<Extent>> = Vec::with_capacity(target.len());
    for (axis, entry) in target.into_iter().enumerate() {
        output.push(match entry.as_ref().and_then(Extent::value) {
            Some(-1) => None,
            Some(0) if copies => {
                let copied = input.get(axis).cloned();
                Some(copied.ok_or_else(|| Refusal::new(format!("its target copies axis {axis}, which is not there")))?)
            }
            Some(n) if n < 1 => return Err(Refusal::new(format!("its target has an entry of {n}"))),
            _ => entry,
        });
    }
    // One entry that is missing, whether it is -1 or merely unknown, is what the others leave of the elements.
    let rest = match output.iter().filter(|e| e.is_none()).count() {
        1 if !is_opaque(node, "shape", 1) => Extent::product(input).zip(Extent::product(output.iter().flatten())),
        _ => None,
    };
    if let Some((all, others)) = &rest
        && let (Some(all), Some(others)) = (all.value(), others.value())
        && all.checked_rem(others) != Some(0)
    {
        return Err(Refusal::new(format!("{all} elements do not fall into rows of {others}")));
    }
    let rest = rest.map(|(all, others)| node.symbolic(|s| s.floor_divide(&all, &others)));
    let fill = |(axis, extent): (usize, Option<Extent>)| {
        extent.unwrap_or_else(|| rest.clone().unwrap_or_else(|| unknown(node, axis)))
    };
    Ok(output.into_iter().enumerate().map(fill).collect())
}

/// The two extents of a flattened tensor.
fn flattened(node: &NodeView) -> Refused<Vec<Extent>> {
    let shape = node.shape(0)?;
    let axis = node.int("axis", 1);
    let at = match usize::try_from(axis) {
        Ok(at) if at <= shape.len() => at,
        _ => super::normalise_axis(axis, shape.len())?,
    };
    let (rows, columns) = shape.split_at(at);
    let product = |part| Extent::product(part).ok_or_else(|| Refusal::new("an extent overflows"));
    Ok(vec![product(rows)?, product(columns)?])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::patch;
    use super::*;

    fn run(target: &str, n: [&str; 2], outputs: &str) -> Refused<Vec<Edit>> {
        let model = |shape: &str| format!("in x {shape}\ny = Reshape(x, {target})\nout y");
        patch(&model(n[0]), &model(n[1]), outputs, &[], &[])
    }

    #[test]
    fn constant_targets_follow() {
        // Written out, copied, what remains.
        let shapes = ["[n,8,3,3]", "[n,5,3,3]"];
        assert_eq!(run("{-1,72}", shapes, "[n,45]"), Ok(vec![Edit::Constant(1, vec![-1, 45])]));
        assert_eq!(run("{0,-1}", shapes, "[n,45]"), Ok(Vec::new()));
        assert_eq!(run("{0,0,9}", shapes, "[n,5,9]"), Ok(Vec::new()));
        assert_eq!(run("{0,8,-1}", shapes, "[n,5,9]"), Ok(vec![Edit::Constant(1, vec![0, 5, -1])]));
        assert_eq!(
            run("{-1,3,4,8}", ["[n,9,96]", "[n,9,24]"], "[n,3,2,4]"),
            Ok(vec![Edit::Constant(1, vec![-1, 3, 2, 4])])
        );
        assert_eq!(
            run("{-1,49,32}", ["[49,n,32]", "[49,n,9]"], "[n,49,9]"),
            Ok(vec![Edit::Constant(1, vec![-1, 49, 9])])
        );
    }

    #[test]
    fn a_zero_that_copies_another_extent_is_spelled_out() {
        // The target copies extent 8 of an axis of input channels; the output must have 4 there.
        assert_eq!(run("{0,0}", ["[2,8]", "[2,8]"], "[2,4]"), Ok(vec![Edit::Constant(1, vec![0, 4])]));
    }

    #[test]
    fn computed_targets_are_overridden_where_they_went_wrong() {
        let model = |c: usize, d: usize| {
            format!(
                "in x [n,{c},3]\nin z [n,{d}]\ns = Shape(z)\nn = Gather(s, {{0}})\nd = Gather(s, {{1}})
                 t = Concat(n, d, {{3}}, axis=0)\ny = Reshape(x, t)\nout y"
            )
        };
        // The shape that the target is computed from follows by itself, or it does not.
        assert_eq!(patch(&model(8, 8), &model(5, 5), "[n,5,3]", &[], &[]), Ok(Vec::new()));
        let edits = patch(&model(8, 8), &model(5, 8), "[n,5,3]", &[], &[]);
        assert_eq!(edits, Ok(vec![Edit::Entries(1, vec![(1, 5)])]));
        let edits = patch(&model(8, 8), &model(8, 5), "[n,8,3]", &[], &[]);
        assert_eq!(edits, Ok(vec![Edit::Entries(1, vec![(1, 8)])]));
        let shapes = "in x [n,8]\nin k int64 [1]\nt = Concat(k, {8}, axis=0)\ny = Reshape(x, t)\nout y";
        let edits = patch(shapes, &shapes.replace("[n,8]", "[n,5]"), "[n,5]", &[], &[]);
        assert_eq!(edits, Ok(vec![Edit::Entries(1, vec![(1, 5)])]));
    }
}
