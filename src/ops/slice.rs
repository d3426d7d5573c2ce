//! Slice: [.., Before+Kept+After, ..] -> [.., Kept, ..].
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Slice.html>. Bounds are attributes below operator set 10 (without steps)
//! and inputs from there on; negative bounds count from the end, all are clamped. A stride that divides the axis reads
//! one column of (Kept stride). Everything else that is not a plain range is locked.

use super::follow::{entries, follow, part, sum, unknown};
use super::{Change, Edit, Integers, NodeView, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;

/// Cutting ranges out of a tensor.
pub(super) struct Slice;

impl Rule for Slice {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let shape = node.shape(0)?;
        let mut signature = Signature::default();
        let mut input = super::follow::letters(&mut signature, "A", shape);
        let mut output = input.clone();
        for cut in cuts(node)? {
            let extent = node.extent(0, cut.axis)?;
            let (Some(from), Some(to)) = (input.get_mut(cut.axis), output.get_mut(cut.axis)) else { continue };
            match cut.reach(node, &extent)? {
                Reach::Whole => {}
                Reach::Range { start, end, extent } => {
                    let mut piece = |prefix: &str, extent: i64| {
                        part(&mut signature, &format!("{prefix}{}", cut.axis), Extent::known(extent))
                    };
                    let before = (start > 0).then(|| piece("B", start));
                    let kept = piece("K", end - start);
                    let after = (end < extent).then(|| piece("E", extent - end));
                    *from = sum(before.into_iter().chain([kept.clone()]).chain(after).collect());
                    *to = kept;
                }
                Reach::Column { stride, count } => {
                    *to = part(&mut signature, &format!("K{}", cut.axis), Extent::known(count));
                    let why = "a slice reads every few of its channels";
                    let stride = signature.fixed(format!("s{}", cut.axis), Some(Extent::known(stride)), why);
                    *from = Term::Product(vec![to.clone(), stride]);
                }
                Reach::Locked(result) => {
                    let why = "a slice takes a part of it that is computed, strided or reversed";
                    *from = signature.fixed(format!("a{}", cut.axis), Some(extent), why);
                    *to = signature.fixed(format!("k{}", cut.axis), Some(result), why);
                }
            }
        }
        signature.inputs = vec![Some(input)];
        signature.outputs = vec![Some(output)];
        Ok(signature)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let (old, now) = (cuts(before)?, cuts(change.after)?);
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        for (old, now) in old.iter().zip(&now) {
            let kept = change.input_kept.get(&(0, old.axis));
            let extent = before.extent(0, old.axis)?.value();
            let bounds = extent.and_then(|n| old.bounds(n));
            let (Some(extent), Some((start, end, step))) = (extent, bounds) else {
                if kept.is_some() || old.start != now.start || old.end != now.end {
                    return Err(Refusal::new("its bounds are not known"));
                }
                starts.push(None);
                ends.push(None);
                continue;
            };
            let count = |bound: i64| kept.map_or(bound, |k| below(k, bound));
            let new_extent = count(extent);
            let strided = kept.is_some() && step != 1;
            let (start, end) = if strided { (start, new_extent) } else { (count(start), count(end)) };
            // Spellings such as -1 or the largest integer stay where they still mean the same.
            let is_right = now.bounds(new_extent).is_some_and(|(s, e, _)| {
                if strided { s == start && e > new_extent - step } else { (s, e) == (start, end) }
            });
            if is_right {
                starts.push(None);
                ends.push(None);
                continue;
            }
            let same = |spelled: &Option<Extent>, bound: i64| {
                let spelled = spelled.as_ref().and_then(Extent::value)?;
                (step > 0 && clamp(spelled, new_extent, 0, new_extent) == bound).then_some(spelled)
            };
            starts.push(Some(same(&now.start, start).unwrap_or(start)));
            // Minus one means the end of the axis to a reversed slice that reaches the first element.
            let end = if step < 0 && end < 0 { i64::MIN } else { end };
            ends.push(Some(same(&now.end, end).unwrap_or(end)));
        }
        let mut edits = follow(change.after, "starts", 1, &starts)?;
        edits.extend(follow(change.after, "ends", 2, &ends)?);
        Ok(edits)
    }

    fn evaluate(&self, node: &NodeView) -> Option<Vec<Option<Integers>>> {
        let mut data = node.integers(0)?.clone();
        for cut in cuts(node).ok()? {
            let extent = i64::try_from(*data.dims.get(cut.axis)?).ok()?;
            let (start, end, step) = cut.bounds(extent)?;
            let mut indices = Vec::new();
            let mut at = start;
            while (step > 0 && at < end) || (step < 0 && at > end) {
                indices.push(usize::try_from(at).ok()?);
                at = at.checked_add(step)?;
            }
            data = data.select(cut.axis, &indices)?;
        }
        Some(vec![Some(data)])
    }
}

/// How many of the kept indices lie below a bound.
pub(super) fn below(kept: &[u32], bound: i64) -> i64 {
    i64::try_from(kept.partition_point(|k| i64::from(*k) < bound)).unwrap_or(i64::MAX)
}

/// The bounds of one axis as the node spells them; `None` = not known.
struct Cut {
    axis: usize,
    start: Option<Extent>,
    end: Option<Extent>,
    step: Option<Extent>,
}

/// What a cut reads of its axis.
enum Reach {
    /// All of it, in order.
    Whole,
    /// A range of an axis of known extent.
    Range { start: i64, end: i64, extent: i64 },
    /// One index out of each `stride`, `count` times.
    Column { stride: i64, count: i64 },
    /// Something else, of this extent.
    Locked(Extent),
}

/// The cuts in the order in which the node lists them.
fn cuts(node: &NodeView) -> Refused<Vec<Cut>> {
    let rank = node.rank(0)?;
    let axes = node.list("axes", 3)?;
    let list = |name, slot| match (entries(node, name, slot), &axes) {
        // Which axes are cut is enough to lock those alone.
        (Err(_), Some(axes)) => Ok(vec![None; axes.len()]),
        (list, _) => list?.ok_or_else(|| Refusal::new(format!("`{name}` is missing"))),
    };
    let (starts, ends) = (list("starts", 1)?, list("ends", 2)?);
    let axes = match &axes {
        Some(axes) => axes.clone(),
        None => (0..starts.len()).filter_map(|a| i64::try_from(a).ok()).collect(),
    };
    let steps = if node.has(4) { list("steps", 4)? } else { vec![Some(Extent::one()); starts.len()] };
    if [starts.len(), ends.len(), steps.len()].iter().any(|n| *n != axes.len()) {
        return Err(Refusal::new("`starts`, `ends`, `axes` and `steps` differ in length"));
    }
    let mut cuts: Vec<Cut> = Vec::with_capacity(axes.len());
    for (((axis, start), end), step) in axes.iter().zip(starts).zip(ends).zip(steps) {
        let axis = super::normalise_axis(*axis, rank)?;
        if cuts.iter().any(|c| c.axis == axis) {
            return Err(Refusal::new(format!("axis {axis} is cut twice")));
        }
        cuts.push(Cut { axis, start, end, step });
    }
    Ok(cuts)
}

/// A bound counted from the front and clamped.
fn clamp(bound: i64, extent: i64, low: i64, high: i64) -> i64 {
    let from_front = if bound < 0 { bound.saturating_add(extent) } else { bound };
    from_front.clamp(low, high.max(low))
}

impl Cut {
    /// (start, end, step) on an axis of a known extent, counted from the front; a reversed slice may end at -1.
    fn bounds(&self, extent: i64) -> Option<(i64, i64, i64)> {
        let value = |e: &Option<Extent>| e.as_ref().and_then(Extent::value);
        let (start, end, step) = (value(&self.start)?, value(&self.end)?, value(&self.step)?);
        match step {
            0 => None,
            1.. => Some((clamp(start, extent, 0, extent), clamp(end, extent, 0, extent), step)),
            _ => Some((clamp(start, extent, 0, extent - 1), clamp(end, extent, -1, extent - 1), step)),
        }
    }

    fn reach(&self, node: &NodeView, extent: &Extent) -> Refused<Reach> {
        let value = |e: &Option<Extent>| e.as_ref().and_then(Extent::value);
        let (start, end, step) = (value(&self.start), value(&self.end), value(&self.step));
        let to_the_end =
            self.end.as_ref().is_some_and(|e| e == extent) || end.is_some_and(|e| e >= i64::from(i32::MAX));
        if let Some(n) = extent.value()
            && let Some((start, end, step)) = self.bounds(n)
        {
            let span = if step > 0 { end.saturating_sub(start) } else { start.saturating_sub(end) };
            let pace = step.saturating_abs();
            let count = if span > 0 { span.saturating_sub(1) / pace + 1 } else { 0 };
            return Ok(match step {
                _ if count < 1 => Reach::Locked(Extent::known(0)),
                1 if count == n => Reach::Whole,
                1 => Reach::Range { start, end, extent: n },
                2.. if n % step == 0 && start < step && count == n / step => Reach::Column { stride: step, count },
                _ => Reach::Locked(Extent::known(count)),
            });
        }
        Ok(match (start, end, step) {
            (Some(0), _, Some(1)) if to_the_end => Reach::Whole,
            // No axis is empty, so its first and last element exist.
            (Some(0), Some(1), Some(1)) => Reach::Locked(Extent::one()),
            (Some(-1), _, Some(1)) if to_the_end => Reach::Locked(Extent::one()),
            (Some(0), None, Some(1)) => Reach::Locked(match &self.end {
                Some(end) if node.symbolic(|s| s.is_size(end)) => node.symbolic(|s| s.lesser(extent, end)),
                _ => unknown(node, self.axis),
            }),
            _ => Reach::Locked(match (&self.start, &self.end, &self.step) {
                (Some(start), Some(end), Some(step)) => {
                    let arguments = [extent.clone(), start.clone(), end.clone(), step.clone()];
                    node.symbolic(|s| s.computed("slice", &arguments))
                }
                _ => unknown(node, self.axis),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::patch;
    use super::*;

    fn run(line: &str, kept: &[u32]) -> Vec<Edit> {
        let model = |n: usize| format!("in x [n,{n}]\n{line}\nout y");
        patch(&model(8), &model(kept.len()), "[n,?]", &[((0, 1), kept)], &[]).unwrap()
    }

    #[test]
    fn bounds_follow_the_kept_indices() {
        let edits = run("y = Slice(x, {2}, {6}, {1})", &[0, 3, 4, 7]);
        assert_eq!(edits, [Edit::Constant(1, vec![1]), Edit::Constant(2, vec![3])]);
        let edits = run("opset 9\ny = Slice(x, axes=[1], starts=[2], ends=[6])", &[0, 3, 4, 7]);
        assert_eq!(edits, [Edit::Ints("starts", vec![1]), Edit::Ints("ends", vec![3])]);
        // Only the entry of the shrunk axis changes.
        let edits = run("y = Slice(x, {0,2}, {9223372036854775807,6}, {0,1})", &[1, 3, 4, 7]);
        let ends = vec![i64::MAX, 3];
        assert_eq!(edits, [Edit::Constant(1, vec![0, 1]), Edit::Constant(2, ends)]);
        // An end beyond the axis is clamped, so the 6 may stay.
        let edits = run("y = Slice(x, {2}, {6}, {1})", &[2, 3, 4, 5]);
        assert_eq!(edits, [Edit::Constant(1, vec![0])]);
    }

    #[test]
    fn spellings_that_stay_right_stay() {
        assert_eq!(run("y = Slice(x, {4}, {9223372036854775807}, {1})", &[0, 1, 2, 3, 6, 7]), []);
        assert_eq!(run("y = Slice(x, {0}, {-2}, {1})", &[0, 3, 6, 7]), []);
        assert_eq!(run("y = Slice(x, {1}, {9223372036854775807}, {1}, {2})", &[0, 1, 4, 5]), []);
        assert_eq!(run("y = Slice(x, {0}, {8}, {1}, {2})", &[0, 1, 4, 5]), []);
        let edits = run("y = Slice(x, {-4}, {9223372036854775807}, {1})", &[0, 6, 7]);
        assert_eq!(edits, [Edit::Constant(1, vec![1])]);
    }

    #[test]
    fn computed_bounds_are_overridden_where_they_went_wrong() {
        let model = |n: usize, m: usize| {
            format!(
                "in x [n,{n}]\nin z [n,{m}]\ns = Shape(z)\nc = Gather(s, {{1}})\ny = Slice(x, {{0}}, c, {{1}})\nout y"
            )
        };
        let edits = patch(&model(8, 4), &model(5, 4), "[n,2]", &[((0, 1), &[0, 1, 5, 6, 7])], &[]);
        assert_eq!(edits, Ok(vec![Edit::Entries(2, vec![(0, 2)])]));
        // The axis stays, the tensor whose shape is the bound shrinks.
        let edits = patch(&model(8, 4), &model(8, 3), "[n,4]", &[], &[]);
        assert_eq!(edits, Ok(vec![Edit::Entries(2, vec![(0, 4)])]));
        // Both shrink alike.
        let edits = patch(&model(8, 4), &model(6, 3), "[n,3]", &[((0, 1), &[0, 1, 2, 5, 6, 7])], &[]);
        assert_eq!(edits, Ok(Vec::new()));
    }
}
