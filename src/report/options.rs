//! What was asked for, as a report repeats it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::aggregate::{Draw, Scope};
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
            allow_approximate,
            seed: config.seed,
        }
    }
}
