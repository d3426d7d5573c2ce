//! Arithmetic of several inputs with broadcasting: what was broadcast gets the sum over the axes of the broadcast.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use crate::proto::build::int;

/// The part of an input that takes `gradient`, which has the shape of the output; nothing where none is needed.
fn part(
    step: &Step,
    context: &mut Context,
    slot: usize,
    gradient: impl FnOnce(&mut Context) -> Result<String, String>,
) -> Result<Option<String>, String> {
    if !step.needs(slot) {
        return Ok(None);
    }
    let from = context.shape(step.output()?)?;
    let gradient = gradient(context)?;
    context.unbroadcast(&gradient, from, step.input(slot)?).map(Some)
}

pub(crate) fn add(step: &Step, context: &mut Context) -> Gradients {
    let g = step.gradient()?;
    (0..step.node.input.len()).map(|slot| part(step, context, slot, |_| Ok(g.to_owned()))).collect()
}

pub(crate) fn mean(step: &Step, context: &mut Context) -> Gradients {
    let g = context.scale(step.gradient()?, step.output()?, 1.0 / step.node.input.len() as f64)?;
    (0..step.node.input.len()).map(|slot| part(step, context, slot, |_| Ok(g.clone()))).collect()
}

pub(crate) fn subtract(step: &Step, context: &mut Context) -> Gradients {
    let g = step.gradient()?;
    let first = part(step, context, 0, |_| Ok(g.to_owned()))?;
    Ok(vec![first, part(step, context, 1, |c| Ok(c.op("Neg", &[g])))?])
}

pub(crate) fn multiply(step: &Step, context: &mut Context) -> Gradients {
    let (g, a, b) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let first = part(step, context, 0, |c| Ok(c.op("Mul", &[g, b])))?;
    Ok(vec![first, part(step, context, 1, |c| Ok(c.op("Mul", &[g, a])))?])
}

pub(crate) fn divide(step: &Step, context: &mut Context) -> Gradients {
    let (g, b, y) = (step.gradient()?, step.input(1)?, step.output()?);
    let quotient = context.op("Div", &[g, b]);
    let first = part(step, context, 0, |_| Ok(quotient.clone()))?;
    let second = part(step, context, 1, |c| {
        let product = c.op("Mul", &[&quotient, y]);
        Ok(c.op("Neg", &[&product]))
    })?;
    Ok(vec![first, second])
}

pub(crate) fn power(step: &Step, context: &mut Context) -> Gradients {
    let (g, a, y) = (step.gradient()?, step.input(0)?, step.output()?);
    let mut b = step.input(1)?.to_owned();
    let element = context.fact(a)?.element;
    if context.fact(&b)?.element != element {
        if step.needs(1) {
            return Err("base and exponent are of different types".to_owned());
        }
        b = context.node("Cast", &[&b], vec![int("to", i64::from(element as i32))]);
    }
    let first = part(step, context, 0, |c| {
        let (zero, one) = (c.scalar(a, 0.0)?, c.scalar(a, 1.0)?);
        let less = c.op("Sub", &[&b, &one]);
        let power = c.op("Pow", &[a, &less]);
        let slope = c.op("Mul", &[&power, &b]);
        // 0 to the power of -1 is infinite, and its product with an exponent of 0 nothing at all.
        let is_flat = c.op("Equal", &[&b, &zero]);
        let slope = c.op("Where", &[&is_flat, &zero, &slope]);
        Ok(c.op("Mul", &[g, &slope]))
    })?;
    let second = part(step, context, 1, |c| {
        let zero = c.scalar(a, 0.0)?;
        let is_positive = c.op("Greater", &[a, &zero]);
        let logarithm = c.op("Log", &[a]);
        let logarithm = c.masked(&is_positive, &logarithm, a)?;
        let slope = c.op("Mul", &[y, &logarithm]);
        Ok(c.op("Mul", &[g, &slope]))
    })?;
    Ok(vec![first, second])
}

/// Minimum and maximum: those inputs that are the extreme share its gradient.
pub(crate) fn extreme(step: &Step, context: &mut Context) -> Gradients {
    let (g, y) = (step.gradient()?, step.output()?);
    let mut hits = Vec::new();
    for slot in 0..step.node.input.len() {
        hits.push(context.equal(step.input(slot)?, y, y)?);
    }
    let count = context.op("Sum", &hits.iter().map(String::as_str).collect::<Vec<_>>());
    let share = context.op("Div", &[g, &count]);
    hits.iter().enumerate().map(|(slot, hit)| part(step, context, slot, |c| Ok(c.op("Mul", &[&share, hit])))).collect()
}

pub(crate) fn choose(step: &Step, context: &mut Context) -> Gradients {
    let (g, condition) = (step.gradient()?, step.input(0)?);
    let zero = context.scalar(step.output()?, 0.0)?;
    let first = part(step, context, 1, |c| Ok(c.op("Where", &[condition, g, &zero])))?;
    Ok(vec![None, first, part(step, context, 2, |c| Ok(c.op("Where", &[condition, &zero, g])))?])
}

/// PRelu: the slope is broadcast to the input.
pub(crate) fn sloped(step: &Step, context: &mut Context) -> Gradients {
    let (g, x, slope) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let zero = context.scalar(x, 0.0)?;
    let is_negative = context.op("Less", &[x, &zero]);
    let first = part(step, context, 0, |c| {
        let scaled = c.op("Mul", &[g, slope]);
        Ok(c.op("Where", &[&is_negative, &scaled, g]))
    })?;
    let second = part(step, context, 1, |c| {
        let product = c.op("Mul", &[g, x]);
        Ok(c.op("Where", &[&is_negative, &product, &zero]))
    })?;
    Ok(vec![first, second])
}
