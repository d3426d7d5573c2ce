//! Gathering: batches through the measuring model, results into [`Statistics`].
//!
//! Invariants: a batch gives the same numbers whoever runs it, so a run that was interrupted, or divided between
//! machines, ends with the same statistics; places that only fill up a batch do not count: what they add is measured by
//! a batch of nothing else and taken away.

use super::maps::Maps;
use super::reductions::{Reduced, Reductions, What, reductions};
use super::{Batch, Batches, Measure, Segment, Statistics, Sums, Tap, TapStatistics, Taps, Wish};
use crate::engine::{Engine, Feeds, InputFact, Session, Value, facts_of};
use crate::proto::onnx::ModelProto;
use crate::{Error, Result};

/// Which batches a run takes: those whose number leaves `index` when divided by `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0 to below `count`.
    pub index: usize,
    /// At least 1.
    pub count: usize,
}

impl Shard {
    /// All batches.
    pub const ALL: Self = Self { index: 0, count: 1 };

    /// True if the batch belongs to this shard.
    pub fn has(&self, batch: usize) -> bool {
        batch % self.count.max(1) == self.index
    }
}

/// A model ready to be measured.
pub struct Gathering<'a> {
    taps: &'a Taps,
    wish: Wish,
    reductions: Reductions,
    engine: &'a dyn Engine,
    /// Sessions for the shapes that were fed last; most runs have one, or two if the last batch is shorter.
    sessions: Vec<(Vec<InputFact>, Box<dyn Session>)>,
    /// Whether the samples of a batch were seen to come first where they are told apart.
    is_ordered: bool,
}

/// How many shapes of inputs sessions are kept for.
const SESSIONS: usize = 2;

impl<'a> Gathering<'a> {
    /// Prepares to measure what is wished for at all taps of `model`, which is the model that they were found in.
    pub fn new(model: &ModelProto, taps: &'a Taps, wish: &Wish, engine: &'a dyn Engine) -> Self {
        let reductions = reductions(model, taps, wish);
        Self { taps, wish: wish.clone(), reductions, engine, sessions: Vec::new(), is_ordered: false }
    }

    /// Runs the batches of a shard that `statistics` lacks, one after the other; `after` is called behind each.
    ///
    /// # Errors
    /// A batch that cannot be read, a model that does not run, values that are not finite, and what `after` returns.
    pub fn run(
        &mut self,
        batches: &dyn Batches,
        shard: Shard,
        statistics: &mut Statistics,
        after: &mut dyn FnMut(&Statistics) -> Result<()>,
    ) -> Result<()> {
        if self.taps.taps.is_empty() {
            return Err(Error::input("no channel of the model can be measured").help("`inspect` shows what keeps them"));
        }
        for number in (0..batches.len()).filter(|number| shard.has(*number)) {
            if statistics.batches.contains(&number) {
                continue;
            }
            let batch = batches.batch(number)?;
            let measured = self.batch(&batch)?;
            let samples = u64::try_from(batch.samples.len()).unwrap_or(u64::MAX);
            statistics.merge(&Statistics { samples, batches: [number].into(), taps: measured })?;
            after(statistics)?;
        }
        Ok(())
    }

    /// What one batch says.
    fn batch(&mut self, batch: &Batch) -> Result<Vec<TapStatistics>> {
        let values = self.session(&batch.feeds)?.run(&batch.feeds)?;
        let mut numbers = self.numbers(&values)?;
        if batch.filler > 0 {
            let size = batch.samples.len().saturating_add(batch.filler);
            let alone = reordered(&batch.feeds, &vec![size.saturating_sub(1); size])?;
            let values = self.session(&alone)?.run(&alone)?;
            let share = batch.filler as f64 / size as f64;
            let results = &self.reductions.results;
            for ((number, filler), result) in numbers.iter_mut().zip(self.numbers(&values)?).zip(results) {
                // A sample that is repeated changes no extreme, and samples that are told apart are left out below.
                let is_summed = match &result.what {
                    What::Measure(measure) => !measure.is_extreme(),
                    What::Shape | What::Mean(_) | What::Magnitude(_) | What::Moments(_) => true,
                    What::Features | What::Maps => false,
                };
                if is_summed {
                    number.iter_mut().zip(filler).for_each(|(number, filler)| *number -= share * filler);
                }
            }
        }
        self.check_order(batch, &values)?;
        let mut taps = self.statistics(numbers)?;
        for Reduced { tap: index, what, value } in &self.reductions.results {
            if let (Some(tap), Some(into), Some(value)) =
                (self.taps.taps.get(*index), taps.get_mut(*index), values.get(*value))
                && matches!(what, What::Features | What::Maps)
            {
                self.samples(tap, what, value, batch, into).map_err(|e| e.tensor(&tap.name).axis(tap.axis))?;
            }
        }
        Ok(taps)
    }

    /// Looks once whether samples that change their places in a batch do so in what is worked out sample by sample. Shapes
    /// alone do not show it, because a sequence may be as long as the batch.
    fn check_order(&mut self, batch: &Batch, values: &[Value]) -> Result<()> {
        let size = batch.samples.len().saturating_add(batch.filler);
        let is_apart = |what: &What| matches!(what, What::Features | What::Maps);
        if self.is_ordered || size < 2 || !self.reductions.results.iter().any(|reduced| is_apart(&reduced.what)) {
            return Ok(());
        }
        let order: Vec<usize> = (1..size).chain([0]).collect();
        let feeds = reordered(&batch.feeds, &order)?;
        let others = self.session(&feeds)?.run(&feeds)?;
        for Reduced { tap: index, what, value } in &self.reductions.results {
            if is_apart(what)
                && let (Some(value), Some(other)) = (values.get(*value), others.get(*value))
                && value.shape().first() == Some(&size)
                && !is_near(&value.select(0, &order)?.to_f64(), &other.to_f64())
                && let Some(tap) = self.taps.taps.get(*index)
            {
                return Err(unordered().tensor(&tap.name).axis(tap.axis));
            }
        }
        self.is_ordered = true;
        Ok(())
    }

    /// What is worked out sample by sample: `value` has the samples first and the tapped axis second.
    fn samples(&self, tap: &Tap, what: &What, value: &Value, batch: &Batch, into: &mut TapStatistics) -> Result<()> {
        let shape = value.shape();
        let places = batch.samples.len().saturating_add(batch.filler);
        let is_alone = places == 1;
        if !is_alone && (shape.first() != Some(&places) || tap.axis == 0) {
            return Err(unordered());
        }
        let numbers = value.to_f64();
        let inner: usize = shape.iter().skip(2).product();
        let per_place = tap.extent.saturating_mul(inner);
        let mut sums: [Vec<f64>; 2] = [vec![0.0; tap.extent], vec![0.0; tap.extent]];
        for (place, sample) in batch.samples.iter().enumerate() {
            let own = numbers.get(place * per_place..(place + 1) * per_place).unwrap_or_default();
            let (values, height) = if is_alone {
                // Whatever the first axis is, all of it belongs to the one sample.
                let count = shape.first().copied().unwrap_or(1);
                (gathered(&numbers, count, tap.extent, inner), if count > 1 { count } else { shape_at(shape, 2) })
            } else {
                (own.to_vec(), shape_at(shape, 2))
            };
            let all = values.len() / tap.extent.max(1);
            if matches!(what, What::Features) {
                let mean = |row: &[f64]| (row.iter().sum::<f64>() / row.len().max(1) as f64) as f32;
                into.features.insert(*sample, values.chunks(all.max(1)).map(mean).collect());
                continue;
            }
            let maps = Maps { values, rows: tap.extent, height, width: all / height.max(1) };
            for (measure, sums) in [Measure::Ranks, Measure::Independence].iter().zip(&mut sums) {
                if self.wish.measures.contains(measure) {
                    let found = if *measure == Measure::Ranks { maps.ranks()? } else { maps.independence()? };
                    sums.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
                }
            }
        }
        if matches!(what, What::Maps) {
            for (measure, sums) in [Measure::Ranks, Measure::Independence].into_iter().zip(&sums) {
                if self.wish.measures.contains(&measure) {
                    into.sums.insert(measure, summed(sums)?);
                }
            }
        }
        Ok(())
    }

    fn session(&mut self, feeds: &Feeds) -> Result<&dyn Session> {
        let facts = facts_of(feeds);
        if let Some(at) = self.sessions.iter().position(|(known, _)| *known == facts) {
            let known = self.sessions.remove(at);
            self.sessions.push(known);
        } else {
            if self.sessions.len() >= SESSIONS {
                self.sessions.remove(0);
            }
            let session = self.engine.open(&self.reductions.model, &facts, &self.reductions.wanted)?;
            self.sessions.push((facts, session));
        }
        let last = self.sessions.last().map(|(_, session)| session.as_ref());
        last.ok_or_else(|| Error::engine("no session is open"))
    }

    /// The fetched values as numbers, checked; the extents of a tap as the number of values behind each position.
    fn numbers(&self, values: &[Value]) -> Result<Vec<Vec<f64>>> {
        let fetched = |value: usize| {
            let value = values.get(value).map(Value::to_f64);
            value.ok_or_else(|| Error::engine("the engine returned fewer values than it was asked for"))
        };
        // Of the tap at hand; its shape comes before all else of it.
        let mut behind_second = 1.0;
        let results = self.reductions.results.iter();
        results
            .map(|Reduced { tap, what, value }| {
                let Some(tap) = self.taps.taps.get(*tap) else { return Ok(Vec::new()) };
                if matches!(what, What::Features | What::Maps) {
                    return Ok(Vec::new());
                }
                let mut numbers = fetched(*value)?;
                let expected = match what {
                    What::Shape => {
                        let all: f64 = numbers.iter().product();
                        behind_second = numbers.iter().skip(2).product();
                        numbers = vec![all / tap.extent.max(1) as f64];
                        1
                    }
                    What::Mean(_) => {
                        numbers = over_samples(&numbers, tap.extent, behind_second);
                        tap.extent
                    }
                    What::Magnitude(means) => {
                        let positive = over_samples(&numbers, tap.extent, 2.0 * behind_second);
                        let all = over_samples(&fetched(*means)?, tap.extent, behind_second);
                        numbers = positive.iter().zip(&all).map(|(positive, all)| positive - all).collect();
                        tap.extent
                    }
                    What::Measure(_) | What::Features | What::Maps => tap.extent,
                    What::Moments(segments) => {
                        let channels = segments.first().map_or(0, |s| s.channels);
                        numbers = upper_triangle(&numbers, channels);
                        channels.saturating_mul(channels.saturating_add(1)) / 2
                    }
                };
                let wrong = |what: String| Err(Error::engine(what).tensor(&tap.name).axis(tap.axis));
                if numbers.len() != expected {
                    return wrong(format!("{} numbers were measured where {expected} belong", numbers.len()));
                }
                if numbers.iter().any(|n| !n.is_finite()) {
                    return wrong("the model computes what is not finite, which cannot be summed up".to_owned());
                }
                Ok(numbers)
            })
            .collect()
    }

    fn statistics(&self, numbers: Vec<Vec<f64>>) -> Result<Vec<TapStatistics>> {
        let mut taps = Statistics::empty(self.taps).taps;
        for (result, numbers) in self.reductions.results.iter().zip(numbers) {
            let Some(tap) = taps.get_mut(result.tap) else { continue };
            match &result.what {
                What::Shape => tap.count = numbers.first().map_or(0, |n| n.round() as u64),
                What::Measure(measure) if measure.is_extreme() => _ = tap.extremes.insert(*measure, numbers),
                What::Measure(measure) | What::Mean(measure) => _ = tap.sums.insert(*measure, summed(&numbers)?),
                What::Magnitude(_) => _ = tap.sums.insert(Measure::Absolute, summed(&numbers)?),
                What::Moments(segments) => _ = tap.moments.insert(Segment::key(segments), summed(&numbers)?),
                What::Features | What::Maps => {}
            }
        }
        Ok(taps)
    }
}

fn summed(numbers: &[f64]) -> Result<Sums> {
    let mut sums = Sums::zero(numbers.len());
    sums.add(numbers)?;
    Ok(sums)
}

/// Means of samples by position, summed up and turned into sums of the `count` values behind each; all of one extent.
fn over_samples(means: &[f64], extent: usize, count: f64) -> Vec<f64> {
    let mut sums = vec![0.0; extent];
    let (samples, rest) = (means.chunks_exact(extent.max(1)), means.len() % extent.max(1));
    if rest > 0 {
        return Vec::new();
    }
    samples.for_each(|sample| sums.iter_mut().zip(sample).for_each(|(sum, mean)| *sum += count * mean));
    sums
}

/// The upper triangle of a square matrix, row by row; its entries are the mean of both triangles.
fn upper_triangle(matrix: &[f64], size: usize) -> Vec<f64> {
    let at = |row: usize, column: usize| matrix.get(row * size + column).copied().unwrap_or(f64::NAN);
    (0..size).flat_map(|row| (row..size).map(move |column| (at(row, column) + at(column, row)) / 2.0)).collect()
}

fn shape_at(shape: &[usize], axis: usize) -> usize {
    shape.get(axis).copied().unwrap_or(1)
}

/// `count × extent × inner` numbers with `extent` as their first axis.
fn gathered(numbers: &[f64], count: usize, extent: usize, inner: usize) -> Vec<f64> {
    let run = |row: usize, place: usize| {
        let start = (place * extent + row) * inner;
        numbers.get(start..start + inner).unwrap_or_default()
    };
    (0..extent).flat_map(|row| (0..count).flat_map(move |place| run(row, place).iter().copied())).collect()
}

fn unordered() -> Error {
    Error::input("the first axis of an activation does not count the samples of a batch")
        .help("measure with --batch-size 1, or choose a criterion that does not tell samples apart")
}

/// True if two lists of numbers are the same but for rounding.
fn is_near(left: &[f64], right: &[f64]) -> bool {
    let length = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>().sqrt();
    let difference = length(&mut left.iter().zip(right).map(|(l, r)| l - r));
    left.len() == right.len() && difference <= 1e-2 * length(&mut left.iter().copied())
}

/// A batch with what is at these of its places, as many as it has.
fn reordered(feeds: &Feeds, places: &[usize]) -> Result<Feeds> {
    let value = |value: &Value| match value.shape().first() {
        Some(extent) if *extent == places.len() => value.select(0, places),
        _ => Ok(value.clone()),
    };
    feeds.iter().map(|(name, own)| Ok((name.clone(), value(own)?))).collect()
}
