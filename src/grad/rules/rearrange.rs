//! What moves elements: the gradient moves back.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use crate::proto::build::int;

/// Reshape, Flatten, Squeeze, Unsqueeze: the order of elements stays.
pub(crate) fn reshape(step: &Step, context: &mut Context) -> Gradients {
    let gradient = context.reshape_like(step.gradient()?, step.input(0)?);
    step.first(gradient)
}

pub(crate) fn transpose(step: &Step, context: &mut Context) -> Gradients {
    let rank = context.shape(step.input(0)?)?.len();
    let inverse: Option<Vec<usize>> = match step.ints("perm") {
        None => Some((0..rank).rev().collect()),
        Some(order) => (0..rank).map(|axis| order.iter().position(|o| usize::try_from(*o) == Ok(axis))).collect(),
    };
    let inverse = inverse.ok_or("an order that is no permutation")?;
    let gradient = context.transpose(step.gradient()?, &inverse);
    step.first(gradient)
}

pub(crate) fn expand(step: &Step, context: &mut Context) -> Gradients {
    let from = context.shape(step.output()?)?;
    let gradient = context.unbroadcast(step.gradient()?, from, step.input(0)?)?;
    step.first(gradient)
}

/// Every input gets its slice. Where it begins is counted when the model runs, the axis may be the batch.
pub(crate) fn concat(step: &Step, context: &mut Context) -> Gradients {
    let g = step.gradient()?;
    let axis = context.axis(step.output()?, step.int("axis", 0))?;
    let axes = context.nodes.integers(&[i64::try_from(axis).unwrap_or(i64::MAX)]);
    let mut start = context.nodes.integers(&[0]);
    let mut gradients = Vec::new();
    for slot in 0..step.node.input.len() {
        let extent = context.extent_of(step.input(slot)?, axis);
        let end = context.op("Add", &[&start, &extent]);
        gradients.push(step.needs(slot).then(|| context.op("Slice", &[g, &start, &end, &axes])));
        start = end;
    }
    Ok(gradients)
}

/// The parts side by side; a part that nobody asks for is 0.
pub(crate) fn split(step: &Step, context: &mut Context) -> Gradients {
    let axis = context.axis(step.input(0)?, step.int("axis", 0))?;
    let mut parts = Vec::new();
    for (output, gradient) in step.node.output.iter().zip(&step.gradients) {
        parts.push(match gradient {
            Some(gradient) => gradient.clone(),
            None => context.zeros_like(output)?,
        });
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let gradient = context.node("Concat", &parts, vec![int("axis", i64::try_from(axis).unwrap_or(0))]);
    step.first(gradient)
}

/// The gradient is padded back to where it was read. Where steps are taken, or it is not known whether bounds count from
/// the end, it is scattered axis by axis.
pub(crate) fn slice(step: &Step, context: &mut Context) -> Gradients {
    let (x, starts) = (step.input(0)?, step.input(1)?);
    let axes: Vec<usize> = match step.optional(3) {
        Some(axes) => context.constant(axes)?.iter().map(|a| context.axis(x, *a)).collect::<Result<_, _>>()?,
        None => (0..context.shape(starts)?.first().copied().unwrap_or(0)).collect(),
    };
    let steps = step.optional(4).map(|steps| context.constant(steps));
    let is_plain = steps.is_none_or(|steps| steps.is_ok_and(|steps| steps.iter().all(|s| *s == 1)));
    match context.constant(starts) {
        Ok(starts) if is_plain && starts.len() == axes.len() => padded(step, context, &axes, &starts),
        _ => scattered(step, context, axes),
    }
}

/// Zeros before and behind, as many as were cut off.
fn padded(step: &Step, context: &mut Context, axes: &[usize], starts: &[i64]) -> Gradients {
    let (g, x) = (step.gradient()?, step.input(0)?);
    let shape = context.shape(x)?;
    let mut before = vec![context.nodes.integers(&[0]); shape.len()];
    for (axis, start) in axes.iter().zip(starts) {
        let extent = shape.get(*axis).and_then(|n| i64::try_from(*n).ok()).unwrap_or(i64::MAX);
        let place = match *start {
            // Beyond the front is the front, beyond the end nothing is read.
            start if start.saturating_add(extent) < 0 => context.nodes.integers(&[0]),
            start if start > extent => context.extent_of(x, *axis),
            // Counted from the end.
            start if start < 0 => {
                let (start, extent) = (context.nodes.integers(&[start]), context.extent_of(x, *axis));
                context.op("Add", &[&start, &extent])
            }
            start => context.nodes.integers(&[start]),
        };
        before.iter_mut().skip(*axis).take(1).for_each(|b| b.clone_from(&place));
    }
    let before = context.node("Concat", &before.iter().map(String::as_str).collect::<Vec<_>>(), vec![int("axis", 0)]);
    let (whole, own) = (context.shape_of(x), context.shape_of(g));
    let rest = context.op("Sub", &[&whole, &own]);
    let behind = context.op("Sub", &[&rest, &before]);
    let pads = context.node("Concat", &[&before, &behind], vec![int("axis", 0)]);
    let gradient = context.op("Pad", &[g, &pads]);
    step.first(gradient)
}

/// Axis by axis, the gradient is scattered to the positions that were read; any step, and bounds that are computed.
fn scattered(step: &Step, context: &mut Context, axes: Vec<usize>) -> Gradients {
    let (x, starts, ends) = (step.input(0)?, step.input(1)?, step.input(2)?);
    let rank = context.shape(x)?.len();
    let mut gradient = step.gradient()?.to_owned();
    for (position, axis) in axes.into_iter().enumerate() {
        let pick = |context: &mut Context, list: &str| {
            let at = context.nodes.integers(&[i64::try_from(position).unwrap_or(i64::MAX)]);
            let picked = context.op("Gather", &[list, &at]);
            // All settings of a Slice have one type.
            context.node("Cast", &[&picked], vec![int("to", i64::from(crate::engine::ElementType::Int64 as i32))])
        };
        let (start, end) = (pick(context, starts), pick(context, ends));
        let by = match step.optional(4) {
            Some(by) => pick(context, by),
            None => context.nodes.integers(&[1]),
        };
        let (extent, first) = (context.extent_of(x, axis), context.nodes.integers(&[0]));
        let positions = range(context, &extent);
        let read = context.op("Slice", &[&positions, &start, &end, &first, &by]);
        let mut wide = vec![1i64; rank];
        wide.iter_mut().skip(axis).take(1).for_each(|n| *n = -1);
        let read = context.reshape(&read, &wide);
        let shape = context.shape_of(&gradient);
        let read = context.op("Expand", &[&read, &shape]);
        // As the gradient is, but of the whole extent along the axis.
        let whole: Vec<String> = (0..rank)
            .map(|other| if other == axis { extent.clone() } else { context.extent_of(&gradient, other) })
            .collect();
        let whole = context.node("Concat", &whole.iter().map(String::as_str).collect::<Vec<_>>(), vec![int("axis", 0)]);
        let zero = context.scalar(x, 0.0)?;
        let zeros = context.op("Expand", &[&zero, &whole]);
        let along = vec![int("axis", i64::try_from(axis).unwrap_or(0))];
        gradient = context.node("ScatterElements", &[&zeros, &read, &gradient], along);
    }
    step.first(gradient)
}

/// 0, 1, … below a length that is a list of one number.
pub(super) fn range(context: &mut Context, length: &str) -> String {
    let length = scalar_of(context, length);
    let zero = context.nodes.constant(crate::engine::ElementType::Int64, &[], 0i64.to_le_bytes().to_vec());
    let one = context.nodes.constant(crate::engine::ElementType::Int64, &[], 1i64.to_le_bytes().to_vec());
    context.op("Range", &[&zero, &length, &one])
}

fn scalar_of(context: &mut Context, list: &str) -> String {
    let empty = context.nodes.integers(&[]);
    context.op("Reshape", &[list, &empty])
}

/// A product with a one-hot matrix of the indices, so that what is read twice gets a sum. The batch may be any axis of
/// the indices, and an axis of the input before that which is read along, or any where that is the first.
pub(crate) fn gather(step: &Step, context: &mut Context) -> Gradients {
    let (g, x, indices) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let axis = context.axis(x, step.int("axis", 0))?;
    let behind = context.shape(x)?.get(axis + 1..).unwrap_or_default();
    let after = behind.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).and_then(|n| i64::try_from(n).ok());
    let (before, after) = if axis == 0 { (1, -1) } else { (-1, after.ok_or("extents that overflow")?) };
    let flat = context.reshape(indices, &[-1]);
    let (before, after) = (context.nodes.integers(&[before]), context.nodes.integers(&[after]));
    let read = context.shape_of(&flat);
    let rows = context.node("Concat", &[&before, &read, &after], vec![int("axis", 0)]);
    let rows = context.op("Reshape", &[g, &rows]);
    let depth = context.extent_of(x, axis);
    let depth = scalar_of(context, &depth);
    let values = context.scalar(x, 0.0)?;
    let one = context.scalar(x, 1.0)?;
    let (values, one) = (context.unsqueeze(&values, &[0]), context.unsqueeze(&one, &[0]));
    let values = context.node("Concat", &[&values, &one], vec![int("axis", 0)]);
    // Engines have no one-hot matrix of short integers.
    let flat = context.node("Cast", &[&flat], vec![int("to", 7)]);
    let chosen = context.node("OneHot", &[&flat, &depth, &values], vec![int("axis", 0)]);
    let gradient = context.op("MatMul", &[&chosen, &rows]);
    let gradient = context.reshape_like(&gradient, x);
    step.first(gradient)
}
