//! Quantisation. Integers carry the gradient of the numbers that they stand for, and rounding passes it straight through,
//! as if nothing were rounded or cut off (Bengio et al. 2013, <https://arxiv.org/abs/1308.3432>).

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;

pub(crate) fn quantise(step: &Step, _: &mut Context) -> Gradients {
    step.first(step.gradient()?.to_owned())
}

/// y = (x - zero) scale: the scale gets Σ g y / scale.
pub(crate) fn dequantise(step: &Step, context: &mut Context) -> Gradients {
    let (g, y) = (step.gradient()?, step.output()?);
    let first = Some(g.to_owned());
    if !step.needs(1) {
        return Ok(vec![first]);
    }
    let scale = step.input(1)?;
    let rank = context.shape(y)?.len();
    let (shape, own) = (context.shape(y)?, context.shape(scale)?);
    let mut wide = vec![1i64; rank];
    if let [extent] = own
        && *extent != 1
    {
        let axis = context.axis(y, step.int("axis", 1))?;
        wide.iter_mut().skip(axis).take(1).for_each(|n| *n = -1);
    } else if own.len() > 1 {
        return Err("scales in blocks".to_owned());
    }
    let wide = context.reshape(scale, &wide);
    let whole = context.op("Div", &[y, &wide]);
    let product = context.op("Mul", &[g, &whole]);
    let axes: Vec<usize> = match own {
        [extent] if *extent != 1 => {
            let axis = context.axis(y, step.int("axis", 1))?;
            (0..shape.len()).filter(|other| *other != axis).collect()
        }
        _ => (0..shape.len()).collect(),
    };
    let sum = if axes.is_empty() { product } else { context.sum(&product, &axes, false) };
    Ok(vec![first, Some(context.reshape_like(&sum, scale))])
}
