//! Task aggregation on the command line: how several tasks decide on one cut.

use clap::Args;
use onnx_mtprune::Result;
use onnx_mtprune::aggregate::{self, AggregateConfig, Draw, Neighbour, Scope, Scores};
use onnx_mtprune::allocate::Plan;
use onnx_mtprune::gates::Gradients;
use onnx_mtprune::prune::{Analysis, PruneConfig};
use onnx_mtprune::report::Agreement;

use super::values;

#[derive(Debug, Default, Args)]
pub(crate) struct AggregationArguments {
    /// How the scores that tasks give a channel become one [default: mean, where tasks score differently]
    #[arg(long, value_name = "NAME", value_parser = values::aggregations(), conflicts_with = "plan", help_heading = "Tasks")]
    pub(crate) task_aggregation: Option<String>,
    /// How much a task counts beside the others, which count 1; may be repeated
    #[arg(long, value_name = "TASK=W", value_parser = values::task_weight, conflicts_with = "plan", help_heading = "Tasks")]
    pub(crate) task_weight: Vec<(String, f64)>,
    /// Where channels compete: within their group, so that every group loses the ratio, or within the model, which loses
    /// the ratio in all and where most can be spared; scores of groups are then compared as they are [default: group]
    #[arg(long, value_name = "WHERE", value_parser = values::scopes(), conflicts_with = "plan", help_heading = "Tasks")]
    pub(crate) scope: Option<Scope>,
    /// How votes decide, with `vote`: most votes first, or drawn by the softmax over votes [default: top]
    #[arg(long, value_name = "HOW", value_parser = values::draws(), requires = "task_aggregation", help_heading = "Tasks")]
    pub(crate) draw: Option<Draw>,
}

impl AggregationArguments {
    /// What was asked for.
    pub(super) fn config(&self) -> AggregateConfig {
        let weighted = (!self.task_weight.is_empty()).then(|| aggregate::DEFAULT.to_owned());
        AggregateConfig {
            name: self.task_aggregation.clone().or(weighted),
            weights: self.task_weight.clone(),
            scope: self.scope.unwrap_or_default(),
            draw: self.draw.unwrap_or_default(),
        }
    }

    /// The plan on which the tasks agree, and how far they do; they have no say where a criterion says the same for all
    /// of them and nothing was asked for. `said` is what they say, `decisive` is that with what protected tasks need put
    /// first.
    pub(super) fn plan(
        &self,
        analysis: &Analysis,
        (said, decisive): (Scores, Scores),
        gradients: Option<&Gradients>,
        neighbours: &[Neighbour],
        config: &PruneConfig,
    ) -> Result<(Plan, Option<Agreement>)> {
        let by_task = |scores: Scores| match scores {
            Scores::Same(scores) => analysis.same_for_tasks(&scores),
            Scores::PerTask(scores) => scores,
        };
        match decisive {
            Scores::Same(scores) if config.aggregation.name.is_none() => {
                Ok((analysis.allocate(&scores, config)?, None))
            }
            decisive => {
                let plan = analysis.allocate_by_tasks(&by_task(decisive), neighbours, config)?;
                let agreement = Agreement::new(analysis, &by_task(said), gradients, &plan, &config.aggregation);
                Ok((plan, Some(agreement)))
            }
        }
    }
}
