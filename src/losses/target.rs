//! Target: an output that a loss is taken of, seen as one row per sample.

use std::sync::Arc;

use super::Head;
use crate::engine::{ElementType, Value};
use crate::{Error, Result};

/// An output with what is known of it.
#[derive(Clone, Debug)]
pub struct Target {
    /// The task that it belongs to.
    pub task: String,
    /// Name of the graph output.
    pub output: String,
    /// Element type.
    pub element: ElementType,
    /// Extents when so many samples were run.
    pub shape: Vec<usize>,
    /// How many samples.
    pub samples: usize,
    /// What made it.
    pub head: Head,
    /// Labels of all samples of the source, the first axis counting them.
    pub labels: Option<Arc<Value>>,
}

impl Target {
    /// The extents of one sample.
    ///
    /// # Errors
    /// When the first axis does not count samples.
    pub fn extents(&self) -> Result<Vec<usize>> {
        let samples = self.samples.max(1);
        match self.shape.split_first() {
            Some((first, rest)) if *first == samples => Ok(rest.to_vec()),
            // Several rows belong to each sample, or all to the only one.
            Some((first, rest)) if first.is_multiple_of(samples) => {
                Ok(std::iter::once(first / samples).chain(rest.iter().copied()).collect())
            }
            None if samples == 1 => Ok(Vec::new()),
            _ => Err(self
                .wrong(format!("the first axis of the shape {:?} does not count {samples} samples", self.shape))
                .help("run with --batch-size 1")),
        }
    }

    /// How many numbers a sample has.
    pub(super) fn len(&self) -> Result<usize> {
        Ok(self.extents()?.iter().product())
    }

    /// An axis of the output as an axis of a sample.
    pub(super) fn axis(&self, axis: usize) -> Option<usize> {
        if self.shape.first() == Some(&self.samples) { axis.checked_sub(1) } else { Some(axis) }
    }

    /// The extents of one label.
    pub(super) fn label_extents(&self) -> Vec<usize> {
        self.labels.as_ref().map_or_else(Vec::new, |labels| labels.shape().iter().skip(1).copied().collect())
    }

    /// The labels, which must be there.
    pub(super) fn given(&self) -> Result<Arc<Value>> {
        let labels = self.labels.clone();
        labels.ok_or_else(|| {
            self.wrong("this loss needs labels".to_owned()).help(
                "give them with --labels, under the name of the task or output, or choose probe, sampled or pseudo",
            )
        })
    }

    /// Labels that are as many numbers as the output.
    pub(super) fn numbers(&self) -> Result<Arc<Value>> {
        let labels = self.given()?;
        let (own, given) = (self.extents()?, self.label_extents());
        if squeezed(&own) == squeezed(&given) {
            return Ok(labels);
        }
        Err(self
            .wrong(format!("labels of shape {given:?} for outputs of shape {own:?}, by sample"))
            .help("labels need the shape of the output; cross-entropy takes classes as integers"))
    }

    /// An error that says where.
    pub(super) fn wrong(&self, what: String) -> Error {
        Error::input(format!("task `{}`: {what}", self.task)).tensor(&self.output)
    }
}

/// Extents without those that are 1.
pub(super) fn squeezed(extents: &[usize]) -> Vec<usize> {
    extents.iter().copied().filter(|n| *n != 1).collect()
}
