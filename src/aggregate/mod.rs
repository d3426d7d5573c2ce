//! Aggregation: what every task says of a channel becomes one importance, or one mask.
//!
//! Criteria that look at gradients score the channels of every group once per task; the others say the same for every
//! task. Invariant: a task has scores for exactly those groups that feed it, so a private branch is judged by its own
//! task alone.

use crate::groups::Group;
use crate::tasks::Tasks;

/// One importance per channel, group and task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskScores {
    /// The names of the tasks.
    pub tasks: Vec<String>,
    /// By task and group, in the orders of both: one importance per channel, higher stays longer; none where the group
    /// does not feed the task.
    pub scores: Vec<Vec<Option<Vec<f64>>>>,
}

impl TaskScores {
    /// The same importance for every task that a group feeds: what a criterion says that knows no tasks.
    pub fn same(tasks: &Tasks, groups: &[Group], scores: &[Vec<f64>]) -> Self {
        let of = |task: usize| {
            let feeds = |group: &Group| group.tasks.iter().any(|own| own == task);
            groups.iter().zip(scores).map(|(group, scores)| feeds(group).then(|| scores.clone())).collect()
        };
        Self {
            tasks: tasks.tasks.iter().map(|task| task.name.clone()).collect(),
            scores: (0..tasks.tasks.len()).map(of).collect(),
        }
    }
}
