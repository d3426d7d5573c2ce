//! Scores: one importance per channel of every group.
//!
//! Group importance as DepGraph defines it (arXiv 2301.12900; reference: Torch-Pruning `GroupMagnitudeImportance`):
//! every weight member gives one number per channel, the group's importance is their mean. Rows, columns and gammas
//! count; biases and statistics do not. Criteria that look at activations take the mean over the places where the
//! channels of a group are measured. One file per criterion, one row in [`CRITERIA`].

mod activation;
mod column_subset;
mod magnitude;
mod manifold;
mod maps;
mod marginal;
mod measured;
mod quantised;
mod random;
#[cfg(test)]
mod testing;
mod wanda;
mod weights;

use crate::calibration::{Measure, Need, Statistics, Wish};
use crate::coupling::Coupling;
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
}

/// A way to tell how much each channel matters.
pub trait Criterion: Sync {
    /// One importance per channel of every group, in group order; higher stays longer.
    ///
    /// # Errors
    /// A constant that cannot be read; statistics that are missing or of another model.
    fn score(&self, input: &ScoreInput) -> Result<Vec<Vec<f64>>>;
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
}

impl CriterionRow {
    /// All that calibration has to measure for this criterion alone.
    pub fn wish(&self) -> Wish {
        self.needs.iter().fold(Wish::nothing(), |wish, need| wish.and(*need))
    }
}

/// The criterion that needs nothing but weights and serves where nothing is said.
pub const DEFAULT: &str = "l2";

/// The criterion that serves where there are samples to measure and to repair with (`make repair-table` compares).
pub const DEFAULT_WITH_SAMPLES: &str = "column-subset";

/// All criteria, in the order in which they are listed.
pub static CRITERIA: &[CriterionRow] = &[
    CriterionRow {
        name: "l2",
        criterion: &magnitude::Magnitude { power: 2, scales_only: false },
        note: "sum of squared weights of a channel, mean over the members of its group (DepGraph, arXiv 2301.12900)",
        needs_statistics: false,
        needs: &[],
    },
    CriterionRow {
        name: "l1",
        criterion: &magnitude::Magnitude { power: 1, scales_only: false },
        note: "sum of absolute weights of a channel, mean over the members of its group (DepGraph, arXiv 2301.12900)",
        needs_statistics: false,
        needs: &[],
    },
    CriterionRow {
        name: "bn-scale",
        criterion: &magnitude::Magnitude { power: 1, scales_only: true },
        note: "absolute gamma of the normalisations of a group (Network Slimming, arXiv 1708.06519); groups without one are scored by l1",
        needs_statistics: false,
        needs: &[],
    },
    CriterionRow {
        name: "random",
        criterion: &random::Random,
        note: "seeded random numbers: the baseline every other criterion must beat",
        needs_statistics: false,
        needs: &[],
    },
    CriterionRow {
        name: "activation-l1",
        criterion: &activation::Activation::Magnitude,
        note: "mean magnitude of what a channel delivers to those that contract it",
        needs_statistics: true,
        needs: &[Need::Measure(Measure::Absolute)],
    },
    CriterionRow {
        name: "activation-l2",
        criterion: &activation::Activation::Energy,
        note: "root of the mean square of what a channel delivers to those that contract it",
        needs_statistics: true,
        needs: &[Need::Measure(Measure::Square)],
    },
    CriterionRow {
        name: "apoz",
        criterion: &activation::Activation::NonZero,
        note: "share of what a channel delivers that is not zero: 1 - APoZ (Network Trimming, arXiv 1607.03250)",
        needs_statistics: true,
        needs: &[Need::Measure(Measure::NonZero)],
    },
    CriterionRow {
        name: "activation-variance",
        criterion: &activation::Activation::Variance,
        note: "variance of what a channel delivers to those that contract it",
        needs_statistics: true,
        needs: &[Need::Measure(Measure::Sum), Need::Measure(Measure::Square)],
    },
    CriterionRow {
        name: "wanda",
        criterion: &wanda::Wanda,
        note: "magnitudes of the weights that contract a channel times the root mean square of what they are fed, summed (Wanda, arXiv 2306.11695)",
        needs_statistics: true,
        needs: &[Need::Measure(Measure::Square)],
    },
    CriterionRow {
        name: "column-subset",
        criterion: &column_subset::ColumnSubset,
        note: "what least squares cannot bring back: backward elimination on the covariance of a group's activations, weighted by what contracts them",
        needs_statistics: true,
        needs: &[Need::Measure(Measure::Sum), Need::Products],
    },
    CriterionRow {
        name: "hrank",
        criterion: &maps::OfMaps(Measure::Ranks),
        note: "mean rank of the pictures that a channel delivers (HRank, arXiv 2002.10179)",
        needs_statistics: true,
        needs: &[Need::Measure(Measure::Ranks)],
    },
    CriterionRow {
        name: "chip",
        criterion: &maps::OfMaps(Measure::Independence),
        note: "mean drop of the nuclear norm of all channels without this one (CHIP, arXiv 2110.13981)",
        needs_statistics: true,
        needs: &[Need::Measure(Measure::Independence)],
    },
    CriterionRow {
        name: "manifold",
        criterion: &manifold::Manifold,
        note: "how much the similarities between samples change without a channel (after ManiDP, arXiv 2103.05861, without its gates)",
        needs_statistics: true,
        needs: &[Need::Features],
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
