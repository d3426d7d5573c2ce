//! Expand and Tile: an axis repeated.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Expand.html>, <https://onnx.ai/onnx/operators/onnx__Tile.html>. Expand
//! broadcasts both ways, aligned from the right: an axis of extent 1 becomes as long as the target says, and such an axis
//! may shrink by itself. Tile puts r copies of an axis one after the other: (r C); of an axis of extent 1 it makes an
//! axis of copies that may shrink, too. Tile before operator set 6 takes other inputs.

use super::follow::{entries, entry, follow, is_opaque, lock, unknown};
use super::{Change, Edit, NodeView, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;

/// Broadcasting to a target.
pub(super) struct Expand;

/// Repeating.
pub(super) struct Tile;

impl Rule for Expand {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let shape = node.shape(0)?;
        let target = entries(node, "shape", 1)?.ok_or_else(|| Refusal::new("its target is missing"))?;
        let rank = shape.len().max(target.len());
        let mut signature = Signature::default();
        let (mut input, mut output) = (Vec::new(), Vec::new());
        let is_opaque = is_opaque(node, "shape", 1);
        for axis in 0..rank {
            let own = (axis + shape.len()).checked_sub(rank).and_then(|a| shape.get(a));
            let asked = (axis + target.len()).checked_sub(rank).and_then(|a| target.get(a));
            if asked.and_then(Option::as_ref).and_then(Extent::value).is_some_and(|n| n < 1) {
                return Err(Refusal::new("its target has an entry below 1"));
            }
            let (from, to) = expanded(node, &mut signature, axis, own, asked)?;
            if is_opaque && let Some(from) = &from {
                lock(&mut signature, from, "it is expanded to a target computed when the model runs");
            }
            input.extend(from);
            output.push(to);
        }
        signature.inputs = vec![Some(input)];
        signature.outputs = vec![Some(output)];
        Ok(signature)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let missing = || Refusal::new("its target is not known");
        let old = entries(before, "shape", 1)?.ok_or_else(missing)?;
        let now = entries(change.after, "shape", 1)?.ok_or_else(missing)?;
        let needed = change.outputs_after.first().and_then(Option::as_ref).ok_or_else(missing)?;
        let was = change.outputs_before.first().and_then(Option::as_ref).ok_or_else(missing)?;
        let shape = change.after.shape(0)?;
        let mut wanted = Vec::with_capacity(now.len());
        for (i, now) in now.iter().enumerate() {
            let axis = (i + needed.len()).checked_sub(old.len()).ok_or_else(missing)?;
            let own = (axis + shape.len()).checked_sub(needed.len()).and_then(|a| shape.get(a));
            let needed = needed.get(axis).ok_or_else(missing)?;
            // A 1 leaves the input's own extent.
            let says = if now.as_ref().is_some_and(Extent::is_one) { own.or(now.as_ref()) } else { now.as_ref() };
            let same = old.get(i) == Some(now) && was.get(axis) == Some(needed);
            wanted.push(entry(says, needed, same)?);
        }
        follow(change.after, "shape", 1, &wanted)
    }
}

/// The terms of one axis: in the input, if it has the axis, and in the output. `asked` is the target's entry, if it has
/// one, and that entry's extent, if it is known.
fn expanded(
    node: &NodeView,
    signature: &mut Signature,
    axis: usize,
    own: Option<&Extent>,
    asked: Option<&Option<Extent>>,
) -> Refused<(Option<Term>, Term)> {
    let why = "its extent is not known before the model runs";
    let pass = |signature: &mut Signature, extent: &Extent| {
        let letter = signature.free(format!("A{axis}"), Some(extent.clone()));
        (Some(letter.clone()), letter)
    };
    Ok(match (own, asked) {
        (None, None) => return Err(Refusal::new("an axis is missing")),
        (Some(own), None) => pass(signature, own),
        (None, Some(None)) => (None, signature.fixed(format!("x{axis}"), Some(unknown(node, axis)), why)),
        (Some(own), Some(None)) if own.is_one() => {
            (Some(Term::One), signature.fixed(format!("x{axis}"), Some(unknown(node, axis)), why))
        }
        // An extent above 1 is what the target must say, or 1.
        (Some(own), Some(None)) if own.value().is_some() => pass(signature, own),
        (Some(own), Some(None)) => {
            let from = signature.fixed(format!("a{axis}"), Some(own.clone()), why);
            (Some(from), signature.fixed(format!("x{axis}"), Some(unknown(node, axis)), why))
        }
        (None, Some(Some(asked))) => (None, signature.free(format!("X{axis}"), Some(asked.clone()))),
        (Some(own), Some(Some(asked))) if own == asked || asked.is_one() => pass(signature, own),
        (Some(own), Some(Some(asked))) if own.is_one() => {
            (Some(Term::One), signature.free(format!("X{axis}"), Some(asked.clone())))
        }
        (Some(own), Some(Some(asked))) => match (own.value(), asked.value()) {
            (Some(n), Some(m)) => return Err(Refusal::new(format!("an axis of extent {n} cannot become {m}"))),
            (Some(_), None) => pass(signature, own),
            (None, _) => {
                let result = match asked.value() {
                    Some(_) => asked.clone(),
                    None => node.symbolic(|s| s.broadcast(&[own.clone(), asked.clone()])),
                };
                let from = signature.fixed(format!("a{axis}"), Some(own.clone()), why);
                (Some(from), signature.fixed(format!("x{axis}"), Some(result), why))
            }
        },
    })
}

impl Rule for Tile {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let shape = node.shape(0)?;
        let repeats = repeats(node)?;
        let mut signature = Signature::default();
        let mut input = super::follow::letters(&mut signature, "A", shape);
        let mut output = input.clone();
        for (axis, (extent, repeat)) in shape.iter().zip(repeats).enumerate() {
            let (Some(from), Some(to)) = (input.get_mut(axis), output.get_mut(axis)) else { continue };
            match repeat {
                Some(repeat) if repeat.is_one() => {}
                Some(repeat) if repeat.value().is_some_and(|r| r < 1) => {
                    return Err(Refusal::new("it has an empty tensor"));
                }
                Some(repeat) if extent.is_one() => {
                    *from = Term::One;
                    *to = signature.free(format!("R{axis}"), Some(repeat));
                }
                Some(repeat) => {
                    let copies = signature.fixed(format!("r{axis}"), Some(repeat), "it counts the copies of an axis");
                    *to = Term::Product(vec![copies, from.clone()]);
                }
                None => {
                    let why = "how often it is repeated is not known before the model runs";
                    *from = signature.fixed(format!("a{axis}"), Some(extent.clone()), why);
                    *to = signature.fixed(format!("t{axis}"), Some(unknown(node, axis)), why);
                }
            }
        }
        signature.inputs = vec![Some(input)];
        signature.outputs = vec![Some(output)];
        Ok(signature)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let (old, now) = (repeats(before)?, repeats(change.after)?);
        let needed = change.outputs_after.first().and_then(Option::as_ref);
        let was = change.outputs_before.first().and_then(Option::as_ref);
        let (needed, was) = needed.zip(was).ok_or_else(|| Refusal::new("its output is not known"))?;
        let mut wanted = Vec::with_capacity(now.len());
        for (axis, now) in now.iter().enumerate() {
            let needed_extent = needed.get(axis).ok_or_else(|| Refusal::new("its output has no such axis"))?;
            let copies = needed_extent.divided_by(&change.after.extent(0, axis)?);
            let same = old.get(axis) == Some(now) && was.get(axis) == Some(needed_extent);
            wanted.push(match copies {
                Some(copies) => entry(now.as_ref(), &copies, same)?,
                None if same => None,
                None => return Err(Refusal::new("its copies would have to differ")),
            });
        }
        follow(change.after, "repeats", 1, &wanted)
    }
}

/// How often each axis is repeated; `None` = computed when the model runs.
fn repeats(node: &NodeView) -> Refused<Vec<Option<Extent>>> {
    if node.opset() < 6 {
        return Err(Refusal::new("this version of Tile repeats a single axis"));
    }
    let repeats = entries(node, "repeats", 1)?.ok_or_else(|| Refusal::new("`repeats` is missing"))?;
    match repeats.len() == node.rank(0)? {
        true => Ok(repeats),
        false => Err(Refusal::new("`repeats` has not one entry per axis")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::patch;
    use super::*;

    fn run(line: &str, n: [&str; 2], outputs: &str) -> Refused<Vec<Edit>> {
        let model = |shape: &str| format!("in x {shape}\n{line}\nout y");
        patch(&model(n[0]), &model(n[1]), outputs, &[], &[])
    }

    #[test]
    fn targets_of_expand_follow() {
        let shapes = ["[n,8,1]", "[n,3,1]"];
        assert_eq!(run("y = Expand(x, {1,8,6})", shapes, "[n,3,4]"), Ok(vec![Edit::Constant(1, vec![1, 3, 4])]));
        assert_eq!(run("y = Expand(x, {6})", shapes, "[n,3,6]"), Ok(Vec::new()));
        let computed = "s = Shape(w[2,8,7])\ny = Expand(x, s)";
        let edits = run(computed, ["[2,8,1]", "[2,3,1]"], "[2,3,7]");
        assert_eq!(edits, Ok(vec![Edit::Entries(1, vec![(1, 3)])]));
    }

    #[test]
    fn repeats_of_tile_follow() {
        let shapes = ["[n,8,1]", "[n,3,1]"];
        assert_eq!(run("y = Tile(x, {1,2,6})", shapes, "[n,6,4]"), Ok(vec![Edit::Constant(1, vec![1, 2, 4])]));
        assert_eq!(run("y = Tile(x, {1,2,6})", shapes, "[n,6,6]"), Ok(Vec::new()));
        assert!(run("y = Tile(x, {1,2,6})", shapes, "[n,7,6]").is_err());
    }
}
