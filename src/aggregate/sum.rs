//! The weighted sum over the tasks that a group feeds: within a group the order of the mean, since every channel of a
//! group feeds the same tasks; between groups, what feeds more tasks counts more.

use super::{Aggregation, Input};

pub(super) struct Sum;

impl Aggregation for Sum {
    fn combine(&self, input: &Input) -> Vec<Vec<f64>> {
        input.per_channel(|said| said.iter().map(|(score, weight)| score * weight).sum())
    }
}
