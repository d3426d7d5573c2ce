//! Why channels must stay, as a chain that a person can follow: from a weight or tensor, through the nodes that couple
//! its channels with others, to the place that locks them.
//!
//! Invariant: every tensor of a chain has the locked channels on one of its axes, and every step is a node that reads
//! or makes both tensors; the chain is a shortest one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;

use super::locks::sentence;
use crate::axes::Expr;
use crate::coupling::Role;
use crate::graph::{NodeId, Source, ValueId};
use crate::groups::Group;
use crate::prune::Analysis;
use crate::{Error, Result};

/// Explains every group called `name`, or whose channels lie on a tensor called `name`.
///
/// # Errors
/// A name that neither a group nor a tensor has.
pub fn explain(analysis: &Analysis, name: &str) -> Result<String> {
    let graph = &analysis.graph;
    let mut atoms: Vec<(Expr, Vec<ValueId>)> = Vec::new();
    let mut add = |atom: Expr, starts: Vec<ValueId>| {
        if !atoms.iter().any(|(known, _)| *known == atom) {
            atoms.push((atom, starts));
        }
    };
    for group in analysis.groups.iter().filter(|g| g.name == name) {
        // From where the channels are made, if they are made by a weight.
        let made: Vec<ValueId> = group.members.iter().filter(|m| m.role == Role::Produced).map(|m| m.value).collect();
        let all = || group.members.iter().map(|m| m.value).collect();
        add(group.atom, if made.is_empty() { all() } else { made });
    }
    let values: Vec<ValueId> = graph.value_ids().filter(|id| graph.value(*id).name == name).collect();
    for value in &values {
        for axis in analysis.coupling.axes[value.0 as usize].iter().flatten() {
            for atom in analysis.coupling.space.atoms(*axis) {
                add(atom, vec![*value]);
            }
        }
    }
    if atoms.is_empty() && values.is_empty() {
        return Err(Error::input(format!("neither a group nor a tensor is called `{name}`"))
            .help("`inspect MODEL -v` lists the groups"));
    }
    let mut page = String::new();
    if atoms.is_empty() {
        let _ = writeln!(page, "`{name}`: its axes are not known, so nothing that they are coupled with may shrink");
    }
    for (atom, starts) in atoms {
        page += &explanation(analysis, atom, &starts);
    }
    Ok(page)
}

/// One atom: what it is, whether it may shrink, and the chain to its lock.
fn explanation(analysis: &Analysis, atom: Expr, starts: &[ValueId]) -> String {
    let coupling = &analysis.coupling;
    let group = analysis.groups.iter().find(|g| g.atom == atom);
    let extent = coupling.symbols.borrow().text(coupling.space.extent(atom));
    let mut page = match group {
        Some(group) => format!("{}: {extent} channels", group.name),
        None => format!("an axis of extent {extent} without weights"),
    };
    let Some(lock) = coupling.space.lock_of(atom).and_then(|id| coupling.lock(id)) else {
        let only = coupling.space.extent(atom).is_one();
        page += match (group, only) {
            (_, true) => ", a single one that must stay\n",
            (Some(_), _) => ", may shrink\n",
            (None, _) => ", stays because nothing scores it\n",
        };
        return page + &members(analysis, group);
    };
    let _ = writeln!(page, ", may not shrink: {}", sentence(&analysis.graph, lock));
    for (value, node) in chain(analysis, atom, starts, lock.node, lock.value) {
        let name = analysis.graph.value(value).name;
        let _ = match node {
            Some(node) => {
                let node = analysis.graph.node(node);
                writeln!(page, "    `{name}` through {} `{}`", node.op_type(), node.label())
            }
            None => writeln!(page, "    `{name}`"),
        };
    }
    page + &members(analysis, group)
}

fn members(analysis: &Analysis, group: Option<&Group>) -> String {
    let Some(group) = group else { return String::new() };
    let names: BTreeSet<String> =
        group.members.iter().map(|m| format!("`{}` axis {}", analysis.graph.value(m.value).name, m.axis)).collect();
    format!("    its weights: {}\n", names.into_iter().collect::<Vec<_>>().join(", "))
}

/// The shortest way from the starts to the lock: each tensor with the node that leads on.
fn chain(
    analysis: &Analysis,
    atom: Expr,
    starts: &[ValueId],
    node: Option<NodeId>,
    value: Option<ValueId>,
) -> Vec<(ValueId, Option<NodeId>)> {
    let graph = &analysis.graph;
    let mentions = |id: ValueId| {
        let mut axes = analysis.coupling.axes[id.0 as usize].iter().flatten();
        axes.any(|axis| analysis.coupling.space.atoms(*axis).contains(&atom))
    };
    let mut from: BTreeMap<ValueId, Option<(ValueId, NodeId)>> = starts.iter().map(|s| (*s, None)).collect();
    let mut queue: VecDeque<ValueId> = starts.iter().copied().collect();
    while let Some(at) = queue.pop_front() {
        let producer = match graph.value(at).source {
            Source::Node(producer, _) => Some(producer),
            _ => None,
        };
        let readers: Vec<NodeId> = graph.value(at).readers.iter().map(|(reader, _)| *reader).chain(producer).collect();
        let arrived = readers.iter().copied().find(|n| Some(*n) == node);
        if arrived.is_some() || (node.is_none() && Some(at) == value) {
            let mut way = vec![(at, arrived)];
            let mut step = from.get(&at).copied().flatten();
            while let Some((before, through)) = step {
                way.push((before, Some(through)));
                step = from.get(&before).copied().flatten();
            }
            way.reverse();
            return way;
        }
        for reader in readers {
            let reader_node = graph.node(reader);
            for next in reader_node.inputs.iter().chain(&reader_node.outputs).flatten() {
                if !from.contains_key(next) && mentions(*next) {
                    from.insert(*next, Some((at, reader)));
                    queue.push_back(*next);
                }
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::explain;
    use crate::prune::Analysis;
    use crate::text;

    #[test]
    fn the_chain_leads_from_the_weight_to_the_lock() {
        let model = text::parse(
            "in x [1,3,4,4]
             a = Conv(x, w0[8,3,1,1])
             b = Relu(a)
             s = Softmax(b, axis=1)
             y = Conv(s, w1[5,8,1,1])
             c = Conv(x, w2[6,3,1,1])
             z = Conv(c, w3[2,6,1,1])
             out y, z",
        )
        .unwrap();
        let analysis = Analysis::of(&model, &[]).unwrap();
        let page = explain(&analysis, "w0.0").unwrap();
        let lines: Vec<&str> = page.lines().map(str::trim).collect();
        assert!(lines[0].contains("may not shrink") && lines[0].contains("Softmax:s"), "{page}");
        assert_eq!(
            lines[1..4],
            ["`w0` through Conv `Conv:a`", "`a` through Relu `Relu:b`", "`b` through Softmax `Softmax:s`"]
        );
        assert!(explain(&analysis, "w2.0").unwrap().contains("6 channels, may shrink"));
        assert!(explain(&analysis, "c").unwrap().contains("w2.0: 6 channels, may shrink"));
        assert!(explain(&analysis, "nothing").is_err());
    }
}
