//! The drift of one output, added up over batches.

use super::OutputFidelity;
use crate::engine::Value;

/// Sums over the samples so far.
#[derive(Default)]
pub(super) struct Accumulated {
    difference: f64,
    dense: f64,
    cosines: f64,
    with_direction: usize,
    is_integer: bool,
    unequal: usize,
    elements: usize,
    same_class: usize,
    classified: usize,
    disagrees: bool,
}

impl Accumulated {
    /// Adds a batch of so many samples.
    pub(super) fn add(&mut self, dense: &Value, pruned: &Value, samples: usize) {
        if dense.shape() != pruned.shape() || dense.element() != pruned.element() {
            self.disagrees = true;
            return;
        }
        let (a, b) = (dense.to_f64(), pruned.to_f64());
        self.elements += a.len();
        self.unequal += a.iter().zip(&b).filter(|(x, y)| x != y && !(x.is_nan() && y.is_nan())).count();
        self.is_integer |= !dense.is_float();
        if self.is_integer {
            return;
        }
        let rows = if dense.shape().first().is_some_and(|n| n.is_multiple_of(samples.max(1))) { samples } else { 1 };
        let length = (a.len() / rows.max(1)).max(1);
        for (a, b) in a.chunks(length).zip(b.chunks(length)) {
            // What is infinite or NaN in both has not moved.
            let pairs = || a.iter().zip(b).filter(|(x, y)| !(x.is_nan() && y.is_nan()) && (x.is_finite() || x != y));
            let sum = |f: fn(f64, f64) -> f64| pairs().map(|(x, y)| f(*x, *y)).sum::<f64>();
            let (of_dense, of_pruned) = (sum(|x, _| x * x), sum(|_, y| y * y));
            self.difference += sum(|x, y| (x - y) * (x - y));
            self.dense += of_dense;
            let lengths = (of_dense * of_pruned).sqrt();
            if lengths > 0.0 && lengths.is_finite() {
                self.cosines += sum(|x, y| x * y) / lengths;
                self.with_direction += 1;
            }
            if dense.shape().len() == 2 && length > 1 {
                self.classified += 1;
                self.same_class += usize::from(largest(a) == largest(b));
            }
        }
    }

    pub(super) fn finish(self, name: &str) -> OutputFidelity {
        let relative = match () {
            () if self.disagrees => f64::INFINITY,
            () if self.is_integer => self.unequal as f64 / self.elements.max(1) as f64,
            () if self.difference == 0.0 => 0.0,
            () => Some((self.difference / self.dense).sqrt()).filter(|r| !r.is_nan()).unwrap_or(f64::INFINITY),
        };
        OutputFidelity {
            name: name.to_owned(),
            relative,
            cosine: (self.with_direction > 0).then(|| self.cosines / self.with_direction as f64),
            agreement: (self.classified > 0).then(|| self.same_class as f64 / self.classified as f64),
        }
    }
}

/// The place of the largest entry, the first of several.
pub(super) fn largest(row: &[f64]) -> usize {
    let best =
        row.iter().enumerate().fold((0, f64::NEG_INFINITY), |best, (i, v)| if *v > best.1 { (i, *v) } else { best });
    best.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ndarray::ArrayD;

    fn value(shape: &[usize], data: &[f32]) -> Value {
        ArrayD::from_shape_vec(shape.to_vec(), data.to_vec()).unwrap().into()
    }

    #[test]
    fn worked_numbers() {
        let mut sums = Accumulated::default();
        sums.add(&value(&[2, 2], &[3., 4., 1., 0.]), &value(&[2, 2], &[3., 0., 1., 0.]), 2);
        let found = sums.finish("y");
        // The difference has length 4, the dense output the root of 26; cosines 0.6 and 1; classes 1, 0 and 0, 0.
        assert!((found.relative - 4.0 / 26f64.sqrt()).abs() < 1e-12, "{found:?}");
        assert!((found.cosine.unwrap() - 0.8).abs() < 1e-12);
        assert_eq!(found.agreement, Some(0.5));
    }
}
