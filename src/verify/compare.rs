//! Comparison of two values, once for outputs and once to find the first difference.
//!
//! Floats: largest absolute difference over the largest magnitude of the reference, because a contraction that is
//! summed in another order errs relative to its terms and not to its result. NaN equals NaN; equal infinities are
//! equal. Discrete values (integers, bool: classes, indices): the fraction of elements that differ, because rounding
//! may turn a near tie between two classes somewhere in a large picture, but not often.

use crate::engine::Value;

/// How far one value is from its reference.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputDifference {
    /// Name of the value.
    pub name: String,
    /// Largest absolute difference. Infinite where one is NaN or infinite and the other is not.
    pub max_absolute: f64,
    /// For floats: `max_absolute / (largest magnitude of the reference + 1e-12)`, where the magnitude of what comes from
    /// a function that saturates at 1 counts as at least 0.01. For integers and bool: the fraction of elements that
    /// differ.
    pub max_relative: f64,
    /// The number of elements compared, not counting those that are NaN in the reference.
    pub compared: usize,
    /// Element types or shapes that disagree, in words; the numbers above are then infinite.
    pub mismatch: Option<String>,
    /// The relative difference that rounding alone explains, because one unit in the last place of weights and inputs
    /// makes a quarter of it; 0 unless it was measured.
    pub rounding: f64,
}

impl OutputDifference {
    /// The worse of two comparisons of the same value on different inputs.
    pub(super) fn worse(self, other: Self) -> Self {
        Self {
            name: self.name,
            max_absolute: self.max_absolute.max(other.max_absolute),
            max_relative: self.max_relative.max(other.max_relative),
            compared: self.compared.saturating_add(other.compared),
            mismatch: self.mismatch.or(other.mismatch),
            rounding: self.rounding.max(other.rounding),
        }
    }

    /// True when the values agree up to `tolerance`, or to what rounding explains.
    pub fn within(&self, tolerance: f64) -> bool {
        self.mismatch.is_none() && self.max_relative <= tolerance.max(self.rounding)
    }
}

/// Compares `found` with `reference`, whose magnitude counts as at least `least`.
pub(super) fn compare(name: &str, reference: &Value, found: &Value, least: f64) -> OutputDifference {
    let different = |what: String| OutputDifference {
        name: name.into(),
        max_absolute: f64::INFINITY,
        max_relative: f64::INFINITY,
        compared: 0,
        mismatch: Some(what),
        rounding: 0.0,
    };
    if reference.element() != found.element() {
        let (want, got) = (reference.element().as_str_name(), found.element().as_str_name());
        return different(format!("has the type {got} instead of {want}"));
    }
    if reference.shape() != found.shape() {
        return different(format!("has the shape {:?} instead of {:?}", found.shape(), reference.shape()));
    }
    let (a, b) = (reference.to_f64(), found.to_f64());
    let (mut max_absolute, mut magnitude, mut unequal, mut compared) = (0f64, least, 0usize, 0usize);
    for (x, y) in a.iter().zip(&b) {
        compared += usize::from(!x.is_nan());
        if x.is_finite() {
            magnitude = magnitude.max(x.abs());
        }
        if x == y || (x.is_nan() && y.is_nan()) {
            continue;
        }
        unequal += 1;
        let difference = (x - y).abs();
        max_absolute = max_absolute.max(if difference.is_nan() { f64::INFINITY } else { difference });
    }
    let max_relative =
        if reference.is_float() { max_absolute / (magnitude + 1e-12) } else { unequal as f64 / a.len().max(1) as f64 };
    OutputDifference { name: name.into(), max_absolute, max_relative, compared, mismatch: None, rounding: 0.0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use ndarray::ArrayD;

    fn compare(name: &str, reference: &Value, found: &Value) -> OutputDifference {
        super::compare(name, reference, found, 0.0)
    }

    fn float(data: &[f32]) -> Value {
        ArrayD::from_shape_vec(vec![data.len()], data.to_vec()).unwrap().into()
    }

    #[test]
    fn nan_and_infinity_are_equal_only_to_themselves() {
        let a = float(&[f32::NAN, f32::INFINITY, 2.0]);
        assert_eq!(compare("a", &a, &a).max_relative, 0.0);
        for other in [[0.0, f32::INFINITY, 2.0], [f32::NAN, 1.0, 2.0], [f32::NAN, f32::NEG_INFINITY, 2.0]] {
            assert!(!compare("a", &a, &float(&other)).within(1e9));
            assert!(!compare("a", &float(&other), &a).within(1e9));
        }
    }

    #[test]
    fn floats_are_relative_to_the_largest_magnitude() {
        let difference = compare("a", &float(&[100.0, 0.0]), &float(&[100.0, 0.001]));
        assert!((difference.max_relative - 1e-5).abs() < 1e-9, "{difference:?}");
        assert!(difference.within(1e-4) && !difference.within(1e-6));
    }

    #[test]
    fn classes_count_and_shapes_matter() {
        let classes = |data: Vec<i64>| Value::from(ArrayD::from_shape_vec(vec![data.len()], data).unwrap());
        let difference = compare("a", &classes(vec![1, 2, 3, 900]), &classes(vec![1, 2, 3, 4]));
        assert_eq!((difference.max_relative, difference.compared), (0.25, 4));
        let shorter = compare("a", &classes(vec![1, 2]), &classes(vec![1]));
        assert_eq!(shorter.mismatch.as_deref(), Some("has the shape [1] instead of [2]"));
        assert!(compare("a", &classes(vec![1]), &float(&[1.0])).mismatch.is_some());
    }
}
