//! One pass in topological order: evaluates shape arithmetic anew and asks every rule for its edits.
//!
//! Invariant: shape arithmetic whose value changes may only end in a shape operand, which the rule keeps right. Where
//! it flows into data (a scale computed from a channel count, say), the reader gets the old value, because the masked
//! original computes with it, too.

use std::collections::BTreeMap;

use super::Shrunk;
use super::after::{After, constant_integers};
use crate::axes::{Extent, Symbols};
use crate::coupling::Coupling;
use crate::graph::{Graph, Node, NodeId, ValueId};
use crate::kept::Indices;
use crate::ops::{Change, Edit, Integers};
use crate::{Error, Result};

pub(super) fn run(graph: &Graph, coupling: &Coupling, shrunk: &Shrunk) -> Result<After> {
    let mut after = After {
        edits: vec![Vec::new(); graph.nodes.len()],
        integers: vec![None; graph.values.len()],
        lengths: coupling.integers.iter().map(|i| i.as_ref().map(|i| i.values.len())).collect(),
        macs: coupling.macs.clone(),
    };
    if shrunk.is_empty() {
        return Ok(after);
    }
    for id in graph.value_ids().filter(|id| graph.value(*id).constant().is_some()) {
        let before = coupling.integers[id.0 as usize].as_ref();
        after.integers[id.0 as usize] = before.and_then(|b| constant_integers(b, shrunk, id));
    }
    for id in &graph.order {
        node(graph, coupling, shrunk, *id, &mut after)?;
    }
    Ok(after)
}

fn node(graph: &Graph, coupling: &Coupling, shrunk: &Shrunk, id: NodeId, after: &mut After) -> Result<()> {
    let node = graph.node(id);
    let index = id.0 as usize;
    let touched = node.inputs.iter().chain(&node.outputs).flatten().any(|v| shrunk.get(*v).is_some());
    let changed = |slot: usize, after: &After| -> bool {
        node.inputs.get(slot).copied().flatten().is_some_and(|v| {
            // A constant that is sliced changes with its reader; that is no arithmetic.
            shrunk.get(v).is_none()
                && coupling.integers[v.0 as usize].is_some()
                && coupling.integers[v.0 as usize] != after.integers[v.0 as usize]
        })
    };
    let changed: Vec<usize> = (0..node.own_count).filter(|slot| changed(*slot, after)).collect();
    let row =
        if coupling.opaque[index].is_some() { None } else { (coupling.options.rules)(node.domain(), node.op_type()) };
    // Arithmetic that can be followed to the last entry; an entry that is lost on the way is data.
    let mut results = node.outputs.iter().flatten().map(|v| coupling.integers[v.0 as usize].as_ref()).peekable();
    let computes_shapes =
        results.peek().is_some() && results.all(|r| r.is_some_and(|r| r.values.iter().all(Option::is_some)));
    let mut edits = Vec::new();
    if !touched && changed.is_empty() {
        for output in node.outputs.iter().flatten() {
            after.integers[output.0 as usize] = coupling.integers[output.0 as usize].clone();
        }
        return Ok(());
    }
    // Of a node all of whose outputs are empty nothing is left, so there is nothing to spell.
    if node.outputs.iter().flatten().next().is_some() && node.outputs.iter().flatten().all(|v| shrunk.is_gone(*v)) {
        after.macs[index] = Some(Extent::known(0));
        return Ok(());
    }
    let shape_inputs = row.map_or(&[][..], |row| row.shape_inputs);
    for slot in changed.iter().filter(|slot| !computes_shapes && !shape_inputs.contains(slot)) {
        let Some(value) = node.inputs.get(*slot).copied().flatten() else { continue };
        let before = coupling.integers[value.0 as usize].as_ref();
        let now = after.integers[value.0 as usize].as_ref();
        let stays_dynamic = is_pinned(graph, coupling, value);
        edits.extend(before.and_then(|before| match now.filter(|_| stays_dynamic) {
            Some(now) => ratios(*slot, now, before),
            None => freeze(*slot, before, now, &coupling.symbols.borrow()),
        }));
    }
    let is_frozen = !edits.is_empty();
    if let Some(row) = row {
        let view = after.view(graph, coupling, shrunk, id);
        let outputs = |get: &dyn Fn(ValueId) -> Option<Vec<Extent>>| -> Vec<Option<Vec<Extent>>> {
            node.outputs.iter().map(|o| o.and_then(get)).collect()
        };
        let outputs_before = outputs(&|v| coupling.shape(v));
        let outputs_after = outputs(&|v| shrunk.shape(coupling, v));
        let (input_kept, output_kept) = (by_slot(&node.inputs, shrunk), by_slot(&node.outputs, shrunk));
        let change = Change {
            after: &view,
            outputs_before: &outputs_before,
            outputs_after: &outputs_after,
            input_kept: &input_kept,
            output_kept: &output_kept,
        };
        let before = coupling.view(graph, id);
        let patched = row.rule.patch(&before, &change).map_err(|refusal| {
            Error::input(format!("the pruned call cannot be spelled: {}", refusal.0))
                .node(node.label())
                .help("protect its tensors with --protect, and please report the model")
        })?;
        edits.extend(patched.into_iter().map(|edit| dynamic(graph, coupling, after, node, edit)));
        after.macs[index] = row.rule.macs(&view, &outputs_after);
        let evaluated = if is_frozen { None } else { row.rule.evaluate(&view) }.unwrap_or_default();
        for (slot, output) in node.outputs.iter().enumerate() {
            let Some(value) = output else { continue };
            // From frozen operands comes what came before.
            let before = || coupling.integers[value.0 as usize].clone();
            after.integers[value.0 as usize] =
                if is_frozen { before() } else { evaluated.get(slot).cloned().flatten() };
        }
    }
    after.edits[index] = edits;
    Ok(())
}

/// True for a value computed when the model runs while shapes are pinned: its entries may hold for these shapes alone.
fn is_pinned(graph: &Graph, coupling: &Coupling, value: ValueId) -> bool {
    !coupling.options.pins.is_empty() && graph.value(value).constant().is_none()
}

/// Turns an edit that would write pinned extents into the file into one that scales what the model computes.
fn dynamic(graph: &Graph, coupling: &Coupling, after: &After, node: &Node, edit: Edit) -> Edit {
    let (slot, new): (usize, Vec<(usize, i64)>) = match &edit {
        Edit::Constant(slot, values) => (*slot, values.iter().copied().enumerate().collect()),
        Edit::Scalar(slot, value) => (*slot, vec![(0, *value)]),
        Edit::Entries(slot, entries) => (*slot, entries.clone()),
        _ => return edit,
    };
    let Some(value) = node.inputs.get(slot).copied().flatten().filter(|v| is_pinned(graph, coupling, *v)) else {
        return edit;
    };
    // What the operand holds when the pruned model runs, and what it shall hold.
    let Some(now) = after.integers[value.0 as usize].as_ref() else { return edit };
    let mut wanted = now.clone();
    for (index, value) in new {
        match wanted.values.get_mut(index) {
            Some(entry) => *entry = Some(Extent::known(value)),
            None => return edit,
        }
    }
    ratios(slot, now, &wanted).unwrap_or(edit)
}

/// The edit that makes `wanted` of `now` by scaling the entries that differ; none where an entry cannot be scaled.
fn ratios(slot: usize, now: &Integers, wanted: &Integers) -> Option<Edit> {
    let mut ratios = Vec::new();
    for (index, (now, wanted)) in now.values.iter().zip(&wanted.values).enumerate() {
        if now == wanted {
            continue;
        }
        let (from, to) = (now.as_ref()?.value()?, wanted.as_ref()?.value()?);
        if from <= 0 || to <= 0 {
            return None;
        }
        // In lowest terms, so that the same cut is spelled alike whatever was pinned.
        let common = greatest_common_divisor(to, from);
        ratios.push((index, to / common, from / common));
    }
    Some(Edit::Ratios(slot, now.dims.clone(), ratios)).filter(|_| now.dims == wanted.dims)
}

/// Of two positive numbers.
fn greatest_common_divisor(mut a: i64, mut b: i64) -> i64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

/// The edit that gives a reader the old value of an input whose entries changed.
fn freeze(slot: usize, before: &Integers, after: Option<&Integers>, symbols: &Symbols) -> Option<Edit> {
    let floats: Option<Vec<f32>> = before.values.iter().map(|v| symbols.as_float(v.as_ref()?)).collect();
    if let Some(floats) = floats.filter(|floats| !floats.is_empty()) {
        let dims = before.dims.iter().map(|d| i64::try_from(*d).ok()).collect::<Option<_>>()?;
        return Some(Edit::Floats(slot, dims, floats));
    }
    if let Some(all) = before.known() {
        return Some(if before.dims.is_empty() {
            Edit::Scalar(slot, *all.first()?)
        } else {
            Edit::Constant(slot, all)
        });
    }
    let differs = |i: &usize| before.values.get(*i) != after.and_then(|a| a.values.get(*i));
    let entries: Vec<(usize, i64)> = (0..before.values.len())
        .filter(differs)
        .filter_map(|i| Some((i, before.values.get(i)?.as_ref()?.value()?)))
        .collect();
    (!entries.is_empty()).then_some(Edit::Entries(slot, entries))
}

fn by_slot(values: &[Option<ValueId>], shrunk: &Shrunk) -> BTreeMap<(usize, usize), Indices> {
    let mut kept = BTreeMap::new();
    for (slot, value) in values.iter().enumerate() {
        let axes = value.and_then(|v| shrunk.get(v)).into_iter().flatten();
        for (axis, indices) in axes.enumerate() {
            if let Some(indices) = indices {
                kept.insert((slot, axis), indices.clone());
            }
        }
    }
    kept
}
