//! Protection: in shared groups, what protected tasks need is kept first.
//!
//! The channels of a group that protected tasks share with others are ranked by what the protected tasks say of them,
//! each normalised by its sum over the group, the largest counting where there are several; what all tasks together say
//! decides between channels that are the same to them. Invariants: groups that feed no protected task, or no other, are
//! scored as they were; the scores of a group have the sum that they had, so that groups compare as before.

use std::collections::BTreeSet;

use super::TaskScores;
use crate::groups::Group;

/// The weight of what all tasks say beside what protected ones do: less than any difference that matters.
const TIE: f64 = 1e-9;

/// The `scores` of an allocation with what `protected` tasks say put first.
pub fn protecting(
    groups: &[Group],
    scores: Vec<Vec<f64>>,
    by_task: &TaskScores,
    protected: &BTreeSet<usize>,
) -> Vec<Vec<f64>> {
    let of_group = |(index, (group, all)): (usize, (&Group, Vec<f64>))| {
        let (inside, outside): (Vec<usize>, Vec<usize>) = group.tasks.iter().partition(|task| protected.contains(task));
        if inside.is_empty() || outside.is_empty() {
            return all;
        }
        let said = |task: &usize| by_task.scores.get(*task)?.get(index)?.as_ref().filter(|own| own.len() == all.len());
        let said: Vec<Vec<f64>> = inside.iter().filter_map(said).map(|own| shares(own)).collect();
        if said.is_empty() {
            return all;
        }
        let usual = shares(&all);
        let first = |channel: usize| {
            let own = said.iter().filter_map(|own| own.get(channel).copied()).fold(0.0, f64::max);
            own + TIE * usual.get(channel).copied().unwrap_or(0.0)
        };
        with_sum_of(&all, (0..all.len()).map(first).collect())
    };
    groups.iter().zip(scores).enumerate().map(of_group).collect()
}

/// The scores of tasks as an aggregation should hear them: in groups that `protected` tasks share with others, the
/// others decide only between channels that are the same to a protected task.
pub fn heard(groups: &[Group], mut scores: TaskScores, protected: &BTreeSet<usize>) -> TaskScores {
    for (index, group) in groups.iter().enumerate() {
        let (inside, outside): (Vec<usize>, Vec<usize>) = group.tasks.iter().partition(|task| protected.contains(task));
        let mut take = |task: &usize| scores.scores.get_mut(*task)?.get_mut(index)?.take();
        if outside.is_empty() {
            continue;
        }
        let own: Vec<(usize, Vec<f64>)> = inside.iter().filter_map(|task| Some((*task, take(task)?))).collect();
        if own.is_empty() {
            continue;
        }
        let others: Vec<Vec<f64>> = outside.iter().filter_map(take).map(|said| shares(&said)).collect();
        for (task, said) in own {
            let other = |channel: usize| others.iter().filter_map(|said| said.get(channel)).sum::<f64>();
            let first = shares(&said).into_iter().enumerate();
            let first = with_sum_of(&said, first.map(|(channel, own)| own + TIE * other(channel)).collect());
            if let Some(slot) = scores.scores.get_mut(task).and_then(|groups| groups.get_mut(index)) {
                *slot = Some(first);
            }
        }
    }
    scores
}

/// New scores of a group, none below 0, multiplied so that they sum up to the magnitudes of the old ones.
fn with_sum_of(old: &[f64], new: Vec<f64>) -> Vec<f64> {
    let sum = |scores: &[f64]| scores.iter().map(|score| score.abs()).filter(|score| score.is_finite()).sum::<f64>();
    let (before, after) = (sum(old), sum(&new));
    let factor = if before > 0.0 && after > 0.0 { before / after } else { 1.0 };
    new.into_iter().map(|score| score * factor).collect()
}

/// Scores as parts of their sum; from 0 on, whatever they count from.
fn shares(scores: &[f64]) -> Vec<f64> {
    let known = |score: &f64| if score.is_finite() { *score } else { 0.0 };
    let least = scores.iter().map(known).fold(0.0, f64::min);
    let sum: f64 = scores.iter().map(|score| known(score) - least).sum();
    let sum = if sum > 0.0 { sum } else { 1.0 };
    scores.iter().map(|score| (known(score) - least) / sum).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::prune::Analysis;
    use crate::text;

    #[test]
    fn what_protected_tasks_need_comes_first_and_ties_go_by_what_all_say() {
        let model = text::parse(
            "in x [1,3]
             t = Gemm(x, w0[3,4])
             a0 = Gemm(t, w1[4,2])
             a = Gemm(a0, w2[2,2])
             b = Gemm(t, w3[4,2])
             out a, b",
        )
        .unwrap();
        let analysis = Analysis::of(&model, &[]).unwrap();
        let extents: Vec<usize> = analysis.groups.iter().map(|g| g.extent).collect();
        assert_eq!(extents[..3], [3, 4, 2], "input, trunk, branch");
        let mut scores = vec![vec![1.0; 3], vec![4.0, 3.0, 2.0, 1.0], vec![1.0, 2.0]];
        scores.extend(analysis.groups.iter().skip(3).map(|g| vec![1.0; g.extent]));
        let of_b = vec![Some(vec![1.0; 3]), Some(vec![0.0, 0.0, 1.0, 9.0]), None];
        let by_task = TaskScores { tasks: vec!["a".into(), "b".into()], scores: vec![vec![None; 3], of_b] };
        let found = protecting(&analysis.groups, scores.clone(), &by_task, &BTreeSet::from([1]));
        let mut order: Vec<usize> = (0..4).collect();
        order.sort_by(|i, j| found[1][*j].total_cmp(&found[1][*i]));
        assert_eq!(order, [3, 2, 0, 1]);
        assert!((found[1].iter().sum::<f64>() - 10.0).abs() < 1e-9, "groups compare as before: {:?}", found[1]);
        assert_eq!(found[2], scores[2]);
        let of_a = vec![Some(vec![1.0; 3]), Some(vec![1.0, 5.0, 0.0, 0.0]), Some(vec![1.0, 2.0])];
        let both = TaskScores { scores: vec![of_a.clone(), by_task.scores[1].clone()], ..by_task.clone() };
        let heard = heard(&analysis.groups, both, &BTreeSet::from([1]));
        assert_eq!((&heard.scores[0][1], &heard.scores[0][2]), (&None, &of_a[2]));
        let said = heard.scores[1][1].clone().unwrap();
        order.sort_by(|i, j| said[*j].total_cmp(&said[*i]));
        assert_eq!(order, [3, 2, 1, 0]);
        assert!((said.iter().sum::<f64>() - 10.0).abs() < 1e-9, "groups compare as before: {said:?}");
        assert_eq!(protecting(&analysis.groups, scores.clone(), &by_task, &BTreeSet::new()), scores);
    }
}
