//! DiSparse (arXiv 2206.04662): a channel goes only if all tasks that it feeds agree.
//!
//! At a fraction κ every task keeps the first κ of the channels that feed it, by its own scores; a shared channel stays
//! if any task keeps it, a private one if its own does. The union is larger than κ, so κ has to be found for which it
//! meets the budget. As κ grows, a channel enters at the smallest place that any of its tasks gives it and never leaves;
//! so the bisection for κ ends where sorting the channels by these entries ends, which is what happens here. Channels
//! that enter at the same κ are taken by their mean score, so that the budget is met exactly and not within as many
//! channels as there are tasks.
//!
//! Within groups (the default) the places are those within a group, and every group keeps what the ratio leaves it.
//! Within the model they are those among all channels that may go, as published, and groups shrink unequally. A task's
//! weight multiplies its own κ, the heaviest having κ itself; a task whose scores are all zero there keeps nothing by
//! itself. Equal scores enter together, as in the published code.

use super::{Aggregation, Input, Room, Scope, ranked};

pub(super) struct Unanimous;

impl Aggregation for Unanimous {
    fn combine(&self, input: &Input) -> Vec<Vec<f64>> {
        let entries = entries(input);
        let mean = input.mean();
        let order = |entries: &[f64], mean: &[f64]| ranked(&entries.iter().map(|e| -e).collect::<Vec<f64>>(), mean);
        match input.scope {
            Scope::Group => entries.iter().zip(&mean).map(|(entries, mean)| order(entries, mean)).collect(),
            Scope::Global => {
                let mut places = order(&entries.concat(), &mean.concat()).into_iter();
                entries.iter().map(|group| places.by_ref().take(group.len()).collect()).collect()
            }
        }
    }
}

/// The κ from which on each channel stays, by group; infinite for those that no task ranks.
pub fn entries(input: &Input) -> Vec<Vec<f64>> {
    let mut entries: Vec<Vec<f64>> = input.rooms.iter().map(|room| vec![f64::INFINITY; room.extent]).collect();
    let heaviest = input.weights.iter().copied().fold(0.0, f64::max);
    for (scores, weight) in input.scores.scores.iter().zip(input.weights).filter(|(_, weight)| **weight > 0.0) {
        let own = |group: usize, room: &Room| scores.get(group)?.as_deref().filter(|_| room.open);
        let known = input.rooms.iter().enumerate().filter_map(|(group, room)| Some((group, own(group, room)?)));
        let known: Vec<(usize, &[f64])> = known.collect();
        let fields: Vec<&[(usize, &[f64])]> = match input.scope {
            Scope::Group => known.chunks(1).collect(),
            Scope::Global => vec![&known],
        };
        for field in fields {
            let places = places(&field.iter().flat_map(|(_, scores)| scores.iter().copied()).collect::<Vec<f64>>());
            let mut places = places.into_iter().flatten();
            for (group, scores) in field {
                let entered = entries.get_mut(*group).map(|group| group.iter_mut()).into_iter().flatten();
                for (entry, place) in entered.zip(places.by_ref().take(scores.len())) {
                    *entry = entry.min(place * heaviest / weight);
                }
            }
        }
    }
    entries
}

/// What stays at a fraction κ.
pub fn kept_at(entries: &[Vec<f64>], kappa: f64) -> Vec<Vec<bool>> {
    // Places are quotients of counts: what differs by rounding is the same.
    let stays = |entry: &f64| *entry <= kappa + 1e-12;
    entries.iter().map(|group| group.iter().map(stays).collect()).collect()
}

/// The fraction of the scores up to each of them, the highest first; equal ones have the place of the first. None where
/// all are zero, which says nothing.
fn places(scores: &[f64]) -> Option<Vec<f64>> {
    if scores.iter().all(|score| *score == 0.0) {
        return None;
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let score = |at: usize| scores.get(at).copied().unwrap_or_default() + 0.0;
    order.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
    let mut places = vec![0.0; scores.len()];
    let mut first = 0;
    for (position, at) in order.iter().enumerate() {
        if order.get(first).is_some_and(|first| score(*first) != score(*at)) {
            first = position;
        }
        if let Some(place) = places.get_mut(*at) {
            *place = (first + 1) as f64 / scores.len() as f64;
        }
    }
    Some(places)
}
