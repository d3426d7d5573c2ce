//! Element-wise operators with broadcasting: unary, binary and variadic.
//!
//! Spec: <https://github.com/onnx/onnx/blob/main/docs/Broadcasting.md>. Axes are aligned from the right; an axis of
//! extent 1 beside a longer one broadcasts and couples with nothing. Every axis may shrink: f(x) at index i depends on
//! index i alone.

use super::{NodeView, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;

/// f(x), f(x, y), f(x, y, …), index by index.
pub(super) struct Elementwise;

impl Rule for Elementwise {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let slots: Vec<usize> = (0..node.input_count()).filter(|s| node.has(*s)).collect();
        let (signature, _) = broadcast(node, &slots)?;
        Ok(signature)
    }
}

/// The signature of a call that broadcasts the inputs in `slots`, and its output terms; other inputs stay undescribed.
pub(super) fn broadcast(node: &NodeView, slots: &[usize]) -> Refused<(Signature, Vec<Term>)> {
    let shapes = slots.iter().map(|s| node.shape(*s)).collect::<Refused<Vec<_>>>()?;
    let rank = shapes.iter().map(|s| s.len()).max().ok_or_else(|| Refusal::new("it has no input"))?;
    let mut signature = Signature { inputs: vec![None; node.input_count()], ..Default::default() };
    let mut terms: Vec<Vec<Term>> = vec![Vec::new(); slots.len()];
    let mut output = Vec::new();
    for axis in 0..rank {
        // `None` where a tensor of lower rank has no such axis.
        let extents: Vec<Option<&Extent>> =
            shapes.iter().map(|s| (axis + s.len()).checked_sub(rank).and_then(|a| s.get(a))).collect();
        let extent = common_extent(node, &extents);
        let letter = signature.free(format!("A{axis}"), Some(extent.clone()));
        for (terms, own) in terms.iter_mut().zip(&extents) {
            match own {
                None => {}
                Some(own) if **own == extent => terms.push(letter.clone()),
                Some(own) if own.is_one() => terms.push(Term::One),
                // Extents that may be equal or 1 when the model runs: the axis is locked, nothing is claimed.
                Some(own) => {
                    let why = "its extent is not known before the model runs";
                    let other = signature.fixed(format!("b{axis}"), Some((*own).clone()), why);
                    terms.push(other);
                    lock(&mut signature, &letter, why);
                }
            }
        }
        output.push(letter);
    }
    for (slot, terms) in slots.iter().zip(terms) {
        signature.inputs[*slot] = Some(terms);
    }
    signature.outputs = vec![Some(output.clone())];
    Ok((signature, output))
}

/// The extent that aligned axes broadcast to: a known one larger than 1 wins, then a common symbol.
fn common_extent(node: &NodeView, extents: &[Option<&Extent>]) -> Extent {
    let large: Vec<&Extent> = extents.iter().flatten().copied().filter(|e| !e.is_one()).collect();
    if let Some(known) = large.iter().find(|e| e.value().is_some()) {
        return (*known).clone();
    }
    match large.as_slice() {
        [] => Extent::one(),
        [first, rest @ ..] if rest.iter().all(|e| e == first) => (*first).clone(),
        many => node.symbolic(|s| s.computed("broadcast", &many.iter().map(|e| (*e).clone()).collect::<Vec<_>>())),
    }
}

fn lock(signature: &mut Signature, letter: &Term, why: &str) {
    if let Term::Letter(index) = letter
        && let Some(letter) = signature.letters.get_mut(*index)
    {
        letter.fixed = Some(why.to_owned());
    }
}
