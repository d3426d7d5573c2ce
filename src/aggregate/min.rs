//! The smallest score divided by the task's weight: a channel is worth what it is to the task that needs it least. A
//! heavier task brings the quotient down and so decides more often; multiplied, it would decide less often.

use super::{Aggregation, Input};

pub(super) struct Min;

impl Aggregation for Min {
    fn combine(&self, input: &Input) -> Vec<Vec<f64>> {
        let smaller = |said: &[(f64, f64)]| said.iter().map(|(score, weight)| score / weight).fold(f64::MAX, f64::min);
        input.per_channel(smaller)
    }
}
