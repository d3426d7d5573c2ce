//! Samples between entries: every sample is a sum of the entries around it, with weights that follow from where it lies.
//! Entries are read one by one, so that what is read twice gets a sum (operator set 16).
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__GridSample.html>. Invariant: extents of space are those that were measured.

use super::super::compose::Composition;
use crate::proto::build::int;

/// What is read beyond the first and last entry.
#[derive(Clone, Copy)]
pub(super) enum Outside {
    Zero,
    Border,
    /// Mirrored at the outermost entries, or, if false, half an entry beyond them.
    Mirrored(bool),
}

/// Which entries around a coordinate are read.
#[derive(Clone, Copy)]
pub(super) enum Mode {
    Nearest,
    Linear,
    /// With the sharpness of the kernel.
    Cubic(f64),
}

/// Where a sample is read along one axis: which entry, and how much of it. What is `None` is 1.
struct Tap {
    /// An integer for every point.
    entry: String,
    weight: Option<String>,
    /// 0 where nothing is there.
    there: Option<String>,
}

/// Samples of `x` [batch, channels, space…] at `coordinates` [rows, points], one list for each axis of space, counted in
/// entries: [rows, points, channels]. `base` says at which row of the flattened batch and space every row begins.
pub(super) fn sampled(
    plain: &mut Composition,
    x: &str,
    coordinates: &[String],
    base: &str,
    mode: Mode,
    outside: Outside,
) -> Result<String, String> {
    let shape = plain.shape(x)?;
    let [batch, channels, space @ ..] = shape.as_slice() else {
        return Err("batch and channels are needed".to_owned());
    };
    let entries = count(space)?;
    let flat = plain.reshape(x, &[0, 0, -1], vec![*batch, *channels, entries]);
    let turned = plain.transpose(&flat, &[0, 2, 1])?;
    let rows = batch.checked_mul(entries).ok_or("extents that overflow")?;
    let table = plain.reshape(&turned, &[-1, signed(*channels)?], vec![rows, *channels]);
    let mut all: Vec<Vec<Tap>> = Vec::new();
    let mut stride = entries;
    for (coordinate, extent) in coordinates.iter().zip(space) {
        stride = stride.checked_div(*extent).ok_or("space without entries")?;
        all.push(taps(plain, coordinate, *extent, stride, mode, outside)?);
    }
    let mut wide = plain.shape(coordinates.first().ok_or("no space")?)?;
    let flat = wide.clone();
    wide.push(1);
    let read = [&flat[..], &[*channels]].concat();
    let mut parts = Vec::new();
    let combinations = all.iter().try_fold(1usize, |n, taps| n.checked_mul(taps.len())).filter(|n| *n <= 64);
    for combination in 0..combinations.ok_or("too many entries around a sample")? {
        let (mut rest, mut index) = (combination, base.to_owned());
        let (mut weight, mut there): (Option<String>, Option<String>) = (None, None);
        for taps in &all {
            let tap = taps.get(rest % taps.len()).ok_or("no entry")?;
            rest /= taps.len();
            index = plain.context().op("Add", &[&index, &tap.entry]);
            weight = match (weight, &tap.weight) {
                (Some(a), Some(b)) => Some(plain.join("Mul", &a, b)?),
                (a, b) => a.or_else(|| b.clone()),
            };
            there = match (there, &tap.there) {
                (Some(a), Some(b)) => Some(plain.context().op("Mul", &[&a, b])),
                (a, b) => a.or_else(|| b.clone()),
            };
        }
        let index = plain.context().unsqueeze(&index, &[2]);
        let mut part = plain.node("GatherND", &[&table, &index], Vec::new(), read.clone());
        if let Some(weight) = weight {
            let weight = plain.unsqueeze(&weight, &[2])?;
            part = plain.node("Mul", &[&part, &weight], Vec::new(), read.clone());
        }
        if let Some(there) = there {
            let there = plain.context().unsqueeze(&there, &[2]);
            part = plain.node("Mul", &[&part, &there], Vec::new(), read.clone());
        }
        parts.push(part);
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    Ok(plain.node("Sum", &parts, Vec::new(), read))
}

/// The number of entries of a shape.
pub(super) fn count(shape: &[usize]) -> Result<usize, String> {
    shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(|| "extents that overflow".to_owned())
}

pub(super) fn signed(n: usize) -> Result<i64, String> {
    i64::try_from(n).map_err(|e| e.to_string())
}

/// The entries around a coordinate along an axis of this extent, whose neighbours lie `stride` rows apart.
fn taps(
    plain: &mut Composition,
    coordinate: &str,
    extent: usize,
    stride: usize,
    mode: Mode,
    outside: Outside,
) -> Result<Vec<Tap>, String> {
    let (first, weights) = match mode {
        Mode::Nearest => (plain.context().op("Round", &[coordinate]), vec![None]),
        Mode::Linear => {
            let (low, part) = parted(plain, coordinate)?;
            let one = plain.number(coordinate, 1.0)?;
            let rest = plain.join("Sub", &one, &part)?;
            (low, vec![Some(rest), Some(part)])
        }
        Mode::Cubic(a) => {
            let (low, part) = parted(plain, coordinate)?;
            let (one, two) = (plain.number(coordinate, 1.0)?, plain.number(coordinate, 2.0)?);
            let near = [a + 2.0, -a - 3.0, 0.0, 1.0];
            let far = [a, -5.0 * a, 8.0 * a, -4.0 * a];
            let ahead = plain.join("Sub", &one, &part)?;
            let [before, behind] = [plain.join("Add", &part, &one)?, plain.join("Sub", &two, &part)?];
            let mut weights = Vec::new();
            for (distance, kernel) in [(&before, far), (&part, near), (&ahead, near), (&behind, far)] {
                weights.push(Some(polynomial(plain, distance, &kernel)?));
            }
            (plain.context().op("Sub", &[&low, &one]), weights)
        }
    };
    let mut taps = Vec::new();
    for (place, weight) in weights.into_iter().enumerate() {
        let offset = plain.number(coordinate, place as f64)?;
        let position = plain.context().op("Add", &[&first, &offset]);
        let (entry, there) = found(plain, &position, coordinate, extent, outside)?;
        let stride = plain.context().nodes.integers(&[signed(stride)?]);
        let entry = plain.context().op("Mul", &[&entry, &stride]);
        taps.push(Tap { entry, weight, there });
    }
    Ok(taps)
}

/// The integer below a coordinate, and how far it lies above it.
fn parted(plain: &mut Composition, coordinate: &str) -> Result<(String, String), String> {
    let shape = plain.shape(coordinate)?;
    let low = plain.context().op("Floor", &[coordinate]);
    let part = plain.node("Sub", &[coordinate, &low], Vec::new(), shape);
    Ok((low, part))
}

/// A polynomial, from the highest power on.
fn polynomial(plain: &mut Composition, x: &str, factors: &[f64]) -> Result<String, String> {
    let mut sum = plain.number(x, 0.0)?;
    for factor in factors {
        let factor = plain.number(x, *factor)?;
        sum = plain.join("Mul", &sum, x)?;
        sum = plain.join("Add", &sum, &factor)?;
    }
    Ok(sum)
}

/// The entry that is read at a position, and 1 where it is there, if others read 0.
fn found(
    plain: &mut Composition,
    position: &str,
    like: &str,
    extent: usize,
    outside: Outside,
) -> Result<(String, Option<String>), String> {
    let last = extent.saturating_sub(1) as f64;
    let mut place = position.to_owned();
    let (low, reach) = match outside {
        Outside::Mirrored(true) => (0.0, last),
        _ => (-0.5, extent as f64),
    };
    if matches!(outside, Outside::Mirrored(_)) && reach > 0.0 {
        // A wave of triangles: reach - |t - reach| for t modulo twice the reach.
        let [low, reach, period] =
            [plain.number(like, low)?, plain.number(like, reach)?, plain.number(like, 2.0 * reach)?];
        let context = plain.context();
        let from_low = context.op("Sub", &[position, &low]);
        let periods = context.op("Div", &[&from_low, &period]);
        let periods = context.op("Floor", &[&periods]);
        let whole = context.op("Mul", &[&periods, &period]);
        let t = context.op("Sub", &[&from_low, &whole]);
        let t = context.op("Sub", &[&t, &reach]);
        let t = context.op("Abs", &[&t]);
        let t = context.op("Sub", &[&reach, &t]);
        place = context.op("Add", &[&low, &t]);
    }
    let [first, last] = [plain.number(like, 0.0)?, plain.number(like, last)?];
    let element = i64::from(plain.element(like)? as i32);
    let context = plain.context();
    let inside = context.op("Clip", &[&place, &first, &last]);
    let there = matches!(outside, Outside::Zero).then(|| {
        let same = context.op("Equal", &[&inside, position]);
        context.node("Cast", &[&same], vec![int("to", element)])
    });
    Ok((context.node("Cast", &[&inside], vec![int("to", 7)]), there))
}
