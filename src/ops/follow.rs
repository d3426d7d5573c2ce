//! Lists that shape an output (targets, sizes, bounds, pads): read from attribute or input, and made to follow pruning.
//!
//! Invariants: an entry that is still right is left exactly as it was spelled; a list computed when the model runs keeps
//! its dynamic entries and has only the wrong ones overridden.

use super::{Edit, NodeView, Refusal, Refused, Signature, Term};
use crate::axes::Extent;

/// The entries of a list that is attribute `name` in older operator sets and input `slot` in newer ones; `Ok(None)` if
/// neither is there, `None` entries where nothing is known.
///
/// # Errors
/// A refusal if not even the length is known.
pub(super) fn entries(node: &NodeView, name: &str, slot: usize) -> Refused<Option<Vec<Option<Extent>>>> {
    if let Some(list) = node.ints(name) {
        return Ok(Some(list.iter().map(|v| Some(Extent::known(*v))).collect()));
    }
    if !node.has(slot) {
        return Ok(None);
    }
    if let Some(integers) = node.integers(slot) {
        return Ok(Some(integers.values.clone()));
    }
    let length = match node.shape(slot) {
        Ok([length]) => length.size().filter(|n| *n <= super::MAX_ENTRIES),
        _ => None,
    };
    length
        .map(|n| Some(vec![None; n]))
        .ok_or_else(|| Refusal::new(format!("`{name}` is computed when the model runs, its length is not known")))
}

/// The edits that give a list the values `wanted`; `None` leaves an entry alone. `node` is the node after pruning.
///
/// # Errors
/// A refusal if the list is not there or shorter than `wanted`.
pub(super) fn follow(node: &NodeView, name: &'static str, slot: usize, wanted: &[Option<i64>]) -> Refused<Vec<Edit>> {
    // A list that may stay as it is need not be understood, not even its length.
    if wanted.iter().all(Option::is_none) {
        return Ok(Vec::new());
    }
    let now = entries(node, name, slot)?.ok_or_else(|| Refusal::new(format!("`{name}` is missing")))?;
    if now.len() < wanted.len() {
        return Err(Refusal::new(format!("`{name}` has {} entries, {} are needed", now.len(), wanted.len())));
    }
    let mut wrong = Vec::new();
    for (index, (now, wanted)) in now.iter().zip(wanted).enumerate() {
        if let Some(wanted) = wanted
            && now.as_ref().and_then(Extent::value) != Some(*wanted)
        {
            wrong.push((index, *wanted));
        }
    }
    if wrong.is_empty() {
        return Ok(Vec::new());
    }
    let is_attribute = node.ints(name).is_some();
    if !is_attribute && node.constant(slot).is_none() {
        return Ok(vec![Edit::Entries(slot, wrong)]);
    }
    let mut list: Vec<i64> = now
        .iter()
        .map(|e| e.as_ref().and_then(Extent::value))
        .collect::<Option<_>>()
        .ok_or_else(|| Refusal::new(format!("`{name}` cannot be read")))?;
    for (index, value) in wrong {
        if let Some(entry) = list.get_mut(index) {
            *entry = value;
        }
    }
    Ok(vec![if is_attribute { Edit::Ints(name, list) } else { Edit::Constant(slot, list) }])
}

/// True if not one entry of the list is known, so that it could not be overridden entry by entry either.
pub(super) fn is_opaque(node: &NodeView, name: &str, slot: usize) -> bool {
    node.ints(name).is_none() && node.integers(slot).is_none_or(|i| i.values.iter().all(Option::is_none))
}

/// What entry `now` of a target must become so that it says `needed`; `Ok(None)` = it may stay. `same` = neither the
/// entry nor the extent has changed, so that an entry that is not understood is still right.
///
/// # Errors
/// A refusal if the new extent cannot be written down.
pub(super) fn entry(now: Option<&Extent>, needed: &Extent, same: bool) -> Refused<Option<i64>> {
    if same || now == Some(needed) {
        return Ok(None);
    }
    needed
        .value()
        .map(Some)
        .ok_or_else(|| Refusal::new("a shape computed when the model runs would have to change in an unknown way"))
}

/// The extent of `axis` of the node's first output when nothing tells it: one symbol per node and axis, whoever asks.
pub(super) fn unknown(node: &NodeView, axis: usize) -> Extent {
    let name = node.node.proto.output.first().map_or("", String::as_str);
    node.symbolic(|s| s.computed(&format!("?{name}.{axis}"), &[]))
}

/// One capital letter per axis, called `prefix` and the axis.
pub(super) fn letters(signature: &mut Signature, prefix: &str, shape: &[Extent]) -> Vec<Term> {
    shape.iter().enumerate().map(|(i, e)| signature.free(format!("{prefix}{i}"), Some(e.clone()))).collect()
}

/// A part of a concatenation: a capital letter, unless its extent of 1 leaves nothing to shrink.
pub(super) fn part(signature: &mut Signature, name: &str, extent: Extent) -> Term {
    if extent.is_one() {
        signature.fixed(name.to_lowercase(), Some(extent), "a single index")
    } else {
        signature.free(name, Some(extent))
    }
}

/// Locks the letter that a term is.
pub(super) fn lock(signature: &mut Signature, term: &Term, why: &str) {
    if let Term::Letter(index) = term
        && let Some(letter) = signature.letters.get_mut(*index)
    {
        letter.name = letter.name.to_lowercase();
        letter.fixed.get_or_insert_with(|| why.to_owned());
    }
}

/// The concatenation of `parts`, or the only one of them.
pub(super) fn sum(mut parts: Vec<Term>) -> Term {
    match (parts.pop(), parts.is_empty()) {
        (None, _) => Term::One,
        (Some(only), true) => only,
        (Some(last), false) => {
            parts.push(last);
            Term::Sum(parts)
        }
    }
}
