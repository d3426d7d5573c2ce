//! The store of masks: a folder with one JSON file per mask.
//!
//! Invariants: a mask is named after its file; it is replaced as a whole, and only where that is asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use onnx_mtprune::aggregate::Scores;
use onnx_mtprune::calibration::batching::{Feeder, FeederOptions};
use onnx_mtprune::calibration::source::{self, SourceOptions};
use onnx_mtprune::extract::extract;
use onnx_mtprune::gates::GradientOptions;
use onnx_mtprune::masks::{MaskFile, Outputs, StoredScores, check_name};
use onnx_mtprune::plan_file::PlanFile;
use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::prune::{Analysis, Evidence, Options, PruneConfig};
use onnx_mtprune::{Error, Result, functions, proto, score};

use super::calibration::scaled;
use super::console::Console;
use super::files::{self, Staged, Written};
use super::runtime::{Choice, EngineArguments};
use super::{values, verify};

/// Where masks lie unless told otherwise: a folder of this name beside the model, or the plan.
const FOLDER: &str = "masks";

#[derive(Debug, Args)]
pub(crate) struct MasksArguments {
    #[command(subcommand)]
    command: MasksCommand,
}

#[derive(Debug, Subcommand)]
enum MasksCommand {
    /// Store what a plan keeps, so that models of similar tasks can vote with it
    Add(AddArguments),
    /// List the masks of a store
    List(ListArguments),
    /// Show what one mask keeps of every group
    Show(ShowArguments),
}

#[derive(Debug, Args)]
struct AddArguments {
    /// What to call the mask
    #[arg(value_name = "NAME")]
    name: String,
    /// The plan file that was written with --plan-out
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
    /// The folder of masks [default: `masks` beside the model, or else beside the plan]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// The model that the plan was made for: stores its scores as well, for --similarity gradient
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// The criterion of the scores; one of gradients takes the loss that needs no labels
    #[arg(long, value_name = "NAME", value_parser = values::criteria(), requires = "model", default_value = score::DEFAULT)]
    criterion: String,
    /// Samples of the new task: stores what the model gives out on them as well, for --similarity leep and cka
    #[arg(long, value_name = "PATH", requires = "model")]
    calibration: Option<PathBuf>,
    /// Use the first N samples only
    #[arg(long, value_name = "N", value_parser = values::positive, requires = "calibration")]
    max_samples: Option<usize>,
    /// Multiply the samples of an input, as in image=0.00392156862745098 for pictures kept in bytes; may be repeated
    #[arg(long, value_name = "NAME=X", value_parser = values::input_scale, requires = "calibration")]
    input_scale: Vec<(String, f64)>,
    /// Replace a mask of this name
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    engine: EngineArguments,
}

#[derive(Debug, Args)]
struct ListArguments {
    /// The folder of masks
    #[arg(long, value_name = "DIR", default_value = FOLDER)]
    store: PathBuf,
}

#[derive(Debug, Args)]
struct ShowArguments {
    /// The mask
    #[arg(value_name = "NAME")]
    name: String,
    /// The folder of masks
    #[arg(long, value_name = "DIR", default_value = FOLDER)]
    store: PathBuf,
}

pub(super) fn run(arguments: &MasksArguments) -> Result<()> {
    match &arguments.command {
        MasksCommand::Add(arguments) => add(arguments),
        MasksCommand::List(arguments) => list(arguments),
        MasksCommand::Show(arguments) => show(arguments),
    }
}

fn add(arguments: &AddArguments) -> Result<()> {
    let mut console = Console::new(false, false);
    check_name(&arguments.name)?;
    if arguments.calibration.is_none() && !arguments.engine.is_open() {
        let error = Error::input("--engine, --device and --onnxruntime do nothing where nothing runs");
        return Err(error.help("give --calibration as well, or leave them out"));
    }
    let beside = arguments.model.as_ref().unwrap_or(&arguments.plan);
    let store = arguments.store.clone().unwrap_or_else(|| folder_beside(beside));
    let path = path_in(&store, &arguments.name);
    let taken = || {
        let error = Error::input("there is a mask of this name already").file(&path);
        error.help("choose another name, or give --replace")
    };
    if path.exists() && !arguments.replace {
        return Err(taken());
    }
    let mut mask = match &arguments.model {
        None => MaskFile::of_plan(&arguments.name, &read_plan(&arguments.plan)?)?,
        Some(model) => {
            let file = console.stage("read", || proto::read(model))?;
            let plan = verify::read_plan(&arguments.plan, &file)?;
            let mut mask = MaskFile::of_plan(&arguments.name, &plan).map_err(|e| e.file(&arguments.plan))?;
            // The groups of a plan that keeps some tasks alone are those of their part of the model.
            let part = plan.outputs.as_ref().map(|outputs| extract(&file.model, outputs)).transpose()?;
            let model = part.as_ref().map_or(&file.model, |part| &part.model);
            let inlined = functions::inline(model);
            let options = Options { allow_approximate: !plan.approximated.is_empty(), ..Options::default() };
            let mut analysis = console.stage("analyse", || Analysis::of_inlined(&inlined, &options))?;
            analysis.pages = file.pages.clone();
            mask.scores = Some(console.stage("score", || scores(arguments, model, &analysis))?);
            if let Some(samples) = &arguments.calibration {
                let feeder = feeder(samples, &arguments.input_scale, arguments.max_samples, model)?;
                let engine = arguments.engine.engine(Choice::Auto)?;
                let outputs = console.stage("run", || Outputs::of(model, engine.as_ref(), &feeder))?;
                mask.outputs = Some(outputs);
            }
            mask
        }
    };
    mask.name.clone_from(&arguments.name);
    // Another process may have made it in the meantime.
    fs::create_dir(&store).or_else(|e| if store.is_dir() { Ok(()) } else { Err(e) }).map_err(|e| {
        Error::input("the folder of masks cannot be made").file(&store).because(e).help("give another with --store")
    })?;
    let inputs: Vec<&Path> = [Some(&arguments.plan), arguments.model.as_ref(), arguments.calibration.as_ref()]
        .into_iter()
        .flatten()
        .map(PathBuf::as_path)
        .collect();
    files::check(&inputs, &[Written { path: &path, what: "the mask" }])?;
    let mut staged = Staged::new(&path)?;
    staged.fill(mask.text()?)?;
    if arguments.replace {
        staged.commit()?;
    } else if !staged.commit_new()? {
        return Err(taken());
    }
    console.print(&format!("{}: {}\n", path.display(), line(&mask)))
}

fn list(arguments: &ListArguments) -> Result<()> {
    let mut page = String::new();
    for name in names(&arguments.store)? {
        page += &format!("{name}: {}\n", line(&read(&arguments.store, &name)?));
    }
    if page.is_empty() {
        page = format!("{} holds no masks\n", arguments.store.display());
    }
    Console::new(false, false).print(&page)
}

fn show(arguments: &ShowArguments) -> Result<()> {
    let mask = read(&arguments.store, &arguments.name)?;
    let mut page = format!("{}: {}\nmade for the model {}\n", mask.name, line(&mask), mask.sha256);
    for group in &mask.groups {
        let kept: Vec<String> = group.kept.iter().map(u32::to_string).collect();
        page += &format!("{}: {} of {}: {}\n", group.name, group.kept.len(), group.extent, kept.join(" "));
    }
    Console::new(false, false).print(&page)
}

/// What a mask is, in one line.
fn line(mask: &MaskFile) -> String {
    let (kept, all) = mask.channels();
    let mut line = format!("{kept} of {all} channels in {} groups", mask.groups.len());
    if let Some(scores) = &mask.scores {
        line += &format!(", scores of {}", scores.criterion);
    }
    if let Some(outputs) = &mask.outputs {
        let samples = outputs.rows.values().map(Vec::len).max().unwrap_or(0);
        line += &format!(", outputs on {samples} samples");
    }
    line
}

/// What a criterion says of a model, by the names of its groups.
fn scores(arguments: &AddArguments, model: &ModelProto, analysis: &Analysis) -> Result<StoredScores> {
    let row = score::criterion(&arguments.criterion)?;
    let config = PruneConfig { criterion: row.name.to_owned(), ..PruneConfig::default() };
    let (mut statistics, mut gradients) = (None, None);
    let wish = row.gradients(config.importance);
    if let Some(samples) = arguments.calibration.as_ref().filter(|_| row.needs_statistics || wish.is_some()) {
        let feeder = feeder(samples, &arguments.input_scale, arguments.max_samples, model)?;
        let engine = arguments.engine.engine(Choice::Auto)?;
        if row.needs_statistics {
            statistics = Some(analysis.measure(&row.wish(), engine.as_ref(), &feeder)?);
        }
        if let Some(wish) = wish {
            let options = GradientOptions::default();
            gradients = Some(analysis.gradients(wish, &options, engine.as_ref(), &feeder)?);
        }
    }
    let evidence = Evidence { statistics: statistics.as_ref(), gradients: gradients.as_ref() };
    let scores = match analysis.scores(&config, evidence)? {
        Scores::Same(scores) => scores,
        Scores::PerTask(scores) => scores.normalised().mean(),
    };
    Ok(StoredScores::new(row.name, &analysis.groups, scores))
}

/// Samples in the order of their file, so that what two models give out on them can be compared.
pub(super) fn feeder(path: &Path, scales: &[(String, f64)], most: Option<usize>, model: &ModelProto) -> Result<Feeder> {
    let source = scaled(source::open(path, model, &SourceOptions::new(std::env::temp_dir()))?, scales)?;
    let options = FeederOptions { max_samples: most, ..FeederOptions::default() };
    Feeder::new(Arc::clone(&source), model, &options)
}

fn read_plan(path: &Path) -> Result<PlanFile> {
    let text = fs::read_to_string(path).map_err(|e| Error::input("cannot read the plan").file(path).because(e))?;
    PlanFile::parse(&text).map_err(|e| e.file(path))
}

/// The names of all masks of a store, in order.
pub(super) fn names(store: &Path) -> Result<Vec<String>> {
    let failed = |e: std::io::Error| {
        let error = Error::input("cannot read the folder of masks").file(store).because(e);
        error.help("`masks add` makes one, --store or --mask-store names another")
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(store).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        // What begins with a dot is a file that is still being written.
        let name = name.filter(|name| path.extension().is_some_and(|e| e == "json") && !name.starts_with('.'));
        names.extend(name.map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Reads one mask of a store.
pub(super) fn read(store: &Path, name: &str) -> Result<MaskFile> {
    check_name(name)?;
    let path = path_in(store, name);
    if !path.exists() {
        let known = names(store)?;
        let known = if known.is_empty() { "it is empty".to_owned() } else { format!("it holds {}", known.join(", ")) };
        return Err(Error::input(format!("there is no mask `{name}` in this folder")).file(store).help(known));
    }
    let text = fs::read_to_string(&path).map_err(|e| Error::input("cannot read the mask").file(&path).because(e))?;
    let mut mask = MaskFile::parse(&text).map_err(|e| e.file(&path))?;
    // The file may have been renamed.
    name.clone_into(&mut mask.name);
    Ok(mask)
}

/// The folder of masks beside a file.
pub(super) fn folder_beside(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(FOLDER)
}

fn path_in(store: &Path, name: &str) -> PathBuf {
    store.join(format!("{name}.json"))
}
