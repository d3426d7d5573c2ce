//! Gathering: batches through the measuring model, results into [`Statistics`].
//!
//! Invariants: a batch gives the same numbers whoever runs it, so a run that was interrupted, or divided between
//! machines, ends with the same statistics; places that only fill up a batch do not count: what they add is measured by
//! a batch of nothing else and taken away.

use super::reductions::{Reductions, What, Wish, reductions};
use super::{Batch, Batches, Measure, Segment, Statistics, Sums, TapStatistics, Taps};
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
    reductions: Reductions,
    engine: &'a dyn Engine,
    /// Sessions for the shapes that were fed last; most runs have one, or two if the last batch is shorter.
    sessions: Vec<(Vec<InputFact>, Box<dyn Session>)>,
}

/// How many shapes of inputs sessions are kept for.
const SESSIONS: usize = 2;

impl<'a> Gathering<'a> {
    /// Prepares to measure `measures` at all taps of `model`, and, if asked for, the products of channels with one
    /// another. The model is the one that the taps were found in.
    pub fn new(
        model: &ModelProto,
        taps: &'a Taps,
        measures: &[Measure],
        moments: bool,
        engine: &'a dyn Engine,
    ) -> Self {
        let wish = Wish { measures: measures.iter().copied().collect(), moments };
        Self { taps, reductions: reductions(model, taps, &wish), engine, sessions: Vec::new() }
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
            let alone = repeated(&batch.feeds, size)?;
            let values = self.session(&alone)?.run(&alone)?;
            let share = batch.filler as f64 / size as f64;
            let whats = self.reductions.results.iter().map(|(_, what)| what);
            for ((number, filler), what) in numbers.iter_mut().zip(self.numbers(&values)?).zip(whats) {
                // A sample that is repeated changes no extreme.
                if matches!(what, What::Measure(measure) if measure.is_extreme()) {
                    continue;
                }
                number.iter_mut().zip(filler).for_each(|(number, filler)| *number -= share * filler);
            }
        }
        self.statistics(numbers)
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
        let pairs = self.reductions.results.iter().zip(values);
        pairs
            .map(|((tap, what), value)| {
                let Some(tap) = self.taps.taps.get(*tap) else { return Ok(Vec::new()) };
                let mut numbers = value.to_f64();
                let expected = match what {
                    What::Shape => {
                        let all: f64 = numbers.iter().product();
                        numbers = vec![all / tap.extent.max(1) as f64];
                        1
                    }
                    What::Measure(_) => tap.extent,
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
        for ((tap, what), numbers) in self.reductions.results.iter().zip(numbers) {
            let Some(tap) = taps.get_mut(*tap) else { continue };
            match what {
                What::Shape => tap.count = numbers.first().map_or(0, |n| n.round() as u64),
                What::Measure(measure) if measure.is_extreme() => _ = tap.extremes.insert(*measure, numbers),
                What::Measure(measure) => _ = tap.sums.insert(*measure, summed(&numbers)?),
                What::Moments(segments) => _ = tap.moments.insert(Segment::key(segments), summed(&numbers)?),
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

/// The upper triangle of a square matrix, row by row; its entries are the mean of both triangles.
fn upper_triangle(matrix: &[f64], size: usize) -> Vec<f64> {
    let at = |row: usize, column: usize| matrix.get(row * size + column).copied().unwrap_or(f64::NAN);
    (0..size).flat_map(|row| (row..size).map(move |column| (at(row, column) + at(column, row)) / 2.0)).collect()
}

/// The last place of the batch axis in all places.
fn repeated(feeds: &Feeds, size: usize) -> Result<Feeds> {
    let value = |value: &Value| match value.shape().first() {
        Some(extent) if *extent == size => value.select(0, &vec![size.saturating_sub(1); size]),
        _ => Ok(value.clone()),
    };
    feeds.iter().map(|(name, own)| Ok((name.clone(), value(own)?))).collect()
}
