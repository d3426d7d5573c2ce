//! Functions of one input, element by element: the gradient times the slope, from the input or the output.
//!
//! At a kink, Relu, Clip and the like take the slope 0, as training frameworks do.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use super::curves;
use crate::engine::ElementType;
use crate::proto::build::{float, int};

pub(crate) fn identity(step: &Step, _: &mut Context) -> Gradients {
    step.first(step.gradient()?.to_owned())
}

/// Dropout as it is when a model is used: nothing.
pub(crate) fn dropout(step: &Step, context: &mut Context) -> Gradients {
    if let Some(training) = step.optional(2)
        && context.constant(training)?.iter().any(|t| *t != 0)
    {
        return Err("training mode".to_owned());
    }
    step.first(step.gradient()?.to_owned())
}

pub(crate) fn cast(step: &Step, context: &mut Context) -> Gradients {
    let to = i64::from(context.fact(step.input(0)?)?.element as i32);
    let gradient = context.node("Cast", &[step.gradient()?], vec![int("to", to)]);
    step.first(gradient)
}

/// What the type is taken from has no part in the numbers.
pub(crate) fn cast_like(step: &Step, context: &mut Context) -> Gradients {
    let mut gradients = cast(step, context)?;
    gradients.push(if step.needs(1) { Some(context.zeros_like(step.input(1)?)?) } else { None });
    Ok(gradients)
}

pub(crate) fn negate(step: &Step, context: &mut Context) -> Gradients {
    let gradient = context.op("Neg", &[step.gradient()?]);
    step.first(gradient)
}

/// The gradient times the slope.
pub(super) fn times(step: &Step, context: &mut Context, slope: &str) -> Gradients {
    let gradient = context.op("Mul", &[step.gradient()?, slope]);
    step.first(gradient)
}

pub(crate) fn absolute(step: &Step, context: &mut Context) -> Gradients {
    let sign = context.op("Sign", &[step.input(0)?]);
    times(step, context, &sign)
}

pub(crate) fn exponential(step: &Step, context: &mut Context) -> Gradients {
    times(step, context, step.output()?)
}

pub(crate) fn logarithm(step: &Step, context: &mut Context) -> Gradients {
    let gradient = context.op("Div", &[step.gradient()?, step.input(0)?]);
    step.first(gradient)
}

/// 1 / (2 y)
pub(crate) fn root(step: &Step, context: &mut Context) -> Gradients {
    let y = step.output()?;
    let twice = context.op("Add", &[y, y]);
    let gradient = context.op("Div", &[step.gradient()?, &twice]);
    step.first(gradient)
}

/// -y²
pub(crate) fn reciprocal(step: &Step, context: &mut Context) -> Gradients {
    let y = step.output()?;
    let square = context.op("Mul", &[y, y]);
    let slope = context.op("Neg", &[&square]);
    times(step, context, &slope)
}

/// 2 / √π · exp(-x²)
pub(crate) fn error_function(step: &Step, context: &mut Context) -> Gradients {
    let x = step.input(0)?;
    let bell = gauss(context, x, x, 1.0)?;
    let slope = context.scale(&bell, x, 2.0 / PI.sqrt())?;
    times(step, context, &slope)
}

/// exp(-factor · x²)
fn gauss(context: &mut Context, x: &str, like: &str, factor: f64) -> Result<String, String> {
    let square = context.op("Mul", &[x, x]);
    let exponent = context.scale(&square, like, -factor)?;
    Ok(context.op("Exp", &[&exponent]))
}

/// y (1 - y)
pub(crate) fn sigmoid(step: &Step, context: &mut Context) -> Gradients {
    let y = step.output()?;
    let one = context.scalar(y, 1.0)?;
    let rest = context.op("Sub", &[&one, y]);
    let slope = context.op("Mul", &[y, &rest]);
    times(step, context, &slope)
}

/// 1 - y²
pub(crate) fn tanh(step: &Step, context: &mut Context) -> Gradients {
    let y = step.output()?;
    let one = context.scalar(y, 1.0)?;
    let square = context.op("Mul", &[y, y]);
    let slope = context.op("Sub", &[&one, &square]);
    times(step, context, &slope)
}

pub(crate) fn softplus(step: &Step, context: &mut Context) -> Gradients {
    let slope = context.op("Sigmoid", &[step.input(0)?]);
    times(step, context, &slope)
}

/// The slope as a number: engines multiply faster than they choose. In single precision it is min(1, α y), which engines
/// compute three times as fast as the sign; α is so large that every y above 0 but a denormal one gives 1.
pub(crate) fn relu(step: &Step, context: &mut Context) -> Gradients {
    let y = step.output()?;
    let slope = match context.fact(y)?.element {
        ElementType::Float => context.node("HardSigmoid", &[y], vec![float("alpha", 3e38), float("beta", 0.0)]),
        _ => context.op("Sign", &[y]),
    };
    times(step, context, &slope)
}

/// `positive` times the gradient where the input is above 0, `negative` elsewhere.
fn two_sided(step: &Step, context: &mut Context, positive: f64, negative: &str) -> Gradients {
    let (g, x) = (step.gradient()?, step.input(0)?);
    let zero = context.scalar(x, 0.0)?;
    let is_positive = context.op("Greater", &[x, &zero]);
    let above = context.scale(g, x, positive)?;
    let below = context.op("Mul", &[g, negative]);
    let gradient = context.op("Where", &[&is_positive, &above, &below]);
    step.first(gradient)
}

pub(crate) fn leaky_relu(step: &Step, context: &mut Context) -> Gradients {
    let slope = context.scalar(step.input(0)?, step.float("alpha", 0.01))?;
    two_sided(step, context, 1.0, &slope)
}

/// Below 0, y = alpha (exp(x) - 1) has the slope y + alpha.
pub(crate) fn elu(step: &Step, context: &mut Context) -> Gradients {
    let y = step.output()?;
    let alpha = context.scalar(y, step.float("alpha", 1.0))?;
    let slope = context.op("Add", &[y, &alpha]);
    two_sided(step, context, 1.0, &slope)
}

/// As elu, with both sides times gamma.
pub(crate) fn selu(step: &Step, context: &mut Context) -> Gradients {
    let y = step.output()?;
    let gamma = step.float("gamma", 1.050_701);
    let alpha = context.scalar(y, gamma * step.float("alpha", 1.673_263_2))?;
    let slope = context.op("Add", &[y, &alpha]);
    two_sided(step, context, gamma, &slope)
}

/// alpha where 0 < y < 1
pub(crate) fn hard_sigmoid(step: &Step, context: &mut Context) -> Gradients {
    let y = step.output()?;
    let alpha = step.float("alpha", 0.2);
    let inside = between(context, y, y, 0.0, 1.0)?;
    let gradient = context.masked(&inside, step.gradient()?, y)?;
    let gradient = context.scale(&gradient, y, alpha)?;
    step.first(gradient)
}

fn between(context: &mut Context, x: &str, like: &str, low: f64, high: f64) -> Result<String, String> {
    let (low, high) = (context.scalar(like, low)?, context.scalar(like, high)?);
    let (above, below) = (context.op("Greater", &[x, &low]), context.op("Less", &[x, &high]));
    Ok(context.op("And", &[&above, &below]))
}

/// 0 up to -3, 1 from 3 on, x / 3 + 1 / 2 between.
pub(crate) fn hard_swish(step: &Step, context: &mut Context) -> Gradients {
    let x = step.input(0)?;
    let inside = between(context, x, x, -3.0, 3.0)?;
    let third = context.scale(x, x, 1.0 / 3.0)?;
    let half = context.scalar(x, 0.5)?;
    let line = context.op("Add", &[&third, &half]);
    let zero = context.scalar(x, 0.0)?;
    let is_positive = context.op("Greater", &[x, &zero]);
    let one = context.scalar(x, 1.0)?;
    let outside = context.masked(&is_positive, &one, x)?;
    let slope = context.op("Where", &[&inside, &line, &outside]);
    times(step, context, &slope)
}

/// What was not clipped has kept its value, whichever form the bounds have.
/// The gradient where the input lies between the bounds and not on them, so that a Clip that starts at 0 is like Relu.
pub(crate) fn clip(step: &Step, context: &mut Context) -> Gradients {
    let x = step.input(0)?;
    let said = |name: &str| step.node.attribute.iter().find(|a| a.name() == name).map(|a| f64::from(a.f()));
    let mut inside: Option<String> = None;
    for (slot, name, compare) in [(1, "min", "Greater"), (2, "max", "Less")] {
        let bound = match (step.optional(slot), said(name)) {
            (Some(bound), _) => bound.to_owned(),
            (None, Some(number)) => context.scalar(x, number)?,
            (None, None) => continue,
        };
        let is_inside = context.op(compare, &[x, &bound]);
        inside = Some(match inside {
            Some(other) => context.op("And", &[&other, &is_inside]),
            None => is_inside,
        });
    }
    let Some(inside) = inside else { return step.first(step.gradient()?.to_owned()) };
    let slope = context.number(&inside, x)?;
    times(step, context, &slope)
}

/// Φ(x) + x φ(x), or that of the form with tanh.
pub(crate) fn gelu(step: &Step, context: &mut Context) -> Gradients {
    let x = step.input(0)?;
    if step.text("approximate") == b"tanh" {
        let slope = curves::gelu_by_tanh(context, x, x)?;
        return times(step, context, &slope);
    }
    let slope = gelu_slope(context, x, x)?;
    times(step, context, &slope)
}

/// The slope at `x`, which has the type of `like`.
pub(super) fn gelu_slope(context: &mut Context, x: &str, like: &str) -> Result<String, String> {
    let scaled = context.scale(x, like, FRAC_1_SQRT_2)?;
    let erf = context.op("Erf", &[&scaled]);
    let one = context.scalar(like, 1.0)?;
    let twice = context.op("Add", &[&erf, &one]);
    let cumulative = context.scale(&twice, like, 0.5)?;
    let bell = gauss(context, x, like, 0.5)?;
    let weighted = context.op("Mul", &[x, &bell]);
    let weighted = context.scale(&weighted, like, 1.0 / (2.0 * PI).sqrt())?;
    Ok(context.op("Add", &[&cumulative, &weighted]))
}
