//! Biases: where the constant part of a fit goes, and the weights with it.
//!
//! Invariants: a constant that other nodes read as well stays as it is, and the node gets one of its own; what would not
//! be finite in the type of its constant is not written, and then nothing of the contraction is.

use super::constants::holds;
use super::least_squares::Work;
use super::plan::{Bias, Contraction};
use super::wiring::Wiring;
use crate::ops::linear::Geometry;
use crate::{Error, Result};

/// Why numbers are not written.
pub(super) const BEYOND: &str = "what was fitted is beyond the range of its type";

/// Gives a contraction other weights, where there are some, and makes `bias` (one number for every output) what is added
/// to its product; gives the reason if nothing is changed.
///
/// # Errors
/// Constants that do not fit, which planning has excluded.
pub(super) fn write(
    work: &mut Work<'_>,
    contraction: &Contraction,
    weights: Option<&[f64]>,
    bias: &[f64],
) -> Result<Option<String>> {
    let target = target(work, contraction, bias)?;
    let fits = |name: &str, values: &[f64]| {
        let kind = work.constants.header(work.model, name).map(|(kind, _)| kind);
        kind.is_some_and(|kind| holds(kind, values))
    };
    let written = target.as_ref().is_none_or(|(place, values)| match place {
        Place::Constant(_, _, name) => fits(name, values),
        Place::New(..) => fits(&contraction.weight, values),
    });
    if !written || weights.is_some_and(|weights| !fits(&contraction.weight, weights)) {
        return Ok(Some(BEYOND.to_owned()));
    }
    if let Some(weights) = weights {
        // A bias that others read as well is replaced by one that is not quantised.
        let own = match &contraction.bias {
            Bias::Own(name) if !is_shared(work, name) => Some(name.as_str()),
            _ => None,
        };
        work.constants.set_weight(work.model, &contraction.weight, weights, own)?;
    }
    match target {
        None => {}
        Some((Place::Constant(node, slot, name), values)) => replace(work, node, slot, &name, &values)?,
        Some((Place::New(slot, dims), values)) => {
            let kind = work.constants.header(work.model, &contraction.weight).map(|(kind, _)| kind).unwrap_or_default();
            let wish = format!("{}/bias", contraction.weight);
            let reader = (contraction.node, slot);
            let name = work.constants.add(work.model, &wish, reader, (kind, &dims), &values)?;
            connect(work, reader, name)?;
        }
    }
    Ok(None)
}

/// Where the numbers of a bias are written.
enum Place {
    /// Into what a node reads in a slot.
    Constant(usize, usize, String),
    /// Into a new constant of these extents in this slot of the contraction.
    New(usize, Vec<i64>),
}

/// Where a bias goes, and all numbers that then stand there; none where it goes nowhere.
fn target(work: &Work<'_>, contraction: &Contraction, bias: &[f64]) -> Result<Option<(Place, Vec<f64>)>> {
    let linear = &contraction.linear;
    let recurrent = matches!(linear.geometry, Geometry::Recurrent { .. });
    let scaled = || bias.iter().map(|b| b / linear.bias_scale).collect::<Vec<f64>>();
    let beside = |name: &String, sign: f64| {
        let old = work.constants.numbers(work.model, name)?;
        Some(old.iter().zip(bias).map(|(old, bias)| old + sign * bias).collect())
    };
    Ok(match &contraction.bias {
        Bias::Nowhere => None,
        Bias::Own(name) => {
            let values = if recurrent { recurrent_bias(work, contraction, name, &scaled())? } else { scaled() };
            linear.bias.map(|slot| (Place::Constant(contraction.node, slot, name.clone()), values))
        }
        Bias::Missing(slot) => {
            let (mut values, mut dims) = (scaled(), vec![signed(bias.len())?]);
            if recurrent {
                let directions = work.constants.dims(work.model, &contraction.weight).and_then(|d| d.first().copied());
                let directions = directions.filter(|d| *d > 0).unwrap_or(1);
                let gates = values.len() / directions;
                let both = |part: &[f64]| part.iter().copied().chain(vec![0.0; gates]).collect::<Vec<_>>();
                values = values.chunks(gates.max(1)).flat_map(both).collect();
                dims = vec![signed(directions)?, signed(2 * gates)?];
            }
            Some((Place::New(*slot, dims), values))
        }
        Bias::Mean(node, slot, name) => {
            beside(name, -1.0).map(|values| (Place::Constant(*node, *slot, name.clone()), values))
        }
        Bias::After(node, slot, name) => {
            beside(name, 1.0).map(|values| (Place::Constant(*node, *slot, name.clone()), values))
        }
    })
}

/// The bias of a recurrence has a part for the data and a part for the state; the sum is what counts, so the part for
/// the data takes the change.
fn recurrent_bias(work: &Work<'_>, contraction: &Contraction, name: &str, bias: &[f64]) -> Result<Vec<f64>> {
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
    let shared = is_shared(work, name);
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

/// True if something else reads a constant as well.
fn is_shared(work: &Work<'_>, name: &str) -> bool {
    work.wiring.readers.get(name).is_some_and(|readers| readers.len() > 1) || work.wiring.outputs.contains(name)
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
