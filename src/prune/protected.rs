//! Protected tasks: what is kept first of the channels that they share with others.

use std::collections::{BTreeMap, BTreeSet};

use super::{Analysis, Evidence, PruneConfig};
use crate::Result;
use crate::aggregate::{self, Scores, TaskScores};
use crate::axes::LockId;
use crate::calibration::{GroupTap, Taps};
use crate::coupling::Coupling;
use crate::extract;
use crate::gates::{Gradients, GroupGradients};
use crate::graph::Graph;
use crate::groups::{self, Group};
use crate::score::{self, ScoreInput};
use crate::tasks::Tasks;

impl Analysis<'_> {
    /// Scores with what the protected tasks need put first: what the criterion says of them or, where it knows no tasks,
    /// what it says of the part of the model that computes them.
    ///
    /// # Errors
    /// As [`Analysis::score_by`]; a protected task that the model does not have.
    pub fn protected(&self, scores: Scores, config: &PruneConfig, evidence: Evidence) -> Result<Scores> {
        let protected = config.protect_tasks.iter().map(|name| self.tasks.find(name));
        let protected = protected.collect::<Result<BTreeSet<usize>>>()?;
        Ok(match scores {
            scores if protected.is_empty() => scores,
            Scores::PerTask(scores) => Scores::PerTask(aggregate::heard(&self.groups, scores, &protected)),
            Scores::Same(scores) => {
                let parts = self.scores_of_parts(&protected, config, evidence)?;
                Scores::Same(aggregate::protecting(&self.groups, scores, &parts, &protected))
            }
        })
    }

    /// What the criterion says of the parts of the model that compute one task each: weights and activations of other
    /// tasks do not count there.
    fn scores_of_parts(&self, tasks: &BTreeSet<usize>, config: &PruneConfig, evidence: Evidence) -> Result<TaskScores> {
        let mut found = TaskScores {
            tasks: self.tasks.tasks.iter().map(|task| task.name.clone()).collect(),
            scores: vec![vec![None; self.groups.len()]; self.tasks.tasks.len()],
        };
        for (index, task) in self.tasks.tasks.iter().enumerate().filter(|(index, _)| tasks.contains(index)) {
            let outputs: Vec<String> = task.outputs.iter().map(|o| self.graph.value(*o).name.to_owned()).collect();
            let model = extract::needed(self.graph.model, &outputs)?;
            let graph = Graph::dividing(&model, &BTreeSet::new())?;
            let of_part = Tasks::of(&graph, &[(task.name.clone(), outputs)])?;
            let coupling = Coupling::with_options(&graph, &self.coupling.options);
            let mut groups = groups::find(&graph, &coupling, &of_part);
            if let Some(statistics) = evidence.statistics {
                // What the part measures elsewhere than the whole is nothing that it contracts.
                let taps = Taps::of(&graph, &coupling, &groups);
                let is_known = |at: &GroupTap| {
                    taps.taps.get(at.tap).is_some_and(|tap| statistics.tap(&tap.name, tap.axis).is_some())
                };
                for (group, _) in groups.iter_mut().zip(&taps.groups).filter(|(_, own)| !own.iter().all(is_known)) {
                    group.lock.get_or_insert(LockId(0));
                }
            }
            let gradients = evidence.gradients.map(|whole| gradients_of(whole, &self.groups, &groups, index));
            let input = ScoreInput {
                graph: &graph,
                coupling: &coupling,
                groups: &groups,
                seed: config.seed,
                pages: &self.pages,
                statistics: evidence.statistics,
                gradients: gradients.as_ref(),
                importance: config.importance,
            };
            let scores = score::criterion(&config.criterion)?.criterion.score(&input)?;
            let by_name: BTreeMap<(&str, usize), &Vec<f64>> = groups
                .iter()
                .zip(&scores)
                .map(|(group, scores)| ((group.name.as_str(), group.extent), scores))
                .collect();
            for (group, slot) in self.groups.iter().zip(&mut found.scores[index]) {
                *slot = by_name.get(&(group.name.as_str(), group.extent)).map(|scores| (*scores).clone());
            }
        }
        Ok(found)
    }
}

/// What the loss of one task feels of the gates of a part of the model; groups are found again by name and extent.
fn gradients_of(whole: &Gradients, groups: &[Group], part: &[Group], task: usize) -> Gradients {
    let count = whole.tasks.len();
    let by_name: BTreeMap<(&str, usize), &GroupGradients> =
        groups.iter().zip(&whole.groups).map(|(group, own)| ((group.name.as_str(), group.extent), own)).collect();
    let only = |lists: &[Vec<f64>], at: usize| lists.get(at).cloned().into_iter().collect::<Vec<_>>();
    let of = |group: &Group| match by_name.get(&(group.name.as_str(), group.extent)) {
        None => GroupGradients { is_gated: vec![false], ..GroupGradients::default() },
        Some(own) => GroupGradients {
            is_gated: vec![own.is_gated.get(task).copied().unwrap_or(false)],
            by_sample: only(&own.by_sample, task * count + task),
            by_batch: only(&own.by_batch, task * count + task),
            magnitudes: only(&own.magnitudes, task),
            activations: only(&own.activations, task),
            // Criteria of the gradients of weights know tasks, so that nothing is asked of parts.
            weights: None,
        },
    };
    Gradients {
        tasks: whole.tasks.get(task).cloned().into_iter().collect(),
        groups: part.iter().map(of).collect(),
        samples: whole.samples,
        batches: whole.batches,
        notes: Vec::new(),
    }
}
