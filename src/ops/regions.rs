//! Operators that look at regions of a picture, and blocks that become a picture. Channels go through each by itself,
//! space and regions are locked.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__RoiAlign.html>, <https://onnx.ai/onnx/operators/onnx__MaxRoiPool.html>,
//! <https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html>, <https://onnx.ai/onnx/operators/onnx__Col2Im.html>,
//! <https://onnx.ai/onnx/operators/onnx__CenterCropPad.html> and CropAndResize of com.microsoft. What differs between
//! operator sets is how positions are rounded, which no axis shows.

use super::follow::{letters, unknown};
use super::written::{Number, Written};
use super::{NodeView, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;

const WHY: &str = "regions are cut out of it, or counted along it";

/// x [n, C, h, w], regions [r, 4], their pictures [r] -> [r, C, height, width].
pub(super) static ROI_ALIGN: Written = Written {
    texts: &["n C h w, r b, r -> r C p q"],
    why: WHY,
    extents: &[("p", Number::AttributeOr("output_height", 1)), ("q", Number::AttributeOr("output_width", 1))],
};

/// x [n, C, h, w], regions [r, 5] -> [r, C, height, width].
pub(super) static MAX_ROI_POOL: Written = Written {
    texts: &["n C h w, r b -> r C p q"],
    why: WHY,
    extents: &[("p", Number::Listed("pooled_shape", 0)), ("q", Number::Listed("pooled_shape", 1))],
};

/// x [n, C, h, w], regions [r, 4], their pictures [r], size [2] -> [r, C, height, width].
pub(super) static CROP_AND_RESIZE: Written = Written {
    texts: &["n C h w, r b, r, _ -> r C p q"],
    why: WHY,
    extents: &[("p", Number::Entry(3, 0)), ("q", Number::Entry(3, 1))],
};

/// boxes [n, k, 4], scores [n, c, k] -> [selected, 3].
pub(super) static NON_MAX_SUPPRESSION: Written = Written {
    texts: &["n k b, n c k, _, _, _ -> s d"],
    why: "boxes are selected by their scores",
    extents: &[("s", Number::Unknown(0)), ("d", Number::Fixed(3))],
};

/// Blocks [n, (C block), l] laid into a picture [n, C, height, width, …].
pub(super) struct Col2Im;

impl Rule for Col2Im {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        if node.rank(0)? != 3 {
            return Err(Refusal::new("its input has not three axes"));
        }
        let block = node.known_integers(2).ok_or_else(|| Refusal::new("the shape of its block is not known"))?;
        let block = block.iter().try_fold(1i64, |n, d| n.checked_mul(*d)).filter(|n| *n > 0);
        let block = block.ok_or_else(|| Refusal::new("the shape of its block is no shape"))?;
        let axes = match node.shape(1)? {
            [axes] => axes.size().filter(|n| *n <= 8),
            _ => None,
        };
        let axes = axes.ok_or_else(|| Refusal::new("the rank of its picture is not known"))?;
        let names: Vec<String> = (0..axes).map(|i| format!("h{i}")).collect();
        let text = format!("n (C k) l, _, _ -> n C {}", names.join(" "));
        let mut signature = Signature::parse(&text, "blocks are laid beside each other along it")?
            .because("k", "it counts the positions inside a block")
            .with("k", Extent::known(block));
        for (i, name) in names.iter().enumerate() {
            let entry = node.integers(1).and_then(|shape| shape.values.get(i).cloned().flatten());
            signature = signature.with(name, entry.unwrap_or_else(|| unknown(node, i + 2)));
        }
        Ok(signature)
    }
}

/// Cropping or padding around the centre, to the extents of `shape`, along `axes` (all if none are given).
pub(super) struct CenterCropPad;

impl Rule for CenterCropPad {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let input = node.shape(0)?;
        let axes = match node.ints("axes") {
            Some(axes) => axes.iter().map(|a| super::normalise_axis(*a, input.len())).collect::<Refused<Vec<_>>>()?,
            None => (0..input.len()).collect(),
        };
        let mut signature = Signature::default();
        let mut from = letters(&mut signature, "A", input);
        let mut to: Vec<Term> = from.clone();
        let why = "it is cut or padded around its centre";
        for (i, axis) in axes.into_iter().enumerate() {
            let target = node.integers(1).and_then(|shape| shape.values.get(i).cloned().flatten());
            let extent = node.extent(0, axis)?;
            if target.as_ref() == Some(&extent) {
                super::follow::lock(&mut signature, &from[axis].clone(), why);
                continue;
            }
            let target = target.unwrap_or_else(|| unknown(node, axis));
            if let (Some(from), Some(to)) = (from.get_mut(axis), to.get_mut(axis)) {
                *from = signature.fixed(format!("a{axis}"), Some(extent), why);
                *to = signature.fixed(format!("c{axis}"), Some(target), why);
            }
        }
        signature.inputs = vec![Some(from), None];
        signature.outputs = vec![Some(to)];
        Ok(signature)
    }
}
