//! Options that would do nothing: they are refused, so that nobody believes that they did something.
//!
//! What the parser knows by itself (options that need or exclude one another whatever their values) is said in
//! `arguments`; here is what depends on values, or on the absence of every ratio.

use std::collections::BTreeSet;

use onnx_mtprune::score::CriterionRow;
use onnx_mtprune::{Error, Result};

use super::arguments::PruneArguments;
use super::neighbours::Chosen;

/// Refuses what would do nothing, before any work is done.
pub(super) fn check(arguments: &PruneArguments) -> Result<()> {
    let (own, control) = (&arguments.calibration, &arguments.control);
    let has_ratio = arguments.ratio.is_some() || control.trunk_ratio.is_some() || !control.task_ratio.is_empty();
    if arguments.plan.is_some() {
        first(&of_scores(arguments), "does nothing with --plan, which says already what goes", "leave it out")?;
    } else if !has_ratio {
        let idle = [of_scores(arguments), of_cuts(arguments)].concat();
        first(&idle, "does nothing without a ratio", "give --ratio as well, or leave it out")?;
    }
    if own.lambda.is_some() && own.repair.as_deref().is_some_and(|method| method != "least-squares") {
        return refused("--lambda", "is for --repair least-squares alone", "leave out one of both");
    }
    if arguments.no_verify && own.calibration.is_none() && !arguments.check.engine.is_open() {
        let what = "does nothing where nothing runs";
        return refused("--engine, --device or --onnxruntime", what, "leave out --no-verify, or give --calibration");
    }
    tasks(arguments)?;
    once("--input-shape", arguments.check.shapes.input_shape.iter().map(|(name, _)| name))?;
    once("--input-scale", own.input_scale.iter().map(|(name, _)| name))?;
    once("--metric", own.metric.iter().map(|(name, _)| name))?;
    once("--loss", own.loss.iter().map(|loss| &loss.of))
}

/// Refuses what the criterion of the run would not look at.
pub(super) fn check_criterion(arguments: &PruneArguments, row: &CriterionRow) -> Result<()> {
    if arguments.calibration.importance.is_some() && !row.weighs {
        let what = format!("is not asked for by the criterion `{}`", row.name);
        return refused("--importance", &what, "take --criterion column-subset, or leave it out");
    }
    Ok(())
}

/// What of votes and neighbours would be without effect.
fn tasks(arguments: &PruneArguments) -> Result<()> {
    let aggregation = &arguments.aggregation;
    let name = aggregation.task_aggregation.as_deref().unwrap_or_default();
    if aggregation.draw.is_some() && name != "vote" {
        let what = format!("does nothing: the task aggregation `{name}` draws nothing");
        return refused("--draw", &what, "leave it out, or take vote");
    }
    let Some(chosen) = &arguments.neighbours.neighbours else { return Ok(()) };
    if !arguments.control.protect_task.is_empty() {
        let what = "contradicts --neighbours: either the task comes first, or the masks decide";
        return refused("--protect-task", what, "leave out one of both");
    }
    match chosen {
        Chosen::Named(masks) if name == "vote" && masks.iter().any(|(_, weight)| *weight != 1.0) => {
            let what = "gives weights that `vote` does not look at: every mask has one vote";
            refused("--neighbours", what, "leave the weights out, or take score-mask")
        }
        _ => Ok(()),
    }
}

/// What only scores need.
fn of_scores(arguments: &PruneArguments) -> Vec<(&'static str, bool)> {
    let own = &arguments.calibration;
    vec![
        ("--statistics", own.statistics.is_some()),
        ("--importance", own.importance.is_some()),
        ("--loss", !own.loss.is_empty()),
        ("--probes", own.probes.is_some()),
    ]
}

/// What only matters where a ratio says that channels go.
fn of_cuts(arguments: &PruneArguments) -> Vec<(&'static str, bool)> {
    let (aggregation, own) = (&arguments.aggregation, &arguments.calibration);
    vec![
        ("--criterion", arguments.criterion.is_some()),
        ("--round-to", arguments.round_to.is_some()),
        ("--min-channels", arguments.min_channels != 1),
        ("--max-ratio", arguments.max_ratio != 1.0),
        ("--protect", !arguments.protect.is_empty()),
        ("--protect-task", !arguments.control.protect_task.is_empty()),
        ("--heads", arguments.heads.is_some()),
        ("--head-dims", arguments.head_dims.is_some()),
        ("--allow-approximate", arguments.allow_approximate),
        ("--task-aggregation", aggregation.task_aggregation.is_some()),
        ("--task-weight", !aggregation.task_weight.is_empty()),
        ("--scope", aggregation.scope.is_some()),
        ("--repair", own.repair.as_deref().is_some_and(|method| method != "none")),
        ("--lambda", own.lambda.is_some()),
    ]
}

/// Refuses the first option that is given.
fn first(options: &[(&'static str, bool)], what: &str, help: &str) -> Result<()> {
    options.iter().find(|(_, given)| *given).map_or(Ok(()), |(option, _)| refused(option, what, help))
}

/// Refuses an option that names the same twice, of which one would win.
fn once<'a>(option: &str, names: impl Iterator<Item = &'a String>) -> Result<()> {
    let mut seen = BTreeSet::new();
    match names.into_iter().find(|name| !seen.insert(*name)) {
        Some(name) => refused(option, &format!("names `{name}` twice"), "give it once"),
        None => Ok(()),
    }
}

fn refused(option: &str, what: &str, help: &str) -> Result<()> {
    Err(Error::input(format!("{option} {what}")).help(help.to_owned()))
}
