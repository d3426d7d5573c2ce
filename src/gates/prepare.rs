//! Preparing: the backward model for the shape of a batch, and sessions for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::backward::{OfTask, backward};
use super::forward::{Forward, Wanted, forward};
use crate::engine::inputs::declared_inputs;
use crate::engine::{Engine, Feeds, InputFact, Session, Value, facts_of, value::from_vec};
use crate::proto::onnx::ModelProto;
use crate::{Error, Result};

/// Inputs of one run.
#[derive(Clone)]
pub(super) struct Unit {
    /// Those of the model.
    pub(super) feeds: Feeds,
    /// By place of the batch: the number of the sample in the source.
    pub(super) samples: Vec<usize>,
    /// By place: whether it counts.
    pub(super) counts: Vec<bool>,
}

impl Unit {
    /// The same places in another order, or only some of them.
    pub(super) fn select(&self, places: &[usize]) -> Result<Self> {
        let value = |value: &Value| match value.shape().first() {
            Some(extent) if *extent == self.samples.len() => value.select(0, places),
            _ => Ok(value.clone()),
        };
        let at = |place: &usize| Some((*self.samples.get(*place)?, *self.counts.get(*place)?));
        let (samples, counts) = places.iter().filter_map(at).unzip();
        let feeds = self.feeds.iter().map(|(name, own)| Ok((name.clone(), value(own)?))).collect::<Result<_>>()?;
        Ok(Self { feeds, samples, counts })
    }

    /// What tells units apart that need models of their own: types and shapes without the batch.
    pub(super) fn key(&self) -> Vec<InputFact> {
        let mut facts = facts_of(&self.feeds);
        for first in facts.iter_mut().filter_map(|fact| fact.shape.first_mut()) {
            if *first == self.samples.len() {
                *first = 0;
            }
        }
        facts
    }
}

/// True if the model takes batches of any size.
pub(super) fn is_open(model: &ModelProto) -> Result<bool> {
    let declared = declared_inputs(model)?;
    let is_fixed =
        |shape: &Vec<_>| shape.first().is_some_and(|d: &crate::engine::inputs::Dimension| d.extent().is_some());
    Ok(!declared.iter().any(|input| input.shape.as_ref().is_some_and(is_fixed)))
}

/// A model that gives the gradients of all tasks.
pub(super) struct Prepared {
    pub(super) key: Vec<InputFact>,
    /// True if it is for units of one sample.
    pub(super) alone: bool,
    pub(super) forward: Forward,
    pub(super) tasks: Vec<Option<OfTask>>,
    model: ModelProto,
    /// What a run returns.
    wanted: Vec<String>,
    /// Their places by name.
    places: Arc<BTreeMap<String, usize>>,
    sessions: Vec<(Vec<InputFact>, Box<dyn Session>)>,
}

/// How many shapes of inputs sessions are kept for.
const SESSIONS: usize = 2;

impl Prepared {
    /// For units like this one.
    ///
    /// # Errors
    /// Losses that fit no output, a model that the engine does not run or that cannot be differentiated.
    pub(super) fn new(
        wanted: &Wanted,
        weights: &[String],
        activations: bool,
        engine: &dyn Engine,
        unit: &Unit,
        alone: bool,
    ) -> Result<Self> {
        // Two samples show best what is an axis of samples; more would only take memory.
        let mut attempts = Vec::new();
        if is_open(wanted.graph.model)? {
            attempts.push(unit.select(&[0, usize::from(unit.samples.len() > 1)])?);
        }
        attempts.push(unit.clone());
        let mut failure = None;
        for attempt in attempts {
            match forward(wanted, engine, &attempt.feeds, &attempt.samples, alone) {
                Ok(forward) => {
                    let (model, tasks) = backward(&forward, weights, activations)?;
                    let wanted: Vec<String> = tasks.iter().flatten().flat_map(OfTask::values).collect();
                    let places = wanted.iter().cloned().zip(0..).collect();
                    let places = Arc::new(places);
                    let key = unit.key();
                    return Ok(Self { key, alone, forward, tasks, model, wanted, places, sessions: Vec::new() });
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::engine("the model was not run")))
    }

    /// Runs a unit; the values of [`OfTask::values`], task after task.
    ///
    /// # Errors
    /// A model that does not run, labels that are missing or out of range.
    pub(super) fn run(&mut self, engine: &dyn Engine, unit: &Unit, seed: u64, draw: usize) -> Result<Results> {
        let places = unit.samples.len();
        let mut feeds = unit.feeds.clone();
        for gate in self.forward.gates.iter().flatten() {
            feeds.push((gate.input.clone(), gate.open(places)?));
        }
        for feed in &self.forward.feeds {
            feeds.push((feed.name.clone(), feed.value(&unit.samples, seed, draw)?));
        }
        let counts: Vec<f32> = unit.counts.iter().map(|counts| f32::from(u8::from(*counts))).collect();
        for task in self.tasks.iter().flatten() {
            feeds.push((task.cotangent.clone(), from_vec(&[places], counts.clone())?.into()));
        }
        let facts = facts_of(&feeds);
        let session = match self.sessions.iter().position(|(known, _)| *known == facts) {
            Some(at) => self.sessions.remove(at).1,
            None => engine.open(&self.model, &facts, &self.wanted)?,
        };
        let values = session.run(&feeds)?;
        if self.sessions.len() >= SESSIONS {
            self.sessions.remove(0);
        }
        self.sessions.push((facts, session));
        Ok(Results { places: Arc::clone(&self.places), values })
    }
}

impl OfTask {
    /// All values that a run must return.
    fn values(&self) -> Vec<String> {
        use super::backward::Gradient::In;
        let known = self.gates.iter().chain(&self.weights).filter_map(|gradient| match gradient {
            In(name) => Some(name),
            _ => None,
        });
        let activations = self.activations.iter().flatten();
        std::iter::once(&self.loss).chain(known).chain(activations).cloned().collect()
    }
}

/// What a run returned.
pub(super) struct Results {
    places: Arc<BTreeMap<String, usize>>,
    values: Vec<Value>,
}

impl Results {
    /// A value as numbers.
    ///
    /// # Errors
    /// When it was not returned, or is not finite.
    pub(super) fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        let value = self.places.get(name).and_then(|place| self.values.get(*place));
        let value = value.ok_or_else(|| Error::engine("the engine returned too little").tensor(name))?;
        let numbers = value.to_f64();
        if numbers.iter().any(|n| !n.is_finite()) {
            return Err(Error::engine("a gradient is not finite")
                .tensor(name)
                .help("look for logarithms or divisions of 0 in the model, or choose another --criterion or --loss"));
        }
        Ok(numbers)
    }
}
