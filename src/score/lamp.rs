//! LAMP (Lee et al., arXiv 2010.07611): the squares of the weights of a channel over the sum of those of all channels of
//! its group that have no less. Within a group the order is that of `l2`; between groups, where channels compete within
//! the model, the last channel of every group is worth 1 and never goes.

use super::magnitude::Magnitude;
use super::{Criterion, ScoreInput};
use crate::Result;

pub(super) struct Lamp;

impl Criterion for Lamp {
    fn score(&self, input: &ScoreInput) -> Result<Vec<Vec<f64>>> {
        let squares = Magnitude { power: 2, scales_only: false }.score(input)?;
        Ok(squares.iter().map(|group| normalised(group)).collect())
    }
}

fn normalised(squares: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..squares.len()).collect();
    order.sort_by(|a, b| squares[*b].total_cmp(&squares[*a]));
    let mut scores = vec![0.0; squares.len()];
    let mut sum = 0.0;
    // Equal channels are in each other's sums.
    for equal in order.chunk_by(|a, b| squares[*a] == squares[*b]) {
        sum += equal.iter().map(|at| squares[*at]).sum::<f64>();
        equal.iter().for_each(|at| scores[*at] = if sum > 0.0 { squares[*at] / sum } else { 0.0 });
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn papers_12_lamp() {
        let scores = normalised(&[1.0, 2.0, 4.0, 9.0]);
        let expected = [1.0 / 16.0, 2.0 / 15.0, 4.0 / 13.0, 1.0];
        assert!(scores.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{scores:?}");
        assert_eq!(normalised(&[3.0, 3.0, 0.0]), [0.5, 0.5, 0.0]);
        assert_eq!(normalised(&[0.0, 0.0]), [0.0, 0.0]);
    }
}
