//! Behind: the activations that read what a contraction aims at, and between which numbers they see it.
//!
//! Invariants: only operators that act on channels alone lie between the aim and the activations; a value that anything
//! else reads is seen everywhere.

use super::constants::Constants;
use super::plan::{Contraction, factors};
use super::wiring::Wiring;
use crate::ops::affine::Affine;
use crate::ops::flat::Flat;
use crate::proto::onnx::{ModelProto, NodeProto};

/// What lies behind an aim.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Behind {
    /// Operators with a factor and a shift for every channel: positions of nodes, and what they do.
    affine: Vec<(usize, Affine)>,
    /// Where all activations behind them are flat.
    flat: Flat,
}

impl Behind {
    /// What lies behind the aim of `contraction`; `None` if no activation is flat anywhere.
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
                return Some(Self { affine, flat });
            }
            let (reader, slot) = wiring.only_reader(name)?;
            let node = nodes.get(reader)?;
            let step = Affine::of(node, slot)?;
            factors(model, constants, node, step, &contraction.linear)?;
            affine.push((reader, step));
            name = node.output.first()?;
        }
    }

    /// For every channel of the aim, between which numbers it is seen; infinite where there is no border.
    pub(super) fn borders(
        &self,
        model: &ModelProto,
        constants: &Constants,
        contraction: &Contraction,
    ) -> Option<Vec<(f64, f64)>> {
        let nodes: &[NodeProto] = model.graph.as_ref().map_or(&[], |g| &g.node);
        let mut borders = vec![(self.flat.below, self.flat.above); contraction.linear.all_outputs()];
        for (position, affine) in self.affine.iter().rev() {
            let factors = factors(model, constants, nodes.get(*position)?, *affine, &contraction.linear)?;
            for (border, (factor, shift)) in borders.iter_mut().zip(factors) {
                let (below, above) = ((border.0 - shift) / factor, (border.1 - shift) / factor);
                *border = if factor > 0.0 { (below, above) } else { (above, below) };
                // What a factor of zero makes of it is not worth a border.
                if factor == 0.0 || border.0.is_nan() || border.1.is_nan() {
                    *border = (f64::NEG_INFINITY, f64::INFINITY);
                }
            }
        }
        Some(borders)
    }
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
