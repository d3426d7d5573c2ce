//! Column subset: channels go in the order in which the others can replace them.
//!
//! C is the covariance of the activations of a group where they are contracted, K the channels that are left, R those
//! that are removed. Least squares brings back of r in R all but var(r | K), its variance that K does not predict
//! linearly. The cost of a set R is sum_r w_r var(r | K): removing c from K adds
//!
//! ```text
//! (w_c + sum_{r in R} w_r B_cr²) / P_cc,     P = (C_KK)⁻¹,  B = P C_KR
//! ```
//!
//! and the cheapest channel goes first (backward elimination). One matrix M holds P in the columns of K and B in those
//! of R; removing c is one row operation on it, M_k -= M_kc / M_cc · M_c and then M_kc = -M_kc / M_cc. So a group of n
//! channels takes O(n³), as inverting C does. w is importance per unit of variance, S / C_cc, where S is the variance of
//! the channel times the squares of the weights that contract it, summed over the places where the group is measured; C
//! is the mean of the covariances there, each in units of what its weights make of it. With gradients, S may be the
//! criterion `fisher` instead, normalised per task, mean or largest over tasks.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::fisher::Fisher;
use super::measured::{Place, lacking, score};
use super::weights::column_sums;
use super::{Criterion, Importance, ScoreInput};
use crate::Result;
use crate::axes::Expr;
use crate::calibration::{Measure, Segment};

pub(super) struct ColumnSubset;

/// Added to the diagonal of C, in parts of its mean: sums of products in single precision are not known better.
const RIDGE: f64 = 1e-5;

/// Row operations on fewer numbers than this are not worth several threads.
const PARALLEL: usize = 1 << 16;

impl Criterion for ColumnSubset {
    fn score(&self, input: &ScoreInput) -> Result<Vec<Vec<f64>>> {
        let given = given(input)?;
        score(input, &|group, places| {
            let n = group.extent;
            let mut total = vec![0.0; n * n];
            let mut importance = vec![0.0; n];
            for place in places {
                let own = covariance(place, n)?;
                let weights = energies(input, place, group.atom, n)?;
                let unit = weights.iter().sum::<f64>() / n as f64;
                total.iter_mut().zip(&own).for_each(|(total, own)| *total += unit * own);
                let variances = own.iter().step_by(n + 1);
                for ((importance, weight), variance) in importance.iter_mut().zip(&weights).zip(variances) {
                    *importance += weight * variance;
                }
            }
            if let Some(given) = given.get(&group.atom) {
                importance.clone_from(given);
            }
            let per_variance = |(importance, variance): (&f64, &f64)| {
                if *variance > 0.0 { importance / variance } else { 0.0 }
            };
            let weights: Vec<f64> = importance.iter().zip(total.iter().step_by(n + 1)).map(per_variance).collect();
            Ok(eliminate(total, &weights))
        })
    }
}

/// The importances that gradients give, by the atom of the group; empty where none are asked for.
fn given(input: &ScoreInput) -> Result<BTreeMap<Expr, Vec<f64>>> {
    let combine: fn(f64, f64) -> f64 = match input.importance {
        Importance::Energy => return Ok(BTreeMap::new()),
        Importance::Fisher => |sum, own| sum + own,
        Importance::FisherMax => f64::max,
    };
    let scores = Fisher { summed: false }.scores(input)?.normalised();
    let mut given = BTreeMap::new();
    for (index, group) in input.groups.iter().enumerate() {
        let mut total = vec![0.0; group.extent];
        for task in &scores.scores {
            for (total, own) in total.iter_mut().zip(task.get(index).into_iter().flatten().flatten()) {
                *total = combine(*total, *own);
            }
        }
        given.insert(group.atom, total);
    }
    Ok(given)
}

/// The covariance of the channels at a place, row-major. Positions that belong to one channel are samples of it.
fn covariance(place: &Place, n: usize) -> Result<Vec<f64>> {
    let products = place.tap.moments.get(&Segment::key(&place.at.segments));
    let products = products.ok_or_else(|| lacking(place.tap, "products of channels"))?.values();
    let means = place.mean(Measure::Sum)?;
    let count = place.tap.count_of(&place.at.segments).max(1.0);
    let mut covariance = vec![0.0; n * n];
    let pairs = (0..n).flat_map(|row| (row..n).map(move |column| (row, column)));
    for ((row, column), product) in pairs.zip(products) {
        let mut value = product / count - means.get(row).unwrap_or(&0.0) * means.get(column).unwrap_or(&0.0);
        if row == column {
            value = value.max(0.0);
        }
        for at in [row * n + column, column * n + row] {
            if let Some(entry) = covariance.get_mut(at) {
                *entry = value;
            }
        }
    }
    Ok(covariance)
}

/// The squares of the weights that contract each channel at a place, summed; 1 where they are not known.
fn energies(input: &ScoreInput, place: &Place, atom: Expr, n: usize) -> Result<Vec<f64>> {
    let mut total = vec![0.0; n];
    for weight in &place.at.weights {
        if let Some(sums) = column_sums(input, weight, 2)? {
            total.iter_mut().zip(sums.by_channel(input, atom, n)).for_each(|(total, own)| *total += own);
        }
    }
    Ok(if total.iter().all(|t| *t == 0.0) { vec![1.0; n] } else { total })
}

/// The total cost after each channel was removed, in the order of elimination; increasing in that order.
fn eliminate(mut matrix: Vec<f64>, weights: &[f64]) -> Vec<f64> {
    let n = weights.len();
    let mean = matrix.iter().step_by(n + 1).sum::<f64>() / n.max(1) as f64;
    let mut scores = vec![0.0; n];
    if mean > 0.0 {
        matrix.iter_mut().step_by(n + 1).for_each(|entry| *entry += RIDGE * mean);
        invert(&mut matrix, n);
    } else {
        // Nothing varies: all go alike, in order.
        matrix.iter_mut().step_by(n + 1).for_each(|entry| *entry = 1.0);
    }
    let mut kept: Vec<bool> = vec![true; n];
    let mut removed_weights = vec![0.0; n];
    let mut total = 0.0f64;
    for _ in 0..n {
        let cost = |c: usize| {
            let row = matrix.get(c * n..(c + 1) * n).unwrap_or_default();
            let pivot = row.get(c).copied().unwrap_or(0.0).max(f64::MIN_POSITIVE);
            let lost: f64 = row.iter().zip(&removed_weights).map(|(b, w)| w * b * b).sum();
            (weights.get(c).unwrap_or(&0.0) + lost) / pivot
        };
        let left: Vec<usize> = (0..n).filter(|c| kept.get(*c).copied().unwrap_or(false)).collect();
        let costs: Vec<f64> = if left.len() * n > PARALLEL {
            left.par_iter().map(|c| cost(*c)).collect()
        } else {
            left.iter().map(|c| cost(*c)).collect()
        };
        let cheapest = left.iter().zip(&costs).min_by(|a, b| a.1.total_cmp(b.1));
        let Some((c, cost)) = cheapest.map(|(c, cost)| (*c, *cost)) else { break };
        // Strictly more than before, so that the order can be read off the scores.
        total = (total + cost).max(total.next_up());
        if let (Some(score), Some(kept), Some(weight)) =
            (scores.get_mut(c), kept.get_mut(c), removed_weights.get_mut(c))
        {
            (*score, *kept, *weight) = (total, false, weights.get(c).copied().unwrap_or(0.0));
        }
        remove(&mut matrix, n, c, &kept);
    }
    scores
}

/// The row operation that takes `c` out of the rows that are kept.
fn remove(matrix: &mut [f64], n: usize, c: usize, kept: &[bool]) {
    let pivot_row = matrix.get(c * n..(c + 1) * n).unwrap_or_default().to_vec();
    let pivot = pivot_row.get(c).copied().unwrap_or(1.0).max(f64::MIN_POSITIVE);
    let operate = |(row, keeps): (&mut [f64], &bool)| {
        if *keeps {
            let factor = row.get(c).copied().unwrap_or(0.0) / pivot;
            row.iter_mut().zip(&pivot_row).for_each(|(entry, other)| *entry -= factor * other);
            if let Some(entry) = row.get_mut(c) {
                *entry = -factor;
            }
        }
    };
    if matrix.len() > PARALLEL {
        matrix.par_chunks_mut(n).zip(kept).for_each(operate);
    } else {
        matrix.chunks_mut(n.max(1)).zip(kept).for_each(operate);
    }
}

/// Inverts a positive definite matrix in place (Gauss-Jordan; no pivot is needed).
fn invert(matrix: &mut [f64], n: usize) {
    for c in 0..n {
        let Some(row) = matrix.get_mut(c * n..(c + 1) * n) else { return };
        // Rounding may take a pivot to zero or below where channels repeat one another.
        let pivot = row.get(c).copied().unwrap_or(1.0).max(f64::MIN_POSITIVE.sqrt());
        row.iter_mut().for_each(|entry| *entry /= pivot);
        if let Some(entry) = row.get_mut(c) {
            *entry = 1.0 / pivot;
        }
        let pivot_row = row.to_vec();
        let operate = |(r, row): (usize, &mut [f64])| {
            if r == c {
                return;
            }
            let factor = row.get(c).copied().unwrap_or(0.0);
            row.iter_mut().zip(&pivot_row).for_each(|(entry, other)| *entry -= factor * other);
            if let Some(entry) = row.get_mut(c) {
                *entry = -factor / pivot;
            }
        };
        if matrix.len() > PARALLEL {
            matrix.par_chunks_mut(n).enumerate().for_each(operate);
        } else {
            matrix.chunks_mut(n).enumerate().for_each(operate);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::criterion;
    use super::super::testing::{measured, scores};
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    /// sum_{r in R} w_r var(r | K), from scratch.
    fn cost(covariance: &[f64], weights: &[f64], kept: &[usize]) -> f64 {
        let n = weights.len();
        let size = kept.len();
        let mut inverse: Vec<f64> = kept.iter().flat_map(|a| kept.iter().map(move |b| covariance[a * n + b])).collect();
        invert(&mut inverse, size);
        let removed = (0..n).filter(|r| !kept.contains(r));
        let residual = |r: usize| {
            let cross: Vec<f64> = kept.iter().map(|k| covariance[k * n + r]).collect();
            let told: f64 =
                (0..size).map(|i| (0..size).map(|j| cross[i] * inverse[i * size + j] * cross[j]).sum::<f64>()).sum();
            covariance[r * n + r] - told
        };
        removed.map(|r| weights[r] * residual(r)).sum()
    }

    #[test]
    fn every_step_takes_the_cheapest_by_definition() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut number = || f64::from(random.next_u32()) / f64::from(u32::MAX) - 0.5;
        let n = 7;
        let a: Vec<f64> = (0..n * 20).map(|_| number()).collect();
        let dot = |i: usize, j: usize| (0..20).map(|s| a[i * 20 + s] * a[j * 20 + s]).sum::<f64>();
        let mut covariance: Vec<f64> = (0..n * n).map(|at| dot(at / n, at % n)).collect();
        let weights: Vec<f64> = (0..n).map(|_| number().abs() + 0.1).collect();
        let scores = eliminate(covariance.clone(), &weights);
        let mean = covariance.iter().step_by(n + 1).sum::<f64>() / n as f64;
        covariance.iter_mut().step_by(n + 1).for_each(|entry| *entry += RIDGE * mean);
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
        let mut kept: Vec<usize> = (0..n).collect();
        for c in order {
            let without = |c: usize| kept.iter().copied().filter(|k| *k != c).collect::<Vec<usize>>();
            let costs: Vec<f64> = kept.iter().map(|k| cost(&covariance, &weights, &without(*k))).collect();
            let least = costs.iter().copied().fold(f64::MAX, f64::min);
            kept = without(c);
            let own = cost(&covariance, &weights, &kept);
            assert!((own - least).abs() < 1e-9 && (own - scores[c]).abs() < 1e-9, "{c}: {own}, {least}, {scores:?}");
        }
    }

    /// XᵀX = [[1, 0.5], [0.5, 1]], w = (3, 1): the second weight goes first, for 0.75; the first would cost 6.75.
    #[test]
    fn papers_12_optimal_brain_surgeon() {
        let scores = eliminate(vec![1.0, 0.5, 0.5, 1.0], &[9.0, 1.0]);
        assert!((scores[1] - 0.75).abs() < 1e-4 && scores[0] > scores[1], "{scores:?}");
        let scores = eliminate(vec![1.0, 0.5, 0.5, 1.0], &[9.0, 90.0]);
        assert!((scores[0] - 6.75).abs() < 1e-3, "{scores:?}");
    }

    /// The third channel is the sum of the first two, the fourth never varies: those two can go for nothing, and the
    /// sum is what goes, because its weight is smallest.
    #[test]
    fn what_others_replace_goes_first() {
        let model = "in x [1,4,6]\na = Conv(x, w[4,4,1])\ny = Conv(a, v[1,4,1])\nout y";
        let identity: Vec<f32> = (0..16).map(|at| if at % 5 == 0 { 1.0 } else { 0.0 }).collect();
        let (a, b) = ([1f32, -2., 0., 3., 0., 1.], [0f32, 1., 1., -1., 2., 5.]);
        let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        let x: Vec<f32> = [a.to_vec(), b.to_vec(), sum, vec![7.0; 6]].concat();
        let measured = measured(model, &[("w", &identity), ("v", &[2., 3., 0.5, 100.])], &x);
        let found = scores(&measured, criterion("column-subset").unwrap());
        let mut order: Vec<usize> = (0..4).collect();
        order.sort_by(|a, b| found[*a].total_cmp(&found[*b]));
        assert_eq!(order, [3, 2, 0, 1], "{found:?}");
        let variance = 10.0 / 6.0 + 5.0 / 6.0 - 0.25;
        assert!(found[2] < 1e-3 && found[0] > 0.1 * 4.0 * variance, "{found:?}");
    }
}
