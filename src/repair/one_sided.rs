//! One-sided targets: where the activation behind a contraction is flat, a fit may miss its target on the flat side as
//! far as it likes.
//!
//! Minimises |AW + b - T|² over the rows where the activation sees the target T, and only the part on the wrong side
//! of the border where it does not (after Zhang et al., "Accelerating Very Deep Convolutional Networks", section 3.2,
//! whose nonlinear response this relaxes to a convex one). With the targets of the flat rows set to what is predicted,
//! where that is flat as well, every step is an ordinary fit and the sum falls; steps are accelerated after Nesterov.
//! Where probabilities are made of the outputs, the steps are those of [`Likelihood`] in the same way.
//! Invariants: rows are summed in a fixed order, whatever runs at the same time; the ridge holds as in the linear fit.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;

use super::likelihood::Likelihood;
use super::moments::{Fit, System};

/// At most so many steps are made.
const STEPS: usize = 40;

/// At least so many may be made, whatever they cost.
const FEWEST_STEPS: usize = 6;

/// All steps together may take so many multiplications, about as many seconds of one core times 5e10.
const MOST_WORK: f64 = 1e11;

/// So many more lead from the fit of some rows to that of all.
const STEPS_TO_ALL: usize = 2;

/// A step is the last one if the error falls by less than this fraction.
const LEAST_GAIN: f64 = 0.002;

/// Rows of which nothing is forgotten.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    parts: Vec<Part>,
    likelihood: Option<Likelihood>,
}

/// The rows of one batch.
#[derive(Clone, Debug)]
struct Part {
    judging: bool,
    /// Rows x inputs, row-major.
    inputs: Vec<f32>,
    /// Rows x outputs: the target, or the border where it lies beyond.
    targets: Mat<f32>,
    /// Outputs x rows, in the order of a column-major matrix: on which side of the border everything does.
    sides: Vec<Side>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The target is seen.
    Seen,
    /// All numbers up to the target are as good.
    Below,
    /// All numbers from the target on are as good.
    Above,
}

/// Which rows count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    All,
    Judging,
    Fitted,
}

/// What targets amount to, once predictions have moved them.
struct Moved {
    cross: Mat<f64>,
    sums: Vec<f64>,
    error: f64,
}

impl Rows {
    /// No rows yet, of outputs of which probabilities are made, or parts of which are not seen.
    pub(super) fn new(likelihood: Option<Likelihood>) -> Self {
        Self { parts: Vec::new(), likelihood }
    }

    /// True where every number of the outputs is seen as it is.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// True if probabilities are made of the outputs.
    pub(super) fn are_probabilities(&self) -> bool {
        self.likelihood.is_some()
    }

    /// Adds the rows of a batch, row-major: inputs, targets, and targets moved to the border of what is flat.
    pub(super) fn add(&mut self, judging: bool, widths: (usize, usize), inputs: &[f64], targets: &[f64], seen: &[f64]) {
        let count = |len: usize, width: usize| len.checked_div(width).unwrap_or(0);
        let rows = count(inputs.len(), widths.0).min(count(targets.len(), widths.1)).min(count(seen.len(), widths.1));
        let side = |(target, seen): (&f64, &f64)| {
            if target < seen {
                Side::Below
            } else if target > seen {
                Side::Above
            } else {
                Side::Seen
            }
        };
        let matrix = |numbers: &[f64], width: usize| Mat::from_fn(rows, width, |i, j| numbers[i * width + j] as f32);
        self.parts.push(Part {
            judging,
            inputs: inputs.iter().take(rows * widths.0).map(|x| *x as f32).collect(),
            targets: matrix(seen, widths.1),
            sides: (0..widths.1)
                .flat_map(|j| (0..rows).map(move |i| i * widths.1 + j))
                .filter_map(|at| Some(side((targets.get(at)?, seen.get(at)?))))
                .collect(),
        });
    }

    /// The fit of all rows. `fitted` and `all` are the equations of the rows that do not judge, if there are others, and
    /// of all; `linear` is the fit of the former to the targets as they are. `None` if that is the better one for the
    /// rows that judge.
    pub(super) fn refine(&self, linear: &Fit, fitted: Option<&System<'_>>, all: &System<'_>) -> Option<Fit> {
        let Some(fitted) = fitted else { return self.judged(all, linear, Which::All, Which::All) };
        let found = self.judged(fitted, linear, Which::Fitted, Which::Judging)?;
        (0..STEPS_TO_ALL).try_fold(found, |fit, _| self.step(all, &fit, Which::All))
    }

    /// Goes on while the `judges` see their error fall.
    fn judged(&self, system: &System<'_>, start: &Fit, fitted: Which, judges: Which) -> Option<Fit> {
        let (mut ahead, mut last) = (start.clone(), start.clone());
        let mut least = self.error(start, judges)?;
        let mut better = false;
        let mut pace = 0.0;
        for _ in 0..self.affordable(start, fitted, judges) {
            let next = self.step(system, &ahead, fitted)?;
            let error = self.error(&next, judges)?;
            if error > least * (1.0 - LEAST_GAIN) {
                if pace == 0.0 {
                    break;
                }
                // Too far ahead: once more from where it was best.
                (ahead, pace) = (last.clone(), 0.0);
                continue;
            }
            (least, better, pace) = (error, true, pace + 1.0);
            ahead = beyond(&last, &next, (pace - 1.0) / (pace + 2.0));
            last = next;
        }
        better.then_some(last)
    }

    fn step(&self, system: &System<'_>, from: &Fit, fitted: Which) -> Option<Fit> {
        let moved = self.moved(from, fitted)?;
        system.fit(&moved.cross, &moved.sums)
    }

    /// How many steps are worth their time: the first of them gain the most.
    fn affordable(&self, fit: &Fit, fitted: Which, judges: Which) -> usize {
        let rows = |which| self.parts(which).iter().map(|part| part.targets.nrows()).sum::<usize>();
        let products = rows(fitted).saturating_mul(2).saturating_add(rows(judges)) as f64;
        let work = products * fit.weights.nrows() as f64 * fit.weights.ncols() as f64;
        ((MOST_WORK / work.max(1.0)) as usize).clamp(FEWEST_STEPS, STEPS)
    }

    /// The parts that count.
    fn parts(&self, which: Which) -> Vec<&Part> {
        let counts = |part: &&Part| match which {
            Which::All => true,
            Which::Judging => part.judging,
            Which::Fitted => !part.judging,
        };
        self.parts.iter().filter(counts).collect()
    }

    /// By how much the rows that count miss what is seen of their targets, squared and summed up.
    fn error(&self, fit: &Fit, which: Which) -> Option<f64> {
        let weights = single(&fit.weights);
        let errors: Vec<f64> =
            self.parts(which).par_iter().map(|part| self.aims(part, weights.as_ref(), &fit.bias).error).collect();
        Some(errors.iter().sum()).filter(|sum: &f64| sum.is_finite())
    }

    /// The targets of the rows that count, those on the flat side moved to what is predicted there.
    fn moved(&self, fit: &Fit, which: Which) -> Option<Moved> {
        let (inputs, outputs) = (fit.weights.nrows(), fit.weights.ncols());
        let weights = single(&fit.weights);
        let mut sum = Moved { cross: Mat::zeros(inputs, outputs), sums: vec![0.0; outputs], error: 0.0 };
        // As many at once as run at the same time, so that their sums take little memory.
        for some in self.parts(which).chunks(rayon::current_num_threads().max(1)) {
            let moved: Vec<(Mat<f32>, Aims)> =
                some.par_iter().map(|part| part.crossed(self.aims(part, weights.as_ref(), &fit.bias))).collect();
            for (cross, aims) in moved {
                sum.cross += Mat::from_fn(inputs, outputs, |i, j| f64::from(cross[(i, j)]));
                sum.sums.iter_mut().zip(aims.sums).for_each(|(all, one)| *all += one);
                sum.error += aims.error;
            }
        }
        sum.error.is_finite().then_some(sum)
    }

    fn aims(&self, part: &Part, weights: MatRef<'_, f32>, bias: &[f64]) -> Aims {
        let predicted = part.predicted(weights, bias);
        match &self.likelihood {
            Some(likelihood) => likelihood.aims(predicted, &part.targets),
            None => part.aims(predicted),
        }
    }
}

/// A matrix in single precision.
fn single(matrix: &Mat<f64>) -> Mat<f32> {
    Mat::from_fn(matrix.nrows(), matrix.ncols(), |i, j| matrix[(i, j)] as f32)
}

/// What the rows of a part aim at.
pub(super) struct Aims {
    /// Rows x outputs.
    pub(super) numbers: Mat<f32>,
    /// Over all rows.
    pub(super) sums: Vec<f64>,
    /// How far the predictions are from what is as good as the targets.
    pub(super) error: f64,
}

impl Part {
    fn inputs(&self) -> MatRef<'_, f32> {
        let rows = self.targets.nrows();
        MatRef::from_row_major_slice(&self.inputs, rows, self.inputs.len() / rows.max(1))
    }

    /// With the products of inputs and aims.
    fn crossed(&self, aims: Aims) -> (Mat<f32>, Aims) {
        let inputs = self.inputs();
        let mut cross = Mat::<f32>::zeros(inputs.ncols(), aims.numbers.ncols());
        matmul(cross.as_mut(), Accum::Replace, inputs.transpose(), aims.numbers.as_ref(), 1.0, Par::Seq);
        (cross, aims)
    }

    /// Rows x outputs.
    fn predicted(&self, weights: MatRef<'_, f32>, bias: &[f64]) -> Mat<f32> {
        let mut predicted = Mat::<f32>::zeros(self.targets.nrows(), self.targets.ncols());
        matmul(predicted.as_mut(), Accum::Replace, self.inputs(), weights, 1.0, Par::Seq);
        for (j, shift) in bias.iter().enumerate().take(predicted.ncols()) {
            predicted.col_mut(j).iter_mut().for_each(|x| *x += *shift as f32);
        }
        predicted
    }

    fn aims(&self, mut predicted: Mat<f32>) -> Aims {
        let (rows, outputs) = (self.targets.nrows(), self.targets.ncols());
        let mut sums = vec![0.0; outputs];
        let mut error = 0.0;
        for (j, sum) in sums.iter_mut().enumerate() {
            for i in 0..rows {
                let (found, target) = (predicted[(i, j)], self.targets[(i, j)]);
                let aim = match self.sides.get(j * rows + i) {
                    Some(Side::Below) => found.min(target),
                    Some(Side::Above) => found.max(target),
                    _ => target,
                };
                error += f64::from(found - aim).powi(2);
                *sum += f64::from(aim);
                predicted[(i, j)] = aim;
            }
        }
        Aims { numbers: predicted, sums, error }
    }
}

/// The point as far behind `next`, seen from `last`, as this part of the way between them.
fn beyond(last: &Fit, next: &Fit, part: f64) -> Fit {
    let weights = Mat::from_fn(next.weights.nrows(), next.weights.ncols(), |i, j| {
        next.weights[(i, j)] + part * (next.weights[(i, j)] - last.weights[(i, j)])
    });
    Fit { weights, bias: next.bias.iter().zip(&last.bias).map(|(next, last)| next + part * (next - last)).collect() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::moments::Moments;
    use super::*;

    /// Targets |x| - 3, of which only what lies above 0 is seen: a line fits the two visible rows, and no line fits all.
    #[test]
    fn what_is_not_seen_is_not_fitted() {
        let inputs = [1.0, 2.0, 4.0, 5.0, 0.0, -1.0];
        let targets: Vec<f64> = vec![-2.0, -1.0, 1.0, 2.0, -30.0, -20.0];
        let seen: Vec<f64> = targets.iter().map(|t: &f64| t.max(0.0)).collect();
        let (mut moments, mut rows) = (Moments::new(1, 1), Rows::default());
        moments.add(&inputs, &targets, false);
        rows.add(false, (1, 1), &inputs, &targets, &seen);
        let old = Mat::zeros(1, 1);
        let system = moments.system(&old, 1e-6, true).unwrap();
        let linear = moments.solve(&old, 1e-6, true).unwrap();
        let error = |fit: &Fit| rows.moved(fit, Which::All).unwrap().error;
        assert!(error(&linear) > 1.0, "{linear:?}");
        let fit = rows.refine(&linear, None, &system).unwrap();
        assert!(error(&fit) < 0.05 * error(&linear), "{} {} {fit:?}", error(&fit), error(&linear));
    }

    /// Numbers that are far apart make the same probabilities from far less, and those in the middle must be met.
    #[test]
    fn probabilities_are_fitted_and_not_the_numbers_that_make_them() {
        let inputs = [-3.0, -1.0, 1.0, 3.0];
        let targets = [-50.0, -1.0, 1.0, 50.0];
        for shares in [false, true] {
            let width = if shares { 2 } else { 1 };
            // Of two shares, the second number is 0.
            let all: Vec<f64> = targets.iter().flat_map(|t| [*t, 0.0].into_iter().take(width)).collect();
            let mut rows = Rows::new(Some(Likelihood { shares, shifts: vec![0.0; width] }));
            let mut moments = Moments::new(1, width);
            moments.add(&inputs, &all, false);
            rows.add(false, (1, width), &inputs, &all, &all);
            let old = Mat::zeros(1, width);
            let linear = moments.solve(&old, 1e-6, true).unwrap();
            let system = moments.system(&linear.weights, 1e-6, true).unwrap();
            let fit = rows.refine(&linear, None, &system).unwrap();
            let slope = |fit: &Fit| fit.weights[(0, 0)] - if shares { fit.weights[(0, 1)] } else { 0.0 };
            assert!(slope(&linear) > 10.0 && slope(&fit) < 5.0, "{} {}", slope(&linear), slope(&fit));
            let error = |fit: &Fit| rows.error(fit, Which::All).unwrap();
            assert!(error(&fit) < 0.5 * error(&linear), "{} {}", error(&fit), error(&linear));
        }
    }

    #[test]
    fn a_fit_that_is_exact_stays() {
        let inputs = [1.0, -1.0, 2.0, -3.0];
        let targets: Vec<f64> = inputs.iter().map(|x| 2.0 * x + 1.0).collect();
        let seen: Vec<f64> = targets.iter().map(|t| t.max(0.0)).collect();
        let (mut moments, mut rows) = (Moments::new(1, 1), Rows::default());
        moments.add(&inputs, &targets, false);
        rows.add(false, (1, 1), &inputs, &targets, &seen);
        let old = Mat::zeros(1, 1);
        let linear = moments.solve(&old, 0.0, true).unwrap();
        let system = moments.system(&old, 0.0, true).unwrap();
        let fit = rows.refine(&linear, None, &system).unwrap_or(linear);
        assert!((fit.weights[(0, 0)] - 2.0).abs() < 1e-6 && (fit.bias[0] - 1.0).abs() < 1e-6, "{fit:?}");
    }
}
