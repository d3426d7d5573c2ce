//! Calibration as a command of its own: batches through the measuring model, the statistics into a file, parts of runs
//! put together.
//!
//! Invariants: the file is replaced as a whole, so a run that is killed leaves what it had; the same command then goes
//! on from there and ends with the same bytes; nothing is overwritten that is not the same calibration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use onnx_mtprune::calibration::batching::{Feeder, FeederOptions};
use onnx_mtprune::calibration::source::{self, SourceOptions};
use onnx_mtprune::calibration::statistics_file::{Measurer, Origin, StatisticsFile, merge_all};
use onnx_mtprune::calibration::{Batches, Gathering, Shard, Source, Statistics, Wish};
use onnx_mtprune::prune::{Analysis, Options};
use onnx_mtprune::{Error, Result, functions, proto, score};

use super::arguments::ShapeArguments;
use super::calibration::{scaled, unscaled};
use super::console::Console;
use super::files::{self, Staged, Written};
use super::runtime::{Choice, EngineArguments};
use super::values;

/// How long a run goes on before it writes down what it has, unless told otherwise.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct CalibrateArguments {
    /// The model to measure
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// Where to write the statistics; if the file holds a part of them already, the run goes on from there
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Real samples: a file or folder with one array per graph input, the first axis counting samples
    #[arg(long, value_name = "PATH", help_heading = "Samples")]
    pub(crate) calibration: PathBuf,
    /// How many samples run at a time, where the model leaves that open
    #[arg(long, value_name = "N", default_value = "32", value_parser = values::positive, help_heading = "Samples")]
    pub(crate) batch_size: usize,
    /// Use at most N samples, picked by the seed
    #[arg(long, value_name = "N", value_parser = values::positive, help_heading = "Samples")]
    pub(crate) max_samples: Option<usize>,
    /// Multiply the samples of an input, as in image=0.00392156862745098 for pictures kept in bytes; may be repeated
    #[arg(long, value_name = "NAME=X", value_parser = values::input_scale, help_heading = "Samples")]
    pub(crate) input_scale: Vec<(String, f64)>,
    /// The seed of the order of samples
    #[arg(long, value_name = "N", default_value = "0", help_heading = "Samples")]
    pub(crate) seed: u64,
    /// Measure only a share of the batches, number I of N, counted from 1; `merge` puts the shares together
    #[arg(long, value_name = "I/N", value_parser = values::shard, help_heading = "Samples")]
    pub(crate) shard: Option<Shard>,
    /// Measure also what this criterion needs, where that costs more than sums do; may be repeated
    #[arg(long, value_name = "NAME", value_parser = values::criteria())]
    pub(crate) criterion: Vec<String>,
    /// Measure also how many values are not zero, and the smallest and largest
    #[arg(long)]
    pub(crate) all: bool,
    /// Measure also groups that shrink with --allow-approximate only
    #[arg(long)]
    pub(crate) allow_approximate: bool,
    /// Write down what there is after every N batches [default: every 10 seconds]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    pub(crate) save_every: Option<usize>,
    #[command(flatten)]
    pub(crate) shapes: ShapeArguments,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
    /// Print nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MergeArguments {
    /// The statistics of all shards, in any order
    #[arg(value_name = "PART", required = true)]
    pub(crate) parts: Vec<PathBuf>,
    /// Where to write all of them together
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Print nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Measures a model.
pub(super) fn run(arguments: &CalibrateArguments) -> Result<()> {
    let mut console = Console::new(arguments.quiet, false);
    files::check(
        &[&arguments.model, &arguments.calibration],
        &[Written { path: &arguments.output, what: "--output" }],
    )?;
    let file = console.stage("read", || proto::read(&arguments.model))?;
    let options = Options {
        input_shapes: arguments.shapes.by_input(),
        allow_approximate: arguments.allow_approximate,
        ..Options::default()
    };
    let inlined = functions::inline(&file.model);
    let analysis = console.stage("analyse", || Analysis::of_inlined(&inlined, &options))?;
    let source = source::open(&arguments.calibration, &file.model, &SourceOptions::new(std::env::temp_dir()))?;
    let source = scaled(source, &arguments.input_scale)?;
    source.notes().iter().for_each(|note| console.warn(note));
    unscaled(source.as_ref(), &file.model)?.iter().for_each(|note| console.warn(note));
    let feeder = Feeder::new(
        Arc::clone(&source),
        &file.model,
        &FeederOptions {
            batch_size: arguments.batch_size,
            max_samples: arguments.max_samples,
            shuffle: Some(arguments.seed),
            ..FeederOptions::default()
        },
    )?;
    let mut wish = if arguments.all { Wish::every_sum() } else { Wish::default() };
    for name in &arguments.criterion {
        let row = score::criterion(name)?;
        if row.gradients.is_some() {
            let error = Error::input(format!("the criterion `{name}` looks at gradients, which are not kept in files"));
            return Err(error.help("give the samples with --calibration when pruning"));
        }
        wish = row.needs.iter().fold(wish, |wish, need| wish.and(*need));
    }
    let taps = analysis.taps();
    let origin = Origin {
        model: files::sha256(&file.bytes),
        samples: feeder.samples(),
        batches: feeder.len(),
        cut: cut(arguments, source.as_ref(), &feeder)?,
    };
    let measured = Statistics::empty(&taps);
    let start = StatisticsFile { origin, statistics: measured, engines: BTreeSet::new() };
    let mut statistics = resumed(&arguments.output, &start, &wish)?;
    let engine = arguments.engine.engine(Choice::Auto)?;
    let before = statistics.statistics.batches.len();
    let measurer = Measurer::from(&engine.describe());
    let shard = arguments.shard.unwrap_or(Shard::ALL);
    let (mut last, mut unsaved) = (Instant::now(), 0usize);
    let StatisticsFile { origin, statistics: found, engines } = &mut statistics;
    let with_this: BTreeSet<Measurer> = engines.iter().cloned().chain([measurer]).collect();
    let mut after = |found: &Statistics| {
        unsaved += 1;
        if arguments.save_every.map_or(last.elapsed() >= PAUSE, |every| unsaved >= every) {
            let (origin, engines) = (origin.clone(), with_this.clone());
            write(&arguments.output, &StatisticsFile { origin, statistics: found.clone(), engines })?;
            (last, unsaved) = (Instant::now(), 0);
        }
        Ok(())
    };
    console.stage("measure", || {
        let mut gathering = Gathering::new(analysis.graph.model, &taps, &wish, engine.as_ref());
        gathering.run(&feeder, shard, found, &mut after)
    })?;
    // Another engine that finds nothing left to do has measured nothing.
    if found.batches.len() > before {
        *engines = with_this;
    }
    write(&arguments.output, &statistics)?;
    engine.describe().notes.iter().for_each(|note| console.warn(note));
    summary(&console, &arguments.output, &statistics)
}

/// How samples were picked and cut, in words that differ where other samples are given, or the same in another scale: a
/// run that goes on, and parts that are merged, must have seen the same.
fn cut(arguments: &CalibrateArguments, source: &dyn Source, feeder: &Feeder) -> Result<String> {
    let mut bytes = Vec::new();
    for (name, value) in feeder.picked().first().map_or_else(|| Ok(Vec::new()), |first| source.sample(*first))? {
        bytes.extend(name.into_bytes());
        bytes.extend(value.shape().iter().flat_map(|extent| (*extent as u64).to_le_bytes()));
        bytes.extend(value.to_f64().into_iter().flat_map(f64::to_le_bytes));
    }
    let print: String = files::sha256(&bytes).chars().take(12).collect();
    let (batch, seed, all) = (arguments.batch_size, arguments.seed, source.len());
    Ok(format!("up to {batch} at a time, shuffled with seed {seed}, of {all} beginning with {print}"))
}

/// Puts parts together.
pub(super) fn merge(arguments: &MergeArguments) -> Result<()> {
    let console = Console::new(arguments.quiet, false);
    let inputs: Vec<&Path> = arguments.parts.iter().map(PathBuf::as_path).collect();
    files::check(&inputs, &[Written { path: &arguments.output, what: "--output" }])?;
    let mut parts = BTreeMap::new();
    for path in &arguments.parts {
        if parts.insert(path.display().to_string(), read(path)?).is_some() {
            return Err(Error::input("the part is given twice").file(path).help("give every part once"));
        }
    }
    let merged = merge_all(&parts)?;
    write(&arguments.output, &merged)?;
    summary(&console, &arguments.output, &merged)
}

/// Reads a statistics file.
///
/// # Errors
/// A file that cannot be read or is none.
pub(super) fn read(path: &Path) -> Result<StatisticsFile> {
    let bytes = std::fs::read(path).map_err(|e| Error::input("cannot read the statistics").file(path).because(e))?;
    StatisticsFile::parse(&bytes).map_err(|e| e.file(path))
}

/// What the output holds already of this very calibration, or else the beginning of it.
fn resumed(path: &Path, start: &StatisticsFile, wish: &Wish) -> Result<StatisticsFile> {
    if !path.exists() {
        return Ok(start.clone());
    }
    let found = read(path)?;
    let refused = |what: &str| Err(Error::input(what).file(path).help("remove the file or choose another name"));
    if found.origin.model != start.origin.model {
        return refused("the file to write holds statistics of another model");
    }
    let place = |statistics: &Statistics| -> Vec<(String, usize, usize)> {
        statistics.taps.iter().map(|tap| (tap.name.clone(), tap.axis, tap.extent)).collect()
    };
    let is_alike = found.statistics.taps.iter().all(|tap| {
        let measures = tap.sums.keys().chain(tap.extremes.keys()).copied().collect();
        tap.count == 0
            || (wish.measures == measures
                && wish.products != tap.moments.is_empty()
                && wish.features != tap.features.is_empty())
    });
    if found.origin != start.origin || place(&found.statistics) != place(&start.statistics) || !is_alike {
        return refused("the file to write holds another calibration");
    }
    Ok(found)
}

fn write(path: &Path, file: &StatisticsFile) -> Result<()> {
    let mut staged = Staged::new(path)?;
    staged.fill(file.bytes()?)?;
    staged.commit()
}

fn summary(console: &Console, path: &Path, file: &StatisticsFile) -> Result<()> {
    let (found, origin) = (&file.statistics, &file.origin);
    let missing = origin.batches.saturating_sub(found.batches.len());
    let rest = if missing == 0 { String::new() } else { format!(", {missing} batches are missing") };
    let engines: Vec<String> = file.engines.iter().map(Measurer::to_string).collect();
    let engines = if engines.is_empty() { String::new() } else { format!(" with {}", engines.join(" and ")) };
    if file.engines.len() > 1 {
        console.warn("different engines measured parts of the statistics, which agree up to rounding only");
    }
    console.print(&format!(
        "{}: {} of {} samples measured at {} places{engines}{rest}\n",
        path.display(),
        found.samples,
        origin.samples,
        found.taps.len()
    ))
}
