//! Maps: what one sample's activations, channel by channel, say beyond sums. Computed on the host, sample by sample.
//!
//! Rank: the rank of the picture that a channel is (HRank, Lin et al., CVPR 2020, arXiv 2002.10179). Independence: by how
//! much the nuclear norm of the matrix of channels by positions drops when the channel's row is zeroed (CHIP, Sui et al.,
//! NeurIPS 2021, arXiv 2110.13981).

use faer::{Mat, Side};

use crate::{Error, Result};

/// The values of one sample, one row per position of the tapped axis.
pub(super) struct Maps {
    /// Row-major, `rows × height × width`.
    pub(super) values: Vec<f64>,
    /// Positions of the tapped axis.
    pub(super) rows: usize,
    /// The first of the other axes.
    pub(super) height: usize,
    /// All further axes together.
    pub(super) width: usize,
}

impl Maps {
    fn row(&self, row: usize) -> &[f64] {
        let size = self.height.saturating_mul(self.width);
        self.values.get(row * size..(row + 1) * size).unwrap_or_default()
    }

    /// The rank of every row as a matrix of height × width: singular values above the largest times the longer side
    /// times the precision of single-precision numbers count.
    ///
    /// # Errors
    /// When singular values do not converge.
    pub(super) fn ranks(&self) -> Result<Vec<f64>> {
        (0..self.rows)
            .map(|row| {
                let values = self.row(row);
                let matrix = Mat::from_fn(self.height, self.width, |i, j| at(values, i * self.width + j));
                let singular = matrix.singular_values().map_err(|_| unsolved())?;
                let largest = singular.iter().copied().fold(0.0, f64::max);
                let least = largest * self.height.max(self.width) as f64 * f64::from(f32::EPSILON);
                Ok(singular.iter().filter(|s| **s > least).count() as f64)
            })
            .collect()
    }

    /// ‖A‖_* less ‖A with row k zeroed‖_* for every row k of A, the matrix of rows by positions.
    ///
    /// With A = U diag(s) Vᵀ, zeroing row k turns AᵀA into AᵀA - a aᵀ for a = V diag(s) u, u being row k of U. Since √x
    /// is (2/π) ∫ x / (x + t²) dt over t > 0, the trace of the root falls by
    ///
    /// ```text
    /// -(1/π) ∫ ln h(t) dt,   h(t) = 1 - Σ u_i² s_i² / (s_i² + t²)
    /// ```
    ///
    /// (Sherman-Morrison and integration by parts), so all rows together cost one eigendecomposition. The integrand is
    /// smooth in ln t and dies away at both ends, where the trapezoidal rule is exact to many digits.
    ///
    /// # Errors
    /// When eigenvalues do not converge.
    pub(super) fn independence(&self) -> Result<Vec<f64>> {
        /// The step in ln t, the range of it beside the largest singular value.
        const STEP: f64 = 0.35;
        const RANGE: (f64, f64) = (-23.0, 16.0);
        let positions = self.height.saturating_mul(self.width);
        let matrix = Mat::from_fn(self.rows, positions, |i, j| at(&self.values, i * positions + j));
        let is_wide = self.rows <= positions;
        let gram = if is_wide { &matrix * matrix.transpose() } else { matrix.transpose() * &matrix };
        let eigen = gram.self_adjoint_eigen(Side::Lower).map_err(|_| unsolved())?;
        let squares: Vec<f64> = eigen.S().column_vector().iter().map(|s| s.max(0.0)).collect();
        let largest = squares.iter().copied().fold(0.0, f64::max);
        if largest == 0.0 {
            return Ok(vec![0.0; self.rows]);
        }
        // What rounding leaves of eigenvalues that are zero.
        let least = largest * f64::EPSILON * squares.len() as f64;
        let vectors = if is_wide { eigen.U().to_owned() } else { &matrix * eigen.U() };
        let nodes = ((RANGE.1 - RANGE.0) / STEP) as usize;
        let independence = |row: usize| {
            let shares: Vec<(f64, f64)> = squares
                .iter()
                .enumerate()
                .filter(|(_, square)| **square > least)
                .map(|(i, square)| {
                    let u = *vectors.get(row, i);
                    (*square, if is_wide { u * u } else { u * u / square })
                })
                .collect();
            let outside = (1.0 - shares.iter().map(|(_, share)| share).sum::<f64>()).max(0.0);
            let mut total = 0.0;
            let mut t = 0.0;
            for node in 0..=nodes {
                t = largest.sqrt() * (RANGE.0 + STEP * node as f64).exp();
                let h = outside + shares.iter().map(|(square, share)| share * t * t / (square + t * t)).sum::<f64>();
                total -= STEP * t * h.clamp(f64::MIN_POSITIVE, 1.0).ln();
            }
            // Far out -ln h is |a|² / t², whose integral from t on is |a|² / t; the last node counts half of it.
            let length: f64 = shares.iter().map(|(square, share)| square * share).sum();
            (total + length / t - STEP * length / t / 2.0) / std::f64::consts::PI
        };
        Ok((0..self.rows).map(independence).collect())
    }
}

fn at(values: &[f64], index: usize) -> f64 {
    values.get(index).copied().unwrap_or(0.0)
}

fn unsolved() -> Error {
    Error::engine("the singular values of activations cannot be found")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    fn maps(rows: usize, height: usize, width: usize, values: Vec<f64>) -> Maps {
        Maps { values, rows, height, width }
    }

    #[test]
    fn ranks_of_pictures() {
        let rank_one = [1., 2., 3., 2., 4., 6., 3., 6., 9.];
        let rank_two = [1., 0., 0., 0., 1., 0., 1., 1., 0.];
        let values = [rank_one.as_slice(), &rank_two, &[0.; 9]].concat();
        assert_eq!(maps(3, 3, 3, values).ranks().unwrap(), [1.0, 2.0, 0.0]);
    }

    fn nuclear(values: &[f64], rows: usize, columns: usize) -> f64 {
        let matrix = Mat::from_fn(rows, columns, |i, j| values[i * columns + j]);
        matrix.singular_values().unwrap().iter().sum()
    }

    #[test]
    fn independence_equals_its_definition() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut number = || f64::from(random.next_u32()) / f64::from(u32::MAX) - 0.5;
        for (rows, columns) in [(3, 8), (6, 4), (5, 5), (4, 1)] {
            let mut values: Vec<f64> = (0..rows * columns).map(|_| number()).collect();
            // One row is twice another, one is nothing.
            for j in 0..columns {
                values[columns + j] = 2.0 * values[j];
                values[2 * columns + j] = 0.0;
            }
            let found = maps(rows, columns, 1, values.clone()).independence().unwrap();
            for (k, found) in found.iter().enumerate() {
                let mut zeroed = values.clone();
                zeroed[k * columns..(k + 1) * columns].fill(0.0);
                let expected = nuclear(&values, rows, columns) - nuclear(&zeroed, rows, columns);
                assert!((found - expected).abs() < 1e-6, "{rows}x{columns}, row {k}: {found} {expected}");
            }
        }
        // Orthogonal rows of length 3 and 4: each is worth its length.
        let found = maps(2, 1, 2, vec![3., 0., 0., 4.]).independence().unwrap();
        assert!((found[0] - 3.0).abs() < 1e-7 && (found[1] - 4.0).abs() < 1e-7, "{found:?}");
    }
}
