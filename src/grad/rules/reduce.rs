//! Reductions, and softmax, which sums over its axis.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use crate::engine::ElementType;
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

/// `gradient` by how many entries of `x` went into one of `y`; half precision cannot count far enough.
pub(super) fn divided(context: &mut Context, gradient: &str, x: &str, y: &str) -> Result<String, String> {
    let (all, left) = (context.op("Size", &[x]), context.op("Size", &[y]));
    let count = context.op("Div", &[&all, &left]);
    let element = context.fact(x)?.element;
    let cast = |context: &mut Context, value: &str, to: ElementType| {
        context.node("Cast", &[value], vec![int("to", i64::from(to as i32))])
    };
    if element != ElementType::Float16 {
        let count = cast(context, &count, element);
        return Ok(context.op("Div", &[gradient, &count]));
    }
    let (gradient, count) = (cast(context, gradient, ElementType::Float), cast(context, &count, ElementType::Float));
    let share = context.op("Div", &[&gradient, &count]);
    Ok(cast(context, &share, element))
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
    let axes = axes(step, context)?;
    if axes.is_empty() {
        return step.first(step.gradient()?.to_owned());
    }
    let (g, y) = (kept(step, context, step.gradient()?)?, kept(step, context, step.output()?)?);
    shared(step, context, &g, &y, &axes)
}

/// The entries along `axes` that are the extreme share its gradient.
fn shared(step: &Step, context: &mut Context, g: &str, y: &str, axes: &[usize]) -> Gradients {
    let x = step.input(0)?;
    let hits = context.equal(x, y, x)?;
    let count = context.sum(&hits, axes, true);
    let share = context.op("Div", &[g, &count]);
    let gradient = context.op("Mul", &[&share, &hits]);
    step.first(gradient)
}

/// `gradient · factor(x, y)` where the output is kept beside the input.
fn along(
    step: &Step,
    context: &mut Context,
    slope: impl FnOnce(&mut Context, &str, &str) -> Result<String, String>,
) -> Gradients {
    let x = step.input(0)?;
    let (g, y) = (kept(step, context, step.gradient()?)?, kept(step, context, step.output()?)?);
    let slope = slope(context, x, &y)?;
    let gradient = context.op("Mul", &[&slope, &g]);
    step.first(gradient)
}

/// sign(x)
pub(crate) fn absolute(step: &Step, context: &mut Context) -> Gradients {
    along(step, context, |context, x, _| Ok(context.op("Sign", &[x])))
}

/// x / y; 0 where y is.
pub(crate) fn length(step: &Step, context: &mut Context) -> Gradients {
    along(step, context, |context, x, y| {
        let one = context.scalar(x, 1.0)?;
        let zero = context.scalar(x, 0.0)?;
        let none = context.op("Equal", &[y, &zero]);
        let safe = context.op("Where", &[&none, &one, y]);
        Ok(context.op("Div", &[x, &safe]))
    })
}

/// 2 x
pub(crate) fn squares(step: &Step, context: &mut Context) -> Gradients {
    along(step, context, |context, x, _| Ok(context.op("Add", &[x, x])))
}

/// exp(x - y)
pub(crate) fn log_sum_exp(step: &Step, context: &mut Context) -> Gradients {
    along(step, context, |context, x, y| {
        let rest = context.op("Sub", &[x, y]);
        Ok(context.op("Exp", &[&rest]))
    })
}

/// exp(-y)
pub(crate) fn log_sum(step: &Step, context: &mut Context) -> Gradients {
    let x = step.input(0)?;
    let (g, y) = (kept(step, context, step.gradient()?)?, kept(step, context, step.output()?)?);
    let sum = context.op("Exp", &[&y]);
    let share = context.op("Div", &[&g, &sum]);
    let shape = context.shape_of(x);
    let gradient = context.op("Expand", &[&share, &shape]);
    step.first(gradient)
}

/// y / x where no factor is 0. One factor that is 0 gets the product of the others; where two are, all get 0.
pub(crate) fn product(step: &Step, context: &mut Context) -> Gradients {
    let axes = axes(step, context)?;
    if axes.is_empty() {
        return step.first(step.gradient()?.to_owned());
    }
    along(step, context, |context, x, _| {
        let (zero, one) = (context.scalar(x, 0.0)?, context.scalar(x, 1.0)?);
        let none = context.op("Equal", &[x, &zero]);
        let safe = context.op("Where", &[&none, &one, x]);
        let others = context.reduce("ReduceProd", 18, &safe, &axes, true);
        let zeros = context.op("Where", &[&none, &one, &zero]);
        let count = context.sum(&zeros, &axes, true);
        let further = context.op("Sub", &[&count, &zeros]);
        let is_last = context.op("Equal", &[&further, &zero]);
        let quotient = context.op("Div", &[&others, &safe]);
        context.masked(&is_last, &quotient, x)
    })
}

/// LpNormalization: (g - sign(x) Σ g y) / n for the sum of sizes n, (g - y Σ g y) / n for the root of squares; 0 where n is.
pub(crate) fn unit_length(step: &Step, context: &mut Context) -> Gradients {
    let (g, x, y) = (step.gradient()?, step.input(0)?, step.output()?);
    let axis = context.axis(x, step.int("axis", -1))?;
    let (operator, direction) = match step.int("p", 2) {
        1 => ("ReduceL1", context.op("Sign", &[x])),
        2 => ("ReduceL2", y.to_owned()),
        p => return Err(format!("p = {p}")),
    };
    let size = context.reduce(operator, 18, x, &[axis], true);
    let product = context.op("Mul", &[g, y]);
    let sum = context.sum(&product, &[axis], true);
    let along = context.op("Mul", &[&direction, &sum]);
    let rest = context.op("Sub", &[g, &along]);
    let quotient = context.op("Div", &[&rest, &size]);
    let zero = context.scalar(x, 0.0)?;
    let is_long = context.op("Greater", &[&size, &zero]);
    let gradient = context.masked(&is_long, &quotient, x)?;
    step.first(gradient)
}

/// GlobalMaxPool: the maxima share.
pub(crate) fn global_maximum(step: &Step, context: &mut Context) -> Gradients {
    let axes: Vec<usize> = (2..context.shape(step.input(0)?)?.len()).collect();
    shared(step, context, step.gradient()?, step.output()?, &axes)
}

/// The axes of a softmax: before set 13 all from `axis` on.
fn softmax_axes(step: &Step, context: &Context) -> Result<Vec<usize>, String> {
    let y = step.output()?;
    let axis = context.axis(y, step.int("axis", if context.opset < 13 { 1 } else { -1 }))?;
    Ok(if context.opset < 13 { (axis..context.shape(y)?.len()).collect() } else { vec![axis] })
}

/// y (g - Σ g y)
pub(crate) fn softmax(step: &Step, context: &mut Context) -> Gradients {
    let (g, y) = (step.gradient()?, step.output()?);
    let axes = softmax_axes(step, context)?;
    let product = context.op("Mul", &[g, y]);
    let sum = context.sum(&product, &axes, true);
    let rest = context.op("Sub", &[g, &sum]);
    let gradient = context.op("Mul", &[y, &rest]);
    step.first(gradient)
}

/// g - exp(y) Σ g
pub(crate) fn log_softmax(step: &Step, context: &mut Context) -> Gradients {
    let (g, y) = (step.gradient()?, step.output()?);
    let axes = softmax_axes(step, context)?;
    let sum = context.sum(g, &axes, true);
    let probability = context.op("Exp", &[y]);
    let part = context.op("Mul", &[&probability, &sum]);
    let gradient = context.op("Sub", &[g, &part]);
    step.first(gradient)
}
