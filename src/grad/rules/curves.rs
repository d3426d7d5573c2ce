//! More functions of one input, element by element: those with a slope that takes several nodes.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use super::activation::times;

/// `constant + value`.
fn plus(context: &mut Context, value: &str, like: &str, constant: f64) -> Result<String, String> {
    let constant = context.scalar(like, constant)?;
    Ok(context.op("Add", &[value, &constant]))
}

/// 1 - t²
fn rest(context: &mut Context, t: &str, like: &str) -> Result<String, String> {
    let square = context.op("Mul", &[t, t]);
    let one = context.scalar(like, 1.0)?;
    Ok(context.op("Sub", &[&one, &square]))
}

/// tanh(s) + x (1 - tanh(s)²) sigmoid(x), where s is the softplus of x.
pub(crate) fn mish(step: &Step, context: &mut Context) -> Gradients {
    let x = step.input(0)?;
    let softplus = context.op("Softplus", &[x]);
    let t = context.op("Tanh", &[&softplus]);
    let rest = rest(context, &t, x)?;
    let sigmoid = context.op("Sigmoid", &[x]);
    let part = context.op("Mul", &[x, &rest]);
    let part = context.op("Mul", &[&part, &sigmoid]);
    let slope = context.op("Add", &[&t, &part]);
    times(step, context, &slope)
}

/// 1 above 0, exp(x / alpha) below.
pub(crate) fn celu(step: &Step, context: &mut Context) -> Gradients {
    let x = step.input(0)?;
    let zero = context.scalar(x, 0.0)?;
    let negative = context.op("Min", &[x, &zero]);
    let scaled = context.scale(&negative, x, 1.0 / step.float("alpha", 1.0))?;
    let slope = context.op("Exp", &[&scaled]);
    times(step, context, &slope)
}

pub(crate) fn thresholded_relu(step: &Step, context: &mut Context) -> Gradients {
    let x = step.input(0)?;
    let alpha = context.scalar(x, step.float("alpha", 1.0))?;
    let above = context.op("Greater", &[x, &alpha]);
    let gradient = context.masked(&above, step.gradient()?, x)?;
    step.first(gradient)
}

/// sign(x) where |x| is above lambda: the slope is 1 there, 0 elsewhere.
pub(crate) fn shrink(step: &Step, context: &mut Context) -> Gradients {
    let x = step.input(0)?;
    let size = context.op("Abs", &[x]);
    let lambda = context.scalar(x, step.float("lambd", 0.5))?;
    let above = context.op("Greater", &[&size, &lambda]);
    let gradient = context.masked(&above, step.gradient()?, x)?;
    step.first(gradient)
}

/// 1 / (1 + |x|)²
pub(crate) fn softsign(step: &Step, context: &mut Context) -> Gradients {
    let x = step.input(0)?;
    let size = context.op("Abs", &[x]);
    let below = plus(context, &size, x, 1.0)?;
    let square = context.op("Mul", &[&below, &below]);
    let gradient = context.op("Div", &[step.gradient()?, &square]);
    step.first(gradient)
}

/// x sigmoid(alpha x): s + alpha y (1 - s).
fn swish_by(step: &Step, context: &mut Context, alpha: f64) -> Gradients {
    let (x, y) = (step.input(0)?, step.output()?);
    let scaled = context.scale(x, x, alpha)?;
    let s = context.op("Sigmoid", &[&scaled]);
    let one = context.scalar(x, 1.0)?;
    let rest = context.op("Sub", &[&one, &s]);
    let part = context.op("Mul", &[y, &rest]);
    let part = context.scale(&part, x, alpha)?;
    let slope = context.op("Add", &[&s, &part]);
    times(step, context, &slope)
}

pub(crate) fn swish(step: &Step, context: &mut Context) -> Gradients {
    swish_by(step, context, step.float("alpha", 1.0))
}

pub(crate) fn quick_gelu(step: &Step, context: &mut Context) -> Gradients {
    swish_by(step, context, step.float("alpha", 1.702))
}

/// (1 + t) / 2 + x (1 - t²) c (1 + 3 a x²) / 2, where t = tanh(c (x + a x³)).
pub(super) fn gelu_by_tanh(context: &mut Context, x: &str, like: &str) -> Result<String, String> {
    let (c, a) = ((2.0 / std::f64::consts::PI).sqrt(), 0.044_715);
    let square = context.op("Mul", &[x, x]);
    let inner = context.scale(&square, like, a)?;
    let inner = plus(context, &inner, like, 1.0)?;
    let inner = context.op("Mul", &[x, &inner]);
    let inner = context.scale(&inner, like, c)?;
    let t = context.op("Tanh", &[&inner]);
    let first = plus(context, &t, like, 1.0)?;
    let first = context.scale(&first, like, 0.5)?;
    let steep = context.scale(&square, like, 1.5 * a * c)?;
    let steep = plus(context, &steep, like, 0.5 * c)?;
    let rest = rest(context, &t, like)?;
    let second = context.op("Mul", &[&rest, &steep]);
    let second = context.op("Mul", &[x, &second]);
    Ok(context.op("Add", &[&first, &second]))
}

pub(crate) fn sine(step: &Step, context: &mut Context) -> Gradients {
    let slope = context.op("Cos", &[step.input(0)?]);
    times(step, context, &slope)
}

pub(crate) fn cosine(step: &Step, context: &mut Context) -> Gradients {
    let sine = context.op("Sin", &[step.input(0)?]);
    let slope = context.op("Neg", &[&sine]);
    times(step, context, &slope)
}

/// 1 + y²
pub(crate) fn tangent(step: &Step, context: &mut Context) -> Gradients {
    let y = step.output()?;
    let square = context.op("Mul", &[y, y]);
    let slope = plus(context, &square, y, 1.0)?;
    times(step, context, &slope)
}

/// `sign · (x² · by + shift)`, under a root if `rooted`: what the slope of an inverse function is divided by.
fn inverse(step: &Step, context: &mut Context, by: f64, shift: f64, rooted: bool, sign: f64) -> Gradients {
    let x = step.input(0)?;
    let square = context.op("Mul", &[x, x]);
    let scaled = context.scale(&square, x, by)?;
    let mut below = plus(context, &scaled, x, shift)?;
    if rooted {
        below = context.op("Sqrt", &[&below]);
    }
    let signed = context.scale(step.gradient()?, x, sign)?;
    let gradient = context.op("Div", &[&signed, &below]);
    step.first(gradient)
}

pub(crate) fn arc_sine(step: &Step, context: &mut Context) -> Gradients {
    inverse(step, context, -1.0, 1.0, true, 1.0)
}

pub(crate) fn arc_cosine(step: &Step, context: &mut Context) -> Gradients {
    inverse(step, context, -1.0, 1.0, true, -1.0)
}

pub(crate) fn arc_tangent(step: &Step, context: &mut Context) -> Gradients {
    inverse(step, context, 1.0, 1.0, false, 1.0)
}

pub(crate) fn area_sine(step: &Step, context: &mut Context) -> Gradients {
    inverse(step, context, 1.0, 1.0, true, 1.0)
}

pub(crate) fn area_cosine(step: &Step, context: &mut Context) -> Gradients {
    inverse(step, context, 1.0, -1.0, true, 1.0)
}

pub(crate) fn area_tangent(step: &Step, context: &mut Context) -> Gradients {
    inverse(step, context, -1.0, 1.0, false, 1.0)
}

pub(crate) fn hyperbolic_sine(step: &Step, context: &mut Context) -> Gradients {
    let slope = context.op("Cosh", &[step.input(0)?]);
    times(step, context, &slope)
}

pub(crate) fn hyperbolic_cosine(step: &Step, context: &mut Context) -> Gradients {
    let slope = context.op("Sinh", &[step.input(0)?]);
    times(step, context, &slope)
}
