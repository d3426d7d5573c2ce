//! Wanda: weight magnitude times the norm of what the weight is fed, summed over the weights of a channel.
//!
//! Sun et al., arXiv 2306.11695: S_ij = |W_ij| ‖X_j‖₂; whole columns are summed, because whole channels go. The norm is
//! the root mean square, which orders channels as the norm does and does not depend on the number of samples. Weights
//! that lie side by side with the tapped axis are paired with it position by position.

use super::measured::{Place, score};
use super::weights::column_sums;
use super::{Criterion, ScoreInput};
use crate::Result;
use crate::calibration::Measure;

pub(super) struct Wanda;

impl Criterion for Wanda {
    fn score(&self, input: &ScoreInput) -> Result<Vec<Vec<f64>>> {
        score(input, &|group, places| {
            let mut total = vec![0.0; group.extent];
            for place in places {
                let own = products(input, place, group.atom)?;
                total.iter_mut().zip(own).for_each(|(total, own)| *total += own);
            }
            Ok(total)
        })
    }
}

fn products(input: &ScoreInput, place: &Place, atom: crate::axes::Expr) -> Result<Vec<f64>> {
    let root = |squares: Vec<f64>| squares.into_iter().map(f64::sqrt).collect::<Vec<f64>>();
    let norms = root(place.mean(Measure::Square)?);
    let mut total = vec![0.0; norms.len()];
    let sums = place.at.weights.iter().map(|weight| column_sums(input, weight, 1)).collect::<Result<Vec<_>>>()?;
    if sums.iter().all(Option::is_none) {
        // No weight contracts the group, as with queries and keys, or none that is known: what it delivers is all there is.
        return Ok(norms);
    }
    for sums in sums.into_iter().flatten() {
        if sums.by_position.len() == place.tap.extent && sums.is_like(input, place.value, place.tap.axis) {
            let squares = place.tap.sums.get(&Measure::Square).map(|s| s.values()).unwrap_or_default();
            let squares = squares.iter().map(|square| square / place.tap.count.max(1) as f64).collect();
            let norms = root(squares);
            for (position, channel) in place.at.segments.iter().flat_map(|s| s.positions()) {
                if let (Some(total), Some(sum), Some(norm)) =
                    (total.get_mut(channel), sums.by_position.get(position), norms.get(position))
                {
                    *total += sum * norm;
                }
            }
        } else {
            let own = sums.by_channel(input, atom, total.len());
            total.iter_mut().zip(own.iter().zip(&norms)).for_each(|(total, (sum, norm))| *total += sum * norm);
        }
    }
    Ok(total)
}
