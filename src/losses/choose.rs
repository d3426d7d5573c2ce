//! Choosing: which loss every output of every task gets.
//!
//! What was asked for counts first, for an output before its task. Where nothing was asked: with labels cross-entropy
//! for integers that name classes, binary cross-entropy for zeros and ones of the shape of the output, and mse for all
//! else; without labels the default of the table. Outputs without labels are left out of a task
//! that has labels for others.

use super::{Activation, LOSSES, LossRow, Target, loss, target::squeezed};
use crate::{Error, Result};

/// A loss that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct LossRequest {
    /// The task or output.
    pub of: String,
    /// Name of the loss.
    pub loss: String,
    /// What it is multiplied with.
    pub weight: f64,
}

/// A task with the names of its graph outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskOutputs {
    /// The task.
    pub task: String,
    /// Its outputs.
    pub outputs: Vec<String>,
}

/// An output with its loss.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The output.
    pub target: Target,
    /// The loss.
    pub row: &'static LossRow,
    /// What it is multiplied with.
    pub weight: f64,
}

/// The losses of the outputs that have one; `targets` are the outputs that hold floating-point numbers.
///
/// # Errors
/// A request for what is no task or output, an unknown loss, labels that fit no loss.
pub fn choose(tasks: &[TaskOutputs], targets: &[Target], requests: &[LossRequest]) -> Result<Vec<Chosen>> {
    check(tasks, requests)?;
    let request = |name: &str| requests.iter().rev().find(|request| request.of == name);
    let mut chosen = Vec::new();
    for task in tasks {
        let own: Vec<&Target> = targets.iter().filter(|target| target.task == task.task).collect();
        let is_labelled = own.iter().any(|target| target.labels.is_some());
        let of_task = request(&task.task);
        for target in own {
            let (row, weight) = match request(&target.output).or(of_task) {
                Some(request) => (loss(&request.loss)?, request.weight),
                None if target.labels.is_some() => (by_labels(target)?, 1.0),
                None if is_labelled => continue,
                None => (loss(super::DEFAULT)?, 1.0),
            };
            chosen.push(Chosen { target: target.clone(), row, weight });
        }
    }
    Ok(chosen)
}

fn check(tasks: &[TaskOutputs], requests: &[LossRequest]) -> Result<()> {
    for request in requests {
        let is_known = |task: &TaskOutputs| task.task == request.of || task.outputs.contains(&request.of);
        if !tasks.iter().any(is_known) {
            let known: Vec<&str> = tasks.iter().map(|task| task.task.as_str()).collect();
            return Err(Error::input(format!("--loss names no task or output `{}`", request.of))
                .help(format!("the tasks are {known:?}")));
        }
        loss(&request.loss)?;
    }
    Ok(())
}

/// The loss that labels ask for.
fn by_labels(target: &Target) -> Result<&'static LossRow> {
    let labels = target.given()?;
    let is_like = squeezed(&target.extents()?) == squeezed(&target.label_extents());
    let is_softmax = matches!(target.head.activation, Activation::Softmax | Activation::LogSoftmax);
    let name = if labels.is_float() {
        "mse"
    } else if !is_like || is_softmax {
        "cross-entropy"
    } else if labels.to_f64().iter().all(|n| *n == 0.0 || *n == 1.0) {
        "binary-cross-entropy"
    } else {
        "mse"
    };
    LOSSES.iter().find(|row| row.name == name).ok_or_else(|| Error::input(format!("there is no loss `{name}`")))
}
