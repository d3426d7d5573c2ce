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

/// `count` positions of a batch of which `rows` are there, in increasing order.
pub(super) fn choose(rows: usize, count: usize, batch: BatchFacts, seed: u64) -> Vec<usize> {
    let places = batch.samples + batch.filler;
    // The batch axis is the outermost one, where positions can be told apart by sample at all.
    let valid = if places > 0 && rows.is_multiple_of(places) { rows / places * batch.samples } else { rows };
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
        Padding::Same { upper } => (0..window.kernel.len())
            .map(|axis| {
                let get = |list: &[usize]| signed(list.get(axis).copied().unwrap_or(1));
                let reach = (get(&window.kernel) - 1) * get(&window.dilations) + 1;
                let (long, short) = if window.transposed { (get(output), get(data)) } else { (get(data), get(output)) };
                let total = ((short - 1) * get(&window.strides) + reach - long).max(0);
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
        assert_eq!(choose(16, 100, batch, 1), (0..12).collect::<Vec<_>>());
        let few = choose(16, 6, batch, 1);
        assert!(few.len() == 6 && few.iter().all(|row| *row < 12) && few.is_sorted(), "{few:?}");
        assert_ne!(choose(1000, 6, batch, 1), choose(1000, 6, batch, 2));
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
