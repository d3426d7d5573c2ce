//! Differences between an output and its labels: squared (mse) or absolute (l1), mean over the elements.

use super::{Emitter, Fill, Loss, Target};
use crate::Result;

pub(super) enum Difference {
    Squared,
    Absolute,
}

impl Loss for Difference {
    fn emit(&self, target: &Target, emitter: &mut Emitter) -> Result<String> {
        let labels = target.numbers()?;
        let length = target.len()?;
        let value = emitter.begin(&target.output, target.element);
        let rows = emitter.rows(&value, &[length]);
        let labels = emitter.input(&target.output, &[length], Fill::Numbers { labels, range: (f64::MIN, f64::MAX) });
        let difference = emitter.op("Sub", &[&rows, &labels]);
        let loss = match self {
            Self::Squared => emitter.op("Mul", &[&difference, &difference]),
            Self::Absolute => emitter.op("Abs", &[&difference]),
        };
        Ok(emitter.mean(&loss, length))
    }
}
