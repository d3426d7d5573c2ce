//! Losses: what a task loses when its outputs change, as ONNX nodes behind the model.
//!
//! Every loss gives one number per sample, the mean over the positions of an output, so that gradients of single samples
//! can be told apart; a task's loss is the sum over its outputs. Labels, random directions and random labels are further
//! inputs of the model. One file per loss, one row in [`LOSSES`]. Invariants: losses are computed in single precision or
//! better; what is random depends on the seed, the output and the number of the sample alone, not on batches.

mod binary;
mod binary_cross_entropy;
mod choose;
mod classes;
mod cosine;
mod cross_entropy;
mod difference;
mod emit;
mod fill;
mod head;
mod probe;
mod pseudo;
mod sampled;
mod target;
#[cfg(test)]
mod tests;

pub use choose::{Chosen, LossRequest, TaskOutputs, choose};
pub use emit::Emitter;
pub use fill::{Draw, Feed, Fill};
pub use head::{Activation, Head};
pub use target::Target;

use crate::{Error, Result};

/// A way to tell how far an output is off.
pub trait Loss: Sync {
    /// Emits the nodes; gives the name of a value of shape [batch].
    ///
    /// # Errors
    /// Shapes or labels that do not fit, with the output's name.
    fn emit(&self, target: &Target, emitter: &mut Emitter) -> Result<String>;
}

/// One row of the table of losses.
pub struct LossRow {
    /// Its name on the command line.
    pub name: &'static str,
    /// The loss.
    pub loss: &'static dyn Loss,
    /// True if it compares with labels.
    pub needs_labels: bool,
    /// True if it draws random numbers, so that several draws per sample tell more.
    pub is_random: bool,
    /// What it is, in one sentence.
    pub note: &'static str,
}

impl std::fmt::Debug for LossRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The loss that serves where there are no labels.
pub const DEFAULT: &str = "probe";

/// All losses, in the order in which they are listed.
pub static LOSSES: &[LossRow] = &[
    LossRow {
        name: "cross-entropy",
        loss: &cross_entropy::CrossEntropy(None),
        needs_labels: true,
        is_random: false,
        note: "minus the logarithm of the probability of the labelled class, mean over positions; a Softmax or LogSoftmax before the output is recognised, anything else is taken for logits",
    },
    LossRow {
        name: "cross-entropy-logits",
        loss: &cross_entropy::CrossEntropy(Some(Activation::None)),
        needs_labels: true,
        is_random: false,
        note: "cross-entropy of an output that holds logits, whatever the model looks like",
    },
    LossRow {
        name: "cross-entropy-probabilities",
        loss: &cross_entropy::CrossEntropy(Some(Activation::Softmax)),
        needs_labels: true,
        is_random: false,
        note: "cross-entropy of an output that holds probabilities",
    },
    LossRow {
        name: "cross-entropy-logarithms",
        loss: &cross_entropy::CrossEntropy(Some(Activation::LogSoftmax)),
        needs_labels: true,
        is_random: false,
        note: "cross-entropy of an output that holds logarithms of probabilities",
    },
    LossRow {
        name: "binary-cross-entropy",
        loss: &binary_cross_entropy::BinaryCrossEntropy(None),
        needs_labels: true,
        is_random: false,
        note: "cross-entropy of every element for itself, labels from 0 to 1; a Sigmoid before the output is recognised, anything else is taken for logits",
    },
    LossRow {
        name: "binary-cross-entropy-logits",
        loss: &binary_cross_entropy::BinaryCrossEntropy(Some(Activation::None)),
        needs_labels: true,
        is_random: false,
        note: "binary cross-entropy of an output that holds logits",
    },
    LossRow {
        name: "binary-cross-entropy-probabilities",
        loss: &binary_cross_entropy::BinaryCrossEntropy(Some(Activation::Sigmoid)),
        needs_labels: true,
        is_random: false,
        note: "binary cross-entropy of an output that holds probabilities",
    },
    LossRow {
        name: "mse",
        loss: &difference::Difference::Squared,
        needs_labels: true,
        is_random: false,
        note: "mean of the squared differences",
    },
    LossRow {
        name: "l1",
        loss: &difference::Difference::Absolute,
        needs_labels: true,
        is_random: false,
        note: "mean of the absolute differences",
    },
    LossRow {
        name: "cosine",
        loss: &cosine::Cosine,
        needs_labels: true,
        is_random: false,
        note: "1 - cosine between output and label along the first axis of a sample, mean over positions",
    },
    LossRow {
        name: "probe",
        loss: &probe::Probe,
        needs_labels: false,
        is_random: true,
        note: "the output times random signs, over the root of its number of elements: squared gradients are then Gauss-Newton, the mean square of what the output changes",
    },
    LossRow {
        name: "sampled",
        loss: &sampled::Sampled,
        needs_labels: false,
        is_random: true,
        note: "cross-entropy with labels drawn from the model's own distribution (one row of numbers per sample is taken for classes), normal for what is no class: squared gradients are then those of the Fisher information",
    },
    LossRow {
        name: "pseudo",
        loss: &pseudo::Pseudo,
        needs_labels: false,
        is_random: false,
        note: "cross-entropy with the model's own most likely classes as labels",
    },
];

/// The loss of a name.
///
/// # Errors
/// An unknown name; the message lists the known ones.
pub fn loss(name: &str) -> Result<&'static LossRow> {
    LOSSES.iter().find(|row| row.name == name).ok_or_else(|| {
        let names: Vec<&str> = LOSSES.iter().map(|row| row.name).collect();
        Error::input(format!("there is no loss `{name}`")).help(format!("choose one of {}", names.join(", ")))
    })
}
