//! Convolutions: the gradient of the input is the opposite convolution with the same weight, that of the weight a
//! product of the gradient with the windows of the input.
//!
//! Invariant: spatial extents and channels are those that were measured; the batch is open. Where all strides are 1, the
//! opposite convolution is one with the kernel turned round, which engines compute faster.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use super::matrices::Matrix;
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
                    .map(|((span, stride), (i, o))| {
                        o.saturating_sub(1).saturating_mul(stride).saturating_add(span).saturating_sub(*i)
                    })
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

    /// The matrix by which an axis of extent `before` is averaged to `after`. Padding counts where `padded` says so, but
    /// not what rounding up lets a window reach beyond it.
    pub(super) fn averages(&self, axis: usize, before: usize, after: usize, padded: bool) -> Result<Matrix, String> {
        let get = |list: &[usize]| list.get(axis).copied().ok_or("an axis without a window");
        let (kernel, stride, dilation) = (get(&self.kernel)?, get(&self.strides)?, get(&self.dilations)?);
        let (begin, end) = self.pads.get(axis).copied().ok_or("an axis without pads")?;
        let mut matrix = Matrix::zeros(after, before);
        // How many taps of a row fall before a position; kernels may be far larger than what they are laid on.
        let taps = |row: usize, position: usize| {
            position.saturating_sub(row.saturating_mul(stride)).div_ceil(dilation).min(kernel)
        };
        let whole = begin.saturating_add(before);
        for row in 0..after {
            let inside = taps(row, begin)..taps(row, whole);
            let count = if padded { taps(row, whole.saturating_add(end)) } else { inside.len() };
            for tap in inside {
                let at = row.saturating_mul(stride).saturating_add(tap.saturating_mul(dilation)).saturating_sub(begin);
                matrix.add(row, at, 1.0 / count as f64);
            }
        }
        Ok(matrix)
    }

    /// How far every kernel reaches, with its stride.
    pub(super) fn spans(&self) -> impl Iterator<Item = (usize, usize)> {
        let reach = self
            .kernel
            .iter()
            .zip(&self.dilations)
            .map(|(k, d)| k.saturating_sub(1).saturating_mul(*d).saturating_add(1));
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
        if let Some(pads) = self.turned_pads() {
            return self.turned(context, gradient, weight, group, input, output, pads);
        }
        let mut padding = Vec::new();
        for (((span, stride), (begin, end)), (i, o)) in
            self.spans().zip(&self.pads).zip(input.iter().zip(output).skip(2))
        {
            let reached = o.saturating_sub(1).saturating_mul(stride).saturating_add(span);
            let whole = i.saturating_add(*begin).saturating_add(*end);
            padding.push(whole.checked_sub(reached).ok_or("a window beyond the padding")?);
        }
        let mut attributes = self.attributes(group);
        attributes.push(ints("output_padding", &padding));
        Ok(context.node("ConvTranspose", &[gradient, weight], attributes))
    }

    /// The pads of the convolution that leads back, where it is one.
    fn turned_pads(&self) -> Option<Vec<usize>> {
        if self.strides.iter().any(|s| *s != 1) {
            return None;
        }
        let sides = |side: fn(&(usize, usize)) -> usize| {
            self.spans().zip(&self.pads).map(move |((span, _), pads)| span.checked_sub(1)?.checked_sub(side(pads)))
        };
        sides(|p| p.0).chain(sides(|p| p.1)).collect()
    }

    /// The way back as a convolution: kernels turned round, channels exchanged within their group.
    #[allow(clippy::too_many_arguments)]
    fn turned(
        &self,
        context: &mut Context,
        gradient: &str,
        weight: &str,
        group: usize,
        input: &[usize],
        output: &[usize],
        pads: Vec<usize>,
    ) -> Result<String, String> {
        let count = |shape: &[usize]| shape.get(1).copied().and_then(|c| c.checked_div(group)).ok_or("no group");
        let (inside, outside) = (count(input)?, count(output)?);
        let rank = self.kernel.len();
        let mut kernel = weight.to_owned();
        for (axis, extent) in self.kernel.iter().enumerate().filter(|(_, extent)| **extent > 1) {
            let order: Vec<i64> = (0..*extent).rev().map(signed).collect();
            let order = context.nodes.integers(&order);
            kernel = context.node("Gather", &[&kernel, &order], vec![int("axis", signed(axis + 2))]);
        }
        let swap = |first: usize| -> Vec<usize> {
            (0..first).chain([first + 1, first]).chain(first + 2..first + 2 + rank).collect()
        };
        let space: Vec<i64> = self.kernel.iter().copied().map(signed).collect();
        if group == 1 {
            kernel = context.transpose(&kernel, &swap(0));
        } else {
            let divided = [&[signed(group), signed(outside), signed(inside)], &space[..]].concat();
            kernel = context.reshape(&kernel, &divided);
            kernel = context.transpose(&kernel, &swap(1));
            let whole = [&[signed(group * inside), signed(outside)], &space[..]].concat();
            kernel = context.reshape(&kernel, &whole);
        }
        let attributes = vec![
            ints("kernel_shape", &self.kernel),
            ints("dilations", &self.dilations),
            ints("pads", &pads),
            int("group", signed(group)),
        ];
        Ok(context.node("Conv", &[gradient, &kernel], attributes))
    }

    /// The gradient of the weight of a convolution of `input` whose output has the `gradient`; `shape` and `out` are
    /// theirs, `like` is a value of their type.
    fn weight(
        &self,
        context: &mut Context,
        (input, gradient, like): (&str, &str, &str),
        group: usize,
        (shape, out): (&[usize], &[usize]),
    ) -> Result<String, String> {
        let product = |list: &[usize]| list.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let taps = product(&self.kernel).ok_or("a kernel that overflows")?;
        let windows = product(out.get(2..).unwrap_or_default()).and_then(|n| n.checked_mul(taps));
        let windows = windows.and_then(|n| n.checked_mul(shape.get(1).copied().unwrap_or(0)));
        if taps.checked_mul(taps).is_some_and(|n| n <= 1 << 18) && windows.is_some_and(|n| n <= 1 << 26) {
            return self.weight_by_windows(context, (input, gradient, like), group, taps, (shape, out));
        }
        self.weight_by_convolution(context, input, gradient, group, shape)
    }

    /// The windows, cut out by a convolution with kernels that hold a single 1 each, then one product of matrices.
    fn weight_by_windows(
        &self,
        context: &mut Context,
        (input, gradient, like): (&str, &str, &str),
        group: usize,
        taps: usize,
        (shape, out): (&[usize], &[usize]),
    ) -> Result<String, String> {
        let count = |shape: &[usize]| shape.get(1).copied().and_then(|c| c.checked_div(group)).ok_or("no group");
        let (inside, outside) = (count(shape)?, count(out)?);
        let space: Vec<i64> = self.kernel.iter().copied().map(signed).collect();
        let is_whole = taps == 1 && self.strides.iter().all(|s| *s == 1) && self.pads.iter().all(|p| *p == (0, 0));
        let windows = if is_whole {
            input.to_owned()
        } else {
            let channels = inside * group;
            let single: Vec<f64> = (0..taps * taps).map(|i| f64::from(u8::from(i % (taps + 1) == 0))).collect();
            let single = context.numbers(like, &[&[1, taps, 1], &self.kernel[..]].concat(), &single)?;
            let each: Vec<i64> = [&[signed(channels), signed(taps), 1], &space[..]].concat();
            let each = context.nodes.integers(&each);
            let each = context.op("Expand", &[&single, &each]);
            let kernels = context.reshape(&each, &[&[signed(channels * taps), 1], &space[..]].concat());
            context.node("Conv", &[input, &kernels], self.attributes(channels))
        };
        let lead: &[i64] = if group == 1 { &[] } else { &[signed(group)] };
        let windows = context.reshape(&windows, &[&[0], lead, &[signed(inside * taps), -1]].concat());
        let gradient = context.reshape(gradient, &[&[0], lead, &[signed(outside), -1]].concat());
        let rank = lead.len() + 3;
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(rank - 1, rank - 2);
        let windows = context.transpose(&windows, &order);
        let products = context.op("MatMul", &[&gradient, &windows]);
        let sum = context.sum(&products, &[0], false);
        Ok(context.reshape(&sum, &[&[signed(group * outside), signed(inside)], &space[..]].concat()))
    }

    /// A convolution of the input with the gradient, batch and channels exchanged: for kernels that are too large to
    /// cut out windows.
    fn weight_by_convolution(
        &self,
        context: &mut Context,
        input: &str,
        gradient: &str,
        group: usize,
        shape: &[usize],
    ) -> Result<String, String> {
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

fn signed(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
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
        true => Some(window.weight(context, (x, g, w), group, (input, output))?),
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
    if step.ints("output_padding").unwrap_or_default().iter().zip(&window.strides).any(|(p, s)| *p >= signed(*s)) {
        // The convolution back would give one position more.
        return Err("`output_padding` as large as the stride".to_owned());
    }
    let group = group(step)?;
    let first = step.needs(0).then(|| context.node("Conv", &[g, w], window.attributes(group)));
    let second = match step.needs(1) {
        true => Some(window.weight(context, (g, x, w), group, (output, input))?),
        false => None,
    };
    Ok(vec![first, second, bias(step, context, output.len())?])
}
