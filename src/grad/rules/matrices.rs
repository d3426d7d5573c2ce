//! Linear maps of one axis, as constant matrices: resampling, averaging, padding. What maps an axis by a matrix gets its
//! gradient by the transposed matrix.

use std::collections::BTreeMap;

use super::super::context::Context;
use crate::proto::build::int;

/// A matrix of at most this many entries is multiplied with, a larger one gathered with.
const LARGEST: usize = 1 << 18;
/// From so many rows an entry of a large matrix may be read at most.
const DEEPEST: usize = 256;

/// One row and one factor for each column.
type List = (Vec<i64>, Vec<f64>);

/// `rows` entries of an axis made of `columns` entries.
pub(super) struct Matrix {
    rows: usize,
    columns: usize,
    /// What is not 0, by column and row.
    entries: BTreeMap<(usize, usize), f64>,
}

impl Matrix {
    /// All entries 0.
    pub(super) fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, entries: BTreeMap::new() }
    }

    /// Adds to an entry; outside of the matrix nothing happens.
    pub(super) fn add(&mut self, row: usize, column: usize, value: f64) {
        if column < self.columns && row < self.rows && value != 0.0 {
            *self.entries.entry((column, row)).or_default() += value;
        }
    }

    /// How often every entry is repeated, if the matrix does nothing else.
    fn repeats(&self) -> Option<usize> {
        let times = self.rows.checked_div(self.columns).filter(|t| t * self.columns == self.rows)?;
        let is_whole = self.entries.len() == self.rows;
        (is_whole && self.entries.iter().all(|((c, r), v)| r / times == *c && *v == 1.0)).then_some(times)
    }

    /// The block length and the factor, if every row is the same multiple of the sum of a block of its own.
    fn blocks(&self) -> Option<(usize, f64)> {
        let length = self.columns.checked_div(self.rows).filter(|n| n * self.rows == self.columns)?;
        let factor = *self.entries.values().next()?;
        let is_whole = self.entries.len() == self.columns;
        (is_whole && self.entries.iter().all(|((c, r), v)| c / length == *r && *v == factor))
            .then_some((length, factor))
    }

    /// All entries: row by row, or column by column.
    fn dense(&self, by_column: bool) -> Vec<f64> {
        let mut dense = vec![0.0; self.rows * self.columns];
        for ((column, row), value) in &self.entries {
            let place = if by_column { column * self.rows + row } else { row * self.columns + column };
            dense.iter_mut().skip(place).take(1).for_each(|entry| *entry = *value);
        }
        dense
    }

    /// For every column its rows and factors, as lists of which each has one row per column.
    fn lists(&self) -> Result<Vec<List>, String> {
        let mut lists: Vec<List> = Vec::new();
        let mut depth = (0, 0);
        for ((column, row), value) in &self.entries {
            depth = if depth.0 == *column { (*column, depth.1 + 1) } else { (*column, 1) };
            if depth.1 > DEEPEST {
                return Err(format!("a matrix of {} x {} is too large", self.rows, self.columns));
            }
            if lists.len() < depth.1 {
                lists.push((vec![0; self.columns], vec![0.0; self.columns]));
            }
            if let Some((rows, factors)) = lists.get_mut(depth.1 - 1) {
                let row = i64::try_from(*row).map_err(|e| e.to_string())?;
                rows.iter_mut().skip(*column).take(1).for_each(|r| *r = row);
                factors.iter_mut().skip(*column).take(1).for_each(|f| *f = *value);
            }
        }
        Ok(lists)
    }

    /// The gradient of a value of shape `before`, whose `axis` is mapped by this matrix, from that of the result. The
    /// axes before `axis` are flattened, the batch among them.
    pub(super) fn back(
        &self,
        context: &mut Context,
        gradient: &str,
        like: &str,
        axis: usize,
        before: &[usize],
    ) -> Result<String, String> {
        let number = |n: usize| i64::try_from(n).map_err(|e| e.to_string());
        let rest = before.get(axis + 1..).unwrap_or_default();
        let after = rest.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or("extents that overflow")?;
        let (rows, columns, after) = (number(self.rows)?, number(self.columns)?, number(after)?);
        if let Some(times) = self.repeats() {
            let flat = context.reshape(gradient, &[-1, columns, number(times)?, after]);
            return Ok(context.sum(&flat, &[2], false));
        }
        if let Some((length, factor)) = self.blocks() {
            let share = context.scale(gradient, like, factor)?;
            let flat = context.reshape(&share, &[-1, rows, 1, after]);
            let times = context.nodes.integers(&[1, 1, number(length)?, 1]);
            return Ok(context.op("Expand", &[&flat, &times]));
        }
        if self.rows.checked_mul(self.columns).is_none_or(|n| n > LARGEST) {
            let flat = context.reshape(gradient, &[-1, rows, after]);
            let mut parts = Vec::new();
            for (places, factors) in self.lists()? {
                let places = context.nodes.integers(&places);
                let read = context.node("Gather", &[&flat, &places], vec![int("axis", 1)]);
                let factors = context.numbers(like, &[self.columns, 1], &factors)?;
                parts.push(context.op("Mul", &[&read, &factors]));
            }
            return Ok(context.op("Sum", &parts.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        if after == 1 {
            let matrix = context.numbers(like, &[self.rows, self.columns], &self.dense(false))?;
            let flat = context.reshape(gradient, &[-1, rows]);
            return Ok(context.op("MatMul", &[&flat, &matrix]));
        }
        let matrix = context.numbers(like, &[self.columns, self.rows], &self.dense(true))?;
        let flat = context.reshape(gradient, &[-1, rows, after]);
        Ok(context.op("MatMul", &[&matrix, &flat]))
    }
}

/// The gradient of `x` from that of what `maps` make of it, axis by axis; the axes are in rising order.
pub(super) fn back(context: &mut Context, gradient: &str, x: &str, maps: &[(usize, Matrix)]) -> Result<String, String> {
    let mut gradient = gradient.to_owned();
    let before = context.shape(x)?;
    // From the last axis on: what lies behind the axis has its old extents then.
    for (axis, matrix) in maps.iter().rev() {
        gradient = matrix.back(context, &gradient, x, *axis, before)?;
    }
    Ok(context.reshape_like(&gradient, x))
}
