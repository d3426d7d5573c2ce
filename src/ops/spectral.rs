//! Fourier transforms and what stands around them: every frequency is a sum over all samples, so the transformed axes are
//! locked; the others pass through.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__DFT.html>, <https://onnx.ai/onnx/operators/onnx__STFT.html>,
//! <https://onnx.ai/onnx/operators/onnx__HannWindow.html>, <https://onnx.ai/onnx/operators/onnx__MelWeightMatrix.html> and
//! Rfft, Irfft of com.microsoft. The axis of DFT is an attribute (default 1) in operator set 17 and an input (default -2)
//! since 20. Numbers are real (last extent 1) or complex (2).

use super::follow::{letters, unknown};
use super::written::{Number, Written};
use super::{NodeView, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;

const WHY: &str = "a Fourier transform sums over it";

/// HannWindow, HammingWindow, BlackmanWindow: as long as the input says.
pub(super) static WINDOW: Written =
    Written { texts: &["_ -> t"], why: "it counts the samples of a window", extents: &[("t", Number::Entry(0, 0))] };

/// Discrete Fourier transform along one axis.
pub(super) struct Dft;

impl Rule for Dft {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let shape = node.shape(0)?;
        let last =
            shape.len().checked_sub(1).filter(|n| *n > 0).ok_or_else(|| Refusal::new("it has no signal axis"))?;
        let axis = match (node.maybe_int("axis"), node.has(2)) {
            (Some(axis), _) => axis,
            (None, true) => node
                .known_integers(2)
                .and_then(|axis| axis.first().copied())
                .ok_or_else(|| Refusal::new("its axis is computed when the model runs"))?,
            (None, false) => {
                if node.opset() < 20 {
                    1
                } else {
                    -2
                }
            }
        };
        let axis = super::normalise_axis(axis, shape.len())?;
        let (inverse, onesided) = (node.int("inverse", 0) != 0, node.int("onesided", 0) != 0);
        if axis == last || (inverse && onesided) {
            return Err(Refusal::new("this form of a Fourier transform is not described"));
        }
        let length = match node.has(1) {
            true => node.integers(1).and_then(|n| n.only().cloned()).unwrap_or_else(|| unknown(node, axis)),
            false => node.extent(0, axis)?,
        };
        let length = if onesided { bins(node, &length) } else { length };
        let mut signature = Signature { inputs: vec![None; node.input_count()], ..Default::default() };
        let mut input = letters(&mut signature, "A", shape);
        let mut output = input.clone();
        for (at, extent) in [(axis, length), (last, Extent::known(2))] {
            if let (Some(from), Some(to), Some(own)) = (input.get_mut(at), output.get_mut(at), shape.get(at)) {
                *from = signature.fixed(format!("a{at}"), Some(own.clone()), WHY);
                *to = signature.fixed(format!("f{at}"), Some(extent), WHY);
            }
        }
        if let Some(first) = signature.inputs.first_mut() {
            *first = Some(input);
        }
        signature.outputs = vec![Some(output)];
        Ok(signature)
    }
}

/// How many frequencies a real signal has: n / 2 + 1.
fn bins(node: &NodeView, length: &Extent) -> Extent {
    node.symbolic(|symbols| {
        let half = symbols.floor_divide(length, &Extent::known(2));
        symbols.plus(&half, &Extent::one())
    })
}

/// Fourier transforms of frames: signal [b, samples] or [b, samples, 1 or 2] -> [b, frames, frequencies, 2].
pub(super) struct Stft;

impl Rule for Stft {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let text = match node.rank(0)? {
            2 => "b l, _, _, _ -> b f s d",
            3 => "b l c, _, _, _ -> b f s d",
            _ => return Err(Refusal::new("its signal has neither two nor three axes")),
        };
        let entry = |slot: usize| node.integers(slot).and_then(|n| n.only().cloned());
        let frame = match (entry(3), node.shape(2)) {
            (Some(frame), _) => Some(frame),
            (None, Ok([window])) => Some(window.clone()),
            _ => None,
        };
        let samples = node.extent(0, 1)?;
        let frames = match (samples.value(), frame.as_ref().and_then(Extent::value), entry(1).and_then(|s| s.value())) {
            (Some(samples), Some(frame), Some(step)) if step > 0 && frame <= samples => {
                Extent::known((samples - frame) / step + 1)
            }
            _ => unknown(node, 1),
        };
        let frequencies = match frame {
            Some(frame) if node.int("onesided", 1) != 0 => bins(node, &frame),
            Some(frame) => frame,
            None => unknown(node, 2),
        };
        let signature = Signature::parse(text, WHY)?;
        Ok(signature.with("f", frames).with("s", frequencies).with("d", Extent::known(2)))
    }
}

/// Weights from frequencies to mel bins: [length / 2 + 1, bins].
pub(super) struct MelWeightMatrix;

impl Rule for MelWeightMatrix {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let entry = |slot: usize, axis: usize| match node.integers(slot).and_then(|n| n.only().cloned()) {
            Some(extent) => (extent, true),
            None => (unknown(node, axis), false),
        };
        let (columns, _) = entry(0, 1);
        let rows = match entry(1, 0) {
            (length, true) => bins(node, &length),
            (unknown, false) => unknown,
        };
        let signature = Signature::parse("_, _, _, _, _ -> f m", "it counts frequencies")?;
        Ok(signature.with("f", rows).with("m", columns))
    }
}

/// Rfft: [.., n] -> [.., n / 2 + 1, 2]; Irfft the other way; transformed are the last `signal_ndim` axes.
pub(super) struct RealFourier {
    /// True for Irfft.
    pub(super) inverse: bool,
}

impl Rule for RealFourier {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let shape = node.shape(0)?;
        let refused = || Refusal::new("this form of a Fourier transform is not described");
        let axes = node.maybe_int("signal_ndim").and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        let axes = axes.filter(|_| node.int("onesided", 1) != 0).ok_or_else(refused)?;
        let signal = shape.len().checked_sub(usize::from(self.inverse)).ok_or_else(refused)?;
        let first = signal.checked_sub(axes).ok_or_else(refused)?;
        let mut signature = Signature::default();
        let input: Vec<Term> = shape
            .iter()
            .enumerate()
            .map(|(i, extent)| match i < first {
                true => signature.free(format!("A{i}"), Some(extent.clone())),
                false => signature.fixed(format!("a{i}"), Some(extent.clone()), WHY),
            })
            .collect();
        let mut output: Vec<Term> = input.iter().take(signal - 1).cloned().collect();
        let length = node.extent(0, signal - 1)?;
        if self.inverse {
            let samples = length.value().and_then(|n| n.checked_sub(1)?.checked_mul(2)).map(Extent::known);
            output.push(signature.fixed("f", Some(samples.unwrap_or_else(|| unknown(node, signal))), WHY));
        } else {
            output.push(signature.fixed("f", Some(bins(node, &length)), WHY));
            output.push(signature.fixed("d", Some(Extent::known(2)), WHY));
        }
        signature.inputs = vec![Some(input)];
        signature.outputs = vec![Some(output)];
        Ok(signature)
    }
}
