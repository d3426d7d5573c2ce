//! Scores: one importance per channel of every group.
//!
//! Group importance as DepGraph defines it (arXiv 2301.12900; reference: Torch-Pruning `GroupMagnitudeImportance`):
//! every weight member gives one number per channel, the group's importance is their mean. Rows, columns and gammas
//! count; biases and statistics do not. Criteria that look at activations take the mean over the places where the
//! channels of a group are measured. One file per criterion, one row in [`CRITERIA`].

mod activation;
mod column_subset;
mod cosprune;
mod fisher;
mod gradient;
mod gradient_activation;
mod lamp;
mod magnitude;
mod manifold;
mod maps;
mod marginal;
mod measured;
mod quantised;
mod random;
mod taylor;
#[cfg(test)]
mod testing;
mod wanda;
mod weight_gradient;
mod weights;

use crate::aggregate::TaskScores;
use crate::calibration::{Measure, Need, Statistics, Wish};
use crate::coupling::Coupling;
use crate::gates::{GradientWish, Gradients};
use crate::graph::Graph;
use crate::groups::Group;
use crate::proto::Pages;
use crate::{Error, Result};

/// What a criterion may look at.
pub struct ScoreInput<'a> {
    /// The graph with its constants.
    pub graph: &'a Graph<'a>,
    /// The axes.
    pub coupling: &'a Coupling,
    /// The groups to score.
    pub groups: &'a [Group],
    /// The seed of everything random.
    pub seed: u64,
    /// The files that weights lie in; what has been read is given back to them.
    pub pages: &'a Pages,
    /// What calibration measured, for the criteria that need it.
    pub statistics: Option<&'a Statistics>,
    /// What the losses of the tasks feel of every channel, for the criteria that need it.
    pub gradients: Option<&'a Gradients>,
    /// What a channel is worth, for criteria that work out which others can replace it.
    pub importance: Importance,
}

/// What a channel is worth where others cannot replace it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Importance {
    /// Its variance times the squares of the weights that contract it.
    #[default]
    Energy,
    /// The criterion `fisher`, mean over tasks.
    Fisher,
    /// The criterion `fisher`, the largest of all tasks.
    FisherMax,
}

/// The names of what a channel may be worth.
pub const IMPORTANCES: &[(&str, Importance)] =
    &[("energy", Importance::Energy), ("fisher", Importance::Fisher), ("fisher-max", Importance::FisherMax)];

/// A way to tell how much each channel matters.
pub trait Criterion: Sync {
    /// One importance per channel of every group, in group order; higher stays longer. Of criteria that know tasks the
    /// mean over those that a group feeds, normalised task by task.
    ///
    /// # Errors
    /// A constant that cannot be read; statistics that are missing or of another model.
    fn score(&self, input: &ScoreInput) -> Result<Vec<Vec<f64>>> {
        let mut scores = self.by_task(input)?.unwrap_or_default().normalised().mean();
        scores.resize(input.groups.len(), Vec::new());
        // Groups that feed no task are worth nothing.
        scores.iter_mut().zip(input.groups).for_each(|(own, group)| own.resize(group.extent, 0.0));
        Ok(scores)
    }

    /// What every task says of each channel; none for criteria that know no tasks.
    ///
    /// # Errors
    /// As [`Criterion::score`].
    fn by_task(&self, input: &ScoreInput) -> Result<Option<TaskScores>> {
        let _ = input;
        Ok(None)
    }
}

/// One row of the table of criteria.
pub struct CriterionRow {
    /// Its name on the command line.
    pub name: &'static str,
    /// The criterion.
    pub criterion: &'static dyn Criterion,
    /// What it is and where it comes from, in one sentence.
    pub note: &'static str,
    /// True if it needs what calibration measured.
    pub needs_statistics: bool,
    /// What of it.
    pub needs: &'static [Need],
    /// What it needs of gradients; none if it looks at none.
    pub gradients: Option<GradientWish>,
    /// The least that every group keeps under this criterion, whatever is asked for.
    pub guard: usize,
    /// True if it asks what a channel is worth, see [`Importance`].
    pub weighs: bool,
}

/// Gradients of gates alone.
const GATES: GradientWish = GradientWish { activations: false, weights: false, weights_by_sample: false };

/// Those of weights as well.
const WEIGHTS: GradientWish = GradientWish { weights: true, ..GATES };

impl CriterionRow {
    /// All that calibration has to measure for this criterion alone.
    pub fn wish(&self) -> Wish {
        self.needs.iter().fold(Wish::nothing(), |wish, need| wish.and(*need))
    }

    /// What it needs of gradients, also where what a channel is worth is worked out from them.
    pub fn gradients(&self, importance: Importance) -> Option<GradientWish> {
        let of_importance = self.weighs && importance != Importance::Energy;
        self.gradients.or(of_importance.then_some(GATES))
    }
}

/// The criterion that needs nothing but weights and serves where nothing is said.
pub const DEFAULT: &str = "l2";

/// The criterion that serves where there are samples to measure and to repair with (`make repair-table` compares).
pub const DEFAULT_WITH_SAMPLES: &str = "column-subset";

/// What most criteria have in common: they look at weights alone.
const ROW: CriterionRow = CriterionRow {
    name: "",
    criterion: &random::Random,
    note: "",
    needs_statistics: false,
    needs: &[],
    gradients: None,
    guard: 1,
    weighs: false,
};

/// All criteria, in the order in which they are listed.
pub static CRITERIA: &[CriterionRow] = &[
    CriterionRow {
        name: "l2",
        criterion: &magnitude::Magnitude { power: 2, scales_only: false },
        note: "sum of squared weights of a channel, mean over the members of its group (DepGraph, arXiv 2301.12900)",
        ..ROW
    },
    CriterionRow {
        name: "l1",
        criterion: &magnitude::Magnitude { power: 1, scales_only: false },
        note: "sum of absolute weights of a channel, mean over the members of its group (DepGraph, arXiv 2301.12900)",
        ..ROW
    },
    CriterionRow {
        name: "bn-scale",
        criterion: &magnitude::Magnitude { power: 1, scales_only: true },
        note: "absolute gamma of the normalisations of a group (Network Slimming, arXiv 1708.06519); groups without one are scored by l1",
        ..ROW
    },
    CriterionRow {
        name: "lamp",
        criterion: &lamp::Lamp,
        note: "l2 of a channel over the sum of all in its group that have no less, so that groups can be compared (LAMP, arXiv 2010.07611)",
        ..ROW
    },
    CriterionRow {
        name: "random",
        criterion: &random::Random,
        note: "seeded random numbers: the baseline every other criterion must beat",
        ..ROW
    },
    CriterionRow {
        name: "activation-l1",
        criterion: &activation::Activation::Magnitude,
        note: "mean magnitude of what a channel delivers to those that contract it",
        needs_statistics: true,
        needs: &[Need::Measure(Measure::Absolute)],
        ..ROW
    },
    CriterionRow {
        name: "activation-l2",
        criterion: &activation::Activation::Energy,
        note: "root of the mean square of what a channel delivers to those that contract it",
        needs_statistics: true,
        needs: &[Need::Measure(Measure::Square)],
        ..ROW
    },
    CriterionRow {
        name: "apoz",
        criterion: &activation::Activation::NonZero,
        note: "share of what a channel delivers that is not zero: 1 - APoZ (Network Trimming, arXiv 1607.03250)",
        needs_statistics: true,
        needs: &[Need::Measure(Measure::NonZero)],
        ..ROW
    },
    CriterionRow {
        name: "activation-variance",
        criterion: &activation::Activation::Variance,
        note: "variance of what a channel delivers to those that contract it",
        needs_statistics: true,
        needs: &[Need::Measure(Measure::Sum), Need::Measure(Measure::Square)],
        ..ROW
    },
    CriterionRow {
        name: "wanda",
        criterion: &wanda::Wanda,
        note: "magnitudes of the weights that contract a channel times the root mean square of what they are fed, summed (Wanda, arXiv 2306.11695)",
        needs_statistics: true,
        needs: &[Need::Measure(Measure::Square)],
        ..ROW
    },
    CriterionRow {
        name: "column-subset",
        criterion: &column_subset::ColumnSubset,
        note: "what least squares cannot bring back: backward elimination on the covariance of a group's activations, weighted by what contracts them",
        needs_statistics: true,
        needs: &[Need::Measure(Measure::Sum), Need::Products],
        weighs: true,
        ..ROW
    },
    CriterionRow {
        name: "hrank",
        criterion: &maps::OfMaps(Measure::Ranks),
        note: "mean rank of the pictures that a channel delivers (HRank, arXiv 2002.10179)",
        needs_statistics: true,
        needs: &[Need::Measure(Measure::Ranks)],
        ..ROW
    },
    CriterionRow {
        name: "chip",
        criterion: &maps::OfMaps(Measure::Independence),
        note: "mean drop of the nuclear norm of all channels without this one (CHIP, arXiv 2110.13981)",
        needs_statistics: true,
        needs: &[Need::Measure(Measure::Independence)],
        ..ROW
    },
    CriterionRow {
        name: "manifold",
        criterion: &manifold::Manifold,
        note: "how much the similarities between samples change without a channel (after ManiDP, arXiv 2103.05861, without its gates)",
        needs_statistics: true,
        needs: &[Need::Features],
        ..ROW
    },
    CriterionRow {
        name: "taylor",
        criterion: &taylor::Taylor { summed: false },
        note: "square of the gradient of a channel's gate, mean loss of a batch, mean over batches (Molchanov et al., arXiv 1906.10771)",
        gradients: Some(GATES),
        ..ROW
    },
    CriterionRow {
        name: "taylor-summed",
        criterion: &taylor::Taylor { summed: true },
        note: "as taylor, the losses of all tasks summed before the gradient is squared (baseline of arXiv 2304.06840)",
        gradients: Some(GATES),
        ..ROW
    },
    CriterionRow {
        name: "fisher",
        criterion: &fisher::Fisher { summed: false },
        note: "mean over samples of the squared gradient of a channel's gate, all its places summed first (arXiv 2108.00708)",
        gradients: Some(GATES),
        ..ROW
    },
    CriterionRow {
        name: "fisher-summed",
        criterion: &fisher::Fisher { summed: true },
        note: "as fisher, the losses of all tasks summed before the gradient is squared",
        gradients: Some(GATES),
        ..ROW
    },
    CriterionRow {
        name: "gradient-activation",
        criterion: &gradient_activation::GradientActivation,
        note: "mean magnitude of activation times gradient, value by value, where channels are contracted",
        gradients: Some(GradientWish { activations: true, ..GATES }),
        ..ROW
    },
    CriterionRow {
        name: "taylor-weight",
        criterion: &weight_gradient::WeightGradient::Taylor,
        note: "sum of (w g)² over the weights that make a channel, g of the mean loss of a batch (Molchanov et al., arXiv 1906.10771)",
        gradients: Some(WEIGHTS),
        ..ROW
    },
    CriterionRow {
        name: "obd",
        criterion: &weight_gradient::WeightGradient::BrainDamage,
        note: "sum of w² E[g²] over the weights that make a channel, g sample by sample (optimal brain damage, LeCun et al. 1990)",
        gradients: Some(GradientWish { weights_by_sample: true, ..WEIGHTS }),
        ..ROW
    },
    CriterionRow {
        name: "snip",
        criterion: &weight_gradient::WeightGradient::Snip,
        note: "sum of the magnitudes of w g over the weights that make a channel (SNIP, arXiv 1810.02340)",
        gradients: Some(WEIGHTS),
        ..ROW
    },
    CriterionRow {
        name: "cosprune",
        criterion: &cosprune::CosPrune,
        note: "cosine between the gradients of tasks, over the weights that make a channel, so that conflicts go first; every group keeps five channels (arXiv 2304.06840)",
        gradients: Some(WEIGHTS),
        guard: 5,
        ..ROW
    },
];

/// The criterion of a name.
///
/// # Errors
/// An unknown name; the message lists the known ones.
pub fn criterion(name: &str) -> Result<&'static CriterionRow> {
    CRITERIA.iter().find(|row| row.name == name).ok_or_else(|| {
        let names: Vec<&str> = CRITERIA.iter().map(|row| row.name).collect();
        Error::input(format!("there is no criterion `{name}`")).help(format!("choose one of {}", names.join(", ")))
    })
}
