//! The weighted mean over the tasks that a group feeds.

use super::{Aggregation, Input};

pub(super) struct Mean;

impl Aggregation for Mean {
    fn combine(&self, input: &Input) -> Vec<Vec<f64>> {
        input.mean()
    }
}

/// The mean of scores with weights, of which at least one is above zero.
pub(super) fn of(said: &[(f64, f64)]) -> f64 {
    let weight: f64 = said.iter().map(|(_, weight)| weight).sum();
    said.iter().map(|(score, own)| score * own).sum::<f64>() / weight
}
