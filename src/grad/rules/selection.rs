//! What selects, turns round, cuts and lays over one another: Compress, ReverseSequence, CenterCropPad, Col2Im.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Compress.html>, `onnx__ReverseSequence.html`, `onnx__CenterCropPad.html`,
//! `onnx__Col2Im.html`.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use super::sample::{count, signed};
use crate::proto::build::ints;

/// More places than this are not counted.
const MOST_PLACES: usize = 1 << 22;

/// Every slice that was selected gets its gradient, which no two share.
pub(crate) fn compress(step: &Step, context: &mut Context) -> Gradients {
    let (g, x, condition) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let places = context.op("NonZero", &[condition]);
    let places = context.reshape(&places, &[-1, 1]);
    let zeros = context.zeros_like(x)?;
    let Some(axis) = step.attribute("axis") else {
        let flat = context.reshape(&zeros, &[-1]);
        let spread = context.op("ScatterND", &[&flat, &places, g]);
        let gradient = context.reshape_like(&spread, x);
        return step.first(gradient);
    };
    let axis = context.axis(x, axis.i())?;
    // The selected axis and the first one exchanged.
    let mut order: Vec<usize> = (0..context.shape(x)?.len()).collect();
    order.swap(0, axis);
    let (zeros, g) = (context.transpose(&zeros, &order), context.transpose(g, &order));
    let spread = context.op("ScatterND", &[&zeros, &places, &g]);
    let gradient = context.transpose(&spread, &order);
    step.first(gradient)
}

/// Turned round once more.
pub(crate) fn reverse(step: &Step, context: &mut Context) -> Gradients {
    let gradient = context.node("ReverseSequence", &[step.gradient()?, step.input(1)?], step.node.attribute.clone());
    step.first(gradient)
}

/// What was cut off is padded, what was padded is cut off.
pub(crate) fn crop(step: &Step, context: &mut Context) -> Gradients {
    let (g, x) = (step.gradient()?, step.input(0)?);
    let rank = context.shape(x)?.len();
    let axes: Vec<usize> = match step.ints("axes") {
        Some(axes) => axes.iter().map(|axis| context.axis(x, *axis)).collect::<Result<_, _>>()?,
        None => (0..rank).collect(),
    };
    let places: Vec<i64> = axes.iter().filter_map(|axis| i64::try_from(*axis).ok()).collect();
    let places = context.nodes.integers(&places);
    let shape = context.shape_of(x);
    let extents = context.op("Gather", &[&shape, &places]);
    let gradient = context.node("CenterCropPad", &[g, &extents], vec![ints("axes", &axes)]);
    step.first(gradient)
}

/// Every column takes its block out of the padded gradient.
pub(crate) fn columns(step: &Step, context: &mut Context) -> Gradients {
    let (g, x) = (step.gradient()?, step.input(0)?);
    let out = context.shape(step.output()?)?;
    let block: Option<Vec<usize>> =
        context.constant(step.input(2)?)?.iter().map(|n| usize::try_from(*n).ok()).collect();
    let block = block.ok_or("a block that is not understood")?;
    let [_, channels, space @ ..] = out else { return Err("batch and channels are needed".to_owned()) };
    let rank = space.len();
    let list = |name: &str, length: usize, default: usize| -> Result<Vec<usize>, String> {
        let Some(given) = step.ints(name) else { return Ok(vec![default; length]) };
        let list: Option<Vec<usize>> =
            given.iter().map(|n| usize::try_from(*n).ok().filter(|n| *n < 1 << 24)).collect();
        list.filter(|l| l.len() == length).ok_or_else(|| format!("`{name}` is not understood"))
    };
    let (strides, dilations, pads) =
        (list("strides", rank, 1)?, list("dilations", rank, 1)?, list("pads", 2 * rank, 0)?);
    let (begin, end) = pads.split_at(rank);
    // By axis: the extent with padding, the taps of the block and the blocks side by side.
    let mut axes = Vec::new();
    for axis in 0..rank {
        let get = |list: &[usize]| list.get(axis).copied().ok_or("an axis without a block");
        let (taps, stride, dilation) = (get(&block)?, get(&strides)?, get(&dilations)?);
        let whole = get(space)? + get(begin)? + get(end)?;
        let reach = taps.saturating_sub(1).saturating_mul(dilation).saturating_add(1);
        let steps =
            whole.checked_sub(reach).and_then(|rest| rest.checked_div(stride)).ok_or("a block that does not fit")?;
        axes.push((whole, taps, steps + 1, stride, dilation));
    }
    let taps = count(&axes.iter().map(|axis| axis.1).collect::<Vec<_>>())?;
    let blocks = count(&axes.iter().map(|axis| axis.2).collect::<Vec<_>>())?;
    let places = count(&[taps, blocks]).ok().filter(|n| *n <= MOST_PLACES).ok_or("too many blocks")?;
    let place = |i: usize| {
        let (mut tap, mut block, mut at, mut stride) = (i / blocks, i % blocks, 0, 1);
        for (whole, taps, steps, by, dilation) in axes.iter().rev() {
            at += stride * ((tap % taps) * dilation + (block % steps) * by);
            (tap, block, stride) = (tap / taps, block / steps, stride * whole);
        }
        signed(at)
    };
    let places: Vec<i64> = (0..places).map(place).collect::<Result<_, _>>()?;
    let places = context.nodes.integers(&places);
    let mut around = vec![0, 0];
    begin.iter().try_for_each(|n| signed(*n).map(|n| around.push(n)))?;
    around.extend([0, 0]);
    end.iter().try_for_each(|n| signed(*n).map(|n| around.push(n)))?;
    let around = context.nodes.integers(&around);
    let padded = context.op("Pad", &[g, &around]);
    let flat = context.reshape(&padded, &[0, signed(*channels)?, -1]);
    let read = context.node("Gather", &[&flat, &places], vec![crate::proto::build::int("axis", 2)]);
    let gradient = context.reshape_like(&read, x);
    step.first(gradient)
}
