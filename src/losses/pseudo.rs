//! Pseudo: cross-entropy with the model's own most likely classes as labels.

use super::binary::binary;
use super::classes::classes;
use super::sampled::is_classes;
use super::{Activation, Emitter, Loss, Target};
use crate::Result;

pub(super) struct Pseudo;

impl Loss for Pseudo {
    fn emit(&self, target: &Target, emitter: &mut Emitter) -> Result<String> {
        if target.head.activation == Activation::Sigmoid {
            let own = binary(target, None, emitter)?;
            let probabilities = own.probabilities(emitter);
            let half = emitter.number(0.5);
            let likely = emitter.op("Greater", &[&probabilities, &half]);
            let labels = emitter.cast(&likely);
            return Ok(own.loss(&labels, emitter));
        }
        if !is_classes(target) {
            return Err(target
                .wrong("an output that is no class is its own pseudo-label, and the loss has no gradient".to_owned())
                .help("choose probe or sampled, or give labels"));
        }
        let own = classes(target, None, emitter)?;
        let likely = emitter.arg_max(&own.logarithms);
        Ok(own.loss(&likely, emitter))
    }
}
