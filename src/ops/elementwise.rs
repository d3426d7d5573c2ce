//! Element-wise operators with broadcasting: unary, binary and variadic.
//!
//! Spec: <https://github.com/onnx/onnx/blob/main/docs/Broadcasting.md>. Axes are aligned from the right; an axis of
//! extent 1 beside a longer one broadcasts and couples with nothing. Every axis may shrink: f(x) at index i depends on
//! index i alone. Before operator set 7 an attribute said where a shorter operand goes; such calls are refused.

use super::{Extents, NodeView, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;

/// f(x), f(x, y), f(x, y, …), index by index.
pub(super) struct Elementwise;

impl Rule for Elementwise {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        if node.int("broadcast", 0) != 0 {
            return Err(Refusal::new("it broadcasts by the rules of operator sets before 7"));
        }
        let slots: Vec<usize> = (0..node.input_count()).filter(|s| node.has(*s)).collect();
        let (signature, _) = broadcast(node, &slots)?;
        Ok(signature)
    }
}

/// f(x), index by index; further inputs are parameters and further outputs have the axes of the first (the mask of
/// Dropout).
pub(super) struct FirstInput;

impl Rule for FirstInput {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let (mut signature, output) = broadcast(node, &[0])?;
        signature.outputs = vec![Some(output); node.outputs.max(1)];
        Ok(signature)
    }
}

/// PRelu: the slope is broadcast to x, never x to the slope.
///
/// Before operator set 7 a slope of rank 1 has one number per channel, axis 1; later it belongs to the last axis as
/// everywhere else.
pub(super) struct PRelu;

impl Rule for PRelu {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let (rank, slope) = (node.rank(0)?, node.shape(1)?);
        if node.opset() < 7 && rank > 1 && slope.len() == 1 && !slope.iter().all(Extent::is_one) {
            let names: Vec<String> = (0..rank).map(|axis| format!("A{axis}")).collect();
            let x = names.join(" ");
            return Ok(Signature::parse(&format!("{x}, A1 -> {x}"), "")?);
        }
        let (signature, output) = broadcast(node, &[0, 1])?;
        let x = node.shape(0)?;
        let extents = output.iter().map(|term| signature.extent_of(term));
        if output.len() != x.len() || !extents.eq(x.iter().map(Some)) {
            return Err(Refusal::new("the slope is larger than the input"));
        }
        Ok(signature)
    }
}

/// The signature of a call that broadcasts the inputs in `slots`, and its output terms; other inputs stay undescribed.
pub(super) fn broadcast(node: &NodeView, slots: &[usize]) -> Refused<(Signature, Vec<Term>)> {
    let shapes = slots.iter().map(|s| node.shape(*s)).collect::<Refused<Vec<_>>>()?;
    if shapes.is_empty() {
        return Err(Refusal::new("it has no input"));
    }
    let mut signature = Signature { inputs: vec![None; node.input_count()], ..Default::default() };
    let (terms, output) = align(node, &mut signature, &shapes, "A")?;
    for (slot, terms) in slots.iter().zip(terms) {
        if let Some(input) = signature.inputs.get_mut(*slot) {
            *input = Some(terms);
        }
    }
    signature.outputs = vec![Some(output.clone())];
    Ok((signature, output))
}

/// Aligns shapes from the right: the terms of each, and those of what they broadcast to. The letters are `name` (a
/// capital) and the number of the axis; small where the axis is locked.
///
/// # Errors
/// A refusal if the shapes do not broadcast.
pub(super) fn align(
    node: &NodeView,
    signature: &mut Signature,
    shapes: &[&Extents],
    name: &str,
) -> Refused<(Vec<Vec<Term>>, Vec<Term>)> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut terms: Vec<Vec<Term>> = vec![Vec::new(); shapes.len()];
    let mut output = Vec::new();
    for axis in 0..rank {
        // `None` where a tensor of lower rank has no such axis.
        let extents: Vec<Option<&Extent>> =
            shapes.iter().map(|s| (axis + s.len()).checked_sub(rank).and_then(|a| s.get(a))).collect();
        let extent = common_extent(node, &extents)?;
        // Extents that may be equal or 1 when the model runs: the axis is locked, nothing is claimed.
        let why = "its extent is not known before the model runs";
        let clear = extents.iter().flatten().all(|own| **own == extent || own.is_one());
        let letter = if clear {
            signature.free(format!("{name}{axis}"), Some(extent.clone()))
        } else {
            signature.fixed(format!("{}{axis}", name.to_lowercase()), Some(extent.clone()), why)
        };
        for (slot, (terms, own)) in terms.iter_mut().zip(&extents).enumerate() {
            terms.extend(own.map(|own| match own {
                own if *own == extent => letter.clone(),
                own if own.is_one() => Term::One,
                own => signature.fixed(format!("{}{axis}of{slot}", name.to_lowercase()), Some(own.clone()), why),
            }));
        }
        output.push(letter);
    }
    Ok((terms, output))
}

/// The extent that aligned axes broadcast to: a known one larger than 1 wins, then a common symbol.
fn common_extent(node: &NodeView, extents: &[Option<&Extent>]) -> Refused<Extent> {
    let large: Vec<&Extent> = extents.iter().flatten().copied().filter(|e| !e.is_one()).collect();
    let mut known = large.iter().filter(|e| e.value().is_some());
    if let Some(first) = known.next() {
        return match known.find(|e| *e != first) {
            None => Ok((*first).clone()),
            Some(other) => Err(Refusal::new(format!("extents {first} and {other} do not broadcast"))),
        };
    }
    Ok(match large.as_slice() {
        [] => Extent::one(),
        [first, rest @ ..] if rest.iter().all(|e| e == first) => (*first).clone(),
        many => {
            let many: Vec<Extent> = many.iter().map(|e| (*e).clone()).collect();
            node.symbolic(|s| s.broadcast(&many))
        }
    })
}
