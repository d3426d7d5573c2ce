//! Activations: how much a channel delivers to the weights that contract it.
//!
//! Mean magnitude, root mean square, variance, and the share that is not zero, which is 1 - APoZ (Hu et al., Network
//! Trimming, arXiv 1607.03250).

use super::measured::{mean_over, score};
use super::{Criterion, ScoreInput};
use crate::Result;
use crate::calibration::Measure;

/// What counts.
pub(super) enum Activation {
    /// Mean of |a|.
    Magnitude,
    /// Root of the mean of a².
    Energy,
    /// Share of a ≠ 0.
    NonZero,
    /// Mean of a² less the square of the mean.
    Variance,
}

impl Criterion for Activation {
    fn score(&self, input: &ScoreInput) -> Result<Vec<Vec<f64>>> {
        score(input, &|_, places| {
            mean_over(places, |place| match self {
                Self::Magnitude => place.mean(Measure::Absolute),
                Self::Energy => Ok(place.mean(Measure::Square)?.into_iter().map(f64::sqrt).collect()),
                Self::NonZero => place.mean(Measure::NonZero),
                Self::Variance => {
                    let means = place.mean(Measure::Sum)?;
                    let squares = place.mean(Measure::Square)?;
                    Ok(squares.iter().zip(means).map(|(square, mean)| (square - mean * mean).max(0.0)).collect())
                }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::criterion;
    use super::super::testing::{measured, scores};

    /// x has two channels (1, -2, 0, 3) and (0, 0, 0, 4); the identity delivers them as they are.
    const MODEL: &str = "in x [1,2,4]
         a = Conv(x, w[2,2,1])
         y = Conv(a, v[1,2,1])
         out y";

    #[test]
    fn worked_numbers() {
        let weights: [(&str, &[f32]); 2] = [("w", &[1., 0., 0., 1.]), ("v", &[0.5, -2.])];
        let measured = measured(MODEL, &weights, &[1., -2., 0., 3., 0., 0., 0., 4.]);
        let near = |name: &str, expected: [f64; 2]| {
            let found = scores(&measured, criterion(name).unwrap());
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{name}: {found:?}");
        };
        near("activation-l1", [6.0 / 4.0, 1.0]);
        near("activation-l2", [(14f64 / 4.0).sqrt(), 2.0]);
        near("apoz", [0.75, 0.25]);
        near("activation-variance", [14.0 / 4.0 - 0.25, 4.0 - 1.0]);
        near("wanda", [0.5 * (14f64 / 4.0).sqrt(), 2.0 * 2.0]);
    }

    /// Weights that the model computes are not known; what channels deliver is.
    #[test]
    fn wanda_without_weights_is_what_channels_deliver() {
        let model = "in x [1,4,2]
             a = MatMul(x, w[2,2])
             r = Relu(v[2,1])
             y = MatMul(a, r)
             out y";
        let measured =
            measured(model, &[("w", &[1., 0., 0., 1.]), ("v", &[0.5, 2.])], &[1., 0., -2., 0., 0., 0., 3., 4.]);
        let found = scores(&measured, criterion("wanda").unwrap());
        let expected = [(14f64 / 4.0).sqrt(), 2.0];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
    }
}
