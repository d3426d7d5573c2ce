//! Measured: groups joined with what calibration knows of them.
//!
//! Invariant: a group that is measured nowhere is scored by the squares of its weights, so that every criterion has a
//! number for every group.

use super::magnitude::Magnitude;
use super::{Criterion, ScoreInput};
use crate::calibration::{GroupTap, Measure, TapStatistics, Taps};
use crate::graph::ValueId;
use crate::groups::Group;
use crate::{Error, Result};

/// One place where a group is measured, and what was found there.
pub(super) struct Place<'s> {
    /// Where it is, and the weights that contract it.
    pub(super) at: GroupTap,
    /// The value that is tapped there.
    pub(super) value: ValueId,
    /// What is known of the tap.
    pub(super) tap: &'s TapStatistics,
}

impl Place<'_> {
    /// A summed measure, by channel.
    ///
    /// # Errors
    /// When it was not measured.
    pub(super) fn sum(&self, measure: Measure) -> Result<Vec<f64>> {
        self.tap.by_channel(measure, &self.at.segments).ok_or_else(|| lacking(self.tap, measure.name()))
    }

    /// The mean of what a measure sums up, by channel.
    ///
    /// # Errors
    /// When it was not measured.
    pub(super) fn mean(&self, measure: Measure) -> Result<Vec<f64>> {
        let count = self.tap.count_of(&self.at.segments).max(1.0);
        Ok(self.sum(measure)?.into_iter().map(|sum| sum / count).collect())
    }
}

/// The error of statistics that lack something.
pub(super) fn lacking(tap: &TapStatistics, what: &str) -> Error {
    Error::input(format!("the statistics lack the measure {what}"))
        .tensor(&tap.name)
        .axis(tap.axis)
        .help("measure anew with `calibrate` and this criterion")
}

/// What a group is worth, from the places where it is measured.
type Importance<'a> = dyn Fn(&Group, &[Place]) -> Result<Vec<f64>> + 'a;

/// Scores every group by `importance` of it and the places where it is measured.
///
/// # Errors
/// When there are no statistics, or they are not of this model, and the errors of `importance`.
pub(super) fn score(input: &ScoreInput, importance: &Importance) -> Result<Vec<Vec<f64>>> {
    let statistics = input.statistics.ok_or_else(|| Error::input("this criterion needs statistics of activations"))?;
    let taps = Taps::of(input.graph, input.coupling, input.groups);
    let place = |at: &GroupTap| {
        let tap = taps.taps.get(at.tap).ok_or_else(|| Error::input("a group is measured nowhere"))?;
        let known = statistics.tap(&tap.name, tap.axis).filter(|known| known.extent == tap.extent && known.count > 0);
        let known = known.ok_or_else(|| {
            let error = Error::input("the statistics do not cover the model").tensor(&tap.name).axis(tap.axis);
            error.help("measure anew with `calibrate` and the same options")
        })?;
        Ok(Place { at: at.clone(), value: tap.value, tap: known })
    };
    let mut fallback: Option<Vec<Vec<f64>>> = None;
    let mut places = Vec::with_capacity(input.groups.len());
    for (group, own) in input.groups.iter().zip(&taps.groups) {
        let own = if group.lock.is_some() { Vec::new() } else { own.iter().map(place).collect::<Result<Vec<_>>>()? };
        if own.is_empty() && group.lock.is_none() && fallback.is_none() {
            fallback = Some(Magnitude { power: 2, scales_only: false }.score(input)?);
        }
        places.push(own);
    }
    let fallback = fallback.unwrap_or_default();
    let score = |(index, (group, places)): (usize, (&Group, &Vec<Place>))| {
        if places.is_empty() {
            return Ok(fallback.get(index).cloned().unwrap_or_else(|| vec![0.0; group.extent]));
        }
        let scores = importance(group, places)?;
        if scores.len() == group.extent {
            return Ok(scores);
        }
        Err(Error::input(format!("group `{}` cannot be measured", group.name)).help("choose another criterion"))
    };
    input.groups.iter().zip(&places).enumerate().map(score).collect()
}

/// The mean over places.
pub(super) fn mean_over(places: &[Place], of: impl Fn(&Place) -> Result<Vec<f64>>) -> Result<Vec<f64>> {
    let mut total: Vec<f64> = Vec::new();
    for place in places {
        let own = of(place)?;
        total.resize(own.len(), 0.0);
        total.iter_mut().zip(own).for_each(|(total, own)| *total += own / places.len() as f64);
    }
    Ok(total)
}
