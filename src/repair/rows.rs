//! Rows: the numbers that meet in sampled positions of a contraction, from whole values at host.
//!
//! Invariants: positions are spread evenly over batch and space, shifted by a seed, and the same for data and targets;
//! places that only fill up a batch are never chosen; a position outside the data is zero, as padding is.

use std::borrow::Cow;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::frontier::BatchFacts;
use crate::engine::{ElementType, Value};
use crate::ops::linear::{Geometry, Linear, Padding, Window};
use crate::{Error, Result};

/// A value as single-precision numbers in row-major order.
pub(super) struct Numbers<'v> {
    pub(super) shape: Vec<usize>,
    pub(super) data: Cow<'v, [f32]>,
}

impl<'v> Numbers<'v> {
    /// Reads a floating-point value.
    ///
    /// # Errors
    /// When the value holds integers or truth values.
    pub(super) fn of(value: &'v Value) -> Result<Self> {
        if !value.is_float() {
            return Err(Error::input(format!("values of type {} cannot be fitted", value.element().as_str_name())));
        }
        let shape = value.shape().to_vec();
        let data = match value {
            Value::F32(array) => match array.as_slice() {
                Some(data) => Cow::Borrowed(data),
                None => array.iter().copied().collect(),
            },
            other => match other.cast(ElementType::Float)? {
                Value::F32(array) => array.iter().copied().collect(),
                _ => Cow::default(),
            },
        };
        Ok(Self { shape, data })
    }
}

/// Where the channels of a value lie, and what is left of it: `outer` x `channels` x `inner`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channels {
    pub(super) outer: usize,
    pub(super) channels: usize,
    pub(super) inner: usize,
}

impl Channels {
    /// The view along one axis.
    pub(super) fn along(shape: &[usize], axis: usize) -> Result<Self> {
        let missing = || Error::input(format!("a value of shape {shape:?} has no axis {axis}"));
        let (before, rest) = shape.split_at_checked(axis).ok_or_else(missing)?;
        let (channels, after) = rest.split_first().ok_or_else(missing)?;
        Ok(Self { outer: before.iter().product(), channels: *channels, inner: after.iter().product() })
    }

    /// How many positions there are, each with all channels.
    pub(super) fn rows(self) -> usize {
        self.outer * self.inner
    }

    /// The numbers of these channels at one position.
    pub(super) fn some<'v>(self, data: &'v [f32], row: usize, kept: &'v [u32]) -> impl Iterator<Item = f32> + 'v {
        let inner = self.inner.max(1);
        let start = row / inner * self.channels * inner + row % inner;
        kept.iter().map(move |c| data.get(start + *c as usize * inner).copied().unwrap_or(0.0))
    }

    /// The numbers of all channels at one position.
    pub(super) fn row<'v>(self, data: &'v [f32], row: usize) -> impl Iterator<Item = f64> + 'v {
        let inner = self.inner.max(1);
        let start = row / inner * self.channels * inner + row % inner;
        (0..self.channels).map(move |c| data.get(start + c * inner).copied().map_or(0.0, f64::from))
    }
}

/// The axis on which the output of a contraction has its channels.
pub(super) fn output_axis(linear: &Linear, rank: usize) -> Result<usize> {
    let from_end = match &linear.geometry {
        Geometry::Window(_) => return Ok(1),
        Geometry::Rows { output, .. } => *output,
        Geometry::Recurrent { .. } => 1,
    };
    rank.checked_sub(from_end).ok_or_else(|| Error::input(format!("a value of rank {rank} has no channel axis")))
}

/// The positions that are seen of a value of this shape, of which `axis` holds the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Positions {
    rows: usize,
    /// How many neighbours belong to one place of the batch.
    inner: usize,
}

impl Positions {
    /// `first` says on which axis the batch is known to lie. Otherwise it is the outermost one, or where that cannot
    /// be, the first with as many places.
    pub(super) fn of(shape: &[usize], axis: usize, batch: BatchFacts, first: Option<usize>) -> Result<Self> {
        let rows = Channels::along(shape, axis)?.rows();
        let places = batch.samples + batch.filler;
        let behind = |at: usize| {
            let others = shape.iter().enumerate().skip(at + 1).filter(|(other, _)| *other != axis);
            others.map(|(_, extent)| *extent).product::<usize>()
        };
        let outermost = if axis == 0 { 1 } else { 0 };
        let extent = |at: usize| shape.get(at).copied().filter(|_| at != axis).unwrap_or(0);
        let is_batch = |at: &usize| extent(*at) == places;
        let merged = places > 0 && extent(outermost).is_multiple_of(places);
        let found = first.filter(is_batch).or_else(|| match merged {
            // What was merged with the batch lies behind it.
            true => None,
            false => (0..shape.len()).find(is_batch),
        });
        Ok(match found {
            Some(at) => Self { rows, inner: behind(at) },
            None if places > 0 && rows.is_multiple_of(places) => Self { rows, inner: rows / places },
            None => Self { rows, inner: 0 },
        })
    }

    /// `per_sample` positions for every sample of the batch, spread evenly and in increasing order.
    pub(super) fn choose(self, per_sample: usize, batch: BatchFacts, seed: u64) -> Vec<usize> {
        let (places, block) = (batch.samples + batch.filler, batch.samples.saturating_mul(self.inner));
        // Positions that cannot be told apart by sample count all of them.
        if batch.filler == 0 || block == 0 {
            return choose(self.rows, per_sample.saturating_mul(batch.samples), batch, seed);
        }
        let valid = self.rows / places.max(1) * batch.samples;
        let chosen = choose(valid, per_sample.saturating_mul(batch.samples), batch, seed);
        chosen.into_iter().map(|row| row / block * (places * self.inner) + row % block).collect()
    }
}

/// `count` of `valid` positions, in increasing order.
fn choose(valid: usize, count: usize, batch: BatchFacts, seed: u64) -> Vec<usize> {
    if count >= valid {
        return (0..valid).collect();
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ (batch.index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut chosen = Vec::with_capacity(count);
    for i in 0..count {
        // One from each of `count` equal parts, so that every sample has its share.
        let (from, to) = (share(i, valid, count), share(i + 1, valid, count));
        chosen.push(from + (random.next_u64() % (to - from).max(1) as u64) as usize);
    }
    chosen
}

fn share(i: usize, valid: usize, count: usize) -> usize {
    (i as u128 * valid as u128 / count.max(1) as u128) as usize
}

/// Reads the data that meets in positions of the output.
pub(super) struct Gather<'l> {
    linear: &'l Linear,
    data_shape: Vec<usize>,
    /// Spatial extents of the output of a convolution.
    grid: Vec<usize>,
    /// What is added before each spatial axis.
    begin: Vec<i64>,
}

impl<'l> Gather<'l> {
    /// For data and output of these shapes; for a recurrence the shape of the output does not matter.
    ///
    /// # Errors
    /// Shapes that do not fit the contraction.
    pub(super) fn new(linear: &'l Linear, data_shape: &[usize], output_shape: &[usize]) -> Result<Self> {
        let wrong = || Error::input(format!("data of shape {data_shape:?} does not fit the weight"));
        let (mut grid, mut begin) = (Vec::new(), Vec::new());
        match &linear.geometry {
            Geometry::Window(window) => {
                let (data, output) = (data_shape.get(2..).ok_or_else(wrong)?, output_shape.get(2..).ok_or_else(wrong)?);
                let positions: usize = window.kernel.iter().product();
                let channels = linear.groups * linear.inputs / positions.max(1);
                let rank = window.kernel.len();
                if data.len() != rank || output.len() != rank || data_shape.get(1) != Some(&channels) {
                    return Err(wrong());
                }
                grid = output.to_vec();
                begin = padding(window, data, output);
            }
            Geometry::Rows { data, .. } => {
                let axis = data_shape.len().checked_sub(*data).ok_or_else(wrong)?;
                if data_shape.get(axis) != Some(&linear.inputs) {
                    return Err(wrong());
                }
            }
            Geometry::Recurrent { .. } => {
                if data_shape.last() != Some(&linear.inputs) {
                    return Err(wrong());
                }
            }
        }
        Ok(Self { linear, data_shape: data_shape.to_vec(), grid, begin })
    }

    /// How many positions there are.
    pub(super) fn rows(&self) -> usize {
        match &self.linear.geometry {
            Geometry::Window(_) => self.data_shape.first().copied().unwrap_or(0) * self.grid.iter().product::<usize>(),
            _ => self.data_shape.iter().product::<usize>() / self.linear.inputs.max(1),
        }
    }

    /// The data of one group at these positions: `rows.len()` x `inputs`, row-major.
    pub(super) fn group(&self, data: &[f32], group: usize, rows: &[usize]) -> Vec<f64> {
        let mut out = Vec::with_capacity(rows.len() * self.linear.inputs);
        match &self.linear.geometry {
            Geometry::Window(window) => self.windows(window, data, group, rows, &mut out),
            Geometry::Rows { data: from_end, .. } => {
                let axis = self.data_shape.len().saturating_sub(*from_end);
                self.plain(data, axis, rows, &mut out);
            }
            Geometry::Recurrent { .. } => {
                self.plain(data, self.data_shape.len().saturating_sub(1), rows, &mut out);
            }
        }
        out
    }

    fn plain(&self, data: &[f32], axis: usize, rows: &[usize], out: &mut Vec<f64>) {
        if let Ok(view) = Channels::along(&self.data_shape, axis) {
            rows.iter().for_each(|row| out.extend(view.row(data, *row)));
        }
    }

    fn windows(&self, window: &Window, data: &[f32], group: usize, rows: &[usize], out: &mut Vec<f64>) {
        let extents = self.data_shape.get(2..).unwrap_or_default();
        let area: usize = extents.iter().product();
        let all_channels = self.data_shape.get(1).copied().unwrap_or(0);
        let positions: usize = window.kernel.iter().product::<usize>().max(1);
        let channels = self.linear.inputs / positions;
        let grid: usize = self.grid.iter().product::<usize>().max(1);
        let mut places: Vec<Option<usize>> = Vec::with_capacity(positions);
        for row in rows {
            let (sample, position) = (row / grid, row % grid);
            places.clear();
            places.extend((0..positions).map(|k| self.place(window, extents, position, k)));
            for channel in 0..channels {
                let base = (sample * all_channels + group * channels + channel) * area;
                out.extend(
                    places
                        .iter()
                        .map(|place| place.and_then(|place| data.get(base + place)).copied().map_or(0.0, f64::from)),
                );
            }
        }
    }

    /// Where in a channel of the data the element of the kernel looks; `None` in the padding.
    fn place(&self, window: &Window, extents: &[usize], position: usize, element: usize) -> Option<usize> {
        let (mut position, mut element) = (position, element);
        let (mut place, mut stride) = (0usize, 1usize);
        for axis in (0..extents.len()).rev() {
            let (extent, grid) = (*extents.get(axis)?, *self.grid.get(axis)?);
            let kernel = *window.kernel.get(axis)?;
            let (at, k) = ((position % grid.max(1)) as i64, (element % kernel.max(1)) as i64);
            position /= grid.max(1);
            element /= kernel.max(1);
            let step = i64::try_from(*window.strides.get(axis)?).ok()?;
            let reach = k.checked_mul(i64::try_from(*window.dilations.get(axis)?).ok()?)?;
            let begin = *self.begin.get(axis)?;
            let index = if window.transposed {
                let shifted = at + begin - reach;
                (shifted % step == 0).then_some(shifted / step)?
            } else {
                at.checked_mul(step)? + reach - begin
            };
            let index = usize::try_from(index).ok().filter(|i| *i < extent)?;
            place += index * stride;
            stride *= extent;
        }
        Some(place)
    }
}

fn padding(window: &Window, data: &[usize], output: &[usize]) -> Vec<i64> {
    let signed = |n: usize| i64::try_from(n).unwrap_or(i64::MAX / 4);
    match &window.padding {
        Padding::Begin(begin) => begin.iter().map(|n| signed(*n)).collect(),
        Padding::Same { upper, extra } => (0..window.kernel.len())
            .map(|axis| {
                let get = |list: &[usize]| signed(list.get(axis).copied().unwrap_or(1));
                let reach = (get(&window.kernel) - 1).saturating_mul(get(&window.dilations)).saturating_add(1);
                let (long, short) = if window.transposed { (get(output), get(data)) } else { (get(data), get(output)) };
                let more = extra.get(axis).filter(|_| window.transposed).map_or(0, |n| signed(*n));
                let spread = (short - 1).saturating_mul(get(&window.strides)).saturating_add(more);
                let total = spread.saturating_add(reach).saturating_sub(long).max(0);
                if *upper { total / 2 } else { total - total / 2 }
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn filler_is_never_chosen() {
        let batch = BatchFacts { index: 0, samples: 3, filler: 1 };
        let of = |shape: &[usize], axis: usize, per_sample: usize, seed: u64| {
            Positions::of(shape, axis, batch, None).unwrap().choose(per_sample, batch, seed)
        };
        assert_eq!(of(&[4, 5, 4], 1, 100, 1), (0..12).collect::<Vec<_>>());
        let few = of(&[4, 5, 4], 1, 2, 1);
        assert!(few.len() == 6 && few.iter().all(|row| *row < 12) && few.is_sorted(), "{few:?}");
        assert_ne!(of(&[4, 5, 250], 1, 2, 1), of(&[4, 5, 250], 1, 2, 2));
        // A batch that something was merged with, one behind the channels, and one behind time.
        assert_eq!(of(&[8, 5], 1, 100, 1), (0..6).collect::<Vec<_>>());
        assert_eq!(of(&[5, 4], 0, 100, 1), [0, 1, 2]);
        assert_eq!(of(&[3, 4, 5], 2, 100, 1), [0, 1, 2, 4, 5, 6, 8, 9, 10]);
        assert!(of(&[300, 4, 5], 2, 2, 1).iter().all(|row| row % 4 < 3));
        // As long as the batch, but known to be time.
        let known = Positions::of(&[4, 4, 5], 2, batch, Some(1)).unwrap();
        assert_eq!(known.choose(2, BatchFacts { samples: 1, filler: 3, ..batch }, 1).len(), 2);
        assert!(known.choose(100, batch, 1).iter().all(|row| row % 4 < 3));
        // Nothing tells samples apart.
        assert_eq!(of(&[3, 5], 1, 100, 1), [0, 1, 2]);
    }

    #[test]
    fn a_shorter_batch_has_the_share_of_its_samples() {
        let of = |samples: usize| {
            let batch = BatchFacts { index: 0, samples, filler: 0 };
            Positions::of(&[samples, 3, 50], 1, batch, None).unwrap().choose(10, batch, 0).len()
        };
        assert_eq!((of(8), of(1)), (80, 10));
    }

    /// What ONNX Runtime 1.31 cuts off before 5 numbers that a step of 2 spreads.
    #[test]
    fn transposed_windows_begin_where_the_runtime_begins() {
        let begin = |attributes: &str, kernel: usize, output: usize| {
            let text = format!("in x [1,1,5]\ny = ConvTranspose(x, w[1,1,{kernel}], strides=[2], {attributes})\nout y");
            let model = crate::text::parse(&text).unwrap();
            let node = &model.graph.unwrap().node[0];
            let linear = Linear::of(node, &|slot| (slot == 1).then(|| vec![1, 1, kernel])).unwrap();
            Gather::new(&linear, &[1, 1, 5], &[1, 1, output]).unwrap().begin[0]
        };
        let begins = |attributes: &str, output: usize| [3, 4, 5].map(|kernel| begin(attributes, kernel, output));
        assert_eq!(begins("auto_pad=\"SAME_UPPER\"", 10), [0, 1, 1]);
        assert_eq!(begins("auto_pad=\"SAME_LOWER\"", 10), [1, 1, 2]);
        assert_eq!(begins("auto_pad=\"SAME_UPPER\", output_padding=[1]", 10), [1, 1, 2]);
        assert_eq!(begins("auto_pad=\"SAME_LOWER\", output_padding=[1]", 10), [1, 2, 2]);
        assert_eq!(begins("output_shape=[9]", 9), [1, 2, 2]);
        assert_eq!(begins("output_shape=[9], output_padding=[1]", 9), [2, 2, 3]);
        assert_eq!(begins("output_shape=[9], auto_pad=\"VALID\"", 9), [1, 2, 2]);
    }

    #[test]
    fn channels_are_read_across_any_axis() {
        let data: Vec<f32> = (0..24u8).map(f32::from).collect();
        let view = Channels::along(&[2, 3, 4], 1).unwrap();
        assert_eq!(view.rows(), 8);
        assert_eq!(view.row(&data, 5).collect::<Vec<_>>(), [13.0, 17.0, 21.0]);
        let last = Channels::along(&[2, 3, 4], 2).unwrap();
        assert_eq!(last.row(&data, 5).collect::<Vec<_>>(), [20.0, 21.0, 22.0, 23.0]);
    }
}
