//! QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear: index by index, with numbers per tensor, axis or block.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>,
//! <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html>. Scale and zero point are scalars, since operator set 13
//! also vectors along `axis`, since 21 also tensors with one number per `block_size` neighbours along `axis`: a block
//! shares its numbers, so whole blocks may go. The axis does not matter where there is one number.

use super::follow::letters;
use super::{NodeView, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;

/// x / scale + zero point.
pub(super) struct Quantize;

/// (x - zero point) × scale.
pub(super) struct Dequantize;

/// Quantisation by the range of the input. The range always includes 0, so channels that are zero do not move it: every
/// axis may shrink.
pub(super) struct Dynamic;

impl Rule for Quantize {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        linear(node)
    }
}

impl Rule for Dequantize {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        Ok(Signature { quantisation: Some([1, 2]), ..linear(node)? })
    }
}

/// The signature of both: index by index, with scale and zero point in slots 1 and 2.
fn linear(node: &NodeView) -> Refused<Signature> {
    let x = node.shape(0)?;
    let mut signature = Signature::default();
    let mut terms = letters(&mut signature, "A", x);
    let block = node.int("block_size", 0);
    if block < 0 {
        return Err(Refusal::new("its blocks have a negative size"));
    }
    let blocked = block > 0 && !x.is_empty() && node.rank(1)? == x.len();
    let numbers = if blocked {
        let axis = node.axis("axis", 1, x.len())?;
        let extent = x.get(axis).ok_or_else(|| Refusal::new("its input has no such axis"))?;
        let (outside, whole) = blocks(&mut signature, extent, &node.extent(1, axis)?, block)?;
        let mut numbers = terms.clone();
        if let (Some(term), Some(number)) = (terms.get_mut(axis), numbers.get_mut(axis)) {
            (*term, *number) = (whole, outside);
        }
        Some(numbers)
    } else {
        None
    };
    let mut inputs = vec![Some(terms.clone())];
    for slot in (1..node.input_count()).filter(|slot| *slot < 3) {
        inputs.push(match (&numbers, node.has(slot)) {
            (_, false) => None,
            (Some(numbers), true) => Some(numbers.clone()),
            (None, true) => Some(per_axis(node, slot, x, &terms)?),
        });
    }
    signature.inputs = inputs;
    signature.outputs = vec![Some(terms)];
    Ok(signature)
}

/// The terms of a blocked axis: the axis of the numbers, and the axis of the tensor.
fn blocks(signature: &mut Signature, extent: &Extent, count: &Extent, block: i64) -> Refused<(Term, Term)> {
    if let Some(count) = extent.divided_by(&Extent::known(block)) {
        let outside = signature.free("B", Some(count));
        let inside = signature.fixed("b", Some(Extent::known(block)), "a block shares its scale");
        return Ok((outside.clone(), Term::Product(vec![outside, inside])));
    }
    let why = "its last block is not full";
    let outside = signature.fixed("b", Some(count.clone()), why);
    Ok((outside, signature.fixed("x", Some(extent.clone()), why)))
}

/// The terms of a scale or zero point: one number for the tensor, or a vector along `axis`.
fn per_axis(node: &NodeView, slot: usize, x: &[Extent], terms: &[Term]) -> Refused<Vec<Term>> {
    match node.shape(slot)? {
        [] => Ok(Vec::new()),
        [one] if one.is_one() => Ok(vec![Term::One]),
        [_] => {
            let axis = node.axis("axis", 1, x.len())?;
            Ok(terms.get(axis).cloned().into_iter().collect())
        }
        _ => Err(Refusal::new(format!("input {slot} is neither a number nor a vector"))),
    }
}

impl Rule for Dynamic {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let mut signature = Signature::default();
        let terms = letters(&mut signature, "A", node.shape(0)?);
        signature.inputs = vec![Some(terms.clone())];
        signature.outputs = vec![Some(terms), Some(Vec::new()), Some(Vec::new())];
        signature.outputs.truncate(node.outputs.max(1));
        Ok(signature)
    }
}
