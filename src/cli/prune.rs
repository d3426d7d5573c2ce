//! Pruning: read -> analyse -> score -> allocate -> rewrite -> verify -> write -> report.
//!
//! Invariant: nothing is put in place before verification has passed and everything else is ready.

use std::path::Path;

use onnx_mtprune::allocate::{Plan, Rounding};
use onnx_mtprune::calibration::Statistics;
use onnx_mtprune::engine::Engine;
use onnx_mtprune::extract::{self, Extracted};
use onnx_mtprune::functions;
use onnx_mtprune::plan_file::{PlanFile, PlannedRepair};
use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::proto::{self, ModelFile, Output, WriteOptions};
use onnx_mtprune::prune::{self, Analysis, Evidence, PruneConfig};
use onnx_mtprune::repair::Repaired;
use onnx_mtprune::report::{Calibration, FileRow, Options, Report, Run, Verification, text, words};
use onnx_mtprune::rewrite::Rewritten;
use onnx_mtprune::score;
use onnx_mtprune::verify::{self as judge, Declared, VerifyOptions};
use onnx_mtprune::{Error, Result};

use super::arguments::PruneArguments;
use super::calibrate;
use super::calibration::Samples;
use super::console::Console;
use super::files::{self, Staged, Written};
use super::gradients;
use super::idle;
use super::runtime::Choice;
use super::{neighbours, tasks, verify};

pub(super) fn run(arguments: &PruneArguments, mut console: Console) -> Result<()> {
    idle::check(arguments)?;
    files::check(&inputs(arguments), &outputs(arguments))?;
    let file = console.stage("read", || proto::read(&arguments.input))?;
    check_data_files(arguments, &file)?;
    check_unknown_fields(arguments, &file, &console)?;
    let planned = arguments.plan.as_ref().map(|path| verify::read_plan(path, &file)).transpose()?;
    let approximate = planned.as_ref().map_or(arguments.allow_approximate, |plan| !plan.approximated.is_empty());
    let part = tasks::part(arguments, planned.as_ref(), &file, &mut console)?;
    let (model, tasks) = match &part {
        Some(part) => (&part.extracted.model, part.tasks.clone()),
        None => (&file.model, arguments.tasks.tasks.clone()),
    };
    let mut shapes = arguments.check.shapes.by_input();
    shapes.retain(|name, _| part.as_ref().is_none_or(|part| !part.extracted.dropped_inputs.contains(name)));
    let options = prune::Options { tasks, input_shapes: shapes, allow_approximate: approximate, ..Default::default() };
    let inlined = functions::inline(model);
    let mut analysis = console.stage("analyse", || Analysis::of_inlined(&inlined, &options))?;
    analysis.pages = file.pages.clone();
    let config = PruneConfig { criterion: criterion(arguments, &analysis, &console).to_owned(), ..config(arguments) };
    idle::check_criterion(arguments, score::criterion(&config.criterion)?)?;
    let takes_labels =
        (planned.is_none() && gradients::wish(&config)?.is_some()) || neighbours::takes_labels(arguments);
    let (graph, tasks) = (&analysis.graph, &analysis.tasks);
    let samples = Samples::open(&arguments.calibration, model, graph, tasks, config.seed, takes_labels)?;
    samples.iter().flat_map(|samples| &samples.notes).for_each(|note| console.warn(note));
    let engine = samples.as_ref().map(|_| arguments.check.engine.engine(Choice::Auto)).transpose()?;
    let mut losses = None;
    let mut neighbours = Vec::new();
    let (plan, agreement) = match &planned {
        Some(planned) => (console.stage("plan", || planned.plan(&analysis.groups))?, None),
        None => {
            let measuring = samples.as_ref().zip(engine.as_deref());
            let statistics = statistics(arguments, &file, &analysis, &config.criterion, measuring, &mut console)?;
            let (gradients, report) =
                gradients::gather(&arguments.calibration, &analysis, &config, measuring, &mut console)?.unzip();
            losses = report;
            let evidence = Evidence { statistics: statistics.as_ref(), gradients: gradients.as_ref() };
            let (said, decisive) = console.stage("score", || {
                let said = analysis.scores(&config, evidence)?;
                Ok::<_, Error>((said.clone(), analysis.protected(said, &config, evidence)?))
            })?;
            neighbours = neighbours::neighbours(arguments, &analysis, &config.criterion, &said, &mut console)?;
            console.stage("allocate", || {
                let own = &arguments.aggregation;
                own.plan(&analysis, (said, decisive), gradients.as_ref(), &neighbours, &config)
            })?
        }
    };
    if config.removes() && plan.kept.iter().all(Option::is_none) {
        console.warn("no channel was removed; `inspect` shows what keeps them");
    }
    let mut rewritten = console.stage("rewrite", || analysis.apply(&plan))?;
    let extracted = part.as_ref().map(|part| &part.extracted);
    let mut checked = verified(arguments, &file, extracted, &rewritten, &mut console)?;
    let calibration = match samples.as_ref().zip(engine.as_deref()) {
        Some((samples, engine)) => {
            let calibration = repair(arguments, samples, engine, model, &mut rewritten, &mut checked, &mut console)?;
            Some(Calibration { gradients: losses, ..calibration })
        }
        None => None,
    };
    let Checked { verification, length, repaired } = checked;

    let mut plan_out = arguments.plan_out.as_deref().map(Staged::new).transpose()?;
    let mut report_out = arguments.report.as_deref().map(Staged::new).transpose()?;
    if let Some(staged) = &mut plan_out {
        let hash = files::sha256(&file.bytes);
        let file = PlanFile { repaired, ..PlanFile::new(hash, &analysis.groups, &plan, &rewritten, extracted) };
        staged.fill(&file.text()?)?;
    }
    let bytes = if arguments.dry_run {
        length
    } else {
        Some(console.stage("write", || proto::write(&rewritten.output, &arguments.output, &WriteOptions::default()))?)
    };
    let report = Report::new(Run {
        analysis: &analysis,
        plan: &plan,
        rewritten: &rewritten,
        input: input_row(&arguments.input, &file),
        output: FileRow { path: arguments.output.display().to_string(), bytes },
        written: !arguments.dry_run,
        options: Options::new(&config, arguments.plan.as_ref().map(|p| p.display().to_string()), approximate)
            .with_neighbours(&neighbours),
        verification,
        agreement,
        calibration,
        dropped: part.as_ref().and_then(|part| part.row.clone()),
        stages: console.stages(),
    })?;
    if let Some(staged) = plan_out {
        staged.commit()?;
    }
    if let Some(mut staged) = report_out.take() {
        staged.fill(&report.json()?)?;
        staged.commit()?;
    }
    if console.verbose {
        console.print(&details(&analysis, &plan))?;
    }
    console.print(&text(&report, console.width()))
}

/// What the criterion needs of activations: from a file, or measured now; none where it needs nothing.
fn statistics(
    arguments: &PruneArguments,
    file: &ModelFile,
    analysis: &Analysis,
    criterion: &str,
    measuring: Option<(&Samples, &(dyn Engine + Send))>,
    console: &mut Console,
) -> Result<Option<Statistics>> {
    let row = score::criterion(criterion)?;
    if let Some(path) = &arguments.calibration.statistics {
        let found = calibrate::read(path)?;
        found.check_model(&files::sha256(&file.bytes)).map_err(|error| error.file(path))?;
        if !found.is_complete() {
            console.warn("the statistics are only a part of a calibration; `merge` puts parts together");
        }
        if !row.needs_statistics {
            console.warn(&format!(
                "the criterion `{}` does not look at activations, so --statistics does nothing",
                row.name
            ));
        }
        return Ok(Some(found.statistics));
    }
    let Some((samples, engine)) = measuring.filter(|_| row.needs_statistics) else { return Ok(None) };
    console.stage("measure", || analysis.measure(&row.wish(), engine, &samples.fit)).map(Some)
}

/// What is known of the output before it is written.
struct Checked {
    verification: Verification,
    /// The length of the model in memory, which stands for that of the file in a dry run.
    length: Option<u64>,
    /// What a repair changed.
    repaired: Option<PlannedRepair>,
}

/// Repairs what remains, which replaces the weights of the output, verifies that, and measures what became of every
/// task.
fn repair(
    arguments: &PruneArguments,
    samples: &Samples,
    engine: &dyn Engine,
    original: &ModelProto,
    rewritten: &mut Rewritten,
    checked: &mut Checked,
    console: &mut Console,
) -> Result<Calibration> {
    let pruned = rewritten.output.materialise()?;
    let repaired = console.stage("repair", || samples.repaired(original, &pruned, &rewritten.kept, engine))?;
    if let Some(repaired) = repaired.as_ref().filter(|_| !arguments.no_verify) {
        let declared = Declared { changed: repaired.changed.keys().cloned().collect(), added: repaired.added.clone() };
        let outcome =
            console.stage("verify repair", || samples.verdict(&pruned, &repaired.model, &declared, engine))?;
        verify::accept(&outcome, arguments.require_verify, console)?;
        checked.verification = checked.verification.clone().and_repair(&outcome, &declared, &engine.describe());
    }
    let model = repaired.as_ref().map_or(&pruned, |repaired| &repaired.model);
    let report = console.stage("judge", || samples.report(original, model, repaired.as_ref(), engine))?;
    engine.describe().notes.iter().for_each(|note| console.warn(note));
    if let Some(Repaired { model, changed, added, .. }) = repaired {
        checked.repaired = Some(PlannedRepair { changed: changed.into_keys().collect(), added });
        checked.length = checked.length.and(u64::try_from(prost::Message::encoded_len(&model)).ok());
        rewritten.output = Output { model, ..Output::default() };
    }
    Ok(report)
}

/// Verifies the cut unless that is switched off.
fn verified(
    arguments: &PruneArguments,
    file: &ModelFile,
    part: Option<&Extracted>,
    rewritten: &Rewritten,
    console: &mut Console,
) -> Result<Checked> {
    let verification = Verification::switched_off();
    if arguments.no_verify && !arguments.dry_run {
        return Ok(Checked { verification, length: None, repaired: None });
    }
    let pruned = rewritten.output.materialise()?;
    let length = u64::try_from(prost::Message::encoded_len(&pruned)).ok();
    if arguments.no_verify {
        return Ok(Checked { verification, length, repaired: None });
    }
    let (kept, altered) = extract::together(part, rewritten);
    let outputs = part.map(|part| part.outputs.clone());
    let options = verify::options(&arguments.check, altered, rewritten.approximated.clone())?;
    let options = VerifyOptions { outputs, ..options };
    let judged = console.stage("verify", || {
        verify::judged(&arguments.check, &|engine| judge::verify(&file.model, &pruned, &kept, engine, &options))
    })?;
    verify::accept(&judged.verdict.outcome, arguments.require_verify, console)?;
    Ok(Checked { verification: verify::known(&judged, console), length, repaired: None })
}

fn inputs(arguments: &PruneArguments) -> Vec<&Path> {
    let own = &arguments.calibration;
    let others = [&arguments.plan, &arguments.check.samples, &own.calibration, &own.labels, &own.statistics];
    std::iter::once(arguments.input.as_path()).chain(others.into_iter().flatten().map(|p| p.as_path())).collect()
}

fn outputs(arguments: &PruneArguments) -> Vec<Written<'_>> {
    let mut outputs = vec![Written { path: &arguments.output, what: "OUT" }];
    outputs.extend(arguments.plan_out.as_deref().map(|path| Written { path, what: "--plan-out" }));
    outputs.extend(arguments.report.as_deref().map(|path| Written { path, what: "--report" }));
    outputs
}

/// The weights of the input may lie in files of their own, which must not be overwritten either.
fn check_data_files(arguments: &PruneArguments, file: &ModelFile) -> Result<()> {
    if !file.has_external {
        return Ok(());
    }
    let data = files::data_files(&file.model, &arguments.input);
    let data: Vec<&Path> = data.iter().map(|p| p.as_path()).collect();
    let beside = files::data_file_of(&arguments.output);
    let mut outputs = outputs(arguments);
    outputs.push(Written { path: &beside, what: "the data file of OUT" });
    files::check(&data, &outputs)
}

fn check_unknown_fields(arguments: &PruneArguments, file: &ModelFile, console: &Console) -> Result<()> {
    if file.unknown_bytes == 0 {
        return Ok(());
    }
    let what = format!("{} bytes of the file are fields that this program does not know", file.unknown_bytes);
    if arguments.drop_unknown_fields || arguments.dry_run {
        console.warn(&format!("{what}; they are not in the pruned model"));
        return Ok(());
    }
    Err(Error::input(what)
        .file(&arguments.input)
        .help("--drop-unknown-fields writes the model without them; a newer version may know them"))
}

/// The criterion that was asked for, or the one that leaves what a repair can use best, where there are samples for it.
fn criterion<'a>(arguments: &'a PruneArguments, analysis: &Analysis, console: &Console) -> &'a str {
    let own = &arguments.calibration;
    let usual = score::DEFAULT;
    match &arguments.criterion {
        Some(name) => name,
        None if arguments.plan.is_some() || own.calibration.is_none() || own.statistics.is_some() => usual,
        None => {
            let bytes = analysis.bytes_of_products();
            // A model whose channels can be measured nowhere can still be pruned.
            if bytes == 0 {
                return usual;
            }
            if bytes <= own.bytes() / 4 {
                return score::DEFAULT_WITH_SAMPLES;
            }
            let needed = (4.0 * bytes as f64 / 1e9).ceil();
            console.warn(&format!(
                "channels are scored by {usual}: {} would take --memory {needed}",
                score::DEFAULT_WITH_SAMPLES
            ));
            usual
        }
    }
}

fn config(arguments: &PruneArguments) -> PruneConfig {
    PruneConfig {
        criterion: score::DEFAULT.to_owned(),
        ratio: arguments.ratio.unwrap_or_default(),
        rounding: arguments.round_to.map_or(Rounding::Auto, Rounding::Multiple),
        min_channels: arguments.min_channels,
        max_ratio: arguments.max_ratio,
        protect: arguments.protect.clone(),
        heads: arguments.heads,
        head_dims: arguments.head_dims,
        task_ratios: arguments.control.task_ratio.clone(),
        trunk_ratio: arguments.control.trunk_ratio,
        protect_tasks: arguments.control.protect_task.clone(),
        aggregation: arguments.aggregation.config(),
        importance: arguments.calibration.importance.unwrap_or_default(),
        seed: arguments.check.seed,
    }
}

/// The file that was read, with its data files.
pub(super) fn input_row(path: &Path, file: &ModelFile) -> FileRow {
    let data = files::data_files(&file.model, path);
    let data = data.iter().filter_map(|p| std::fs::metadata(p).ok()).map(|m| m.len());
    let model = u64::try_from(file.bytes.len()).unwrap_or(u64::MAX);
    FileRow { path: path.display().to_string(), bytes: Some(data.fold(model, u64::saturating_add)) }
}

/// One line per group and per opaque node.
fn details(analysis: &Analysis, plan: &Plan) -> String {
    let mut page = String::new();
    for (index, group) in analysis.groups.iter().enumerate() {
        let kept = plan.kept.get(index).and_then(Option::as_ref).map_or(group.extent, Vec::len);
        let name = words::shorten(&group.name, usize::MAX);
        let tasks = analysis.tasks.names(&group.tasks);
        let part = group.part.map_or_else(String::new, |part| format!(" {}", words::part(part)));
        page.push_str(&format!("group {name}: {} -> {kept}{part}, feeds {tasks}\n", group.extent));
    }
    for (node, why) in analysis.graph.nodes.iter().zip(&analysis.coupling.opaque) {
        if let Some(why) = why {
            let label = words::shorten(&node.label(), usize::MAX);
            page.push_str(&format!("opaque {} `{label}`: {why}\n", node.op_type()));
        }
    }
    if page.is_empty() { page } else { page + "\n" }
}
