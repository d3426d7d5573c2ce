//! ConvTranspose whose pads follow from the extents of its output.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__ConvTranspose.html>.

use super::super::Gradients;
use super::super::context::Context;
use super::super::step::Step;
use super::conv;
use crate::proto::build::ints;
use crate::proto::onnx::NodeProto;

/// Pads that are not given are worked out, then the node is as any other.
pub(crate) fn conv_transpose(step: &Step, context: &mut Context) -> Gradients {
    let mode = step.text("auto_pad");
    if step.attribute("output_shape").is_none() && matches!(mode, b"" | b"NOTSET") {
        return conv::transposed(step, context);
    }
    let shapes = [step.input(0)?, step.input(1)?, step.output()?].map(|name| context.shape(name));
    let [input, weight, output] = shapes;
    let (input, kernel, output) = (input?.get(2..), weight?.get(2..), output?.get(2..));
    let (Some(input), Some(kernel), Some(output)) = (input, kernel, output) else { return Err("no space".to_owned()) };
    let list = |name: &str, place: usize, default: usize| -> Result<usize, String> {
        let Some(given) = step.ints(name) else { return Ok(default) };
        let found = given.get(place).and_then(|n| usize::try_from(*n).ok()).filter(|n| *n < 1 << 24);
        found.ok_or_else(|| format!("`{name}` is not understood"))
    };
    let (mut begin, mut end) = (Vec::new(), Vec::new());
    for (axis, ((before, after), taps)) in input.iter().zip(output).zip(kernel).enumerate() {
        let (stride, dilation) = (list("strides", axis, 1)?, list("dilations", axis, 1)?);
        let reach = taps.saturating_sub(1).checked_mul(dilation).and_then(|n| n.checked_add(1));
        let whole = before.saturating_sub(1).checked_mul(stride).and_then(|n| n.checked_add(reach?));
        let whole = whole.and_then(|n| n.checked_add(list("output_padding", axis, 0).ok()?));
        let all = match mode {
            b"VALID" => 0,
            _ => whole.and_then(|n| n.checked_sub(*after)).ok_or("an output that is larger than its windows")?,
        };
        let (small, large) = (all / 2, all - all / 2);
        let is_upper = mode == b"SAME_UPPER";
        begin.push(if is_upper { small } else { large });
        end.push(if is_upper { large } else { small });
    }
    let mut node: NodeProto = step.node.clone();
    node.attribute.retain(|a| !matches!(a.name(), "auto_pad" | "output_shape" | "pads"));
    node.attribute.push(ints("pads", &[begin, end].concat()));
    let whole = Step { node: &node, gradients: step.gradients.clone(), needs: step.needs.clone() };
    conv::transposed(&whole, context)
}
