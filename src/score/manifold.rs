//! Manifold: how much the geometry of the samples changes when a channel goes.
//!
//! After ManiDP (Tang et al., CVPR 2021, arXiv 2103.05861), whose loss keeps the similarity of samples in feature space
//! and in the space of saliencies alike; here without its gates, on the model as it is:
//!
//! ```text
//! s_k = ‖G(A) - G(A without column k)‖² / B²,   G(A) = Â Âᵀ,   Â = A with rows of length 1
//! ```
//!
//! A holds B samples by channels, each entry the mean of a channel over all positions.

use super::measured::{Place, lacking, mean_over, score};
use super::{Criterion, ScoreInput};
use crate::Result;
use crate::calibration::Segment;

pub(super) struct Manifold;

impl Criterion for Manifold {
    fn score(&self, input: &ScoreInput) -> Result<Vec<Vec<f64>>> {
        score(input, &|group, places| {
            mean_over(places, |place| Ok(scores(&features(place, group.extent)?, group.extent)))
        })
    }
}

/// B × channels, row-major.
fn features(place: &Place, channels: usize) -> Result<Vec<f64>> {
    if place.tap.features.is_empty() {
        return Err(lacking(place.tap, "features of samples"));
    }
    let neighbours: usize = place.at.segments.iter().map(|s| s.outer * s.inner).sum();
    let mut all = Vec::with_capacity(place.tap.features.len() * channels);
    for row in place.tap.features.values() {
        let start = all.len();
        all.resize(start + channels, 0.0);
        for (position, channel) in place.at.segments.iter().flat_map(Segment::positions) {
            if let (Some(total), Some(value)) = (all.get_mut(start + channel), row.get(position)) {
                *total += f64::from(*value) / neighbours.max(1) as f64;
            }
        }
    }
    Ok(all)
}

/// One score per column of a row-major matrix.
fn scores(a: &[f64], columns: usize) -> Vec<f64> {
    let rows: Vec<&[f64]> = a.chunks(columns.max(1)).collect();
    let count = rows.len();
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let products: Vec<f64> = rows.iter().flat_map(|x| rows.iter().map(|y| dot(x, y))).collect();
    let squares: Vec<f64> = products.iter().step_by(count + 1).copied().collect();
    // The reciprocal length of a row from the square of its length; what rounding leaves of nothing counts as nothing.
    let reciprocal = |left: f64, whole: f64| if left > whole * 1e-12 { left.sqrt().recip() } else { 0.0 };
    let lengths: Vec<f64> = squares.iter().map(|s| reciprocal(*s, *s)).collect();
    let score = |k: usize| {
        let column: Vec<f64> = rows.iter().map(|row| row.get(k).copied().unwrap_or(0.0)).collect();
        let others: Vec<f64> = column.iter().zip(&squares).map(|(a, s)| reciprocal(s - a * a, *s)).collect();
        let mut total = 0.0;
        let by_row = products.chunks(count.max(1)).zip(&column).zip(lengths.iter().zip(&others));
        for ((products, a), (length, other)) in by_row {
            let by_column = products.iter().zip(&column).zip(lengths.iter().zip(&others));
            for ((product, b), (length_b, other_b)) in by_column {
                let change = product * length * length_b - (product - a * b) * other * other_b;
                total += change * change;
            }
        }
        total / (count * count).max(1) as f64
    };
    (0..columns).map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_numbers() {
        let found = scores(&[1., 1., 0., 1., 1., 1., 0., 0., 1., 1., 1., 2.], 3);
        let expected = [0.006481, 0.006481, 0.214447];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 5e-7), "{found:?}");
    }

    #[test]
    fn what_is_nothing_or_repeated_is_cheap_and_scale_does_not_matter() {
        assert_eq!(scores(&[1., 0., 2., 3., 0., 1.], 3)[1], 0.0);
        let plain = scores(&[1., 2., 5., 3., 1., 1.], 3);
        let scaled = scores(&[10., 20., 50., 3., 1., 1.], 3);
        assert!(plain.iter().zip(scaled).all(|(a, b)| (a - b).abs() < 1e-12));
    }
}
