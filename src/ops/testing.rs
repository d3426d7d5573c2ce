//! Calls `patch` on a node written in the text form, before and after pruning.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use super::{Change, Edit, Refused, rule_for};
use crate::axes::Extent;
use crate::coupling::Coupling;
use crate::graph::Graph;
use crate::kept::Indices;
use crate::text;

/// Kept indices of (slot, axis).
pub(super) type KeptAxes<'a> = &'a [((usize, usize), &'a [u32])];

/// The edits for the last node of `before`. `after` is the model with everything sliced but the node not patched;
/// `outputs` are the extents that the outputs must have, `[n,4] [n,3]`.
pub(super) fn patch(before: &str, after: &str, outputs: &str, read: KeptAxes, made: KeptAxes) -> Refused<Vec<Edit>> {
    let models = [text::parse(before).unwrap(), text::parse(after).unwrap()];
    let graphs = [Graph::new(&models[0]).unwrap(), Graph::new(&models[1]).unwrap()];
    let couplings = [Coupling::of(&graphs[0]), Coupling::of(&graphs[1])];
    let last = [*graphs[0].order.last().unwrap(), *graphs[1].order.last().unwrap()];
    let extent = |text: &str| match text.parse() {
        Ok(n) => Extent::known(n),
        Err(_) => couplings[1].symbols.borrow_mut().named(text),
    };
    let outputs_after: Vec<Option<Vec<Extent>>> = outputs
        .split_whitespace()
        .map(|list| {
            let inner = list.trim_start_matches('[').trim_end_matches(']');
            Some(inner.split(',').filter(|e| !e.is_empty()).map(extent).collect())
        })
        .collect();
    let node = graphs[0].node(last[0]);
    let outputs_before: Vec<_> = node.outputs.iter().map(|o| o.and_then(|v| couplings[0].shape(v))).collect();
    let kept = |list: KeptAxes| -> BTreeMap<(usize, usize), Indices> {
        list.iter().map(|(place, indices)| (*place, Indices::from(*indices))).collect()
    };
    let (view_before, view_after) = (couplings[0].view(&graphs[0], last[0]), couplings[1].view(&graphs[1], last[1]));
    let change = Change {
        after: &view_after,
        outputs_before: &outputs_before,
        outputs_after: &outputs_after,
        input_kept: &kept(read),
        output_kept: &kept(made),
    };
    rule_for(node.domain(), node.op_type()).unwrap().rule.patch(&view_before, &change)
}
