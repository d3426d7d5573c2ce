//! Global allocation: as many channels stay as the ratio leaves in all groups together, the best of the model.
//!
//! Groups with another ratio (the trunk, a branch, what a protected task shares) compete among themselves, so that each
//! ratio is met for what it was given for.
//! Groups grow from their floors by the steps of the rounding; of all next steps the best is taken until the number is
//! met. Where steps hold several channels, the middle one speaks for its step, as rounding to the nearest does, and the
//! number is met within half a step; otherwise exactly. Invariant: floors, locks, holds and roundings are those of the
//! uniform allocation.

use std::collections::BTreeMap;

use super::count::allowed_counts;
use super::ratios::Origin;
use super::{AllocateConfig, Plan, best, counts};
use crate::Result;
use crate::coupling::Coupling;
use crate::graph::Graph;
use crate::groups::Group;

/// A group and the counts that it may keep.
type Field = (usize, Vec<usize>);

/// The best channels of the model, as many as the ratio leaves; scores must be comparable between groups.
///
/// # Errors
/// As [`super::uniform`].
pub fn global(
    graph: &Graph,
    coupling: &Coupling,
    groups: &[Group],
    scores: &[Vec<f64>],
    config: &AllocateConfig,
) -> Result<Plan> {
    let (mut plan, uniform) = counts(graph, coupling, groups, config)?;
    let open = |at: usize| groups[at].lock.is_none() && !plan.held.contains_key(&at);
    // By ratio and what it was given for.
    let mut fields: BTreeMap<(Origin, u64), Vec<Field>> = BTreeMap::new();
    for (at, group) in groups.iter().enumerate().filter(|(at, _)| open(*at)) {
        let ratio = config.ratio_of(group);
        if ratio > 0.0 {
            let field = (config.tasks.origin(&group.tasks), ratio.to_bits());
            fields.entry(field).or_default().push((at, allowed_counts(group.extent, config)));
        }
    }
    for fields in fields.values() {
        let budget: usize = fields.iter().filter_map(|(at, _)| uniform.get(*at)).sum();
        for ((at, _), count) in fields.iter().zip(chosen(fields, scores, budget)) {
            if let Some(scores) = scores.get(*at).filter(|_| count < groups[*at].extent) {
                plan.kept[*at] = Some(best(scores, count));
            }
        }
    }
    Ok(plan)
}

/// How many channels of each field stay.
fn chosen(fields: &[Field], scores: &[Vec<f64>], budget: usize) -> Vec<usize> {
    let mut kept: Vec<usize> = fields.iter().map(|(_, counts)| counts.first().copied().unwrap_or(0)).collect();
    // What every step is worth, its field, and the count that it leads to; later steps of a group are worth less.
    let mut steps: Vec<(f64, usize, usize)> = Vec::new();
    for (field, (at, counts)) in fields.iter().enumerate() {
        let mut scores: Vec<f64> = scores.get(*at).into_iter().flatten().copied().collect();
        scores.iter_mut().filter(|score| score.is_nan()).for_each(|score| *score = f64::NEG_INFINITY);
        scores.sort_by(|a, b| b.total_cmp(a));
        for pair in counts.windows(2) {
            let [from, to] = [pair[0], pair[1]];
            let speaker = from + (to - from).div_ceil(2) - 1;
            steps.push((scores.get(speaker).copied().unwrap_or(f64::NEG_INFINITY), field, to));
        }
    }
    steps.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    let mut total: usize = kept.iter().sum();
    for (_, field, to) in steps {
        if total >= budget {
            break;
        }
        let Some(own) = kept.get_mut(field) else { continue };
        let larger = total + to - *own;
        if larger.saturating_sub(budget) > budget - total {
            break;
        }
        total = larger;
        *own = to;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(extent: usize) -> Vec<usize> {
        (1..=extent).collect()
    }

    #[test]
    fn the_best_stay_wherever_they_are() {
        let scores = [vec![9.0, 1.0, 8.0, 7.0], vec![6.0, 2.0, 3.0, 0.0]];
        let fields = [(0, every(4)), (1, every(4))];
        assert_eq!(chosen(&fields, &scores, 4), [3, 1]);
        assert_eq!(chosen(&fields, &scores, 6), [3, 3]);
        assert_eq!(chosen(&fields, &scores, 8), [4, 4]);
    }

    #[test]
    fn floors_hold_where_a_group_is_the_worst() {
        let scores = [vec![9.0, 8.0, 7.0, 6.0], vec![0.1, 0.2, 0.3, 0.4]];
        assert_eq!(chosen(&[(0, every(4)), (1, vec![2, 3, 4])], &scores, 4), [2, 2]);
    }

    #[test]
    fn steps_are_taken_whole_and_the_nearest_total_is_met() {
        let scores: [Vec<f64>; 2] = [(0..16).map(f64::from).collect(), (0..16).map(|i| f64::from(i) + 0.5).collect()];
        let fields = [(0, vec![8, 16]), (1, vec![8, 16])];
        assert_eq!(chosen(&fields, &scores, 19), [8, 8]);
        assert_eq!(chosen(&fields, &scores, 20), [8, 16]);
        assert_eq!(chosen(&fields, &scores, 24), [8, 16]);
    }
}
