//! Cosine: 1 - cos(output, label) along the first axis of a sample, as for normals of a surface, mean over positions.

use super::{Emitter, Fill, Loss, Target};
use crate::Result;

/// Added to squared lengths, so that vectors of length 0 have a gradient.
const TINY: f64 = 1e-12;

pub(super) struct Cosine;

impl Loss for Cosine {
    fn emit(&self, target: &Target, emitter: &mut Emitter) -> Result<String> {
        let labels = target.numbers()?;
        let extents = target.extents()?;
        let size = extents.first().copied().unwrap_or(1);
        let positions = extents.iter().skip(1).product::<usize>();
        let value = emitter.begin(&target.output, target.element);
        let rows = emitter.rows(&value, &[size, positions]);
        let fill = Fill::Numbers { labels, range: (f64::MIN, f64::MAX) };
        let labels = emitter.input(&target.output, &[size, positions], fill);
        let product = |a: &str, b: &str, emitter: &mut Emitter| {
            let product = emitter.op("Mul", &[a, b]);
            emitter.sum(&product, 1, false)
        };
        let both = product(&rows, &labels, emitter);
        let (own, given) = (product(&rows, &rows, emitter), product(&labels, &labels, emitter));
        let squares = emitter.op("Mul", &[&own, &given]);
        let tiny = emitter.number(TINY);
        let squares = emitter.op("Add", &[&squares, &tiny]);
        let lengths = emitter.op("Sqrt", &[&squares]);
        let cosine = emitter.op("Div", &[&both, &lengths]);
        let one = emitter.number(1.0);
        let loss = emitter.op("Sub", &[&one, &cosine]);
        Ok(emitter.mean(&loss, positions))
    }
}
