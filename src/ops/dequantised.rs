//! Weights that a file stores as integers, with scale and zero point: what reads them as numbers.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html>: (stored - zero point) × scale.

use crate::proto::onnx::NodeProto;

/// The slots of stored numbers, scale and zero point.
pub const SLOTS: [usize; 3] = [0, 1, 2];

/// The axis along which scale and zero point run where they are vectors, if the node makes numbers of stored ones.
/// Blocks of numbers along an axis are not among them.
pub fn axis(node: &NodeProto) -> Option<i64> {
    let attribute = |name: &str| node.attribute.iter().find(|a| a.name() == name).map(|a| a.i());
    let known = node.op_type() == "DequantizeLinear" && matches!(node.domain(), "" | "ai.onnx" | "com.microsoft");
    (known && attribute("block_size").unwrap_or(0) == 0).then(|| attribute("axis").unwrap_or(1))
}
