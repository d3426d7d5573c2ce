//! The score mask, after the published description of One-Shot Pruning (arXiv 2307.04365): the weighted sum of masks.
//! One score mask serves every size: what a smaller model keeps is part of what a larger one keeps. The masks are those
//! of the neighbours, or those that the tasks of the model would choose each by itself.

use super::{Aggregation, Input, ranked};

/// Sums that differ by less, in parts of the largest of their group, are equal, so that 0.1 + 0.2 ties with 0.3.
const STEP: f64 = 1e-9;

pub(super) struct ScoreMask;

impl Aggregation for ScoreMask {
    fn combine(&self, input: &Input) -> Vec<Vec<f64>> {
        let round = |sums: Vec<f64>| {
            let largest = sums.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
            sums.into_iter().map(|sum| (sum / largest / STEP).round()).collect::<Vec<f64>>()
        };
        let sums = input.votes(|weight| weight).into_iter().map(round);
        sums.zip(input.mean()).map(|(sums, mean)| ranked(&sums, &mean)).collect()
    }
}
