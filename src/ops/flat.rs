//! Flat parts of activations: numbers that an operator does not tell apart.
//!
//! Spec: <https://onnx.ai/onnx/operators/> (Relu, Clip, HardSigmoid, HardSwish, ThresholdedRelu, Max, Min). Invariants:
//! the operator gives one and the same result for all numbers up to `below`, and one for all from `above` on.

use crate::proto::onnx::NodeProto;

/// Where an operator is flat; infinite where it is not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flat {
    /// All numbers up to this one give the same.
    pub below: f64,
    /// All numbers from this one on give the same.
    pub above: f64,
}

impl Flat {
    /// Where `node` is flat in the operand of `slot`, given the constants among its inputs. `None` if it is nowhere.
    pub fn of(node: &NodeProto, slot: usize, constant: &dyn Fn(usize) -> Option<Vec<f64>>) -> Option<Self> {
        if !matches!(node.domain(), "" | "ai.onnx") {
            return None;
        }
        let float = |name: &str, default: f64| {
            node.attribute.iter().find(|a| a.name() == name).map_or(default, |a| f64::from(a.f()))
        };
        let single = |slot: usize| match constant(slot)?.as_slice() {
            [one] => Some(*one),
            _ => None,
        };
        let (all, none) = (f64::NEG_INFINITY, f64::INFINITY);
        let flat = match (node.op_type(), slot) {
            ("Relu", 0) => Self { below: 0.0, above: none },
            ("ThresholdedRelu", 0) => Self { below: float("alpha", 1.0), above: none },
            ("HardSwish", 0) => Self { below: -3.0, above: none },
            ("HardSigmoid", 0) => {
                let (alpha, beta) = (float("alpha", 0.2), float("beta", 0.5));
                (alpha > 0.0).then(|| Self { below: -beta / alpha, above: (1.0 - beta) / alpha })?
            }
            ("Clip", 0) => {
                let bound = |slot: usize, name: &str, default: f64| match node.input.get(slot) {
                    Some(input) if !input.is_empty() => single(slot),
                    _ => Some(float(name, default)),
                };
                Self { below: bound(1, "min", all)?, above: bound(2, "max", none)? }
            }
            ("Max", _) if node.input.len() == 2 => Self { below: single(1 - slot.min(1))?, above: none },
            ("Min", _) if node.input.len() == 2 => Self { below: all, above: single(1 - slot.min(1))? },
            _ => return None,
        };
        let somewhere = flat.below > all || flat.above < none;
        // Of NaN or crossed bounds nothing is known.
        (somewhere && flat.below <= flat.above).then_some(flat)
    }

    /// Where both are flat.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { below: self.below.min(other.below), above: self.above.max(other.above) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::onnx::AttributeProto;

    fn of(operator: &str, inputs: usize, attributes: &[(&str, f32)], constant: Option<f64>) -> Option<(f64, f64)> {
        let attribute = |(name, value): &(&str, f32)| AttributeProto {
            name: Some((*name).to_owned()),
            f: Some(*value),
            ..AttributeProto::default()
        };
        let node = NodeProto {
            op_type: Some(operator.to_owned()),
            input: (0..inputs).map(|i| format!("i{i}")).collect(),
            attribute: attributes.iter().map(attribute).collect(),
            ..NodeProto::default()
        };
        Flat::of(&node, 0, &|slot| (slot > 0).then(|| constant.into_iter().collect())).map(|f| (f.below, f.above))
    }

    #[test]
    fn flat_parts_are_those_of_the_operators() {
        assert_eq!(of("Relu", 1, &[], None), Some((0.0, f64::INFINITY)));
        assert_eq!(of("Clip", 1, &[("min", 0.0), ("max", 6.0)], None), Some((0.0, 6.0)));
        assert_eq!(of("Clip", 3, &[], Some(2.0)), Some((2.0, 2.0)));
        assert_eq!(of("HardSigmoid", 1, &[("alpha", 0.25), ("beta", 0.5)], None), Some((-2.0, 2.0)));
        assert_eq!(of("Max", 2, &[], Some(0.0)), Some((0.0, f64::INFINITY)));
        // Bounds that are computed, no bounds, bounds that cross, and operators that tell all numbers apart.
        assert_eq!(of("Clip", 3, &[], None), None);
        assert_eq!(of("Clip", 1, &[], None), None);
        assert_eq!(of("Clip", 1, &[("min", 1.0), ("max", 0.0)], None), None);
        assert_eq!(of("Sigmoid", 1, &[], None), None);
    }
}
