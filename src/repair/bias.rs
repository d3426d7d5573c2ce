//! Biases: where the constant part of a fit goes.
//!
//! Invariants: a constant that other nodes read as well stays as it is, and the node gets one of its own.

use super::least_squares::Work;
use super::plan::{Bias, Contraction};
use super::wiring::Wiring;
use crate::ops::linear::Geometry;
use crate::{Error, Result};

/// Makes `bias` (one number for every output) what is added to the product of a contraction.
///
/// # Errors
/// Constants that do not fit, which planning has excluded.
pub(super) fn put(work: &mut Work<'_>, contraction: &Contraction, bias: &[f64]) -> Result<()> {
    let linear = &contraction.linear;
    match &contraction.bias {
        Bias::Nowhere => Ok(()),
        Bias::Own(name) => {
            let Some(slot) = linear.bias else { return Ok(()) };
            let mut values: Vec<f64> = bias.iter().map(|b| b / linear.bias_scale).collect();
            if let Geometry::Recurrent { .. } = linear.geometry {
                values = recurrent(work, contraction, name, &values)?;
            }
            replace(work, contraction.node, slot, name, &values)
        }
        Bias::Missing(slot) => {
            let mut values: Vec<f64> = bias.iter().map(|b| b / linear.bias_scale).collect();
            let mut dims = vec![signed(values.len())?];
            if let Geometry::Recurrent { .. } = linear.geometry {
                let directions = work.constants.dims(work.model, &contraction.weight).and_then(|d| d.first().copied());
                let directions = directions.filter(|d| *d > 0).unwrap_or(1);
                let gates = values.len() / directions;
                let both = |part: &[f64]| part.iter().copied().chain(vec![0.0; gates]).collect::<Vec<_>>();
                values = values.chunks(gates.max(1)).flat_map(both).collect();
                dims = vec![signed(directions)?, signed(2 * gates)?];
            }
            let kind = work.constants.header(work.model, &contraction.weight).map(|(kind, _)| kind).unwrap_or_default();
            let wish = format!("{}/bias", contraction.weight);
            let reader = (contraction.node, *slot);
            let name = work.constants.add(work.model, &wish, reader, (kind, &dims), &values)?;
            connect(work, reader, name)
        }
        Bias::Mean(node, slot, name) => {
            let Some(old) = work.constants.numbers(work.model, name) else { return Ok(()) };
            let values: Vec<f64> = old.iter().zip(bias).map(|(mean, bias)| mean - bias).collect();
            replace(work, *node, *slot, name, &values)
        }
        Bias::After(node, slot, name) => {
            let Some(old) = work.constants.numbers(work.model, name) else { return Ok(()) };
            let values: Vec<f64> = old.iter().zip(bias).map(|(old, bias)| old + bias).collect();
            replace(work, *node, *slot, name, &values)
        }
    }
}

/// The bias of a recurrence has a part for the data and a part for the state; the sum is what counts, so the part for
/// the data takes the change.
fn recurrent(work: &Work<'_>, contraction: &Contraction, name: &str, bias: &[f64]) -> Result<Vec<f64>> {
    let missing = || Error::input("the bias of a recurrence cannot be read").tensor(name);
    let mut values = work.constants.numbers(work.model, name).ok_or_else(missing)?;
    let dims = work.constants.dims(work.model, &contraction.weight).ok_or_else(missing)?;
    let gates = dims.get(1).copied().filter(|n| *n > 0).ok_or_else(missing)?;
    for (part, bias) in values.chunks_mut(2 * gates).zip(bias.chunks(gates)) {
        part.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
    }
    Ok(values)
}

/// Gives the constant in a slot other numbers; if other nodes read it or its shape does not do, the node gets its own.
pub(super) fn replace(work: &mut Work<'_>, node: usize, slot: usize, name: &str, values: &[f64]) -> Result<()> {
    let missing = || Error::input("there is no such constant").tensor(name);
    let (kind, mut dims) = work.constants.header(work.model, name).ok_or_else(missing)?;
    let shared = work.wiring.readers.get(name).is_some_and(|r| r.len() > 1) || work.wiring.outputs.contains(name);
    let fits = crate::proto::tensor::element_count(&dims)? == values.len();
    if !shared && fits {
        return work.constants.set(work.model, name, values);
    }
    if !fits {
        dims = vec![signed(values.len())?];
    }
    let wish = format!("{name}/repaired");
    let copy = work.constants.add(work.model, &wish, (node, slot), (kind, &dims), values)?;
    connect(work, (node, slot), copy)
}

/// Lets a node read a constant in a slot.
fn connect(work: &mut Work<'_>, (node, slot): (usize, usize), name: String) -> Result<()> {
    let found = work.model.graph.as_mut().and_then(|g| g.node.get_mut(node));
    let node = found.ok_or_else(|| Error::input("there is no such node"))?;
    if node.input.len() <= slot {
        node.input.resize(slot + 1, String::new());
    }
    if let Some(input) = node.input.get_mut(slot) {
        *input = name;
    }
    work.wiring = Wiring::of(work.model)?;
    Ok(())
}

fn signed(n: usize) -> Result<i64> {
    i64::try_from(n).map_err(|_| Error::input("an axis is too long"))
}
