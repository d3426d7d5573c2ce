//! What keeps parameters from being pruned, in plain sentences and shares.
//!
//! A constant's parameters can be pruned if one of its axes mentions a group that may shrink. Invariant: of every other
//! constant the whole counts for one reason, that of the channels it makes, or else of the next axis that has one; so
//! the shares add up to the share that stays.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::count::Stored;
use crate::allocate::{Held, Plan};
use crate::axes::Expr;
use crate::coupling::{Coupling, Lock, Role};
use crate::graph::Graph;
use crate::groups::Group;
use crate::prune::Analysis;
use crate::tasks::Tasks;

/// A reason and the parameters that it keeps.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reason {
    /// The sentence, with the node or tensor.
    pub reason: String,
    /// The sentence without its place; several places may have it in common.
    pub why: String,
    /// The parameters in constants that stay because of it.
    pub parameters: u64,
    /// Their share of all parameters, 0 to 1.
    pub share: f64,
}

/// The reasons why parameters stay, the biggest first. With a plan, groups that it holds count as well.
pub(super) fn reasons(analysis: &Analysis, stored: &[Stored], plan: Option<&Plan>) -> Vec<Reason> {
    let held = |index: usize| plan.and_then(|p| p.held.get(&index));
    let indexed = || analysis.groups.iter().enumerate();
    let free: BTreeSet<Expr> =
        indexed().filter(|(i, g)| g.lock.is_none() && held(*i).is_none()).map(|(_, g)| g.atom).collect();
    let holding: BTreeMap<Expr, String> = indexed()
        .filter_map(|(i, g)| Some((g.atom, held_sentence(held(i)?, &analysis.groups, &analysis.tasks))))
        .collect();
    let mut roles: BTreeMap<crate::graph::ValueId, &[Role]> = BTreeMap::new();
    for reading in &analysis.coupling.readings {
        roles.entry(reading.value).or_insert(&reading.roles);
    }
    let total: u64 = stored.iter().map(|s| s.elements).sum();
    let mut sums: BTreeMap<(String, String), u64> = BTreeMap::new();
    for constant in stored {
        let axes = axes(&analysis.coupling, constant, &roles);
        let space = &analysis.coupling.space;
        if axes.iter().any(|axis| space.atoms(*axis).iter().any(|atom| free.contains(atom))) {
            continue;
        }
        let atoms = axes.iter().flat_map(|axis| space.atoms(*axis)).filter(|a| !space.extent(*a).is_one());
        let known = atoms.filter_map(|atom| match space.lock_of(atom) {
            Some(lock) => analysis.coupling.lock(lock).map(|lock| (sentence(&analysis.graph, lock), lock.why.clone())),
            None => holding.get(&atom).map(|held| (held.clone(), held.clone())),
        });
        let reason = known.into_iter().next().unwrap_or_else(|| {
            let why = no_channels(analysis, constant);
            (why.clone(), why)
        });
        *sums.entry(reason).or_default() += constant.elements;
    }
    let mut reasons: Vec<Reason> = sums
        .into_iter()
        .filter(|(_, parameters)| *parameters > 0)
        .map(|((reason, why), parameters)| Reason {
            reason,
            why,
            parameters,
            share: parameters as f64 / total.max(1) as f64,
        })
        .collect();
    reasons.sort_by(|a, b| b.parameters.cmp(&a.parameters).then_with(|| a.reason.cmp(&b.reason)));
    reasons
}

/// A lock as a sentence with its place.
pub(super) fn sentence(graph: &Graph, lock: &Lock) -> String {
    match (lock.node, lock.value) {
        (Some(node), _) => format!("{} at node `{}`", lock.why, graph.node(node).label()),
        (None, Some(value)) => format!("{} `{}`", lock.why, graph.value(value).name),
        (None, None) => lock.why.clone(),
    }
}

fn held_sentence(held: &Held, groups: &[Group], tasks: &Tasks) -> String {
    match held {
        Held::Protected(name) => format!("`{name}` is protected"),
        Held::Tasks(own) => format!("task {} is protected", tasks.names(own)),
        Held::Part(part) => format!("{} are kept on demand", super::words::part(*part)),
        Held::Copies => "copies of a shared constant would take more than what goes".to_owned(),
        Held::Nested(other) => {
            let other = groups.get(*other).map_or("another group", |g| g.name.as_str());
            format!("nested with `{other}`, which shrinks instead")
        }
    }
}

/// The axes of a constant: those that make channels first, those that contract them last.
fn axes(coupling: &Coupling, constant: &Stored, roles: &BTreeMap<crate::graph::ValueId, &[Role]>) -> Vec<Expr> {
    let mut axes: Vec<(u8, Expr)> = Vec::new();
    for value in &constant.values {
        let roles = roles.get(value).copied().unwrap_or_default();
        let expressions = coupling.axes.get(value.0 as usize).and_then(Option::as_ref).into_iter().flatten();
        for (axis, expr) in expressions.enumerate() {
            axes.push((u8::from(roles.get(axis) == Some(&Role::Contracted)), *expr));
        }
    }
    axes.sort_by_key(|(rank, _)| *rank);
    axes.into_iter().map(|(_, axis)| axis).collect()
}

fn no_channels(analysis: &Analysis, constant: &Stored) -> String {
    let is_read = constant.values.iter().any(|v| !analysis.graph.value(*v).readers.is_empty());
    let reason = match (is_read, constant.elements) {
        (false, _) => "no node reads them",
        (true, 0 | 1) => "they stand alone on their axes",
        (true, _) => "their axes reach no activation",
    };
    reason.to_owned()
}
