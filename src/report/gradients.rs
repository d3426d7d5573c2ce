//! What gradients were taken of, and where they stop.

use serde::Serialize;

use super::words::shorten;
use crate::gates::{GradientWish, Gradients};
use crate::prune::Analysis;

/// What gradients were taken of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GradientReport {
    /// How many samples were run, each as often as random numbers were drawn.
    pub runs: f64,
    /// The tasks.
    pub tasks: Vec<TaskLoss>,
}

/// A task and its loss.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskLoss {
    /// The task.
    pub task: String,
    /// The losses of its outputs.
    pub losses: Vec<OutputLoss>,
    /// Their sum, mean over samples.
    pub mean: f64,
    /// Where gradients stop.
    pub stops: Vec<StopRow>,
    /// The groups that feed the task and get no score from it, because gradients stop before them.
    pub unscored: Vec<String>,
}

/// The loss of an output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputLoss {
    /// The output.
    pub output: String,
    /// The loss.
    pub loss: &'static str,
    /// What it is multiplied with.
    pub weight: f64,
}

/// A node that no gradient passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StopRow {
    /// The node.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// Why.
    pub reason: String,
}

impl GradientReport {
    /// What to say of the gradients of a model that were gathered for a wish.
    pub fn new(analysis: &Analysis, gradients: &Gradients, wish: GradientWish) -> Self {
        let groups = || analysis.groups.iter().zip(&gradients.groups);
        let tasks = gradients.tasks.iter().enumerate().map(|(number, task)| {
            let unscored = groups().filter(|(group, own)| {
                let is_known = match &own.weights {
                    _ if !wish.weights => own.is_gated.get(number),
                    Some(weights) => weights.is_known.get(number),
                    None => None,
                };
                group.lock.is_none()
                    && group.tasks.iter().any(|other| other == number)
                    && !is_known.copied().unwrap_or(false)
            });
            TaskLoss {
                task: task.name.clone(),
                losses: (task.losses.iter())
                    .map(|(output, loss, weight)| OutputLoss { output: output.clone(), loss, weight: *weight })
                    .collect(),
                mean: task.mean,
                stops: (task.stops.iter())
                    .map(|stop| StopRow {
                        node: stop.node.clone(),
                        operator: stop.operator.clone(),
                        reason: stop.reason.clone(),
                    })
                    .collect(),
                unscored: unscored.map(|(group, _)| group.name.clone()).collect(),
            }
        });
        Self { runs: gradients.samples, tasks: tasks.collect() }
    }

    /// The losses, in one line.
    pub fn line(&self) -> String {
        let task = |task: &TaskLoss| {
            let mut names: Vec<&str> = task.losses.iter().map(|loss| loss.loss).collect();
            names.dedup();
            let names = if names.is_empty() { "none".to_owned() } else { names.join("+") };
            format!("{} {names}", shorten(&task.task, 30))
        };
        let tasks: Vec<String> = self.tasks.iter().take(8).map(task).collect();
        let more = if self.tasks.len() > 8 { ", …" } else { "" };
        format!("{}{more}; {} gradients each", tasks.join(", "), self.runs)
    }

    /// What a person should know, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for task in &self.tasks {
            if task.losses.is_empty() {
                warnings.push(format!(
                    "task `{}` has no gradients: no output of it holds floating-point numbers",
                    task.task
                ));
                continue;
            }
            let Some(first) = task.unscored.first() else { continue };
            let reason = task.stops.first().map_or_else(
                || "no gate or weight of them can be differentiated".to_owned(),
                |stop| format!("gradients stop at {} `{}`: {}", stop.operator, shorten(&stop.node, 60), stop.reason),
            );
            let count = task.unscored.len();
            let others = if count > 1 { format!(" and {} other groups", count - 1) } else { String::new() };
            warnings.push(format!(
                "task `{}` scores nothing of `{first}`{others}, which other tasks or the weights score instead: {reason}",
                task.task
            ));
        }
        warnings
    }
}
