//! Nested groups: which factors of an axis shrink.
//!
//! An axis (H D) lets whole heads go (a factor H), the same dimensions of every head (D), or both; each is exact by
//! itself, because either is a set of atoms with a mask of its own, so all at once are exact, too. Shrinking all of
//! them removes more than was asked for, so by default one does: the one that shrinks another nesting already, else the
//! one that comes nearest to the fraction asked for, else one that is exact before one that approximates, else one that
//! some weight or table holds by itself (it would otherwise stay whole), else the innermost. Where the user asks for
//! heads to shrink, for their dimensions, or for both, one factor of each kind does.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeSet;

use super::{AllocateConfig, Held, Plan, kept_count};
use crate::coupling::Coupling;
use crate::groups::{Group, nestings};
use crate::ops::Part;

/// What the user wants to become of a part of attention products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It stays whole.
    Keep,
    /// It shrinks, whatever else does.
    Prune,
}

/// Notes which groups stay whole because the user keeps them or because what they are nested with shrinks.
pub(super) fn hold(coupling: &Coupling, groups: &[Group], config: &AllocateConfig, plan: &mut Plan) {
    let asked = [(Part::Heads, config.heads), (Part::HeadDimensions, config.head_dims)];
    for (index, group) in groups.iter().enumerate().filter(|(_, group)| group.lock.is_none()) {
        if let Some(part) = group.part.filter(|part| asked.contains(&(*part, Some(Choice::Keep)))) {
            plan.held.entry(index).or_insert(Held::Part(part));
        }
    }
    let wanted: Vec<Part> = asked.iter().filter(|(_, c)| *c == Some(Choice::Prune)).map(|(part, _)| *part).collect();
    // Decided on what the user holds alone, so that the order of the nestings does not matter.
    let held: BTreeSet<usize> = plan.held.keys().copied().collect();
    let mut shrinking: BTreeSet<usize> = BTreeSet::new();
    let mut nestings = nestings(coupling, groups);
    // The longest first: (K Q) alone says less of what should shrink than (K Q D), of which it is a part.
    nestings.sort_by_key(|factors| Reverse(factors.len()));
    for factors in nestings {
        let is = |factor: &[usize], part: Part| factor.iter().any(|g| groups[*g].part == Some(part));
        let open = |held: &dyn Fn(usize) -> bool| -> Vec<&Vec<usize>> {
            factors.iter().filter(|factor| factor.iter().any(|g| !held(*g))).collect()
        };
        let asked_for = open(&|g| held.contains(&g));
        let mut chosen: Vec<&Vec<usize>> = Vec::new();
        for part in &wanted {
            let of_part = asked_for.iter().copied().filter(|factor| is(factor, *part));
            // Whole heads go with the heads of keys and values that they share: the outermost among equals.
            let nearest = of_part.min_by(|a, b| order(groups, config, a, b));
            chosen.extend(nearest);
        }
        let rest = if chosen.is_empty() { open(&|g| plan.held.contains_key(&g)) } else { asked_for };
        if chosen.is_empty() {
            let elsewhere = |factor: &[usize]| factor.iter().any(|g| shrinking.contains(g));
            let idle = |factor: &[usize]| !factor.iter().any(|g| alone(coupling, &groups[*g]));
            chosen.extend(rest.iter().rev().min_by(|a, b| {
                let nearest = elsewhere(b).cmp(&elsewhere(a)).then_with(|| order(groups, config, a, b));
                nearest.then_with(|| idle(a).cmp(&idle(b)))
            }));
        }
        shrinking.extend(chosen.iter().flat_map(|factor| factor.iter().copied()));
        let Some(first) = chosen.first().and_then(|factor| factor.first()) else { continue };
        for group in rest.iter().flat_map(|factor| factor.iter()).filter(|g| !shrinking.contains(g)) {
            plan.held.entry(*group).or_insert(Held::Nested(*first));
        }
    }
}

/// Which of two factors shrinks rather.
fn order(groups: &[Group], config: &AllocateConfig, a: &[usize], b: &[usize]) -> Ordering {
    let approximates = |factor: &[usize]| factor.iter().any(|g| groups[*g].approximate);
    let errors = error(groups, config, a).total_cmp(&error(groups, config, b));
    errors.then(approximates(a).cmp(&approximates(b)))
}

/// How far from the fraction asked for a factor ends up if it alone shrinks.
fn error(groups: &[Group], config: &AllocateConfig, factor: &[usize]) -> f64 {
    let (kept, asked, all) = factor.iter().fold((0, 0.0, 0), |(kept, asked, all), g| {
        let (extent, ratio) = (groups[*g].extent, config.ratio_of(&groups[*g]));
        (kept + kept_count(extent, ratio, config), asked + extent as f64 * (1.0 - ratio), all + extent)
    });
    (kept as f64 - asked).abs() / all.max(1) as f64
}

/// True if the group is an axis, or a part of one, of a weight or a table without being nested there.
fn alone(coupling: &Coupling, group: &Group) -> bool {
    let space = &coupling.space;
    group.members.iter().any(|member| {
        let axes = coupling.axes[member.value.0 as usize].as_deref().unwrap_or_default();
        // Vectors of one number per channel are no loss.
        let is_table = axes.iter().filter(|axis| !space.extent(**axis).is_one()).count() > 1;
        let axis = axes.get(member.axis).filter(|_| is_table);
        axis.is_some_and(|axis| space.terms(*axis).iter().any(|term| space.resolve(*term) == group.atom))
    })
}
