//! Criteria on what calibration found in whole activations: ranks of pictures, independence of channels.
//!
//! Both are means over samples, and over the positions of a channel where it has several.

use super::measured::{mean_over, score};
use super::{Criterion, ScoreInput};
use crate::Result;
use crate::calibration::Measure;

/// The measure that is averaged.
pub(super) struct OfMaps(pub(super) Measure);

impl Criterion for OfMaps {
    fn score(&self, input: &ScoreInput) -> Result<Vec<Vec<f64>>> {
        let samples = input.statistics.map_or(1, |statistics| statistics.samples.max(1)) as f64;
        score(input, &|_, places| {
            mean_over(places, |place| {
                let neighbours: usize = place.at.segments.iter().map(|s| s.outer * s.inner).sum();
                let count = samples * neighbours.max(1) as f64;
                Ok(place.sum(self.0)?.into_iter().map(|sum| sum / count).collect())
            })
        })
    }
}
