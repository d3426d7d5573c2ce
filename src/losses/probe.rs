//! Probe: the output times random signs v, over the root of its number n of elements. With J the derivative of the
//! output, the gradient is Jᵀv / √n, and the expectation of its square the diagonal of JᵀJ / n: Gauss-Newton for the
//! mean square change of the output. No labels are needed.

use super::{Draw, Emitter, Fill, Loss, Target};
use crate::Result;

pub(super) struct Probe;

impl Loss for Probe {
    fn emit(&self, target: &Target, emitter: &mut Emitter) -> Result<String> {
        directed(target, Draw::Sign, emitter)
    }
}

/// The output times a random direction.
pub(super) fn directed(target: &Target, draw: Draw, emitter: &mut Emitter) -> Result<String> {
    let length = target.len()?;
    let value = emitter.begin(&target.output, target.element);
    let rows = emitter.rows(&value, &[length]);
    let direction = emitter.input(&target.output, &[length], Fill::Random(draw));
    let product = emitter.op("Mul", &[&rows, &direction]);
    let sum = emitter.sum(&product, 1, false);
    Ok(emitter.scaled(&sum, 1.0 / (length.max(1) as f64).sqrt()))
}
