//! Operators that select, write or turn around by computed positions: the axes that the positions run along are locked,
//! the others pass through.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__GatherND.html>, <https://onnx.ai/onnx/operators/onnx__Compress.html>,
//! <https://onnx.ai/onnx/operators/onnx__NonZero.html>, <https://onnx.ai/onnx/operators/onnx__Unique.html>,
//! <https://onnx.ai/onnx/operators/onnx__ReverseSequence.html>, <https://onnx.ai/onnx/operators/onnx__TensorScatter.html>.
//! `batch_dims` of GatherND comes with operator set 12; nothing else that is read here differs.

use super::follow::unknown;
use super::norm::locked_axes;
use super::written::{Number, Written};
use super::{NodeView, Refusal, Refused, Rule, Signature, Term, normalise_axis};
use crate::axes::Extent;

const WHY: &str = "its elements are selected by computed positions";

/// x [a…] -> the positions [rank, found] of its elements that are not zero. The rank cannot be written down as text.
pub(super) struct NonZero;

/// x [features…, classes], columns [1, k] -> [features…, k].
pub(super) static COLUMNS: Written =
    Written { texts: &["A* b, _ -> A* k"], why: WHY, extents: &[("k", Number::Unknown(0))] };

/// Slices at positions that are tuples: data [b…, i…, D…], tuples [b…, p…, k] -> [b…, p…, D…].
pub(super) struct GatherNd;

/// Slices where a condition holds.
pub(super) struct Compress;

/// The different elements or slices.
pub(super) struct Unique;

/// Slices in reverse order, as many as a list says.
pub(super) struct ReverseSequence;

/// An update written into a cache [b, .., positions, ..] at computed positions.
pub(super) struct TensorScatter;

impl Rule for NonZero {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let all: Vec<usize> = (0..node.rank(0)?).collect();
        let mut signature = locked_axes(node, &all, "its elements are counted")?;
        let rank = signature.fixed("r", Some(Extent::from(all.len())), WHY);
        let found = signature.fixed("k", Some(unknown(node, 1)), WHY);
        signature.outputs = vec![Some(vec![rank, found])];
        Ok(signature)
    }
}

impl Rule for GatherNd {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let (data, tuples) = (node.shape(0)?, node.shape(1)?);
        let wrong = || Refusal::new("its indices do not fit its data");
        let batch = usize::try_from(node.int("batch_dims", 0)).map_err(|_| wrong())?;
        let length = tuples.last().and_then(Extent::size);
        let length = length.ok_or_else(|| Refusal::new("the length of its index tuples is not known"))?;
        let places = tuples.len().checked_sub(1).filter(|n| *n >= batch).ok_or_else(wrong)?;
        let indexed = batch.checked_add(length).filter(|n| *n <= data.len()).ok_or_else(wrong)?;
        let mut signature = Signature::default();
        let data: Vec<Term> = data
            .iter()
            .enumerate()
            .map(|(i, extent)| match i < indexed {
                true => signature.fixed(format!("i{i}"), Some(extent.clone()), WHY),
                false => signature.free(format!("D{i}"), Some(extent.clone())),
            })
            .collect();
        let fixed = |(i, extent): (usize, &Extent)| signature.fixed(format!("p{i}"), Some(extent.clone()), WHY);
        let tuples: Vec<Term> = tuples.iter().enumerate().map(fixed).collect();
        let output = tuples.iter().take(places).chain(data.iter().skip(indexed)).cloned().collect();
        signature.inputs = vec![Some(data), Some(tuples)];
        signature.outputs = vec![Some(output)];
        Ok(signature)
    }
}

impl Rule for Compress {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let rank = node.rank(0)?;
        let found = Some(unknown(node, 0));
        let Some(axis) = node.maybe_int("axis") else {
            let mut signature = locked_axes(node, &(0..rank).collect::<Vec<_>>(), WHY)?;
            signature.outputs = vec![Some(vec![signature.fixed("k", found, WHY)])];
            return Ok(signature);
        };
        let axis = normalise_axis(axis, rank)?;
        let mut signature = locked_axes(node, &[axis], WHY)?;
        let found = signature.fixed("k", found, WHY);
        if let Some(place) = signature.outputs.first_mut().and_then(Option::as_mut).and_then(|o| o.get_mut(axis)) {
            *place = found;
        }
        Ok(signature)
    }
}

impl Rule for Unique {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let rank = node.rank(0)?;
        let why = "its elements are compared with each other";
        let mut signature = locked_axes(node, &(0..rank).collect::<Vec<_>>(), why)?;
        let found = signature.fixed("k", Some(unknown(node, 0)), why);
        let all = signature.fixed("n", Some(unknown(node, 1)), why);
        let unique = match node.maybe_int("axis") {
            None => vec![found.clone()],
            Some(axis) => {
                let axis = normalise_axis(axis, rank)?;
                let mut output = signature.outputs.first().cloned().flatten().unwrap_or_default();
                if let Some(place) = output.get_mut(axis) {
                    *place = found.clone();
                }
                output
            }
        };
        signature.outputs = vec![Some(unique), Some(vec![found.clone()]), Some(vec![all]), Some(vec![found])];
        signature.outputs.truncate(node.outputs.max(1));
        Ok(signature)
    }
}

impl Rule for ReverseSequence {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let rank = node.rank(0)?;
        let axes = [node.axis("batch_axis", 1, rank)?, node.axis("time_axis", 0, rank)?];
        locked_axes(node, &axes, "it is turned around sample by sample")
    }
}

impl Rule for TensorScatter {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let (cache, update) = (node.shape(0)?, node.shape(1)?);
        let axis = node.axis("axis", -2, cache.len())?;
        if cache.len() != update.len() || axis == 0 {
            return Err(Refusal::new("its update does not fit its cache"));
        }
        let why = "it is written to at computed positions";
        let mut signature = locked_axes(node, &[0, axis], why)?;
        let mut written = signature.outputs.first().cloned().flatten().unwrap_or_default();
        if let (Some(place), Some(extent)) = (written.get_mut(axis), update.get(axis)) {
            *place = signature.fixed("u", Some(extent.clone()), why);
        }
        if let Some(input) = signature.inputs.get_mut(1) {
            *input = Some(written);
        }
        Ok(signature)
    }
}
