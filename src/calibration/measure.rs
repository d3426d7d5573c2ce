//! Measures: what can be known of the values of a channel.
//!
//! One row per measure in [`MEASURES`]. Every measure merges: sums are added, extremes are compared.

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
}

/// All measures, with the names that they have in files.
pub const MEASURES: &[(Measure, &str)] = &[
    (Measure::Sum, "sum"),
    (Measure::Square, "sum-of-squares"),
    (Measure::Absolute, "absolute-sum"),
    (Measure::NonZero, "non-zero-count"),
    (Measure::Minimum, "minimum"),
    (Measure::Maximum, "maximum"),
];

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

    /// How the graph computes it.
    pub(super) fn reduction(self) -> Reduction {
        match self {
            Self::Sum | Self::NonZero => Reduction::Sum,
            Self::Square => Reduction::Square,
            Self::Absolute => Reduction::Absolute,
            Self::Minimum => Reduction::Minimum,
            Self::Maximum => Reduction::Maximum,
        }
    }
}
