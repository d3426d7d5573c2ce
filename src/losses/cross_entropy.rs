//! Cross-entropy: minus the logarithm of the probability of the labelled class, mean over the positions that count.

use super::classes::classes;
use super::{Activation, Emitter, Fill, Loss, Target};
use crate::Result;

/// What the output holds; `None` where the model tells.
pub(super) struct CrossEntropy(pub(super) Option<Activation>);

impl Loss for CrossEntropy {
    fn emit(&self, target: &Target, emitter: &mut Emitter) -> Result<String> {
        let labels = target.given()?;
        let own = classes(target, self.0, emitter)?;
        let given: usize = target.label_extents().iter().product();
        if given != own.positions {
            let (extents, shape) = (target.label_extents(), target.extents()?);
            return Err(target
                .wrong(format!("labels of shape {extents:?} for outputs of shape {shape:?}, by sample"))
                .help("cross-entropy takes one integer for every position"));
        }
        let fill = Fill::Classes { labels, count: own.count };
        let classes = emitter.input(&target.output, &[own.positions, 1], fill);
        Ok(own.loss(&classes, emitter))
    }
}
