//! Normalisations. Statistics that are taken of the input are taken again, in the way of their definition.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;

/// A list of channels beside values of `rank` axes, channels second.
fn per_channel(context: &mut Context, list: &str, rank: usize) -> String {
    let axes: Vec<usize> = (0..rank.saturating_sub(2)).map(|axis| axis + 1).collect();
    if axes.is_empty() { list.to_owned() } else { context.unsqueeze(list, &axes) }
}

/// Some operators take a scale or statistics of a higher precision than that of the input.
fn alike(context: &Context, values: &[&str]) -> Result<(), String> {
    let elements: Vec<_> =
        values.iter().map(|value| Ok(context.fact(value)?.element)).collect::<Result<_, String>>()?;
    if elements.windows(2).all(|pair| pair.first() == pair.last()) {
        return Ok(());
    }
    Err("inputs of several types".to_owned())
}

/// y = (x - mean) scale / √(variance + ε) + bias with stored statistics.
pub(crate) fn batch(step: &Step, context: &mut Context) -> Gradients {
    let (g, x, scale) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let (mean, variance) = (step.input(3)?, step.input(4)?);
    if step.int("training_mode", 0) != 0 {
        return Err("training mode".to_owned());
    }
    alike(context, &[x, scale, mean, variance])?;
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
pub(super) fn standardised(
    context: &mut Context,
    x: &str,
    like: &str,
    axes: &[usize],
    epsilon: f64,
) -> Result<(String, String), String> {
    let mean = context.mean(x, axes);
    let centred = context.op("Sub", &[x, &mean]);
    let square = context.op("Mul", &[&centred, &centred]);
    let variance = context.mean(&square, axes);
    let epsilon = context.scalar(like, epsilon)?;
    let shifted = context.op("Add", &[&variance, &epsilon]);
    let root = context.op("Sqrt", &[&shifted]);
    let inverse = context.op("Reciprocal", &[&root]);
    Ok((context.op("Mul", &[&centred, &inverse]), inverse))
}

/// (s - mean(s) - z mean(s z)) / √(variance + ε), where z is the standardised input and s the gradient at it.
pub(super) fn through(context: &mut Context, s: &str, z: &str, inverse: &str, axes: &[usize]) -> String {
    let mean = context.mean(s, axes);
    let product = context.op("Mul", &[s, z]);
    let agreement = context.mean(&product, axes);
    let along = context.op("Mul", &[z, &agreement]);
    let rest = context.op("Sub", &[s, &mean]);
    let rest = context.op("Sub", &[&rest, &along]);
    context.op("Mul", &[&rest, inverse])
}

pub(crate) fn layer(step: &Step, context: &mut Context) -> Gradients {
    let (g, x) = (step.gradient()?, step.input(0)?);
    let shape = context.shape(x)?;
    let axes: Vec<usize> = (context.axis(x, step.int("axis", -1))?..shape.len()).collect();
    let (z, inverse) = standardised(context, x, x, &axes, step.float("epsilon", 1e-5))?;
    affine(step, context, g, shape, &z, |context, s| Ok(through(context, s, &z, &inverse, &axes)))
}

/// y = z scale + bias with the scale in slot 1 and the bias in slot 2; `of_input` leads from the gradient of z to that of
/// the input.
pub(super) fn affine(
    step: &Step,
    context: &mut Context,
    g: &str,
    shape: &[usize],
    z: &str,
    of_input: impl FnOnce(&mut Context, &str) -> Result<String, String>,
) -> Gradients {
    let scale = step.input(1)?;
    alike(context, &[step.input(0)?, scale])?;
    let first = match step.needs(0) {
        true => {
            let s = context.op("Mul", &[g, scale]);
            Some(of_input(context, &s)?)
        }
        false => None,
    };
    let second = match step.needs(1) {
        true => {
            let product = context.op("Mul", &[g, z]);
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

/// RMSNormalization: y = z scale, where z = x / √(mean(x²) + ε).
pub(crate) fn root_mean_square(step: &Step, context: &mut Context) -> Gradients {
    let (g, x) = (step.gradient()?, step.input(0)?);
    let shape = context.shape(x)?;
    let axes: Vec<usize> = (context.axis(x, step.int("axis", -1))?..shape.len()).collect();
    let (z, inverse) = scaled(context, x, x, &axes, step.float("epsilon", 1e-5))?;
    affine(step, context, g, shape, &z, |context, s| Ok(through_scaling(context, s, &z, &inverse, &axes)))
}

/// The input with mean square 1 over `axes`, and 1 / √(mean square + ε).
pub(super) fn scaled(
    context: &mut Context,
    x: &str,
    like: &str,
    axes: &[usize],
    epsilon: f64,
) -> Result<(String, String), String> {
    let square = context.op("Mul", &[x, x]);
    let mean = context.mean(&square, axes);
    let epsilon = context.scalar(like, epsilon)?;
    let shifted = context.op("Add", &[&mean, &epsilon]);
    let root = context.op("Sqrt", &[&shifted]);
    let inverse = context.op("Reciprocal", &[&root]);
    Ok((context.op("Mul", &[x, &inverse]), inverse))
}

/// (s - z mean(s z)) / √(mean square + ε)
pub(super) fn through_scaling(context: &mut Context, s: &str, z: &str, inverse: &str, axes: &[usize]) -> String {
    let product = context.op("Mul", &[s, z]);
    let agreement = context.mean(&product, axes);
    let along = context.op("Mul", &[z, &agreement]);
    let rest = context.op("Sub", &[s, &along]);
    context.op("Mul", &[&rest, inverse])
}

/// GroupNormalization: every group is standardised as a row. Scale and bias are given per group up to operator set 20,
/// per channel from 21 on.
pub(crate) fn group(step: &Step, context: &mut Context) -> Gradients {
    let (g, x, scale) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let groups = step.int("num_groups", 0);
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let channels = number(context.shape(x)?.get(1).copied().unwrap_or(0));
    let inside = channels.checked_div(groups).filter(|n| *n > 0 && n * groups == channels).ok_or("no group")?;
    let rows = context.reshape(x, &[0, groups, inside, -1]);
    let (z, inverse) = standardised(context, &rows, x, &[2, 3], step.float("epsilon", 1e-5))?;
    let g = context.reshape(g, &[0, groups, inside, -1]);
    let entries = number(context.shape(scale)?.first().copied().unwrap_or(0));
    let (per_group, axes) = match entries {
        n if n == channels => ([groups, inside, 1], vec![0, 3]),
        n if n == groups => ([groups, 1, 1], vec![0, 2, 3]),
        _ => return Err("a scale of neither groups nor channels".to_owned()),
    };
    let wide = context.reshape(scale, &per_group);
    let s = context.op("Mul", &[&g, &wide]);
    let rows = through(context, &s, &z, &inverse, &[2, 3]);
    let first = context.reshape_like(&rows, x);
    let of_list = |context: &mut Context, value: &str| {
        let sum = context.sum(value, &axes, false);
        context.reshape(&sum, &[-1])
    };
    let product = context.op("Mul", &[&g, &z]);
    let second = step.needs(1).then(|| of_list(context, &product));
    Ok(vec![Some(first), second, step.needs(2).then(|| of_list(context, &g))])
}

/// MeanVarianceNormalization, whose definition adds 1e-9 to the standard deviation, here within the root.
pub(crate) fn mean_variance(step: &Step, context: &mut Context) -> Gradients {
    let (g, x) = (step.gradient()?, step.input(0)?);
    let given = step.ints("axes").unwrap_or(&[0, 2, 3]);
    let axes: Vec<usize> = given.iter().map(|axis| context.axis(x, *axis)).collect::<Result<_, _>>()?;
    let (z, inverse) = standardised(context, x, x, &axes, 1e-18)?;
    let gradient = through(context, g, &z, &inverse, &axes);
    step.first(gradient)
}

pub(crate) fn instance(step: &Step, context: &mut Context) -> Gradients {
    let (g, x, scale) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let rank = context.shape(x)?.len();
    let axes: Vec<usize> = (2..rank).collect();
    let others: Vec<usize> = (0..rank).filter(|axis| *axis != 1).collect();
    let (z, inverse) = standardised(context, x, x, &axes, step.float("epsilon", 1e-5))?;
    let wide = per_channel(context, scale, rank);
    let s = context.op("Mul", &[g, &wide]);
    let first = step.needs(0).then(|| through(context, &s, &z, &inverse, &axes));
    let second = step.needs(1).then(|| {
        let product = context.op("Mul", &[g, &z]);
        context.sum(&product, &others, false)
    });
    Ok(vec![first, second, step.needs(2).then(|| context.sum(g, &others, false))])
}
