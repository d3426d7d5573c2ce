//! The extents that sliding windows leave: convolutions, pools and transposed convolutions share this arithmetic.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__MaxPool.html>, <https://onnx.ai/onnx/operators/onnx__ConvTranspose.html>.
//! With `reach = (kernel - 1) dilation + 1` a window gives `floor((n + pads - reach) / stride) + 1`, rounded up with
//! `ceil_mode`, less a last window that would start in the padding (the specification says so since operator set 22,
//! engines do it in all of them; VALID with `ceil_mode` rounds up, too). Symbolic extents are keyed by `pads - reach` and
//! `stride` alone, so that a 3×3 convolution and the 1×1 shortcut beside it agree.

use super::{NodeView, Refusal, Refused};
use crate::axes::Extent;

/// One spatial axis of a window, as the attributes tell it.
struct Window {
    stride: i64,
    reach: i64,
    begin: i64,
    end: i64,
    auto: String,
}

impl Window {
    fn read(node: &NodeView, kernel: i64, axis: usize, axes: usize) -> Refused<Self> {
        let at = |name: &str, index: usize, default: i64| {
            node.ints(name).map_or(Some(default), |l| if l.is_empty() { Some(default) } else { l.get(index).copied() })
        };
        let wrong = |name: &str| Refusal::new(format!("attribute `{name}` does not fit the spatial axes"));
        let stride = at("strides", axis, 1).filter(|s| *s > 0).ok_or_else(|| wrong("strides"))?;
        let dilation = at("dilations", axis, 1).filter(|d| *d > 0).ok_or_else(|| wrong("dilations"))?;
        let begin = at("pads", axis, 0).ok_or_else(|| wrong("pads"))?;
        let end = at("pads", axis + axes, 0).ok_or_else(|| wrong("pads"))?;
        let reach = kernel.checked_sub(1).filter(|k| *k >= 0).and_then(|k| k.checked_mul(dilation));
        let reach = reach.and_then(|k| k.checked_add(1)).ok_or_else(|| wrong("kernel_shape"))?;
        Ok(Self { stride, reach, begin, end, auto: node.string("auto_pad", "NOTSET") })
    }

    /// What the input is longer than the room in which windows start: pads less reach.
    fn slack(&self) -> Refused<i64> {
        let slack = match self.auto.as_str() {
            // ceil(n / stride) = floor((n - 1) / stride) + 1.
            "SAME_UPPER" | "SAME_LOWER" => Some(-1),
            "VALID" => self.reach.checked_neg(),
            _ => self.begin.checked_add(self.end).and_then(|pads| pads.checked_sub(self.reach)),
        };
        slack.ok_or_else(overflow)
    }
}

fn overflow() -> Refusal {
    Refusal::new("the extent of its window overflows")
}

/// The output extent of a window of `kernel` sliding over spatial axis `axis` of `axes`; `round_up` is `ceil_mode`.
///
/// # Errors
/// A refusal if attribute lists are too short or the window does not fit.
pub(super) fn window(
    node: &NodeView,
    input: &Extent,
    kernel: i64,
    axis: usize,
    axes: usize,
    round_up: bool,
) -> Refused<Extent> {
    let window = Window::read(node, kernel, axis, axes)?;
    let (stride, slack) = (window.stride, window.slack()?);
    let padded = !window.auto.starts_with("SAME") && window.auto != "VALID";
    // SAME says itself how it rounds.
    let round_up = round_up && !window.auto.starts_with("SAME") && stride > 1;
    let begin = if padded { window.begin } else { 0 };
    // Windows over an input of `n + rest` where the stride divides n: n / stride + this many.
    let extra = |rest: i64| -> Option<i64> {
        let room = rest.checked_add(slack)?;
        if !round_up {
            return room.div_euclid(stride).checked_add(1);
        }
        let steps = room.checked_add(stride - 1)?.div_euclid(stride);
        // A last window that would start in the padding at the end is dropped.
        let dropped = steps.checked_mul(stride)? >= rest.checked_add(begin)?;
        steps.checked_add(1 - i64::from(dropped))
    };
    if let Some(n) = input.value() {
        return match extra(n).ok_or_else(overflow)? {
            extent if extent > 0 => Ok(Extent::known(extent)),
            _ => Err(Refusal::new("the window is larger than its padded input")),
        };
    }
    if let Some(steps) = input.divided_by(&Extent::known(stride)) {
        let extra = Extent::known(extra(0).ok_or_else(overflow)?);
        return Ok(node.symbolic(|s| s.plus(&steps, &extra)));
    }
    let rounding = if round_up { format!("up{begin}") } else { String::new() };
    Ok(node.symbolic(|s| s.computed(&format!("window{slack:+}/{stride}{rounding}"), std::slice::from_ref(input))))
}

/// The output extent of a transposed window: `stride (n - 1) + output_padding + reach - pads`, or what `output_shape`
/// or `auto_pad` say.
///
/// # Errors
/// As [`window`].
pub(super) fn transposed(node: &NodeView, input: &Extent, kernel: i64, axis: usize, axes: usize) -> Refused<Extent> {
    let window = Window::read(node, kernel, axis, axes)?;
    if let Some(shape) = node.ints("output_shape").filter(|l| !l.is_empty()) {
        return match (shape.len() == axes, shape.get(axis)) {
            (true, Some(extent)) if *extent > 0 => Ok(Extent::known(*extent)),
            _ => Err(Refusal::new("`output_shape` is not one extent for each spatial axis")),
        };
    }
    let more = node.ints("output_padding").filter(|l| !l.is_empty());
    let more = more.map_or(Some(0), |l| l.get(axis).copied());
    let more = more.ok_or_else(|| Refusal::new("attribute `output_padding` does not fit the spatial axes"))?;
    let scaled = input.times(&Extent::known(window.stride)).ok_or_else(overflow)?;
    let pads = match window.auto.as_str() {
        "SAME_UPPER" | "SAME_LOWER" => return Ok(scaled),
        "VALID" => Some(0),
        _ => window.begin.checked_add(window.end),
    };
    let rest = window.reach.checked_sub(window.stride).and_then(|r| r.checked_add(more));
    let rest = rest.zip(pads).and_then(|(rest, pads)| rest.checked_sub(pads)).ok_or_else(overflow)?;
    let extent = node.symbolic(|s| s.plus(&scaled, &Extent::known(rest)));
    if extent.value().is_some_and(|n| n < 1) {
        return Err(Refusal::new("its padding is larger than its output"));
    }
    Ok(extent)
}
