//! Constants with two meanings: which of them several nodes read in ways that do not fit together.
//!
//! A constant that several nodes read couples their axes, as weight sharing should. Where that locks an axis because
//! the readings disagree, each reading may get a copy of its own instead, if the file gets smaller by it. Invariant:
//! nothing is divided that nothing locks, so that shared weights stay shared.

use std::collections::{BTreeMap, BTreeSet};

use crate::axes::Expr;
use crate::coupling::Coupling;
use crate::graph::{Graph, Place};
use crate::groups::Group;
use crate::proto::tensor;

/// The stored constants that several nodes read and that have an axis longer than 1 that is locked.
pub fn disputed(graph: &Graph, coupling: &Coupling) -> BTreeSet<Place> {
    let mut disputed = BTreeSet::new();
    for id in graph.value_ids() {
        let value = graph.value(id);
        let Some(constant) = value.constant().filter(|_| value.readers.len() + usize::from(value.is_output) > 1) else {
            continue;
        };
        // A node that multiplied two different parts of one constant could not be told from outside: no one set of kept
        // indices describes the constant, and what is summed over inside the node is no value that could be masked.
        let nodes: BTreeSet<_> = value.readers.iter().map(|(node, _)| *node).collect();
        if nodes.len() < value.readers.len() {
            continue;
        }
        let axes = coupling.axes[id.0 as usize].iter().flatten();
        // Axes that shrink together are those of a recurrence, which goes on inside its operator: there nothing but a
        // mask on the constant itself keeps what is removed from what stays.
        let mut seen = BTreeSet::new();
        let atoms =
            |axis: &Expr| coupling.space.atoms(*axis).into_iter().filter(|a| !coupling.space.extent(*a).is_one());
        let is_square = axes.clone().any(|axis| {
            let own: BTreeSet<_> = atoms(axis).collect();
            let is_repeated = own.iter().any(|atom| seen.contains(atom));
            seen.extend(own);
            is_repeated
        });
        if is_square {
            continue;
        }
        let is_locked = |axis: &Expr| {
            let atoms = coupling.space.atoms(*axis);
            atoms.iter().any(|a| !coupling.space.extent(*a).is_one() && coupling.space.lock_of(*a).is_some())
        };
        if axes.into_iter().any(is_locked) {
            disputed.insert(constant.place);
        }
    }
    disputed
}

/// Masks under which every group that may shrink keeps half of its channels.
pub fn halved(groups: &[Group]) -> BTreeMap<Expr, Vec<bool>> {
    let free = groups.iter().filter(|g| g.lock.is_none());
    free.map(|g| (g.atom, (0..g.extent).map(|i| i < g.extent.div_ceil(2)).collect())).collect()
}

/// The bits that all constants take once `masks` are applied, every copy counted. Parts that are cut along other axes
/// count as different even if the same indices should stay.
pub fn constant_bits(graph: &Graph, coupling: &Coupling, masks: &BTreeMap<Expr, Vec<bool>>) -> u128 {
    let mut parts: BTreeMap<Place, BTreeMap<Vec<Option<Expr>>, u128>> = BTreeMap::new();
    for id in graph.value_ids() {
        let value = graph.value(id);
        let Some(constant) = value.constant().filter(|_| value.is_output || !value.readers.is_empty()) else {
            continue;
        };
        let mut bits = tensor::element_bits(constant.tensor.data_type()).unwrap_or(8) as u128;
        let mut key = Vec::new();
        for axis in coupling.axes[id.0 as usize].iter().flatten() {
            let mask = coupling.space.mask(*axis, masks);
            let kept = mask.as_ref().map(|mask| mask.iter().filter(|keep| **keep).count());
            let whole = coupling.space.extent(*axis).size().unwrap_or(1);
            bits = bits.saturating_mul(kept.unwrap_or(whole) as u128);
            key.push(mask.map(|_| coupling.space.resolve(*axis)));
        }
        parts.entry(constant.place).or_default().insert(key, bits);
    }
    parts.values().flat_map(BTreeMap::values).fold(0, |all, bits| all.saturating_add(*bits))
}

/// The groups that show in a constant whose readings are divided.
pub fn touching(graph: &Graph, groups: &[Group]) -> BTreeSet<usize> {
    let is_divided = |group: &Group| {
        let constants = group.members.iter().filter_map(|m| graph.value(m.value).constant());
        constants.into_iter().any(|c| graph.divided.contains(&c.place))
    };
    groups.iter().enumerate().filter(|(_, group)| is_divided(group)).map(|(index, _)| index).collect()
}
