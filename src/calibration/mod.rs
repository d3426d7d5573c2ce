//! Calibration: what real samples tell about a model, gathered batch by batch in any engine.
//!
//! Samples are read when they are needed and forgotten after their batch, so memory does not grow with their number.
//! Invariants: a sample counts once, however the last batch is filled up; results are sums in double precision, so they
//! do not depend on the order of batches beyond rounding, and those of shards add up.

pub mod batching;
mod emit;
mod fit;
mod gather;
mod maps;
mod measure;
mod reductions;
mod segments;
mod signs;
pub mod source;
mod statistics;
pub mod statistics_file;
mod sums;
mod taps;

pub(crate) use emit::collect_names;
pub use gather::{Gathering, Shard};
pub use measure::{MEASURES, Measure, Need, Wish};
pub use segments::Segment;
pub use statistics::{FEATURES, Statistics, TapStatistics};
pub use sums::{Sums, WORDS};
pub use taps::{GroupTap, Tap, Taps, WeightAxis};

use std::path::Path;

use crate::Result;
use crate::engine::Feeds;

/// Samples, one at a time and in any order. Implementations read from files when asked.
pub trait Source: Send + Sync {
    /// The number of samples.
    fn len(&self) -> usize;

    /// True when there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values of one sample by array name, without the axis that counts samples.
    ///
    /// # Errors
    /// A sample that cannot be read, with its file, name and number.
    fn sample(&self, index: usize) -> Result<Feeds>;

    /// The file that one sample comes from, where there are several.
    fn file(&self, index: usize) -> Option<&Path> {
        let _ = index;
        None
    }

    /// What a person should know about how the files were understood, one sentence each.
    fn notes(&self) -> &[String] {
        &[]
    }
}

/// Inputs of one run of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// A value for every graph input, of the type and shape that the model takes.
    pub feeds: Feeds,
    /// The numbers of the samples in the source, in the order of the batch axis.
    pub samples: Vec<usize>,
    /// How many places at the end of the batch axis repeat the last sample, because the model takes no shorter batch;
    /// they must not count.
    pub filler: usize,
}

/// The chosen samples, cut into batches for one model.
pub trait Batches: Send + Sync {
    /// The number of batches.
    fn len(&self) -> usize;

    /// True when there is no batch.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of samples in all batches together.
    fn samples(&self) -> usize;

    /// One batch, read now.
    ///
    /// # Errors
    /// A sample that cannot be read or does not fit the model, with its number and input.
    fn batch(&self, index: usize) -> Result<Batch>;
}
