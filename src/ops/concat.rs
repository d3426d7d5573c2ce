//! Concat: [.., A, ..], [.., B, ..] -> [.., A+B, ..].
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Concat.html>. Operator set 1 has a default axis of 1, later ones require
//! the attribute. Parts whose extents are not plain numbers are locked, because a cut needs to know where it is.

use super::{Change, Edit, Integers, NodeView, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;

/// Joining tensors along one axis.
pub(super) struct Concat;

impl Rule for Concat {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        joined(node, &(0..node.input_count()).collect::<Vec<_>>())
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let axis = before.axis("axis", 1, before.rank(0)?)?;
        let is_gone = |slot: &usize| change.input_kept.get(&(*slot, axis)).is_some_and(|kept| kept.is_empty());
        Ok((0..before.input_count()).rev().filter(is_gone).map(Edit::LeaveInput).collect())
    }

    fn leaves_out(&self) -> bool {
        true
    }

    fn evaluate(&self, node: &NodeView) -> Option<Vec<Option<Integers>>> {
        let mut parts = Vec::new();
        for slot in 0..node.input_count() {
            parts.push(match node.integers(slot) {
                Some(integers) => integers.clone(),
                // A vector of unknown entries still tells where the others stand.
                None => Integers::vector(vec![None; short_vector(node, slot)?]),
            });
        }
        // Nothing but unknown entries may as well be data.
        if parts.iter().all(|p| p.values.iter().all(Option::is_none)) {
            return None;
        }
        let axis = node.axis("axis", 1, parts.first()?.dims.len()).ok()?;
        Some(vec![Some(Integers::joined(&parts, axis)?)])
    }
}

/// The signature of joining the inputs in `slots` along `axis`; nothing is said of the others.
///
/// # Errors
/// A refusal if their ranks or other axes differ.
pub(super) fn joined(node: &NodeView, slots: &[usize]) -> Refused<Signature> {
    let first = slots.first().ok_or_else(|| Refusal::new("it has no input"))?;
    let rank = node.rank(*first)?;
    let axis = node.axis("axis", 1, rank)?;
    let shapes = slots.iter().map(|s| node.shape(*s)).collect::<Refused<Vec<_>>>()?;
    if shapes.iter().any(|s| s.len() != rank) {
        return Err(Refusal::new("the ranks of its inputs differ"));
    }
    let mut signature = Signature { inputs: vec![None; node.input_count()], ..Default::default() };
    let mut inputs: Vec<Vec<Term>> = vec![Vec::with_capacity(rank); shapes.len()];
    let mut output = Vec::with_capacity(rank);
    for i in 0..rank {
        let extents: Vec<&Extent> = shapes.iter().filter_map(|s| s.get(i)).collect();
        let (terms, whole) =
            if i == axis { parts(node, &mut signature, &extents) } else { common(&mut signature, i, &extents)? };
        inputs.iter_mut().zip(terms).for_each(|(input, term)| input.push(term));
        output.push(whole);
    }
    for (slot, terms) in slots.iter().zip(inputs) {
        if let Some(input) = signature.inputs.get_mut(*slot) {
            *input = Some(terms);
        }
    }
    signature.outputs = vec![Some(output)];
    Ok(signature)
}

/// The length of a vector in input `slot`, if it can be a shape.
fn short_vector(node: &NodeView, slot: usize) -> Option<usize> {
    match node.shape(slot) {
        Ok([length]) => length.size().filter(|n| *n <= super::MAX_ENTRIES),
        _ => None,
    }
}

/// The axis that is joined.
fn parts(node: &NodeView, signature: &mut Signature, extents: &[&Extent]) -> (Vec<Term>, Term) {
    let terms: Vec<Term>;
    if extents.iter().all(|e| e.value().is_some()) {
        terms = extents
            .iter()
            .enumerate()
            .map(|(i, e)| super::follow::part(signature, &format!("P{i}"), (*e).clone()))
            .collect();
        let whole = super::follow::sum(terms.clone());
        return (terms, whole);
    }
    let why = "it is joined at a border that is not known before the model runs";
    terms =
        extents.iter().enumerate().map(|(i, e)| signature.fixed(format!("p{i}"), Some((*e).clone()), why)).collect();
    let total = extents.iter().fold(Extent::known(0), |all, e| node.symbolic(|s| s.plus(&all, e)));
    let whole = match terms.as_slice() {
        [only] => only.clone(),
        _ => signature.fixed("p", Some(total), why),
    };
    (terms, whole)
}

/// An axis that all inputs share.
fn common(signature: &mut Signature, axis: usize, extents: &[&Extent]) -> Refused<(Vec<Term>, Term)> {
    let known = extents.iter().find(|e| e.value().is_some()).or(extents.first());
    let extent = (*known.ok_or_else(|| Refusal::new("it has no input"))?).clone();
    if extents.iter().all(|e| **e == extent) {
        let letter = signature.free(format!("A{axis}"), Some(extent));
        return Ok((vec![letter.clone(); extents.len()], letter));
    }
    if extents.iter().any(|e| e.value().is_some() && **e != extent) {
        return Err(Refusal::new(format!("its inputs differ on axis {axis}")));
    }
    let why = "its extent is not known before the model runs";
    let terms = extents
        .iter()
        .enumerate()
        .map(|(i, e)| signature.fixed(format!("a{axis}x{i}"), Some((*e).clone()), why))
        .collect();
    Ok((terms, signature.fixed(format!("a{axis}"), Some(extent), why)))
}
