//! Aggregation: what every task says of a channel becomes one importance.
//!
//! Criteria that look at gradients score the channels of every group once per task; the others say the same for every
//! task. Scores are first made comparable between tasks ([`TaskScores::normalised`]), then combined by one of
//! [`AGGREGATIONS`]: one file and one row each.
//!
//! Invariants: a task has scores for exactly those groups that feed it, so a private branch is judged by its own task
//! alone; multiplying all scores of a task by a number above zero changes nothing; a group of which no task says
//! anything feeds no output, its channels are all worth 0.

mod geometric;
mod max;
mod mean;
mod min;
mod neighbours;
pub mod overlap;
mod protect;
mod ranks;
mod score_mask;
mod scores;
mod sum;
mod table;
pub mod unanimous;
pub mod vote;
mod weighted;

pub use neighbours::Neighbour;
pub use protect::{heard, protecting};
pub use ranks::{ranked, top};
pub use scores::{Scores, TaskScores};
pub use table::{AGGREGATIONS, AggregationRow, DEFAULT, aggregation};

use crate::{Error, Result};

/// How the scores of tasks are combined; the defaults are those of the command line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AggregateConfig {
    /// The aggregation's name, see [`AGGREGATIONS`]; none where nothing was asked for: [`DEFAULT`] serves where tasks
    /// say different things.
    pub name: Option<String>,
    /// Weights of tasks by name; the others weigh 1.
    pub weights: Vec<(String, f64)>,
    /// Where channels compete.
    pub scope: Scope,
    /// How `vote` turns votes into a choice.
    pub draw: Draw,
}

/// Where channels compete with one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Within their group, so that a ratio is the fraction that every group loses.
    #[default]
    Group,
    /// Within the model: as many channels stay as the ratio leaves in all groups together, in whichever group they are.
    Global,
}

/// How votes become a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Draw {
    /// Most votes first; ties go to the higher mean score.
    #[default]
    Top,
    /// Drawn without replacement, each channel in proportion to the exponential of its votes.
    Softmax,
}

/// What is known of a group before its channels are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The group's name.
    pub name: String,
    /// How many channels it has.
    pub extent: usize,
    /// How many of them stay by the ratio; all where the group may not shrink.
    pub count: usize,
    /// True if it may shrink and is to.
    pub open: bool,
}

/// What an aggregation may look at.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Comparable between tasks.
    pub scores: &'a TaskScores,
    /// The groups, in the order of the scores.
    pub rooms: &'a [Room],
    /// The weight of every task, in the order of the scores.
    pub weights: &'a [f64],
    /// Masks of other models; where there are any, they vote instead of the tasks.
    pub neighbours: &'a [Neighbour],
    /// Where channels compete, for `unanimous`.
    pub scope: Scope,
    /// How votes become a choice, for `vote`.
    pub draw: Draw,
    /// The seed of everything random.
    pub seed: u64,
}

impl Input<'_> {
    /// What tasks say of a group and how much they weigh. Who calls all of its channels worthless is not heard, because
    /// that prefers none of them; where all that are heard weigh nothing, all weigh the same.
    pub(super) fn opinions(&self, group: usize) -> Vec<(&[f64], f64)> {
        let opinions = self.scores.scores.iter().zip(self.weights);
        let opinions = opinions.filter_map(|(task, weight)| Some((task.get(group)?.as_deref()?, *weight)));
        let opinions = opinions.filter(|(scores, _)| scores.iter().any(|score| *score != 0.0));
        let mut opinions: Vec<(&[f64], f64)> = opinions.collect();
        if opinions.iter().all(|(_, weight)| *weight == 0.0) {
            opinions.iter_mut().for_each(|(_, weight)| *weight = 1.0);
        }
        opinions
    }

    /// One number per channel of every group, from the scores and weights of the tasks that weigh anything.
    pub(super) fn per_channel(&self, combine: impl Fn(&[(f64, f64)]) -> f64) -> Vec<Vec<f64>> {
        let of = |(group, room): (usize, &Room)| {
            let opinions = self.opinions(group);
            let channel = |channel: usize| {
                let said = opinions.iter().filter(|(_, weight)| *weight > 0.0);
                let said = said.filter_map(|(scores, weight)| Some((*scores.get(channel)?, *weight)));
                let said: Vec<(f64, f64)> = said.collect();
                if said.is_empty() { 0.0 } else { combine(&said) }
            };
            (0..room.extent).map(channel).collect()
        };
        self.rooms.iter().enumerate().map(of).collect()
    }

    /// The weighted mean, which also decides between channels that are equal otherwise.
    pub(super) fn mean(&self) -> Vec<Vec<f64>> {
        self.per_channel(mean::of)
    }
}

/// A way to combine what tasks say.
pub trait Aggregation: Sync {
    /// One importance per channel of every group, in group order; higher stays longer. Within a group only their order
    /// counts, unless channels compete within the model.
    fn combine(&self, input: &Input) -> Vec<Vec<f64>>;
}

/// One importance per channel of every group, by the aggregation and the weights that were asked for.
///
/// # Errors
/// An unknown aggregation, a weight of an unknown task, options that the aggregation does not know.
pub fn combine(
    scores: &TaskScores,
    rooms: &[Room],
    neighbours: &[Neighbour],
    config: &AggregateConfig,
    seed: u64,
) -> Result<Vec<Vec<f64>>> {
    let row = aggregation(config.name.as_deref().unwrap_or(DEFAULT))?;
    row.check(config, !neighbours.is_empty())?;
    let weights = weights(&scores.tasks, &config.weights)?;
    let scores = scores.normalised();
    let (scope, draw) = (config.scope, config.draw);
    let input = Input { scores: &scores, rooms, weights: &weights, neighbours, scope, draw, seed };
    Ok(row.aggregation.combine(&input))
}

/// The weight of every task.
///
/// # Errors
/// A name that is no task, or is there twice; a weight that is negative or no number; no task that weighs anything.
pub fn weights(tasks: &[String], given: &[(String, f64)]) -> Result<Vec<f64>> {
    let mut weights = vec![None; tasks.len()];
    for (name, weight) in given {
        let at = tasks.iter().position(|task| task == name).and_then(|at| weights.get_mut(at));
        let Some(place) = at else {
            let error = Error::input(format!("--task-weight names no task `{name}`"));
            return Err(error.help(format!("the tasks are {}", tasks.join(", "))));
        };
        if !weight.is_finite() || *weight < 0.0 {
            let error = Error::input(format!("the weight of task `{name}` is {weight}"));
            return Err(error.help("give a number of 0 or more"));
        }
        if place.replace(*weight).is_some() {
            return Err(Error::input(format!("task `{name}` has two weights")).help("give one --task-weight for it"));
        }
    }
    let weights: Vec<f64> = weights.into_iter().map(|weight| weight.unwrap_or(1.0)).collect();
    if !weights.is_empty() && weights.iter().all(|weight| *weight == 0.0) {
        return Err(Error::input("no task weighs anything").help("give one task a weight above 0"));
    }
    Ok(weights)
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
