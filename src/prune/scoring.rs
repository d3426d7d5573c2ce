//! Scoring: what a criterion says of the groups of an analysis, and what samples tell for it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Analysis, PruneConfig};
use crate::aggregate::{self, Scores, TaskScores};
use crate::axes::LockId;
use crate::calibration::{Batches, Gathering, GroupTap, Shard, Statistics, Taps, Wish};
use crate::coupling::Coupling;
use crate::engine::Engine;
use crate::extract;
use crate::gates::{self, GradientOptions, GradientWish, Gradients};
use crate::graph::Graph;
use crate::groups;
use crate::score::{self, ScoreInput};
use crate::tasks::Tasks;
use crate::{Error, Result};

/// What samples told of a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence<'a> {
    /// What was measured of activations.
    pub statistics: Option<&'a Statistics>,
    /// What the losses of the tasks feel.
    pub gradients: Option<&'a Gradients>,
}

impl Analysis<'_> {
    /// One importance per channel of every group.
    ///
    /// # Errors
    /// An unknown criterion, one that needs statistics, a constant that cannot be read.
    pub fn score(&self, config: &PruneConfig) -> Result<Vec<Vec<f64>>> {
        self.score_with(config, None)
    }

    /// As [`Analysis::score`] for any criterion, given what calibration measured.
    ///
    /// # Errors
    /// As [`Analysis::score`]; statistics that are missing or not of this model.
    pub fn score_with(&self, config: &PruneConfig, statistics: Option<&Statistics>) -> Result<Vec<Vec<f64>>> {
        self.score_by(config, Evidence { statistics, gradients: None })
    }

    /// As [`Analysis::score`] for any criterion, given all that samples told.
    ///
    /// # Errors
    /// As [`Analysis::score_with`]; gradients that are missing or not of this model.
    pub fn score_by(&self, config: &PruneConfig, evidence: Evidence) -> Result<Vec<Vec<f64>>> {
        self.criterion(config, evidence)?.criterion.score(&self.score_input(config, evidence))
    }

    /// What the criterion says: of every task, where it knows tasks.
    ///
    /// # Errors
    /// As [`Analysis::score_by`].
    pub fn scores(&self, config: &PruneConfig, evidence: Evidence) -> Result<Scores> {
        let (row, input) = (self.criterion(config, evidence)?, self.score_input(config, evidence));
        match row.criterion.by_task(&input)? {
            Some(scores) => Ok(Scores::PerTask(scores)),
            None => row.criterion.score(&input).map(Scores::Same),
        }
    }

    /// The criterion that was asked for, if there is all that it needs.
    fn criterion(&self, config: &PruneConfig, evidence: Evidence) -> Result<&'static score::CriterionRow> {
        let row = score::criterion(&config.criterion)?;
        if row.needs_statistics && evidence.statistics.is_none() {
            let error = Error::input(format!("the criterion `{}` needs statistics of activations", row.name));
            return Err(error.help("give samples with --calibration or what was measured on them with --statistics"));
        }
        if row.gradients(config.importance).is_some() && evidence.gradients.is_none() {
            let error = Error::input(format!("the criterion `{}` needs gradients", row.name));
            return Err(error.help("give samples with --calibration; files of --statistics hold no gradients"));
        }
        Ok(row)
    }

    fn score_input<'a>(&'a self, config: &PruneConfig, evidence: Evidence<'a>) -> ScoreInput<'a> {
        ScoreInput {
            graph: &self.graph,
            coupling: &self.coupling,
            groups: &self.groups,
            seed: config.seed,
            pages: &self.pages,
            statistics: evidence.statistics,
            gradients: evidence.gradients,
            importance: config.importance,
        }
    }

    /// What the losses of the tasks feel of every channel, gathered on batches of samples.
    ///
    /// # Errors
    /// A sample that cannot be read, losses that do not fit the tasks, a model that does not run or that cannot be
    /// differentiated.
    pub fn gradients(
        &self,
        wish: GradientWish,
        options: &GradientOptions,
        engine: &dyn Engine,
        batches: &dyn Batches,
    ) -> Result<Gradients> {
        let parts = (&self.graph, &self.coupling, self.groups.as_slice(), &self.tasks);
        gates::gather(parts, wish, options, engine, batches)
    }

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
            let input = ScoreInput {
                graph: &graph,
                coupling: &coupling,
                groups: &groups,
                seed: config.seed,
                pages: &self.pages,
                statistics: evidence.statistics,
                // Those of the whole model have other groups.
                gradients: None,
                importance: score::Importance::default(),
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

    /// Measures what is wished for on batches of samples, in one go.
    ///
    /// # Errors
    /// A sample that cannot be read, a model that does not run, activations that are not finite.
    pub fn measure(&self, wish: &Wish, engine: &dyn Engine, batches: &dyn Batches) -> Result<Statistics> {
        let taps = self.taps();
        let mut statistics = Statistics::empty(&taps);
        let mut gathering = Gathering::new(self.graph.model, &taps, wish, engine);
        gathering.run(batches, Shard::ALL, &mut statistics, &mut |_| Ok(()))?;
        Ok(statistics)
    }
}
