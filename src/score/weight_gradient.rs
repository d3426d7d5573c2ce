//! Criteria of the weights w that make a channel and their gradients g, sums over all these weights:
//!
//! - `taylor-weight`: (w g)², g of the mean loss of a batch, mean over batches (Molchanov et al., arXiv 1906.10771, the form
//!   without gates);
//! - `obd`: w² E[g²], g of the loss of single samples (optimal brain damage, LeCun et al. 1990, with the Fisher information
//!   in place of the second derivative, without its factor 1/2);
//! - `snip`: |w g|, g of the mean loss of a batch, mean over batches (Lee et al., arXiv 1810.02340).

use super::gradient::{by_task, known};
use super::{Criterion, ScoreInput};
use crate::Result;
use crate::aggregate::TaskScores;

pub(super) enum WeightGradient {
    Taylor,
    BrainDamage,
    Snip,
}

impl Criterion for WeightGradient {
    fn by_task(&self, input: &ScoreInput) -> Result<Option<TaskScores>> {
        self.scores(input).map(Some)
    }
}

impl WeightGradient {
    fn scores(&self, input: &ScoreInput) -> Result<TaskScores> {
        by_task(input, &|all, own, task| {
            let weights = own.weights.as_ref()?;
            let (sums, count) = match self {
                Self::Taylor => (&weights.squares, all.batches),
                Self::BrainDamage => (&weights.by_sample, all.samples),
                Self::Snip => (&weights.magnitudes, all.batches),
            };
            known(&weights.is_known, task, sums, task, count)
        })
    }
}
