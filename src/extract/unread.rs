//! Unread channels: atoms that no node contracts and that nothing locks.
//!
//! A channel has an effect where it is contracted, or where something locks it: a graph output, a statistic, an operator
//! without a rule. Where a slice or a split cuts it away, it has none. In a graph whose nodes all feed an output, an atom
//! without effect is one that is cut away on every path.
//!
//! Invariant: where a tensor would be left without a channel and a node that stays cannot be spelled without it, one
//! channel stays.

use std::collections::{BTreeMap, BTreeSet};

use crate::Result;
use crate::axes::Expr;
use crate::coupling::Coupling;
use crate::graph::{Graph, ValueId};
use crate::ops::{Signature, Term};
use crate::proto::onnx::ModelProto;
use crate::rewrite::{Rewritten, rewrite};

/// A model without channels that nobody read.
pub(super) struct Narrowed {
    /// The model.
    pub(super) rewritten: Rewritten,
    /// How many channels went.
    pub(super) channels: usize,
}

/// The model without the channels that nobody reads; `None` where there are none.
pub(super) fn narrowed(model: &ModelProto) -> Result<Option<Narrowed>> {
    let graph = Graph::new(model)?;
    let coupling = Coupling::of(&graph);
    let masks = masks(&graph, &coupling, unread(&graph, &coupling));
    let channels = masks.values().map(|mask| mask.iter().filter(|keep| !**keep).count()).sum();
    if channels == 0 {
        return Ok(None);
    }
    Ok(Some(Narrowed { rewritten: rewrite(&graph, &coupling, &masks)?, channels }))
}

/// The atoms along which something is computed and nothing has an effect.
fn unread(graph: &Graph, coupling: &Coupling) -> BTreeSet<Expr> {
    let space = &coupling.space;
    let computed = graph.value_ids().filter(|id| graph.value(*id).constant().is_none());
    let axes = computed.flat_map(|id| coupling.axes[id.0 as usize].iter().flatten());
    let mut atoms: BTreeSet<Expr> = axes.flat_map(|axis| space.atoms(*axis)).collect();
    atoms.retain(|atom| space.lock_of(*atom).is_none() && space.extent(*atom).size().is_some());
    for id in &graph.order {
        // The axes of nodes without a signature are locked.
        let Ok(signature) = coupling.signature(graph, *id) else { continue };
        let node = graph.node(*id);
        let effective = effective(&signature);
        for (value, effective) in node.inputs.iter().zip(&effective) {
            let axes = value.and_then(|value| coupling.axes.get(value.0 as usize)?.as_ref());
            for (axis, _) in axes.into_iter().flatten().zip(effective).filter(|(_, effective)| **effective) {
                space.atoms(*axis).iter().for_each(|atom| _ = atoms.remove(atom));
            }
        }
    }
    atoms
}

/// By input and axis: whether a letter of it has an effect that is no channel of an output.
fn effective(signature: &Signature) -> Vec<Vec<bool>> {
    let count = |terms: &mut dyn Iterator<Item = &Term>| {
        let mut counts = vec![0usize; signature.letters.len()];
        terms.for_each(|term| mention(term, &mut counts));
        counts
    };
    let passed = count(&mut signature.outputs.iter().flatten().flatten());
    let given = count(&mut signature.inputs.iter().flatten().flatten());
    let is_lost = |letter: &usize| passed.get(*letter) == Some(&0);
    // Cut away: a part of one axis of one input, met nowhere else.
    let is_cut = |letter: &usize| given.get(*letter) == Some(&1);
    let of_axis = |term: &Term| match term {
        Term::Sum(parts) => parts.iter().any(|part| match part {
            Term::Letter(letter) => is_lost(letter) && !is_cut(letter),
            other => letters(other).iter().any(is_lost),
        }),
        other => letters(other).iter().any(is_lost),
    };
    let of_input = |terms: &Option<Vec<Term>>| terms.iter().flatten().map(of_axis).collect();
    signature.inputs.iter().map(of_input).collect()
}

fn mention(term: &Term, counts: &mut [usize]) {
    letters(term).into_iter().for_each(|letter| {
        if let Some(count) = counts.get_mut(letter) {
            *count += 1;
        }
    });
}

/// The letters that a term mentions, as often as it does.
fn letters(term: &Term) -> Vec<usize> {
    match term {
        Term::One => Vec::new(),
        Term::Letter(letter) => vec![*letter],
        Term::Sum(parts) | Term::Product(parts) => parts.iter().flat_map(letters).collect(),
    }
}

/// What goes of the unread atoms: all channels, or all but one.
fn masks(graph: &Graph, coupling: &Coupling, unread: BTreeSet<Expr>) -> BTreeMap<Expr, Vec<bool>> {
    let none = |atom: &Expr| Some((*atom, vec![false; coupling.space.extent(*atom).size()?]));
    let mut masks: BTreeMap<Expr, Vec<bool>> = unread.iter().filter_map(none).collect();
    loop {
        let gone = Gone { coupling, masks: &masks };
        let mut needed: BTreeSet<Expr> = BTreeSet::new();
        for node in &graph.nodes {
            if node.outputs.iter().flatten().all(|value| gone.value(*value)) {
                continue;
            }
            let row = (coupling.options.rules)(node.domain(), node.op_type());
            if row.is_some_and(|row| row.rule.leaves_out()) {
                continue;
            }
            let values = node.inputs.iter().chain(&node.outputs).flatten();
            needed.extend(values.flat_map(|value| gone.atoms(*value)));
        }
        let mut changed = false;
        for atom in needed {
            if let Some(first) = masks.get_mut(&atom).and_then(|mask| mask.first_mut()) {
                changed |= !std::mem::replace(first, true);
            }
        }
        if !changed {
            return masks;
        }
    }
}

/// Which values masks leave nothing of.
struct Gone<'a> {
    coupling: &'a Coupling,
    masks: &'a BTreeMap<Expr, Vec<bool>>,
}

impl Gone<'_> {
    fn value(&self, value: ValueId) -> bool {
        self.axes(value).any(|axis| self.axis(axis))
    }

    /// The atoms along the axes of a value of which nothing is left.
    fn atoms(&self, value: ValueId) -> Vec<Expr> {
        let axes = self.axes(value).filter(|axis| self.axis(*axis));
        axes.flat_map(|axis| self.coupling.space.atoms(axis)).collect()
    }

    fn axes(&self, value: ValueId) -> impl Iterator<Item = Expr> + '_ {
        self.coupling.axes.get(value.0 as usize).and_then(Option::as_ref).into_iter().flatten().copied()
    }

    fn axis(&self, axis: Expr) -> bool {
        let space = &self.coupling.space;
        // Most axes are met here without a mask; building one costs more than asking for its atoms.
        space.atoms(axis).iter().any(|atom| self.masks.contains_key(atom))
            && space.mask(axis, self.masks).is_some_and(|mask| mask.iter().all(|keep| !*keep))
    }
}
