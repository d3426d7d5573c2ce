//! Groups: coupled channels as things one can prune.
//!
//! Every undefined atom that some activation and some constant mention is a group; its members are the (constant, axis)
//! places that mention it. A group is prunable unless its atom is locked or has extent 1.
//!
//! Invariants: groups are ordered by the first node that reads a member; every member's axis has the group's atom in
//! its expression.

mod parts;
pub mod sharing;

use std::collections::{BTreeMap, BTreeSet};

use crate::axes::{Expr, LockId, Shape};
use crate::coupling::{Coupling, Role};
use crate::graph::{Graph, NodeId, ValueId};
use crate::ops::Part;
use crate::tasks::{TaskSet, Tasks};

/// One place where a group shows in a constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The constant.
    pub value: ValueId,
    /// The axis of it.
    pub axis: usize,
    /// Who reads it.
    pub node: NodeId,
    /// What the axis is to the reader.
    pub role: Role,
}

/// Channels that live and die together, index by index.
#[derive(Clone, Debug)]
pub struct Group {
    /// A name for people: the first weight that produces the channels, with its axis.
    pub name: String,
    /// The atom.
    pub atom: Expr,
    /// How many channels there are.
    pub extent: usize,
    /// Where they show.
    pub members: Vec<Member>,
    /// The tasks that they feed.
    pub tasks: TaskSet,
    /// Why they must stay, if they must.
    pub lock: Option<LockId>,
    /// What they are in an attention product, if they may shrink and are a part of one.
    pub part: Option<Part>,
    /// True if statistics are taken over them, so that they may shrink approximately at best.
    pub approximate: bool,
}

/// All groups of a model, in order.
pub fn find(graph: &Graph, coupling: &Coupling, tasks: &Tasks) -> Vec<Group> {
    let space = &coupling.space;
    let mut alive: BTreeSet<Expr> = BTreeSet::new();
    let mut seen: BTreeSet<Expr> = BTreeSet::new();
    for id in graph.value_ids().filter(|id| graph.value(*id).constant().is_none()) {
        for axis in coupling.axes[id.0 as usize].iter().flatten() {
            let axis = space.resolve(*axis);
            if seen.insert(axis) {
                alive.extend(space.atoms(axis));
            }
        }
    }
    // What one operator computes and sums over inside, such as the hidden units of experts, shows in its constants
    // only.
    let mut inside: BTreeMap<(NodeId, Expr), ValueId> = BTreeMap::new();
    for reading in &coupling.readings {
        let axes = coupling.axes[reading.value.0 as usize].iter().flatten();
        for atom in axes.flat_map(|axis| space.atoms(*axis)) {
            let other = inside.insert((reading.node, atom), reading.value);
            if other.is_some_and(|other| other != reading.value) {
                alive.insert(atom);
            }
        }
    }
    let approximate: BTreeSet<Expr> = coupling.approximate.iter().flat_map(|(_, axis, _)| space.atoms(*axis)).collect();
    let mut groups: Vec<Group> = Vec::new();
    let mut index: BTreeMap<Expr, usize> = BTreeMap::new();
    for reading in &coupling.readings {
        let axes = coupling.axes[reading.value.0 as usize].iter().flatten();
        for (axis, (expr, role)) in axes.zip(&reading.roles).enumerate() {
            for atom in space.atoms(*expr) {
                let Some(extent) = space.extent(atom).size().filter(|n| *n > 1) else { continue };
                if !alive.contains(&atom) {
                    continue;
                }
                let at = *index.entry(atom).or_insert_with(|| {
                    groups.push(Group {
                        name: String::new(),
                        atom,
                        extent,
                        members: Vec::new(),
                        tasks: TaskSet::default(),
                        lock: space.lock_of(atom),
                        part: None,
                        approximate: approximate.contains(&atom),
                    });
                    groups.len() - 1
                });
                groups[at].members.push(Member { value: reading.value, axis, node: reading.node, role: *role });
                groups[at].tasks.extend(tasks.of_node(reading.node));
            }
        }
    }
    name(graph, &mut groups);
    parts::mark(coupling, &mut groups, &index);
    groups
}

/// Names every group after the first member that produces its channels; equal names get a number.
fn name(graph: &Graph, groups: &mut [Group]) {
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    for group in groups {
        let rank = |member: &&Member| match member.role {
            Role::Produced => 0,
            Role::Scale => 1,
            Role::PerChannel => 2,
            Role::Contracted => 3,
            Role::Statistic => 4,
        };
        let Some(member) = group.members.iter().min_by_key(rank) else { continue };
        let base = format!("{}.{}", graph.value(member.value).name, member.axis);
        let count = used.entry(base.clone()).or_default();
        *count += 1;
        group.name = if *count == 1 { base } else { format!("{base}#{count}") };
    }
}

/// The nestings in which more than one factor may shrink: each entry lists the free groups factor by factor, outermost
/// first. Those of weights come before those of values alone, and shorter ones before longer ones: the size of a weight
/// is what counts, and where there is less to choose from, the choice comes first. Shrinking all of them at once would
/// remove more than was asked for. Heads and head dimensions on axes of their own count as nested, as they are where a
/// weight has them on one.
pub fn nestings(coupling: &Coupling, groups: &[Group]) -> Vec<Vec<Vec<usize>>> {
    let space = &coupling.space;
    let index: BTreeMap<Expr, usize> =
        groups.iter().enumerate().filter(|(_, g)| g.lock.is_none()).map(|(i, g)| (g.atom, i)).collect();
    let weights = coupling.readings.iter().map(|reading| &coupling.axes[reading.value.0 as usize]);
    let axes = weights.map(|axes| (axes, false)).chain(coupling.axes.iter().map(|axes| (axes, true)));
    let mut seen: BTreeSet<Expr> = BTreeSet::new();
    // The nestings, and whether values alone have them.
    let mut nestings: BTreeMap<Vec<Vec<usize>>, bool> = BTreeMap::new();
    for (axis, of_values) in axes.flat_map(|(axes, v)| axes.iter().flatten().map(move |axis| (axis, v))) {
        let mut stack = vec![space.resolve(*axis)];
        while let Some(expr) = stack.pop() {
            if !seen.insert(expr) {
                continue;
            }
            match space.shape(expr) {
                Shape::Sum(terms) => stack.extend(terms),
                Shape::Product(factors) => {
                    let free = |f: &Expr| -> Vec<usize> {
                        space.atoms(*f).iter().filter_map(|a| index.get(a).copied()).collect()
                    };
                    let free: Vec<Vec<usize>> = factors.iter().map(free).filter(|f| !f.is_empty()).collect();
                    if free.len() > 1 {
                        nestings.entry(free).or_insert(of_values);
                    }
                    stack.extend(factors);
                }
                Shape::Atom | Shape::One => {}
            }
        }
    }
    for reading in &coupling.readings {
        let axes = coupling.axes[reading.value.0 as usize].iter().flatten();
        let free = |axis: &Expr| space.atoms(*axis).iter().filter_map(|a| index.get(a).copied()).collect();
        let axes: Vec<Vec<usize>> = axes.map(free).collect();
        let alone = |part: Part| {
            let is_alone =
                move |axis: &&Vec<usize>| !axis.is_empty() && axis.iter().all(|g| groups[*g].part == Some(part));
            axes.iter().filter(is_alone).cloned().collect::<Vec<_>>()
        };
        let (heads, dimensions) = (alone(Part::Heads), alone(Part::HeadDimensions));
        if !heads.is_empty() && !dimensions.is_empty() {
            nestings.insert([heads, dimensions].concat(), false);
        }
    }
    let mut nestings: Vec<(Vec<Vec<usize>>, bool)> = nestings.into_iter().collect();
    nestings.sort_by_key(|(factors, of_values)| (*of_values, factors.len()));
    nestings.into_iter().map(|(factors, _)| factors).collect()
}
