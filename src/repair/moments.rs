//! Moments: what a ridge regression needs of its rows, summed in double precision, and its solution.
//!
//! W = W0 + (AᵀA + λ·mean(diag)·I)⁻¹ Aᵀ(T − A·W0) with centred A and T. Invariants: sums are added batch by batch in a
//! fixed order; what cannot be solved changes nothing.

use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::solvers::{Llt, Solve};
use faer::{Accum, Mat, MatRef, Par, Side};

/// Sums over rows of inputs A and targets T.
#[derive(Clone, Debug)]
pub(super) struct Moments {
    rows: usize,
    inputs: usize,
    outputs: usize,
    /// AᵀA, lower triangle.
    gram: Mat<f64>,
    /// AᵀT.
    cross: Mat<f64>,
    sum_inputs: Vec<f64>,
    sum_targets: Vec<f64>,
    /// The squares of all targets, summed.
    square_targets: f64,
}

/// The result of a fit: new weights, inputs x outputs, and the bias that goes with them.
#[derive(Clone, Debug)]
pub(super) struct Fit {
    pub(super) weights: Mat<f64>,
    pub(super) bias: Vec<f64>,
}

impl Moments {
    pub(super) fn new(inputs: usize, outputs: usize) -> Self {
        Self {
            rows: 0,
            inputs,
            outputs,
            gram: Mat::zeros(inputs, inputs),
            cross: Mat::zeros(inputs, outputs),
            sum_inputs: vec![0.0; inputs],
            sum_targets: vec![0.0; outputs],
            square_targets: 0.0,
        }
    }

    /// How many inputs and outputs there are.
    pub(super) fn widths(&self) -> (usize, usize) {
        (self.inputs, self.outputs)
    }

    /// True before the first row.
    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The moments of the rows of both.
    pub(super) fn plus(&self, other: &Self) -> Self {
        let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect();
        Self {
            rows: self.rows + other.rows,
            inputs: self.inputs,
            outputs: self.outputs,
            gram: &self.gram + &other.gram,
            cross: &self.cross + &other.cross,
            sum_inputs: sum(&self.sum_inputs, &other.sum_inputs),
            sum_targets: sum(&self.sum_targets, &other.sum_targets),
            square_targets: self.square_targets + other.square_targets,
        }
    }

    /// The squared error with which weights and bias (none: 0) predict the targets, summed over all rows and outputs.
    /// `None` if it is not finite.
    pub(super) fn error(&self, weights: &Mat<f64>, bias: &[f64]) -> Option<f64> {
        let gram =
            Mat::from_fn(self.inputs, self.inputs, |i, j| if i >= j { self.gram[(i, j)] } else { self.gram[(j, i)] });
        let spread = &gram * weights;
        let mut error = self.square_targets;
        for j in 0..self.outputs {
            let shift = bias.get(j).copied().unwrap_or(0.0);
            let mut predicted = 0.0;
            for i in 0..self.inputs {
                let weight = weights[(i, j)];
                error += weight * (spread[(i, j)] - 2.0 * self.cross[(i, j)]);
                predicted += weight * self.sum_inputs[i];
            }
            error += shift * (2.0 * predicted - 2.0 * self.sum_targets[j] + self.rows as f64 * shift);
        }
        error.is_finite().then_some(error)
    }

    /// Adds rows: `a` is rows x inputs, `t` rows x outputs, both row-major. Incomplete rows are left out.
    pub(super) fn add(&mut self, a: &[f64], t: &[f64], parallel: bool) {
        let count = |len: usize, width: usize| len.checked_div(width);
        let rows = match (count(a.len(), self.inputs), count(t.len(), self.outputs)) {
            (Some(a), Some(t)) => a.min(t),
            _ => return,
        };
        let (Some(a), Some(t)) = (a.get(..rows * self.inputs), t.get(..rows * self.outputs)) else { return };
        for row in a.chunks_exact(self.inputs) {
            self.sum_inputs.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        for row in t.chunks_exact(self.outputs) {
            self.sum_targets.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            self.square_targets += row.iter().map(|x| x * x).sum::<f64>();
        }
        let a = MatRef::from_row_major_slice(a, rows, self.inputs);
        let t = MatRef::from_row_major_slice(t, rows, self.outputs);
        let par = if parallel { Par::rayon(0) } else { Par::Seq };
        triangular::matmul(
            self.gram.as_mut(),
            BlockStructure::TriangularLower,
            Accum::Add,
            a.transpose(),
            BlockStructure::Rectangular,
            a,
            BlockStructure::Rectangular,
            1.0,
            par,
        );
        faer::linalg::matmul::matmul(self.cross.as_mut(), Accum::Add, a.transpose(), t, 1.0, par);
        self.rows += rows;
    }

    /// The weights that predict the targets best, drawn towards `old` (inputs x outputs) by `lambda`. Without a bias
    /// nothing is centred. `None` where the sums are not finite or there is no row.
    pub(super) fn solve(&self, old: &Mat<f64>, lambda: f64, with_bias: bool) -> Option<Fit> {
        self.fit(&self.system(old, lambda, with_bias)?)
    }

    /// The fit to these targets.
    pub(super) fn fit(&self, system: &System<'_>) -> Option<Fit> {
        system.fit(&self.cross, &self.sum_targets)
    }

    /// What is the same for all targets.
    pub(super) fn system<'o>(&self, old: &'o Mat<f64>, lambda: f64, with_bias: bool) -> Option<System<'o>> {
        if self.rows == 0 || self.inputs == 0 {
            return None;
        }
        let rows = self.rows as f64;
        let centre = if with_bias { rows } else { 0.0 };
        let mean_inputs: Vec<f64> = self.sum_inputs.iter().map(|s| s / rows).collect();
        let mut gram = Mat::from_fn(self.inputs, self.inputs, |i, j| {
            let sum = if i >= j { self.gram[(i, j)] } else { self.gram[(j, i)] };
            sum - centre * mean_inputs[i] * mean_inputs[j]
        });
        let mean_diagonal = (0..self.inputs).map(|i| gram[(i, i)].max(0.0)).sum::<f64>() / self.inputs as f64;
        if !mean_diagonal.is_finite() {
            return None;
        }
        let predicted = &gram * old;
        let mut factor = None;
        if mean_diagonal > 0.0 && lambda.is_finite() {
            // Where inputs depend on each other exactly and nothing else holds them, a little more does.
            let mut ridge = lambda.max(0.0) * mean_diagonal;
            let mut added = 0.0;
            factor = loop {
                (0..self.inputs).for_each(|i| gram[(i, i)] += ridge - added);
                added = ridge;
                match gram.llt(Side::Lower) {
                    Ok(factor) => break Some(factor),
                    Err(_) if ridge > mean_diagonal => return None,
                    Err(_) => ridge = (ridge * 10.0).max(mean_diagonal * 1e-13),
                }
            };
        }
        Some(System { old, predicted, factor, mean_inputs, rows, with_bias })
    }
}

/// The equations of a fit without their right side.
pub(super) struct System<'o> {
    old: &'o Mat<f64>,
    /// Centred AᵀA times the old weights.
    predicted: Mat<f64>,
    /// The ridge included; `None` where weights stay.
    factor: Option<Llt<f64>>,
    mean_inputs: Vec<f64>,
    rows: f64,
    with_bias: bool,
}

impl System<'_> {
    /// The fit to targets of which AᵀT and the sums are given. `None` where it is not finite.
    pub(super) fn fit(&self, cross: &Mat<f64>, sum_targets: &[f64]) -> Option<Fit> {
        let (inputs, outputs) = (self.old.nrows(), self.old.ncols());
        let centre = if self.with_bias { 1.0 } else { 0.0 };
        let right = Mat::from_fn(inputs, outputs, |i, j| {
            cross[(i, j)] - centre * self.mean_inputs[i] * sum_targets[j] - self.predicted[(i, j)]
        });
        let finite = |weights: &Mat<f64>| weights.col_iter().all(|c| c.iter().all(|x| x.is_finite()));
        if !finite(&right) {
            return None;
        }
        let mut weights = self.old.clone();
        if let Some(factor) = &self.factor {
            weights += factor.solve(&right);
        }
        let bias: Vec<f64> = if self.with_bias {
            let predicted = |j: usize| (0..inputs).map(|i| self.mean_inputs[i] * weights[(i, j)]).sum::<f64>();
            (0..outputs).map(|j| sum_targets[j] / self.rows - predicted(j)).collect()
        } else {
            Vec::new()
        };
        (finite(&weights) && bias.iter().all(|x| x.is_finite())).then_some(Fit { weights, bias })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Targets are 2a + 3b + 5 with independent a and b.
    fn exact() -> Moments {
        let mut moments = Moments::new(2, 1);
        let rows = [(1.0, 2.0), (0.0, 1.0), (-3.0, 0.5), (4.0, -2.0), (0.25, 0.0)];
        let a: Vec<f64> = rows.iter().flat_map(|(a, b)| [*a, *b]).collect();
        let t: Vec<f64> = rows.iter().map(|(a, b)| 2.0 * a + 3.0 * b + 5.0).collect();
        moments.add(&a, &t, false);
        moments
    }

    #[test]
    fn exact_relations_are_found() {
        let fit = exact().solve(&Mat::zeros(2, 1), 0.0, true).unwrap();
        assert!((fit.weights[(0, 0)] - 2.0).abs() < 1e-10 && (fit.weights[(1, 0)] - 3.0).abs() < 1e-10);
        assert!((fit.bias[0] - 5.0).abs() < 1e-10);
    }

    #[test]
    fn an_infinite_ridge_keeps_the_weights() {
        let old = Mat::from_fn(2, 1, |i, _| 1.0 + i as f64);
        for lambda in [1e15, f64::INFINITY] {
            let fit = exact().solve(&old, lambda, true).unwrap();
            assert!((fit.weights[(0, 0)] - 1.0).abs() < 1e-12 && (fit.weights[(1, 0)] - 2.0).abs() < 1e-12);
        }
    }

    #[test]
    fn dependent_inputs_are_solved_and_infinite_ones_are_not() {
        let mut moments = Moments::new(2, 1);
        moments.add(&[1.0, 2.0, 2.0, 4.0, 3.0, 6.0], &[5.0, 10.0, 15.0], false);
        let fit = moments.solve(&Mat::zeros(2, 1), 0.0, true).unwrap();
        assert!((fit.weights[(0, 0)] + 2.0 * fit.weights[(1, 0)] - 5.0).abs() < 1e-6);
        moments.add(&[f64::INFINITY, 0.0], &[1.0], false);
        assert!(moments.solve(&Mat::zeros(2, 1), 0.1, true).is_none());
    }

    /// H = 2 XᵀX = [[2, 1], [1, 2]], w = (3, 1): what is lost without either weight, and what the other becomes.
    #[test]
    fn papers_12_optimal_brain_surgeon() {
        let rows = [[1.0, 0.5], [0.0, 0.75f64.sqrt()]];
        for (removed, loss, left) in [(0, 6.75, 2.5), (1, 0.75, 3.5)] {
            let inputs: Vec<f64> = rows.iter().map(|row| row[1 - removed]).collect();
            let targets: Vec<f64> = rows.iter().map(|row| 3.0 * row[0] + row[1]).collect();
            let mut moments = Moments::new(1, 1);
            moments.add(&inputs, &targets, false);
            let fit = moments.solve(&Mat::zeros(1, 1), 0.0, false).unwrap();
            let residual = |(x, t): (&f64, &f64)| (t - fit.weights[(0, 0)] * x).powi(2);
            assert!((fit.weights[(0, 0)] - left).abs() < 1e-9);
            assert!((inputs.iter().zip(&targets).map(residual).sum::<f64>() - loss).abs() < 1e-9);
        }
    }
}
