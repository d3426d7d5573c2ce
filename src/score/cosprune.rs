//! CosPrune (Garg et al., arXiv 2304.06840): channels on which the tasks agree stay longest. With g_t the gradient of task
//! t of all weights that make a channel, in one vector, the score is
//!
//! ```text
//! 2 / (T (T - 1)) · sum over pairs i < j of <g_i, g_j> / (|g_i| |g_j|)
//! ```
//!
//! mean over batches, from -1 to 1; the importance is 1 more, so that none is negative. A gradient of 0 agrees with none: its
//! cosine is 0. Groups that feed one task know no conflict, nor do those of which fewer than two gradients are known:
//! theirs is `taylor-weight` with a mean of 1, as if the tasks neither agreed nor disagreed.

use super::gradient::by_sum;
use super::{Criterion, ScoreInput};
use crate::Result;
use crate::aggregate::TaskScores;
use crate::gates::WeightGradients;
use crate::groups::Group;

pub(super) struct CosPrune;

impl Criterion for CosPrune {
    fn by_task(&self, input: &ScoreInput) -> Result<Option<TaskScores>> {
        scores(input).map(Some)
    }
}

fn scores(input: &ScoreInput) -> Result<TaskScores> {
    by_sum(input, &|all, own, group| {
        let weights = own.weights.as_ref()?;
        let is_known = |task: &usize| weights.is_known.get(*task).copied().unwrap_or(false);
        let tasks: Vec<usize> = group.tasks.iter().filter(is_known).collect();
        match tasks.as_slice() {
            [] => None,
            [task] => Some(alone(weights, *task)),
            tasks => Some(agreement(weights, group, tasks, all.batches)),
        }
    })
}

/// 1 more than the mean cosine over pairs of tasks and batches.
fn agreement(weights: &WeightGradients, group: &Group, tasks: &[usize], batches: f64) -> Vec<f64> {
    let all = weights.is_known.len();
    let mut sums = vec![0.0; group.extent];
    let mut pairs = 0.0;
    for (at, task) in tasks.iter().enumerate() {
        for other in tasks.iter().skip(at + 1) {
            pairs += 1.0;
            for (sum, cosine) in sums.iter_mut().zip(weights.cosines.get(task * all + other).into_iter().flatten()) {
                *sum += cosine;
            }
        }
    }
    let count = f64::max(1.0, batches * pairs);
    sums.iter().map(|sum| 1.0 + sum / count).collect()
}

/// Squares with a mean of 1.
fn alone(weights: &WeightGradients, task: usize) -> Vec<f64> {
    let squares = weights.squares.get(task).cloned().unwrap_or_default();
    let mean = squares.iter().sum::<f64>() / squares.len().max(1) as f64;
    let mean = if mean > 0.0 { mean } else { 1.0 };
    squares.iter().map(|square| square / mean).collect()
}
