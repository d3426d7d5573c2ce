//! Verification: as a command of its own, and as a stage of pruning.

use std::collections::BTreeSet;
use std::path::Path;

use onnx_mtprune::calibration::source::{SourceOptions, read_samples};
use onnx_mtprune::engine::{Device, Engine};
use onnx_mtprune::plan_file::PlanFile;
use onnx_mtprune::proto::{self, ModelFile};
use onnx_mtprune::report::{Verification, drift_text, verification_text};
use onnx_mtprune::verify::{Outcome, Verdict, VerifyOptions, verify};
use onnx_mtprune::{Error, Result};

use super::arguments::{CheckArguments, VerifyArguments};
use super::console::Console;
use super::files;
use super::runtime::Choice;

pub(super) fn run(arguments: &VerifyArguments) -> Result<()> {
    let mut console = Console::new(arguments.quiet, false);
    let original = console.stage("read", || proto::read(&arguments.original))?;
    let pruned = console.stage("read", || proto::read(&arguments.pruned))?;
    let plan = read_plan(&arguments.plan, &original)?;
    let options = VerifyOptions {
        outputs: plan.outputs.clone(),
        ..options(&arguments.check, plan.altered.clone(), plan.approximated.clone())?
    };
    let kept = plan.kept().map_err(|e| e.file(&arguments.plan))?;
    let (verdict, engine) = console.stage("verify", || {
        judged(&arguments.check, &|engine| verify(&original.model, &pruned.model, &kept, engine, &options))
    })?;
    if let Some(error) = failure(&verdict.outcome) {
        return Err(error.file(&arguments.pruned).help("do not use this model"));
    }
    if let Some(reason) = obstacle(&verdict.outcome) {
        return Err(Error::engine(format!("not verified: {reason}"))
            .file(&arguments.original)
            .help("give --input-shape or --samples"));
    }
    let verification = known(&verdict, engine.as_ref(), &console);
    let drift = drift_text(&verification).map_or_else(String::new, |drift| format!("drift: {drift}\n"));
    console.print(&format!("{}: {}\n{drift}", arguments.pruned.display(), verification_text(&verification)))
}

/// Reads a plan file and refuses one that was made for another model.
pub(super) fn read_plan(path: &Path, original: &ModelFile) -> Result<PlanFile> {
    let bytes = std::fs::read(path).map_err(|e| Error::input("cannot read the plan").file(path).because(e))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::input("this is no plan file").file(path).help("write one with --plan-out"))?;
    let plan = PlanFile::parse(&text).map_err(|e| e.file(path))?;
    if plan.sha256 != files::sha256(&original.bytes) {
        return Err(Error::input(format!("the plan was made for another file than `{}`", original.path.display()))
            .file(path)
            .help("give the model that the plan was written for, or make a plan for this one with --plan-out"));
    }
    Ok(plan)
}

/// What to verify with, from the command line.
pub(super) fn options(
    arguments: &CheckArguments,
    altered: BTreeSet<String>,
    approximated: BTreeSet<String>,
) -> Result<VerifyOptions> {
    let usual = VerifyOptions::default();
    let read = |path| read_samples(path, &SourceOptions::new(std::env::temp_dir()));
    Ok(VerifyOptions {
        seed: arguments.seed,
        samples: arguments.samples.as_ref().map(read).transpose()?,
        shapes: arguments.shapes.by_input(),
        tolerance: arguments.tolerance.unwrap_or(usual.tolerance),
        rounding: arguments.tolerance.is_none(),
        altered,
        approximated,
        outputs: usual.outputs,
    })
}

/// Verifies with the engine that was asked for. Where none was, the built-in one judges, or ONNX Runtime what that one
/// cannot run.
pub(super) fn judged(
    arguments: &CheckArguments,
    verify: &(dyn Fn(&dyn Engine) -> Result<Verdict> + Sync),
) -> Result<(Verdict, Box<dyn Engine + Send>)> {
    let engine = arguments.engine.engine(Choice::Tract)?;
    let verdict = verify(engine.as_ref())?;
    let is_stuck = |verdict: &Verdict| matches!(verdict.outcome, Outcome::CannotRun { .. });
    if is_stuck(&verdict)
        && arguments.engine.is_open()
        && let Ok(found) = arguments.engine.onnx_runtime(Device::Cpu)
    {
        let second = verify(&found.runtime)?;
        if !is_stuck(&second) {
            return Ok((second, Box::new(found.runtime)));
        }
    }
    Ok((verdict, engine))
}

/// The data of a verdict and of the engine behind it; says what is to be known about the engine.
pub(super) fn known(verdict: &Verdict, engine: &dyn Engine, console: &Console) -> Verification {
    let runtime = engine.describe();
    runtime.notes.iter().for_each(|note| console.warn(note));
    Verification::of(verdict).by(runtime)
}

/// Refuses to write what is wrong, and what nobody could verify if that is `required`.
pub(super) fn accept(outcome: &Outcome, required: bool, console: &Console) -> Result<()> {
    if let Some(error) = failure(outcome) {
        return Err(
            error.help("nothing was written; report this as a bug with the model, --no-verify writes it anyway")
        );
    }
    if let Some(reason) = obstacle(outcome) {
        if required {
            return Err(Error::engine(format!("not verified: {reason}"))
                .help("nothing was written; give --input-shape or --samples, or leave out --require-verify"));
        }
        console.warn(&format!("not verified: {reason}"));
    }
    Ok(())
}

/// The error of a verdict that failed.
fn failure(outcome: &Outcome) -> Option<Error> {
    let Outcome::Failed { reason, first } = outcome else { return None };
    let first = first.as_ref().map_or_else(String::new, |first| format!(", the first that differs is {first}"));
    Some(Error::verification(format!("the pruned model is wrong: {reason}{first}")))
}

/// Why a verdict could not be reached.
fn obstacle(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::CannotRun { reason } | Outcome::NotCompared { reason } => Some(reason),
        _ => None,
    }
}
