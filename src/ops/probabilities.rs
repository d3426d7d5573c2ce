//! Probabilities: what an operator makes of numbers, of each alone or of those along an axis together.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Softmax.html>, <https://onnx.ai/onnx/operators/onnx__Sigmoid.html>.

use crate::proto::onnx::NodeProto;

/// How an operator turns numbers into probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probabilities {
    /// Each number by the logistic function.
    Each,
    /// All numbers along this axis (counted from the end if below 0) by their shares of the sum of exponentials; and
    /// along all axes behind it as well where the second is true, as it was before operator set 13.
    Shares(i64, bool),
}

impl Probabilities {
    /// What `node` makes of its first operand under this version of the default operator set.
    pub fn of(node: &NodeProto, slot: usize, opset: i64) -> Option<Self> {
        if !matches!(node.domain(), "" | "ai.onnx") || slot != 0 {
            return None;
        }
        match node.op_type() {
            "Sigmoid" => Some(Self::Each),
            "Softmax" => {
                let axis = node.attribute.iter().find(|a| a.name() == "axis").map(|a| a.i());
                Some(Self::Shares(axis.unwrap_or(if opset < 13 { 1 } else { -1 }), opset < 13))
            }
            _ => None,
        }
    }

    /// True if in a value of this shape the numbers along `axis`, and no others, share; or if none do.
    pub fn only_along(self, axis: usize, shape: &[usize]) -> bool {
        let Self::Shares(own, all_behind) = self else { return true };
        let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
        let own = if own < 0 { own.checked_add(rank) } else { Some(own) };
        let behind = shape.iter().skip(axis.saturating_add(1)).all(|extent| *extent == 1);
        own.and_then(|own| usize::try_from(own).ok()) == Some(axis) && (behind || !all_behind)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_axis_is_that_of_the_version() {
        let of = |line: &str, opset: i64| {
            let model = crate::text::parse(&format!("in x [2,3,4,1]\ny = {line}\nout y")).unwrap();
            Probabilities::of(&model.graph.unwrap().node[0], 0, opset)
        };
        assert_eq!(of("Relu(x)", 17), None);
        assert!(of("Sigmoid(x)", 17).unwrap().only_along(0, &[2, 3, 4, 1]));
        assert_eq!(of("Softmax(x)", 17), Some(Probabilities::Shares(-1, false)));
        let new = of("Softmax(x, axis=1)", 17).unwrap();
        assert!(new.only_along(1, &[2, 3, 4, 1]) && !new.only_along(2, &[2, 3, 4, 1]));
        let old = of("Softmax(x)", 11).unwrap();
        assert!(!old.only_along(1, &[2, 3, 4, 1]) && old.only_along(1, &[2, 3]));
        let last = of("Softmax(x, axis=-2)", 11).unwrap();
        assert!(last.only_along(2, &[2, 3, 4, 1]) && !last.only_along(1, &[2, 3, 4, 1]));
    }
}
