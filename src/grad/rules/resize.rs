//! Resize: every axis that is resized is mapped by a constant matrix, whichever mode. Coordinates that come
//! from a crop box, smoothing before a reduction, and sizes that keep the aspect ratio are not covered.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Resize.html>.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use super::matrices::{self, Matrix};

/// Where the entries of a resized axis lie on the original one.
struct Coordinates {
    transformation: Vec<u8>,
    before: usize,
    after: usize,
    scale: f64,
}

impl Coordinates {
    /// In single precision, as engines compute it, because rounding decides which entry is the nearest.
    fn of(&self, position: usize) -> Result<f64, String> {
        let (x, before, after, scale) = (position as f32, self.before as f32, self.after as f32, self.scale as f32);
        Ok(f64::from(match self.transformation.as_slice() {
            b"" | b"half_pixel" => (x + 0.5) / scale - 0.5,
            b"pytorch_half_pixel" if self.after == 1 => 0.0,
            b"pytorch_half_pixel" => (x + 0.5) / scale - 0.5,
            b"align_corners" if self.after == 1 => 0.0,
            b"align_corners" => x * (before - 1.0) / (after - 1.0),
            b"asymmetric" => x / scale,
            b"tf_half_pixel_for_nn" => (x + 0.5) / scale,
            b"half_pixel_symmetric" => {
                let adjustment = after / (scale * before);
                before / 2.0 * (1.0 - adjustment) + (x + 0.5) / scale - 0.5
            }
            other => return Err(format!("coordinates by `{}`", String::from_utf8_lossy(other))),
        }))
    }

    fn last(&self) -> f64 {
        self.before.saturating_sub(1) as f64
    }

    /// The position nearest to a coordinate.
    fn nearest(&self, x: f64, mode: &[u8]) -> Result<f64, String> {
        let nearest = match mode {
            b"" | b"round_prefer_floor" => (x - 0.5).ceil(),
            b"round_prefer_ceil" => (x + 0.5).floor(),
            b"floor" => x.floor(),
            b"ceil" => x.ceil(),
            other => return Err(format!("rounding by `{}`", String::from_utf8_lossy(other))),
        };
        Ok(nearest.clamp(0.0, self.last()))
    }

    fn matrix(&self, mode: &[u8], rounding: &[u8], sharpness: f64, exclude: bool) -> Result<Matrix, String> {
        let mut matrix = Matrix::zeros(self.after, self.before);
        for row in 0..self.after {
            let x = self.of(row)?;
            match mode {
                b"" | b"nearest" => matrix.add(row, self.nearest(x, rounding)? as usize, 1.0),
                b"linear" => {
                    let x = x.clamp(0.0, self.last());
                    let part = x - x.floor();
                    matrix.add(row, x.floor() as usize, 1.0 - part);
                    matrix.add(row, x.floor() as usize + 1, part);
                }
                b"cubic" => {
                    let mut taps: Vec<(f64, f64)> = (-1..=2)
                        .map(|tap| x.floor() + f64::from(tap))
                        .map(|at| (at, cubic((x - at).abs(), sharpness)))
                        .collect();
                    if exclude {
                        taps.retain(|(at, _)| (0.0..=self.last()).contains(at));
                        let sum: f64 = taps.iter().map(|tap| tap.1).sum();
                        taps.iter_mut().for_each(|tap| tap.1 /= sum);
                    }
                    taps.iter().for_each(|(at, weight)| matrix.add(row, at.clamp(0.0, self.last()) as usize, *weight));
                }
                other => return Err(format!("mode `{}`", String::from_utf8_lossy(other))),
            }
        }
        Ok(matrix)
    }
}

/// The kernel of cubic convolution at a distance.
fn cubic(x: f64, a: f64) -> f64 {
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

pub(crate) fn resize(step: &Step, context: &mut Context) -> Gradients {
    if step.int("antialias", 0) != 0 {
        return Err("smoothing before a reduction (`antialias`)".to_owned());
    }
    if !matches!(step.text("keep_aspect_ratio_policy"), b"" | b"stretch") {
        return Err("sizes that keep the aspect ratio (`keep_aspect_ratio_policy`)".to_owned());
    }
    let scales = match step.optional(2) {
        Some(scales) if context.shape(scales)? != [0] => Some(context.constant_floats(scales)?),
        _ => None,
    };
    map(step, context, scales.as_deref(), step.text("coordinate_transformation_mode"))
}

fn map(step: &Step, context: &mut Context, scales: Option<&[f64]>, transformation: &[u8]) -> Gradients {
    let (x, y) = (step.input(0)?, step.output()?);
    let (before, after) = (context.shape(x)?, context.shape(y)?);
    let axes: Vec<usize> = match step.ints("axes") {
        Some(axes) => axes.iter().map(|axis| context.axis(x, *axis)).collect::<Result<_, _>>()?,
        None => (0..before.len()).collect(),
    };
    if scales.is_some_and(|s| s.len() != axes.len()) {
        return Err("as many scales as axes are needed".to_owned());
    }
    let mode = step.text("mode");
    let rounding = step.text("nearest_mode");
    let mut maps = Vec::new();
    for (place, axis) in axes.into_iter().enumerate() {
        let (Some(before), Some(after)) = (before.get(axis).copied(), after.get(axis).copied()) else { continue };
        let scale = scales.and_then(|s| s.get(place)).copied().unwrap_or(after as f64 / before as f64);
        if before == after && scale == 1.0 {
            continue;
        }
        let coordinates = Coordinates { transformation: transformation.to_vec(), before, after, scale };
        let sharpness = step.float("cubic_coeff_a", -0.75);
        maps.push((axis, coordinates.matrix(mode, rounding, sharpness, step.int("exclude_outside", 0) != 0)?));
    }
    maps.sort_by_key(|(axis, _)| *axis);
    let gradient = matrices::back(context, step.gradient()?, x, &maps)?;
    step.first(gradient)
}
