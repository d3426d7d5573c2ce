//! Quantised forms of larger operators of com.microsoft: QGemm, QAttention, DynamicQuantizeLSTM; and GemmFastGelu.
//!
//! Spec: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>. The axes are those of the plain
//! operator on (stored - zero point) × scale; what is said of zero points in `quantized` holds here.

use super::attention::{ProjectedAttention, has_scale, positive, quotient, with_parts};
use super::matmul::{Gemm, MatMul, product};
use super::quantized::contract;
use super::{Change, Edit, NodeView, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;

/// Gemm of A (slots 0 to 2: numbers, scale, zero point), B (3 to 5) and C (6).
pub(super) struct QuantizedGemm;

impl QuantizedGemm {
    /// The node as a Gemm.
    fn plain<'a>(node: &NodeView<'a>) -> NodeView<'a> {
        let inputs = [0, 3, 6].map(|slot| node.input(slot).cloned()).to_vec();
        NodeView { node: node.node, inputs, outputs: node.outputs, symbols: node.symbols, space: node.space }
    }
}

impl Rule for QuantizedGemm {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let mut signature = Gemm.signature(&Self::plain(node))?;
        let plain = std::mem::replace(&mut signature.inputs, vec![None; node.input_count()]);
        let contracted =
            plain.first().cloned().flatten().and_then(|a| a.into_iter().nth(usize::from(node.int("transA", 0) == 0)));
        let columns = signature.outputs.first().cloned().flatten().and_then(|output| output.into_iter().nth(1));
        for (slot, terms) in [0, 3, 6].into_iter().zip(plain) {
            if let Some(input) = signature.inputs.get_mut(slot) {
                *input = terms;
            }
        }
        for slot in [4, 5].into_iter().filter(|slot| node.has(*slot)) {
            let terms = vector(node, slot, columns.as_ref())?;
            if let Some(input) = signature.inputs.get_mut(slot) {
                *input = Some(terms);
            }
        }
        contract(node, &mut signature, &[(0, 2), (3, 5)], contracted.as_ref());
        Ok(signature)
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        Gemm.macs(&Self::plain(node), outputs)
    }
}

/// The terms of numbers per tensor or along `term`.
fn vector(node: &NodeView, slot: usize, term: Option<&Term>) -> Refused<Vec<Term>> {
    match (node.shape(slot)?, term) {
        ([], _) => Ok(Vec::new()),
        ([one], _) if one.is_one() => Ok(vec![Term::One]),
        ([_], Some(term)) => Ok(vec![term.clone()]),
        _ => Err(Refusal::new(format!("input {slot} is neither a number nor a vector"))),
    }
}

/// A product of x [.., K] and W [K, N], plus a bias [N], then an activation.
pub(super) struct ProductWithBias;

impl Rule for ProductWithBias {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let mut signature = product(node, [0, 1])?;
        if node.has(2) {
            let columns = signature.inputs.get(1).cloned().flatten().filter(|w| w.len() > 1);
            let columns = columns.and_then(|w| w.last().cloned());
            signature.inputs.push(Some(vec![columns.ok_or_else(|| Refusal::new("its second operand is a vector"))?]));
        }
        Ok(signature)
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        MatMul.macs(node, outputs)
    }
}

/// Attention behind a projection of quantised x [b, s, I] by weights [I, (H D)+(H D)+(H D)].
pub(super) struct QuantizedAttention;

impl Rule for QuantizedAttention {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        if node.has(8) || node.node.outputs.iter().skip(1).any(Option::is_some) || node.int("do_rotary", 0) != 0 {
            return Err(Refusal::new("it rotates its queries and keys, or reads or gives a cache"));
        }
        let heads = positive(node, "num_heads")?;
        let all = node.extent(1, 1)?.value().ok_or_else(|| Refusal::new("the size of its weights is not known"))?;
        let length = quotient(quotient(all, 3)?, heads)?;
        let d = if has_scale(node) { "D" } else { "d" };
        let parts = format!("(H {d})+(H {d})+(H {d})");
        let numbers = |slot: usize| match node.shape(slot) {
            Ok([extent]) if !extent.is_one() => parts.as_str(),
            Ok([_]) => "1",
            Ok([]) => "",
            _ => "_",
        };
        let (scale, zero) = (numbers(4), numbers(7));
        let text = format!("b s I, I {parts}, {parts}, _, {scale}, _, _, {zero} -> b s (H {d})");
        let mut signature = Signature::parse(&text, "attention compares its positions, or runs sample by sample")?
            .because("d", "the scale of an attention follows from it")
            .with("H", Extent::known(heads))
            .with(d, Extent::known(length));
        signature.inputs.truncate(node.input_count());
        let contracted = signature.inputs.first().cloned().flatten().and_then(|x| x.last().cloned());
        contract(node, &mut signature, &[(0, 6), (1, 7)], contracted.as_ref());
        Ok(with_parts(signature))
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        ProjectedAttention.patch(before, change)
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        ProjectedAttention.macs(node, outputs)
    }
}

/// An LSTM with quantised weights [d, I, (4 H)] and [d, H, (4 H)]; x and the hidden state are quantised when the model
/// runs, by a range that includes 0.
pub(super) struct QuantizedLstm;

impl Rule for QuantizedLstm {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let directions = match node.string("direction", "forward").as_str() {
            "bidirectional" => 2,
            _ => 1,
        };
        let numbers = |slot: usize| match node.shape(slot) {
            Ok([_, _]) => "d (g H)",
            Ok([_]) => "d",
            _ => "_",
        };
        let all = ["t n I", "d I (g H)", "d H (g H)", "d (b H)", "_", "d n H", "d n H", "d (p H)"];
        let all = all.into_iter().chain((8..12).map(numbers));
        let inputs: Vec<&str> = all.enumerate().map(|(slot, text)| if node.has(slot) { text } else { "_" }).collect();
        let text = format!("{} -> t d n H, d n H, d n H", inputs.join(", "));
        let why = "it counts the gates or directions of a recurrent cell";
        let mut signature = Signature::parse(&text, "a recurrent cell runs over it")?
            .with("d", Extent::known(directions))
            .with("g", Extent::known(4))
            .with("b", Extent::known(8))
            .with("p", Extent::known(3));
        for letter in ["d", "g", "b", "p"] {
            signature = signature.because(letter, why);
        }
        signature.inputs.truncate(node.input_count());
        signature.outputs.truncate(node.outputs.max(1));
        Ok(match node.maybe_int("hidden_size") {
            Some(hidden) => signature.with("H", Extent::known(hidden)),
            None => signature,
        })
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let hidden = change.after.extent(2, 1)?;
        let old = before.maybe_int("hidden_size");
        Ok(match hidden.value().filter(|new| old.is_some_and(|old| old != *new)) {
            Some(new) => vec![Edit::Int("hidden_size", new)],
            None => Vec::new(),
        })
    }

    fn macs(&self, node: &NodeView, _outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        let positions = Extent::product(node.shape(0).ok()?.get(..2)?)?;
        let (inputs, hidden) = (Extent::product(node.shape(1).ok()?)?, Extent::product(node.shape(2).ok()?)?);
        node.symbolic(|symbols| symbols.plus(&inputs, &hidden)).times(&positions)
    }
}
