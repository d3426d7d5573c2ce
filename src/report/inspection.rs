//! What a model is before anything is pruned: its tasks, its groups, what can go and what holds the rest.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{FileRow, Opaque, Part, Reason, TaskRow, count, json, locks, opaque, parts, task_rows, words};
use crate::Result;
use crate::prune::Analysis;

/// A model as a pruner sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// The file.
    pub input: FileRow,
    /// How many nodes the graph has.
    pub nodes: usize,
    /// Elements of weights.
    pub parameters: Share,
    /// Multiply-accumulates of one run.
    pub macs: Share,
    /// True if `macs` are those of one element of every dynamic axis.
    pub macs_per_dynamic_element: bool,
    /// What feeds the same tasks; `before` and `after` are equal.
    pub parts: Vec<Part>,
    /// All that feeds a task; `before` and `after` are equal.
    pub tasks: Vec<TaskRow>,
    /// The coupled channel groups.
    pub groups: Vec<GroupRow>,
    /// Why parameters stay, the biggest share first.
    pub stays: Vec<Reason>,
    /// Nodes that no rule describes.
    pub opaque: Vec<Opaque>,
}

/// A total and what of it pruning can reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// All.
    pub total: u64,
    /// What depends on at least one group that may shrink.
    pub prunable: u64,
}

/// One coupled channel group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupRow {
    /// Its name.
    pub name: String,
    /// How many channels it has.
    pub channels: usize,
    /// Where it shows: constants with their axes.
    pub members: Vec<String>,
    /// The tasks that it feeds.
    pub tasks: Vec<String>,
    /// `heads` or `head dimensions`, if it is that in an attention product.
    pub part: Option<&'static str>,
    /// True if it may shrink only because approximations were allowed.
    pub approximate: bool,
    /// True if it may shrink.
    pub prunable: bool,
    /// Why it may not.
    pub reason: Option<String>,
}

impl Inspection {
    /// Looks at a model.
    pub fn new(analysis: &Analysis, input: FileRow) -> Self {
        let statistics = count::statistics(&analysis.graph, &analysis.coupling);
        let stored = count::stored(&analysis.graph, &analysis.tasks, &statistics, &BTreeMap::new());
        let costs = count::by_tasks(&stored, &analysis.tasks, &analysis.coupling.macs);
        let stays = locks::reasons(analysis, &stored, None);
        let total: u64 = stored.iter().map(|s| s.elements).sum();
        let stay: u64 = stays.iter().map(|r| r.parameters).sum();
        let free = analysis.groups.iter().filter(|g| g.lock.is_none());
        let nodes: BTreeSet<usize> = free.flat_map(|g| &g.members).map(|m| m.node.0 as usize).collect();
        let mut macs = Share::default();
        for (index, cost) in analysis.coupling.macs.iter().enumerate() {
            let cost = cost.as_ref().map_or(0, count::count);
            macs.total = macs.total.saturating_add(cost);
            if nodes.contains(&index) {
                macs.prunable = macs.prunable.saturating_add(cost);
            }
        }
        Self {
            input,
            nodes: analysis.graph.nodes.len(),
            parameters: Share { total, prunable: total.saturating_sub(stay) },
            macs,
            macs_per_dynamic_element: count::is_symbolic(&analysis.coupling.macs),
            parts: parts(&analysis.tasks, &costs, &costs),
            tasks: task_rows(analysis, &costs, &costs),
            groups: group_rows(analysis),
            stays,
            opaque: opaque(analysis),
        }
    }

    /// The inspection for machines.
    ///
    /// # Errors
    /// None that an inspection can cause; serialisation is fallible by type only.
    pub fn json(&self) -> Result<String> {
        json(self)
    }
}

fn group_rows(analysis: &Analysis) -> Vec<GroupRow> {
    let rows = analysis.groups.iter().map(|group| {
        let lock = group.lock.and_then(|lock| analysis.coupling.lock(lock));
        let mut seen = BTreeSet::new();
        let places = group.members.iter().filter(|m| seen.insert((analysis.graph.value(m.value).name, m.axis)));
        GroupRow {
            name: group.name.clone(),
            channels: group.extent,
            members: places.map(|m| format!("{}.{}", analysis.graph.value(m.value).name, m.axis)).collect(),
            tasks: group.tasks.iter().filter_map(|t| analysis.tasks.tasks.get(t)).map(|t| t.name.clone()).collect(),
            part: group.part.map(words::part),
            approximate: group.approximate && group.lock.is_none(),
            prunable: group.lock.is_none(),
            reason: lock.map(|lock| locks::sentence(&analysis.graph, lock)),
        }
    });
    rows.collect()
}
