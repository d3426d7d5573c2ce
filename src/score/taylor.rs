//! Taylor, first order, of gates: (dL/dz_k)², the square of the mean gradient of a batch, mean over batches (Molchanov et
//! al., arXiv 1906.10771, as the seed paper arXiv 2304.06840 uses it). The losses of tasks are squared one by one, or
//! summed up first, as the seed paper has it; then gradients of opposite signs cancel.

use super::gradient::{by_sum, by_task, known, summed};
use super::{Criterion, ScoreInput};
use crate::Result;
use crate::aggregate::TaskScores;

pub(super) struct Taylor {
    /// True if the losses are summed up before the gradient is squared.
    pub(super) summed: bool,
}

impl Criterion for Taylor {
    fn by_task(&self, input: &ScoreInput) -> Result<Option<TaskScores>> {
        self.scores(input).map(Some)
    }
}

impl Taylor {
    fn scores(&self, input: &ScoreInput) -> Result<TaskScores> {
        if self.summed {
            return by_sum(input, &|all, own, group| summed(group, &own.is_gated, &own.by_batch, all.batches));
        }
        by_task(input, &|all, own, task| {
            known(&own.is_gated, task, &own.by_batch, task * (all.tasks.len() + 1), all.batches)
        })
    }
}
