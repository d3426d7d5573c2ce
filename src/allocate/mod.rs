//! Allocation: scores and a budget become a plan, the kept indices of every group.
//!
//! Uniform: the same fraction of every prunable group goes, or of every group that feeds the same tasks. Global: as many
//! channels stay in all, wherever they are.
//! Invariants: a group never falls below the floor
//! (`min_channels`, `1 - max_ratio`, one channel); of nested groups one shrinks unless more are asked for; ties go to
//! the lower index, so the plan is a function of its inputs.

mod count;
mod global;
mod nesting;
mod pattern;
mod ratios;

use std::collections::BTreeMap;

use crate::aggregate::top;
use crate::axes::Expr;
use crate::coupling::Coupling;
use crate::graph::Graph;
use crate::groups::Group;
use crate::ops::Part;
use crate::tasks::TaskSet;
use crate::{Error, Result};

pub use count::{Rounding, kept_count};
pub use global::global;
pub use nesting::Choice;
pub use pattern::matches;
pub use ratios::TaskRatios;

/// What the user asks of an allocation.
#[derive(Clone, Debug, PartialEq)]
pub struct AllocateConfig {
    /// The fraction of the channels of every prunable group that goes; 0 <= ratio < 1.
    pub ratio: f64,
    /// What the kept counts are rounded to.
    pub rounding: Rounding,
    /// No group keeps fewer channels than this.
    pub min_channels: usize,
    /// No group loses more than this fraction.
    pub max_ratio: f64,
    /// Groups that touch a node or tensor whose name matches one of these (`*` and `?`) stay whole.
    pub protect: Vec<String>,
    /// What becomes of whole heads of attention products; `None` leaves it to what nests them.
    pub heads: Option<Choice>,
    /// What becomes of the dimensions inside their heads.
    pub head_dims: Option<Choice>,
    /// What differs from task to task.
    pub tasks: TaskRatios,
}

impl AllocateConfig {
    /// The fraction of the channels of one group that goes.
    pub fn ratio_of(&self, group: &Group) -> f64 {
        self.tasks.ratio(&group.tasks, self.ratio)
    }
}

/// Why a group that could shrink stays whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// A name that the user protects.
    Protected(String),
    /// It feeds tasks that the user protects, and no others; their indices.
    Tasks(TaskSet),
    /// The user keeps heads, or what is inside them.
    Part(Part),
    /// It is nested with another group of the same axes, which shrinks instead; its index.
    Nested(usize),
    /// Readings of one constant would need copies of their own that take more than what is removed.
    Copies,
}

/// What becomes of every group.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Kept indices by group; `None` = the group stays whole.
    pub kept: Vec<Option<Vec<u32>>>,
    /// Why prunable groups stay whole, by group.
    pub held: BTreeMap<usize, Held>,
}

impl Plan {
    /// The keep-masks of the groups that shrink, by atom.
    pub fn masks(&self, groups: &[Group]) -> BTreeMap<Expr, Vec<bool>> {
        let shrunk = groups.iter().zip(&self.kept).filter_map(|(group, kept)| Some((group, kept.as_ref()?)));
        shrunk
            .map(|(group, kept)| {
                let mut mask = vec![false; group.extent];
                for index in kept {
                    if let Some(keep) = mask.get_mut(*index as usize) {
                        *keep = true;
                    }
                }
                (group.atom, mask)
            })
            .collect()
    }
}

/// What is known before channels are scored: a plan that says which groups are held, and how many channels of every
/// group the ratio leaves.
///
/// # Errors
/// A ratio outside [0, 1), or other numbers that make no sense; a pattern that matches no name.
pub fn counts(
    graph: &Graph,
    coupling: &Coupling,
    groups: &[Group],
    config: &AllocateConfig,
) -> Result<(Plan, Vec<usize>)> {
    check(config)?;
    check_patterns(graph, &config.protect)?;
    let mut plan = Plan { kept: vec![None; groups.len()], held: BTreeMap::new() };
    for (index, group) in groups.iter().enumerate() {
        if group.lock.is_none()
            && let Some(name) = protected(graph, group, &config.protect)
        {
            plan.held.insert(index, Held::Protected(name));
        } else if group.lock.is_none() && config.tasks.protects(&group.tasks) {
            plan.held.insert(index, Held::Tasks(group.tasks.clone()));
        }
    }
    nesting::hold(coupling, groups, config, &mut plan);
    let is_open = |index: usize, group: &Group| group.lock.is_none() && !plan.held.contains_key(&index);
    let count = |(index, group): (usize, &Group)| match is_open(index, group) {
        true => kept_count(group.extent, config.ratio_of(group), config),
        false => group.extent,
    };
    let counts = groups.iter().enumerate().map(count).collect();
    Ok((plan, counts))
}

/// The same fraction of every prunable group.
///
/// # Errors
/// A ratio outside [0, 1), or other numbers that make no sense.
pub fn uniform(
    graph: &Graph,
    coupling: &Coupling,
    groups: &[Group],
    scores: &[Vec<f64>],
    config: &AllocateConfig,
) -> Result<Plan> {
    let (mut plan, counts) = counts(graph, coupling, groups, config)?;
    for (index, ((group, scores), count)) in groups.iter().zip(scores).zip(counts).enumerate() {
        if count < group.extent {
            plan.kept[index] = Some(best(scores, count));
        }
    }
    Ok(plan)
}

/// The `count` indices of the highest scores, ascending.
fn best(scores: &[f64], count: usize) -> Vec<u32> {
    (0u32..).zip(top(scores, count)).filter(|(_, keep)| *keep).map(|(index, _)| index).collect()
}

/// The first protected name that a group touches.
fn protected(graph: &Graph, group: &Group, patterns: &[String]) -> Option<String> {
    if patterns.is_empty() {
        return None;
    }
    group.members.iter().find_map(|member| {
        let node = graph.node(member.node);
        let values = node.inputs.iter().chain(&node.outputs).flatten().map(|v| graph.value(*v).name.to_owned());
        let mut names = values.chain([node.label()]);
        names.find(|name| patterns.iter().any(|p| matches(p, name)))
    })
}

/// Refuses patterns that protect nothing because they are misspelled.
fn check_patterns(graph: &Graph, patterns: &[String]) -> Result<()> {
    let is_known = |pattern: &String| {
        graph.value_ids().any(|id| matches(pattern, graph.value(id).name))
            || graph.nodes.iter().any(|node| matches(pattern, &node.label()))
    };
    match patterns.iter().find(|pattern| !is_known(pattern)) {
        None => Ok(()),
        Some(pattern) => Err(Error::input(format!("--protect {pattern} matches no node and no tensor of the model"))
            .help("give a name, or a pattern with * and ?; they stand for any text and one character")),
    }
}

fn check(config: &AllocateConfig) -> Result<()> {
    let wrong = |name: &str, value: f64, range: &str| {
        Err(Error::input(format!("{name} is {value}, it must lie in {range}"))
            .help(format!("give --{name} a value in {range}")))
    };
    if !(config.ratio >= 0.0 && config.ratio < 1.0) {
        return wrong("ratio", config.ratio, "[0, 1)");
    }
    if !(config.max_ratio >= 0.0 && config.max_ratio <= 1.0) {
        return wrong("max-ratio", config.max_ratio, "[0, 1]");
    }
    if config.min_channels == 0 {
        return wrong("min-channels", 0.0, "1, 2, …");
    }
    Ok(())
}
