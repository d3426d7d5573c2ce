//! Scale: what the difference of an output is at least measured against.
//!
//! Engines compute functions that saturate (Sigmoid, Softmax, Tanh) by approximations that are good to a few units of
//! 1e-7 of their range, which is 1, however small a result is, and not to as many digits of it; vectors and what is left
//! over at their end are computed differently as well. So where all numbers of such an output happen to be small, their
//! last digits say nothing. Any other output is measured against its own largest magnitude alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::proto::onnx::{ModelProto, NodeProto};

/// The least magnitude of what saturates at 1: with the usual tolerance of 1e-4, 1e-6 remains, some eight roundings.
const SATURATING: f64 = 0.01;

const SATURATES: &[&str] = &["Sigmoid", "HardSigmoid", "Softmax", "Tanh", "Erf"];

/// Operators that hand numbers on as they are.
const MOVES: &[&str] = &[
    "Cast",
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// The least magnitude of every graph output that has one.
pub(super) fn least_magnitudes(model: &ModelProto) -> BTreeMap<String, f64> {
    let nodes = || model.graph.iter().flat_map(|g| &g.node);
    let producers: BTreeMap<&str, &NodeProto> =
        nodes().flat_map(|n| n.output.iter().map(move |o| (o.as_str(), n))).collect();
    let outputs = model.graph.iter().flat_map(|g| &g.output).map(|o| o.name());
    outputs.filter(|name| saturates(&producers, name)).map(|name| (name.to_owned(), SATURATING)).collect()
}

/// True if some of what stands in the tensor comes from a function that saturates.
fn saturates(producers: &BTreeMap<&str, &NodeProto>, output: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![output]);
    while let Some(name) = open.pop() {
        let Some(node) = producers.get(name).filter(|_| seen.insert(name)) else { continue };
        if SATURATES.contains(&node.op_type()) {
            return true;
        }
        if MOVES.contains(&node.op_type()) {
            open.extend(node.input.iter().map(String::as_str));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::text;

    #[test]
    fn what_saturates_is_followed_through_moves_only() {
        let model = text::parse(
            "in x [1,4,2,2]
             a = Sigmoid(x)
             b = Transpose(a, perm=[0,2,3,1])
             c = Concat(b, b, axis=1)
             d = Mul(a, x)
             e = Relu(x)
             out c
             out d
             out e",
        )
        .unwrap();
        assert_eq!(least_magnitudes(&model).into_iter().collect::<Vec<_>>(), [("c".to_owned(), SATURATING)]);
    }
}
