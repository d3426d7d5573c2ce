//! Verify: is a pruned model what pruning promises?
//!
//! Statement. Let M be the original and K its kept indices. Let mask(M, K) be M with every removed index of every
//! tensor that gets smaller, constant or activation, forced to zero. A pruned model P is correct when
//!
//! ```text
//! interface(P) = interface(M)
//! constant(P, c) = constant(M, c)[K_c]             for every constant c of M that P still has, bit by bit
//! output(P, x, o) = output(mask(M, K), x, o)       for every graph output o and every input x,
//!                                                  up to floating-point reassociation
//! ```
//!
//! The third line is tested on one input. It holds where removed channels are contracted or summed, and fails
//! where something is normalised or averaged over them without a correction, which is the point.
//!
//! Where only some outputs were kept, M is the original that returns just those, and P may lack inputs of M: it does not
//! get them, so its outputs can only agree if they do not matter.
//!
//! Where the user allowed nodes to approximate, M is M with those nodes taking their statistics over what remains; what
//! that does to the outputs is measured against the dense model and reported as drift.
//!
//! Invariants: but for those nodes (`statistics`), nothing here knows what operators mean, how channels are coupled or
//! how a model is rewritten; the kept indices, the names of those nodes, and how calls of local functions are written
//! out (`functions`) are all that is shared with those who prune, so that their mistakes cannot be repeated here.

mod compare;
mod constants;
mod drift;
mod emit;
mod locate;
mod masked;
mod nested;
mod repaired;
mod rounding;
mod run;
mod scale;
mod statistics;
mod structure;
mod unchanged;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

pub use compare::OutputDifference;
pub use drift::Drift;
pub use locate::FirstDifference;
pub use repaired::{Declared, verify_repair};

use crate::engine::{Engine, Feeds, InputFact, Samples, Value, facts_of};
use crate::functions;
use crate::kept::Kept;
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx::{AttributeProto, GraphProto, ModelProto};
use crate::{Error, Result};
use drift::drift;
use locate::Located;
use masked::masked;
use run::{Run, run_original};
use statistics::Remaining;

/// What to verify with.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Seed of the random input.
    pub seed: u64,
    /// Real inputs, used instead of random ones: the first sample.
    pub samples: Option<Samples>,
    /// Shapes of inputs that the file leaves open, by name.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// The largest relative difference that passes. Models with weights or casts in half precision get at least 2e-2,
    /// which is about 20 roundings of that type.
    pub tolerance: f64,
    /// A larger difference passes as well where rounding explains it: where the last bits of weights and inputs move
    /// the original as far.
    pub rounding: bool,
    /// Constants that no one set of kept indices describes: those of which several readers keep different parts, and
    /// new ones. Such a constant that has kept indices nevertheless may hold other values.
    pub altered: BTreeSet<String>,
    /// Nodes, by the names of their first outputs, that were allowed to approximate: their statistics are those of what
    /// remains of the axes they run over.
    pub approximated: BTreeSet<String>,
    /// The graph outputs that were kept, if not all were.
    pub outputs: Option<Vec<String>>,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        let (shapes, altered, approximated) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { seed: 0, samples: None, shapes, tolerance: 1e-4, rounding: true, altered, approximated, outputs: None }
    }
}

/// How verification ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Structure and outputs agree.
    Passed,
    /// They do not.
    Failed {
        /// What disagrees, in one line.
        reason: String,
        /// The first value in the order of computation that differs, when it could be found.
        first: Option<FirstDifference>,
    },
    /// The engine cannot run the original, so nothing can be said about the outputs.
    CannotRun {
        /// The engine's reason, in one line.
        reason: String,
    },
    /// Structure agrees and both models run, but an operator that approximates has no reference here, so the outputs
    /// are only measured against those of the dense model.
    NotCompared {
        /// Which operators, in one line.
        reason: String,
    },
}

/// Models with more bytes of weights are run one after the other, so that memory holds one of them at a time.
const LARGE_BYTES: usize = 1 << 30;

/// The result of verification.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// How it ended.
    pub outcome: Outcome,
    /// The engine that ran.
    pub engine: &'static str,
    /// Inputs that were fed, with their shapes. Empty when nothing ran.
    pub inputs: Vec<InputFact>,
    /// The difference at every graph output. Empty when the models did not both run.
    pub outputs: Vec<OutputDifference>,
    /// The tolerance that applied.
    pub tolerance: f64,
    /// How far every graph output is from that of the dense original. Empty unless nodes were allowed to approximate.
    pub drift: Vec<Drift>,
    /// How many nodes of the reference take statistics over what remains.
    pub approximated: usize,
}

impl Verdict {
    /// True when the outcome is `Passed`.
    pub fn passed(&self) -> bool {
        self.outcome == Outcome::Passed
    }
}

/// Verifies that `pruned` is `original` without what `kept` leaves out.
///
/// # Errors
/// When the options do not fit the model (samples, shapes), or `kept` does not fit the original (unknown names, indices
/// out of range, graph inputs or outputs that get smaller). A wrong pruned model is a verdict and not an error.
pub fn verify(
    original: &ModelProto,
    pruned: &ModelProto,
    kept: &Kept,
    engine: &dyn Engine,
    options: &VerifyOptions,
) -> Result<Verdict> {
    let original = match &options.outputs {
        Some(outputs) => Cow::Owned(returning(original, outputs)?),
        None => Cow::Borrowed(original),
    };
    // Masks go inside functions as they go inside bodies, so calls are written out on both sides.
    let (original, pruned) = (functions::inline(&original).model, functions::inline(pruned).model);
    let (original, pruned) = (original.as_ref(), pruned.as_ref());
    let tolerance = if has_half_precision(original) { options.tolerance.max(2e-2) } else { options.tolerance };
    let mut verdict = Verdict {
        outcome: Outcome::Passed,
        engine: engine.name(),
        inputs: vec![],
        outputs: vec![],
        tolerance,
        drift: vec![],
        approximated: 0,
    };
    let failed = |reason: String| Outcome::Failed { reason, first: None };
    if let Some(what) = structure::deviation(original, pruned, kept, options)? {
        verdict.outcome = failed(what);
        return Ok(verdict);
    }
    if !kept.zeros.is_empty() && opset(original) < 9 {
        let reason = "a number that stands for zero cannot be selected before operator set 9".to_owned();
        verdict.outcome = Outcome::CannotRun { reason };
        return Ok(verdict);
    }
    let Run { feeds, facts, dense } = match run_original(original, kept, engine, options)? {
        Ok(run) => run,
        Err(reason) => {
            verdict.outcome = Outcome::CannotRun { reason };
            return Ok(verdict);
        }
    };
    // Only now is it known which of several engines can run the original.
    verdict.engine = engine.name();
    let Remaining { model, placed, missing } =
        statistics::over_what_remains(original, kept, &facts, &options.approximated)?;
    verdict.approximated = placed;
    let reference = masked(&model, kept, &facts)?;
    drop(model);
    let outputs = output_names(original);
    let run_pruned = || run_all(engine, pruned, &feeds, &outputs);
    let (expected, found) = if weight_bytes(original) < LARGE_BYTES {
        // Side by side: this is where the time goes.
        rayon::join(|| run_all(engine, &reference, &feeds, &outputs), run_pruned)
    } else {
        let expected = run_all(engine, &reference, &feeds, &outputs);
        // Its weights are copies.
        drop(reference);
        (expected, run_pruned())
    };
    let expected = match expected {
        Ok(values) => values,
        Err(e) => {
            verdict.outcome = Outcome::CannotRun { reason: format!("the masked original does not run: {e}") };
            return Ok(verdict);
        }
    };
    verdict.inputs = feeds.first().map(|f| facts_of(f)).unwrap_or_default();
    let found = match found {
        Ok(values) => values,
        Err(e) => {
            verdict.outcome = failed(format!("the original runs and the pruned model does not: {e}"));
            return Ok(verdict);
        }
    };
    if let Some(found) = found.first().filter(|_| !options.approximated.is_empty()) {
        let pairs = outputs.iter().zip(dense.iter().zip(found));
        verdict.drift = pairs.map(|(name, (dense, found))| drift(name, dense, found)).collect();
    }
    if let Some(what) = missing.first() {
        let reason = format!("there is no reference for {what}, which takes statistics over what remains");
        verdict.outcome = Outcome::NotCompared { reason };
        return Ok(verdict);
    }
    let magnitudes = scale::least_magnitudes(original);
    let least = |name: &str| magnitudes.get(name).copied().unwrap_or(0.0);
    for (expected, found) in expected.iter().zip(&found) {
        let pairs = outputs.iter().zip(expected.iter().zip(found));
        let differences = pairs.map(|(name, (a, b))| compare::compare(name, a, b, least(name))).collect::<Vec<_>>();
        verdict.outputs = match std::mem::take(&mut verdict.outputs) {
            earlier if earlier.is_empty() => differences,
            earlier => earlier.into_iter().zip(differences).map(|(a, b)| a.worse(b)).collect(),
        };
    }
    if worst(&verdict.outputs, tolerance).is_some() {
        // Made again, because a large one was dropped before the pruned model ran.
        let spelled = statistics::over_what_remains(original, kept, &facts, &options.approximated)?;
        let reference = masked(&spelled.model, kept, &facts)?;
        // An engine that draws random numbers, or reads memory that it never wrote, says nothing about either model.
        let repeats = |model: &ModelProto, values: &[Vec<Value>]| {
            let again = run_all(engine, model, &feeds, &outputs).unwrap_or_default();
            let pairs = values.iter().flatten().zip(again.iter().flatten());
            pairs
                .zip(outputs.iter().cycle())
                .all(|((a, b), name)| compare::compare(name, a, b, least(name)).within(tolerance))
        };
        if !repeats(&reference, &expected) || !repeats(pruned, &found) {
            let reason = "the engine computes something else each time from the same inputs".to_owned();
            verdict.outcome = Outcome::CannotRun { reason };
            return Ok(verdict);
        }
        if options.rounding {
            let allowed = rounding::allowances(engine, &reference, &feeds, &outputs, &expected, &least);
            verdict.outputs.iter_mut().zip(allowed).for_each(|(output, allowed)| output.rounding = allowed);
        }
        let Some(worst) = worst(&verdict.outputs, tolerance).cloned() else { return Ok(verdict) };
        let parties = locate::Parties { reference: &reference, pruned, kept, altered: &options.altered };
        let (mut contradicts, mut undefined) = (true, None);
        let first = feeds.iter().find_map(|f| match locate::first_difference(&parties, engine, f, tolerance) {
            Located::At(difference) => Some(difference),
            Located::Nan(value) => {
                undefined = Some(value);
                contradicts = false;
                None
            }
            found => {
                contradicts &= matches!(found, Located::Nowhere);
                None
            }
        });
        if first.is_none() && contradicts {
            // Seen of NaN, which fused operators drop and others hand on.
            let reason = "the engine gives other outputs when it is asked for inner values as well".to_owned();
            verdict.outcome = Outcome::CannotRun { reason };
            return Ok(verdict);
        }
        if let (None, Some(value)) = (&first, undefined) {
            let reason = format!("`{value}` holds NaN in the original and what remains, which engines hand on or drop");
            verdict.outcome = Outcome::CannotRun { reason };
            return Ok(verdict);
        }
        verdict.outcome = Outcome::Failed { reason: reason(&worst, tolerance), first };
    } else if verdict.outputs.iter().all(|o| o.compared == 0) {
        let reason = "all outputs are empty or NaN for the inputs tried; give real samples".to_string();
        verdict.outcome = Outcome::CannotRun { reason };
    }
    Ok(verdict)
}

/// A model that returns some of its outputs alone.
fn returning(model: &ModelProto, outputs: &[String]) -> Result<ModelProto> {
    let mut model = model.clone();
    let graph = model.graph.as_mut().ok_or_else(|| Error::input("the model has no graph"))?;
    if let Some(name) = outputs.iter().find(|name| !graph.output.iter().any(|output| output.name() == **name)) {
        return Err(Error::verification("the original has no such output").tensor(name));
    }
    graph.output.retain(|output| outputs.iter().any(|name| name == output.name()));
    Ok(model)
}

/// How many bytes the weights of a model take.
fn weight_bytes(model: &ModelProto) -> usize {
    let raw = model.graph.iter().flat_map(|g| &g.initializer).filter_map(|t| t.raw_data.as_ref());
    raw.fold(0, |all, bytes| all.saturating_add(bytes.len()))
}

/// The version of the operators of ai.onnx, 0 if it is not told.
fn opset(model: &ModelProto) -> i64 {
    let imports = model.opset_import.iter();
    imports.filter(|o| matches!(o.domain(), "" | "ai.onnx")).map(|o| o.version()).next().unwrap_or(0)
}

fn worst(outputs: &[OutputDifference], tolerance: f64) -> Option<&OutputDifference> {
    let failing = outputs.iter().filter(|o| !o.within(tolerance));
    failing.max_by(|a, b| a.max_relative.total_cmp(&b.max_relative))
}

fn reason(output: &OutputDifference, tolerance: f64) -> String {
    match &output.mismatch {
        Some(what) => format!("output `{}` {what}", output.name),
        None => format!(
            "output `{}` differs from the masked original by {:.2e} (relative, tolerance {tolerance:.0e})",
            output.name, output.max_relative
        ),
    }
}

fn run_all(engine: &dyn Engine, model: &ModelProto, feeds: &[Feeds], wanted: &[String]) -> Result<Vec<Vec<Value>>> {
    let facts = feeds.first().map(|f| facts_of(f)).unwrap_or_default();
    let session = engine.open(model, &facts, wanted)?;
    feeds.iter().map(|f| session.run(f)).collect()
}

fn output_names(model: &ModelProto) -> Vec<String> {
    model.graph.iter().flat_map(|g: &GraphProto| &g.output).map(|o| o.name().to_string()).collect()
}

/// True where weights are in half precision, or are brought to it while the model runs: the type that a node is told to
/// give stands in its attribute `to` or `dtype`.
fn has_half_precision(model: &ModelProto) -> bool {
    let half = |t: &&crate::proto::onnx::TensorProto| {
        matches!(constants::element(t), Some(DataType::Float16 | DataType::Bfloat16))
    };
    constants::constants(model).into_values().any(|t| half(&t))
        || model.graph.as_ref().is_some_and(gives_half_precision)
}

fn gives_half_precision(graph: &GraphProto) -> bool {
    const HALVES: [i64; 2] = [DataType::Float16 as i64, DataType::Bfloat16 as i64];
    let declares = |a: &AttributeProto| matches!(a.name(), "to" | "dtype") && HALVES.contains(&a.i());
    let mut nested = false;
    for node in &graph.node {
        constants::for_each_body(node, "", &mut |_, body| nested |= gives_half_precision(body));
    }
    nested || graph.node.iter().flat_map(|n| &n.attribute).any(declares)
}
