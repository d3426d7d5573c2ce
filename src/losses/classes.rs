//! Classes: an output as the logarithms of the probabilities of classes at every position of a sample.

use super::head::Activation;
use super::target::squeezed;
use super::{Emitter, Target};
use crate::Result;

/// Added to probabilities before their logarithm is taken.
pub(super) const TINY: f64 = 1e-12;

/// Logarithms of probabilities, [batch, positions, classes].
pub(super) struct Classes {
    pub(super) logarithms: String,
    pub(super) positions: usize,
    pub(super) count: usize,
}

/// The axis of a sample that holds classes: that of the softmax, or the one that the labels lack, or the only one, or the
/// first where no softmax tells of another.
pub(super) fn class_axis(target: &Target) -> Result<usize> {
    let extents = target.extents()?;
    let known = target.head.axis.and_then(|axis| target.axis(axis));
    if let Some(axis) = known.filter(|axis| *axis < extents.len()) {
        return Ok(axis);
    }
    let without = |axis: usize| {
        let mut rest = extents.clone();
        rest.remove(axis);
        squeezed(&rest)
    };
    let labels = squeezed(&target.label_extents());
    let lacked = |axis: &usize| extents.get(*axis).is_some_and(|n| *n > 1) && without(*axis) == labels;
    let found = match &target.labels {
        Some(_) => (0..extents.len()).find(lacked),
        None => {
            let is_lost = matches!(target.head.activation, Activation::Softmax | Activation::LogSoftmax);
            let mut wide = (0..extents.len()).filter(|axis| extents.get(*axis).is_some_and(|n| *n > 1));
            wide.next().filter(|axis| if is_lost { wide.next().is_none() } else { *axis == 0 })
        }
    };
    found.ok_or_else(|| {
        let what = match &target.labels {
            Some(_) => format!(
                "labels of shape {:?} name no classes of outputs of shape {extents:?}, by sample",
                target.label_extents()
            ),
            None => format!("outputs of shape {extents:?}, by sample, are no classes"),
        };
        target.wrong(what).help("choose another --loss")
    })
}

/// Emits the logarithms; `form` says what the output holds, where that is not to be found out.
pub(super) fn classes(target: &Target, form: Option<Activation>, emitter: &mut Emitter) -> Result<Classes> {
    let axis = class_axis(target)?;
    let extents = target.extents()?;
    let count = extents.get(axis).copied().unwrap_or(1);
    let positions = extents.iter().product::<usize>() / count.max(1);
    let form = form.unwrap_or(target.head.activation);
    // Logits tell more than probabilities that were rounded.
    let logits = target.head.before.as_ref().filter(|_| form == Activation::Softmax && form == target.head.activation);
    let mut value = emitter.begin(logits.unwrap_or(&target.output), target.element);
    if axis + 1 < extents.len() {
        value = emitter.rows(&value, &extents);
        let order: Vec<usize> = (0..=extents.len()).filter(|a| *a != axis + 1).chain([axis + 1]).collect();
        value = emitter.transpose(&value, &order);
    }
    value = emitter.rows(&value, &[positions, count]);
    let logarithms = match form {
        Activation::LogSoftmax => value,
        Activation::Softmax if logits.is_none() => {
            let tiny = emitter.number(TINY);
            let shifted = emitter.op("Add", &[&value, &tiny]);
            emitter.op("Log", &[&shifted])
        }
        _ => emitter.log_softmax(&value),
    };
    Ok(Classes { logarithms, positions, count })
}

impl Classes {
    /// Minus the mean logarithm of the classes, integers [batch, positions, 1]; -1 does not count.
    pub(super) fn loss(&self, classes: &str, emitter: &mut Emitter) -> String {
        let counted = emitter.counted(self.count);
        let is_label = emitter.op("Equal", &[classes, &counted]);
        let zero = emitter.number(0.0);
        let chosen = emitter.op("Where", &[&is_label, &self.logarithms, &zero]);
        let length = self.positions.saturating_mul(self.count);
        let chosen = emitter.rows(&chosen, &[length]);
        let sum = emitter.sum(&chosen, 1, false);
        let counts = emitter.cast(&is_label);
        let counts = emitter.rows(&counts, &[length]);
        let counts = emitter.sum(&counts, 1, false);
        let one = emitter.number(1.0);
        let counts = emitter.op("Max", &[&counts, &one]);
        let mean = emitter.op("Div", &[&sum, &counts]);
        emitter.op("Neg", &[&mean])
    }
}
