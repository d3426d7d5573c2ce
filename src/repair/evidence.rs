//! Evidence: the moments of one fit, divided so that the fit is judged by samples that it has not seen.
//!
//! With few samples, or many inputs, a fit follows its samples and not the layer. So one batch in four only judges: the
//! ridge is raised until what it predicts there is best, up to leaving the weights as they are and moving the bias
//! alone; then all samples fit with the ridge that was chosen. Invariant: the ridge is never below the one asked for.

use faer::Mat;
use rayon::prelude::*;

use super::likelihood::Likelihood;
use super::moments::{Fit, Moments};
use super::one_sided::Rows;

/// One batch in so many judges.
const JUDGES: usize = 4;

/// What the ridge is multiplied by, one after the other.
const FACTORS: &[f64] = &[1.0, 10.0, 100.0, 1000.0];

/// What was seen at one contraction.
pub(super) struct Evidence {
    fitted: Moments,
    judging: Moments,
    one_sided: Rows,
}

impl Evidence {
    /// Nothing yet of so many inputs and outputs; how probabilities are made of the outputs, if they are.
    pub(super) fn new(inputs: usize, outputs: usize, likelihood: Option<Likelihood>) -> Self {
        let moments = || Moments::new(inputs, outputs);
        Self { fitted: moments(), judging: moments(), one_sided: Rows::new(likelihood) }
    }

    /// Adds the rows of a batch, see [`Moments::add`] and, with the targets that an activation sees, [`Rows::add`].
    pub(super) fn add(&mut self, batch: usize, inputs: &[f64], targets: &[f64], seen: Option<&[f64]>, parallel: bool) {
        let judges = batch % JUDGES == 1;
        let side = if judges { &mut self.judging } else { &mut self.fitted };
        side.add(inputs, targets, parallel);
        if let Some(seen) = seen {
            self.one_sided.add(judges, side.widths(), inputs, targets, seen);
        }
    }

    /// The new weights and bias, see [`Moments::solve`]. A single batch is believed as it is.
    pub(super) fn solve(&self, old: &Mat<f64>, lambda: f64, with_bias: bool) -> Option<Fit> {
        let all = self.fitted.plus(&self.judging);
        if self.judging.is_empty() || self.fitted.is_empty() || !lambda.is_finite() {
            let fit = all.solve(old, lambda, with_bias)?;
            if self.one_sided.is_empty() {
                return Some(fit);
            }
            let anchor = self.anchor(old, &fit);
            let refined = self.one_sided.refine(&fit, None, &all.system(&anchor, lambda, with_bias)?);
            return Some(refined.unwrap_or(fit));
        }
        let ridges: Vec<f64> = FACTORS.iter().map(|factor| factor * lambda).chain([f64::INFINITY]).collect();
        let judge = |ridge: &f64| {
            let fit = self.fitted.solve(old, *ridge, with_bias)?;
            Some((self.judging.error(&fit.weights, &fit.bias)?, *ridge, fit))
        };
        let judged: Vec<_> = ridges.par_iter().map(judge).collect();
        let (_, ridge, linear) = judged.into_iter().flatten().min_by(|a, b| a.0.total_cmp(&b.0))?;
        if !self.one_sided.is_empty() {
            let anchor = self.anchor(old, &linear);
            let fitted = self.fitted.system(&anchor, ridge, with_bias)?;
            let refined = self.one_sided.refine(&linear, Some(&fitted), &all.system(&anchor, ridge, with_bias)?);
            if refined.is_some() {
                return refined;
            }
        }
        all.solve(old, ridge, with_bias)
    }

    /// What a fit with steps is drawn towards. Probabilities that are nearly 0 or 1 hold weights hardly at all, and would
    /// let go of what the linear fit has gained.
    fn anchor(&self, old: &Mat<f64>, linear: &Fit) -> Mat<f64> {
        if self.one_sided.are_probabilities() { linear.weights.clone() } else { old.clone() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_fit_that_does_not_generalise_is_not_made() {
        // Two batches whose targets contradict each other: the old weights, which predict nothing, are better.
        let mut evidence = Evidence::new(1, 1, None);
        evidence.add(0, &[1.0, -1.0, 2.0, -2.0], &[1.0, -1.0, 2.0, -2.0], None, false);
        evidence.add(1, &[1.0, -1.0, 2.0, -2.0], &[-1.0, 1.0, -2.0, 2.0], None, false);
        let fit = evidence.solve(&Mat::zeros(1, 1), 1e-2, true).unwrap();
        assert_eq!((fit.weights[(0, 0)], fit.bias[0]), (0.0, 0.0));
        // Batches that agree are followed.
        let mut evidence = Evidence::new(1, 1, None);
        for batch in 0..4 {
            evidence.add(batch, &[1.0, -1.0, 2.0, -2.0], &[3.0, -1.0, 5.0, -3.0], None, false);
        }
        let fit = evidence.solve(&Mat::zeros(1, 1), 1e-9, true).unwrap();
        assert!((fit.weights[(0, 0)] - 2.0).abs() < 1e-6 && (fit.bias[0] - 1.0).abs() < 1e-6);
    }
}
