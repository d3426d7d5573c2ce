//! Contractions of quantised tensors: MatMulInteger, ConvInteger, QLinearMatMul and QLinearConv.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__QLinearConv.html> and the pages beside it. They are MatMul and Conv of
//! (value - zero point) × scale, and so are their signatures. An index of a contracted axis drops out only if it is zero,
//! which is the stored number that its zero point says: contracted axes are free where some operand that the model
//! computes has one zero point for the whole tensor, and the signature says which number that is. Constant operands do
//! not count, because their zero points say nothing about what is multiplied with them.

use super::conv;
use super::matmul::{self, MatMul};
use super::{Change, Edit, NodeView, Refusal, Refused, Rule, Signature, Term, Zero};
use crate::axes::Extent;
use crate::proto::tensor;

const ZERO: &str = "which stored number is zero is not known, or not the same for the whole tensor";

/// Where a contraction has its parts. Slots beyond the node's inputs are left out.
struct Slots {
    /// The operands.
    operands: [usize; 2],
    /// Their zero points.
    zeros: [usize; 2],
    /// Further numbers that belong to the first operand, the second, and the output.
    scales: [Option<usize>; 3],
    zero_of_output: Option<usize>,
    bias: Option<usize>,
}

impl Slots {
    /// Operands and their zero points.
    fn pairs(&self) -> [(usize, usize); 2] {
        [(self.operands[0], self.zeros[0]), (self.operands[1], self.zeros[1])]
    }
}

const INTEGER: Slots = Slots { operands: [0, 1], zeros: [2, 3], scales: [None; 3], zero_of_output: None, bias: None };
const LINEAR: Slots = Slots {
    operands: [0, 3],
    zeros: [2, 5],
    scales: [Some(1), Some(4), Some(6)],
    zero_of_output: Some(7),
    bias: Some(8),
};
const TO_FLOAT: Slots =
    Slots { operands: [0, 1], zeros: [4, 5], scales: [Some(2), Some(3), None], zero_of_output: None, bias: Some(6) };
const DYNAMIC: Slots =
    Slots { operands: [0, 1], zeros: [NOWHERE, 3], scales: [None, Some(2), None], zero_of_output: None, bias: Some(4) };

/// The slot of a zero point that an operator does not have.
const NOWHERE: usize = usize::MAX;

/// Which form of a quantised contraction it is.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// Integers in, 32-bit integers out: x, w, zero point of x, zero point of w.
    Integer,
    /// Quantised in, quantised out: x, w and y come with a scale and a zero point each.
    Linear,
    /// Quantised in, floats out, and a bias: MatMulIntegerToFloat of com.microsoft.
    ToFloat,
    /// Floats that it quantises itself by their range, which always includes 0, and a quantised matrix:
    /// DynamicQuantizeMatMul of com.microsoft.
    Dynamic,
}

impl Form {
    fn slots(self) -> &'static Slots {
        match self {
            Form::Integer => &INTEGER,
            Form::Linear => &LINEAR,
            Form::ToFloat => &TO_FLOAT,
            Form::Dynamic => &DYNAMIC,
        }
    }
}

/// MatMulInteger and QLinearMatMul: numbers per tensor, per row of the first or column of the second operand.
pub(super) struct QuantizedMatMul(pub(super) Form);

/// ConvInteger and QLinearConv: numbers per tensor, for the kernel also per output channel.
pub(super) struct QuantizedConv(pub(super) Form);

impl Rule for QuantizedMatMul {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let slots = self.0.slots();
        let mut signature = matmul::product(node, slots.operands)?;
        let terms = |side: usize| signature.inputs.get(side).cloned().flatten().unwrap_or_default();
        let (a, b) = (terms(0), terms(1));
        let output = signature.outputs.first().cloned().flatten().unwrap_or_default();
        if let Some(columns) = b.last().filter(|_| b.len() > 1 && slots.bias.is_some_and(|slot| node.has(slot))) {
            signature.inputs.push(Some(vec![columns.clone()]));
        }
        let from_end = |terms: &[Term], n: usize| terms.len().checked_sub(n).and_then(|at| terms.get(at).cloned());
        let vectors = [from_end(&a, 2), if b.len() < 2 { None } else { from_end(&b, 1) }, None];
        let contracted = from_end(&a, 1);
        spread(node, &mut signature, slots, [&a, &b, &output], &vectors)?;
        contract(node, &mut signature, &slots.pairs(), contracted.as_ref());
        Ok(signature)
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        MatMul.macs(node, outputs)
    }
}

impl Rule for QuantizedConv {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let slots = self.0.slots();
        let [_, kernel] = slots.operands;
        let has_bias = slots.bias.is_some_and(|slot| node.has(slot));
        let mut signature = conv::convolution(node, kernel, has_bias)?;
        let terms = |side: usize| signature.inputs.get(side).cloned().flatten().unwrap_or_default();
        let (x, w) = (terms(0), terms(1));
        let (channels, contracted) = (w.first().cloned(), w.get(1).cloned());
        spread(node, &mut signature, slots, [&x, &w, &[]], &[None, channels, None])?;
        contract(node, &mut signature, &slots.pairs(), contracted.as_ref());
        Ok(signature)
    }

    fn patch(&self, _before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let [_, kernel] = self.0.slots().operands;
        conv::regroup(change.after, kernel, &change.after.extent(0, 1)?)
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        let [_, kernel] = self.0.slots().operands;
        conv::multiplications(node, kernel, outputs)
    }
}

/// Moves the operands (and the bias) of `signature` to their slots and puts scales and zero points beside them.
/// `tensors` are the terms of both operands and of the output, `vectors` what a vector of numbers for each runs along.
fn spread(
    node: &NodeView,
    signature: &mut Signature,
    slots: &Slots,
    tensors: [&[Term]; 3],
    vectors: &[Option<Term>; 3],
) -> Refused<()> {
    let bias = signature.inputs.get(2).cloned().flatten();
    let mut inputs = vec![None; node.input_count()];
    let mut place = |slot: usize, terms: Vec<Term>| {
        if let Some(input) = inputs.get_mut(slot) {
            *input = Some(terms);
        }
    };
    let [first, second] = slots.operands;
    let [a, b, _] = tensors;
    place(first, a.to_vec());
    place(second, b.to_vec());
    if let (Some(slot), Some(terms)) = (slots.bias, bias) {
        place(slot, terms);
    }
    let zeros = [Some(slots.zeros[0]), Some(slots.zeros[1]), slots.zero_of_output];
    for (side, (scale, zero)) in slots.scales.iter().zip(zeros).enumerate() {
        let (Some(terms), Some(vector)) = (tensors.get(side), vectors.get(side)) else { continue };
        for slot in scale.iter().copied().chain(zero).filter(|slot| node.has(*slot)) {
            place(slot, numbers(node, slot, terms, vector.as_ref())?);
        }
    }
    signature.inputs = inputs;
    Ok(())
}

/// The terms of a scale or zero point: a number, a vector along `vector`, or the tensor's axes with 1 for those that
/// share a number.
fn numbers(node: &NodeView, slot: usize, tensor: &[Term], vector: Option<&Term>) -> Refused<Vec<Term>> {
    let shape = node.shape(slot)?;
    let term = |extent: &Extent, term: &Term| if extent.is_one() { Term::One } else { term.clone() };
    match (shape, vector) {
        ([], _) => Ok(Vec::new()),
        ([one], _) if one.is_one() => Ok(vec![Term::One]),
        ([extent], Some(vector)) => Ok(vec![term(extent, vector)]),
        _ if shape.len() == tensor.len() => Ok(shape.iter().zip(tensor).map(|(e, t)| term(e, t)).collect()),
        _ => Err(Refusal::new(format!("input {slot} does not fit the tensor it belongs to"))),
    }
}

/// Frees the contracted axis where it is known which stored number of an operand that the model computes is zero, and
/// says which; locks it elsewhere. `pairs` are the slots of operands and their zero points.
pub(super) fn contract(
    node: &NodeView,
    signature: &mut Signature,
    pairs: &[(usize, usize)],
    contracted: Option<&Term>,
) {
    let zeros = pairs.iter().filter(|(operand, _)| node.has(*operand) && node.constant(*operand).is_none());
    signature.zeros = zeros.filter_map(|(operand, zero)| Some((*operand, zero_of(node, *zero)?))).collect();
    if let (true, Some(term)) = (signature.zeros.is_empty(), contracted) {
        signature.fix(term, ZERO);
    }
}

/// What stands for zero, by the zero point in slot `slot`: one number for the whole tensor, or nothing is said.
fn zero_of(node: &NodeView, slot: usize) -> Option<Zero> {
    if !node.has(slot) {
        return Some(Zero::Known(0));
    }
    match node.constant(slot) {
        Some(constant) => {
            let numbers = tensor::to_i64(constant).ok()?;
            let first = *numbers.first()?;
            numbers.iter().all(|number| *number == first).then_some(Zero::Known(first))
        }
        None => node.shape(slot).is_ok_and(|shape| shape.iter().all(Extent::is_one)).then_some(Zero::Slot(slot)),
    }
}
