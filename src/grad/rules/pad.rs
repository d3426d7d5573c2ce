//! Pad: padding with a constant is cut off again; padding with entries of the value adds to what those entries get.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Pad.html>.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use super::matrices::{self, Matrix};

pub(crate) fn pad(step: &Step, context: &mut Context) -> Gradients {
    let (x, pads) = (step.input(0)?, step.input(1)?);
    let axes: Vec<usize> = match step.optional(3) {
        Some(axes) => context.constant(axes)?.iter().map(|a| context.axis(x, *a)).collect::<Result<_, _>>()?,
        None => (0..context.shape(x)?.len()).collect(),
    };
    match step.text("mode") {
        b"" | b"constant" => cut(step, context, pads, &axes),
        mode => copied(step, context, pads, &axes, mode),
    }
}

/// Pads that are computed may be negative, so they are turned round as they are.
fn cut(step: &Step, context: &mut Context, pads: &str, axes: &[usize]) -> Gradients {
    let (g, x) = (step.gradient()?, step.input(0)?);
    match context.constant(pads) {
        Ok(pads) if pads.iter().all(|p| *p >= 0) => {
            let before = pads.get(..axes.len()).ok_or("too few pads")?;
            let starts = context.nodes.integers(before);
            let axes: Vec<i64> = axes.iter().filter_map(|a| i64::try_from(*a).ok()).collect();
            let axes = context.nodes.integers(&axes);
            let shape = context.shape_of(x);
            let extents = context.op("Gather", &[&shape, &axes]);
            let ends = context.op("Add", &[&starts, &extents]);
            let gradient = context.op("Slice", &[g, &starts, &ends, &axes]);
            step.first(gradient)
        }
        _ => {
            let turned = context.op("Neg", &[pads]);
            let mut inputs = vec![g, &turned];
            if let Some(axes) = step.optional(3) {
                inputs.extend(["", axes]);
            }
            let gradient = context.op("Pad", &inputs);
            step.first(gradient)
        }
    }
}

/// Every padded axis is mapped by a matrix that says which entry stands where.
fn copied(step: &Step, context: &mut Context, pads: &str, axes: &[usize], mode: &[u8]) -> Gradients {
    let x = step.input(0)?;
    let shape = context.shape(x)?;
    let pads = context.constant(pads)?;
    let (before, behind) = pads.split_at_checked(axes.len()).ok_or("too few pads")?;
    let mut maps = Vec::new();
    for ((axis, before), behind) in axes.iter().zip(before).zip(behind) {
        if (*before, *behind) == (0, 0) {
            continue;
        }
        let extent = shape.get(*axis).and_then(|n| i64::try_from(*n).ok()).filter(|n| *n > 0).ok_or("no entries")?;
        let whole = extent.checked_add(*before).and_then(|n| n.checked_add(*behind));
        let whole = whole.and_then(|n| usize::try_from(n).ok()).ok_or("pads that are not understood")?;
        let columns = usize::try_from(extent).unwrap_or(0);
        let mut matrix = Matrix::zeros(whole, columns);
        for (row, place) in (0..whole).zip(before.saturating_neg()..) {
            let entry = match mode {
                b"edge" => place.clamp(0, extent - 1),
                b"wrap" => place.rem_euclid(extent),
                b"reflect" if extent == 1 => 0,
                b"reflect" => {
                    let period = 2 * (extent - 1);
                    let turned = place.rem_euclid(period);
                    turned.min(period - turned)
                }
                other => return Err(format!("mode `{}`", String::from_utf8_lossy(other))),
            };
            matrix.add(row, usize::try_from(entry).unwrap_or(usize::MAX), 1.0);
        }
        maps.push((*axis, matrix));
    }
    maps.sort_by_key(|(axis, _)| *axis);
    let gradient = matrices::back(context, step.gradient()?, x, &maps)?;
    step.first(gradient)
}
