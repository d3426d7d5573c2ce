//! Reductions, and softmax, which sums over its axis.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use crate::proto::build::int;

/// The axes of a reduction.
fn axes(step: &Step, context: &Context) -> Result<Vec<usize>, String> {
    let x = step.input(0)?;
    let given = match (step.ints("axes"), step.optional(1)) {
        (Some(axes), _) => axes.to_vec(),
        (None, Some(axes)) => context.constant(axes)?,
        (None, None) => Vec::new(),
    };
    if given.is_empty() {
        return Ok(if step.int("noop_with_empty_axes", 0) != 0 {
            Vec::new()
        } else {
            (0..context.shape(x)?.len()).collect()
        });
    }
    let mut axes: Vec<usize> = given.iter().map(|a| context.axis(x, *a)).collect::<Result<_, _>>()?;
    axes.sort_unstable();
    axes.dedup();
    Ok(axes)
}

/// A value of the output's shape with the reduced axes as extents of 1.
fn kept(step: &Step, context: &mut Context, value: &str) -> Result<String, String> {
    let axes = axes(step, context)?;
    if step.int("keepdims", 1) != 0 || axes.is_empty() {
        return Ok(value.to_owned());
    }
    Ok(context.unsqueeze(value, &axes))
}

/// `gradient` by how many entries of `x` went into one of `y`.
pub(super) fn divided(context: &mut Context, gradient: &str, x: &str, y: &str) -> Result<String, String> {
    let (all, left) = (context.op("Size", &[x]), context.op("Size", &[y]));
    let count = context.op("Div", &[&all, &left]);
    let element = i64::from(context.fact(x)?.element as i32);
    let count = context.node("Cast", &[&count], vec![int("to", element)]);
    Ok(context.op("Div", &[gradient, &count]))
}

fn spread(step: &Step, context: &mut Context, gradient: &str) -> Gradients {
    let gradient = kept(step, context, gradient)?;
    let shape = context.shape_of(step.input(0)?);
    let gradient = context.op("Expand", &[&gradient, &shape]);
    step.first(gradient)
}

pub(crate) fn sum(step: &Step, context: &mut Context) -> Gradients {
    spread(step, context, step.gradient()?)
}

pub(crate) fn mean(step: &Step, context: &mut Context) -> Gradients {
    let share = divided(context, step.gradient()?, step.input(0)?, step.output()?)?;
    spread(step, context, &share)
}

pub(crate) fn extreme(step: &Step, context: &mut Context) -> Gradients {
    let x = step.input(0)?;
    let axes = axes(step, context)?;
    let (g, y) = (kept(step, context, step.gradient()?)?, kept(step, context, step.output()?)?);
    let hits = context.equal(x, &y, x)?;
    let count = if axes.is_empty() { hits.clone() } else { context.sum(&hits, &axes, true) };
    let share = context.op("Div", &[&g, &count]);
    let gradient = context.op("Mul", &[&share, &hits]);
    step.first(gradient)
}

/// The axis of a softmax. Before set 13 it flattens, which is the same for the last axis alone.
fn softmax_axis(step: &Step, context: &Context) -> Result<usize, String> {
    let y = step.output()?;
    let axis = context.axis(y, step.int("axis", if context.opset < 13 { 1 } else { -1 }))?;
    if context.opset < 13 && axis + 1 != context.shape(y)?.len() {
        return Err("over several axes at once, as before operator set 13".to_owned());
    }
    Ok(axis)
}

/// y (g - Σ g y)
pub(crate) fn softmax(step: &Step, context: &mut Context) -> Gradients {
    let (g, y) = (step.gradient()?, step.output()?);
    let axis = softmax_axis(step, context)?;
    let product = context.op("Mul", &[g, y]);
    let sum = context.sum(&product, &[axis], true);
    let rest = context.op("Sub", &[g, &sum]);
    let gradient = context.op("Mul", &[y, &rest]);
    step.first(gradient)
}

/// g - exp(y) Σ g
pub(crate) fn log_softmax(step: &Step, context: &mut Context) -> Gradients {
    let (g, y) = (step.gradient()?, step.output()?);
    let axis = softmax_axis(step, context)?;
    let sum = context.sum(g, &[axis], true);
    let probability = context.op("Exp", &[y]);
    let part = context.op("Mul", &[&probability, &sum]);
    let gradient = context.op("Sub", &[g, &part]);
    step.first(gradient)
}
