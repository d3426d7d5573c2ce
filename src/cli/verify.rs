//! Verification: as a command of its own, and as a stage of pruning.

use std::collections::BTreeSet;
use std::path::Path;

use onnx_mtprune::calibration::source::{SourceOptions, read_samples};
use onnx_mtprune::engine::samples::random_feeds;
use onnx_mtprune::engine::{Device, Engine};
use onnx_mtprune::plan_file::PlanFile;
use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::proto::{self, ModelFile};
use onnx_mtprune::report::{Verification, drift_text, repair_text, verification_text};
use onnx_mtprune::verify::{Declared, Outcome, Verdict, VerifyOptions, verify, verify_repair};
use onnx_mtprune::{Error, Result};

use super::arguments::{CheckArguments, VerifyArguments};
use super::console::Console;
use super::runtime::Choice;
use super::{files, replay};

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
    let mut judge = |model: &ModelProto| {
        console.stage("verify", || {
            judged(&arguments.check, &|engine| verify(&original.model, model, &kept, engine, &options))
        })
    };
    let mut judged = judge(&pruned.model)?;
    // What was repaired is the cut but for the constants that the plan names, so the cut is made once more and judged.
    let is_repaired = plan.repaired.is_some() && matches!(judged.verdict.outcome, Outcome::Failed { .. });
    let cut = is_repaired.then(|| replay::cut(arguments, &original, &plan)).transpose()?;
    if let Some(cut) = &cut {
        judged = judge(cut)?;
    }
    let (verdict, engine) = (&judged.verdict, judged.engine.as_ref());
    if let Some(error) = failure(&verdict.outcome) {
        return Err(error.file(&arguments.pruned).help("do not use this model"));
    }
    if let Some(reason) = obstacle(&verdict.outcome) {
        return Err(Error::engine(format!("not verified: {reason}"))
            .file(&arguments.original)
            .help("give --input-shape or --samples"));
    }
    let mut verification = known(&judged, &console);
    if let (Some(cut), Some(repaired)) = (&cut, plan.repaired) {
        let declared = Declared { changed: repaired.changed, added: repaired.added };
        let feeds = match options.samples.as_ref().filter(|samples| !samples.is_empty()) {
            Some(samples) => samples.feeds(&original.model, 0)?,
            None => random_feeds(&verdict.inputs, options.seed)?,
        };
        let outcome =
            console.stage("verify repair", || Ok(verify_repair(cut, &pruned.model, &declared, engine, &feeds)))?;
        if let Some(error) = failure(&outcome) {
            let help = "do not use this model; give the --input-shape that it was pruned with, if there was one";
            return Err(error.file(&arguments.pruned).help(help));
        }
        verification = verification.and_repair(&outcome, &declared, &engine.describe());
    }
    let lines = [("drift", drift_text(&verification)), ("repair", repair_text(&verification))];
    let lines = lines.into_iter().filter_map(|(what, line)| Some(format!("{what}: {}\n", line?)));
    let first = format!("{}: {}\n", arguments.pruned.display(), verification_text(&verification));
    console.print(&std::iter::once(first).chain(lines).collect::<String>())
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

/// A verdict, and how it was reached.
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    pub(super) engine: Box<dyn Engine + Send>,
    /// What another engine said, where that is not what counts.
    note: Option<String>,
}

/// Verifies with the engine that was asked for. Where none was, the built-in one judges, or ONNX Runtime what that one
/// cannot run or finds to differ: where quantisation rounds, the last bits of an engine may tip a number over, which is no
/// difference between the models if there is an engine in which they are equal.
pub(super) fn judged(
    arguments: &CheckArguments,
    verify: &(dyn Fn(&dyn Engine) -> Result<Verdict> + Sync),
) -> Result<Judged> {
    let engine = arguments.engine.engine(Choice::Tract)?;
    let verdict = verify(engine.as_ref())?;
    if verdict.outcome != Outcome::Passed
        && arguments.engine.is_open()
        && let Ok(found) = arguments.engine.onnx_runtime(Device::Cpu)
    {
        let second = verify(&found.runtime)?;
        if counts(&second.outcome, &verdict.outcome) {
            let note = match &verdict.outcome {
                Outcome::Failed { reason, .. } => Some(format!(
                    "{} finds a difference that {} does not: {reason}",
                    engine.name(),
                    found.runtime.name()
                )),
                _ => None,
            };
            return Ok(Judged { verdict: second, engine: Box::new(found.runtime), note });
        }
    }
    Ok(Judged { verdict, engine, note: None })
}

/// True if what the second engine says counts, and not what the first one does.
fn counts(second: &Outcome, first: &Outcome) -> bool {
    match first {
        Outcome::CannotRun { .. } => !matches!(second, Outcome::CannotRun { .. }),
        Outcome::Failed { .. } => *second == Outcome::Passed,
        Outcome::Passed | Outcome::NotCompared { .. } => false,
    }
}

/// The data of a verdict and of the engine behind it; says what is to be known about the engine.
pub(super) fn known(judged: &Judged, console: &Console) -> Verification {
    let runtime = judged.engine.describe();
    runtime.notes.iter().chain(&judged.note).for_each(|note| console.warn(note));
    Verification::of(&judged.verdict).by(runtime)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_engine_counts_where_it_can_tell_more() {
        let failed = || Outcome::Failed { reason: String::new(), first: None };
        let stuck = || Outcome::CannotRun { reason: String::new() };
        let said = |first: Outcome| [Outcome::Passed, failed(), stuck()].map(|second| counts(&second, &first));
        assert_eq!(said(stuck()), [true, true, false]);
        assert_eq!(said(failed()), [true, false, false]);
        assert_eq!(said(Outcome::Passed), [false; 3]);
    }
}
