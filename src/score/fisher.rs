//! Fisher: the mean over samples of (dL_n/dz_k)², the gradients of all places of a channel summed before they are squared
//! (Liu et al., arXiv 2108.00708). With the loss `probe` this is Gauss-Newton, with `sampled` the Fisher information, with
//! labels the empirical one. Not divided by what a channel costs: that is the same for all channels of a group.

use super::gradient::{by_sum, by_task, known, summed};
use super::{Criterion, ScoreInput};
use crate::Result;
use crate::aggregate::TaskScores;

pub(super) struct Fisher {
    /// True if the losses are summed up before the gradient is squared.
    pub(super) summed: bool,
}

impl Criterion for Fisher {
    fn by_task(&self, input: &ScoreInput) -> Result<Option<TaskScores>> {
        self.scores(input).map(Some)
    }
}

impl Fisher {
    pub(super) fn scores(&self, input: &ScoreInput) -> Result<TaskScores> {
        if self.summed {
            return by_sum(input, &|all, own, group| summed(group, &own.is_gated, &own.by_sample, all.samples));
        }
        by_task(input, &|all, own, task| {
            known(&own.is_gated, task, &own.by_sample, task * (all.tasks.len() + 1), all.samples)
        })
    }
}
