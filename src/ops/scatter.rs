//! Writing into a tensor at computed places: ScatterElements, ScatterND, and the triangles of Trilu.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__ScatterElements.html>,
//! <https://onnx.ai/onnx/operators/onnx__ScatterND.html>, <https://onnx.ai/onnx/operators/onnx__Trilu.html>. The output has
//! the shape of the first input. The axes that positions run along are locked; the others
//! are written to as a whole, index by index, and pass through. Trilu compares the indices of the last two axes.

use super::{NodeView, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;

const WRITTEN: &str = "it is written to at computed places";

/// ScatterElements, and Scatter before operator set 11: elements written at computed positions of one axis.
pub(super) struct ScatterElements;

/// ScatterND: slices written at positions that are tuples, data [i…, D…], tuples [p…, k], updates [p…, D…].
pub(super) struct ScatterNd;

/// The upper or lower triangle of matrices.
pub(super) struct Trilu;

impl Rule for ScatterElements {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let (data, indices) = (node.shape(0)?, node.shape(1)?);
        if data.len() != indices.len() || node.rank(2)? != data.len() {
            return Err(Refusal::new("the ranks of data, indices and updates differ"));
        }
        let axis = node.axis("axis", 0, data.len())?;
        let mut signature = Signature::default();
        let (mut whole, mut written) = (Vec::new(), Vec::new());
        for (i, (extent, own)) in data.iter().zip(indices).enumerate() {
            // Where every index along an axis is written to, index i of the updates belongs to index i of the data.
            if i != axis && extent == own {
                let letter = signature.free(format!("A{i}"), Some(extent.clone()));
                whole.push(letter.clone());
                written.push(letter);
            } else {
                whole.push(signature.fixed(format!("a{i}"), Some(extent.clone()), WRITTEN));
                written.push(signature.fixed(format!("i{i}"), Some(own.clone()), WRITTEN));
            }
        }
        signature.inputs = vec![Some(whole.clone()), Some(written.clone()), Some(written)];
        signature.outputs = vec![Some(whole)];
        Ok(signature)
    }
}

impl Rule for ScatterNd {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let (data, tuples, updates) = (node.shape(0)?, node.shape(1)?, node.shape(2)?);
        let wrong = || Refusal::new("its indices do not fit its data");
        let length = tuples.last().and_then(Extent::size);
        let length = length.ok_or_else(|| Refusal::new("the length of its index tuples is not known"))?;
        let places = tuples.len().checked_sub(1).ok_or_else(wrong)?;
        let slice = data.get(length..).ok_or_else(wrong)?;
        if updates.len() != places + slice.len() {
            return Err(wrong());
        }
        let mut signature = Signature::default();
        let data: Vec<Term> = data
            .iter()
            .enumerate()
            .map(|(i, extent)| match i < length {
                true => signature.fixed(format!("i{i}"), Some(extent.clone()), WRITTEN),
                false => signature.free(format!("D{i}"), Some(extent.clone())),
            })
            .collect();
        let fixed = |(i, extent): (usize, &Extent)| signature.fixed(format!("p{i}"), Some(extent.clone()), WRITTEN);
        let updated: Vec<Term> = updates.iter().take(places).enumerate().map(fixed).collect();
        let updated = updated.into_iter().chain(data.iter().skip(length).cloned()).collect();
        signature.inputs = vec![Some(data.clone()), None, Some(updated)];
        signature.outputs = vec![Some(data)];
        Ok(signature)
    }
}

impl Rule for Trilu {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let free = node.rank(0)?.checked_sub(2).ok_or_else(|| Refusal::new("a triangle needs two axes"))?;
        like_the_data(node, free, "a triangle compares its indices")
    }
}

/// Input and output alike, the first `free` axes free; the other inputs stay undescribed.
fn like_the_data(node: &NodeView, free: usize, why: &str) -> Refused<Signature> {
    let mut signature = Signature::default();
    let shape = node.shape(0)?;
    let axes: Vec<Term> = shape
        .iter()
        .enumerate()
        .map(|(i, extent)| match i < free {
            true => signature.free(format!("A{i}"), Some(extent.clone())),
            false => signature.fixed(format!("a{i}"), Some(extent.clone()), why),
        })
        .collect();
    signature.inputs = vec![None; node.input_count()];
    if let Some(first) = signature.inputs.first_mut() {
        *first = Some(axes.clone());
    }
    signature.outputs = vec![Some(axes)];
    Ok(signature)
}
