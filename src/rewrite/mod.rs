//! Rewriting: plan + graph -> smaller model. One generic rewriter for all operators.
//!
//! Every constant is sliced along its shortened axes, once, when the file is written; rules say which attributes and
//! shape constants must follow (`Rule::patch`). Invariants: an empty plan changes nothing at all; nodes, values, inputs
//! and outputs keep their names and order; new nodes are only those that override entries of a shape computed at run
//! time or rescale a mean; nothing that the program does not understand is changed.

mod after;
mod cleanup;
mod constants;
mod edits;
mod names;
mod patch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::Result;
use crate::axes::{Expr, Extent};
use crate::coupling::{Coupling, StoredZero};
use crate::graph::{Graph, MAIN, Passage, Source, ValueId};
use crate::kept::{Indices, Kept, KeptAxes, Zero};
use crate::proto::{Output, Pages};

/// A rewritten model and what was done to it.
pub struct Rewritten {
    /// The smaller model; big constants are still to be sliced, which happens while writing.
    pub output: Output,
    /// What remains of every tensor that got smaller.
    pub kept: Kept,
    /// Constants whose values were changed on purpose: shapes, split sizes, indices, and vectors of which several
    /// readers keep different parts.
    pub altered: BTreeSet<String>,
    /// The nodes, by the names of their first outputs, that take statistics over axes which got shorter, so that these
    /// are statistics of what remains; empty unless approximations were allowed.
    pub approximated: BTreeSet<String>,
    /// Multiply-accumulates of every node after pruning, where known.
    pub macs: Vec<Option<Extent>>,
}

/// Makes the model smaller: `masks` says which channels of which atoms stay. Where none do, nodes that cannot compute
/// anything any more are left behind; only `extract` asks for that, and removes them.
///
/// # Errors
/// A node that cannot be spelled any more, a constant that cannot be sliced.
pub fn rewrite(graph: &Graph, coupling: &Coupling, masks: &BTreeMap<Expr, Vec<bool>>) -> Result<Rewritten> {
    let shrunk = Shrunk::of(graph, coupling, masks);
    let after = patch::run(graph, coupling, &shrunk)?;
    let mut model = graph.model.clone();
    let mut altered = BTreeSet::new();
    let mut slices = BTreeMap::new();
    if !shrunk.is_empty() {
        let mut names = names::Names::of(graph.model);
        let readings = constants::slice(graph, &shrunk, &mut model, &mut slices, &mut names)?;
        // Before any node is inserted: bodies are found by the position of the node that holds them.
        cleanup::declarations(graph, &shrunk, &readings, &mut model);
        edits::apply(graph, &after, &readings, &mut model, &mut names, &mut altered)?;
        cleanup::dead_constants(&mut model, &mut slices);
    }
    let (kept, divided) = shrunk.kept(graph, coupling);
    altered.extend(divided);
    let statistics = coupling.approximate.iter().filter(|(_, axis, _)| coupling.space.mask(*axis, masks).is_some());
    let outputs = statistics.filter_map(|(id, ..)| graph.node(*id).outputs.iter().flatten().next());
    let approximated = outputs.map(|output| graph.value(*output).name.to_owned()).collect();
    Ok(Rewritten {
        output: Output { model, slices, pages: Pages::default() },
        kept,
        altered,
        approximated,
        macs: after.macs,
    })
}

/// Which axes of which values got shorter.
struct Shrunk {
    /// Kept indices by value and axis; absent values and `None` axes stay whole.
    by_value: HashMap<ValueId, KeptAxes>,
}

impl Shrunk {
    fn of(graph: &Graph, coupling: &Coupling, masks: &BTreeMap<Expr, Vec<bool>>) -> Self {
        let mut cache: HashMap<Expr, Option<Indices>> = HashMap::new();
        let mut by_value = HashMap::new();
        for id in graph.value_ids() {
            let Some(axes) = &coupling.axes[id.0 as usize] else { continue };
            let kept: KeptAxes = axes
                .iter()
                .map(|axis| {
                    let axis = coupling.space.resolve(*axis);
                    cache.entry(axis).or_insert_with(|| indices(coupling.space.mask(axis, masks)?)).clone()
                })
                .collect();
            if kept.iter().any(Option::is_some) {
                by_value.insert(id, kept);
            }
        }
        Self { by_value }
    }

    fn is_empty(&self) -> bool {
        self.by_value.is_empty()
    }

    /// The kept axes of a value, if it got smaller.
    fn get(&self, value: ValueId) -> Option<&KeptAxes> {
        self.by_value.get(&value)
    }

    /// True if no channel of the value stays.
    fn is_gone(&self, value: ValueId) -> bool {
        self.get(value).is_some_and(|axes| axes.iter().flatten().any(|kept| kept.is_empty()))
    }

    /// The extents of a value after pruning.
    fn shape(&self, coupling: &Coupling, value: ValueId) -> Option<Vec<Extent>> {
        let mut shape = coupling.shape(value)?;
        if let Some(kept) = self.get(value) {
            for (extent, kept) in shape.iter_mut().zip(kept) {
                if let Some(kept) = kept {
                    *extent = Extent::from(kept.len());
                }
            }
        }
        Some(shape)
    }

    /// The facts for verification, by name, and the constants that are divided: those whose readings keep different
    /// parts. They are no part of the facts, because no one set of indices describes them; what their readers make of
    /// the parts is masked anyway.
    fn kept(&self, graph: &Graph, coupling: &Coupling) -> (Kept, BTreeSet<String>) {
        let mut kept = Kept::default();
        let mut disagreeing: BTreeSet<String> = BTreeSet::new();
        for id in graph.value_ids() {
            let value = graph.value(id);
            let axes = self.get(id);
            if value.constant().is_none() {
                // What a body takes is no output of a node, and as short as what it is given.
                let is_given =
                    matches!(value.source, Source::Node(node, _) if graph.node(node).passage == Passage::Entry);
                if let Some(axes) = axes.filter(|_| !is_given) {
                    let key = graph.key(id);
                    if value.scope != MAIN {
                        let before = coupling.shape(id).unwrap_or_default();
                        let extent = |(axis, extent): (&Option<Indices>, &Extent)| {
                            axis.as_ref().and_then(|_| u32::try_from(extent.size()?).ok())
                        };
                        kept.extents.insert(key.clone(), axes.iter().zip(&before).map(extent).collect());
                    }
                    let zero = match coupling.zeros[id.0 as usize] {
                        None | Some(StoredZero::Known(0)) => None,
                        Some(StoredZero::Known(number)) => Some(Zero::Number(number)),
                        Some(StoredZero::Computed(id)) => Some(Zero::Activation(graph.value(id).name.to_owned())),
                    };
                    kept.zeros.extend(zero.map(|zero| (key.clone(), zero)));
                    kept.activations.insert(key, axes.clone());
                }
            } else if value.is_output || !value.readers.is_empty() {
                // A reading that needs the whole constant counts as an empty list here.
                let axes = axes.cloned().unwrap_or_default();
                let key = graph.key(id);
                match kept.constants.get(&key) {
                    Some(other) if *other != axes => {
                        disagreeing.insert(key);
                    }
                    _ => {
                        kept.constants.insert(key, axes);
                    }
                }
            }
        }
        kept.constants.retain(|name, axes| !axes.is_empty() && !disagreeing.contains(name));
        (kept, disagreeing)
    }
}

fn indices(mask: Vec<bool>) -> Option<Indices> {
    let kept: Vec<u32> = (0u32..).zip(&mask).filter(|(_, keep)| **keep).map(|(i, _)| i).collect();
    (kept.len() < mask.len()).then(|| Arc::from(kept))
}
