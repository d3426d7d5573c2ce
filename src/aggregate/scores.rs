//! Scores per task, and how they are made comparable between tasks.

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

/// What a criterion says.
#[derive(Clone, Debug, PartialEq)]
pub enum Scores {
    /// One importance per channel of every group, whatever the task.
    Same(Vec<Vec<f64>>),
    /// Its own importance for every task.
    PerTask(TaskScores),
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

    /// Every task's scores divided by the sum of their magnitudes over all groups that feed it, as DiSparse does
    /// (arXiv 2206.04662), so that they are shares of the task's importance and the scale of its loss does not matter.
    /// A task whose scores are all zero keeps them; what is not a number counts as zero.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let of_task = |groups: &Vec<Option<Vec<f64>>>| {
            let known = groups.iter().flatten().flatten().map(|score| score.abs()).filter(|score| score.is_finite());
            // The largest first, so that sums of huge or of tiny numbers stay in range.
            let largest = known.clone().fold(0.0, f64::max);
            let sum: f64 = if largest > 0.0 { known.map(|score| score / largest).sum() } else { 1.0 };
            let scale = |score: &f64| match (score.is_nan(), largest > 0.0) {
                (true, _) => 0.0,
                (false, true) => score / largest / sum,
                (false, false) => *score,
            };
            groups.iter().map(|group| group.as_ref().map(|scores| scores.iter().map(scale).collect())).collect()
        };
        Self { tasks: self.tasks.clone(), scores: self.scores.iter().map(of_task).collect() }
    }

    /// The mean over the tasks that a group feeds, by group; empty where it feeds none.
    pub fn mean(&self) -> Vec<Vec<f64>> {
        let groups = self.scores.iter().map(Vec::len).max().unwrap_or(0);
        let of = |group: usize| {
            let said: Vec<&Vec<f64>> = self.scores.iter().filter_map(|task| task.get(group)?.as_ref()).collect();
            let channels = said.iter().map(|scores| scores.len()).min().unwrap_or(0);
            let mean = |at: usize| said.iter().filter_map(|scores| scores.get(at)).sum::<f64>() / said.len() as f64;
            (0..channels).map(mean).collect()
        };
        (0..groups).map(of).collect()
    }

    /// True if some group is scored differently by two tasks, beyond a factor.
    pub fn differ(&self) -> bool {
        let groups = self.scores.iter().map(Vec::len).max().unwrap_or(0);
        (0..groups).any(|group| {
            let mut said = self.scores.iter().filter_map(|task| task.get(group)?.as_ref()).map(|scores| shares(scores));
            let Some(first) = said.next() else { return false };
            said.any(|other| first.iter().zip(&other).any(|(a, b)| (a - b).abs() > 1e-9))
        })
    }
}

/// The scores of a group divided by the sum of their magnitudes.
fn shares(scores: &[f64]) -> Vec<f64> {
    let sum: f64 = scores.iter().map(|score| score.abs()).filter(|score| score.is_finite()).sum();
    scores.iter().map(|score| if sum > 0.0 { score / sum } else { *score }).collect()
}
