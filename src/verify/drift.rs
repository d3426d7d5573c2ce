//! Drift: how far a pruned model's output is from that of the dense original. It is no verdict, because a cut changes
//! what a model computes; it tells how much.

use crate::engine::Value;

/// How far one graph output has moved.
#[derive(Clone, Debug, PartialEq)]
pub struct Drift {
    /// Name of the output.
    pub name: String,
    /// For floats: the length of the difference over the length of the dense output (L2). For integers and bool: the
    /// fraction of elements that differ. Infinite where types or shapes disagree or a difference is not finite.
    pub relative: f64,
    /// The cosine of the angle between both outputs; none for integers and bool, and where one of them is zero.
    pub cosine: Option<f64>,
}

/// Measures `found` against `dense`. Elements that are NaN or infinite and equal in both count as no difference.
pub(super) fn drift(name: &str, dense: &Value, found: &Value) -> Drift {
    let name = name.to_owned();
    if dense.element() != found.element() || dense.shape() != found.shape() {
        return Drift { name, relative: f64::INFINITY, cosine: None };
    }
    let (a, b) = (dense.to_f64(), found.to_f64());
    let pairs = || a.iter().zip(&b).filter(|(x, y)| !(x.is_nan() && y.is_nan()) && (x.is_finite() || x != y));
    if !dense.is_float() {
        let unequal = pairs().filter(|(x, y)| x != y).count();
        return Drift { name, relative: unequal as f64 / a.len().max(1) as f64, cosine: None };
    }
    let sum = |f: fn(f64, f64) -> f64| pairs().map(|(x, y)| f(*x, *y)).sum::<f64>();
    let (difference, of_dense, of_found) =
        (sum(|x, y| (x - y) * (x - y)).sqrt(), sum(|x, _| x * x).sqrt(), sum(|_, y| y * y).sqrt());
    let relative = if difference == 0.0 { 0.0 } else { difference / of_dense };
    let lengths = of_dense * of_found;
    Drift {
        name,
        relative: if relative.is_nan() { f64::INFINITY } else { relative },
        cosine: (lengths > 0.0 && lengths.is_finite()).then(|| sum(|x, y| x * y) / lengths),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ndarray::ArrayD;

    #[test]
    fn worked_numbers() {
        let float = |data: &[f32]| Value::from(ArrayD::from_shape_vec(vec![data.len()], data.to_vec()).unwrap());
        let moved = drift("y", &float(&[3.0, 4.0]), &float(&[3.0, 0.0]));
        assert!((moved.relative - 0.8).abs() < 1e-12 && (moved.cosine.unwrap() - 0.6).abs() < 1e-12, "{moved:?}");
        assert_eq!(drift("y", &float(&[f32::NAN, 1.0]), &float(&[f32::NAN, 1.0])).relative, 0.0);
        assert_eq!(drift("y", &float(&[f32::INFINITY]), &float(&[1.0])).relative, f64::INFINITY);
        assert_eq!(drift("y", &float(&[1.0]), &float(&[1.0, 2.0])).relative, f64::INFINITY);
        let classes = |data: Vec<i64>| Value::from(ArrayD::from_shape_vec(vec![data.len()], data).unwrap());
        assert_eq!(drift("y", &classes(vec![1, 2, 3, 4]), &classes(vec![1, 2, 3, 9])).relative, 0.25);
    }
}
