//! Scoring: what a criterion says of the groups of an analysis, and what samples tell for it.

use super::{Analysis, PruneConfig};
use crate::aggregate::Scores;
use crate::calibration::{Batches, Gathering, Shard, Statistics, Wish};
use crate::engine::Engine;
use crate::gates::{self, GradientOptions, GradientWish, Gradients};
use crate::score::{self, ScoreInput};
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
