//! Split: [.., A+B, ..] -> [.., A, ..], [.., B, ..].
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Split.html>. Sizes are the attribute `split` below operator set 13 and an
//! input from there on; without them the parts are equal. From 18 on `num_outputs` (not together with sizes) allows a
//! smaller last part. Parts that were equal may become unequal: then sizes are spelled out.

use std::collections::BTreeMap;

use super::follow::{entries, follow, part, sum, unknown};
use super::{Change, Edit, Integers, NodeView, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;
use crate::kept::Indices;

/// Splitting a tensor along one axis.
pub(super) struct Split;

impl Rule for Split {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let shape = node.shape(0)?;
        let axis = node.axis("axis", 0, shape.len())?;
        let extent = node.extent(0, axis)?;
        let sizes = sizes(node, &extent)?;
        let mut signature = Signature::default();
        let mut input: Vec<Term> = super::follow::letters(&mut signature, "A", shape);
        let numbers: Option<Vec<i64>> = sizes.iter().map(|s| s.as_ref().and_then(Extent::value)).collect();
        let parts: Vec<Term> = match (numbers, extent.value()) {
            (Some(numbers), Some(n)) => {
                if numbers.iter().any(|s| *s < 1) {
                    return Err(Refusal::new("it has an empty tensor"));
                }
                if numbers.iter().try_fold(0i64, |all, s| all.checked_add(*s)) != Some(n) {
                    return Err(Refusal::new(format!("its parts do not add up to {n}")));
                }
                let parts: Vec<Term> = numbers
                    .iter()
                    .enumerate()
                    .map(|(i, s)| part(&mut signature, &format!("P{i}"), Extent::known(*s)))
                    .collect();
                if let Some(term) = input.get_mut(axis) {
                    *term = sum(parts.clone());
                }
                parts
            }
            _ if sizes.len() == 1 => input.get(axis).cloned().into_iter().collect(),
            _ => {
                let why = "it is split at a border that is not known before the model runs";
                if let Some(term) = input.get_mut(axis) {
                    *term = signature.fixed("s", Some(extent), why);
                }
                let named = |(i, size): (usize, &Option<Extent>)| {
                    let size = size.clone().unwrap_or_else(|| {
                        let whole = unknown(node, axis);
                        node.symbolic(|s| s.computed(&format!("part{i}"), &[whole]))
                    });
                    signature.fixed(format!("p{i}"), Some(size), why)
                };
                sizes.iter().enumerate().map(named).collect()
            }
        };
        let output = |part: Term| {
            let mut terms = input.clone();
            if let Some(term) = terms.get_mut(axis) {
                *term = part;
            }
            Some(terms)
        };
        signature.outputs = parts.into_iter().map(output).collect();
        signature.inputs = vec![Some(input)];
        Ok(signature)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let axis = before.axis("axis", 0, before.rank(0)?)?;
        let extent = before.extent(0, axis)?;
        let needed = kept_sizes(&sizes(before, &extent)?, axis, change.input_kept);
        let node = change.after;
        if needed.contains(&Some(0)) {
            return without_empty(node, &needed);
        }
        if node.ints("split").is_some_and(|s| !s.is_empty()) || node.has(1) {
            return follow(node, "split", 1, &needed);
        }
        // Equal parts that stay equal need no sizes.
        let implied = sizes(node, &node.extent(0, axis)?);
        let implied = implied.map(|l| l.iter().map(|s| s.as_ref().and_then(Extent::value)).collect::<Vec<_>>());
        if implied.is_ok_and(|implied| implied == needed) {
            return Ok(Vec::new());
        }
        let needed: Vec<i64> = needed
            .into_iter()
            .collect::<Option<_>>()
            .ok_or_else(|| Refusal::new("the sizes of its parts are not known"))?;
        let opset = node.opset();
        let mut edits = vec![if opset < 13 { Edit::Ints("split", needed) } else { Edit::Constant(1, needed) }];
        if node.maybe_int("num_outputs").is_some() {
            edits.push(Edit::Remove("num_outputs"));
        }
        Ok(edits)
    }

    fn leaves_out(&self) -> bool {
        true
    }

    fn evaluate(&self, node: &NodeView) -> Option<Vec<Option<Integers>>> {
        let data = node.integers(0)?;
        let axis = node.axis("axis", 0, data.dims.len()).ok()?;
        let mut start = 0usize;
        let mut parts = Vec::new();
        for size in sizes(node, &Extent::from(*data.dims.get(axis)?)).ok()? {
            let end = start.checked_add(size?.size()?)?;
            if end > *data.dims.get(axis)? {
                return None;
            }
            parts.push(data.select(axis, &(start..end).collect::<Vec<_>>()));
            start = end;
        }
        Some(parts)
    }
}

/// The edits that leave out the parts of which nothing remains.
fn without_empty(node: &NodeView, needed: &[Option<i64>]) -> Refused<Vec<Edit>> {
    let rest: Option<Vec<i64>> = needed.iter().copied().filter(|size| *size != Some(0)).collect();
    let rest = rest.ok_or_else(|| Refusal::new("the sizes of its parts are not known"))?;
    let mut edits = vec![if node.opset() < 13 { Edit::Ints("split", rest) } else { Edit::Constant(1, rest) }];
    if node.maybe_int("num_outputs").is_some() {
        edits.push(Edit::Remove("num_outputs"));
    }
    let empty = (0..needed.len()).rev().filter(|slot| needed.get(*slot) == Some(&Some(0)));
    edits.extend(empty.map(Edit::LeaveOutput));
    Ok(edits)
}

/// The sizes of the parts; `None` where they are computed when the model runs.
fn sizes(node: &NodeView, extent: &Extent) -> Refused<Vec<Option<Extent>>> {
    let given = match entries(node, "split", 1) {
        Ok(given) => given.filter(|l| !l.is_empty()),
        Err(_) => Some(vec![None; node.outputs]),
    };
    if let Some(sizes) = given {
        return if sizes.len() == node.outputs {
            Ok(sizes)
        } else {
            Err(Refusal::new(format!("it has {} outputs and {} sizes", node.outputs, sizes.len())))
        };
    }
    let count = Extent::from(node.outputs);
    if let Some(each) = extent.divided_by(&count) {
        return Ok(vec![Some(each); node.outputs]);
    }
    let (Some(extent), Some(count)) = (extent.value(), count.value()) else {
        // Before set 18 the parts are equal whatever the extent turns out to be.
        let each = (node.opset() < 18).then(|| node.symbolic(|s| s.floor_divide(extent, &count)));
        return Ok(vec![each; node.outputs]);
    };
    if node.opset() < 18 || count < 1 {
        return Err(Refusal::new(format!("an extent of {extent} does not fall into {count} equal parts")));
    }
    // As few elements as possible are left for the last part.
    let each = extent.checked_add(count - 1).map_or(extent, |n| n / count);
    let size = |i| each.min(extent.saturating_sub(each.saturating_mul(i)));
    Ok((0..count).map(|i| Some(Extent::known(size(i)))).collect())
}

/// What each part keeps; `None` where its size was not a number.
fn kept_sizes(sizes: &[Option<Extent>], axis: usize, kept: &BTreeMap<(usize, usize), Indices>) -> Vec<Option<i64>> {
    let numbers = sizes.iter().map(|s| s.as_ref().and_then(Extent::value));
    let Some(kept) = kept.get(&(0, axis)) else { return numbers.collect() };
    let mut start = 0i64;
    let mut sizes = Vec::with_capacity(sizes.len());
    for number in numbers {
        sizes.push(number.map(|size| {
            let end = start.saturating_add(size);
            let count = kept.iter().filter(|k| (start..end).contains(&i64::from(**k))).count();
            start = end;
            i64::try_from(count).unwrap_or(i64::MAX)
        }));
    }
    sizes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::patch;
    use super::*;

    const KEPT: &[((usize, usize), &[u32])] = &[((0, 1), &[0, 2, 5, 6, 7])];

    #[test]
    fn sizes_follow_in_their_own_form() {
        let (before, after) = ("in x [n,8]\n", "in x [n,5]\n");
        for (line, expected) in [
            ("a, b = Split(x, {3,5}, axis=1)", vec![Edit::Constant(1, vec![2, 3])]),
            ("a, b = Split(x, axis=1)", vec![Edit::Constant(1, vec![2, 3])]),
            ("opset 11\na, b = Split(x, split=[3,5], axis=1)", vec![Edit::Ints("split", vec![2, 3])]),
            ("opset 11\na, b = Split(x, axis=1)", vec![Edit::Ints("split", vec![2, 3])]),
            (
                "opset 18\na, b = Split(x, num_outputs=2, axis=1)",
                vec![Edit::Constant(1, vec![2, 3]), Edit::Remove("num_outputs")],
            ),
        ] {
            let out = "out a, b";
            let edits =
                patch(&format!("{before}{line}\n{out}"), &format!("{after}{line}\n{out}"), "[n,2] [n,3]", KEPT, &[]);
            // Kept 0, 2 and 5 to 7: equal parts of four hold two and three, parts of three and five likewise.
            assert_eq!(edits.unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn parts_that_stay_equal_need_no_sizes() {
        let model = |n| format!("opset 18\nin x [n,{n}]\na, b = Split(x, num_outputs=2, axis=1)\nout a, b");
        let edits = patch(&model(8), &model(6), "[n,3] [n,3]", &[((0, 1), &[0, 1, 2, 5, 6, 7])], &[]);
        assert_eq!(edits, Ok(Vec::new()));
        // Seven and seven is what the operator makes of thirteen and a last part of six, but not of six and seven.
        let kept: Vec<u32> = (1..14).collect();
        let edits = patch(&model(14), &model(13), "[n,6] [n,7]", &[((0, 1), &kept)], &[]).unwrap();
        assert_eq!(edits, [Edit::Constant(1, vec![6, 7]), Edit::Remove("num_outputs")]);
        let kept: Vec<u32> = (0..13).collect();
        assert_eq!(patch(&model(14), &model(13), "[n,7] [n,6]", &[((0, 1), &kept)], &[]), Ok(Vec::new()));
    }
}
