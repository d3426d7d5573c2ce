//! Heads and head dimensions: what groups are in the attention products of a model.
//!
//! Rules say which of their letters are batch axes that two activations share, and which are contracted or passed on
//! there (`ops::Part`). A product without weights on both kinds is no attention: the pixels of two pictures multiplied
//! channel by channel have neither heads nor head dimensions. Positions are contracted or passed on, too, but softmax
//! locks them, and only what may shrink is marked.

use std::collections::BTreeMap;

use super::Group;
use crate::axes::Expr;
use crate::coupling::Coupling;
use crate::ops::Part;

/// Marks the groups; `index` finds a group by its atom. What is heads in one product and a head dimension in another
/// counts as heads.
pub(super) fn mark(coupling: &Coupling, groups: &mut [Group], index: &BTreeMap<Expr, usize>) {
    let mut marks: BTreeMap<usize, Part> = BTreeMap::new();
    for product in &coupling.parts {
        let of = |part: Part| -> Vec<usize> {
            let axes = product.iter().filter(|(_, own)| *own == part);
            axes.flat_map(|(axis, _)| coupling.space.atoms(*axis)).filter_map(|a| index.get(&a).copied()).collect()
        };
        let (heads, dimensions) = (of(Part::Heads), of(Part::HeadDimensions));
        if !heads.is_empty() && !dimensions.is_empty() {
            dimensions.into_iter().for_each(|g| _ = marks.entry(g).or_insert(Part::HeadDimensions));
            heads.into_iter().for_each(|g| _ = marks.insert(g, Part::Heads));
        }
    }
    for (group, part) in marks {
        if let Some(group) = groups.get_mut(group).filter(|group| group.lock.is_none()) {
            group.part = Some(part);
        }
    }
}
