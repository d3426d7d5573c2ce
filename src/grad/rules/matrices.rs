//! Linear maps of one axis, as constant matrices: resampling, averaging, padding. What maps an axis by a matrix gets its
//! gradient by the transposed matrix.

use super::super::context::Context;

/// A matrix beyond this many entries is not made.
const LARGEST: usize = 1 << 24;

/// `rows` entries of an axis made of `columns` entries.
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Row by row.
    pub(super) entries: Vec<f64>,
}

impl Matrix {
    /// All entries 0.
    pub(super) fn zeros(rows: usize, columns: usize) -> Result<Self, String> {
        let count = rows.checked_mul(columns).filter(|count| *count <= LARGEST);
        let count = count.ok_or_else(|| format!("a matrix of {rows} x {columns} is too large"))?;
        Ok(Self { rows, columns, entries: vec![0.0; count] })
    }

    /// Adds to an entry; outside of the matrix nothing happens.
    pub(super) fn add(&mut self, row: usize, column: usize, value: f64) {
        if column < self.columns
            && let Some(entry) = self.entries.get_mut(row * self.columns + column)
        {
            *entry += value;
        }
    }

    /// How often every entry is repeated, if the matrix does nothing else.
    fn repeats(&self) -> Option<usize> {
        let times = self.rows.checked_div(self.columns).filter(|t| t * self.columns == self.rows)?;
        let expected = |i: usize| f64::from(u8::from(i / self.columns / times == i % self.columns));
        self.entries.iter().enumerate().all(|(i, e)| *e == expected(i)).then_some(times)
    }

    /// The block length and the factor, if every row is the same multiple of the sum of a block of its own.
    fn blocks(&self) -> Option<(usize, f64)> {
        let length = self.columns.checked_div(self.rows).filter(|n| n * self.rows == self.columns)?;
        let factor = *self.entries.first()?;
        let expected = |i: usize| if i % self.columns / length == i / self.columns { factor } else { 0.0 };
        self.entries.iter().enumerate().all(|(i, e)| *e == expected(i)).then_some((length, factor))
    }

    fn transposed(&self) -> Vec<f64> {
        let entry = |i: usize| self.entries.get((i % self.rows) * self.columns + i / self.rows);
        (0..self.entries.len()).filter_map(entry).copied().collect()
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
        if after == 1 {
            let matrix = context.numbers(like, &[self.rows, self.columns], &self.entries)?;
            let flat = context.reshape(gradient, &[-1, rows]);
            return Ok(context.op("MatMul", &[&flat, &matrix]));
        }
        let matrix = context.numbers(like, &[self.columns, self.rows], &self.transposed())?;
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
