//! Neighbours on the command line: which masks of a store vote on the channels of a model.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use onnx_mtprune::aggregate::{Neighbour, Scores};
use onnx_mtprune::calibration::source::{self, SourceOptions};
use onnx_mtprune::engine::Value;
use onnx_mtprune::masks::similarity::{self, Own, Similarity};
use onnx_mtprune::masks::{MaskFile, Outputs, StoredScores};
use onnx_mtprune::prune::Analysis;
use onnx_mtprune::{Error, Result};

use super::arguments::PruneArguments;
use super::console::Console;
use super::masks;
use super::runtime::Choice;
use super::values;

/// How many mismatches of a mask are named.
const MOST_NAMED: usize = 3;

/// Which masks vote.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Chosen {
    /// The most similar ones, so many.
    Nearest(usize),
    /// Names and weights.
    Named(Vec<(String, f64)>),
}

#[derive(Debug, Default, Args)]
pub(crate) struct NeighbourArguments {
    /// Masks that decide instead of the tasks of the model, with vote or score-mask: names with optional weights, as in
    /// a:0.5,b:0.3, or auto:K for the K most similar
    #[arg(long, value_name = "auto:K|NAME[:W],…", value_parser = values::neighbours, requires = "task_aggregation", conflicts_with = "plan", help_heading = "Tasks")]
    pub(crate) neighbours: Option<Chosen>,
    /// The folder of masks that `masks add` fills [default: `masks` beside the model]
    #[arg(long, value_name = "DIR", requires = "neighbours", help_heading = "Tasks")]
    pub(crate) mask_store: Option<PathBuf>,
    /// What tells how similar a stored mask is [default: overlap]
    #[arg(long, value_name = "HOW", value_parser = values::similarities(), requires = "neighbours", help_heading = "Tasks")]
    pub(crate) similarity: Option<Similarity>,
}

/// True if labels tell which masks vote.
pub(super) fn takes_labels(arguments: &PruneArguments) -> bool {
    arguments.neighbours.similarity == Some(Similarity::Leep)
}

/// The masks that vote.
pub(super) fn neighbours(
    arguments: &PruneArguments,
    analysis: &Analysis,
    criterion: &str,
    scores: &Scores,
    console: &mut Console,
) -> Result<Vec<Neighbour>> {
    let own = &arguments.neighbours;
    let Some(chosen) = &own.neighbours else { return Ok(Vec::new()) };
    let store = own.mask_store.clone().unwrap_or_else(|| masks::folder_beside(&arguments.input));
    let named: Vec<(MaskFile, f64)> = match chosen {
        Chosen::Named(names) => {
            if own.similarity.is_some() {
                let error = Error::input("--similarity does nothing where neighbours are named");
                return Err(error.help("leave it out, or give --neighbours auto:K"));
            }
            let read = |(name, weight): &(String, f64)| Ok((masks::read(&store, name)?, *weight));
            names.iter().map(read).collect::<Result<_>>()?
        }
        Chosen::Nearest(count) => {
            let scores = match scores {
                Scores::Same(scores) => scores.clone(),
                Scores::PerTask(scores) => scores.normalised().mean(),
            };
            let scores = StoredScores::new(criterion, &analysis.groups, scores);
            nearest(arguments, analysis, &scores, &store, *count, console)?
        }
    };
    let mut neighbours = Vec::new();
    for (mask, weight) in named {
        let (neighbour, misfits) = mask.neighbour(&analysis.groups, weight).map_err(|e| e.file(&store))?;
        if !misfits.is_empty() {
            let more = if misfits.len() > MOST_NAMED { ", …" } else { "" };
            let some = misfits.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
            console.warn(&format!("the mask `{}` says nothing of some groups: {some}{more}", mask.name));
        }
        neighbours.push(neighbour);
    }
    Ok(neighbours)
}

/// The masks that are most similar, each with weight 1; ties go to the first name. Masks of which nothing fits are passed
/// over.
fn nearest(
    arguments: &PruneArguments,
    analysis: &Analysis,
    scores: &StoredScores,
    store: &Path,
    count: usize,
    console: &mut Console,
) -> Result<Vec<(MaskFile, f64)>> {
    let similarity = arguments.neighbours.similarity.unwrap_or(Similarity::Overlap);
    let samples = arguments.calibration.calibration.as_ref();
    let outputs = match samples.filter(|_| matches!(similarity, Similarity::Leep | Similarity::Cka)) {
        None => None,
        Some(path) => {
            let own = &arguments.calibration;
            let model = analysis.graph.model;
            let feeder = masks::feeder(path, &own.input_scale, own.max_samples, model)?;
            let engine = arguments.check.engine.engine(Choice::Auto)?;
            Some(console.stage("compare", || Outputs::of(model, engine.as_ref(), &feeder))?)
        }
    };
    let labels =
        if similarity == Similarity::Leep { labels(arguments, analysis, outputs.as_ref())? } else { Vec::new() };
    if similarity == Similarity::Leep && outputs.is_some() && labels.is_empty() {
        let error = Error::input("--similarity leep needs labels of a task that are whole numbers, one per sample");
        return Err(error.help("give --labels with arrays named after tasks or outputs, or take cka"));
    }
    let own = Own { scores, outputs: outputs.as_ref(), labels: &labels };
    let mut found: Vec<(f64, MaskFile)> = Vec::new();
    let mut why_not: Vec<String> = Vec::new();
    for name in masks::names(store)? {
        let mask = masks::read(store, &name)?;
        if let Err(error) = mask.neighbour(&analysis.groups, 1.0) {
            why_not.push(error.to_string());
            continue;
        }
        match similarity::of(similarity, &mask, &own) {
            Ok(near) => found.push((near, mask)),
            Err(why) => why_not.push(format!("the mask `{name}` {why}")),
        }
    }
    if found.is_empty() {
        let why = why_not.first().cloned().unwrap_or_else(|| "the folder is empty".to_owned());
        return Err(Error::input(format!("no mask can be compared: {why}")).file(store));
    }
    why_not.iter().for_each(|why| console.warn(&format!("passed over: {why}")));
    // The sort is stable, and names came in order.
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.truncate(count);
    let said: Vec<String> = found.iter().map(|(near, mask)| format!("{} ({near:.3})", mask.name)).collect();
    console.note(&format!("neighbours: {}", said.join(", ")));
    Ok(found.into_iter().map(|(_, mask)| (mask, 1.0)).collect())
}

/// Labels of the tasks and outputs of the model that name classes: whole numbers, one per sample.
fn labels(arguments: &PruneArguments, analysis: &Analysis, outputs: Option<&Outputs>) -> Result<Vec<Vec<usize>>> {
    let Some(path) = &arguments.calibration.labels else { return Ok(Vec::new()) };
    let count = outputs.map_or(0, |outputs| outputs.features().len());
    let labels = source::read_labels(path, &SourceOptions::new(std::env::temp_dir()))?;
    let classes = |value: &Value| -> Option<Vec<usize>> {
        let numbers = value.to_f64();
        let is_class = |n: &f64| n.fract() == 0.0 && (0.0..65_536.0).contains(n);
        let fits = value.shape().len() == 1 && numbers.len() >= count && numbers.iter().all(is_class);
        fits.then(|| numbers.iter().take(count).map(|n| *n as usize).collect())
    };
    let known = analysis.tasks.tasks.iter().flat_map(|task| {
        let outputs = task.outputs.iter().map(|output| analysis.graph.value(*output).name);
        outputs.chain([task.name.as_str()])
    });
    let known: BTreeSet<&str> = known.collect();
    Ok(labels.iter().filter(|(name, _)| known.contains(name.as_str())).filter_map(|(_, own)| classes(own)).collect())
}
