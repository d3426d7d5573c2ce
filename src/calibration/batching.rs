//! Batches: samples picked, checked, cast to the types of a model and stacked along its batch axis.
//!
//! Invariants: the same options pick the same samples on every machine; the batches of all shards together are those of
//! one run without shards; NaN reaches no model.

use std::ops::Range;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;

use super::fit::{Slot, Way};
use super::{Batch, Batches, Source};
use crate::engine::Feeds;
use crate::engine::inputs::declared_inputs;
use crate::engine::samples::concatenate;
use crate::proto::onnx::ModelProto;
use crate::{Error, Result};

/// Which samples are taken, and how many at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeederOptions {
    /// Samples per run where the model leaves the batch open. A fixed batch of the model wins.
    pub batch_size: usize,
    /// How many samples are passed over first, in the shuffled order: what another feeder has taken.
    pub skip: usize,
    /// The most samples that are taken.
    pub max_samples: Option<usize>,
    /// The seed of the order; `None` keeps that of the files.
    pub shuffle: Option<u64>,
    /// Of so many shards (second number) the one with this number, counted from 1.
    pub shard: (usize, usize),
}

impl Default for FeederOptions {
    fn default() -> Self {
        Self { batch_size: 32, skip: 0, max_samples: None, shuffle: None, shard: (1, 1) }
    }
}

/// Feeds a model with the samples of a source.
pub struct Feeder {
    source: Arc<dyn Source>,
    slots: Vec<Slot>,
    /// The samples of this shard, in the order of batches.
    picked: Vec<usize>,
    /// Samples per batch; the last one may hold fewer.
    per_batch: usize,
    /// Places of the batch axis, where the model fixes them.
    places: Option<usize>,
}

impl Feeder {
    /// Looks at the first sample to learn how samples become inputs. An input of the same rank as its sample takes it
    /// whole, as does one of rank 0; then every batch holds one sample. Other inputs are stacked along their first
    /// axis.
    ///
    /// # Errors
    /// When no sample is left, the shard does not exist, inputs fix different batches, or the first sample does not fit.
    pub fn new(source: Arc<dyn Source>, model: &ModelProto, options: &FeederOptions) -> Result<Self> {
        let (shard, shards) = options.shard;
        if shard == 0 || shard > shards {
            return Err(Error::input(format!("there is no shard {shard} of {shards}")).help("count them from 1"));
        }
        let order = order(source.len(), options)?;
        let first = order.first().copied().unwrap_or(0);
        let feeds = source.sample(first).map_err(|e| numbered(e, first))?;
        let slots = declared_inputs(model)?
            .into_iter()
            .map(|input| Slot::new(input, &feeds).map_err(|e| place_of(e, source.as_ref(), first)))
            .collect::<Result<Vec<_>>>()?;
        let places = fixed_batch(&slots)?;
        let one_by_one = slots.iter().any(|slot| slot.way == Way::Whole);
        let per_batch = if one_by_one { 1 } else { places.unwrap_or(options.batch_size) };
        if per_batch == 0 {
            return Err(Error::input("a batch of 0 samples is none").help("give a batch size of 1 or more"));
        }
        // Shards are made of whole batches, so that the same sums are formed however the work is spread.
        let batches = order.len().div_ceil(per_batch);
        let [from, to] = [shard - 1, shard].map(|n| share(batches, n, shards).saturating_mul(per_batch));
        let picked = order.get(from..to.min(order.len())).unwrap_or_default().to_vec();
        Ok(Self { source, slots, picked, per_batch, places })
    }

    /// The numbers of the samples in the source, in the order in which they are fed.
    pub fn picked(&self) -> &[usize] {
        &self.picked
    }

    /// The samples of one batch, as places in `picked`.
    fn range(&self, index: usize) -> Range<usize> {
        let start = index.saturating_mul(self.per_batch).min(self.picked.len());
        start..start.saturating_add(self.per_batch).min(self.picked.len())
    }

    /// One sample, with its values in the order of the inputs.
    fn sample(&self, index: usize) -> Result<Feeds> {
        let feeds = self.source.sample(index).map_err(|e| numbered(e, index))?;
        let fit = |slot: &Slot| Ok((slot.input.name.clone(), slot.fit(&feeds)?));
        let fitted: Result<Feeds> = self.slots.iter().map(fit).collect();
        fitted.map_err(|e| place_of(e, self.source.as_ref(), index))
    }
}

impl Batches for Feeder {
    fn len(&self) -> usize {
        self.picked.len().div_ceil(self.per_batch)
    }

    fn samples(&self) -> usize {
        self.picked.len()
    }

    fn batch(&self, index: usize) -> Result<Batch> {
        let samples = self.picked.get(self.range(index)).unwrap_or_default().to_vec();
        if samples.is_empty() {
            return Err(Error::input(format!("there is no batch {index}, only {}", self.len())));
        }
        // Decoding of pictures is worth several threads. The error of the first bad sample is the one reported.
        let read: Vec<Result<Feeds>> = samples.par_iter().map(|sample| self.sample(*sample)).collect();
        let mut rows = read.into_iter().collect::<Result<Vec<_>>>()?;
        let filler = self.places.map_or(0, |places| places.saturating_sub(samples.len()));
        let mut feeds = Vec::with_capacity(self.slots.len());
        // From the last input to the first, because the last value of a row comes off without moving the others.
        for slot in self.slots.iter().rev() {
            let mut values = Vec::with_capacity(samples.len());
            for (row, sample) in rows.iter_mut().zip(&samples) {
                let Some((_, value)) = row.pop() else { return Err(Error::input(format!("sample {sample} is lost"))) };
                values.push(value);
            }
            let value = match slot.way {
                Way::Whole => values.pop().ok_or_else(|| Error::input("a batch without samples"))?,
                Way::Stacked => {
                    if let Some(last) = values.last().cloned() {
                        values.extend(std::iter::repeat_n(last, filler));
                    }
                    concatenate(&values).map_err(|e| {
                        let what = format!("samples {samples:?} differ in shape and cannot form a batch");
                        Error::input(what).tensor(&slot.input.name).because(e).help("give a batch size of 1")
                    })?
                }
            };
            feeds.push((slot.input.name.clone(), value));
        }
        feeds.reverse();
        Ok(Batch { feeds, samples, filler })
    }
}

/// All picked samples of all shards, in order.
fn order(len: usize, options: &FeederOptions) -> Result<Vec<usize>> {
    let mut order: Vec<usize> = (0..len).collect();
    if let Some(seed) = options.shuffle {
        shuffle(&mut order, seed);
    }
    let order: Vec<usize> =
        order.into_iter().skip(options.skip).take(options.max_samples.unwrap_or(usize::MAX)).collect();
    if order.is_empty() {
        let what = match len {
            0 => "the data holds no samples".to_string(),
            _ => format!("no sample is left of {len}, {} are passed over", options.skip),
        };
        return Err(Error::input(what).help("give more data, or take fewer samples before"));
    }
    Ok(order)
}

/// Fisher and Yates, from the end. Numbers are drawn without bias by drawing again what lies in the last, incomplete
/// part of the range.
fn shuffle(order: &mut [usize], seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for last in (1..order.len()).rev() {
        let bound = last as u64 + 1;
        let most = u64::MAX - u64::MAX % bound;
        let drawn = loop {
            let drawn = random.next_u64();
            if drawn < most {
                break drawn % bound;
            }
        };
        order.swap(last, drawn as usize);
    }
}

/// Where share `n` of `shares` ends when `all` things are dealt out evenly, in order.
fn share(all: usize, n: usize, shares: usize) -> usize {
    let end = (all as u128).saturating_mul(n as u128) / (shares.max(1) as u128);
    usize::try_from(end).unwrap_or(all)
}

/// The batch that stacked inputs fix.
fn fixed_batch(slots: &[Slot]) -> Result<Option<usize>> {
    let mut fixed: Option<(&Slot, usize)> = None;
    for slot in slots {
        let Some(batch) = slot.fixed_batch() else { continue };
        let (other, expected) = *fixed.get_or_insert((slot, batch));
        if batch != expected {
            let what = format!("takes batches of {batch}, but `{}` those of {expected}", other.input.name);
            let error = Error::input(what).tensor(&slot.input.name);
            return Err(error.help("give it samples of the whole shape of the input"));
        }
    }
    Ok(fixed.map(|(_, batch)| batch))
}

/// Says which sample an error is about, and which file it comes from.
fn place_of(error: Error, source: &dyn Source, sample: usize) -> Error {
    let error = numbered(error, sample);
    match source.file(sample) {
        Some(file) => error.file(file),
        None => error,
    }
}

/// Says which sample an error of the source is about, which names its file itself.
fn numbered(error: Error, sample: usize) -> Error {
    error.prefix(format!("sample {sample}: "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::engine::inputs::tests::model_with_inputs;
    use crate::engine::value::from_vec;
    use crate::engine::{ElementType, Value};

    /// Samples in memory.
    struct Rows(Vec<Feeds>);

    impl Source for Rows {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn sample(&self, index: usize) -> Result<Feeds> {
            Ok(self.0[index].clone())
        }
    }

    fn floats(shape: &[usize], data: &[f32]) -> Value {
        from_vec(shape, data.to_vec()).unwrap().into()
    }

    /// Samples [0, 0.5], [1, 1.5], … of an input `x`.
    fn counted(n: usize) -> Arc<dyn Source> {
        let row = |i: usize| vec![("x".to_string(), floats(&[2], &[i as f32, i as f32 + 0.5]))];
        Arc::new(Rows((0..n).map(row).collect()))
    }

    fn model(batch: &str) -> ModelProto {
        model_with_inputs(&[("x", ElementType::Float, Some(&[batch, "2"]))])
    }

    fn of(batch_size: usize) -> FeederOptions {
        FeederOptions { batch_size, ..FeederOptions::default() }
    }

    #[test]
    fn open_batches_end_short_and_fixed_ones_are_filled_up() {
        let feeder = Feeder::new(counted(5), &model("n"), &of(2)).unwrap();
        assert_eq!((feeder.len(), feeder.samples()), (3, 5));
        let last = feeder.batch(2).unwrap();
        assert_eq!((last.samples, last.filler), (vec![4], 0));
        assert_eq!((last.feeds[0].1.shape(), last.feeds[0].1.to_f64()), (&[1, 2][..], vec![4.0, 4.5]));
        assert!(feeder.batch(3).unwrap_err().to_string().contains("no batch 3, only 3"));

        let feeder = Feeder::new(counted(5), &model("3"), &of(2)).unwrap();
        assert_eq!((feeder.len(), feeder.samples()), (2, 5));
        let last = feeder.batch(1).unwrap();
        assert_eq!((&last.samples[..], last.filler), (&[3, 4][..], 1));
        assert_eq!(last.feeds[0].1.to_f64(), [3.0, 3.5, 4.0, 4.5, 4.0, 4.5]);
        assert_eq!(last.feeds[0].1.shape(), [3, 2]);
        assert_eq!(feeder.batch(0).unwrap().filler, 0);
        assert!(Feeder::new(counted(5), &model("n"), &of(0)).is_err());
    }

    #[test]
    fn shards_are_the_batches_of_one_run() {
        let whole = FeederOptions { shuffle: Some(7), max_samples: Some(17), ..of(2) };
        let feeder = Feeder::new(counted(20), &model("n"), &whole).unwrap();
        let all: Vec<Batch> = (0..feeder.len()).map(|n| feeder.batch(n).unwrap()).collect();
        let mut parts = Vec::new();
        for shard in 1..=4 {
            let feeder = Feeder::new(counted(20), &model("n"), &FeederOptions { shard: (shard, 4), ..whole.clone() });
            let feeder = feeder.unwrap();
            assert!([2, 3].contains(&feeder.len()));
            parts.extend((0..feeder.len()).map(|n| feeder.batch(n).unwrap()));
        }
        assert_eq!(parts, all);
        assert!(Feeder::new(counted(2), &model("n"), &FeederOptions { shard: (5, 4), ..of(2) }).is_err());
        let empty = Feeder::new(counted(2), &model("n"), &FeederOptions { shard: (1, 4), ..of(2) }).unwrap();
        assert!(empty.is_empty() && empty.samples() == 0);
    }

    #[test]
    fn the_order_depends_on_the_seed_alone_and_what_is_passed_over_does_not_come_again() {
        let picked = |seed, skip, most| {
            let options = FeederOptions { shuffle: seed, skip, max_samples: most, ..of(4) };
            Feeder::new(counted(12), &model("n"), &options).map(|f| f.picked().to_vec())
        };
        assert_eq!(picked(None, 0, None).unwrap(), (0..12).collect::<Vec<_>>());
        let all = picked(Some(1), 0, None).unwrap();
        assert_eq!(all, picked(Some(1), 0, None).unwrap());
        assert_ne!(all, picked(Some(2), 0, None).unwrap());
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..12).collect::<Vec<_>>());
        assert_eq!(picked(Some(1), 0, Some(5)).unwrap(), all[..5]);
        assert_eq!(picked(Some(1), 5, None).unwrap(), all[5..]);
        assert!(picked(None, 12, None).unwrap_err().to_string().contains("no sample is left of 12"));
        let none = Feeder::new(counted(0), &model("n"), &of(1)).err().unwrap().to_string();
        assert!(none.contains("the data holds no samples"), "{none}");
    }

    #[test]
    fn whole_inputs_come_one_at_a_time() {
        let row = |n: f32| {
            vec![
                ("image".to_string(), floats(&[1], &[n])),
                ("state".to_string(), floats(&[2, 1, 1], &[n, -n])),
                ("rate".to_string(), from_vec(&[], vec![8i32]).unwrap().into()),
            ]
        };
        let model = model_with_inputs(&[
            ("rate", ElementType::Int64, Some(&[])),
            ("image", ElementType::Float, Some(&["2", "1"])),
            ("state", ElementType::Float, Some(&["2", "b", "1"])),
        ]);
        let feeder = Feeder::new(Arc::new(Rows(vec![row(1.0), row(2.0)])), &model, &of(8)).unwrap();
        let batch = feeder.batch(1).unwrap();
        assert_eq!((feeder.len(), &batch.samples[..], batch.filler), (2, &[1][..], 1));
        let shapes: Vec<(&str, &[usize])> = batch.feeds.iter().map(|(n, v)| (n.as_str(), v.shape())).collect();
        assert_eq!(shapes, [("rate", &[][..]), ("image", &[2, 1][..]), ("state", &[2, 1, 1][..])]);
        assert_eq!(batch.feeds[0].1.element(), ElementType::Int64);
        assert_eq!(batch.feeds[1].1.to_f64(), [2.0, 2.0]);
    }

    #[test]
    fn inputs_that_fix_different_batches_are_refused() {
        let names = ["x", "y"].map(|name| (name.to_string(), floats(&[1], &[0.0])));
        let model = model_with_inputs(&[
            ("x", ElementType::Float, Some(&["2", "1"])),
            ("y", ElementType::Float, Some(&["3", "1"])),
        ]);
        let error = Feeder::new(Arc::new(Rows(vec![names.to_vec()])), &model, &of(1)).err().unwrap().to_string();
        assert!(error.contains("takes batches of 3, but `x` those of 2 (tensor `y`)"), "{error}");
    }

    #[test]
    fn a_bad_sample_is_named_with_its_number_and_input() {
        let with = |value: Value| {
            let mut rows: Vec<Feeds> = (0..4).map(|_| vec![("x".to_string(), floats(&[2], &[0.0, 1.0]))]).collect();
            rows[2] = vec![("x".to_string(), value)];
            Feeder::new(Arc::new(Rows(rows)), &model("n"), &of(4)).unwrap().batch(0).unwrap_err().to_string()
        };
        let nan = with(floats(&[2], &[1.0, f32::NAN]));
        assert!(nan.starts_with("sample 2: NaN as element 1 of the shape [2] (tensor `x`)"), "{nan}");
        let shape = with(floats(&[3], &[0.0; 3]));
        assert!(shape.starts_with("sample 2: the shape [3] does not fit the input [n, 2] (tensor `x`)"), "{shape}");
        let far = with(from_vec(&[2], vec![0.0, 1e300]).unwrap().into());
        assert!(far.starts_with("sample 2: a value is beyond the range of FLOAT (tensor `x`)"), "{far}");
    }

    #[test]
    fn infinity_is_data_such_as_the_mask_of_an_attention() {
        let masks: [Value; 2] =
            [floats(&[2], &[f32::NEG_INFINITY, 0.0]), from_vec(&[2], vec![f64::NEG_INFINITY, 1.0]).unwrap().into()];
        let rows = masks.map(|mask| vec![("x".to_string(), mask)]);
        let batch = Feeder::new(Arc::new(Rows(rows.to_vec())), &model("n"), &of(2)).unwrap().batch(0).unwrap();
        let infinity = f64::NEG_INFINITY;
        assert_eq!(batch.feeds[0].1.to_f64(), [infinity, 0.0, infinity, 1.0]);
    }

    #[test]
    fn pictures_become_floats_and_floats_no_tokens() {
        let bytes: Value = from_vec(&[2], vec![3u8, 255]).unwrap().into();
        let rows = Arc::new(Rows(vec![vec![("x".to_string(), bytes)]]));
        let batch = Feeder::new(rows, &model("n"), &of(1)).unwrap().batch(0).unwrap();
        assert_eq!(batch.feeds[0].1, floats(&[1, 2], &[3.0, 255.0]));
        let tokens = model_with_inputs(&[("x", ElementType::Int64, Some(&["n", "2"]))]);
        let error = Feeder::new(counted(1), &tokens, &of(1)).err().unwrap().to_string();
        assert!(error.starts_with("sample 0: values of type FLOAT cannot be fed as INT64 (tensor `x`)"), "{error}");
    }

    #[test]
    fn samples_of_different_lengths_are_refused_together_and_taken_alone() {
        let row = |n: usize| vec![("x".to_string(), floats(&[n], &vec![0.0; n]))];
        let rows: Arc<dyn Source> = Arc::new(Rows(vec![row(2), row(3)]));
        let model = model_with_inputs(&[("x", ElementType::Float, Some(&["n", "t"]))]);
        let error = Feeder::new(rows.clone(), &model, &of(2)).unwrap().batch(0).unwrap_err().to_string();
        assert!(error.contains("samples [0, 1] differ in shape") && error.contains("batch size of 1"), "{error}");
        assert_eq!(Feeder::new(rows, &model, &of(1)).unwrap().batch(1).unwrap().feeds[0].1.shape(), [1, 3]);
    }
}
