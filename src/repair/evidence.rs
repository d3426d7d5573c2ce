//! Evidence: the moments of one fit, divided so that the fit is judged by samples that it has not seen.
//!
//! With few samples, or many inputs, a fit follows its samples and not the layer. So one batch in four only judges: the
//! ridge is raised until what it predicts there is best, up to leaving the weights as they are and moving the bias
//! alone; then all samples fit with the ridge that was chosen. Invariant: the ridge is never below the one asked for.

use faer::Mat;

use super::moments::{Fit, Moments};

/// One batch in so many judges.
const JUDGES: usize = 4;

/// What the ridge is multiplied by, one after the other.
const FACTORS: &[f64] = &[1.0, 10.0, 100.0, 1000.0];

/// What was seen at one contraction.
pub(super) struct Evidence {
    fitted: Moments,
    judging: Moments,
}

impl Evidence {
    pub(super) fn new(inputs: usize, outputs: usize) -> Self {
        Self { fitted: Moments::new(inputs, outputs), judging: Moments::new(inputs, outputs) }
    }

    /// Adds the rows of a batch, see [`Moments::add`].
    pub(super) fn add(&mut self, batch: usize, inputs: &[f64], targets: &[f64], parallel: bool) {
        let side = if batch % JUDGES == 1 { &mut self.judging } else { &mut self.fitted };
        side.add(inputs, targets, parallel);
    }

    /// The new weights and bias, see [`Moments::solve`]. A single batch is believed as it is.
    pub(super) fn solve(&self, old: &Mat<f64>, lambda: f64, with_bias: bool) -> Option<Fit> {
        let all = self.fitted.plus(&self.judging);
        if self.judging.is_empty() || self.fitted.is_empty() || !lambda.is_finite() {
            return all.solve(old, lambda, with_bias);
        }
        let ridges = FACTORS.iter().map(|factor| factor * lambda).chain([f64::INFINITY]);
        let judged = ridges.filter_map(|ridge| {
            let fit = self.fitted.solve(old, ridge, with_bias)?;
            Some((self.judging.error(&fit.weights, &fit.bias)?, ridge))
        });
        let (_, ridge) = judged.min_by(|a, b| a.0.total_cmp(&b.0))?;
        all.solve(old, ridge, with_bias)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_fit_that_does_not_generalise_is_not_made() {
        // Two batches whose targets contradict each other: the old weights, which predict nothing, are better.
        let mut evidence = Evidence::new(1, 1);
        evidence.add(0, &[1.0, -1.0, 2.0, -2.0], &[1.0, -1.0, 2.0, -2.0], false);
        evidence.add(1, &[1.0, -1.0, 2.0, -2.0], &[-1.0, 1.0, -2.0, 2.0], false);
        let fit = evidence.solve(&Mat::zeros(1, 1), 1e-2, true).unwrap();
        assert_eq!((fit.weights[(0, 0)], fit.bias[0]), (0.0, 0.0));
        // Batches that agree are followed.
        let mut evidence = Evidence::new(1, 1);
        for batch in 0..4 {
            evidence.add(batch, &[1.0, -1.0, 2.0, -2.0], &[3.0, -1.0, 5.0, -3.0], false);
        }
        let fit = evidence.solve(&Mat::zeros(1, 1), 1e-9, true).unwrap();
        assert!((fit.weights[(0, 0)] - 2.0).abs() < 1e-6 && (fit.bias[0] - 1.0).abs() < 1e-6);
    }
}
