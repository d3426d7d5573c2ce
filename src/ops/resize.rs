//! Resize and Upsample: axes that keep their extent pass, the others are interpolated and locked.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Resize.html>, <https://onnx.ai/onnx/operators/onnx__Upsample.html>.
//! Upsample has `scales` as attribute (operator set 7) or input 1 (9); Resize has scales in input 1 (10), then
//! roi, scales and sizes in inputs 1 to 3 (11), and `axes` and `keep_aspect_ratio_policy` from 18 on. With a scale of 1
//! every mode reads each index at its own place, except where a region of interest is cropped.

use super::follow::{entries, entry, follow, unknown};
use super::{Change, Edit, NodeView, Refusal, Refused, Rule, Signature};
use crate::axes::Extent;

/// Interpolation to another size.
pub(super) struct Resize;

/// The older spelling of Resize.
pub(super) struct Upsample;

const SIZES: usize = 3;

impl Rule for Resize {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        if node.opset() < 11 {
            return scaled(node, &scales(node, 1)?, false);
        }
        let crops = node.string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize";
        match sizes(node)? {
            Some(sizes) => sized(node, &sizes, crops),
            None => scaled(node, &scales(node, 2)?, crops),
        }
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        if before.opset() < 11 || sizes(before)?.is_none() {
            return Ok(Vec::new());
        }
        let old = sizes(before)?.unwrap_or_default();
        let now = sizes(change.after)?.unwrap_or_default();
        let extents = |outputs: &[Option<Vec<Extent>>]| outputs.first().cloned().flatten().unwrap_or_default();
        let (was, needed) = (extents(change.outputs_before), extents(change.outputs_after));
        let mut wanted = Vec::with_capacity(now.len());
        for ((axis, old), (_, now)) in old.iter().zip(&now) {
            let needed = needed.get(*axis).ok_or_else(|| Refusal::new("its output has no such axis"))?;
            // A size that an aspect ratio overrules is no extent; it stays what it was.
            let overruled = old.is_some() && old.as_ref() != was.get(*axis);
            wanted.push(match overruled {
                true => old.as_ref().and_then(Extent::value),
                false => entry(now.as_ref(), needed, now == old && was.get(*axis) == Some(needed))?,
            });
        }
        follow(change.after, "sizes", SIZES, &wanted)
    }
}

impl Rule for Upsample {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        if let Some(scales) = node.floats("scales") {
            return scaled(node, &per_axis(node, scales)?, false);
        }
        scaled(node, &scales(node, 1)?, false)
    }
}

/// The axes that are resized, in the order of scales and sizes.
fn axes(node: &NodeView) -> Refused<Vec<usize>> {
    let rank = node.rank(0)?;
    match node.ints("axes") {
        Some(axes) => axes.iter().map(|a| super::normalise_axis(*a, rank)).collect(),
        None => Ok((0..rank).collect()),
    }
}

/// (axis, size) pairs if the node has sizes.
#[allow(clippy::type_complexity)]
fn sizes(node: &NodeView) -> Refused<Option<Vec<(usize, Option<Extent>)>>> {
    let Some(sizes) = entries(node, "sizes", SIZES)?.filter(|s| !s.is_empty()) else { return Ok(None) };
    let axes = axes(node)?;
    if axes.len() != sizes.len() {
        return Err(Refusal::new(format!("it has {} sizes for {} axes", sizes.len(), axes.len())));
    }
    if sizes.iter().all(Option::is_none) {
        return Err(Refusal::new("its sizes are computed when the model runs"));
    }
    Ok(Some(axes.into_iter().zip(sizes).collect()))
}

/// (axis, scale) pairs from a constant input.
fn scales(node: &NodeView, slot: usize) -> Refused<Vec<(usize, f32)>> {
    let scales = node.known_floats(slot).ok_or_else(|| Refusal::new("its scales are computed when the model runs"))?;
    per_axis(node, &scales)
}

fn per_axis(node: &NodeView, scales: &[f32]) -> Refused<Vec<(usize, f32)>> {
    let axes = axes(node)?;
    if axes.len() != scales.len() {
        return Err(Refusal::new(format!("it has {} scales for {} axes", scales.len(), axes.len())));
    }
    Ok(axes.into_iter().zip(scales.iter().copied()).collect())
}

/// The signature where scales are given.
fn scaled(node: &NodeView, scales: &[(usize, f32)], crops: bool) -> Refused<Signature> {
    let mut changed = Vec::new();
    for (axis, scale) in scales {
        let extent = node.extent(0, *axis)?;
        if crops {
            changed.push((*axis, unknown(node, *axis)));
        } else if *scale != 1.0 {
            let result = match extent.value() {
                // The standard multiplies in single precision and rounds down.
                Some(n) => Extent::known((n as f32 * scale).floor() as i64),
                None => node.symbolic(|s| s.rounded(&extent, *scale, "scale")),
            };
            changed.push((*axis, result));
        }
    }
    interpolated(node, changed)
}

/// The signature where sizes are given.
fn sized(node: &NodeView, sizes: &[(usize, Option<Extent>)], crops: bool) -> Refused<Signature> {
    let keeps_ratio = node.string("keep_aspect_ratio_policy", "stretch");
    let mut changed = Vec::new();
    if keeps_ratio != "stretch" {
        let ratios: Option<Vec<(usize, i64, f32)>> = sizes
            .iter()
            .map(|(axis, size)| {
                let extent = node.extent(0, *axis).ok()?.value()?;
                Some((*axis, extent, size.as_ref()?.value()? as f32 / extent as f32))
            })
            .collect();
        let largest = keeps_ratio == "not_smaller";
        let pick = |a: f32, b: f32| if largest { a.max(b) } else { a.min(b) };
        let scale = ratios.as_ref().and_then(|r| r.iter().map(|r| r.2).reduce(pick));
        for (axis, _) in sizes {
            let extent = ratios.iter().flatten().find(|r| r.0 == *axis).zip(scale);
            let known = extent.map(|((_, extent, _), scale)| Extent::known((scale * *extent as f32).round() as i64));
            changed.push((*axis, known.unwrap_or_else(|| unknown(node, *axis))));
        }
        return interpolated(node, changed);
    }
    for (axis, size) in sizes {
        if crops || *size != Some(node.extent(0, *axis)?) {
            changed.push((*axis, size.clone().unwrap_or_else(|| unknown(node, *axis))));
        }
    }
    interpolated(node, changed)
}

/// Every axis passes, but those in `changed` get a new extent and are locked.
fn interpolated(node: &NodeView, changed: Vec<(usize, Extent)>) -> Refused<Signature> {
    let mut signature = Signature::default();
    let mut input = super::follow::letters(&mut signature, "A", node.shape(0)?);
    let mut output = input.clone();
    for (axis, extent) in changed {
        if extent.value().is_some_and(|n| n < 1) {
            return Err(Refusal::new("it has an empty tensor"));
        }
        let why = "it is interpolated";
        let (Some(from), Some(to)) = (input.get_mut(axis), output.get_mut(axis)) else { continue };
        *from = signature.fixed(format!("a{axis}"), Some(node.extent(0, axis)?), why);
        *to = signature.fixed(format!("r{axis}"), Some(extent), why);
    }
    signature.inputs = vec![Some(input)];
    signature.outputs = vec![Some(output)];
    Ok(signature)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::patch;
    use super::*;

    #[test]
    fn sizes_of_passing_axes_follow() {
        let run = |line: &str, batch: &str| {
            let model = |c: usize| format!("in x [n,{c},5,5]\n{line}\nout y");
            patch(&model(8), &model(3), &format!("[{batch},3,10,10]"), &[], &[])
        };
        assert_eq!(run("y = Resize(x, _, _, {2,8,10,10})", "2"), Ok(vec![Edit::Constant(3, vec![2, 3, 10, 10])]));
        assert_eq!(run("opset 18\ny = Resize(x, _, _, {10,10}, axes=[2,3])", "n"), Ok(Vec::new()));
        assert_eq!(run("y = Resize(x, _, <1,1,2,2>)", "n"), Ok(Vec::new()));
        let shape = "s = Shape(x)\na = Slice(s, {0}, {2}, {0})\nr = Concat(a, {10,10}, axis=0)\n";
        assert_eq!(run(&format!("{shape}y = Resize(x, _, _, r)"), "n"), Ok(Vec::new()));
        let other = "s = Shape(w[1,8])\na = Slice(s, {1}, {2}, {0})\nr = Concat({1}, a, {10,10}, axis=0)\n";
        assert_eq!(run(&format!("{other}y = Resize(x, _, _, r)"), "1"), Ok(vec![Edit::Entries(3, vec![(1, 3)])]));
    }
}
