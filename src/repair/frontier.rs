//! Frontier: the values of a model on every batch, computed piece by piece while its weights still change.
//!
//! What is computed lies between values that are held and values that are wanted; what later steps need stays held as
//! long as it fits the memory, and is computed again otherwise. Invariants: a held value depends on no weight that
//! changes later; batches are handed over in their order, whatever runs at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use super::wiring::Wiring;
use crate::calibration::{Batch, Batches};
use crate::engine::{Engine, Feeds, InputFact, Session, Value, facts_of};
use crate::proto::build::{declaration, signed};
use crate::proto::onnx::{GraphProto, ModelProto, ValueInfoProto};
use crate::{Error, Result};

/// What one batch was: how many samples count, and how many places at the end of the batch axis do not.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchFacts {
    /// The number of the batch.
    pub(super) index: usize,
    /// Samples that count.
    pub(super) samples: usize,
    /// Places that repeat the last sample.
    pub(super) filler: usize,
}

/// What comes after a step.
#[derive(Clone, Debug, Default)]
pub(super) struct Later {
    /// The values that later steps want.
    pub(super) values: BTreeSet<String>,
    /// A value that the step looks at and then changes.
    pub(super) stale: Option<String>,
}

/// The held values of one model.
pub(super) struct Frontier<'a> {
    engine: &'a dyn Engine,
    batches: &'a dyn Batches,
    /// Bytes that values may take: half of them to be held, the other half while they are computed.
    memory: usize,
    /// True if values are held at all.
    holds: bool,
    held: BTreeMap<String, Vec<Value>>,
}

impl<'a> Frontier<'a> {
    /// Nothing but the graph inputs is known yet.
    pub(super) fn new(engine: &'a dyn Engine, batches: &'a dyn Batches, memory: usize) -> Self {
        Self { engine, batches, memory, holds: true, held: BTreeMap::new() }
    }

    /// As [`Frontier::new`] for a single run over a model, behind which nothing is held.
    pub(super) fn once(engine: &'a dyn Engine, batches: &'a dyn Batches, memory: usize) -> Self {
        Self { holds: false, ..Self::new(engine, batches, memory) }
    }

    /// Gives the `wanted` values of every batch to `sink`, and goes on holding what `later` values need.
    ///
    /// # Errors
    /// A sample that cannot be read, a model that the engine does not run, and those of `sink`.
    pub(super) fn run(
        &mut self,
        model: &ModelProto,
        wiring: &Wiring,
        wanted: &[String],
        later: &Later,
        sink: &mut dyn FnMut(BatchFacts, &[Value]) -> Result<()>,
    ) -> Result<()> {
        let inputs = input_names(model);
        let held: BTreeSet<String> = self.held.keys().cloned().collect();
        let (nodes, border) =
            wiring.needed(wanted.iter().map(String::as_str), &|name| held.contains(name) || inputs.contains(name));
        let made: BTreeSet<&str> =
            nodes.iter().filter_map(|n| wiring.makes.get(*n)).flatten().map(String::as_str).collect();
        let known = |name: &str| {
            later.stale.as_deref() != Some(name)
                && (held.contains(name) || inputs.contains(name) || made.contains(name))
        };
        let (_, mut kept) = wiring.needed(later.values.iter().map(String::as_str), &known);
        kept.retain(|name| !inputs.contains(*name));
        // What this step makes and later ones need.
        let fresh: Vec<String> =
            kept.iter().filter(|name| made.contains(*name)).map(|name| (*name).to_owned()).collect();
        let piece = Piece { model, nodes: &nodes, border: border.iter().map(|name| (*name).to_owned()).collect() };
        let result = self.pieces(&piece, wanted, &fresh, sink);
        self.held.retain(|name, _| kept.contains(name.as_str()));
        result
    }

    fn pieces(
        &mut self,
        piece: &Piece<'_>,
        wanted: &[String],
        fresh: &[String],
        sink: &mut dyn FnMut(BatchFacts, &[Value]) -> Result<()>,
    ) -> Result<()> {
        let mut names: Vec<String> = wanted.to_vec();
        names.extend(fresh.iter().filter(|name| !wanted.contains(name)).cloned());
        let place_of = |name: &String| names.iter().position(|n| n == name);
        let mut fresh: Vec<(String, Vec<Value>)> = fresh.iter().map(|name| (name.clone(), Vec::new())).collect();
        let sessions = Sessions { engine: self.engine, piece, wanted: &names, open: Mutex::new(Vec::new()) };
        // The first batch tells what one takes.
        let mut at_once = 1;
        let mut start = 0;
        let count = self.batches.len();
        while start < count {
            let held = &self.held;
            let batches = self.batches;
            let results: Vec<Result<(BatchFacts, Vec<Value>)>> = (start..count.min(start + at_once))
                .into_par_iter()
                .map(|index| {
                    let batch = batches.batch(index)?;
                    let facts = BatchFacts { index, samples: batch.samples.len(), filler: batch.filler };
                    let values = sessions.run(&feeds(held, &piece.border, batch, index)?)?;
                    Ok((facts, values))
                })
                .collect();
            let mut largest = 1;
            for result in results {
                let (facts, values) = result?;
                largest = largest.max(values.iter().map(bytes).fold(0, usize::saturating_add));
                sink(facts, values.get(..wanted.len()).unwrap_or_default())?;
                for (name, list) in &mut fresh {
                    list.extend(place_of(name).and_then(|place| values.get(place)).cloned());
                }
            }
            if start == 0 {
                self.drop_what_does_not_fit(&mut fresh, count);
            }
            start += at_once;
            at_once = (self.memory / 2 / largest).clamp(1, rayon::current_num_threads().max(1));
        }
        self.held.extend(fresh);
        Ok(())
    }

    /// Forgets the largest values until what all batches will take fits.
    fn drop_what_does_not_fit(&self, fresh: &mut Vec<(String, Vec<Value>)>, count: usize) {
        let held: usize = self.held.values().flatten().map(bytes).fold(0, usize::saturating_add);
        let expected = |list: &[Value]| {
            let seen = list.iter().map(bytes).fold(0, usize::saturating_add);
            seen.saturating_mul(count).checked_div(list.len()).unwrap_or(0)
        };
        fresh.sort_by_key(|(_, list)| expected(list));
        let mut total = held;
        fresh.retain(|(_, list)| {
            total = total.saturating_add(expected(list));
            self.holds && total <= self.memory / 2
        });
    }
}

/// A part of a model.
struct Piece<'m> {
    model: &'m ModelProto,
    nodes: &'m [usize],
    border: Vec<String>,
}

/// How many shapes of inputs sessions are kept for, each with the weights: samples may all be of different lengths.
const SESSIONS: usize = 2;

/// A session and the inputs that it takes.
type Opened = (Vec<InputFact>, Arc<dyn Session>);

/// Sessions for the shapes that were seen last.
struct Sessions<'a> {
    engine: &'a dyn Engine,
    piece: &'a Piece<'a>,
    wanted: &'a [String],
    open: Mutex<Vec<Opened>>,
}

impl Sessions<'_> {
    fn run(&self, feeds: &Feeds) -> Result<Vec<Value>> {
        // Wanted values that are given need no engine, and none takes a model that hands an input through.
        let given = |name: &String| feeds.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        let missing: Vec<String> = self.wanted.iter().filter(|name| given(name).is_none()).cloned().collect();
        let mut computed =
            if missing.is_empty() { Vec::new() } else { self.session(&facts_of(feeds), &missing)?.run(feeds)? }
                .into_iter();
        let values: Option<Vec<Value>> =
            self.wanted.iter().map(|name| given(name).or_else(|| computed.next())).collect();
        values.ok_or_else(|| Error::engine("the engine returned fewer values than it was asked for"))
    }

    fn session(&self, facts: &[InputFact], wanted: &[String]) -> Result<Arc<dyn Session>> {
        let poisoned = |_| Error::engine("another run of the model has failed");
        let mut open = self.open.lock().map_err(poisoned)?;
        if let Some(at) = open.iter().position(|(known, _)| known == facts) {
            let known = open.remove(at);
            let session = known.1.clone();
            open.push(known);
            return Ok(session);
        }
        if open.len() >= SESSIONS {
            open.remove(0);
        }
        let model = extract(self.piece.model, self.piece.nodes, facts, wanted);
        let session: Arc<dyn Session> = self.engine.open(&model, facts, wanted)?.into();
        open.push((facts.to_vec(), session.clone()));
        Ok(session)
    }
}

/// The values at the border for one batch: held ones, and inputs of the model.
fn feeds(held: &BTreeMap<String, Vec<Value>>, border: &[String], batch: Batch, index: usize) -> Result<Feeds> {
    border
        .iter()
        .map(|name| {
            let value = match held.get(name) {
                Some(list) => list.get(index).cloned(),
                None => batch.feeds.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()),
            };
            let value = value.ok_or_else(|| Error::input("the calibration data has no such input").tensor(name))?;
            Ok((name.clone(), value))
        })
        .collect()
}

/// The names that must be fed, or may be: inputs that are initializers, too, are constants here.
pub(super) fn input_names(model: &ModelProto) -> BTreeSet<String> {
    let Some(graph) = &model.graph else { return BTreeSet::new() };
    let constants: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name()).collect();
    graph.input.iter().map(|i| i.name()).filter(|name| !constants.contains(name)).map(str::to_owned).collect()
}

/// The model that consists of these nodes and has these inputs and outputs.
fn extract(model: &ModelProto, nodes: &[usize], inputs: &[InputFact], wanted: &[String]) -> ModelProto {
    let mut piece = ModelProto {
        ir_version: model.ir_version,
        opset_import: model.opset_import.clone(),
        functions: model.functions.clone(),
        ..ModelProto::default()
    };
    let Some(graph) = &model.graph else { return piece };
    let node: Vec<_> = nodes.iter().filter_map(|position| graph.node.get(*position)).cloned().collect();
    let read: BTreeSet<String> = node.iter().flat_map(super::wiring::reads).collect();
    let initializer = graph.initializer.iter().filter(|t| read.contains(t.name())).cloned().collect();
    piece.graph = Some(GraphProto {
        name: graph.name.clone(),
        node,
        initializer,
        sparse_initializer: graph.sparse_initializer.clone(),
        input: inputs.iter().map(|f| declaration(&f.name, f.element as i32, &signed(&f.shape))).collect(),
        output: wanted.iter().map(|name| ValueInfoProto { name: Some(name.clone()), ..Default::default() }).collect(),
        ..GraphProto::default()
    });
    // Before version 4, initializers had to be inputs as well.
    piece.ir_version = Some(piece.ir_version().max(4));
    piece
}

/// How many bytes a value takes.
pub(super) fn bytes(value: &Value) -> usize {
    let bits = crate::proto::tensor::element_bits(value.element() as i32).unwrap_or(64);
    value.len().saturating_mul(bits / 8)
}
