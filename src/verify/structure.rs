//! Structure: what can be checked without running anything.
//!
//! Invariants checked: the interface (names, order, types and declared shapes of inputs and outputs) is that of the
//! original; a constant that gets smaller holds exactly the kept entries of the original, bit by bit; every other
//! constant of the same name is the same, bit by bit.

use std::collections::{BTreeMap, BTreeSet};

use super::constants::{bytes, constants, element_size, extents, for_each_body, remaining, walk};
use crate::kept::{Kept, KeptAxes};
use crate::proto::onnx::{GraphProto, ModelProto, TensorProto, TypeProto, ValueInfoProto};
use crate::{Error, Result};

/// Checks the structure. Returns `None` when all is well, else the first deviation in words. Constants in `altered`
/// may have other values (shape arithmetic, repair); those that get smaller must still have the kept sizes.
///
/// # Errors
/// When `kept` does not fit the original model.
pub(super) fn deviation(
    original: &ModelProto,
    pruned: &ModelProto,
    kept: &Kept,
    altered: &BTreeSet<String>,
) -> Result<Option<String>> {
    if let Some(what) = interface(original, pruned) {
        return Ok(Some(what));
    }
    let before = constants(original);
    let after = constants(pruned);
    for (name, axes) in &kept.constants {
        let tensor = before.get(name.as_str()).ok_or_else(|| {
            Error::verification("kept indices are given for a constant that the original does not have").tensor(name)
        })?;
        // Refused here already, even where the pruned model no longer has the constant.
        remaining(axes, &extents(tensor).map_err(|e| e.tensor(name))?).map_err(|e| e.tensor(name))?;
    }
    for (name, tensor) in &before {
        let Some(pruned) = after.get(name) else { continue };
        let may_differ = altered.contains(name);
        let what = match kept.constants.get(name) {
            Some(axes) => smaller(tensor, pruned, axes, may_differ).map_err(|e| e.tensor(name))?,
            None if may_differ => None,
            None => unchanged(tensor, pruned),
        };
        if let Some(what) = what {
            return Ok(Some(format!("constant `{name}` {what}")));
        }
    }
    Ok(None)
}

/// Inputs and outputs of a model: name and type.
type Interface<'m> = Vec<(&'m str, Option<&'m TypeProto>)>;

fn interface(original: &ModelProto, pruned: &ModelProto) -> Option<String> {
    for (kind, of) in [("inputs", inputs as fn(&ModelProto) -> Interface<'_>), ("outputs", outputs)] {
        let (before, after) = (of(original), of(pruned));
        let names = |of: &Interface<'_>| of.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
        if names(&before) != names(&after) {
            return Some(format!("the graph {kind} were {:?} and are {:?}", names(&before), names(&after)));
        }
        let differs = before.iter().zip(&after).find(|(b, a)| b.1 != a.1);
        if let Some(((name, _), _)) = differs {
            return Some(format!("the declared type or shape of `{name}` among the graph {kind} has changed"));
        }
    }
    None
}

fn inputs(model: &ModelProto) -> Interface<'_> {
    let Some(graph) = &model.graph else { return Vec::new() };
    let initializers: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name()).collect();
    let all = graph.input.iter().filter(|i| !initializers.contains(i.name()));
    all.map(|i| (i.name(), i.r#type.as_ref())).collect()
}

fn outputs(model: &ModelProto) -> Interface<'_> {
    let Some(graph) = &model.graph else { return Vec::new() };
    graph.output.iter().map(|o| (o.name(), o.r#type.as_ref())).collect()
}

fn unchanged(original: &TensorProto, pruned: &TensorProto) -> Option<String> {
    if original.data_type() != pruned.data_type() {
        return Some("has another element type".into());
    }
    if original.dims != pruned.dims {
        return Some(format!("has the shape {:?} instead of {:?}", pruned.dims, original.dims));
    }
    (bytes(original) != bytes(pruned)).then(|| "should be unchanged but has other values".into())
}

fn smaller(original: &TensorProto, pruned: &TensorProto, axes: &KeptAxes, may_differ: bool) -> Result<Option<String>> {
    if original.data_type() != pruned.data_type() {
        return Ok(Some("has another element type".into()));
    }
    let extents = extents(original)?;
    let masks = remaining(axes, &extents)?;
    let expected: Vec<i64> = masks.iter().map(|m| m.iter().filter(|keeps| **keeps).count() as i64).collect();
    if expected != pruned.dims {
        return Ok(Some(format!("has the shape {:?}, its kept indices mean {expected:?}", pruned.dims)));
    }
    if may_differ {
        return Ok(None);
    }
    let Some(size) = element_size(original) else {
        return Ok(Some("got smaller, but its element type cannot be sliced".into()));
    };
    let (before, after) = (bytes(original), bytes(pruned));
    let (mut wrong, mut next) = (None, 0usize);
    walk(&extents, &masks, |position, keeps| {
        if keeps {
            let source = before.get(position * size..(position + 1) * size);
            if wrong.is_none() && (source.is_none() || source != after.get(next * size..(next + 1) * size)) {
                wrong = Some((position, next));
            }
            next += 1;
        }
    })?;
    if wrong.is_none() && after.len() != next * size {
        return Ok(Some(format!("holds {} bytes, its shape needs {}", after.len(), next * size)));
    }
    Ok(wrong.map(|(position, next)| format!("element {next} is not element {position} of the original")))
}

/// The declared element types and extents of values inside bodies, which an engine cannot return; by prefix and name.
pub(super) fn declared_types(model: &ModelProto) -> BTreeMap<String, &TypeProto> {
    fn collect<'m>(graph: &'m GraphProto, prefix: &str, found: &mut BTreeMap<String, &'m TypeProto>) {
        let named = |v: &'m ValueInfoProto| Some((format!("{prefix}{}", v.name()), v.r#type.as_ref()?));
        found.extend(graph.value_info.iter().filter_map(named));
        for node in &graph.node {
            for_each_body(node, prefix, &mut |prefix, inner| collect(inner, prefix, found));
        }
    }
    let mut found = BTreeMap::new();
    if let Some(graph) = &model.graph {
        collect(graph, "", &mut found);
    }
    found
}
