//! GridSample, DeformConv, RoiAlign and AffineGrid: samples at places that are computed. The places get gradients, too.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__GridSample.html>, `onnx__DeformConv.html`, `onnx__RoiAlign.html`,
//! `onnx__AffineGrid.html`.

use super::super::Gradients;
use super::super::compose::Composition;
use super::super::context::Context;
use super::super::step::Step;
use super::rearrange::range;
use super::sample::{Mode, Outside, count, sampled, signed};

/// [batch, 1]: where every sample begins, if each has so many rows.
fn begins(plain: &mut Composition, x: &str, rows: usize) -> Result<String, String> {
    let context = plain.context();
    let batch = context.extent_of(x, 0);
    let numbers = range(context, &batch);
    let rows = context.nodes.integers(&[signed(rows)?]);
    let starts = context.op("Mul", &[&numbers, &rows]);
    Ok(context.unsqueeze(&starts, &[1]))
}

pub(crate) fn grid_sample(step: &Step, context: &mut Context) -> Gradients {
    let corners = step.int("align_corners", 0) != 0;
    let mode = match step.text("mode") {
        b"" | b"bilinear" | b"linear" => Mode::Linear,
        b"nearest" => Mode::Nearest,
        b"bicubic" | b"cubic" => Mode::Cubic(-0.75),
        other => return Err(format!("mode `{}`", String::from_utf8_lossy(other))),
    };
    let outside = match step.text("padding_mode") {
        b"" | b"zeros" => Outside::Zero,
        b"border" => Outside::Border,
        b"reflection" => Outside::Mirrored(corners),
        other => return Err(format!("padding by `{}`", String::from_utf8_lossy(other))),
    };
    let mut plain = Composition::new(step, context);
    let (x, grid) = (plain.input(0)?, plain.input(1)?);
    let (shape, places) = (plain.shape(&x)?, plain.shape(&grid)?);
    let [batch, channels, space @ ..] = shape.as_slice() else {
        return Err("batch and channels are needed".to_owned());
    };
    let [_, out @ .., _] = places.as_slice() else { return Err("a grid without space".to_owned()) };
    let points = count(out)?;
    let flat = plain.reshape(&grid, &[0, -1, signed(space.len())?], vec![*batch, points, space.len()]);
    // The last axis comes first.
    let mut coordinates = Vec::new();
    for (part, extent) in plain.split(&flat, 2, space.len())?.iter().rev().zip(space) {
        let place = plain.reshape(part, &[0, -1], vec![*batch, points]);
        let (one, half) = (plain.number(&place, 1.0)?, plain.number(&place, 2.0)?);
        let from_edge = plain.join("Add", &place, &one)?;
        coordinates.push(if corners {
            let part = plain.join("Div", &from_edge, &half)?;
            plain.scale(&part, *extent as f64 - 1.0)?
        } else {
            let scaled = plain.scale(&from_edge, *extent as f64)?;
            let scaled = plain.join("Sub", &scaled, &one)?;
            plain.join("Div", &scaled, &half)?
        });
    }
    let base = begins(&mut plain, &x, count(space)?)?;
    let samples = sampled(&mut plain, &x, &coordinates, &base, mode, outside)?;
    let turned = plain.transpose(&samples, &[0, 2, 1])?;
    let mut target = vec![0, 0];
    out.iter().try_for_each(|n| signed(*n).map(|n| target.push(n)))?;
    let result = plain.reshape(&turned, &target, [&[*batch, *channels], out].concat());
    plain.gradients(step, &[Some(result)])
}

/// Two-dimensional: samples at the taps of every window, moved by the offsets, then one product with the weight.
pub(crate) fn deformed(step: &Step, context: &mut Context) -> Gradients {
    let (groups, blocks) = (positive(step, "group")?, positive(step, "offset_group")?);
    let out = context.shape(step.output()?)?.to_vec();
    let mut plain = Composition::new(step, context);
    let (x, weight, offsets) = (plain.input(0)?, plain.input(1)?, plain.input(2)?);
    let (shape, kernel) = (plain.shape(&x)?, plain.shape(&weight)?);
    let ([batch, channels, height, width], [outputs, inside, rows, columns], [_, _, high, wide]) =
        (shape.as_slice(), kernel.as_slice(), out.as_slice())
    else {
        return Err("two axes of space are needed".to_owned());
    };
    let each =
        channels.checked_div(blocks).filter(|n| n * blocks == *channels).ok_or("`offset_group` that does not fit")?;
    let (taps, windows) = (rows * columns, high * wide);
    let points = count(&[taps, windows])?;
    let number = |name: &str, place: usize, default: usize| -> Result<usize, String> {
        let Some(list) = step.ints(name) else { return Ok(default) };
        let found = list.get(place).and_then(|n| usize::try_from(*n).ok()).filter(|n| *n < 1 << 24);
        found.ok_or_else(|| format!("`{name}` is not understood"))
    };
    let (kinds, many) = (batch * blocks, signed(points)?);
    let moved = plain.reshape(&offsets, &[-1, signed(taps)?, 2, signed(windows)?], vec![kinds, taps, 2, windows]);
    let mut coordinates = Vec::new();
    for (axis, part) in plain.split(&moved, 2, 2)?.iter().enumerate() {
        let (stride, dilation, pad) =
            (number("strides", axis, 1)?, number("dilations", axis, 1)?, number("pads", axis, 0)?);
        let place = |i: usize| {
            let (tap, window) = (i / windows, i % windows);
            let (tap, window) = if axis == 0 { (tap / columns, window / wide) } else { (tap % columns, window % wide) };
            (window * stride + tap * dilation) as f64 - pad as f64
        };
        let grid: Vec<f64> = (0..points).map(place).collect();
        let part = plain.reshape(part, &[-1, many], vec![kinds, points]);
        let grid = plain.constant(&part, &[1, points], &grid)?;
        coordinates.push(plain.join("Add", &part, &grid)?);
    }
    let space = [signed(*height)?, signed(*width)?];
    let divided = plain.reshape(&x, &[-1, signed(each)?, space[0], space[1]], vec![kinds, each, *height, *width]);
    let base = begins(&mut plain, &divided, count(&[*height, *width])?)?;
    let mut samples = sampled(&mut plain, &divided, &coordinates, &base, Mode::Linear, Outside::Zero)?;
    if let Some(mask) = plain.optional(4) {
        let mask = plain.reshape(&mask, &[-1, many, 1], vec![kinds, points, 1]);
        samples = plain.join("Mul", &samples, &mask)?;
    }
    // [batch · blocks, taps · windows, channels of a block] -> [batch, groups, channels of a group · taps, windows]
    let parts =
        plain.reshape(&samples, &[0, signed(taps)?, signed(windows)?, signed(each)?], vec![kinds, taps, windows, each]);
    let turned = plain.transpose(&parts, &[0, 3, 1, 2])?;
    let depth = inside * taps;
    let rows = plain.reshape(
        &turned,
        &[-1, signed(groups)?, signed(depth)?, signed(windows)?],
        vec![*batch, groups, depth, windows],
    );
    let filters = outputs.checked_div(groups).ok_or("no group")?;
    let weight =
        plain.reshape(&weight, &[signed(groups)?, signed(filters)?, signed(depth)?], vec![groups, filters, depth]);
    let product = plain.matmul(&weight, &rows)?;
    let mut result = plain.reshape(
        &product,
        &[-1, signed(*outputs)?, signed(*high)?, signed(*wide)?],
        vec![*batch, *outputs, *high, *wide],
    );
    if let Some(bias) = plain.optional(3) {
        let bias = plain.unsqueeze(&bias, &[1, 2])?;
        result = plain.join("Add", &result, &bias)?;
    }
    plain.gradients(step, &[Some(result)])
}

fn positive(step: &Step, name: &str) -> Result<usize, String> {
    usize::try_from(step.int(name, 1)).ok().filter(|n| *n > 0).ok_or_else(|| format!("no `{name}`"))
}

/// Averages, or largest, of samples in every bin of a region. Regions get gradients, too, but for where they begin to be
/// cut off.
pub(crate) fn regions(step: &Step, context: &mut Context) -> Gradients {
    let ratio = usize::try_from(step.int("sampling_ratio", 0)).ok().filter(|n| *n > 0);
    let ratio = ratio.ok_or("`sampling_ratio` that follows from the region")?;
    if step.text("mode") == b"max" {
        return Err("the largest of samples".to_owned());
    }
    let half = match (step.text("coordinate_transformation_mode"), context.opset) {
        (b"", ..16) | (b"output_half_pixel", _) => false,
        (b"" | b"half_pixel", _) => true,
        (other, _) => return Err(format!("coordinates by `{}`", String::from_utf8_lossy(other))),
    };
    let scale = step.float("spatial_scale", 1.0);
    let bins = [positive(step, "output_height")?, positive(step, "output_width")?];
    let places = step.input(2)?;
    let mut plain = Composition::new(step, context);
    let (x, boxes) = (plain.input(0)?, plain.input(1)?);
    let shape = plain.shape(&x)?;
    let [_, channels, height, width] = shape.as_slice() else { return Err("two axes of space are needed".to_owned()) };
    let scaled = plain.scale(&boxes, scale)?;
    let shift = plain.number(&boxes, if half { -0.5 } else { 0.0 })?;
    let scaled = plain.join("Add", &scaled, &shift)?;
    let sides = plain.split(&scaled, 1, 4)?;
    let [left, top, right, bottom] = sides.as_slice() else { return Err("four sides are needed".to_owned()) };
    let count_of = plain.shape(left)?.first().copied().unwrap_or(0);
    let samples = [bins[0] * ratio, bins[1] * ratio];
    let points = count(&samples)?;
    let (mut coordinates, mut there) = (Vec::new(), None);
    for (axis, (low, high, extent)) in [(top, bottom, *height), (left, right, *width)].into_iter().enumerate() {
        let mut length = plain.join("Sub", high, low)?;
        if !half {
            let one = plain.number(low, 1.0)?;
            length = plain.join("Max", &length, &one)?;
        }
        let along = |i: usize| if axis == 0 { i / samples[1] } else { i % samples[1] };
        let parts: Vec<f64> = (0..points).map(|i| (along(i) as f64 + 0.5) / samples[axis] as f64).collect();
        let parts = plain.constant(low, &[1, points], &parts)?;
        let moved = plain.join("Mul", &length, &parts)?;
        let place = plain.join("Add", &moved, low)?;
        // Beyond one entry outside nothing is there.
        let element = i64::from(plain.element(&place)? as i32);
        let [first, last] = [plain.number(low, -1.0)?, plain.number(low, extent as f64)?];
        let context = plain.context();
        let inside = context.op("Clip", &[&place, &first, &last]);
        let same = context.op("Equal", &[&inside, &place]);
        let same = context.node("Cast", &[&same], vec![crate::proto::build::int("to", element)]);
        there = Some(there.map_or_else(|| same.clone(), |other: String| context.op("Mul", &[&other, &same])));
        let [first, last] = [plain.number(low, 0.0)?, plain.number(low, extent as f64 - 1.0)?];
        coordinates.push(plain.node("Clip", &[&place, &first, &last], Vec::new(), vec![count_of, points]));
    }
    let rows = plain.context().nodes.integers(&[signed(height * width)?]);
    let base = plain.context().node("Cast", &[places], vec![crate::proto::build::int("to", 7)]);
    let base = plain.context().op("Mul", &[&base, &rows]);
    let base = plain.context().unsqueeze(&base, &[1]);
    let mut values = sampled(&mut plain, &x, &coordinates, &base, Mode::Linear, Outside::Border)?;
    if let Some(there) = there {
        let there = plain.context().unsqueeze(&there, &[2]);
        values = plain.node("Mul", &[&values, &there], Vec::new(), vec![count_of, points, *channels]);
    }
    // [regions, bins · samples, bins · samples, channels]
    let n = |n: usize| signed(n);
    let target = [0, n(bins[0])?, n(ratio)?, n(bins[1])?, n(ratio)?, n(*channels)?];
    let wide = plain.reshape(&values, &target, vec![count_of, bins[0], ratio, bins[1], ratio, *channels]);
    let turned = plain.transpose(&wide, &[0, 5, 1, 3, 2, 4])?;
    let target = [0, 0, 0, 0, -1];
    let flat = plain.reshape(&turned, &target, vec![count_of, *channels, bins[0], bins[1], ratio * ratio]);
    let weights = plain.constant(&flat, &[ratio * ratio, 1], &vec![1.0 / (ratio * ratio) as f64; ratio * ratio])?;
    let mean = plain.matmul(&flat, &weights)?;
    let result = plain.reshape(&mean, &[0, 0, 0, 0], vec![count_of, *channels, bins[0], bins[1]]);
    plain.gradients(step, &[Some(result)])
}

/// The places of all entries, as a matrix, times the transposed transformation.
pub(crate) fn affine_grid(step: &Step, context: &mut Context) -> Gradients {
    let (g, theta) = (step.gradient()?, step.input(0)?);
    let out = context.shape(step.output()?)?;
    let [_, space @ .., rank] = out else { return Err("a grid without space".to_owned()) };
    let corners = step.int("align_corners", 0) != 0;
    let points = count(space)?;
    let mut places = Vec::new();
    for point in 0..points {
        let mut rest = point;
        let mut row = vec![1.0];
        // The last axis comes first.
        for extent in space.iter().rev() {
            let (at, extent) = ((rest % extent) as f64, *extent as f64);
            rest /= extent as usize;
            row.insert(
                row.len() - 1,
                match corners {
                    true if extent <= 1.0 => -1.0,
                    true => 2.0 * at / (extent - 1.0) - 1.0,
                    false => (2.0 * at + 1.0) / extent - 1.0,
                },
            );
        }
        places.extend(row);
    }
    let places = context.numbers(theta, &[points, rank + 1], &places)?;
    let flat = context.reshape(g, &[0, -1, signed(*rank)?]);
    let turned = context.transpose(&flat, &[0, 2, 1]);
    let gradient = context.op("MatMul", &[&turned, &places]);
    step.first(gradient)
}
