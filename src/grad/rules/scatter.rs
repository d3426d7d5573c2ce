//! Reading and writing at places that are computed. A place that is read twice gets a sum, for which operator set 16 has
//! a form of the scattering operators.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use super::sample::{count, signed};
use crate::proto::build::{int, text};
use crate::proto::onnx::AttributeProto;

fn adding(context: &Context) -> Result<AttributeProto, String> {
    if context.opset < 16 {
        return Err("places may be read twice, which needs operator set 16".to_owned());
    }
    Ok(text("reduction", "add"))
}

pub(crate) fn gather_elements(step: &Step, context: &mut Context) -> Gradients {
    let (g, x, indices) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let attributes = vec![int("axis", step.int("axis", 0)), adding(context)?];
    let zeros = context.zeros_like(x)?;
    let gradient = context.node("ScatterElements", &[&zeros, indices, g], attributes);
    step.first(gradient)
}

pub(crate) fn gather_nd(step: &Step, context: &mut Context) -> Gradients {
    let (g, x, indices) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let attributes = vec![adding(context)?];
    if let Ok(batch) = usize::try_from(step.int("batch_dims", 0))
        && batch > 0
    {
        return in_batches(step, context, batch, attributes);
    }
    let zeros = context.zeros_like(x)?;
    let gradient = context.node("ScatterND", &[&zeros, indices, g], attributes);
    step.first(gradient)
}

/// The axes of the batch become one, whose number is the first of every place.
fn in_batches(step: &Step, context: &mut Context, batch: usize, attributes: Vec<AttributeProto>) -> Gradients {
    let (g, x, indices) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let (shape, places) = (context.shape(x)?, context.shape(indices)?);
    let (Some(inner), Some([points @ .., depth])) = (shape.get(batch..), places.get(batch..)) else {
        return Err("`batch_dims` that do not fit".to_owned());
    };
    let points = signed(count(points)?)?;
    let list = |lead: &[i64], rest: &[usize]| -> Result<Vec<i64>, String> {
        let rest: Vec<i64> = rest.iter().map(|n| signed(*n)).collect::<Result<_, _>>()?;
        Ok([lead, &rest].concat())
    };
    let zeros = context.zeros_like(x)?;
    let zeros = context.reshape(&zeros, &list(&[-1], inner)?);
    let g = context.reshape(g, &list(&[-1, points], inner.get(*depth..).unwrap_or_default())?);
    let indices = context.reshape(indices, &[-1, points, signed(*depth)?]);
    let first = context.nodes.integers(&[0]);
    let (second, axis) = (context.nodes.integers(&[1]), context.nodes.integers(&[2]));
    let one = context.op("Slice", &[&indices, &first, &second, &axis]);
    let none = context.op("Sub", &[&one, &one]);
    let batches = context.extent_of(&zeros, 0);
    let numbers = super::rearrange::range(context, &batches);
    let numbers = context.unsqueeze(&numbers, &[1, 2]);
    let lead = context.op("Add", &[&numbers, &none]);
    let places = context.node("Concat", &[&lead, &indices], vec![int("axis", 2)]);
    let spread = context.node("ScatterND", &[&zeros, &places, &g], attributes);
    let gradient = context.reshape_like(&spread, x);
    step.first(gradient)
}

/// TopK: what was taken gets the gradient of its copy.
pub(crate) fn largest(step: &Step, context: &mut Context) -> Gradients {
    let (g, x) = (step.gradient()?, step.input(0)?);
    let indices = step.node.output.get(1).filter(|name| !name.is_empty()).ok_or("the indices are left out")?;
    let zeros = context.zeros_like(x)?;
    let axis = vec![int("axis", step.int("axis", -1))];
    let gradient = context.node("ScatterElements", &[&zeros, indices, g], axis);
    step.first(gradient)
}

/// What was written over gets 0, what was written gets the gradient of its place; where both were added, both get it.
fn written(step: &Step, context: &mut Context, write: &str, read: &str, attributes: &[AttributeProto]) -> Gradients {
    let (g, indices, updates) = (step.gradient()?, step.input(1)?, step.input(2)?);
    let first = match (step.needs(0), step.text("reduction")) {
        (_, other) if !matches!(other, b"" | b"none" | b"add") => {
            return Err(format!("reduction by `{}`", String::from_utf8_lossy(other)));
        }
        (false, _) => None,
        (true, b"add") => Some(g.to_owned()),
        (true, _) => {
            let zeros = context.zeros_like(updates)?;
            Some(context.node(write, &[g, indices, &zeros], attributes.to_vec()))
        }
    };
    let second = step.needs(2).then(|| context.node(read, &[g, indices], attributes.to_vec()));
    Ok(vec![first, None, second])
}

pub(crate) fn scatter_elements(step: &Step, context: &mut Context) -> Gradients {
    written(step, context, "ScatterElements", "GatherElements", &[int("axis", step.int("axis", 0))])
}

pub(crate) fn scatter_nd(step: &Step, context: &mut Context) -> Gradients {
    written(step, context, "ScatterND", "GatherND", &[])
}
