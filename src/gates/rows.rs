//! Rows: which entries of which weights make each channel of a group.

use std::collections::BTreeMap;

use crate::coupling::{Coupling, Role};
use crate::engine::ElementType;
use crate::graph::{Graph, MAIN};
use crate::groups::Group;
use crate::proto::tensor;
use crate::{Error, Result};

/// A weight that makes channels.
#[derive(Clone, Debug)]
pub(super) struct Weight {
    /// Its name in the model.
    pub(super) name: String,
    pub(super) values: Vec<f32>,
}

/// The rows of a group in one weight.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    /// Index of the weight.
    pub(super) weight: usize,
    /// The channel of every position of the axis.
    channels: Vec<Option<usize>>,
    inner: usize,
}

impl Rows {
    /// Adds `number(place)` of every entry to its channel; `length` is that of the weight.
    pub(super) fn add(&self, length: usize, into: &mut [f64], number: impl Fn(usize) -> f64) {
        let block = self.channels.len().saturating_mul(self.inner).max(1);
        for start in (0..length).step_by(block) {
            for (position, channel) in self.channels.iter().enumerate() {
                let Some(slot) = channel.and_then(|channel| into.get_mut(channel)) else { continue };
                let from = start + position * self.inner;
                *slot += (from..from + self.inner).map(&number).sum::<f64>();
            }
        }
    }
}

/// The weights of rank 2 and more that produce the channels of free groups, and by group their rows.
///
/// # Errors
/// A weight that cannot be read.
pub(super) fn rows(graph: &Graph, coupling: &Coupling, groups: &[Group]) -> Result<(Vec<Weight>, Vec<Vec<Rows>>)> {
    let mut weights: Vec<Weight> = Vec::new();
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    let mut all = Vec::with_capacity(groups.len());
    for group in groups {
        let mut own: Vec<Rows> = Vec::new();
        let mut seen: Vec<(usize, usize)> = Vec::new();
        let is_free = group.lock.is_none() || group.approximate;
        for member in group.members.iter().filter(|member| is_free && member.role == Role::Produced) {
            let value = graph.value(member.value);
            let Some(constant) = value.constant().filter(|_| value.scope == MAIN) else { continue };
            let shape: Vec<usize> = constant.tensor.dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect();
            let element = ElementType::try_from(constant.tensor.data_type());
            if shape.len() < 2
                || !matches!(element, Ok(ElementType::Float | ElementType::Float16 | ElementType::Double))
            {
                continue;
            }
            let weight = *known.entry(value.name).or_insert(weights.len());
            if weight == weights.len() {
                let values = tensor::to_f32(&constant.tensor).map_err(|e| e.tensor(value.name))?;
                weights.push(Weight { name: value.name.to_owned(), values });
            }
            if seen.contains(&(weight, member.axis)) {
                continue;
            }
            seen.push((weight, member.axis));
            let axes = coupling.axes.get(member.value.0 as usize).and_then(Option::as_ref);
            let Some(axis) = axes.and_then(|axes| axes.get(member.axis)).copied() else { continue };
            let mut channels = vec![None; shape.get(member.axis).copied().unwrap_or(0)];
            coupling.space.positions(axis, group.atom, &mut |position, channel| {
                if let Some(slot) = channels.get_mut(position) {
                    *slot = Some(channel);
                }
            });
            own.push(Rows { weight, channels, inner: shape.iter().skip(member.axis + 1).product() });
        }
        all.push(own);
    }
    Ok((weights, all))
}

/// What the gradients of all weights take for every task.
///
/// # Errors
/// When that is more than `memory` bytes.
pub(super) fn check_memory(weights: &[Weight], tasks: usize, memory: usize) -> Result<()> {
    let entries: usize = weights.iter().map(|weight| weight.values.len()).sum();
    // As the engine returns them and as they are summed up.
    let bytes = entries.saturating_mul(12).saturating_mul(tasks);
    if bytes <= memory {
        return Ok(());
    }
    let needed = (bytes as f64 / 1e9).ceil();
    Err(Error::input(format!("the gradients of the weights take {needed} GB for {tasks} tasks, more than is allowed"))
        .help(format!(
            "give --memory {needed}, or choose a criterion that looks at gates alone, such as taylor or fisher"
        )))
}
