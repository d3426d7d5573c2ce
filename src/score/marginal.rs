//! Marginals: the sum of |w|^p over everything but one axis, for several axes in one pass over the weights.
//!
//! Weights are read in place (raw bytes, unaligned) and touched once where axes 0 and 1 are asked for, as they are for
//! nearly every weight. Invariants: f64 accumulation in a fixed order of blocks, so that the result does not depend on
//! the number of threads.

use rayon::prelude::*;

use crate::proto::onnx::{TensorProto, tensor_proto::DataType};
use crate::proto::{Pages, tensor};
use crate::{Error, Result};

/// Rows are summed in blocks of about this many elements.
const BLOCK: usize = 1 << 18;

/// |w|^p summed over all axes but one, for every axis in `axes`; `power` is 1 or 2. Shapes: one vector of the axis's
/// extent per entry of `axes`. Integer weights count with their stored values.
///
/// # Errors
/// A tensor that cannot be read, with its name.
pub(super) fn marginals(tensor: &TensorProto, axes: &[usize], power: u32, pages: &Pages) -> Result<Vec<Vec<f64>>> {
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
    let dims = dims.ok_or_else(|| Error::input("a dimension is negative").tensor(tensor.name()))?;
    let cost = move |w: f32| {
        let w = f64::from(w).abs();
        if power == 2 { w * w } else { w }
    };
    if tensor.data_type() == DataType::Float as i32 {
        let raw = tensor::raw_bytes(tensor)?;
        let cells = raw.as_chunks::<4>().0;
        let of = |cell: &[u8; 4]| cost(f32::from_le_bytes(*cell));
        let run = |from: usize, to: usize| cells.get(from..to).unwrap_or_default().iter().map(of).sum();
        let row = |from: usize, columns: &mut [f64]| {
            add_row(cells.get(from..from + columns.len()).unwrap_or_default().iter().map(of), columns)
        };
        let done = |from: usize, to: usize| pages.release(raw.get(4 * from..4 * to).unwrap_or_default());
        let sums = sums(&dims, axes, &row, &run, &done);
        pages.release(&raw);
        return Ok(sums);
    }
    // Converted as a whole, so that the file is not needed any more.
    let values: Vec<f32> = match tensor::to_f32(tensor) {
        Ok(values) => values,
        Err(_) => tensor::to_i64(tensor)?.into_iter().map(|v| v as f32).collect(),
    };
    pages.release(tensor.raw_data.as_deref().unwrap_or_default());
    let run = |from: usize, to: usize| values.get(from..to).unwrap_or_default().iter().copied().map(cost).sum();
    let row = |from: usize, columns: &mut [f64]| {
        add_row(values.get(from..from + columns.len()).unwrap_or_default().iter().copied().map(cost), columns)
    };
    Ok(sums(&dims, axes, &row, &run, &|_, _| ()))
}

/// Adds the costs of one row to those of its columns and returns their sum, in lanes that a processor adds at once.
fn add_row(costs: impl Iterator<Item = f64>, columns: &mut [f64]) -> f64 {
    const LANES: usize = 8;
    let mut lanes = [0.0; LANES];
    for (index, (cost, column)) in costs.zip(columns).enumerate() {
        *column += cost;
        lanes[index % LANES] += cost;
    }
    lanes.iter().sum()
}

/// `row(i, columns)` adds the elements from i on to `columns` and returns their sum, `run(i, j)` sums the elements
/// i..j; `done(i, j)` is told that i..j were read.
fn sums(
    dims: &[usize],
    axes: &[usize],
    row: &(dyn Fn(usize, &mut [f64]) -> f64 + Sync),
    run: &(dyn Fn(usize, usize) -> f64 + Sync),
    done: &(dyn Fn(usize, usize) + Sync),
) -> Vec<Vec<f64>> {
    let extent = |axis: usize| dims.get(axis).copied().unwrap_or(1);
    let (rows, columns) = (extent(0), extent(1));
    let inner: usize = dims.iter().skip(2).product();
    let width = columns * inner;
    if rows * width == 0 {
        return axes.iter().map(|a| vec![0.0; extent(*a)]).collect();
    }
    let block = (BLOCK / width.max(1)).max(1);
    let blocks: Vec<(Vec<f64>, Vec<f64>)> = (0..rows.div_ceil(block))
        .into_par_iter()
        .map(|b| {
            let (first, last) = (b * block, ((b + 1) * block).min(rows));
            let mut by_row = vec![0.0; last - first];
            let mut by_column = vec![0.0; columns];
            for (number, sum) in (first..last).zip(&mut by_row) {
                let start = number * width;
                if inner == 1 {
                    *sum = row(start, &mut by_column);
                    continue;
                }
                for (column, in_column) in by_column.iter_mut().enumerate() {
                    let cost = run(start + column * inner, start + (column + 1) * inner);
                    *in_column += cost;
                    *sum += cost;
                }
            }
            done(first * width, last * width);
            (by_row, by_column)
        })
        .collect();
    axes.iter()
        .map(|axis| match axis {
            0 => blocks.iter().flat_map(|(by_row, _)| by_row.iter().copied()).collect(),
            1 => blocks.iter().fold(vec![0.0; columns], |mut all, (_, by_column)| {
                all.iter_mut().zip(by_column).for_each(|(a, b)| *a += b);
                all
            }),
            _ => later_axis(dims, *axis, run),
        })
        .collect()
}

/// An axis behind the second: a pass of its own, for the few weights that have channels there.
fn later_axis(dims: &[usize], axis: usize, run: &(dyn Fn(usize, usize) -> f64 + Sync)) -> Vec<f64> {
    let extent = dims.get(axis).copied().unwrap_or(1);
    let outer: usize = dims.iter().take(axis).product();
    let inner: usize = dims.iter().skip(axis + 1).product();
    (0..extent)
        .into_par_iter()
        .map(|i| (0..outer).map(|o| run((o * extent + i) * inner, (o * extent + i + 1) * inner)).sum())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_axis_sums_over_the_others() {
        let values: Vec<f32> = (0..24).map(|i| i as f32 - 5.0).collect();
        let tensor = tensor::from_f32("w", &[2, 3, 4], &values);
        let found = marginals(&tensor, &[0, 1, 2], 2, &Pages::default()).unwrap();
        for (axis, extent, stride) in [(0, 2, 12), (1, 3, 4), (2, 4, 1)] {
            assert_eq!(found[axis].len(), extent);
            for (i, sum) in found[axis].iter().enumerate() {
                let expected: f64 = values
                    .iter()
                    .enumerate()
                    .filter(|(p, _)| p / stride % extent == i)
                    .map(|(_, v)| f64::from(v * v))
                    .sum();
                assert!((sum - expected).abs() < 1e-9, "axis {axis}, index {i}");
            }
        }
    }
}
