//! Operators of `com.microsoft` that do the work of several: the gradient passes the last of them first.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use super::{activation, conv, curves, linear, normalise};

/// The gradient before an activation that is part of a node, from that behind it and the node's output.
fn before(step: &Step, context: &mut Context, name: &[u8], parameters: &[f64]) -> Result<String, String> {
    let (g, y) = (step.gradient()?, step.output()?);
    let first = parameters.first().copied();
    let above = |context: &mut Context, bound: f64, operator: &str| -> Result<String, String> {
        let bound = context.scalar(y, bound)?;
        Ok(context.op(operator, &[y, &bound]))
    };
    let between = |context: &mut Context, low: f64, high: f64| -> Result<String, String> {
        let (low, high) = (above(context, low, "Greater")?, above(context, high, "Less")?);
        let inside = context.op("And", &[&low, &high]);
        context.masked(&inside, g, y)
    };
    match name {
        b"" => Ok(g.to_owned()),
        b"Relu" => {
            let positive = above(context, 0.0, "Greater")?;
            context.masked(&positive, g, y)
        }
        // With a slope below 0 the output does not tell on which side the input was.
        b"LeakyRelu" if first.unwrap_or(0.01) >= 0.0 => {
            let positive = above(context, 0.0, "Greater")?;
            let below = context.scale(g, y, first.unwrap_or(0.01))?;
            Ok(context.op("Where", &[&positive, g, &below]))
        }
        b"Tanh" | b"Sigmoid" => {
            let one = context.scalar(y, 1.0)?;
            let slope = if name == b"Tanh" {
                let square = context.op("Mul", &[y, y]);
                context.op("Sub", &[&one, &square])
            } else {
                let rest = context.op("Sub", &[&one, y]);
                context.op("Mul", &[y, &rest])
            };
            Ok(context.op("Mul", &[g, &slope]))
        }
        b"HardSigmoid" => {
            let inside = between(context, 0.0, 1.0)?;
            context.scale(&inside, y, first.unwrap_or(0.2))
        }
        b"Clip" => {
            let high = parameters.get(1).copied().unwrap_or(f64::from(f32::MAX));
            between(context, first.unwrap_or(f64::from(f32::MIN)), high)
        }
        other => Err(format!("activation `{}`", String::from_utf8_lossy(other))),
    }
}

/// A node with the gradient before its activation.
fn inside<'a>(step: &Step<'a>, gradient: &str) -> Step<'a> {
    Step { node: step.node, gradients: vec![Some(gradient.to_owned())], needs: step.needs.clone() }
}

/// Conv, what is added, and an activation.
pub(crate) fn convolution(step: &Step, context: &mut Context) -> Gradients {
    let parameters = step.attribute("activation_params").map(|a| a.floats.iter().map(|p| f64::from(*p)).collect());
    let parameters: Vec<f64> = parameters.unwrap_or_default();
    let gradient = before(step, context, step.text("activation"), &parameters)?;
    let mut gradients = conv::conv(&inside(step, &gradient), context)?;
    if step.needs(3) {
        gradients.resize(3, None);
        gradients.push(Some(gradient));
    }
    Ok(gradients)
}

/// Gemm and an activation.
pub(crate) fn gemm(step: &Step, context: &mut Context) -> Gradients {
    let names = ["activation_alpha", "activation_beta"];
    let parameters: Vec<f64> = names.iter().map_while(|name| step.attribute(name)).map(|a| f64::from(a.f())).collect();
    let gradient = before(step, context, step.text("activation"), &parameters)?;
    linear::gemm(&inside(step, &gradient), context)
}

/// The sum of the first input and, where there is one, that in `slot`.
fn added(step: &Step, context: &mut Context, slot: usize) -> Result<String, String> {
    let x = step.input(0)?;
    Ok(match step.optional(slot) {
        Some(bias) => context.op("Add", &[x, bias]),
        None => x.to_owned(),
    })
}

/// What an input and a bias get that were added and then mapped with a slope.
fn biased(step: &Step, context: &mut Context, slope: &str) -> Gradients {
    let x = step.input(0)?;
    let gradient = context.op("Mul", &[step.gradient()?, slope]);
    let second = match step.needs(1) {
        true => Some(context.unbroadcast(&gradient, context.shape(x)?, step.input(1)?)?),
        false => None,
    };
    Ok(vec![Some(gradient), second])
}

/// Gelu by tanh, of an input with a bias.
pub(crate) fn fast_gelu(step: &Step, context: &mut Context) -> Gradients {
    let sum = added(step, context, 1)?;
    let slope = curves::gelu_by_tanh(context, &sum, step.input(0)?)?;
    biased(step, context, &slope)
}

/// Gelu of an input with a bias.
pub(crate) fn bias_gelu(step: &Step, context: &mut Context) -> Gradients {
    let sum = added(step, context, 1)?;
    let slope = activation::gelu_slope(context, &sum, step.input(0)?)?;
    biased(step, context, &slope)
}

/// Inputs in slots 0, 1 and `bias` are summed, then normalised; the fourth output is the sum.
fn skip(step: &Step, context: &mut Context, bias: usize, centred: bool) -> Gradients {
    let (x, other, scale) = (step.input(0)?, step.input(1)?, step.input(2)?);
    let shape = context.shape(x)?;
    if context.shape(other)? != shape {
        return Err("a sum that broadcasts".to_owned());
    }
    if step.gradients.iter().skip(1).take(2).any(Option::is_some) {
        return Err("the statistics are used".to_owned());
    }
    let mut sum = context.op("Add", &[x, other]);
    if let Some(bias) = step.optional(bias) {
        sum = context.op("Add", &[&sum, bias]);
    }
    let axes = [shape.len().saturating_sub(1)];
    let epsilon = step.float("epsilon", 1e-12);
    let (z, inverse) = match centred {
        true => normalise::standardised(context, &sum, x, &axes, epsilon)?,
        false => normalise::scaled(context, &sum, x, &axes, epsilon)?,
    };
    let mut gradients = vec![None; step.node.input.len()];
    let mut set = |slot: usize, gradient: String| {
        gradients.iter_mut().skip(slot).take(1).for_each(|g| *g = Some(gradient.clone()))
    };
    let mut parts = Vec::new();
    if let Some(Some(g)) = step.gradients.first() {
        let s = context.op("Mul", &[g, scale]);
        parts.push(match centred {
            true => normalise::through(context, &s, &z, &inverse, &axes),
            false => normalise::through_scaling(context, &s, &z, &inverse, &axes),
        });
        if step.needs(2) {
            let product = context.op("Mul", &[g, &z]);
            set(2, context.unbroadcast(&product, shape, scale)?);
        }
        if centred && step.needs(3) {
            set(3, context.unbroadcast(g, shape, step.input(3)?)?);
        }
    } else {
        for slot in (2..bias).filter(|slot| step.needs(*slot)) {
            set(slot, context.zeros_like(step.input(slot)?)?);
        }
    }
    parts.extend(step.gradients.get(3).cloned().flatten());
    let whole = context.op("Sum", &parts.iter().map(String::as_str).collect::<Vec<_>>());
    set(0, whole.clone());
    set(1, whole.clone());
    if step.needs(bias) {
        set(bias, context.unbroadcast(&whole, shape, step.input(bias)?)?);
    }
    Ok(gradients)
}

/// SkipLayerNormalization: input, skip, scale, bias behind it, bias of the sum.
pub(crate) fn skip_layer(step: &Step, context: &mut Context) -> Gradients {
    skip(step, context, 4, true)
}

/// SkipSimplifiedLayerNormalization: input, skip, scale, bias of the sum.
pub(crate) fn skip_root_mean_square(step: &Step, context: &mut Context) -> Gradients {
    skip(step, context, 3, false)
}
