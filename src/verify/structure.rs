//! Structure: what can be checked without running anything.
//!
//! Invariants checked: the interface (names, order, types and declared shapes of inputs and outputs) is that of the
//! original; a constant that gets smaller holds exactly the kept entries of the original, bit by bit; one of which
//! several readers keep different parts has the original's type and no longer axes, and where at most one axis got
//! shorter, holds entries of the original in their order; every other constant of the same name is the same, bit by
//! bit.

use std::collections::{BTreeMap, BTreeSet};

use super::VerifyOptions;
use super::constants::{bytes, constants, element_size, extents, for_each_body, remaining, unpacked, walk};
use crate::kept::{Kept, KeptAxes};
use crate::proto::onnx::{GraphProto, ModelProto, TensorProto, TypeProto, ValueInfoProto};
use crate::{Error, Result};

/// Checks the structure. Returns `None` when all is well, else the first deviation in words. Where only some outputs were
/// kept, the original is one that returns just those, and the pruned model may lack inputs. Constants in `altered` may have
/// other values, or another part of them than any kept indices say; those that get smaller must still have the kept
/// sizes.
///
/// # Errors
/// When `kept` does not fit the original model.
pub(super) fn deviation(
    original: &ModelProto,
    pruned: &ModelProto,
    kept: &Kept,
    options: &VerifyOptions,
) -> Result<Option<String>> {
    let altered = &options.altered;
    if let Some(what) = interface(original, pruned, options.outputs.is_some()) {
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
            None if may_differ => no_part(tensor, pruned),
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

fn interface(original: &ModelProto, pruned: &ModelProto, is_part: bool) -> Option<String> {
    for (kind, of) in [("inputs", inputs as fn(&ModelProto) -> Interface<'_>), ("outputs", outputs)] {
        let (mut before, after) = (of(original), of(pruned));
        if is_part && kind == "inputs" {
            before.retain(|(name, _)| after.iter().any(|(other, _)| other == name));
        }
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

/// Why a constant can be no part of the original, whichever indices it keeps; several shortened axes are not searched.
fn no_part(original: &TensorProto, pruned: &TensorProto) -> Option<String> {
    if original.data_type() != pruned.data_type() {
        return Some("has another element type".into());
    }
    let (before, after) = (&original.dims, &pruned.dims);
    if before.len() != after.len() || before.iter().zip(after).any(|(b, a)| a > b || *a < 0) {
        return Some(format!("has the shape {after:?}, which is no part of {before:?}"));
    }
    let shortened: Vec<usize> = (0..before.len()).filter(|axis| before.get(*axis) != after.get(*axis)).collect();
    let [axis] = shortened.as_slice() else {
        return if shortened.is_empty() { unchanged(original, pruned) } else { None };
    };
    let size = element_size(original)?;
    let (extents, (data, part)) = (extents(original).ok()?, (bytes(original), bytes(pruned)));
    let (long, short) = (*extents.get(*axis)?, usize::try_from(*after.get(*axis)?).ok()?);
    let outer: usize = extents.iter().take(*axis).product();
    let block = extents.iter().skip(*axis + 1).product::<usize>() * size;
    // Everything at one index of the axis.
    let entry = |data: &[u8], extent: usize, index: usize| -> Vec<u8> {
        let blocks =
            (0..outer).filter_map(|o| data.get((o * extent + index) * block..(o * extent + index + 1) * block));
        blocks.flatten().copied().collect()
    };
    let mut next = 0;
    for index in 0..long {
        if next < short && entry(&data, long, index) == entry(&part, short, next) {
            next += 1;
        }
    }
    let fits = next == short && part.len() == outer * short * block;
    (!fits).then(|| format!("holds what the original does not hold along axis {axis}"))
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
    let (size, before, after) = match element_size(original) {
        Some(size) => (size, bytes(original), bytes(pruned)),
        None => {
            let cells = |tensor: &TensorProto, extents: &[usize]| unpacked(tensor, extents.iter().product());
            let kept: Vec<usize> = masks.iter().map(|m| m.iter().filter(|keeps| **keeps).count()).collect();
            match (cells(original, &extents), cells(pruned, &kept)) {
                (Some(before), Some(after)) => (1, before.into(), after.into()),
                _ => return Ok(Some("got smaller, but its data does not fit its type and shape".into())),
            }
        }
    };
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
