//! Pooling: an average hands its gradient to all of the window, a maximum to the entry that it took.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use super::conv::Window;
use super::{matrices, reduce};
use crate::proto::build::{int, signed};
use crate::proto::onnx::{AttributeProto, NodeProto};

/// Overlapping windows fall into this many classes at most, before operator set 16.
const MOST_CLASSES: usize = 64;

fn kernel(step: &Step) -> Result<Vec<usize>, String> {
    let kernel = step.ints("kernel_shape").ok_or("no `kernel_shape`")?;
    let kernel: Option<Vec<usize>> = kernel.iter().map(|k| usize::try_from(*k).ok().filter(|k| *k > 0)).collect();
    kernel.ok_or_else(|| "`kernel_shape` is not understood".to_owned())
}

/// Every axis is averaged by a matrix of its own: the part of a window is the product of its parts along the axes.
pub(crate) fn average(step: &Step, context: &mut Context) -> Gradients {
    let x = step.input(0)?;
    let (input, output) = (context.shape(x)?, context.shape(step.output()?)?);
    let window = Window::of(step, &kernel(step)?, input, output)?;
    let padded = step.int("count_include_pad", 0) != 0;
    let mut maps = Vec::new();
    for (axis, (before, after)) in input.iter().zip(output).enumerate().skip(2) {
        maps.push((axis, window.averages(axis - 2, *before, *after, padded)?));
    }
    let gradient = matrices::back(context, step.gradient()?, x, &maps)?;
    step.first(gradient)
}

/// The gradient is scattered to where the maxima were, which a second output of the operator tells.
pub(crate) fn maximum(step: &Step, context: &mut Context) -> Gradients {
    let (g, x) = (step.gradient()?, step.input(0)?);
    if step.int("storage_order", 0) != 0 {
        return Err("`storage_order`".to_owned());
    }
    let (input, output) = (context.shape(x)?, context.shape(step.output()?)?);
    let window = Window::of(step, &kernel(step)?, input, output)?;
    let apart = window.spans().all(|(span, stride)| span <= stride);
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
    let zeros = context.reshape(&zeros, &[-1]);
    if apart || context.opset >= 16 {
        let attributes = if apart { Vec::new() } else { vec![crate::proto::build::text("reduction", "add")] };
        let spread = scatter(context, &zeros, &indices, g, attributes);
        let gradient = context.reshape_like(&spread, x);
        return step.first(gradient);
    }
    // Windows that are far enough apart do not overlap: one scattering for each class of them.
    let spans = window.spans().map(|(span, stride)| span.div_ceil(stride)).collect::<Vec<_>>();
    let classes = spans.iter().try_fold(1usize, |n, s| n.checked_mul(*s)).filter(|n| *n <= MOST_CLASSES);
    let classes = classes.ok_or("windows that overlap too often, before operator set 16")?;
    let mut parts = Vec::new();
    for class in 0..classes {
        let mut rest = class;
        let mut starts = Vec::new();
        for span in &spans {
            starts.push(i64::try_from(rest % span).unwrap_or(0));
            rest /= span;
        }
        let starts = context.nodes.integers(&starts);
        let ends = context.nodes.integers(&vec![i64::MAX; spans.len()]);
        let axes: Vec<i64> = (2..).take(spans.len()).collect();
        let (axes, steps) = (context.nodes.integers(&axes), context.nodes.integers(&signed(&spans)));
        let [g, indices] = [g, &indices].map(|value| context.op("Slice", &[value, &starts, &ends, &axes, &steps]));
        parts.push(scatter(context, &zeros, &indices, &g, Vec::new()));
    }
    let sum = context.op("Sum", &parts.iter().map(String::as_str).collect::<Vec<_>>());
    let gradient = context.reshape_like(&sum, x);
    step.first(gradient)
}

/// Writes a gradient to the places that the indices tell, in flat values.
fn scatter(
    context: &mut Context,
    zeros: &str,
    indices: &str,
    gradient: &str,
    mut attributes: Vec<AttributeProto>,
) -> String {
    let (indices, gradient) = (context.reshape(indices, &[-1]), context.reshape(gradient, &[-1]));
    attributes.push(int("axis", 0));
    context.node("ScatterElements", &[zeros, &indices, &gradient], attributes)
}

pub(crate) fn global_average(step: &Step, context: &mut Context) -> Gradients {
    let (x, y) = (step.input(0)?, step.output()?);
    let share = reduce::divided(context, step.gradient()?, x, y)?;
    let shape = context.shape_of(x);
    let gradient = context.op("Expand", &[&share, &shape]);
    step.first(gradient)
}
