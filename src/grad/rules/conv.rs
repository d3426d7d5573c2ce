//! Convolutions: the gradient of the input is the opposite convolution with the same weight, that of the weight a
//! convolution of the input with the gradient, batch and channels exchanged.
//!
//! Invariant: spatial extents and channels are those that were measured; the batch is open.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use crate::proto::build::{int, ints};
use crate::proto::onnx::AttributeProto;

/// How a window moves over the spatial axes, with everything said that the file may leave out.
pub(super) struct Window {
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    /// Begin and end of every axis.
    pads: Vec<(usize, usize)>,
}

impl Window {
    /// The window of a node that takes `input` to `output`, both with batch and channels first.
    pub(super) fn of(step: &Step, kernel: &[usize], input: &[usize], output: &[usize]) -> Result<Self, String> {
        let rank = kernel.len();
        let list = |name: &str, default: usize| -> Result<Vec<usize>, String> {
            let Some(given) = step.ints(name) else { return Ok(vec![default; rank]) };
            let list: Option<Vec<usize>> =
                given.iter().map(|v| usize::try_from(*v).ok().filter(|v| *v > 0 && *v < 1 << 24)).collect();
            list.filter(|l| l.len() == rank).ok_or_else(|| format!("`{name}` is not understood"))
        };
        let (strides, dilations) = (list("strides", 1)?, list("dilations", 1)?);
        let mut window = Self { kernel: kernel.to_vec(), strides, dilations, pads: vec![(0, 0); rank] };
        match step.text("auto_pad") {
            b"" | b"NOTSET" => {
                if let Some(pads) = step.ints("pads") {
                    let pads: Option<Vec<usize>> = pads.iter().map(|p| usize::try_from(*p).ok()).collect();
                    let pads = pads.filter(|p| p.len() == 2 * rank).ok_or("`pads` is not understood")?;
                    let (begin, end) = pads.split_at(rank);
                    window.pads = begin.iter().copied().zip(end.iter().copied()).collect();
                }
            }
            b"VALID" => {}
            same => {
                let extents = input.iter().zip(output).skip(2);
                let all: Vec<usize> = window
                    .spans()
                    .zip(extents)
                    .map(|((span, stride), (i, o))| (o.saturating_sub(1) * stride + span).saturating_sub(*i))
                    .collect();
                let lower = same == b"SAME_LOWER";
                let halves = |all: &usize| {
                    let (small, large) = (all / 2, all - all / 2);
                    if lower { (large, small) } else { (small, large) }
                };
                window.pads = all.iter().map(halves).collect();
            }
        }
        Ok(window)
    }

    /// How far every kernel reaches, with its stride.
    fn spans(&self) -> impl Iterator<Item = (usize, usize)> {
        let reach = self.kernel.iter().zip(&self.dilations).map(|(k, d)| k.saturating_sub(1) * d + 1);
        reach.zip(self.strides.iter().copied())
    }

    fn pads(&self) -> Vec<usize> {
        self.pads.iter().map(|p| p.0).chain(self.pads.iter().map(|p| p.1)).collect()
    }

    fn attributes(&self, group: usize) -> Vec<AttributeProto> {
        let group = int("group", i64::try_from(group).unwrap_or(i64::MAX));
        vec![
            ints("kernel_shape", &self.kernel),
            ints("strides", &self.strides),
            ints("dilations", &self.dilations),
            ints("pads", &self.pads()),
            group,
        ]
    }

    /// The gradient of the input of a convolution, of shape `input`, from that of its output, of shape `output`.
    pub(super) fn spread(
        &self,
        context: &mut Context,
        gradient: &str,
        weight: &str,
        group: usize,
        input: &[usize],
        output: &[usize],
    ) -> Result<String, String> {
        let mut padding = Vec::new();
        for (((span, stride), (begin, end)), (i, o)) in
            self.spans().zip(&self.pads).zip(input.iter().zip(output).skip(2))
        {
            let reached = o.saturating_sub(1) * stride + span;
            let whole = i + begin + end;
            padding.push(whole.checked_sub(reached).ok_or("a window beyond the padding")?);
        }
        let mut attributes = self.attributes(group);
        attributes.push(ints("output_padding", &padding));
        Ok(context.node("ConvTranspose", &[gradient, weight], attributes))
    }

    /// The gradient of the weight of a convolution of `input` whose output has the `gradient`.
    fn weight(
        &self,
        context: &mut Context,
        input: &str,
        gradient: &str,
        group: usize,
        shape: &[usize],
    ) -> Result<String, String> {
        let signed = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let channels = shape.get(1).copied().unwrap_or(0);
        let inside = channels.checked_div(group).ok_or("no group")?;
        let space = shape.get(2..).unwrap_or_default();
        let spatial: Vec<i64> = space.iter().copied().map(signed).collect();
        let rank = space.len();
        // [n, group · c, …] -> [c, group · n, …]
        let divided = context.reshape(input, &[&[-1, signed(group), signed(inside)], &spatial[..]].concat());
        let order: Vec<usize> = [2, 1, 0].into_iter().chain(3..3 + rank).collect();
        let turned = context.transpose(&divided, &order);
        let data = context.reshape(&turned, &[&[signed(inside), -1], &spatial[..]].concat());
        let swap: Vec<usize> = [1, 0].into_iter().chain(2..2 + rank).collect();
        let kernel = context.transpose(gradient, &swap);
        let attributes = vec![
            ints("strides", &self.dilations),
            ints("dilations", &self.strides),
            ints("pads", &self.pads()),
            int("group", signed(group)),
        ];
        let product = context.node("Conv", &[&data, &kernel], attributes);
        // Where the stride leaves a rest of the input unread, the product reaches further than the kernel.
        let starts = context.nodes.integers(&vec![0; rank]);
        let ends: Vec<i64> = self.kernel.iter().copied().map(signed).collect();
        let ends = context.nodes.integers(&ends);
        let axes: Vec<i64> = (2..2 + rank).map(signed).collect();
        let axes = context.nodes.integers(&axes);
        let cut = context.op("Slice", &[&product, &starts, &ends, &axes]);
        Ok(context.transpose(&cut, &swap))
    }
}

fn group(step: &Step) -> Result<usize, String> {
    usize::try_from(step.int("group", 1)).ok().filter(|g| *g > 0).ok_or_else(|| "no group".to_owned())
}

/// The sum of a gradient over everything but channels.
fn bias(step: &Step, context: &mut Context, rank: usize) -> Result<Option<String>, String> {
    let g = step.gradient()?;
    let axes: Vec<usize> = (0..rank).filter(|axis| *axis != 1).collect();
    Ok(step.needs(2).then(|| context.sum(g, &axes, false)))
}

pub(crate) fn conv(step: &Step, context: &mut Context) -> Gradients {
    let (g, x, w) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let (input, weight, output) = (context.shape(x)?, context.shape(w)?, context.shape(step.output()?)?);
    let window = Window::of(step, weight.get(2..).unwrap_or_default(), input, output)?;
    let group = group(step)?;
    let first = match step.needs(0) {
        true => Some(window.spread(context, g, w, group, input, output)?),
        false => None,
    };
    let second = match step.needs(1) {
        true => Some(window.weight(context, x, g, group, input)?),
        false => None,
    };
    Ok(vec![first, second, bias(step, context, output.len())?])
}

/// A transposed convolution is the way back of a convolution, so that the roles are exchanged.
pub(crate) fn transposed(step: &Step, context: &mut Context) -> Gradients {
    let (g, x, w) = (step.gradient()?, step.input(0)?, step.input(1)?);
    if step.attribute("output_shape").is_some() || !matches!(step.text("auto_pad"), b"" | b"NOTSET") {
        return Err("`output_shape` or `auto_pad`".to_owned());
    }
    let (input, weight, output) = (context.shape(x)?, context.shape(w)?, context.shape(step.output()?)?);
    let window = Window::of(step, weight.get(2..).unwrap_or_default(), output, input)?;
    let group = group(step)?;
    let first = step.needs(0).then(|| context.node("Conv", &[g, w], window.attributes(group)));
    let second = match step.needs(1) {
        true => Some(window.weight(context, g, x, group, output)?),
        false => None,
    };
    Ok(vec![first, second, bias(step, context, output.len())?])
}
