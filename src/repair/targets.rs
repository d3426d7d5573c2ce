//! Targets: what the dense model has in sampled positions where the pruned one is fitted.
//!
//! Invariants: positions depend on seed, contraction and batch alone; only kept channels are read.

use std::borrow::Cow;
use std::collections::BTreeSet;

use faer::MatRef;
use rayon::prelude::*;

use super::constants::Constants;
use super::frontier::{BatchFacts, Frontier, Later};
use super::plan::Contraction;
use super::rows::{Channels, Gather, Numbers, Positions, output_axis};
use super::wiring::Wiring;
use crate::calibration::Batches;
use crate::engine::{Engine, Value};
use crate::kept::{Indices, Kept, KeptAxes};
use crate::ops::linear::{Geometry, Linear};
use crate::proto::onnx::ModelProto;
use crate::{Error, Result};

/// The targets of one contraction in one batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Target {
    /// The shape of the value that it aims at, in the pruned model.
    pub(super) shape: Vec<usize>,
    /// The positions.
    pub(super) rows: Vec<usize>,
    /// The numbers: rows x all outputs.
    pub(super) numbers: Vec<f32>,
}

/// The targets of one contraction, batch by batch, or why there are none.
pub(super) type Targets = std::result::Result<Vec<Target>, String>;

/// What the targets are taken from.
pub(super) struct Dense<'a> {
    pub(super) model: &'a ModelProto,
    pub(super) wiring: &'a Wiring,
    pub(super) constants: Constants,
    pub(super) kept: &'a Kept,
    pub(super) engine: &'a dyn Engine,
    pub(super) batches: &'a dyn Batches,
    pub(super) seed: u64,
    /// Bytes that may be used.
    pub(super) memory: usize,
}

/// Runs the dense model once for all these contractions, and looks at so many rows of every sample.
///
/// # Errors
/// A sample that cannot be read, a model that the engine does not run.
pub(super) fn targets(dense: &Dense<'_>, contractions: &[Contraction], rows: &[usize]) -> Result<Vec<Targets>> {
    let mut found: Vec<Targets> = contractions.iter().map(|_| Ok(Vec::new())).collect();
    let names: BTreeSet<String> = contractions.iter().map(|c| c.aim.clone()).collect();
    let names: Vec<String> = names.into_iter().collect();
    let mut frontier = Frontier::once(dense.engine, dense.batches, dense.memory / 4);
    frontier.run(dense.model, dense.wiring, &names, &Later::default(), &mut |batch, values| {
        contractions.par_iter().zip(rows).zip(&mut found).for_each(|((contraction, rows), found)| {
            let value = names.iter().position(|n| *n == contraction.aim).and_then(|i| values.get(i));
            if let (Some(value), Ok(list)) = (value, found.as_mut()) {
                match target(dense, contraction, value, batch, *rows) {
                    Ok(target) => list.push(target),
                    Err(error) => *found = Err(error.to_string()),
                }
            }
        });
        Ok(())
    })?;
    Ok(found)
}

/// The targets of one contraction from the dense value that it aims at.
pub(super) fn target(
    dense: &Dense<'_>,
    contraction: &Contraction,
    value: &Value,
    batch: BatchFacts,
    rows: usize,
) -> Result<Target> {
    let recurrent = matches!(contraction.linear.geometry, Geometry::Recurrent { .. });
    let rank = value.shape().len();
    let axis = if recurrent { rank.saturating_sub(1) } else { output_axis(&contraction.linear, rank)? };
    // Channels are picked row by row, for a copy of the whole value costs more than all the rest; other axes are rare.
    let restricted = dense.kept.activations.get(&contraction.aim).filter(|_| !recurrent);
    let channels = restricted.and_then(|axes| axes.get(axis)).and_then(Option::as_ref);
    let others: Option<KeptAxes> = restricted.map(|axes| {
        let other = |(place, kept): (usize, &Option<Indices>)| kept.clone().filter(|_| place != axis);
        axes.iter().enumerate().map(other).collect()
    });
    let value = match others.filter(|axes| axes.iter().any(Option::is_some)) {
        Some(axes) => Cow::Owned(select(value, &axes)?),
        None => Cow::Borrowed(value),
    };
    let value = Numbers::of(&value)?;
    let view = Channels::along(&value.shape, axis)?;
    let rows = Positions::of(&value.shape, axis, batch, batch_axis(&contraction.linear))?.choose(
        rows,
        batch,
        dense.seed ^ contraction.node as u64,
    );
    let numbers = match (recurrent, channels) {
        (true, _) => {
            let data: Vec<f64> = rows.iter().flat_map(|row| view.row(&value.data, *row)).collect();
            inside(dense, contraction, &data, view.channels)?
        }
        (false, None) => rows.iter().flat_map(|row| view.row(&value.data, *row)).map(|x| x as f32).collect(),
        (false, Some(kept)) => rows.iter().flat_map(|row| view.some(&value.data, *row, kept)).collect(),
    };
    let mut shape = value.shape;
    if let (Some(kept), Some(extent)) = (channels, shape.get_mut(axis)) {
        *extent = kept.len();
    }
    Ok(Target { shape, rows, numbers })
}

/// The axis of the data that counts samples, where the operator says so.
fn batch_axis(linear: &Linear) -> Option<usize> {
    match linear.geometry {
        Geometry::Window(_) | Geometry::Recurrent { batch_first: true } => Some(0),
        Geometry::Recurrent { batch_first: false } => Some(1),
        Geometry::Rows { .. } => None,
    }
}

/// What these rows of so many inputs add to the sums inside the cells of a recurrence: data times dense weights, kept
/// rows of them.
fn inside(dense: &Dense<'_>, contraction: &Contraction, data: &[f64], inputs: usize) -> Result<Vec<f32>> {
    let missing = || Error::input("the original has no such recurrence").tensor(&contraction.output);
    let nodes = dense.model.graph.as_ref().map_or(&[][..], |g| &g.node);
    let node = dense.wiring.producer.get(&contraction.output).and_then(|at| nodes.get(*at)).ok_or_else(missing)?;
    let name = node.input.get(contraction.linear.weight).ok_or_else(missing)?;
    if dense.wiring.readers.get(name).is_some_and(|readers| readers.len() > 1) {
        return Err(Error::input("other nodes of the original read its weight, and may keep other parts of it"));
    }
    let weights = dense.constants.numbers(dense.model, name).ok_or_else(missing)?;
    let dims = dense.constants.dims(dense.model, name).ok_or_else(missing)?;
    let &[directions, gates, width] = dims.as_slice() else { return Err(missing()) };
    let kept = dense.kept.constants.get(name).and_then(|axes| axes.get(1)).and_then(Option::as_ref);
    let kept: Vec<usize> = match kept {
        Some(kept) => kept.iter().map(|i| *i as usize).collect(),
        None => (0..gates).collect(),
    };
    let outputs = contraction.linear.outputs;
    let chosen: Vec<f64> = (0..directions)
        .flat_map(|d| kept.iter().map(move |gate| (d * gates + gate) * inputs))
        .flat_map(|start| weights.get(start..start + inputs).unwrap_or_default())
        .copied()
        .collect();
    if width != inputs || inputs == 0 || chosen.len() != outputs * inputs {
        return Err(missing());
    }
    let rows = data.len() / inputs;
    let data = MatRef::from_row_major_slice(data, rows, inputs);
    let weights = MatRef::from_row_major_slice(&chosen, outputs, inputs);
    let product = data * weights.transpose();
    Ok((0..rows).flat_map(|i| (0..outputs).map(move |j| (i, j))).map(|at| product[at] as f32).collect())
}

/// What is kept of a dense value.
pub(super) fn select(value: &Value, axes: &KeptAxes) -> Result<Value> {
    let mut value = value.clone();
    for (axis, kept) in axes.iter().enumerate() {
        if let Some(kept) = kept {
            let kept: Vec<usize> = kept.iter().map(|i| *i as usize).collect();
            value = value.select(axis, &kept)?;
        }
    }
    Ok(value)
}

/// True if positions of the aim are those of the data.
pub(super) fn fits(contraction: &Contraction, gather: &Gather<'_>, target: &Target) -> bool {
    match contraction.linear.geometry {
        Geometry::Recurrent { .. } => true,
        _ => Channels::along(&target.shape, output_axis(&contraction.linear, target.shape.len()).unwrap_or(0))
            .is_ok_and(|view| view.rows() == gather.rows() && view.channels == contraction.linear.all_outputs()),
    }
}
