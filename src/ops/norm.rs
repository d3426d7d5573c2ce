//! Normalisations: statistics over an axis lock it, one number per channel follows the channel.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__BatchNormalization.html> and the pages beside it. What differs between
//! operator sets: `spatial` of BatchNormalization (before 9), training by `is_test` (before 7), by its outputs (7 to
//! 13) or by `training_mode` (14); the scale of GroupNormalization is per group before 21 and per channel since.

use std::collections::BTreeMap;

use super::elementwise::align;
use super::{Change, Edit, NodeView, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;

pub(super) const STATISTICS: &str = "its statistics are taken over this axis";

/// BatchNormalization: stored statistics at inference, so every axis passes through.
pub(super) struct BatchNormalization;

impl Rule for BatchNormalization {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let rank = node.rank(0)?;
        if rank < 2 {
            return Err(Refusal::new("its input has no channel axis"));
        }
        if node.int("spatial", 1) == 0 {
            return Err(Refusal::new("it has statistics for every position (`spatial` is 0)"));
        }
        let statistics = node.node.outputs.iter().skip(1).any(Option::is_some);
        let training =
            node.int("training_mode", 0) != 0 || statistics || (node.opset() < 7 && node.int("is_test", 0) == 0);
        let letters = |batch: &str, spatial: &str| {
            let mut words = vec![batch.to_owned(), "C".to_owned()];
            words.extend((2..rank).map(|i| format!("{spatial}{i}")));
            words.join(" ")
        };
        let x = if training { letters("n", "h") } else { letters("N", "H") };
        let more = ", C".repeat(node.outputs.saturating_sub(1));
        let text = format!("{x}, C, C, C, C -> {x}{more}");
        Ok(Signature::parse(&text, STATISTICS)?.scaled_by(1).with_statistics(&[3, 4]))
    }
}

/// InstanceNormalization: statistics over the spatial axes of one channel. Exporters spell GroupNormalization with it,
/// (c h w) in place of the spatial axes.
pub(super) struct InstanceNormalization;

impl Rule for InstanceNormalization {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let rank = node.rank(0)?;
        if rank < 3 {
            return Err(Refusal::new("its input has no spatial axes"));
        }
        let spatial: Vec<String> = (2..rank).map(|i| format!("h{i}")).collect();
        let x = format!("N C {}", spatial.join(" "));
        let spatial: Vec<&str> = spatial.iter().map(String::as_str).collect();
        Ok(Signature::parse(&format!("{x}, C, C -> {x}"), STATISTICS)?.approximately(&spatial).scaled_by(1))
    }

    fn approximate(&self) -> Option<&'static str> {
        Some("the spatial axes, as far as channels of a group lie there")
    }
}

/// GroupNormalization: statistics over the channels of one group and the spatial axes; whole groups may go.
pub(super) struct GroupNormalization;

impl Rule for GroupNormalization {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let rank = node.rank(0)?;
        let groups = node.maybe_int("num_groups").ok_or_else(|| Refusal::new("it has no `num_groups`"))?;
        if rank < 2 {
            return Err(Refusal::new("its input has no channel axis"));
        }
        let spatial: String = (2..rank).map(|i| format!(" h{i}")).collect();
        let x = format!("N (G c){spatial}");
        let scale = if node.opset() < 21 { "G" } else { "(G c)" };
        let signature = Signature::parse(&format!("{x}, {scale}, {scale} -> {x}"), STATISTICS)?;
        Ok(signature.with("G", Extent::known(groups)).approximately(&["c"]).scaled_by(1))
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let Some(kept) = change.input_kept.get(&(0, 1)) else { return Ok(Vec::new()) };
        let groups = before.int("num_groups", 1);
        let group = before.extent(0, 1)?.divided_by(&Extent::known(groups)).and_then(|group| group.value());
        let mut left: BTreeMap<i64, usize> = BTreeMap::new();
        for index in kept.iter() {
            let group = group.and_then(|group| i64::from(*index).checked_div(group));
            *left.entry(group.ok_or_else(|| Refusal::new("the size of its groups is not known"))?).or_default() += 1;
        }
        let mut sizes = left.values();
        let is_even = sizes.next().is_some_and(|first| sizes.all(|size| size == first));
        match i64::try_from(left.len()).ok().filter(|_| is_even) {
            None => Err(Refusal::new("the kept channels do not fall into equal groups")),
            Some(left) if left == groups => Ok(Vec::new()),
            Some(left) => Ok(vec![Edit::Int("num_groups", left)]),
        }
    }

    fn approximate(&self) -> Option<&'static str> {
        Some("the channels inside a group, the same of every group")
    }
}

/// LayerNormalization: statistics over the axes from `axis` on; the others pass through.
pub(super) struct LayerNormalization;

impl Rule for LayerNormalization {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let (mut signature, normalised) = normalisation(node)?;
        for term in &normalised {
            signature.fix_unless_approximate(term, STATISTICS);
        }
        Ok(signature)
    }

    fn approximate(&self) -> Option<&'static str> {
        Some("the normalised axes")
    }
}

/// y has the axes of x, whatever else is read broadcasts to them, and two further outputs have extent 1 from `axis` on.
/// Also gives the terms from `axis` on, still capitals.
pub(super) fn normalisation(node: &NodeView) -> Refused<(Signature, Vec<Term>)> {
    let rank = node.rank(0)?;
    let axis = node.axis("axis", -1, rank)?;
    let mut signature = Signature { inputs: vec![None; node.input_count()], ..Default::default() };
    let slots: Vec<usize> = (0..node.input_count()).filter(|slot| node.has(*slot)).collect();
    let shapes = slots.iter().map(|slot| node.shape(*slot)).collect::<Refused<Vec<_>>>()?;
    let (terms, output) = align(node, &mut signature, &shapes, "A")?;
    if output.len() != rank || terms.first() != Some(&output) {
        return Err(Refusal::new("its scale is larger than its input"));
    }
    for (slot, terms) in slots.iter().zip(terms) {
        if let Some(input) = signature.inputs.get_mut(*slot) {
            *input = Some(terms);
        }
    }
    let normalised: Vec<Term> = output.iter().skip(axis).cloned().collect();
    let mut statistics: Vec<Term> = output.clone();
    statistics.iter_mut().skip(axis).for_each(|term| *term = Term::One);
    signature.outputs = vec![Some(output), Some(statistics.clone()), Some(statistics)];
    signature.outputs.truncate(node.outputs.max(1));
    Ok((signature.scaled_by(1), normalised))
}

/// LRN: every channel is divided by its neighbours, so the channel axis is locked; the others pass through.
pub(super) struct LocalResponse;

impl Rule for LocalResponse {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        locked_axes(node, &[1], "every channel is divided by its neighbours")
    }
}

/// LpNormalization: a sum of |x|^p over an axis takes a channel that is zero as it takes one that is gone.
pub(super) struct LpNormalization;

impl Rule for LpNormalization {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        node.axis("axis", -1, node.rank(0)?)?;
        locked_axes(node, &[], "")
    }
}

/// MeanVarianceNormalization: statistics over `axes`.
pub(super) struct MeanVariance;

impl Rule for MeanVariance {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let rank = node.rank(0)?;
        let axes = node.ints("axes").unwrap_or(&[0, 2, 3]);
        let axes = axes.iter().map(|a| super::normalise_axis(*a, rank)).collect::<Refused<Vec<_>>>()?;
        let mut signature = locked_axes(node, &[], "")?;
        let terms = signature.outputs.first().cloned().flatten().unwrap_or_default();
        for term in axes.iter().filter_map(|axis| terms.get(*axis)) {
            signature.fix_unless_approximate(term, STATISTICS);
        }
        Ok(signature)
    }

    fn approximate(&self) -> Option<&'static str> {
        Some("the normalised axes")
    }
}

/// y has the axes of x; those in `locked` may not shrink because of `why`.
pub(super) fn locked_axes(node: &NodeView, locked: &[usize], why: &str) -> Refused<Signature> {
    let mut signature = Signature { inputs: vec![None; node.input_count()], ..Default::default() };
    let (_, output) = align(node, &mut signature, &[node.shape(0)?], "A")?;
    for axis in locked {
        let term = output.get(*axis);
        signature.fix(term.ok_or_else(|| Refusal::new(format!("its input has no axis {axis}")))?, why);
    }
    if let Some(input) = signature.inputs.first_mut() {
        *input = Some(output.clone());
    }
    signature.outputs = vec![Some(output)];
    Ok(signature)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::patch;
    use super::*;

    #[test]
    fn normalisation_groups_are_counted_anew() {
        let norm = |c: usize| {
            format!("opset 21\nin x [n,{c},h]\ny = GroupNormalization(x, s[{c}], b[{c}], num_groups=4)\nout y")
        };
        let run = |kept: &[u32]| {
            let output = format!("[n,{},h]", kept.len());
            patch(&norm(12), &norm(kept.len()), &output, &[((0, 1), kept)], &[])
        };
        assert_eq!(run(&[0, 1, 2, 6, 7, 8]).unwrap(), [Edit::Int("num_groups", 2)]);
        // The same channels of every group: as many groups as before.
        assert_eq!(run(&[0, 2, 3, 5, 6, 8, 9, 11]).unwrap(), []);
        assert_eq!(run(&[1, 4, 7]).unwrap(), [Edit::Int("num_groups", 3)]);
        assert!(run(&[0, 1, 2, 3]).is_err(), "three channels of one group and one of another");
        assert_eq!(patch(&norm(12), &norm(12), "[n,12,h]", &[], &[]).unwrap(), []);
    }
}
