//! Locate: the first value, in the order of computation, at which a pruned model leaves its masked original. The names
//! of activations survive pruning, so values are compared by name; only floats, because shape arithmetic changes
//! rightly.
//!
//! It is an aid for finding the mistake and no part of the verdict: where a correction is a separate node (a mean over
//! fewer channels, then rescaled), the value before the correction is named first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::compare::compare;
use crate::engine::{Engine, Value, run_once};
use crate::kept::{Kept, KeptAxes};
use crate::proto::onnx::{ModelProto, NodeProto};

/// Values fetched in one run, so that memory stays bounded.
const VALUES_PER_RUN: usize = 64;

/// The first value that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstDifference {
    /// Name of the value.
    pub value: String,
    /// Name of the node that computes it; may be empty.
    pub node: String,
    /// Operator type of that node.
    pub operator: String,
    /// How it differs: a relative difference, or shapes that disagree.
    pub how: String,
}

impl fmt::Display for FirstDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`, computed by {} `{}`, {}", self.value, self.operator, self.node, self.how)
    }
}

/// What is compared.
pub(super) struct Parties<'m> {
    pub(super) reference: &'m ModelProto,
    pub(super) pruned: &'m ModelProto,
    pub(super) kept: &'m Kept,
    pub(super) altered: &'m BTreeSet<String>,
}

/// What looking at all values brought.
pub(super) enum Located {
    /// The first value that differs.
    At(FirstDifference),
    /// Nothing differs, not even the outputs: fetching inner values makes an engine compute in another way, and what it
    /// then gives contradicts what it gave before.
    Nowhere,
    /// No common value differs, but not all outputs could be fetched.
    Unknown,
    /// What differs is computed from this value, which holds NaN in both models: engines hand NaN on or drop it as their
    /// vectors happen to fall, so the difference says nothing.
    Nan(String),
}

/// Finds the first difference for one input.
pub(super) fn first_difference(
    parties: &Parties<'_>,
    engine: &dyn Engine,
    feeds: &[(String, Value)],
    tolerance: f64,
) -> Located {
    let outputs = parties.pruned.graph.iter().flat_map(|g| &g.output).map(|o| o.name());
    let mut open: BTreeSet<&str> = outputs.collect();
    let known: BTreeSet<&str> = producers(parties.reference).into_keys().collect();
    let producers = producers(parties.pruned);
    let mut undefined: Vec<String> = Vec::new();
    let in_order = parties.pruned.graph.iter().flat_map(|g| &g.node).flat_map(|n| &n.output);
    let common: Vec<String> = in_order
        .filter(|name| known.contains(name.as_str()) && !parties.altered.contains(*name) && !name.is_empty())
        .cloned()
        .collect();
    for names in common.chunks(VALUES_PER_RUN) {
        for (name, reference, found) in values(parties, engine, feeds, names) {
            if !found.is_float() {
                continue;
            }
            let axes = parties.kept.activations.get(&name).or_else(|| parties.kept.constants.get(&name));
            let Some(expected) = gathered(reference, axes) else { continue };
            let difference = compare(&name, &expected, &found, 0.0);
            if difference.within(tolerance) {
                open.remove(name.as_str());
                if holds_nan(&expected) && holds_nan(&found) {
                    undefined.push(name);
                }
                continue;
            }
            let sources = sources(&producers, &name);
            if let Some(value) = undefined.iter().find(|value| sources.contains(value.as_str())) {
                return Located::Nan(value.clone());
            }
            let node = producers.get(name.as_str());
            let by = format!("differs by {:.2e} (relative)", difference.max_relative);
            return Located::At(FirstDifference {
                node: node.map(|n| n.name().to_string()).unwrap_or_default(),
                operator: node.map(|n| n.op_type().to_string()).unwrap_or_default(),
                how: difference.mismatch.unwrap_or(by),
                value: name,
            });
        }
    }
    if open.is_empty() { Located::Nowhere } else { Located::Unknown }
}

fn holds_nan(value: &Value) -> bool {
    value.to_f64().iter().any(|number| number.is_nan())
}

/// All values that a value is computed from.
fn sources<'m>(producers: &BTreeMap<&str, &'m NodeProto>, value: &'m str) -> BTreeSet<&'m str> {
    let mut found = BTreeSet::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        for input in producers.get(value).iter().flat_map(|node| &node.input) {
            if found.insert(input.as_str()) {
                open.push(input);
            }
        }
    }
    found
}

/// The values of both models, all at once or, where a value among them cannot be fetched, one by one.
fn values(
    parties: &Parties<'_>,
    engine: &dyn Engine,
    feeds: &[(String, Value)],
    names: &[String],
) -> Vec<(String, Value, Value)> {
    let fetch = |names: &[String]| {
        let reference = run_once(engine, parties.reference, feeds, names).ok()?;
        let found = run_once(engine, parties.pruned, feeds, names).ok()?;
        let pairs = names.iter().cloned().zip(reference.into_iter().zip(found));
        Some(pairs.map(|(name, (a, b))| (name, a, b)).collect::<Vec<_>>())
    };
    fetch(names)
        .unwrap_or_else(|| names.iter().filter_map(|name| fetch(std::slice::from_ref(name))).flatten().collect())
}

fn gathered(mut value: Value, axes: Option<&KeptAxes>) -> Option<Value> {
    for (axis, kept) in axes.into_iter().flatten().enumerate() {
        if let Some(kept) = kept {
            let indices: Vec<usize> = kept.iter().filter_map(|i| usize::try_from(*i).ok()).collect();
            value = value.select(axis, &indices).ok()?;
        }
    }
    Some(value)
}

fn producers(model: &ModelProto) -> BTreeMap<&str, &NodeProto> {
    let nodes = model.graph.iter().flat_map(|g| &g.node);
    nodes.flat_map(|n| n.output.iter().map(move |o| (o.as_str(), n))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::Tract;
    use crate::text;
    use ndarray::ArrayD;

    fn located(last: &str) -> Located {
        let model = |factor: &str| {
            let text = format!("in x [4]\nb = Log(x)\nc = Abs(x)\n{}\nout y", last.replace('F', factor));
            text::parse(&text).unwrap()
        };
        let (reference, pruned) = (model("2.0"), model("3.0"));
        let (kept, altered) = (Kept::default(), BTreeSet::new());
        let parties = Parties { reference: &reference, pruned: &pruned, kept: &kept, altered: &altered };
        let x = ArrayD::from_shape_vec(vec![4], vec![-1f32, 2.0, 3.0, 4.0]).unwrap();
        first_difference(&parties, &Tract, &[("x".to_owned(), Value::from(x))], 1e-4)
    }

    /// The logarithm of -1 is undefined in both models: what follows from it may be anything, what does not may not.
    #[test]
    fn what_follows_from_nan_in_both_models_is_told_apart() {
        assert!(matches!(located("d = Relu(b)\ny = Mul(d, <F>)"), Located::Nan(value) if value == "b"));
        assert!(matches!(located("d = Relu(c)\ny = Mul(d, <F>)"), Located::At(first) if first.value == "y"));
    }
}
