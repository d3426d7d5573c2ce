//! Sign: operators that never give a number below zero.
//!
//! Spec: <https://onnx.ai/onnx/operators/>. Invariant: what is claimed holds for every finite input; rounding in an engine
//! does not break it, because nothing here takes a difference.

use crate::proto::onnx::NodeProto;

/// True if no output of `node` ever holds a number below zero, given which of its inputs never do. Optional inputs that
/// are missing count as such that may.
pub fn is_never_negative(node: &NodeProto, input: &dyn Fn(usize) -> bool) -> bool {
    if !matches!(node.domain(), "" | "ai.onnx") {
        return false;
    }
    let attribute = |name: &str| node.attribute.iter().find(|a| a.name() == name);
    let is_given = |slot: usize| node.input.get(slot).is_some_and(|name| !name.is_empty());
    let every = || !node.input.is_empty() && (0..node.input.len()).all(input);
    match node.op_type() {
        "Relu" | "Sigmoid" | "HardSigmoid" | "Softplus" | "Softmax" | "Abs" | "Exp" | "Sqrt" | "ReduceL1"
        | "ReduceL2" | "ReduceSumSquare" => true,
        "ThresholdedRelu" => attribute("alpha").is_none_or(|a| a.f() >= 0.0),
        "Clip" => {
            // An upper bound below the lower one wins.
            let below = if is_given(1) { input(1) } else { attribute("min").is_some_and(|a| a.f() >= 0.0) };
            let above = if is_given(2) { input(2) } else { attribute("max").is_none_or(|a| a.f() >= 0.0) };
            above && (below || input(0))
        }
        "Max" => (0..node.input.len()).any(input),
        "Min" | "Add" | "Mul" | "Div" | "Sum" | "Mean" | "Concat" => every(),
        "Identity" | "Dropout" | "Cast" | "MaxPool" | "AveragePool" | "GlobalMaxPool" | "GlobalAveragePool"
        | "Flatten" | "Reshape" | "Transpose" | "Squeeze" | "Unsqueeze" | "Slice" | "Split" | "Gather" | "Expand"
        | "Tile" | "DepthToSpace" | "SpaceToDepth" | "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" => input(0),
        "Pad" => {
            let padded = if is_given(2) { input(2) } else { attribute("value").is_none_or(|a| a.f() >= 0.0) };
            input(0) && padded
        }
        "Upsample" | "Resize" => {
            // Cubic curves swing below what they connect.
            let is = |name: &str, value: &[u8]| attribute(name).is_some_and(|a| a.s() == value);
            input(0) && !is("mode", b"cubic") && !is("coordinate_transformation_mode", b"tf_crop_and_resize")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::text;

    /// Of one node, given the inputs that never are below zero.
    fn holds(node: &str, positive: &[usize]) -> bool {
        let model = text::parse(&format!("in x [2,3,4,4]\nin y [2,3,4,4]\nin z []\nr = {node}\nout r")).unwrap();
        let node = model.graph.unwrap().node.pop().unwrap();
        is_never_negative(&node, &|slot| positive.contains(&slot))
    }

    #[test]
    fn what_is_known_of_operators() {
        assert!(holds("Relu(x)", &[]) && holds("Abs(x)", &[]));
        assert!(holds("Max(x, y)", &[1]) && !holds("Max(x, y)", &[]));
        assert!(holds("Min(x, y)", &[0, 1]) && !holds("Min(x, y)", &[1]));
        assert!(holds("Add(x, y)", &[0, 1]) && !holds("Add(x, y)", &[0]));
        assert!(!holds("Sub(x, y)", &[0, 1]) && !holds("Tanh(x)", &[]) && holds("Identity(x)", &[0]));
        assert!(holds("Clip(x, z, z)", &[1, 2]) && !holds("Clip(x, z, z)", &[1]) && holds("Clip(x, z, z)", &[0, 2]));
        assert!(holds("Clip(x, z)", &[1]) && !holds("Clip(x, z)", &[]) && !holds("Clip(x)", &[]));
    }
}
