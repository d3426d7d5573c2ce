//! Masks for activations inside bodies, whose element type no engine tells.
//!
//! A zero of any type is what `Pad` appends; a `Gather` then takes the padded entry for every removed index and the
//! index itself for every other one. That forces removed indices to zero whatever was there, NaN and infinity included,
//! and needs no more than the extents, which are recorded beside the kept indices.

use super::constants::remaining;
use crate::engine::ElementType;
use crate::kept::KeptAxes;
use crate::proto::build::{attribute, constant};
use crate::proto::onnx::{AttributeProto, NodeProto, attribute_proto::AttributeType};
use crate::{Error, Result};

/// The nodes that compute `name` from `unmasked`. `fresh` makes new names.
///
/// # Errors
/// Kept indices that do not fit the extents, an activation that keeps everything.
pub(super) fn selection(
    name: &str,
    unmasked: &str,
    axes: &KeptAxes,
    extents: &[Option<u32>],
    opset: i64,
    fresh: &mut dyn FnMut(&str) -> String,
) -> Result<Vec<NodeProto>> {
    let missing = || Error::verification("the extent of an axis that gets smaller is not recorded");
    let mut nodes = Vec::new();
    let mut value = unmasked.to_string();
    let count = axes.iter().flatten().count();
    if count == 0 {
        return Err(Error::verification("an activation is listed as smaller, but keeps everything"));
    }
    let shrunk = axes.iter().zip(extents).enumerate().filter(|(_, (axis, _))| axis.is_some());
    for (done, (axis, (kept, extent))) in shrunk.enumerate() {
        let extent = extent.ok_or_else(missing)?;
        let size = usize::try_from(extent).map_err(|_| missing())?;
        // An axis is masked by as many bytes as it is long, so its length must be one that indices can reach.
        let longest = kept.as_ref().and_then(|k| k.last()).map_or(0, |last| u64::from(*last) + 1);
        if u64::from(extent) > longest.saturating_mul(1 << 20).max(1 << 20) {
            return Err(Error::verification(format!("the extent {extent} is absurd")).axis(axis));
        }
        let masks = remaining(&vec![kept.clone()], &[size])?;
        let indices = masks.iter().flatten().enumerate();
        let index = |(i, keeps): (usize, &bool)| i64::try_from(if *keeps { i } else { size }).unwrap_or(i64::MAX);
        let indices: Vec<i64> = indices.map(index).collect();
        let mut pads = vec![0i64; axes.len() * 2];
        if let Some(end) = pads.get_mut(axes.len() + axis) {
            *end = 1;
        }
        let (padded, indices_name) = (fresh(&format!("{name}/padded_{axis}")), fresh(&format!("{name}/mask_{axis}")));
        let output = if done + 1 == count { name.to_string() } else { fresh(&format!("{name}/masked_{axis}")) };
        let mut pad = node("Pad", fresh(&format!("{name}/pad_{axis}")), vec![value], &padded);
        if opset >= 11 {
            let pads_name = fresh(&format!("{name}/pads_{axis}"));
            nodes.push(integers(&pads_name, &pads));
            pad.input.push(pads_name);
        } else {
            pad.attribute.push(AttributeProto { ints: pads, ..attribute("pads", AttributeType::Ints) });
        }
        let mut gather =
            node("Gather", fresh(&format!("{name}/select_{axis}")), vec![padded, indices_name.clone()], &output);
        let axis = i64::try_from(axis).map_err(|_| missing())?;
        gather.attribute.push(AttributeProto { i: Some(axis), ..attribute("axis", AttributeType::Int) });
        nodes.extend([pad, integers(&indices_name, &indices), gather]);
        value = output;
    }
    Ok(nodes)
}

fn integers(name: &str, values: &[i64]) -> NodeProto {
    let dims = vec![i64::try_from(values.len()).unwrap_or(i64::MAX)];
    constant(name, ElementType::Int64, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn node(operator: &str, name: String, input: Vec<String>, output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(operator.into()),
        name: Some(name),
        input,
        output: vec![output.into()],
        ..Default::default()
    }
}
