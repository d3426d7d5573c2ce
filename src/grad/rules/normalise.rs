//! Normalisations. Statistics that are taken of the input are taken again, in the way of their definition.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;

/// A list of channels beside values of `rank` axes, channels second.
fn per_channel(context: &mut Context, list: &str, rank: usize) -> String {
    let axes: Vec<usize> = (0..rank.saturating_sub(2)).map(|axis| axis + 1).collect();
    if axes.is_empty() { list.to_owned() } else { context.unsqueeze(list, &axes) }
}

/// y = (x - mean) scale / √(variance + ε) + bias with stored statistics.
pub(crate) fn batch(step: &Step, context: &mut Context) -> Gradients {
    let (g, x, scale) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let (mean, variance) = (step.input(3)?, step.input(4)?);
    if step.int("training_mode", 0) != 0 {
        return Err("training mode".to_owned());
    }
    let rank = context.shape(x)?.len();
    let others: Vec<usize> = (0..rank).filter(|axis| *axis != 1).collect();
    let epsilon = context.scalar(x, step.float("epsilon", 1e-5))?;
    let shifted = context.op("Add", &[variance, &epsilon]);
    let root = context.op("Sqrt", &[&shifted]);
    let slope = context.op("Div", &[scale, &root]);
    let wide = per_channel(context, &slope, rank);
    let first = step.needs(0).then(|| context.op("Mul", &[g, &wide]));
    let sum = context.sum(g, &others, false);
    // Σ g (x - mean) / √(variance + ε)
    let against = match step.needs(1) || step.needs(4) {
        true => {
            let (mean, root) = (per_channel(context, mean, rank), per_channel(context, &root, rank));
            let centred = context.op("Sub", &[x, &mean]);
            let standard = context.op("Div", &[&centred, &root]);
            let product = context.op("Mul", &[g, &standard]);
            Some(context.sum(&product, &others, false))
        }
        false => None,
    };
    let of_mean = step.needs(3).then(|| {
        let product = context.op("Mul", &[&sum, &slope]);
        context.op("Neg", &[&product])
    });
    let of_variance = match against.as_ref().filter(|_| step.needs(4)) {
        Some(against) => {
            let product = context.op("Mul", &[against, scale]);
            let quotient = context.op("Div", &[&product, &shifted]);
            Some(context.scale(&quotient, x, -0.5)?)
        }
        None => None,
    };
    Ok(vec![first, against.filter(|_| step.needs(1)), step.needs(2).then_some(sum), of_mean, of_variance])
}

/// The input with mean 0 and variance 1 over `axes`, and 1 / √(variance + ε).
fn standardised(step: &Step, context: &mut Context, axes: &[usize]) -> Result<(String, String), String> {
    let x = step.input(0)?;
    let mean = context.mean(x, axes);
    let centred = context.op("Sub", &[x, &mean]);
    let square = context.op("Mul", &[&centred, &centred]);
    let variance = context.mean(&square, axes);
    let epsilon = context.scalar(x, step.float("epsilon", 1e-5))?;
    let shifted = context.op("Add", &[&variance, &epsilon]);
    let root = context.op("Sqrt", &[&shifted]);
    let inverse = context.op("Reciprocal", &[&root]);
    Ok((context.op("Mul", &[&centred, &inverse]), inverse))
}

/// (s - mean(s) - z mean(s z)) / √(variance + ε), where z is the standardised input and s the gradient at it.
fn through(context: &mut Context, s: &str, z: &str, inverse: &str, axes: &[usize]) -> String {
    let mean = context.mean(s, axes);
    let product = context.op("Mul", &[s, z]);
    let agreement = context.mean(&product, axes);
    let along = context.op("Mul", &[z, &agreement]);
    let rest = context.op("Sub", &[s, &mean]);
    let rest = context.op("Sub", &[&rest, &along]);
    context.op("Mul", &[&rest, inverse])
}

pub(crate) fn layer(step: &Step, context: &mut Context) -> Gradients {
    let (g, x, scale) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let shape = context.shape(x)?;
    let axes: Vec<usize> = (context.axis(x, step.int("axis", -1))?..shape.len()).collect();
    let (z, inverse) = standardised(step, context, &axes)?;
    let s = context.op("Mul", &[g, scale]);
    let first = step.needs(0).then(|| through(context, &s, &z, &inverse, &axes));
    let second = match step.needs(1) {
        true => {
            let product = context.op("Mul", &[g, &z]);
            Some(context.unbroadcast(&product, shape, scale)?)
        }
        false => None,
    };
    let third = match step.needs(2) {
        true => Some(context.unbroadcast(g, shape, step.input(2)?)?),
        false => None,
    };
    Ok(vec![first, second, third])
}

pub(crate) fn instance(step: &Step, context: &mut Context) -> Gradients {
    let (g, x, scale) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let rank = context.shape(x)?.len();
    let axes: Vec<usize> = (2..rank).collect();
    let others: Vec<usize> = (0..rank).filter(|axis| *axis != 1).collect();
    let (z, inverse) = standardised(step, context, &axes)?;
    let wide = per_channel(context, scale, rank);
    let s = context.op("Mul", &[g, &wide]);
    let first = step.needs(0).then(|| through(context, &s, &z, &inverse, &axes));
    let second = step.needs(1).then(|| {
        let product = context.op("Mul", &[g, &z]);
        context.sum(&product, &others, false)
    });
    Ok(vec![first, second, step.needs(2).then(|| context.sum(g, &others, false))])
}
