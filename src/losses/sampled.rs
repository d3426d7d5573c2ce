//! Sampled: cross-entropy with labels drawn from the model's own distribution, whose squared gradients average to the
//! Fisher information (Kunstner et al., arXiv 1905.12558, tell it from that of the labels). Classes are drawn as the
//! largest logit plus Gumbel noise; an output that is no class is the mean of a normal distribution, where a sampled
//! label moves the gradient as a normal direction does.

use super::binary::binary;
use super::classes::{class_axis, classes};
use super::probe::directed;
use super::{Activation, Draw, Emitter, Fill, Loss, Target};
use crate::Result;

pub(super) struct Sampled;

impl Loss for Sampled {
    fn emit(&self, target: &Target, emitter: &mut Emitter) -> Result<String> {
        if target.head.activation == Activation::Sigmoid {
            let own = binary(target, None, emitter)?;
            let uniform = emitter.input(&target.output, &[own.length], Fill::Random(Draw::Uniform));
            let probabilities = own.probabilities(emitter);
            let drawn = emitter.op("Less", &[&uniform, &probabilities]);
            let labels = emitter.cast(&drawn);
            return Ok(own.loss(&labels, emitter));
        }
        if !is_classes(target) {
            return directed(target, Draw::Normal, emitter);
        }
        let own = classes(target, None, emitter)?;
        let noise = emitter.input(&target.output, &[own.positions, own.count], Fill::Random(Draw::Gumbel));
        let noisy = emitter.op("Add", &[&own.logarithms, &noise]);
        let drawn = emitter.arg_max(&noisy);
        Ok(own.loss(&drawn, emitter))
    }
}

/// True if a softmax made the output, or if it is one row of several numbers per sample.
pub(super) fn is_classes(target: &Target) -> bool {
    let is_row = || target.extents().is_ok_and(|extents| extents.len() == 1);
    (matches!(target.head.activation, Activation::Softmax | Activation::LogSoftmax) || is_row())
        && class_axis(target).is_ok()
}
