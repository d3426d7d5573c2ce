//! Sums of powers in a neighbourhood: LRN, LpPool, GlobalLpPool.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__LRN.html>, `onnx__LpPool.html`, `onnx__GlobalLpPool.html`.

use super::super::Gradients;
use super::super::compose::Composition;
use super::super::context::Context;
use super::super::step::Step;
use super::sample::signed;
use crate::proto::build::int;

/// Neighbours of more channels than this are not summed.
const MOST_CHANNELS: usize = 1 << 12;
/// Below this a sum of powers counts as this, so that the root of nothing has a slope.
const LEAST: f64 = 1e-30;

/// x / (bias + alpha / size · Σ x²)^beta over neighbouring channels, which a band matrix sums.
pub(crate) fn response(step: &Step, context: &mut Context) -> Gradients {
    let size = step.int("size", 0);
    let (alpha, beta, bias) = (step.float("alpha", 1e-4), step.float("beta", 0.75), step.float("bias", 1.0));
    let mut plain = Composition::new(step, context);
    let x = plain.input(0)?;
    let shape = plain.shape(&x)?;
    let [batch, channels, space @ ..] = shape.as_slice() else {
        return Err("batch and channels are needed".to_owned());
    };
    if size < 1 || *channels > MOST_CHANNELS {
        return Err(format!("{size} neighbours of {channels} channels"));
    }
    let (before, behind) = ((size - 1) / 2, size - 1 - (size - 1) / 2);
    let row = |i: i64| {
        (0..signed(*channels).unwrap_or(0)).map(move |j| f64::from(u8::from(j >= i - before && j <= i + behind)))
    };
    let band: Vec<f64> = (0..signed(*channels)?).flat_map(row).collect();
    let square = plain.join("Mul", &x, &x)?;
    let flat = super::sample::count(space)?;
    let rows = plain.reshape(&square, &[0, signed(*channels)?, -1], vec![*batch, *channels, flat]);
    let band = plain.constant(&x, &[*channels, *channels], &band)?;
    let sums = plain.matmul(&band, &rows)?;
    let scaled = plain.scale(&sums, alpha / size as f64)?;
    let bias = plain.number(&x, bias)?;
    let base = plain.join("Add", &scaled, &bias)?;
    let exponent = plain.number(&x, -beta)?;
    let factor = plain.join("Pow", &base, &exponent)?;
    let mut target = vec![0, signed(*channels)?];
    space.iter().try_for_each(|n| signed(*n).map(|n| target.push(n)))?;
    let factor = plain.reshape(&factor, &target, shape.clone());
    let result = plain.join("Mul", &x, &factor)?;
    plain.gradients(step, &[Some(result)])
}

/// |x|^p
fn raised(plain: &mut Composition, x: &str, p: i64) -> Result<String, String> {
    if p == 2 {
        return plain.join("Mul", x, x);
    }
    let size = plain.map("Abs", x)?;
    let exponent = plain.number(x, p as f64)?;
    if p == 1 { Ok(size) } else { plain.join("Pow", &size, &exponent) }
}

/// x^(1 / p)
fn root(plain: &mut Composition, x: &str, p: i64) -> Result<String, String> {
    if p == 1 {
        return Ok(x.to_owned());
    }
    let (least, exponent) = (plain.number(x, LEAST)?, plain.number(x, 1.0 / p as f64)?);
    let shifted = plain.join("Max", x, &least)?;
    plain.join("Pow", &shifted, &exponent)
}

fn order(step: &Step) -> Result<i64, String> {
    Some(step.int("p", 2)).filter(|p| *p > 0).ok_or_else(|| "`p` that is not positive".to_owned())
}

pub(crate) fn global(step: &Step, context: &mut Context) -> Gradients {
    let p = order(step)?;
    let mut plain = Composition::new(step, context);
    let x = plain.input(0)?;
    let shape = plain.shape(&x)?;
    let axes: Vec<usize> = (2..shape.len()).collect();
    let reduced = shape.iter().enumerate().map(|(axis, n)| if axis < 2 { *n } else { 1 }).collect();
    let powers = raised(&mut plain, &x, p)?;
    let sum = plain.context().sum(&powers, &axes, true);
    plain.know(&sum, &x, reduced);
    let result = root(&mut plain, &sum, p)?;
    plain.gradients(step, &[Some(result)])
}

/// A window of ones, moved over every channel by itself, sums the powers.
pub(crate) fn pool(step: &Step, context: &mut Context) -> Gradients {
    let p = order(step)?;
    if step.int("ceil_mode", 0) != 0 {
        return Err("windows that reach beyond the padding (`ceil_mode`)".to_owned());
    }
    let kernel = step.ints("kernel_shape").ok_or("no `kernel_shape`")?;
    let kernel: Option<Vec<usize>> = kernel.iter().map(|k| usize::try_from(*k).ok().filter(|k| *k > 0)).collect();
    let kernel = kernel.ok_or("`kernel_shape` is not understood")?;
    let out = context.shape(step.output()?)?.to_vec();
    let mut plain = Composition::new(step, context);
    let x = plain.input(0)?;
    let channels = plain.shape(&x)?.get(1).copied().unwrap_or(1);
    let powers = raised(&mut plain, &x, p)?;
    let shape = [&[channels, 1], &kernel[..]].concat();
    let entries = super::sample::count(&shape)?;
    let ones = plain.constant(&x, &shape, &vec![1.0; entries])?;
    let names = ["kernel_shape", "strides", "pads", "dilations", "auto_pad"];
    let mut attributes: Vec<_> = step.node.attribute.iter().filter(|a| names.contains(&a.name())).cloned().collect();
    attributes.push(int("group", signed(channels)?));
    let sums = plain.node("Conv", &[&powers, &ones], attributes, out);
    let result = root(&mut plain, &sums, p)?;
    plain.gradients(step, &[Some(result)])
}
