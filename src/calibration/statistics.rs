//! Statistics: what was measured at the taps of a model, summed over batches.
//!
//! Invariants: everything merges, and neither the order of batches nor the way they were divided between runs shows in
//! the result, bit by bit; a batch counts once; `count` is the number of values behind each position of a tap.

use std::collections::{BTreeMap, BTreeSet};

use super::{Measure, Segment, Sums, Taps};
use crate::{Error, Result};

/// What is known of a model's taps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// How many samples were seen.
    pub samples: u64,
    /// The batches that were seen, by their numbers in the whole run.
    pub batches: BTreeSet<usize>,
    /// The taps, in the order of the model's nodes.
    pub taps: Vec<TapStatistics>,
}

/// What is known of one tap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TapStatistics {
    /// The name of the value.
    pub name: String,
    /// The axis that holds channels.
    pub axis: usize,
    /// Its extent.
    pub extent: usize,
    /// How many values were seen at each position.
    pub count: u64,
    /// What is added, by measure: one sum per position.
    pub sums: BTreeMap<Measure, Sums>,
    /// What is compared, by measure: one number per position.
    pub extremes: BTreeMap<Measure, Vec<f64>>,
    /// Products of channels with one another, by the key of the segments in which they lie: the upper triangle of the
    /// matrix, row by row.
    pub moments: BTreeMap<String, Sums>,
    /// The mean of every position in one sample, by the number of the sample; the first [`FEATURES`] of those seen.
    pub features: BTreeMap<usize, Vec<f32>>,
}

/// Of how many samples means are kept one by one.
pub const FEATURES: usize = 512;

impl Statistics {
    /// Statistics of nothing, for these taps.
    pub fn empty(taps: &Taps) -> Self {
        let tap = |tap: &super::Tap| TapStatistics {
            name: tap.name.clone(),
            axis: tap.axis,
            extent: tap.extent,
            ..TapStatistics::default()
        };
        Self { taps: taps.taps.iter().map(tap).collect(), ..Self::default() }
    }

    /// The statistics of a tap, if it was measured.
    pub fn tap(&self, name: &str, axis: usize) -> Option<&TapStatistics> {
        self.taps.iter().find(|tap| tap.name == name && tap.axis == axis)
    }

    /// Adds what was measured on other batches.
    ///
    /// # Errors
    /// When a batch is in both, or they measured different taps or different things there.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if let Some(batch) = self.batches.intersection(&other.batches).next() {
            return Err(Error::input(format!("batch {batch} is in both statistics")).help("merge every part once"));
        }
        let place = |tap: &TapStatistics| (tap.name.clone(), tap.axis, tap.extent);
        if !self.taps.iter().map(place).eq(other.taps.iter().map(place)) {
            return Err(Error::input("the statistics are of different values").help("merge parts of one calibration"));
        }
        for (tap, other) in self.taps.iter_mut().zip(&other.taps) {
            tap.merge(other).map_err(|e| e.tensor(&tap.name))?;
        }
        self.samples = self.samples.saturating_add(other.samples);
        self.batches.extend(&other.batches);
        Ok(())
    }
}

impl TapStatistics {
    /// Adds what was measured of the same tap.
    pub(super) fn merge(&mut self, other: &Self) -> Result<()> {
        let different = || Error::input("the statistics measured different things");
        if other.count == 0 {
            return Ok(());
        }
        if self.count == 0 {
            (self.count, self.sums) = (other.count, other.sums.clone());
            (self.extremes, self.moments) = (other.extremes.clone(), other.moments.clone());
            self.features = other.features.clone();
            return Ok(());
        }
        if !self.sums.keys().eq(other.sums.keys())
            || !self.extremes.keys().eq(other.extremes.keys())
            || !self.moments.keys().eq(other.moments.keys())
            || self.features.is_empty() != other.features.is_empty()
        {
            return Err(different());
        }
        self.count = self.count.saturating_add(other.count);
        for (measure, sums) in &mut self.sums {
            sums.merge(other.sums.get(measure).ok_or_else(different)?)?;
        }
        for (key, sums) in &mut self.moments {
            sums.merge(other.moments.get(key).ok_or_else(different)?)?;
        }
        for (sample, means) in &other.features {
            self.features.insert(*sample, means.clone());
        }
        while self.features.len() > FEATURES {
            self.features.pop_last();
        }
        for (measure, numbers) in &mut self.extremes {
            let others = other.extremes.get(measure).filter(|o| o.len() == numbers.len()).ok_or_else(different)?;
            for (number, other) in numbers.iter_mut().zip(others) {
                *number = if *measure == Measure::Minimum { number.min(*other) } else { number.max(*other) };
            }
        }
        Ok(())
    }

    /// A summed measure by channel, for the channels in `segments`: all positions of a channel together. `None` if it
    /// was not measured.
    pub fn by_channel(&self, measure: Measure, segments: &[Segment]) -> Option<Vec<f64>> {
        let sums = self.sums.get(&measure)?.values();
        let mut totals = vec![0.0; segments.first()?.channels];
        for (position, channel) in segments.iter().flat_map(Segment::positions) {
            *totals.get_mut(channel)? += sums.get(position)?;
        }
        Some(totals)
    }

    /// How many values were seen of each channel in `segments`.
    pub fn count_of(&self, segments: &[Segment]) -> f64 {
        let positions: usize = segments.iter().map(|s| s.outer.saturating_mul(s.inner)).sum();
        self.count as f64 * positions as f64
    }
}
