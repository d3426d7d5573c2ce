//! Weights packed in blocks that share their numbers: MatMulNBits and GatherBlockQuantized of com.microsoft.
//!
//! Spec: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>. A block is a row of `block_size`
//! neighbours along one axis, packed into bytes, with one scale and zero point: whole blocks may go. Zero points of less
//! than a byte are packed across blocks; then, and where the last block is not full, the axis is locked.

use super::{Change, Edit, NodeView, Refusal, Refused, Rule, Signature};
use crate::axes::Extent;
use crate::proto::onnx::tensor_proto::DataType;

const INSIDE: &str = "a block shares its scale";
const PACKED: &str = "its zero points are packed across blocks, or its last block is not full";

/// A product of x [.., K] with packed weights [N, blocks, bytes], their scales [N, blocks] and a bias [N].
pub(super) struct MatMulBits;

impl Rule for MatMulBits {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        if node.int("weight_prepacked", 0) != 0 || node.has(4) {
            return Err(Refusal::new("its weights are packed in a way that is not described"));
        }
        let (k, n, block) = (number(node, "K")?, number(node, "N")?, number(node, "block_size")?);
        let bits = node.int("bits", 4);
        let rank = node.rank(0)?;
        if rank == 0 || node.rank(1)? != 3 {
            return Err(Refusal::new("its operands have unexpected ranks"));
        }
        let packed = node.has(3) && is_packed(node, 3, bits);
        let whole = k % block == 0;
        let q = if whole && !packed { "Q" } else { "q" };
        let x = if whole { format!("({q} b)") } else { "k".to_owned() };
        let numbers = |slot: usize| match (node.rank(slot), whole) {
            (Ok(2), _) => Ok(format!("N {q}")),
            // The blocks of all columns one behind the other.
            (Ok(1), _) => Ok(format!("(N {q})")),
            _ => Err(Refusal::new(format!("input {slot} has an unexpected rank"))),
        };
        let zeros = match (node.has(3), packed) {
            (false, _) => "_".to_owned(),
            (true, false) => numbers(3)?,
            (true, true) => match node.rank(3)? {
                2 => "N z".to_owned(),
                _ => "(N z)".to_owned(),
            },
        };
        let outer: Vec<String> = (1..rank).map(|i| format!("B{i}")).collect();
        let outer = outer.join(" ");
        let bias = if node.has(5) { "N" } else { "_" };
        let text = format!("{outer} {x}, N {q} p, {}, {zeros}, _, {bias} -> {outer} N", numbers(2)?);
        let mut signature = Signature::parse(&text, PACKED)?
            .because("b", INSIDE)
            .because("p", INSIDE)
            .with("N", Extent::known(n))
            .with("b", Extent::known(block))
            .with("k", Extent::known(k))
            .with("q", node.extent(1, 1)?)
            .with("Q", node.extent(1, 1)?);
        signature.inputs.truncate(node.input_count());
        Ok(signature)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let last = before.rank(0)?.saturating_sub(1);
        let mut edits = Vec::new();
        for (name, extent) in [("K", change.after.extent(0, last)?), ("N", change.after.extent(1, 0)?)] {
            let new = extent.value().ok_or_else(|| Refusal::new("a size of its weights is not known"))?;
            if before.int(name, 0) != new {
                edits.push(Edit::Int(name, new));
            }
        }
        Ok(edits)
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        Extent::product(outputs.first()?.as_ref()?)?.times(&Extent::known(node.maybe_int("K")?))
    }
}

/// Rows of a packed table [v, blocks × bytes], looked up by computed indices.
pub(super) struct GatherBlocks;

impl Rule for GatherBlocks {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let refused = || Refusal::new("this layout of packed rows is not described");
        if node.rank(0)? != 2 || node.axis("gather_axis", 0, 2)? != 0 || node.axis("quantize_axis", 1, 2)? != 1 {
            return Err(refused());
        }
        let (bits, block) = (node.int("bits", 4), node.int("block_size", 128));
        let data = node.constant(0).ok_or_else(refused)?;
        // Bytes hold several numbers each; the types of 4 bits hold one.
        let in_one = if data.data_type() == DataType::Uint8 as i32 {
            8i64.checked_div(bits).filter(|n| *n > 0)
        } else {
            Some(1)
        };
        let in_one = in_one.filter(|_| block > 0).ok_or_else(refused)?;
        let stored = Extent::known(block.checked_div(in_one).ok_or_else(refused)?);
        let blocks = node.extent(2, 1)?;
        if node.extent(0, 1)?.divided_by(&stored) != Some(blocks.clone()) {
            return Err(refused());
        }
        let packed = in_one > 1 && node.has(3) && is_packed(node, 3, bits);
        let q = if packed { "q" } else { "Q" };
        let zeros = match (node.has(3), packed) {
            (false, _) => "_",
            (true, true) => "v z",
            (true, false) => "v Q",
        };
        let indices: Vec<String> = (0..node.rank(1)?).map(|i| format!("I{i}")).collect();
        let indices = indices.join(" ");
        let text = format!("v ({q} p), {indices}, v {q}, {zeros} -> {indices} ({q} b)");
        let mut signature = Signature::parse(&text, PACKED)?
            .because("v", "it is selected by computed indices")
            .because("b", INSIDE)
            .because("p", INSIDE)
            .with(q, blocks)
            .with("p", stored)
            .with("b", Extent::known(block));
        signature.inputs.truncate(node.input_count());
        Ok(signature)
    }
}

/// True if the zero points in `slot` are bytes that hold several of them.
fn is_packed(node: &NodeView, slot: usize, bits: i64) -> bool {
    let is_bytes = node.constant(slot).is_none_or(|zeros| zeros.data_type() == DataType::Uint8 as i32);
    is_bytes && bits < 8
}

fn number(node: &NodeView, name: &str) -> Refused<i64> {
    node.maybe_int(name).filter(|n| *n > 0).ok_or_else(|| Refusal::new(format!("it has no `{name}`")))
}
