//! Squeeze and Unsqueeze: axes of extent 1 go or come, the others stay what they are.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Squeeze.html>, <https://onnx.ai/onnx/operators/onnx__Unsqueeze.html>.
//! `axes` is an attribute below operator set 13 and an input from there on; negative axes count from the end (set 11),
//! for Unsqueeze the end of the output.

use super::reshape::relabelled;
use super::{Change, Edit, Integers, NodeView, Refusal, Refused, Rule, Signature, Term, normalise_axis};
use crate::axes::Extent;

/// Dropping axes of extent 1.
pub(super) struct Squeeze;

/// Inserting axes of extent 1.
pub(super) struct Unsqueeze;

impl Rule for Squeeze {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let shape = node.shape(0)?;
        let dropped = dropped(node)?;
        let mut signature = Signature::default();
        let mut input = super::follow::letters(&mut signature, "A", shape);
        let mut output = Vec::with_capacity(shape.len());
        for (axis, term) in input.iter_mut().enumerate() {
            let extent = node.extent(0, axis)?;
            match (dropped.contains(&axis), extent.value()) {
                (false, _) => output.push(term.clone()),
                (true, Some(1)) => *term = Term::One,
                (true, Some(n)) => return Err(Refusal::new(format!("axis {axis} has extent {n}, it needs 1"))),
                (true, None) => {
                    let why = "its extent must turn out to be 1";
                    *term = signature.fixed(format!("a{axis}"), Some(extent), why);
                }
            }
        }
        signature.inputs = vec![Some(input)];
        signature.outputs = vec![Some(output)];
        Ok(signature)
    }

    /// Without `axes` it would drop an axis of which one channel is left, too.
    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        if before.list("axes", 1)?.is_some() || dropped(before)? == dropped(change.after)? {
            return Ok(Vec::new());
        }
        let axes: Vec<i64> = dropped(before)?.into_iter().filter_map(|axis| i64::try_from(axis).ok()).collect();
        Ok(vec![if before.opset() < 13 { Edit::Ints("axes", axes) } else { Edit::Constant(1, axes) }])
    }

    fn evaluate(&self, node: &NodeView) -> Option<Vec<Option<Integers>>> {
        let dropped = dropped(node).ok()?;
        let kept = node.shape(0).ok()?.iter().enumerate().filter(|(i, _)| !dropped.contains(i));
        relabelled(node, &kept.map(|(_, e)| e.clone()).collect::<Vec<_>>())
    }
}

impl Rule for Unsqueeze {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let shape = node.shape(0)?;
        let inserted = inserted(node)?;
        let mut signature = Signature::default();
        let input = super::follow::letters(&mut signature, "A", shape);
        signature.outputs = vec![Some(with_ones(&input, &inserted, &Term::One))];
        signature.inputs = vec![Some(input)];
        Ok(signature)
    }

    fn evaluate(&self, node: &NodeView) -> Option<Vec<Option<Integers>>> {
        let shape = node.shape(0).ok()?;
        relabelled(node, &with_ones(shape, &inserted(node).ok()?, &Extent::one()))
    }
}

/// The axes that a Squeeze drops.
fn dropped(node: &NodeView) -> Refused<Vec<usize>> {
    let shape = node.shape(0)?;
    match node.list("axes", 1)? {
        Some(axes) => axes.into_iter().map(|a| normalise_axis(a, shape.len())).collect(),
        None if shape.iter().any(|e| e.value().is_none()) => {
            Err(Refusal::new("it drops all axes of extent 1, and which those are is not known"))
        }
        None => Ok(shape.iter().enumerate().filter(|(_, e)| e.is_one()).map(|(i, _)| i).collect()),
    }
}

/// The axes of the output that an Unsqueeze inserts.
fn inserted(node: &NodeView) -> Refused<Vec<usize>> {
    let axes = node.list("axes", 1)?.ok_or_else(|| Refusal::new("`axes` is missing"))?;
    let rank = node.rank(0)?.saturating_add(axes.len());
    let mut axes = axes.into_iter().map(|a| normalise_axis(a, rank)).collect::<Refused<Vec<_>>>()?;
    axes.sort_unstable();
    match axes.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(Refusal::new("`axes` names an axis twice")),
        false => Ok(axes),
    }
}

/// `items` with `one` inserted at the positions `at` of the result.
fn with_ones<T: Clone>(items: &[T], at: &[usize], one: &T) -> Vec<T> {
    let mut rest = items.iter();
    (0..items.len() + at.len())
        .filter_map(|i| if at.contains(&i) { Some(one.clone()) } else { rest.next().cloned() })
        .collect()
}
