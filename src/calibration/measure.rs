//! Measures: what can be known of the values of a channel.
//!
//! One row per measure in [`MEASURES`]. Every measure merges: sums are added, extremes are compared.

use std::collections::BTreeSet;

use super::emit::Reduction;

/// A number per position of a tap's axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// The sum of the values.
    Sum,
    /// The sum of their squares.
    Square,
    /// The sum of their magnitudes.
    Absolute,
    /// How many of them are not zero.
    NonZero,
    /// The smallest.
    Minimum,
    /// The largest.
    Maximum,
    /// The ranks of the pictures that the channel is, one per sample, summed up.
    Ranks,
    /// The drops of the nuclear norm without the channel, one per sample, summed up.
    Independence,
}

/// All measures, with the names that they have in files.
pub const MEASURES: &[(Measure, &str)] = &[
    (Measure::Sum, "sum"),
    (Measure::Square, "sum-of-squares"),
    (Measure::Absolute, "absolute-sum"),
    (Measure::NonZero, "non-zero-count"),
    (Measure::Minimum, "minimum"),
    (Measure::Maximum, "maximum"),
    (Measure::Ranks, "rank-sum"),
    (Measure::Independence, "independence-sum"),
];

/// What is to be measured at every tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The measures.
    pub measures: BTreeSet<Measure>,
    /// True if the products of the channels of every group with one another are summed up as well.
    pub products: bool,
    /// True if the means of every channel are kept sample by sample, for the first samples.
    pub features: bool,
}

/// One thing that a criterion needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Products of channels with one another.
    Products,
    /// Means by sample.
    Features,
    /// A measure.
    Measure(Measure),
}

impl Default for Wish {
    /// What nearly all criteria live on and costs little.
    fn default() -> Self {
        Self { measures: [Measure::Sum, Measure::Square, Measure::Absolute].into(), products: false, features: false }
    }
}

impl Wish {
    /// Nothing at all.
    pub fn nothing() -> Self {
        Self { measures: BTreeSet::new(), products: false, features: false }
    }

    /// All that the engine sums up by channel.
    pub fn every_sum() -> Self {
        let measures = MEASURES.iter().map(|(measure, _)| *measure).filter(|m| !m.needs_maps()).collect();
        Self { measures, products: false, features: false }
    }

    /// This and what a criterion needs.
    #[must_use]
    pub fn and(mut self, need: Need) -> Self {
        match need {
            Need::Products => self.products = true,
            Need::Features => self.features = true,
            Need::Measure(measure) => _ = self.measures.insert(measure),
        }
        self
    }

    /// True if whole activations must leave the engine.
    pub(super) fn maps(&self) -> bool {
        self.measures.iter().any(|measure| measure.needs_maps())
    }
}

impl Measure {
    /// The name in files.
    pub fn name(self) -> &'static str {
        MEASURES.iter().find(|(measure, _)| *measure == self).map_or("", |(_, name)| *name)
    }

    /// The measure of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        MEASURES.iter().find(|(_, own)| *own == name).map(|(measure, _)| *measure)
    }

    /// True for what is compared and not added.
    pub fn is_extreme(self) -> bool {
        matches!(self, Self::Minimum | Self::Maximum)
    }

    /// True for what is worked out of whole activations on the host.
    pub fn needs_maps(self) -> bool {
        self.reduction().is_none()
    }

    /// How the graph reduces it, if it does.
    pub(super) fn reduction(self) -> Option<Reduction> {
        Some(match self {
            Self::Sum | Self::Square | Self::Absolute | Self::NonZero => Reduction::Sum,
            Self::Minimum => Reduction::Minimum,
            Self::Maximum => Reduction::Maximum,
            Self::Ranks | Self::Independence => return None,
        })
    }
}
