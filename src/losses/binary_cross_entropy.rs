//! Binary cross-entropy: -y log p - (1 - y) log(1 - p), mean over the elements of an output.

use super::binary::binary;
use super::{Activation, Emitter, Fill, Loss, Target};
use crate::Result;

/// What the output holds; `None` where the model tells.
pub(super) struct BinaryCrossEntropy(pub(super) Option<Activation>);

impl Loss for BinaryCrossEntropy {
    fn emit(&self, target: &Target, emitter: &mut Emitter) -> Result<String> {
        let labels = target.numbers()?;
        let own = binary(target, self.0, emitter)?;
        let labels = emitter.input(&target.output, &[own.length], Fill::Numbers { labels, range: (0.0, 1.0) });
        Ok(own.loss(&labels, emitter))
    }
}
