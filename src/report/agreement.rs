//! How far tasks agree on which channels to keep, group by group along the depth of the model.
//!
//! Importances are shares: a task's scores divided by the sum of their magnitudes over all groups that feed it, summed
//! per group. The overlap of a group is the intersection over the union of what two tasks would keep, each by its own
//! scores, of as many channels as the plan keeps; the mean over all pairs of tasks. Groups come by their depth: the
//! longest path from an input of the model to the first node that reads one of their constants.

use std::collections::BTreeMap;

use petgraph::graph::NodeIndex;
use serde::Serialize;

use super::text::table;
use super::words::shorten;
use crate::aggregate::{AggregateConfig, DEFAULT, TaskScores, overlap, top};
use crate::allocate::Plan;
use crate::gates::Gradients;
use crate::graph::{Graph, Source};
use crate::groups::Group;
use crate::prune::Analysis;
use crate::tasks::TaskSet;

/// How far tasks agree.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// What combined their scores.
    pub aggregation: String,
    /// The tasks.
    pub tasks: Vec<String>,
    /// True if tasks score channels differently.
    pub differ: bool,
    /// Every group that a task has scores for, in order.
    pub groups: Vec<AgreementRow>,
    /// Where tasks part; none where they do not.
    pub watershed: Option<Watershed>,
}

/// What tasks say of one group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AgreementRow {
    /// The group.
    pub group: String,
    /// Its channels.
    pub extent: usize,
    /// How many the plan keeps.
    pub kept: usize,
    /// The share of its importance that each task has here, by the names of those that the group feeds; scores that are
    /// not finite do not count.
    pub importance: BTreeMap<String, f64>,
    /// The overlap of what its tasks would keep; none where one task decides or all channels stay.
    pub overlap: Option<f64>,
    /// How far the gradients of its tasks point the same way, all gates of the group and samples together; none where
    /// the criterion looks at no gradients, or one task decides.
    pub conflict: Option<Vec<Conflict>>,
}

/// The cosine of the gradients of two tasks in one group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Conflict {
    /// The tasks.
    pub tasks: [String; 2],
    /// From -1, opposite, to 1.
    pub cosine: f64,
}

/// The first group whose overlap is below half of what the first [`overlap::FIRST`] shared groups have on average.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Watershed {
    /// The group.
    pub group: String,
    /// Its overlap.
    pub overlap: f64,
    /// The mean overlap of the first groups.
    pub first: f64,
}

impl Agreement {
    /// Compares what every task would keep with the plan; `gradients` are those that the scores were made from, if any.
    pub fn new(
        analysis: &Analysis,
        scores: &TaskScores,
        gradients: Option<&Gradients>,
        plan: &Plan,
        config: &AggregateConfig,
    ) -> Self {
        let (normalised, depths) = (scores.normalised(), depths(&analysis.graph, &analysis.groups));
        let rows = analysis.groups.iter().enumerate().filter_map(|(index, group)| {
            let said = scores.tasks.iter().zip(&normalised.scores);
            let said: Vec<(&String, &Vec<f64>)> =
                said.filter_map(|(name, task)| Some((name, task.get(index)?.as_ref()?))).collect();
            let shrunk = plan.kept.get(index).and_then(Option::as_ref).map(Vec::len);
            let masks = |count| said.iter().map(|(_, scores)| top(scores, count)).collect::<Vec<_>>();
            let share = |scores: &Vec<f64>| scores.iter().map(|score| score.abs()).filter(|s| s.is_finite()).sum();
            let row = || AgreementRow {
                group: group.name.clone(),
                extent: group.extent,
                kept: shrunk.unwrap_or(group.extent),
                importance: said.iter().map(|(name, scores)| ((*name).clone(), share(scores))).collect(),
                overlap: shrunk.and_then(|count| overlap::mean(&masks(count))),
                conflict: gradients.and_then(|gradients| conflicts(gradients, index, &group.tasks)),
            };
            (!said.is_empty()).then(|| (depths.get(index).copied().unwrap_or(usize::MAX), row()))
        });
        let mut rows: Vec<(usize, AgreementRow)> = rows.collect();
        rows.sort_by_key(|(depth, _)| *depth);
        let groups: Vec<AgreementRow> = rows.into_iter().map(|(_, row)| row).collect();
        Self {
            aggregation: config.name.as_deref().unwrap_or(DEFAULT).to_owned(),
            tasks: scores.tasks.clone(),
            differ: scores.differ(),
            watershed: watershed(&groups),
            groups,
        }
    }

    /// Some groups from the first to the last that tasks share, for people; none where all tasks say the same.
    pub(super) fn table(&self, name_width: usize) -> Option<String> {
        const MOST_ROWS: usize = 6;
        const MOST_TASKS: usize = 4;
        let shared: Vec<(&AgreementRow, f64)> = self.overlaps().collect();
        if !self.differ || shared.is_empty() {
            return None;
        }
        let rows = shared.len().min(MOST_ROWS);
        let picked = (0..rows).map(|row| row * (shared.len() - 1) / (rows - 1).max(1)).filter_map(|at| shared.get(at));
        let tasks: Vec<&String> = self.tasks.iter().take(MOST_TASKS).collect();
        let names = tasks.iter().map(|name| format!("share of {}", shorten(name, 16)));
        let header: Vec<String> =
            ["<shared group", "kept", "overlap"].into_iter().map(str::to_owned).chain(names).collect();
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let line = |(row, overlap): &(&AgreementRow, f64)| {
            let share = |name: &&String| {
                row.importance.get(*name).map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", 100.0 * share))
            };
            let first =
                [shorten(&row.group, name_width), format!("{} of {}", row.kept, row.extent), format!("{overlap:.2}")];
            first.into_iter().chain(tasks.iter().map(share)).collect()
        };
        Some(table(&header, picked.map(line)))
    }

    /// What a person should know in one line.
    pub(super) fn line(&self) -> String {
        let overlaps: Vec<f64> = self.overlaps().map(|(_, overlap)| overlap).collect();
        let mean = overlaps.iter().sum::<f64>() / overlaps.len().max(1) as f64;
        let combined = format!("combined by {}", self.aggregation);
        match (&self.watershed, overlaps.is_empty(), self.differ) {
            (_, _, false) => format!("{combined}; all score alike"),
            (_, true, true) => format!("{combined}; they share no group that shrinks"),
            (None, false, true) => format!("{combined}; what they would keep overlaps by {mean:.2}, nowhere much less"),
            (Some(at), false, true) => format!(
                "{combined}; what they would keep overlaps by {mean:.2}; they part at {} ({:.2} after {:.2})",
                shorten(&at.group, 60),
                at.overlap,
                at.first
            ),
        }
    }

    /// The groups that tasks share, with their overlaps.
    fn overlaps(&self) -> impl Iterator<Item = (&AgreementRow, f64)> {
        self.groups.iter().filter_map(|row| Some((row, row.overlap?)))
    }
}

/// How deep every group lies: the longest path from an input of the model to the first node that reads one of its
/// constants. What only prepares constants is as deep as the first node that reads the result.
fn depths(graph: &Graph, groups: &[Group]) -> Vec<usize> {
    let mut depths: Vec<Option<usize>> = vec![None; graph.nodes.len()];
    let at = |depths: &[Option<usize>], index: usize| depths.get(index).copied().flatten();
    for id in &graph.order {
        let inputs = graph.node(*id).inputs.iter().flatten();
        let before = inputs.filter_map(|value| match &graph.value(*value).source {
            Source::Input(_) => Some(0),
            Source::Node(node, _) => at(&depths, node.0 as usize),
            Source::Constant(_) | Source::OpaqueConstant => None,
        });
        let own = before.max().map(|before| before + 1);
        if let Some(depth) = depths.get_mut(id.0 as usize) {
            *depth = own;
        }
    }
    for id in graph.order.iter().rev() {
        let readers = graph.dependencies.neighbors(NodeIndex::new(id.0 as usize));
        let first = readers.filter_map(|reader| at(&depths, reader.index())).min();
        if let Some(depth) = depths.get_mut(id.0 as usize) {
            *depth = depth.or(first);
        }
    }
    let of = |group: &Group| group.members.iter().filter_map(|member| at(&depths, member.node.0 as usize)).min();
    groups.iter().map(|group| of(group).unwrap_or(usize::MAX)).collect()
}

/// The cosines of all pairs of tasks of a group whose gradients are known.
fn conflicts(gradients: &Gradients, group: usize, tasks: &TaskSet) -> Option<Vec<Conflict>> {
    let own = gradients.groups.get(group).filter(|_| tasks.len() > 1)?;
    let pairs = tasks.iter().flat_map(|a| tasks.iter().filter(move |b| *b > a).map(move |b| (a, b)));
    let conflict = |(a, b): (usize, usize)| {
        let name = |task: usize| Some(gradients.tasks.get(task)?.name.clone());
        Some(Conflict { tasks: [name(a)?, name(b)?], cosine: own.agreement(a, b)? })
    };
    Some(pairs.filter_map(conflict).collect())
}

fn watershed(groups: &[AgreementRow]) -> Option<Watershed> {
    let shared: Vec<(&AgreementRow, f64)> = groups.iter().filter_map(|row| Some((row, row.overlap?))).collect();
    let overlaps: Vec<f64> = shared.iter().map(|(_, overlap)| *overlap).collect();
    let (row, overlap) = shared.get(overlap::watershed(&overlaps)?)?;
    let first = overlaps.iter().take(overlap::FIRST).sum::<f64>() / overlap::FIRST as f64;
    Some(Watershed { group: row.group.clone(), overlap: *overlap, first })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::text;

    #[test]
    fn what_prepares_a_weight_is_as_deep_as_its_reader() {
        let model = text::parse(
            "in x [1,4]
             late = Identity(weight[6,8])
             t = Gemm(x, early[4,6])
             a = Gemm(t, late)
             y = Gemm(a, head[8,2])
             out y",
        )
        .unwrap();
        let analysis = Analysis::of(&model, &[]).unwrap();
        let depths = depths(&analysis.graph, &analysis.groups);
        let depth = |extent: usize| depths[analysis.groups.iter().position(|g| g.extent == extent).unwrap()];
        assert_eq!((depth(6), depth(8)), (1, 2));
    }
}
