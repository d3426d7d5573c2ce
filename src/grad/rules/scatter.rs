//! Reading and writing at places that are computed. A place that is read twice gets a sum, for which operator set 16 has
//! a form of the scattering operators.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
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
    if step.int("batch_dims", 0) != 0 {
        return Err("`batch_dims`".to_owned());
    }
    let attributes = vec![adding(context)?];
    let zeros = context.zeros_like(x)?;
    let gradient = context.node("ScatterND", &[&zeros, indices, g], attributes);
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
