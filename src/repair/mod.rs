//! Repair: what calibration samples bring back of what pruning took, in closed form and without training.
//!
//! `original + pruned + kept + samples -> repaired`. Layer by layer in the order of the data, weights are fitted so that
//! each contraction gives again what the dense model gives in its place. Invariants: nothing but floating-point
//! constants changes, and biases that operators may have are added; shapes, names, nodes and kept indices stay; without
//! removed channels nothing changes at all.

mod batch_norm;
mod behind;
mod bias;
mod constants;
mod evidence;
mod frontier;
mod least_squares;
mod left;
mod likelihood;
mod mean_bias;
mod moments;
mod one_sided;
mod plan;
mod quantised;
mod rows;
mod targets;
mod wiring;

use std::collections::{BTreeMap, BTreeSet};

pub use plan::Left;

use crate::calibration::Batches;
use crate::engine::Engine;
use crate::kept::Kept;
use crate::proto::onnx::ModelProto;
use crate::{Error, Result, functions};
use constants::Constants;
use least_squares::Work;
use targets::Dense;
use wiring::Wiring;

/// How a pruned model is repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Not at all.
    None,
    /// What removed inputs contribute on average goes into the bias of their consumers.
    Bias,
    /// The statistics of normalisations are estimated anew; where they were folded into convolutions, what these give
    /// gets the means and deviations of the dense model.
    BatchNorm,
    /// Every contraction behind what was removed is fitted to the dense model by ridge regression.
    LeastSquares,
}

/// All methods by the names that the command line knows.
pub const METHODS: &[(&str, Method)] = &[
    ("none", Method::None),
    ("bias", Method::Bias),
    ("batch-norm", Method::BatchNorm),
    ("least-squares", Method::LeastSquares),
];

/// What a user may ask of a repair; the defaults are those of the command line.
#[derive(Clone, Debug, PartialEq)]
pub struct RepairConfig {
    /// The method.
    pub method: Method,
    /// How strongly fitted weights are drawn towards the old ones, in parts of the mean variance of the inputs.
    pub lambda: f64,
    /// Bytes that may be used for values and moments.
    pub memory: usize,
    /// The seed of the sampled positions.
    pub seed: u64,
}

impl Default for RepairConfig {
    fn default() -> Self {
        Self { method: Method::LeastSquares, lambda: 1e-2, memory: 4 << 30, seed: 0 }
    }
}

/// A repaired model and what was done to it.
#[derive(Clone, Debug)]
pub struct Repaired {
    /// The model.
    pub model: ModelProto,
    /// The largest change of every constant that was changed, relative to its largest number before.
    pub changed: BTreeMap<String, f64>,
    /// New constants: biases where there were none, and copies for nodes that shared a bias with others; each with its
    /// reader, the position of a node and the input slot.
    pub added: BTreeMap<String, (usize, usize)>,
    /// How many contractions were refitted.
    pub refitted: usize,
    /// Contractions behind what was removed that stay as they are.
    pub left: Vec<Left>,
}

/// The method of a name.
///
/// # Errors
/// An unknown name, with all that are known.
pub fn method(name: &str) -> Result<Method> {
    let known = METHODS.iter().find(|(known, _)| *known == name).map(|(_, method)| *method);
    known.ok_or_else(|| {
        let names: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
        Error::input(format!("there is no repair `{name}`")).help(format!("choose one of {}", names.join(", ")))
    })
}

/// Repairs `pruned`, what remains of `original` by `kept`, with samples.
///
/// # Errors
/// No samples, samples that cannot be read, a model that the engine does not run.
pub fn repair(
    original: &ModelProto,
    pruned: ModelProto,
    kept: &Kept,
    engine: &dyn Engine,
    batches: &dyn Batches,
    config: &RepairConfig,
) -> Result<Repaired> {
    let mut model = pruned;
    let untouched =
        |model| Repaired { model, changed: BTreeMap::new(), added: BTreeMap::new(), refitted: 0, left: Vec::new() };
    if kept.is_empty() || config.method == Method::None {
        return Ok(untouched(model));
    }
    if batches.is_empty() {
        return Err(Error::input("a repair needs samples").help("give --calibration, or --repair none"));
    }
    // Kept indices are those of the model with its calls written out.
    let inlined = functions::inline(original);
    let dense_wiring = Wiring::of(&inlined.model)?;
    let inputs = frontier::input_names(&inlined.model);
    let names: BTreeSet<String> = dense_wiring.producer.keys().cloned().chain(inputs).collect();
    let constants = Constants::of(&model);
    let wiring = Wiring::of(&model)?;
    let mut plan = plan::plan(&model, &wiring, &constants, kept, &names);
    let dense = Dense {
        model: &inlined.model,
        wiring: &dense_wiring,
        constants: Constants::of(&inlined.model),
        kept,
        engine,
        batches,
        seed: config.seed,
        memory: config.memory,
    };
    let unfitted = left::unfitted(&inlined.model, kept, &model, &wiring, &plan)?;
    let mut left = std::mem::take(&mut plan.left);
    left.extend(unfitted);
    let mut work = Work { model: &mut model, wiring, constants, left, refitted: 0 };
    match config.method {
        Method::None => {}
        Method::Bias => mean_bias::compensate(&mut work, &dense, &plan.contractions)?,
        Method::BatchNorm => batch_norm::estimate(&mut work, &dense, &plan, config)?,
        Method::LeastSquares => least_squares::refit(&mut work, &dense, &plan.contractions, config)?,
    }
    let Work { constants, left, refitted, .. } = work;
    Ok(Repaired { model, changed: constants.changed, added: constants.added, refitted, left })
}
