//! Plan: which contractions are refitted, in which order, what each aims at, and where its bias goes.
//!
//! Invariants: a contraction is refitted if its data got smaller or depends on something that did; the order is
//! topological; the last contraction before a sum aims at the sum.

use std::collections::{BTreeMap, BTreeSet};

use super::behind::Behind;
use super::constants::Constants;
use super::wiring::Wiring;
use crate::kept::Kept;
use crate::ops::affine::Affine;
use crate::ops::linear::{Geometry, Linear};
use crate::proto::onnx::{ModelProto, NodeProto};

/// A contraction to be refitted.
#[derive(Clone, Debug)]
pub(super) struct Contraction {
    /// The position of the node.
    pub(super) node: usize,
    /// What people call it.
    pub(super) label: String,
    /// As a regression.
    pub(super) linear: Linear,
    /// The value it reads.
    pub(super) data: String,
    /// The value it makes.
    pub(super) output: String,
    /// The constant it multiplies with.
    pub(super) weight: String,
    /// Where a bias can go.
    pub(super) bias: Bias,
    /// The value whose dense numbers it aims at: its own output, or a sum further on.
    pub(super) aim: String,
    /// What lies between its output and the aim, in this order.
    pub(super) chain: Vec<Link>,
    /// The activations that see the aim only in part.
    pub(super) behind: Option<Behind>,
}

/// Where the bias of a contraction goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bias {
    /// Into the constant of its own.
    Own(String),
    /// Into a constant that is still to be added in this slot.
    Missing(usize),
    /// Subtracted from the mean of the normalisation behind it: node, slot, constant.
    Mean(usize, usize, String),
    /// Into a constant that is added behind it: node, slot, constant.
    After(usize, usize, String),
    /// Nowhere.
    Nowhere,
}

/// One operator between a contraction and its aim.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Link {
    /// Factors and shifts of every channel, from constants; node and what it does.
    Affine(usize, Affine),
    /// The sum with a value that is computed already.
    Plus(String),
}

/// A contraction that stays as it is although its data changed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The node.
    pub node: String,
    /// The reason.
    pub why: String,
}

/// What lies behind something that was removed.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The contractions to be refitted, in order.
    pub(super) contractions: Vec<Contraction>,
    /// Those that are left.
    pub(super) left: Vec<Left>,
    /// Normalisations with fixed statistics: positions of nodes, in order.
    pub(super) normalisations: Vec<usize>,
}

/// Finds what lies behind something that was removed.
pub(super) fn plan(
    model: &ModelProto,
    wiring: &Wiring,
    constants: &Constants,
    kept: &Kept,
    original: &BTreeSet<String>,
) -> Plan {
    let nodes: &[NodeProto] = model.graph.as_ref().map_or(&[], |g| &g.node);
    let mut drifted: BTreeSet<&str> = BTreeSet::new();
    let (mut chosen, mut left, mut normalisations) = (Vec::new(), Vec::new(), Vec::new());
    for position in &wiring.order {
        let (Some(node), Some(reads)) = (nodes.get(*position), wiring.reads.get(*position)) else { continue };
        let changed = |name: &str| kept.activations.contains_key(name) || drifted.contains(name);
        if !reads.iter().any(|name| changed(name)) {
            continue;
        }
        match contraction(model, wiring, constants, original, *position, node) {
            Some(Ok(found)) if changed(&found.data) => chosen.push(found),
            Some(Err((data, why))) if changed(&data) => left.push(Left { node: label(node), why }),
            _ => {}
        }
        if matches!(Affine::of(node, 0), Some(Affine::Normalised(..))) {
            normalisations.push(*position);
        }
        drifted.extend(node.output.iter().map(String::as_str));
    }
    aim(model, wiring, constants, original, &mut chosen);
    for contraction in &mut chosen {
        contraction.behind = Behind::of(model, wiring, constants, contraction);
    }
    Plan { contractions: chosen, left, normalisations }
}

fn contraction(
    model: &ModelProto,
    wiring: &Wiring,
    constants: &Constants,
    original: &BTreeSet<String>,
    position: usize,
    node: &NodeProto,
) -> Option<Result<Contraction, (String, String)>> {
    let dims = |slot: usize| constants.dims(model, node.input.get(slot)?);
    let linear = Linear::of(node, &dims)?;
    let (data, weight) = (node.input.get(linear.data)?.clone(), node.input.get(linear.weight)?.clone());
    let output = node.output.first().filter(|name| !name.is_empty());
    let recurrent = matches!(linear.geometry, Geometry::Recurrent { .. });
    let output = output.or_else(|| node.output.iter().find(|name| recurrent && !name.is_empty()))?.clone();
    let refused = |why: String| Some(Err((data.clone(), why)));
    let shown = if recurrent { &data } else { &output };
    if !original.contains(shown) {
        return refused(format!("the original has no value `{shown}` to aim at"));
    }
    if wiring.readers.get(&weight).is_some_and(|readers| readers.len() > 1) || wiring.outputs.contains(&weight) {
        return refused(format!("its weight `{weight}` is shared"));
    }
    let weights = constants.numbers(model, &weight)?;
    if weights.len() != linear.groups.checked_mul(linear.inputs)?.checked_mul(linear.outputs)? || weights.is_empty() {
        return refused(format!("its weight `{weight}` does not have the shape that it should have"));
    }
    let bias = bias(model, wiring, constants, node, &linear, &output);
    let Some(bias) = bias else { return refused("its bias is computed, or of another shape".to_owned()) };
    let (label, aim) = (label(node), shown.clone());
    Some(Ok(Contraction {
        node: position,
        label,
        linear,
        data,
        aim,
        output,
        weight,
        bias,
        chain: vec![],
        behind: None,
    }))
}

/// Where a bias can go; `None` if there is one that cannot be changed.
fn bias(
    model: &ModelProto,
    wiring: &Wiring,
    constants: &Constants,
    node: &NodeProto,
    linear: &Linear,
    output: &str,
) -> Option<Bias> {
    if let Some(name) = linear.bias.and_then(|slot| node.input.get(slot)).filter(|name| !name.is_empty()) {
        let (count, dims) = (constants.numbers(model, name)?.len(), constants.dims(model, name)?);
        let fits = match linear.geometry {
            Geometry::Window(_) => count == linear.all_outputs(),
            // A matrix may have a number for every row. A single number is replaced by one for every channel.
            Geometry::Rows { .. } => count == 1 || per_channel(&dims, linear),
            Geometry::Recurrent { .. } => count == linear.all_outputs().checked_mul(2)?,
        };
        return fits.then(|| Bias::Own(name.clone()));
    }
    let nodes: &[NodeProto] = model.graph.as_ref().map_or(&[], |g| &g.node);
    let next = wiring.only_reader(output).and_then(|(reader, slot)| Some((reader, nodes.get(reader)?, slot)));
    let behind = next.and_then(|(reader, next, slot)| match Affine::of(next, slot)? {
        Affine::Normalised([_, _, mean, _], _) => {
            let name = next.input.get(mean)?;
            (constants.numbers(model, name)?.len() == linear.all_outputs())
                .then(|| Bias::Mean(reader, mean, name.clone()))
        }
        Affine::Plus(other, 1.0) => {
            let name = next.input.get(other)?;
            per_channel(&constants.dims(model, name)?, linear).then(|| Bias::After(reader, other, name.clone()))
        }
        _ => None,
    });
    Some(behind.or(linear.bias.map(Bias::Missing)).unwrap_or(Bias::Nowhere))
}

/// True if a constant of these extents has one number for every channel of the output.
pub(super) fn per_channel(dims: &[usize], linear: &Linear) -> bool {
    let from_end = match &linear.geometry {
        Geometry::Window(window) => window.kernel.len() + 1,
        Geometry::Rows { output, .. } => *output,
        Geometry::Recurrent { .. } => return false,
    };
    let channels = linear.all_outputs();
    dims.iter().rev().enumerate().all(|(i, d)| *d == if i + 1 == from_end { channels } else { 1 })
        && dims.len() >= from_end
}

/// Lets the last contraction before a sum aim at the sum.
fn aim(
    model: &ModelProto,
    wiring: &Wiring,
    constants: &Constants,
    original: &BTreeSet<String>,
    chosen: &mut [Contraction],
) {
    let nodes: &[NodeProto] = model.graph.as_ref().map_or(&[], |g| &g.node);
    let place: BTreeMap<usize, usize> = chosen.iter().enumerate().map(|(i, c)| (c.node, i)).collect();
    for (index, contraction) in chosen.iter_mut().enumerate() {
        if matches!(contraction.linear.geometry, Geometry::Recurrent { .. }) {
            continue;
        }
        let mut chain = Vec::new();
        let mut name = contraction.output.clone();
        while let Some((reader, slot)) = wiring.only_reader(&name) {
            let Some((node, affine)) = nodes.get(reader).and_then(|n| Some((n, Affine::of(n, slot)?))) else { break };
            let other = match affine {
                Affine::Plus(other, _) | Affine::Times(other) | Affine::Over(other) => node.input.get(other),
                _ => None,
            };
            match (affine, other) {
                (Affine::Plus(_, 1.0), Some(other)) if constants.dims(model, other).is_none() => {
                    // Every contraction that the other operand depends on must be done by then.
                    let (before, _) = wiring.needed([other.as_str()], &|_| false);
                    if before.iter().filter_map(|node| place.get(node)).any(|other| *other >= index) {
                        break;
                    }
                    chain.push(Link::Plus(other.clone()));
                }
                _ if factors(model, constants, node, affine, &contraction.linear).is_some() => {
                    chain.push(Link::Affine(reader, affine));
                }
                _ => break,
            }
            let Some(output) = node.output.first() else { break };
            name = output.clone();
            if matches!(chain.last(), Some(Link::Plus(_))) && original.contains(&name) {
                contraction.chain = chain.clone();
                contraction.aim = name.clone();
            }
        }
    }
}

/// What a node makes of every channel: factor and shift. `None` if it does not act on channels alone.
pub(super) fn factors(
    model: &ModelProto,
    constants: &Constants,
    node: &NodeProto,
    affine: Affine,
    linear: &Linear,
) -> Option<Vec<(f64, f64)>> {
    let channels = linear.all_outputs();
    let read = |slot: usize| -> Option<Vec<f64>> {
        let name = node.input.get(slot)?;
        let numbers = constants.numbers(model, name)?;
        if let [one] = numbers.as_slice() {
            return Some(vec![*one; channels]);
        }
        per_channel(&constants.dims(model, name)?, linear).then_some(numbers)
    };
    Some(match affine {
        Affine::Same => vec![(1.0, 0.0); channels],
        Affine::Plus(slot, sign) => read(slot)?.into_iter().map(|shift| (1.0, sign * shift)).collect(),
        Affine::Times(slot) => read(slot)?.into_iter().map(|factor| (factor, 0.0)).collect(),
        Affine::Over(slot) => read(slot)?.into_iter().map(|divisor| (1.0 / divisor, 0.0)).collect(),
        Affine::Normalised(slots, epsilon) => {
            let numbers = |slot: usize| constants.numbers(model, node.input.get(slot)?).filter(|n| n.len() == channels);
            let [scale, shift, mean, variance] = slots.map(numbers);
            let statistics = mean?.into_iter().zip(variance?);
            let affine = scale?.into_iter().zip(shift?);
            affine
                .zip(statistics)
                .map(|((scale, shift), (mean, variance))| {
                    let factor = scale / (variance + epsilon).sqrt();
                    (factor, shift - mean * factor)
                })
                .collect()
        }
    })
}

/// What people call a node.
pub(super) fn label(node: &NodeProto) -> String {
    match node.name() {
        "" => format!("{}:{}", node.op_type(), node.output.first().map_or("", String::as_str)),
        name => name.to_owned(),
    }
}
