//! Neighbours: which channels other pruned models keep, and who votes on a group.

use super::{Input, top};

/// What a pruned model of a similar task keeps of the same groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbour {
    /// What it is called.
    pub name: String,
    /// How much it counts where masks are weighted.
    pub weight: f64,
    /// By group: true for what it keeps; none where it says nothing.
    pub keeps: Vec<Option<Vec<bool>>>,
}

impl Input<'_> {
    /// The masks that vote on a group and their weights: those of the neighbours that have one; where none has, those of
    /// the tasks, each the channels that it would keep if it alone chose as many as are to stay.
    pub(super) fn ballots(&self, group: usize) -> Vec<(Vec<bool>, f64)> {
        let of = |neighbour: &super::Neighbour| Some((neighbour.keeps.get(group)?.clone()?, neighbour.weight));
        let ballots: Vec<(Vec<bool>, f64)> = self.neighbours.iter().filter_map(of).collect();
        if !ballots.is_empty() {
            return ballots;
        }
        let count = self.rooms.get(group).map_or(0, |room| room.count);
        self.opinions(group).into_iter().map(|(scores, weight)| (top(scores, count), weight)).collect()
    }

    /// The votes or weights that the channels of every group get, by what one ballot of a weight is worth.
    pub(super) fn votes(&self, worth: impl Fn(f64) -> f64) -> Vec<Vec<f64>> {
        let of = |(group, room): (usize, &super::Room)| {
            let mut votes = vec![0.0; room.extent];
            for (mask, weight) in self.ballots(group) {
                for (votes, _) in votes.iter_mut().zip(&mask).filter(|(_, keep)| **keep) {
                    *votes += worth(weight);
                }
            }
            votes
        };
        self.rooms.iter().enumerate().map(of).collect()
    }
}
