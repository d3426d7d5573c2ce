//! Gradient: what criteria of gradients share.
//!
//! A group gets a score from every task that it feeds. Where the gradients of a task stop before one of its gates, the
//! group gets what the other tasks say of it instead, and where all are silent the squares of its weights; both in units
//! of the task at hand, so that a group is neither favoured nor punished for being unknown. Scores of tasks are
//! normalised by their sum over all groups before their mean is taken.

use super::magnitude::Magnitude;
use super::{Criterion, ScoreInput};
use crate::aggregate::TaskScores;
use crate::gates::{Gradients, GroupGradients};
use crate::groups::Group;
use crate::{Error, Result};

/// What a task says of a group: one number per channel, or none where its gradients stop.
pub(super) type Opinion<'a> = dyn Fn(&Gradients, &GroupGradients, usize) -> Option<Vec<f64>> + 'a;

/// What all tasks together say of a group.
pub(super) type GroupOpinion<'a> = dyn Fn(&Gradients, &GroupGradients, &Group) -> Option<Vec<f64>> + 'a;

/// The gradients, which must be there and of this model.
pub(super) fn gradients<'a>(input: &ScoreInput<'a>) -> Result<&'a Gradients> {
    let gradients = input
        .gradients
        .ok_or_else(|| Error::input("this criterion needs gradients").help("give samples with --calibration"))?;
    if gradients.groups.len() == input.groups.len() {
        return Ok(gradients);
    }
    Err(Error::input("the gradients are those of another model").help("gather them anew"))
}

/// The scores of all tasks, what is silent filled in.
pub(super) fn by_task(input: &ScoreInput, opinion: &Opinion) -> Result<TaskScores> {
    let gradients = gradients(input)?;
    let tasks = gradients.tasks.len();
    let raw = |task: usize| -> Vec<Option<Vec<f64>>> {
        let of = |(group, own): (&Group, &GroupGradients)| {
            let feeds = is_open(group) && group.tasks.iter().any(|other| other == task);
            if feeds { opinion(gradients, own, task) } else { None }
        };
        input.groups.iter().zip(&gradients.groups).map(of).collect()
    };
    let raw: Vec<Vec<Option<Vec<f64>>>> = (0..tasks).map(raw).collect();
    let units: Vec<f64> = raw.iter().map(|scores| unit(scores)).collect();
    let mut squares = Squares { input, found: None };
    let mut scores = vec![vec![None; input.groups.len()]; tasks];
    for (index, group) in input.groups.iter().enumerate() {
        for task in group.tasks.iter().filter(|task| *task < tasks) {
            let own = raw.get(task).and_then(|scores| scores.get(index)).cloned().flatten();
            let unit = units.get(task).copied().unwrap_or(1.0);
            let filled = match own {
                Some(own) => own,
                None if !is_open(group) => vec![0.0; group.extent],
                None => {
                    let others =
                        raw.iter().zip(&units).filter_map(|(scores, unit)| Some((scores.get(index)?.as_ref()?, *unit)));
                    let others: Vec<(&Vec<f64>, f64)> = others.collect();
                    if others.is_empty() {
                        squares.of(index, unit)?
                    } else {
                        let share = 1.0 / others.len() as f64;
                        let mut filled = vec![0.0; group.extent];
                        for (own, other) in others {
                            let factor = share * unit / other;
                            filled.iter_mut().zip(own).for_each(|(sum, score)| *sum += factor * score);
                        }
                        filled
                    }
                }
            };
            if let Some(slot) = scores.get_mut(task).and_then(|scores| scores.get_mut(index)) {
                *slot = Some(filled);
            }
        }
    }
    Ok(TaskScores { tasks: gradients.tasks.iter().map(|task| task.name.clone()).collect(), scores })
}

/// True if the channels of a group may go.
fn is_open(group: &Group) -> bool {
    group.lock.is_none() || group.approximate
}

/// The squares of the weights of groups, worked out once they are asked for.
struct Squares<'i, 'a> {
    input: &'i ScoreInput<'a>,
    found: Option<Vec<Vec<f64>>>,
}

impl Squares<'_, '_> {
    /// Those of a group, with a mean of `unit`.
    fn of(&mut self, group: usize, unit: f64) -> Result<Vec<f64>> {
        let found = match &mut self.found {
            Some(found) => found,
            none => none.insert(Magnitude { power: 2, scales_only: false }.score(self.input)?),
        };
        let own = found.get(group).map(Vec::as_slice).unwrap_or_default();
        let factor = unit / mean(own);
        Ok(own.iter().map(|square| factor * square).collect())
    }
}

/// The mean score of a channel of which a task says anything; 1 where it says nothing or nothing but 0.
fn unit(scores: &[Option<Vec<f64>>]) -> f64 {
    let all: Vec<f64> = scores.iter().flatten().flatten().copied().collect();
    mean(&all)
}

/// The mean, or 1 where that is 0.
fn mean(numbers: &[f64]) -> f64 {
    let mean = numbers.iter().sum::<f64>() / numbers.len().max(1) as f64;
    if mean > 0.0 && mean.is_finite() { mean } else { 1.0 }
}

/// The sum over all pairs of tasks that feed a group of what a matrix holds for them: what the sum of their losses
/// feels. None where no task is known.
pub(super) fn summed(group: &Group, known: &[bool], matrix: &[Vec<f64>], count: f64) -> Option<Vec<f64>> {
    let tasks = known.len();
    let own: Vec<usize> = group.tasks.iter().filter(|task| known.get(*task).copied().unwrap_or(false)).collect();
    if own.is_empty() {
        return None;
    }
    let mut sums = vec![0.0; group.extent];
    for (task, other) in own.iter().flat_map(|task| own.iter().map(move |other| (task, other))) {
        for (sum, number) in sums.iter_mut().zip(matrix.get(task * tasks + other).into_iter().flatten()) {
            *sum += number / count.max(1.0);
        }
    }
    // A square that rounding takes below zero.
    sums.iter_mut().for_each(|sum| *sum = sum.max(0.0));
    Some(sums)
}

/// The same for all tasks: what the sum of the losses says of a group.
pub(super) fn by_sum(input: &ScoreInput, opinion: &GroupOpinion) -> Result<TaskScores> {
    let gradients = gradients(input)?;
    let opinion =
        |(group, own): (&Group, &GroupGradients)| if is_open(group) { opinion(gradients, own, group) } else { None };
    let own: Vec<Option<Vec<f64>>> = input.groups.iter().zip(&gradients.groups).map(opinion).collect();
    let unit = unit(&own);
    let mut squares = Squares { input, found: None };
    let mut scores = Vec::with_capacity(own.len());
    for (index, (group, own)) in input.groups.iter().zip(own).enumerate() {
        scores.push(match own {
            Some(own) => own,
            None if is_open(group) => squares.of(index, unit)?,
            None => vec![0.0; group.extent],
        });
    }
    let tasks: Vec<String> = gradients.tasks.iter().map(|task| task.name.clone()).collect();
    let of = |task: usize| {
        let feeds = |group: &Group| group.tasks.iter().any(|own| own == task);
        input.groups.iter().zip(&scores).map(|(group, scores)| feeds(group).then(|| scores.clone())).collect()
    };
    let scores = (0..tasks.len()).map(of).collect();
    Ok(TaskScores { tasks, scores })
}

/// What a task says, if its number is known, divided by how often it was summed up.
pub(super) fn known(is_known: &[bool], task: usize, sums: &[Vec<f64>], at: usize, count: f64) -> Option<Vec<f64>> {
    let is_known = is_known.get(task).copied().unwrap_or(false);
    let own = sums.get(at).filter(|_| is_known)?;
    Some(own.iter().map(|sum| sum / count.max(1.0)).collect())
}
