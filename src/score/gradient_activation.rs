//! Gradient times activation, value by value: the mean of |a · dL/da| over samples and positions, summed over the places
//! where a channel is contracted. Other than with gates, positions cannot cancel one another.

use super::gradient::{by_task, known};
use super::{Criterion, ScoreInput};
use crate::Result;
use crate::aggregate::TaskScores;

pub(super) struct GradientActivation;

impl Criterion for GradientActivation {
    fn by_task(&self, input: &ScoreInput) -> Result<Option<TaskScores>> {
        scores(input).map(Some)
    }
}

fn scores(input: &ScoreInput) -> Result<TaskScores> {
    by_task(input, &|all, own, task| known(&own.is_gated, task, &own.activations, task, all.samples))
}
