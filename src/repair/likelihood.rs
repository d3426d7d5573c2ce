//! Likelihood: where probabilities are made of what a contraction gives, a fit aims at the probabilities.
//!
//! Differences between numbers that are far apart hardly move a probability, and a fit to the numbers spends itself on
//! them. So the cross entropy to the dense model's probabilities is minimised. Its curvature is at most 1/2 for shares
//! of a whole and 1/4 for each number alone (Böhning, "Multinomial logistic regression algorithm", 1992), so that the
//! fit to `prediction + (wanted - found) / curvature` never makes it larger: every step is an ordinary fit.

use faer::Mat;

use super::one_sided::Aims;

/// How probabilities are made of the outputs of a contraction.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Likelihood {
    /// True for the shares of a whole, all outputs together; false for each output alone.
    pub(super) shares: bool,
    /// What is added to every output before.
    pub(super) shifts: Vec<f64>,
}

impl Likelihood {
    /// What rows aim at whose outputs are `predicted` (rows x outputs) and should be `targets`; the error is the cross
    /// entropy above the least.
    pub(super) fn aims(&self, mut predicted: Mat<f32>, targets: &Mat<f32>) -> Aims {
        let (rows, outputs) = (predicted.nrows(), predicted.ncols());
        let (mut sums, mut error) = (vec![0.0; outputs], 0.0);
        let (mut found, mut wanted) = (vec![0.0; outputs], vec![0.0; outputs]);
        let curvature = if self.shares { 0.5 } else { 0.25 };
        for i in 0..rows {
            for (j, (found, wanted)) in found.iter_mut().zip(&mut wanted).enumerate() {
                let shift = self.shifts.get(j).copied().unwrap_or(0.0);
                *found = f64::from(predicted[(i, j)]) + shift;
                *wanted = f64::from(targets[(i, j)]) + shift;
            }
            if self.shares {
                error += divergence_of_shares(&mut wanted, &mut found);
            } else {
                error += wanted.iter_mut().zip(&mut found).map(|(w, f)| divergence_of_each(w, f)).sum::<f64>();
            }
            for (j, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                let aim = f64::from(predicted[(i, j)]) + (wanted - found) / curvature;
                if let Some(sum) = sums.get_mut(j) {
                    *sum += aim;
                }
                predicted[(i, j)] = aim as f32;
            }
        }
        Aims { numbers: predicted, sums, error }
    }
}

/// Turns both into probabilities and gives how far `found` diverges from `wanted` (Kullback and Leibler).
fn divergence_of_shares(wanted: &mut [f64], found: &mut [f64]) -> f64 {
    logarithms(wanted);
    logarithms(found);
    let mut sum = 0.0;
    for (wanted, found) in wanted.iter_mut().zip(found) {
        let difference = *wanted - *found;
        (*wanted, *found) = (wanted.exp(), found.exp());
        if *wanted > 0.0 {
            sum += *wanted * difference;
        }
    }
    // Rounding may end below 0; `max` would take what is no number for the least.
    if sum < 0.0 { 0.0 } else { sum }
}

/// The logarithms of the shares of numbers.
fn logarithms(numbers: &mut [f64]) {
    let most = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = numbers.iter().map(|x| (x - most).exp()).sum();
    let whole = most + sum.ln();
    numbers.iter_mut().for_each(|x| *x -= whole);
}

/// As for shares, of one number and 0.
fn divergence_of_each(wanted: &mut f64, found: &mut f64) -> f64 {
    let (mut first, mut second) = ([*wanted, 0.0], [*found, 0.0]);
    let divergence = divergence_of_shares(&mut first, &mut second);
    (*wanted, *found) = (first[0], second[0]);
    divergence
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The divergence of these predictions from these targets, and the aims.
    fn of(shares: bool, predicted: [f32; 2], targets: [f32; 2]) -> (f64, [f32; 2]) {
        let row = |numbers: [f32; 2]| Mat::from_fn(1, 2, |_, j| numbers[j]);
        let aims = Likelihood { shares, shifts: vec![0.0, 1.0] }.aims(row(predicted), &row(targets));
        (aims.error, [aims.numbers[(0, 0)], aims.numbers[(0, 1)]])
    }

    #[test]
    fn what_gives_the_same_probabilities_is_met() {
        let (error, aims) = of(true, [3.0, 4.0], [-5.0, -4.0]);
        assert!(error < 1e-12 && (aims[0] - 3.0).abs() < 1e-6 && (aims[1] - 4.0).abs() < 1e-6, "{error} {aims:?}");
        // Each alone is another matter.
        assert!(of(false, [3.0, 4.0], [-5.0, -4.0]).0 > 1.0);
        assert!(of(false, [3.0, 4.0], [3.0, 4.0]).0 < 1e-12);
        // What is no number is no success.
        assert!(of(true, [f32::INFINITY, 0.0], [0.0, 0.0]).0.is_nan());
    }

    #[test]
    fn aims_never_make_it_worse() {
        for shares in [true, false] {
            for (predicted, targets) in
                [([0.0, 0.0], [6.0, -6.0]), ([9.0, -2.0], [-1.0, 1.0]), ([0.5, 0.0], [0.0, 0.3])]
            {
                let (before, aims) = of(shares, predicted, targets);
                let (after, _) = of(shares, aims, targets);
                assert!(after < before, "{shares} {predicted:?} {targets:?}: {before} {after}");
            }
        }
    }
}
