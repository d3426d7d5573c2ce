//! The largest weighted score: a channel is worth what it is to the task that needs it most.

use super::{Aggregation, Input};

pub(super) struct Max;

impl Aggregation for Max {
    fn combine(&self, input: &Input) -> Vec<Vec<f64>> {
        let larger = |said: &[(f64, f64)]| said.iter().map(|(score, weight)| score * weight).fold(f64::MIN, f64::max);
        input.per_channel(larger)
    }
}
