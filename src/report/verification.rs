//! The verdict of a verification as data.

use serde::Serialize;

use crate::engine::Description;
use crate::verify::{Declared, Outcome, Verdict};

/// How verification ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// `passed`, `failed`, `cannot run`, `not compared` (approximated where there is no reference) or `switched off`.
    pub outcome: &'static str,
    /// The engine, if one was asked.
    pub engine: Option<&'static str>,
    /// Its version, library, device and how many nodes ran where, if it was asked for them.
    pub runtime: Option<Description>,
    /// The largest relative difference that passes.
    pub tolerance: Option<f64>,
    /// Why it failed or could not run.
    pub reason: Option<String>,
    /// The first value in the order of computation that differs.
    pub first_difference: Option<String>,
    /// The shapes that were fed, by input.
    pub inputs: Vec<(String, Vec<usize>)>,
    /// The differences at every graph output.
    pub outputs: Vec<OutputRow>,
    /// How many nodes of the masked original take statistics over what remains, as those of the pruned model do.
    pub approximated: usize,
    /// How far the outputs are from those of the dense original; empty unless something was approximated.
    pub drift: Vec<DriftRow>,
    /// Whether the repair behind the cut did what it says and nothing else; none where nothing was repaired.
    pub repair: Option<RepairCheck>,
}

/// Whether a repaired model is the verified one but for the constants that the repair names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepairCheck {
    /// `passed`, or `cannot run`: then everything was compared, but outputs were not looked at.
    pub outcome: &'static str,
    /// The engine that ran both models, with its device.
    pub engine: String,
    /// Why they could not run.
    pub reason: Option<String>,
    /// Constants that hold other numbers.
    pub changed: usize,
    /// Constants that are new.
    pub added: usize,
}

/// How far one graph output has moved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DriftRow {
    /// The output.
    pub name: String,
    /// The length of the difference over that of the dense output; for integers the fraction that differs.
    pub relative: f64,
    /// The cosine of the angle between both.
    pub cosine: Option<f64>,
}

/// The difference at one graph output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputRow {
    /// The output.
    pub name: String,
    /// The largest absolute difference; `null` in JSON where it is infinite.
    pub max_absolute: f64,
    /// The largest absolute difference over the largest magnitude; for integers the fraction that differs.
    pub max_relative: f64,
    /// How many elements were compared; none where all are NaN in the reference, or there are none.
    pub compared: usize,
    /// A type or shape that disagrees.
    pub mismatch: Option<String>,
    /// The relative difference that rounding alone explains; 0 unless the difference exceeded the tolerance.
    pub rounding: f64,
}

impl Verification {
    /// What to report where nobody verified.
    pub fn switched_off() -> Self {
        Self {
            outcome: "switched off",
            engine: None,
            runtime: None,
            tolerance: None,
            reason: None,
            first_difference: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            approximated: 0,
            drift: Vec::new(),
            repair: None,
        }
    }

    /// The same with what is known about the engine.
    #[must_use]
    pub fn by(mut self, runtime: Description) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// The data of a verdict.
    pub fn of(verdict: &Verdict) -> Self {
        let (outcome, reason, first) = match &verdict.outcome {
            Outcome::Passed => ("passed", None, None),
            Outcome::Failed { reason, first } => ("failed", Some(reason), first.as_ref().map(ToString::to_string)),
            Outcome::CannotRun { reason } => ("cannot run", Some(reason), None),
            Outcome::NotCompared { reason } => ("not compared", Some(reason), None),
        };
        let outputs = verdict.outputs.iter().map(|o| OutputRow {
            name: o.name.clone(),
            max_absolute: o.max_absolute,
            max_relative: o.max_relative,
            compared: o.compared,
            mismatch: o.mismatch.clone(),
            rounding: o.rounding,
        });
        let drift = verdict.drift.iter();
        let drift = drift.map(|d| DriftRow { name: d.name.clone(), relative: d.relative, cosine: d.cosine });
        Self {
            outcome,
            engine: Some(verdict.engine),
            runtime: None,
            tolerance: Some(verdict.tolerance),
            reason: reason.cloned(),
            first_difference: first,
            inputs: verdict.inputs.iter().map(|i| (i.name.clone(), i.shape.clone())).collect(),
            outputs: outputs.collect(),
            approximated: verdict.approximated,
            drift: drift.collect(),
            repair: None,
        }
    }

    /// The same with how the judgement of a repair ended.
    #[must_use]
    pub fn and_repair(mut self, outcome: &Outcome, declared: &Declared, engine: &Description) -> Self {
        let (outcome, reason) = match outcome {
            Outcome::Passed => ("passed", None),
            Outcome::Failed { reason, .. } => ("failed", Some(reason)),
            Outcome::CannotRun { reason } | Outcome::NotCompared { reason } => ("cannot run", Some(reason)),
        };
        self.repair = Some(RepairCheck {
            outcome,
            engine: engine.label(),
            reason: reason.cloned(),
            changed: declared.changed.len(),
            added: declared.added.len(),
        });
        self
    }
}
