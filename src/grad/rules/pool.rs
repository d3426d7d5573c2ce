//! Pooling: an average hands its gradient to all of the window, a maximum to the entry that it took.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use super::conv::Window;
use super::reduce;
use crate::proto::build::int;
use crate::proto::onnx::NodeProto;

fn kernel(step: &Step) -> Result<Vec<usize>, String> {
    let kernel = step.ints("kernel_shape").ok_or("no `kernel_shape`")?;
    let kernel: Option<Vec<usize>> = kernel.iter().map(|k| usize::try_from(*k).ok().filter(|k| *k > 0)).collect();
    kernel.ok_or_else(|| "`kernel_shape` is not understood".to_owned())
}

pub(crate) fn average(step: &Step, context: &mut Context) -> Gradients {
    let (g, x) = (step.gradient()?, step.input(0)?);
    if step.int("ceil_mode", 0) != 0 {
        return Err("`ceil_mode`".to_owned());
    }
    let (input, output) = (context.shape(x)?, context.shape(step.output()?)?);
    let kernel = kernel(step)?;
    let window = Window::of(step, &kernel, input, output)?;
    let size = kernel.iter().try_fold(1usize, |n, k| n.checked_mul(*k)).ok_or("a kernel that overflows")?;
    let mut share = context.scale(g, x, 1.0 / size as f64)?;
    if step.int("count_include_pad", 0) == 0 {
        // The part of every window that lies inside: the same average of ones, with the padding counted.
        let zeros = context.zeros_like(x)?;
        let one = context.scalar(x, 1.0)?;
        let ones = context.op("Add", &[&zeros, &one]);
        let mut attributes = step.node.attribute.clone();
        attributes.retain(|a| a.name() != "count_include_pad");
        attributes.push(int("count_include_pad", 1));
        let part = context.node("AveragePool", &[&ones], attributes);
        share = context.op("Div", &[&share, &part]);
    }
    let channels = input.get(1).copied().unwrap_or(0);
    let ones = context.ones(x, &[&[channels, 1], &kernel[..]].concat())?;
    let gradient = window.spread(context, &share, &ones, channels, input, output)?;
    step.first(gradient)
}

/// The gradient is scattered to where the maxima were, which a second output of the operator tells.
pub(crate) fn maximum(step: &Step, context: &mut Context) -> Gradients {
    let (g, x) = (step.gradient()?, step.input(0)?);
    if step.int("storage_order", 0) != 0 {
        return Err("`storage_order`".to_owned());
    }
    let kernel = kernel(step)?;
    let stride = |axis: usize| step.ints("strides").and_then(|s| s.get(axis)).copied().unwrap_or(1);
    let apart = kernel.iter().enumerate().all(|(axis, k)| i64::try_from(*k).is_ok_and(|k| k <= stride(axis)))
        && step.ints("dilations").is_none_or(|d| d.iter().all(|d| *d == 1));
    if !apart && context.opset < 16 {
        return Err("windows that overlap, before operator set 16".to_owned());
    }
    let indices = match step.node.output.get(1).filter(|name| !name.is_empty()) {
        Some(indices) => indices.clone(),
        None => {
            let (values, indices) = (context.nodes.fresh(), context.nodes.fresh());
            context.nodes.list.push(NodeProto {
                name: Some(values.clone()),
                output: vec![values, indices.clone()],
                ..step.node.clone()
            });
            indices
        }
    };
    let zeros = context.zeros_like(x)?;
    let flat = |context: &mut Context, value: &str| context.reshape(value, &[-1]);
    let (zeros, indices, g) = (flat(context, &zeros), flat(context, &indices), flat(context, g));
    let mut attributes = vec![int("axis", 0)];
    if !apart {
        attributes.push(crate::proto::build::text("reduction", "add"));
    }
    let spread = context.node("ScatterElements", &[&zeros, &indices, &g], attributes);
    let gradient = context.reshape_like(&spread, x);
    step.first(gradient)
}

pub(crate) fn global_average(step: &Step, context: &mut Context) -> Gradients {
    let (x, y) = (step.input(0)?, step.output()?);
    let share = reduce::divided(context, step.gradient()?, x, y)?;
    let shape = context.shape_of(x);
    let gradient = context.op("Expand", &[&share, &shape]);
    step.first(gradient)
}
