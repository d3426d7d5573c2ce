//! What was asked for, as a report repeats it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::words::shorten;
use crate::aggregate::{Draw, Neighbour, Scope};
use crate::allocate::{Choice, Rounding};
use crate::prune::PruneConfig;

/// The options that decide which channels go.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Options {
    /// The plan file that was replayed; the other options then did not matter.
    pub plan: Option<String>,
    /// The fraction of channels to remove.
    pub ratio: Option<f64>,
    /// The importance criterion.
    pub criterion: String,
    /// The multiple that kept counts are rounded to; none for the automatic choice.
    pub round_to: Option<usize>,
    /// The smallest number of channels that a group keeps.
    pub min_channels: usize,
    /// The largest fraction that a group loses.
    pub max_ratio: f64,
    /// Patterns of protected names.
    pub protect: Vec<String>,
    /// The fraction of channels to remove from groups that feed one task alone, by task, where it is not `ratio`.
    pub task_ratios: BTreeMap<String, f64>,
    /// The fraction of channels to remove from groups that feed several tasks, if it is not `ratio`.
    pub trunk_ratio: Option<f64>,
    /// Tasks whose own groups stay whole and whose needs come first in shared ones.
    pub protect_tasks: Vec<String>,
    /// What becomes of whole heads: `keep`, `prune`, or none where what nests them decides.
    pub heads: Option<&'static str>,
    /// What becomes of the dimensions inside heads.
    pub head_dims: Option<&'static str>,
    /// What combines the scores of tasks, where that was asked for.
    pub task_aggregation: Option<String>,
    /// The weights of tasks that were given.
    pub task_weights: BTreeMap<String, f64>,
    /// Where channels compete: `group` or `global`.
    pub scope: &'static str,
    /// How votes become a choice: `top` or `softmax`.
    pub draw: &'static str,
    /// The masks that voted, with their weights, the nearest or the first named first; empty where the tasks decided.
    pub neighbours: Vec<(String, f64)>,
    /// True if axes could shrink over which statistics are taken.
    pub allow_approximate: bool,
    /// The seed.
    pub seed: u64,
}

impl Options {
    /// The options of a run; `plan` names the plan file if one was replayed, `allow_approximate` is as the model was
    /// analysed.
    pub fn new(config: &PruneConfig, plan: Option<String>, allow_approximate: bool) -> Self {
        let choice = |choice: Choice| match choice {
            Choice::Keep => "keep",
            Choice::Prune => "prune",
        };
        let round_to = match config.rounding {
            Rounding::Auto => None,
            Rounding::Multiple(n) => Some(n),
        };
        Self {
            ratio: plan.is_none().then_some(config.ratio),
            plan,
            criterion: config.criterion.clone(),
            round_to,
            min_channels: config.min_channels,
            max_ratio: config.max_ratio,
            protect: config.protect.clone(),
            task_ratios: config.task_ratios.iter().cloned().collect(),
            trunk_ratio: config.trunk_ratio,
            protect_tasks: config.protect_tasks.clone(),
            heads: config.heads.map(choice),
            head_dims: config.head_dims.map(choice),
            task_aggregation: config.aggregation.name.clone(),
            task_weights: config.aggregation.weights.iter().cloned().collect(),
            scope: match config.aggregation.scope {
                Scope::Group => "group",
                Scope::Global => "global",
            },
            draw: match config.aggregation.draw {
                Draw::Top => "top",
                Draw::Softmax => "softmax",
            },
            neighbours: Vec::new(),
            allow_approximate,
            seed: config.seed,
        }
    }

    /// With the masks that voted.
    #[must_use]
    pub fn with_neighbours(mut self, neighbours: &[Neighbour]) -> Self {
        self.neighbours = neighbours.iter().map(|neighbour| (neighbour.name.clone(), neighbour.weight)).collect();
        self
    }

    /// What differs from task to task, in one line; none where nothing does.
    pub(super) fn tasks_line(&self) -> Option<String> {
        let mut words: Vec<String> = Vec::new();
        words.extend(self.trunk_ratio.map(|ratio| format!("trunk {ratio}")));
        words.extend(self.task_ratios.iter().map(|(task, ratio)| format!("branch of {} {ratio}", shorten(task, 40))));
        if let Some(ratio) = self.ratio.filter(|_| !words.is_empty()) {
            words.push(format!("the rest {ratio}"));
        }
        words.extend(self.protect_tasks.iter().map(|task| format!("{} protected", shorten(task, 40))));
        (!words.is_empty()).then(|| words.join(", "))
    }
}
