//! What the tests of aggregations have in common.

use super::{Aggregation, Draw, Input, Neighbour, Room, Scope, TaskScores};

/// A setting of which tests change what they are about.
pub(super) struct Case {
    pub(super) scores: TaskScores,
    pub(super) rooms: Vec<Room>,
    pub(super) weights: Vec<f64>,
    pub(super) neighbours: Vec<Neighbour>,
    pub(super) scope: Scope,
    pub(super) draw: Draw,
    pub(super) seed: u64,
}

impl Case {
    /// Tasks by group; an empty list where a group does not feed a task. Half of every group is to stay.
    pub(super) fn new(tasks: &[&[&[f64]]]) -> Self {
        let own = |scores: &[f64]| (!scores.is_empty()).then(|| scores.to_vec());
        let of = |task: &&[&[f64]]| task.iter().map(|scores| own(scores)).collect();
        let scores: Vec<Vec<Option<Vec<f64>>>> = tasks.iter().map(of).collect();
        let extent = |group: usize| tasks.iter().map(|task| task[group].len()).max().unwrap_or(0);
        let room = |group: usize| Room {
            name: format!("group{group}"),
            extent: extent(group),
            count: extent(group).div_ceil(2),
            open: true,
        };
        Self {
            rooms: (0..tasks.first().map_or(0, |task| task.len())).map(room).collect(),
            weights: vec![1.0; tasks.len()],
            scores: TaskScores { tasks: (0..tasks.len()).map(|task| format!("task{task}")).collect(), scores },
            neighbours: Vec::new(),
            scope: Scope::Group,
            draw: Draw::Top,
            seed: 0,
        }
    }

    /// As [`Case::new`] with masks of neighbours of the only group, and their weights.
    pub(super) fn with_masks(masks: &[(&str, f64)], mean: &[f64]) -> Self {
        let neighbour = |(mask, weight): &(&str, f64)| Neighbour {
            name: (*mask).to_owned(),
            weight: *weight,
            keeps: vec![Some(mask.chars().map(|c| c == '1').collect())],
        };
        Self { neighbours: masks.iter().map(neighbour).collect(), ..Self::new(&[&[mean]]) }
    }

    pub(super) fn input(&self) -> Input<'_> {
        let Self { scores, rooms, weights, neighbours, scope, draw, seed } = self;
        Input { scores, rooms, weights, neighbours, scope: *scope, draw: *draw, seed: *seed }
    }

    pub(super) fn combine(&self, aggregation: &dyn Aggregation) -> Vec<Vec<f64>> {
        aggregation.combine(&self.input())
    }
}

/// True if two lists differ by no more than the last digit that is written.
pub(super) fn near(a: &[f64], b: &[f64], digit: f64) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 0.5 * digit + 1e-12)
}

/// The channels of the highest scores, ascending.
pub(super) fn kept(scores: &[f64], count: usize) -> Vec<usize> {
    super::top(scores, count).iter().enumerate().filter(|(_, keep)| **keep).map(|(at, _)| at).collect()
}
