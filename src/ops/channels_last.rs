//! Operators on pictures whose channels stand last: [n, spatial…, C]. They are described by the rule of the operator with
//! channels first, on a view of the node with the axes in that order.
//!
//! Spec: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>: NhwcConv, NhwcMaxPool and what has
//! an attribute `channels_last`. Kernels of NhwcConv stand channels last or first, depending on who wrote the file; where
//! their shape does not tell, the input's channels are locked.

use super::conv::Conv;
use super::fused::FusedConv;
use super::pool::{GlobalPool, Pool};
use super::quantized::{Form, QuantizedConv};
use super::{Change, Edit, InputView, NodeView, Refusal, Refused, Rule, Signature};
use crate::axes::Extent;

/// A rule applied to pictures with channels last.
pub(super) struct ChannelsLast {
    /// The rule of the operator with channels first.
    pub(super) rule: &'static dyn Rule,
    /// The input slots of pictures; all outputs are some.
    pub(super) pictures: &'static [usize],
    /// The slot of a kernel that may stand channels last.
    pub(super) kernel: Option<usize>,
    /// The attribute that says whether channels stand last, and its default; without one they do.
    pub(super) attribute: Option<(&'static str, i64)>,
}

/// NhwcConv.
pub(super) static NHWC_CONV: ChannelsLast =
    ChannelsLast { rule: &Conv, pictures: &[0], kernel: Some(1), attribute: None };

/// NhwcFusedConv: slot 3 is added to the result.
pub(super) static NHWC_FUSED_CONV: ChannelsLast =
    ChannelsLast { rule: &FusedConv, pictures: &[0, 3], kernel: Some(1), attribute: None };

/// NhwcMaxPool.
pub(super) static NHWC_MAX_POOL: ChannelsLast =
    ChannelsLast { rule: &Pool, pictures: &[0], kernel: None, attribute: None };

const LAST: Option<(&str, i64)> = Some(("channels_last", 0));

/// QLinearAveragePool.
pub(super) static AVERAGE_POOL: ChannelsLast =
    ChannelsLast { rule: &Pool, pictures: &[0], kernel: None, attribute: LAST };

/// QLinearGlobalAveragePool.
pub(super) static GLOBAL_AVERAGE_POOL: ChannelsLast =
    ChannelsLast { rule: &GlobalPool, pictures: &[0], kernel: None, attribute: LAST };

/// QLinearConv of com.microsoft, whose kernels stand channels first.
pub(super) static QUANTIZED_CONV: ChannelsLast =
    ChannelsLast { rule: &QuantizedConv(Form::Linear), pictures: &[0], kernel: None, attribute: LAST };

impl Rule for ChannelsLast {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        if !self.applies(node) {
            return self.rule.signature(node);
        }
        let turned = self.turned(node)?;
        let mut signature = self.rule.signature(&self.first(node, &turned))?;
        if let Some(slot) = self.kernel.filter(|slot| !turned.contains(slot))
            && matches!(self.kernel_stands(node, slot)?, (true, true))
        {
            let contracted = signature.inputs.get(slot).cloned().flatten().and_then(|kernel| kernel.get(1).cloned());
            if let Some(term) = contracted {
                signature.fix(&term, "the kernel's shape does not tell which of its axes it is");
            }
        }
        for slot in &turned {
            if let Some(Some(terms)) = signature.inputs.get_mut(*slot).filter(|_| rank_of(node, *slot) > 2) {
                to_last(terms);
            }
        }
        for terms in signature.outputs.iter_mut().flatten() {
            to_last(terms);
        }
        Ok(signature)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        if !self.applies(before) {
            return self.rule.patch(before, change);
        }
        // What the rules of pictures read of a change is the node after it.
        let turned = self.turned(before)?;
        let (before, after) = (self.first(before, &turned), self.first(change.after, &turned));
        self.rule.patch(&before, &Change { after: &after, ..*change })
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        if !self.applies(node) {
            return self.rule.macs(node, outputs);
        }
        let turned = self.turned(node).ok()?;
        self.rule.macs(&self.first(node, &turned), outputs)
    }
}

impl ChannelsLast {
    fn applies(&self, node: &NodeView) -> bool {
        self.attribute.is_none_or(|(name, default)| node.int(name, default) != 0)
    }

    /// The slots with channels last: the pictures, and the kernel if its shape says so.
    fn turned(&self, node: &NodeView) -> Refused<Vec<usize>> {
        let mut turned = self.pictures.to_vec();
        if let Some(slot) = self.kernel {
            match self.kernel_stands(node, slot)? {
                (true, _) => {}
                (false, true) => turned.push(slot),
                (false, false) => return Err(Refusal::new("its kernel does not fit its input")),
            }
        }
        Ok(turned)
    }

    /// Whether the kernel's channels may stand first, and last.
    fn kernel_stands(&self, node: &NodeView, slot: usize) -> Refused<(bool, bool)> {
        let (picture, kernel) = (node.shape(0)?, node.shape(slot)?);
        let channels = picture.last().and_then(|c| c.divided_by(&Extent::known(node.int("group", 1))));
        let channels = channels.ok_or_else(|| Refusal::new("its channels do not fall into groups"))?;
        let windows = |axes: Option<&[Extent]>| {
            let axes = axes.unwrap_or_default().iter().map(Extent::value);
            node.ints("kernel_shape").is_none_or(|given| axes.eq(given.iter().map(|k| Some(*k))))
        };
        let first = kernel.get(1) == Some(&channels) && windows(kernel.get(2..));
        let last = kernel.last() == Some(&channels) && windows(kernel.get(1..kernel.len().saturating_sub(1)));
        Ok((first, last))
    }

    /// The node with the channels of its pictures first.
    fn first<'a>(&self, node: &NodeView<'a>, turned: &[usize]) -> NodeView<'a> {
        let inputs = node.inputs.iter().enumerate().map(|(slot, input)| {
            let mut input: Option<InputView<'a>> = input.clone();
            if let Some(input) = input.as_mut().filter(|_| turned.contains(&slot)) {
                input.axes = None;
                if let Some(shape) = input.shape.as_mut().filter(|shape| shape.len() > 2) {
                    let channels = shape.remove(shape.len() - 1);
                    shape.insert(1, channels);
                }
            }
            input
        });
        let inputs = inputs.collect();
        NodeView { node: node.node, inputs, outputs: node.outputs, symbols: node.symbols, space: node.space }
    }
}

fn rank_of(node: &NodeView, slot: usize) -> usize {
    node.rank(slot).unwrap_or(0)
}

/// Moves the channels of a picture behind its spatial axes.
fn to_last<T>(axes: &mut Vec<T>) {
    if axes.len() > 2 {
        let channels = axes.remove(1);
        axes.push(channels);
    }
}
