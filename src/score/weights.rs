//! Weights of consumers: how much they weigh per channel that they contract.
//!
//! Invariant: weights that the model computes from constants otherwise than by dequantising them are unknown here, not
//! guessed.

use super::marginal::marginals;
use super::{ScoreInput, quantised};
use crate::Result;
use crate::axes::Expr;
use crate::calibration::WeightAxis;
use crate::coupling::Role;
use crate::graph::{Source, ValueId};
use crate::groups::Member;

/// Sums of |w|^p over everything but one axis of a weight.
pub(super) struct ColumnSums {
    /// One sum per position of the axis.
    pub(super) by_position: Vec<f64>,
    axis: Expr,
}

/// The sums along the axis of a weight that lies beside the channels; `None` where the weight is no constant, nor what a
/// node makes of a quantised one.
///
/// # Errors
/// A constant that cannot be read.
pub(super) fn column_sums(input: &ScoreInput, weight: &WeightAxis, power: u32) -> Result<Option<ColumnSums>> {
    let axes = input.coupling.axes.get(weight.value.0 as usize).and_then(Option::as_ref);
    let Some(axis) = axes.and_then(|axes| axes.get(weight.axis)).copied() else { return Ok(None) };
    let value = input.graph.value(weight.value);
    let real;
    let tensor = match (&value.source, value.constant()) {
        (_, Some(constant)) => constant.tensor.as_ref(),
        (Source::Node(node, 0), _) => {
            let stored = input.graph.node(*node).inputs.first().copied().flatten();
            let signature = input.coupling.signature(input.graph, *node).ok();
            let (Some(stored), Some(signature)) = (stored, signature) else { return Ok(None) };
            let member = Member { value: stored, axis: weight.axis, node: *node, role: Role::PerChannel };
            match quantised::weights(input.graph, &signature, &member) {
                Some(tensor) => real = tensor,
                None => return Ok(None),
            }
            &real
        }
        _ => return Ok(None),
    };
    let sums = marginals(tensor, &[weight.axis], power, input.pages)?.pop().unwrap_or_default();
    Ok(Some(ColumnSums { by_position: sums, axis }))
}

impl ColumnSums {
    /// True if the positions are those of an axis of a value, one by one.
    pub(super) fn is_like(&self, input: &ScoreInput, value: ValueId, axis: usize) -> bool {
        let axes = input.coupling.axes.get(value.0 as usize).and_then(Option::as_ref);
        let space = &input.coupling.space;
        axes.and_then(|axes| axes.get(axis)).is_some_and(|axis| {
            let (own, other) = (space.resolve(self.axis), space.resolve(*axis));
            own == other || space.shape(own) == space.shape(other)
        })
    }

    /// The sums by channel of an atom, all its positions together.
    pub(super) fn by_channel(&self, input: &ScoreInput, atom: Expr, channels: usize) -> Vec<f64> {
        let mut total = vec![0.0; channels];
        input.coupling.space.positions(self.axis, atom, &mut |position, channel| {
            if let (Some(total), Some(sum)) = (total.get_mut(channel), self.by_position.get(position)) {
                *total += sum;
            }
        });
        total
    }
}
