//! Taps: which values of a model carry the channels of its groups.
//!
//! The channels of a group are measured where they are contracted with weights, because that is where their removal is
//! felt: after the activation function, and after everything that happens to them on the way. A group that no weight
//! contracts is measured at the outputs of the nodes that produce it.
//!
//! Invariants: a tap is a value of the main graph that depends on the graph inputs, of known rank, and an axis of it of
//! known extent; every (value, axis) is tapped once, however many groups and consumers it serves; taps are in the order
//! of the nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::segments::{Segment, segments};
use crate::axes::Expr;
use crate::coupling::{Coupling, StoredZero};
use crate::graph::{Graph, MAIN, NodeId, Source, ValueId};
use crate::groups::Group;
use crate::kept::Zero;
use crate::ops::{Signature, Term};

/// A value and the axis of it that holds channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// The value.
    pub value: ValueId,
    /// Its name in the model.
    pub name: String,
    /// How many axes it has.
    pub rank: usize,
    /// The axis that holds channels.
    pub axis: usize,
    /// The extent of that axis, which may be longer than a group: several positions may belong to one channel.
    pub extent: usize,
    /// The stored number that stands for zero, for quantised values where it is not 0.
    pub zero: Option<Zero>,
}

/// One place where the channels of a group are measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupTap {
    /// The index of the tap.
    pub tap: usize,
    /// Which positions of the tap's axis belong to which channel.
    pub segments: Vec<Segment>,
    /// The weights that contract it there; empty where the group has no such consumer.
    pub weights: Vec<WeightAxis>,
}

/// An axis of a weight along which the channels of a group lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WeightAxis {
    /// The node that contracts.
    pub node: NodeId,
    /// The weight: a constant, or what is computed from constants alone.
    pub value: ValueId,
    /// The axis.
    pub axis: usize,
}

/// All taps of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taps {
    /// The taps.
    pub taps: Vec<Tap>,
    /// Where each group is measured, in group order; empty for groups that are locked or cannot be measured.
    pub groups: Vec<Vec<GroupTap>>,
}

impl Taps {
    /// Finds the taps of all groups that may shrink, exactly or approximately.
    pub fn of(graph: &Graph, coupling: &Coupling, groups: &[Group]) -> Self {
        let is_measured = |group: &&Group| group.lock.is_none() || group.approximate;
        let atoms: BTreeMap<Expr, usize> =
            groups.iter().enumerate().filter(|(_, g)| is_measured(g)).map(|(i, g)| (g.atom, i)).collect();
        let mut finder = Finder {
            graph,
            coupling,
            atoms: &atoms,
            fed: fed(graph),
            index: BTreeMap::new(),
            taps: Self { taps: Vec::new(), groups: vec![Vec::new(); groups.len()] },
        };
        let signatures: Vec<(NodeId, Signature)> =
            graph.order.iter().filter_map(|id| Some((*id, coupling.signature(graph, *id).ok()?))).collect();
        for (id, signature) in &signatures {
            finder.contractions(*id, signature);
        }
        let bare: BTreeSet<usize> =
            atoms.values().copied().filter(|g| finder.taps.groups.get(*g).is_some_and(Vec::is_empty)).collect();
        if !bare.is_empty() {
            for (id, signature) in &signatures {
                finder.productions(*id, signature, &bare);
            }
        }
        finder.taps
    }
}

struct Finder<'a> {
    graph: &'a Graph<'a>,
    coupling: &'a Coupling,
    /// The measured groups by atom.
    atoms: &'a BTreeMap<Expr, usize>,
    /// By value: whether it depends on the graph inputs.
    fed: Vec<bool>,
    index: BTreeMap<(ValueId, usize), usize>,
    taps: Taps,
}

impl Finder<'_> {
    /// Taps what a node contracts with its weights.
    fn contractions(&mut self, id: NodeId, signature: &Signature) {
        let node = self.graph.node(id);
        let described = |slot: usize| {
            let value = node.inputs.iter().take(node.input_count).nth(slot).copied().flatten()?;
            Some((value, signature.inputs.get(slot)?.as_ref()?))
        };
        let produced = letters(signature.outputs.iter().flatten().flatten());
        let slots: Vec<(ValueId, &Vec<Term>)> = (0..node.input_count).filter_map(described).collect();
        for (value, terms) in &slots {
            if !self.is_fed(*value) {
                continue;
            }
            for (axis, term) in terms.iter().enumerate() {
                let lost: BTreeSet<usize> = &letters(std::iter::once(term)) - &produced;
                // A depthwise convolution contracts an axis of extent 1, which is nothing.
                let is_contracted = slots.iter().filter(|(value, _)| !self.is_fed(*value)).any(|(value, terms)| {
                    let axes = terms.iter().enumerate();
                    let mut shared = axes.filter(|(_, term)| !letters(std::iter::once(*term)).is_disjoint(&lost));
                    shared.any(|(axis, _)| self.extent(*value, axis).is_none_or(|extent| extent > 1))
                });
                if !is_contracted {
                    continue;
                }
                for group in self.groups_of(*value, axis) {
                    let weights = self.weights(id, group, &slots, &produced);
                    if !weights.is_empty() {
                        self.add(group, *value, axis, weights);
                    }
                }
            }
        }
    }

    /// The axes of weights of a node along which a group lies: those that it contracts, or else any.
    fn weights(
        &self,
        node: NodeId,
        group: usize,
        slots: &[(ValueId, &Vec<Term>)],
        produced: &BTreeSet<usize>,
    ) -> Vec<WeightAxis> {
        let (mut contracted, mut others) = (Vec::new(), Vec::new());
        for (value, terms) in slots.iter().filter(|(value, terms)| !self.is_fed(*value) && terms.len() > 1) {
            for (axis, term) in terms.iter().enumerate() {
                if self.groups_of(*value, axis).contains(&group) {
                    let own = letters(std::iter::once(term));
                    let list = if own.is_subset(produced) { &mut others } else { &mut contracted };
                    list.push(WeightAxis { node, value: *value, axis });
                }
            }
        }
        if contracted.is_empty() { others } else { contracted }
    }

    /// Taps the outputs of a node that makes the channels of a group that nothing contracts.
    fn productions(&mut self, id: NodeId, signature: &Signature, bare: &BTreeSet<usize>) {
        let node = self.graph.node(id);
        let produced = letters(signature.outputs.iter().flatten().flatten());
        let is_contraction = signature.inputs.iter().flatten().flatten();
        if letters(is_contraction).is_subset(&produced) {
            return;
        }
        let made: BTreeSet<usize> = (node.inputs.iter().take(node.input_count).flatten())
            .filter(|value| !self.is_fed(**value))
            .flat_map(|value| (0..self.rank(*value)).flat_map(|axis| self.groups_of(*value, axis)))
            .filter(|group| bare.contains(group))
            .collect();
        for output in node.outputs.iter().flatten() {
            for axis in 0..self.rank(*output) {
                for group in self.groups_of(*output, axis).into_iter().filter(|group| made.contains(group)) {
                    self.add(group, *output, axis, Vec::new());
                }
            }
        }
    }

    fn add(&mut self, group: usize, value: ValueId, axis: usize, weights: Vec<WeightAxis>) {
        let known = self.graph.value(value);
        let rank = self.rank(value);
        let axes = self.coupling.axes.get(value.0 as usize).and_then(Option::as_ref);
        let Some(extent) = self.extent(value, axis).filter(|_| known.scope == MAIN) else { return };
        let next = self.taps.taps.len();
        let tap = *self.index.entry((value, axis)).or_insert(next);
        if tap == next {
            let zero = match self.coupling.zeros.get(value.0 as usize).copied().flatten() {
                None | Some(StoredZero::Known(0)) => None,
                Some(StoredZero::Known(number)) => Some(Zero::Number(number)),
                Some(StoredZero::Computed(zero)) => Some(Zero::Activation(self.graph.value(zero).name.to_owned())),
            };
            self.taps.taps.push(Tap { value, name: known.name.to_owned(), rank, axis, extent, zero });
        }
        let segments = || {
            let atom = self.atoms.iter().find(|(_, index)| **index == group).map(|(atom, _)| *atom)?;
            let expr = *axes?.get(axis)?;
            Some(segments(&self.coupling.space, expr, atom))
        };
        let Some(list) = self.taps.groups.get_mut(group) else { return };
        match list.iter_mut().find(|other| other.tap == tap) {
            Some(other) => other.weights.extend(weights),
            None => list.push(GroupTap { tap, segments: segments().unwrap_or_default(), weights }),
        }
    }

    fn is_fed(&self, value: ValueId) -> bool {
        self.fed.get(value.0 as usize).copied().unwrap_or(false)
    }

    fn rank(&self, value: ValueId) -> usize {
        self.coupling.axes.get(value.0 as usize).and_then(Option::as_ref).map_or(0, Vec::len)
    }

    fn extent(&self, value: ValueId, axis: usize) -> Option<usize> {
        let axes = self.coupling.axes.get(value.0 as usize)?.as_ref()?;
        self.coupling.space.extent(*axes.get(axis)?).size()
    }

    /// The measured groups whose channels lie along an axis.
    fn groups_of(&self, value: ValueId, axis: usize) -> Vec<usize> {
        let axes = self.coupling.axes.get(value.0 as usize).and_then(Option::as_ref);
        let Some(axis) = axes.and_then(|axes| axes.get(axis)) else { return Vec::new() };
        self.coupling.space.atoms(*axis).iter().filter_map(|atom| self.atoms.get(atom).copied()).collect()
    }
}

/// By value: whether it is computed from graph inputs; bodies count as fed throughout.
fn fed(graph: &Graph) -> Vec<bool> {
    let is_input = |value: &crate::graph::Value| matches!(value.source, Source::Input(_)) || value.scope != MAIN;
    let mut fed: Vec<bool> = graph.values.iter().map(is_input).collect();
    for id in &graph.order {
        let node = graph.node(*id);
        let mut inputs = node.inputs.iter().flatten();
        // A node without inputs may draw random numbers; what is constant is a constant already.
        if node.inputs.is_empty() || inputs.any(|v| fed.get(v.0 as usize).copied().unwrap_or(true)) {
            for output in node.outputs.iter().flatten() {
                if let Some(slot) = fed.get_mut(output.0 as usize) {
                    *slot = true;
                }
            }
        }
    }
    fed
}

/// The letters that terms mention.
fn letters<'t>(terms: impl Iterator<Item = &'t Term>) -> BTreeSet<usize> {
    let mut letters = BTreeSet::new();
    let mut stack: Vec<&Term> = terms.collect();
    while let Some(term) = stack.pop() {
        match term {
            Term::One => {}
            Term::Letter(letter) => _ = letters.insert(*letter),
            Term::Sum(parts) | Term::Product(parts) => stack.extend(parts),
        }
    }
    letters
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tasks::Tasks;
    use crate::{groups, text};

    /// Per free group: its name, and name, axis and extent of its taps with the axes of the weights behind them.
    fn taps(text: &str) -> Vec<String> {
        let model = text::parse(text).unwrap();
        let graph = Graph::new(&model).unwrap();
        let coupling = Coupling::of(&graph);
        let groups = groups::find(&graph, &coupling, &Tasks::of(&graph, &[]).unwrap());
        let taps = Taps::of(&graph, &coupling, &groups);
        let mut lines = Vec::new();
        for (group, places) in groups.iter().zip(&taps.groups).filter(|(g, _)| g.lock.is_none()) {
            let mut line = group.name.clone();
            for place in places {
                let tap = &taps.taps[place.tap];
                line += &format!(" {}.{}[{}]", tap.name, tap.axis, tap.extent);
                for weight in &place.weights {
                    line += &format!("*{}.{}", graph.value(weight.value).name, weight.axis);
                }
            }
            lines.push(line);
        }
        lines
    }

    #[test]
    fn channels_are_measured_where_they_are_contracted() {
        let text = "in x [n,3,8,8]
             a = Conv(x, w0[4,3,3,3], b0[4])
             b = Relu(a)
             c = Conv(b, d[4,1,3,3], group=4)
             y = Conv(c, w1[5,4,1,1])
             z = Flatten(b)
             t = Gemm(z, g[144,6])
             u = Gemm(t, h[6,2])
             out y, u";
        assert_eq!(taps(text), ["w0.0 c.1[4]*w1.1 z.1[144]*g.0", "g.1 t.1[6]*h.0"]);
    }

    #[test]
    fn groups_that_no_weight_contracts_are_measured_where_they_are_made() {
        let text = "in x [n,5,8]
             q = MatMul(x, wq[8,4])
             k = MatMul(x, wk[8,4])
             t = Transpose(k, perm=[0,2,1])
             y = MatMul(q, t)
             out y";
        assert_eq!(taps(text), ["wq.1 q.2[4] k.2[4]"]);
    }

    #[test]
    fn quantised_weights_are_weights() {
        let text = "in x [n,3,8,8]
             w = DequantizeLinear(w0:int8[4,3,3,3], <0.1>)
             a = Conv(x, w)
             v = DequantizeLinear(w1:int8[5,4,1,1], <0.1>)
             y = Conv(a, v)
             out y";
        assert_eq!(taps(text), ["w0.0 a.1[4]*v.1"]);
    }

    #[test]
    fn grouped_and_concatenated_channels() {
        let text = "in x [n,4,8,8]
             a = Conv(x, w0[4,4,1,1])
             b = Conv(x, w1[2,4,1,1])
             c = Concat(a, b, axis=1)
             y = Conv(c, w2[6,3,1,1], group=2)
             z = Conv(c, w3[3,6,1,1])
             out y, z";
        let found = taps(text);
        assert!(found.iter().all(|line| line.contains("c.1[6]*")), "{found:?}");
    }
}
