//! The weighted geometric mean: a channel that one task does not need at all is worth nothing. Scores below zero count
//! as zero.

use super::{Aggregation, Input};

pub(super) struct Geometric;

impl Aggregation for Geometric {
    fn combine(&self, input: &Input) -> Vec<Vec<f64>> {
        input.per_channel(|said| {
            let weight: f64 = said.iter().map(|(_, weight)| weight).sum();
            (said.iter().map(|(score, own)| own * score.max(0.0).ln()).sum::<f64>() / weight).exp()
        })
    }
}
