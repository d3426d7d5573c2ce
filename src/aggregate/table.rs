//! The table of aggregations.

use super::{
    AggregateConfig, Aggregation, Draw, Scope, geometric, max, mean, min, score_mask, sum, unanimous, vote, weighted,
};
use crate::{Error, Result};

/// One row of the table of aggregations.
pub struct AggregationRow {
    /// Its name on the command line.
    pub name: &'static str,
    /// The aggregation.
    pub aggregation: &'static dyn Aggregation,
    /// What it does, in one sentence.
    pub note: &'static str,
    /// Where it comes from.
    pub source: &'static str,
}

/// What serves where tasks say different things and nothing is asked for.
pub const DEFAULT: &str = "mean";

/// All aggregations, in the order in which they are listed.
pub static AGGREGATIONS: &[AggregationRow] = &[
    AggregationRow { name: "mean", aggregation: &mean::Mean, note: "mean over the tasks, weighted", source: "usual" },
    AggregationRow {
        name: "sum",
        aggregation: &sum::Sum,
        note: "sum over the tasks, weighted; within a group the same order as the mean",
        source: "usual",
    },
    AggregationRow {
        name: "max",
        aggregation: &max::Max,
        note: "what the channel is to the task that needs it most, times the task's weight",
        source: "usual",
    },
    AggregationRow {
        name: "min",
        aggregation: &min::Min,
        note: "what the channel is to the task that needs it least, divided by the task's weight",
        source: "usual",
    },
    AggregationRow {
        name: "geometric",
        aggregation: &geometric::Geometric,
        note: "geometric mean over the tasks, weighted; a channel that one task does not need is worth nothing",
        source: "usual",
    },
    AggregationRow {
        name: "weighted",
        aggregation: &weighted::Weighted,
        note: "the mean that insists on --task-weight",
        source: "usual",
    },
    AggregationRow {
        name: "unanimous",
        aggregation: &unanimous::Unanimous,
        note: "a shared channel goes only if no task has it among its first; a weight multiplies how many a task keeps",
        source: "DiSparse, arXiv 2206.04662: the published rule, for channels instead of single weights",
    },
    AggregationRow {
        name: "vote",
        aggregation: &vote::Vote,
        note: "most votes of masks first, ties by the mean score, or drawn by the softmax over votes; every mask has one vote, whatever its weight",
        source: "Meta-Vote Pruning, arXiv 2301.11560, after the published description",
    },
    AggregationRow {
        name: "score-mask",
        aggregation: &score_mask::ScoreMask,
        note: "weighted sum of masks, ties by the mean score",
        source: "One-Shot Pruning, arXiv 2307.04365, after the published description",
    },
];

/// The aggregation of a name; `disparse` is another one for `unanimous`.
///
/// # Errors
/// An unknown name; the message lists the known ones.
pub fn aggregation(name: &str) -> Result<&'static AggregationRow> {
    let name = if name == "disparse" { "unanimous" } else { name };
    AGGREGATIONS.iter().find(|row| row.name == name).ok_or_else(|| {
        let names: Vec<&str> = AGGREGATIONS.iter().map(|row| row.name).collect();
        Error::input(format!("there is no task aggregation `{name}`"))
            .help(format!("choose one of {}", names.join(", ")))
    })
}

impl AggregationRow {
    /// True if the masks of neighbours can take part.
    pub fn takes_masks(&self) -> bool {
        matches!(self.name, "vote" | "score-mask")
    }

    /// Refuses options that would do nothing.
    pub(super) fn check(&self, config: &AggregateConfig, has_neighbours: bool) -> Result<()> {
        let refuse = |what: &str, help: &str| {
            Err(Error::input(format!("the task aggregation `{}` {what}", self.name)).help(help.to_owned()))
        };
        if self.name == "weighted" && config.weights.is_empty() {
            return refuse("needs weights", "give --task-weight NAME=W, or take mean");
        }
        if config.scope == Scope::Global && self.takes_masks() {
            return refuse("only ranks channels within their group", "leave out --scope global, or take another one");
        }
        if config.draw == Draw::Softmax && self.name != "vote" {
            return refuse("draws nothing", "leave out --draw, or take vote");
        }
        if has_neighbours && !self.takes_masks() {
            return refuse(
                "does not look at masks of neighbours",
                "take vote or score-mask, or leave out --neighbours",
            );
        }
        Ok(())
    }
}
