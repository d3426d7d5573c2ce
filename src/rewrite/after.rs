//! The graph after pruning, as rules see it: shapes, and shape arithmetic evaluated anew.

use crate::axes::Extent;
use crate::coupling::Coupling;
use crate::graph::{Graph, NodeId, ValueId};
use crate::ops::{Edit, InputView, Integers, NodeView};

use super::Shrunk;

/// What becomes of the nodes.
pub(super) struct After {
    /// Changes by node.
    pub(super) edits: Vec<Vec<Edit>>,
    /// Entries of small integer tensors after pruning, by value.
    pub(super) integers: Vec<Option<Integers>>,
    /// How many entries each small integer tensor has, by value.
    pub(super) lengths: Vec<Option<usize>>,
    /// Multiply-accumulates by node after pruning.
    pub(super) macs: Vec<Option<Extent>>,
}

impl After {
    /// A node as its rule sees it after pruning.
    pub(super) fn view<'a>(
        &self,
        graph: &'a Graph,
        coupling: &'a Coupling,
        shrunk: &Shrunk,
        id: NodeId,
    ) -> NodeView<'a> {
        let node = graph.node(id);
        let inputs = node.inputs.iter().take(node.input_count).map(|input| {
            input.map(|value| InputView {
                shape: shrunk.shape(coupling, value),
                constant: graph.value(value).constant().map(|c| c.tensor.as_ref()),
                integers: self.integers[value.0 as usize].clone(),
                axes: None,
            })
        });
        let inputs = inputs.collect();
        NodeView { node, inputs, outputs: node.outputs.len(), symbols: &coupling.symbols, space: None }
    }
}

/// The integers of a constant after pruning: gathered along its shortened axes.
pub(super) fn constant_integers(before: &Integers, shrunk: &Shrunk, value: ValueId) -> Option<Integers> {
    let Some(kept) = shrunk.get(value) else { return Some(before.clone()) };
    let mut values = before.values.clone();
    let mut dims = before.dims.clone();
    for (axis, kept) in kept.iter().enumerate() {
        let Some(kept) = kept else { continue };
        let inner: usize = dims.get(axis + 1..)?.iter().product();
        let extent = *dims.get(axis)?;
        let outer: usize = dims.get(..axis)?.iter().product();
        let mut gathered = Vec::with_capacity(outer * kept.len() * inner);
        for o in 0..outer {
            for k in kept.iter() {
                let start = (o * extent + *k as usize) * inner;
                gathered.extend_from_slice(values.get(start..start + inner)?);
            }
        }
        values = gathered;
        *dims.get_mut(axis)? = kept.len();
    }
    Some(Integers { dims, values })
}
