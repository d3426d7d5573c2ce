//! DepthToSpace, SpaceToDepth, Tile, CumSum, Trilu: what moves or adds along axes in regular ways.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use crate::proto::build::{int, text};

fn size(step: &Step) -> Result<i64, String> {
    Some(step.int("blocksize", 0)).filter(|size| *size > 0).ok_or_else(|| "no `blocksize`".to_owned())
}

/// Channels, height and width of a value.
fn picture(context: &Context, value: &str) -> Result<[i64; 3], String> {
    let number = |n: &usize| i64::try_from(*n).map_err(|e| e.to_string());
    match context.shape(value)? {
        [_, c, h, w] => Ok([number(c)?, number(h)?, number(w)?]),
        _ => Err("four axes are needed".to_owned()),
    }
}

pub(crate) fn depth_to_space(step: &Step, context: &mut Context) -> Gradients {
    let (g, size) = (step.gradient()?, size(step)?);
    if step.text("mode") != b"CRD" {
        let gradient = context.node("SpaceToDepth", &[g], vec![int("blocksize", size)]);
        return step.first(gradient);
    }
    let [channels, height, width] = picture(context, step.output()?)?;
    let divided = context.reshape(g, &[-1, channels, height / size, size, width / size, size]);
    let turned = context.transpose(&divided, &[0, 1, 3, 5, 2, 4]);
    let gradient = context.reshape_like(&turned, step.input(0)?);
    step.first(gradient)
}

pub(crate) fn space_to_depth(step: &Step, context: &mut Context) -> Gradients {
    let attributes = vec![int("blocksize", size(step)?), text("mode", "DCR")];
    let gradient = context.node("DepthToSpace", &[step.gradient()?], attributes);
    step.first(gradient)
}

/// Every copy takes part: each axis becomes copies beside entries, and the copies are summed.
pub(crate) fn tile(step: &Step, context: &mut Context) -> Gradients {
    let (g, x, repeats) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let rank = context.shape(x)?.len();
    let extents = context.shape_of(x);
    let axes: Vec<usize> = (0..rank).collect();
    // [r0, d0, r1, d1, …]
    let (counts, extents) = (context.unsqueeze(repeats, &[1]), context.unsqueeze(&extents, &[1]));
    let pairs = context.node("Concat", &[&counts, &extents], vec![int("axis", 1)]);
    let pairs = context.reshape(&pairs, &[-1]);
    let divided = context.op("Reshape", &[g, &pairs]);
    let copies: Vec<usize> = axes.iter().map(|axis| 2 * axis).collect();
    let gradient = if copies.is_empty() { divided } else { context.sum(&divided, &copies, false) };
    step.first(gradient)
}

/// A running sum of the gradient in the other direction.
pub(crate) fn running_sum(step: &Step, context: &mut Context) -> Gradients {
    let attributes =
        vec![int("exclusive", step.int("exclusive", 0)), int("reverse", i64::from(step.int("reverse", 0) == 0))];
    let gradient = context.node("CumSum", &[step.gradient()?, step.input(1)?], attributes);
    step.first(gradient)
}

/// The same triangle of the gradient.
pub(crate) fn triangle(step: &Step, context: &mut Context) -> Gradients {
    let mut inputs = vec![step.gradient()?];
    inputs.extend(step.optional(1));
    let gradient = context.node("Trilu", &inputs, vec![int("upper", step.int("upper", 1))]);
    step.first(gradient)
}
