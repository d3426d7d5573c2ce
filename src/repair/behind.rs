//! Behind: the activations that read what a contraction aims at, and what they see of it.
//!
//! Invariants: only operators that act on channels alone lie between the aim and the activations; a value that anything
//! else reads is seen everywhere.

use super::constants::Constants;
use super::likelihood::Likelihood;
use super::plan::{Contraction, factors};
use super::wiring::Wiring;
use crate::ops::affine::Affine;
use crate::ops::flat::Flat;
use crate::ops::probabilities::Probabilities;
use crate::proto::onnx::{ModelProto, NodeProto};

/// What lies behind an aim.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Behind {
    /// Operators with a factor and a shift for every channel: positions of nodes, and what they do.
    affine: Vec<(usize, Affine)>,
    end: End,
}

/// What reads the aim behind those operators.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// Activations, and where all of them are flat.
    Flat(Flat),
    /// What makes probabilities of it.
    Probabilities(Probabilities),
}

/// What is seen of an aim.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Seen {
    /// What lies between these numbers, channel by channel; infinite where there is no border.
    Between(Vec<(f64, f64)>),
    /// The probabilities that are made of it.
    Probabilities(Likelihood),
}

impl Behind {
    /// What lies behind the aim of `contraction`; `None` if every number is seen as it is.
    pub(super) fn of(
        model: &ModelProto,
        wiring: &Wiring,
        constants: &Constants,
        contraction: &Contraction,
    ) -> Option<Self> {
        let nodes: &[NodeProto] = model.graph.as_ref().map_or(&[], |g| &g.node);
        let mut affine = Vec::new();
        let mut name = contraction.aim.as_str();
        loop {
            if let Some(flat) = flat(nodes, wiring, constants, model, name) {
                return Some(Self { affine, end: End::Flat(flat) });
            }
            let (reader, slot) = wiring.only_reader(name)?;
            let node = nodes.get(reader)?;
            let opset = model.opset_import.iter().find(|o| matches!(o.domain(), "" | "ai.onnx"));
            if let Some(found) = Probabilities::of(node, slot, opset.map_or(1, |o| o.version())) {
                return Some(Self { affine, end: End::Probabilities(found) });
            }
            let step = Affine::of(node, slot)?;
            factors(model, constants, node, step, &contraction.linear)?;
            affine.push((reader, step));
            name = node.output.first()?;
        }
    }

    /// What is seen of an aim of this shape, of which `axis` holds the channels.
    pub(super) fn seen(
        &self,
        model: &ModelProto,
        constants: &Constants,
        contraction: &Contraction,
        (axis, shape): (usize, &[usize]),
    ) -> Option<Seen> {
        let steps = self.affine.iter().map(|(position, affine)| {
            let nodes: &[NodeProto] = model.graph.as_ref().map_or(&[], |g| &g.node);
            factors(model, constants, nodes.get(*position)?, *affine, &contraction.linear)
        });
        let steps: Vec<Vec<(f64, f64)>> = steps.collect::<Option<_>>()?;
        let channels = contraction.linear.all_outputs();
        match self.end {
            End::Flat(flat) => Some(Seen::Between(borders(flat, &steps, channels))),
            End::Probabilities(made) => {
                let shares = made != Probabilities::Each;
                // A fit knows the outputs of its own group alone, and what is added on the way to the aim differs from
                // row to row.
                let apart = shares && (contraction.linear.groups != 1 || !made.only_along(axis, shape));
                let scaled = steps.iter().flatten().any(|(factor, _)| *factor != 1.0);
                if apart || scaled || !contraction.chain.is_empty() {
                    return None;
                }
                let shift =
                    |channel: usize| steps.iter().filter_map(|step| step.get(channel)).map(|(_, shift)| shift).sum();
                Some(Seen::Probabilities(Likelihood { shares, shifts: (0..channels).map(shift).collect() }))
            }
        }
    }
}

/// Between which numbers each channel is seen, back through these factors and shifts.
fn borders(flat: Flat, steps: &[Vec<(f64, f64)>], channels: usize) -> Vec<(f64, f64)> {
    let mut borders = vec![(flat.below, flat.above); channels];
    for factors in steps.iter().rev() {
        for (border, (factor, shift)) in borders.iter_mut().zip(factors) {
            let (below, above) = ((border.0 - shift) / factor, (border.1 - shift) / factor);
            *border = if *factor > 0.0 { (below, above) } else { (above, below) };
            // What a factor of zero makes of it is not worth a border.
            if *factor == 0.0 || border.0.is_nan() || border.1.is_nan() {
                *border = (f64::NEG_INFINITY, f64::INFINITY);
            }
        }
    }
    borders
}

/// Where all readers of a value are flat; `None` if one is not, or the value is an output.
fn flat(nodes: &[NodeProto], wiring: &Wiring, constants: &Constants, model: &ModelProto, name: &str) -> Option<Flat> {
    if wiring.outputs.contains(name) {
        return None;
    }
    let readers = wiring.readers.get(name)?.iter().map(|(reader, slot)| {
        let node = nodes.get(*reader)?;
        Flat::of(node, *slot, &|slot| constants.numbers(model, node.input.get(slot)?))
    });
    let all: Option<Vec<Flat>> = readers.collect();
    let common = all?.into_iter().reduce(Flat::and)?;
    (common.below.is_finite() || common.above.is_finite()).then_some(common)
}
