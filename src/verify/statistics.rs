//! Statistics: normalisations spelled out in the reference with statistics over what remains.
//!
//! Where the user allows approximations, a normalisation over an axis that gets shorter has mean and variance of the
//! kept entries, which no mask can give. For the nodes named as such, and no others, the reference has the definition
//! of the operator in its place, with sums over kept entries and their number as divisor. So equality is still checked
//! up to that definition, and a wrong slice still shows.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__LayerNormalization.html> and the pages beside it, and
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md> (SkipLayerNormalization). This is the
//! one place of the judge that knows operators; it shares nothing with their rules.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::constants::remaining as remaining_masks;
use super::emit::Emitter;
use super::masked::{Facts, all_names};
use crate::Result;
use crate::engine::ElementType;
use crate::kept::Kept;
use crate::proto::onnx::{ModelProto, NodeProto};

/// A model whose approximated nodes take statistics over what remains.
pub(super) struct Remaining<'m> {
    /// The model, the original itself if nothing is approximated.
    pub(super) model: Cow<'m, ModelProto>,
    /// How many nodes were spelled out.
    pub(super) placed: usize,
    /// Nodes that approximate and cannot be spelled out, in words.
    pub(super) missing: Vec<String>,
}

/// Spells out the nodes whose first outputs are `approximated`.
///
/// # Errors
/// When the kept indices of such an output do not fit its shape.
pub(super) fn over_what_remains<'m>(
    original: &'m ModelProto,
    kept: &Kept,
    facts: &Facts,
    approximated: &BTreeSet<String>,
) -> Result<Remaining<'m>> {
    let mut remaining = Remaining { model: Cow::Borrowed(original), placed: 0, missing: Vec::new() };
    if approximated.is_empty() {
        return Ok(remaining);
    }
    let opset = super::opset(original);
    let Some(mut graph) = remaining.model.to_mut().graph.take() else { return Ok(remaining) };
    let mut emitter = Emitter::new(opset, all_names(&graph));
    let mut found = BTreeSet::new();
    let mut nodes = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        let output = node.output.iter().find(|o| !o.is_empty()).filter(|o| approximated.contains(*o)).cloned();
        let Some(output) = output else {
            nodes.push(node);
            continue;
        };
        let spelled = match (kept.activations.get(&output), facts.get(&output)) {
            (Some(axes), Some((element, extents))) => {
                let masks = remaining_masks(axes, extents).map_err(|e| e.tensor(&output))?;
                Form::of(&node, opset, extents, &masks).map(|form| form.spell(&mut emitter, &node, *element, extents))
            }
            _ => None,
        };
        found.insert(output);
        match spelled {
            Some(()) => {
                remaining.placed += 1;
                nodes.append(&mut emitter.nodes.list);
            }
            None => {
                emitter.nodes.list.clear();
                remaining.missing.push(format!("{} `{}`", node.op_type(), node.name()));
                nodes.push(node);
            }
        }
    }
    // Also those inside nested graphs, which are not looked into.
    remaining.missing.extend(approximated.difference(&found).map(|name| format!("the node that computes `{name}`")));
    graph.node = nodes;
    remaining.model.to_mut().graph = Some(graph);
    Ok(remaining)
}

/// A normalisation as its definition has it: y = (x - mean) / deviation * scale + bias.
struct Form {
    /// The input slots whose sum is normalised.
    summands: &'static [usize],
    /// The slots of scale and bias; those that a node lacks are left out.
    affine: Option<[usize; 2]>,
    /// The shape in which scale and bias broadcast, if not their own.
    affine_shape: Option<Vec<usize>>,
    /// The shape in which it is computed, if not that of x.
    shape: Option<Vec<usize>>,
    /// The axes, of that shape, over which statistics are taken.
    axes: Vec<usize>,
    /// Which entries count, with a shape that broadcasts.
    counts: (Vec<usize>, Vec<bool>),
    /// How many they are, with a shape that broadcasts.
    numbers: (Vec<usize>, Vec<f64>),
    /// What keeps the deviation from being zero: added to the variance, or to its root.
    epsilon: f64,
    epsilon_behind_root: bool,
}

impl Form {
    /// The definition of a node with an output of these extents, of which the masks say what remains; `None` for
    /// operators that are not known here.
    fn of(node: &NodeProto, opset: i64, extents: &[usize], masks: &[Vec<bool>]) -> Option<Self> {
        let rank = i64::try_from(extents.len()).ok()?;
        let from_front = |axis: i64| usize::try_from(if axis < 0 { axis.checked_add(rank)? } else { axis }).ok();
        let attribute = |name: &str| node.attribute.iter().find(|a| a.name() == name);
        let epsilon = |default: f64| attribute("epsilon").map_or(default, |a| f64::from(a.f()));
        let over = |axes: Vec<usize>, summands, affine, epsilon| {
            let counts = outer(&axes, extents, masks)?;
            let number = counts.1.iter().filter(|counts| **counts).count() as f64;
            let numbers = (Vec::new(), vec![number]);
            let (affine_shape, shape, epsilon_behind_root) = (None, None, false);
            Some(Self { summands, affine, affine_shape, shape, axes, counts, numbers, epsilon, epsilon_behind_root })
        };
        match (node.domain(), node.op_type()) {
            ("" | "ai.onnx", "LayerNormalization") => {
                let first = from_front(attribute("axis").map_or(-1, |a| a.i()))?;
                over((first..extents.len()).collect(), &[0], Some([1, 2]), epsilon(1e-5))
            }
            ("com.microsoft", "SkipLayerNormalization") => {
                over(vec![extents.len().checked_sub(1)?], &[0, 1, 4], Some([2, 3]), epsilon(1e-12))
            }
            ("" | "ai.onnx", "InstanceNormalization") => {
                let form = over((2..extents.len()).collect(), &[0], Some([1, 2]), epsilon(1e-5))?;
                let mut shape = vec![1; extents.len()];
                *shape.get_mut(1)? = *extents.get(1)?;
                Some(Self { affine_shape: Some(shape), ..form })
            }
            ("" | "ai.onnx", "MeanVarianceNormalization") => {
                let axes = attribute("axes").map_or(&[0, 2, 3][..], |a| &a.ints);
                let axes = axes.iter().map(|a| from_front(*a)).collect::<Option<Vec<_>>>()?;
                Some(Self { epsilon_behind_root: true, ..over(axes, &[0], None, 1e-9)? })
            }
            ("" | "ai.onnx", "GroupNormalization") => {
                let groups = usize::try_from(attribute("num_groups")?.i()).ok().filter(|groups| *groups > 0)?;
                let (batch, channels) = (*extents.first()?, *extents.get(1)?);
                let (mask, size) = (masks.get(1)?, channels / groups);
                let positions: usize = extents.iter().skip(2).product();
                // A group of which nothing is left has no statistics; its number only must not be zero.
                let kept = mask.chunks(size.max(1)).map(|group| group.iter().filter(|keeps| **keeps).count());
                let numbers = kept.map(|kept| (kept.max(1) * positions) as f64).collect();
                Some(Self {
                    summands: &[0],
                    affine: Some([1, 2]),
                    affine_shape: Some(vec![1, groups, if opset < 21 { 1 } else { size }, 1]),
                    shape: Some(vec![batch, groups, size, positions]),
                    axes: vec![2, 3],
                    counts: (vec![1, groups, size, 1], mask.clone()),
                    numbers: (vec![1, groups, 1, 1], numbers),
                    epsilon: epsilon(1e-5),
                    epsilon_behind_root: false,
                })
            }
            _ => None,
        }
    }

    /// Emits the definition in place of `node`, whose outputs have this element type and these extents.
    fn spell(&self, emit: &mut Emitter, node: &NodeProto, element: ElementType, extents: &[usize]) {
        // Half precision is too coarse for sums of squares; operators compute them in single precision, too.
        let is_double = element == ElementType::Double;
        emit.element = if is_double { ElementType::Double } else { ElementType::Float };
        let input = |slot: usize| node.input.get(slot).filter(|name| !name.is_empty());
        let mut x: Option<String> = None;
        for name in self.summands.iter().filter_map(|slot| input(*slot)) {
            let summand = emit.cast(name, emit.element);
            x = Some(x.map_or(summand.clone(), |x| emit.call("Add", &[&x, &summand])));
        }
        let sum = x.unwrap_or_default();
        let x = self.shape.as_ref().map_or(sum.clone(), |shape| emit.reshape(&sum, shape));
        let counts: Vec<f64> = self.counts.1.iter().map(|counts| f64::from(u8::from(*counts))).collect();
        let counts = emit.numbers(&self.counts.0, &counts);
        let number = emit.numbers(&self.numbers.0, &self.numbers.1);
        let mean_of = |emit: &mut Emitter, values: &str| {
            let counted = emit.call("Mul", &[values, &counts]);
            let sum = emit.sum(&counted, &self.axes);
            emit.call("Div", &[&sum, &number])
        };
        let mean = mean_of(emit, &x);
        let centred = emit.call("Sub", &[&x, &mean]);
        let square = emit.call("Mul", &[&centred, &centred]);
        let variance = mean_of(emit, &square);
        let epsilon = emit.numbers(&[], &[self.epsilon]);
        let deviation = if self.epsilon_behind_root {
            let root = emit.call("Sqrt", &[&variance]);
            emit.call("Add", &[&root, &epsilon])
        } else {
            let sum = emit.call("Add", &[&variance, &epsilon]);
            emit.call("Sqrt", &[&sum])
        };
        let mut y = emit.call("Div", &[&centred, &deviation]);
        for (slot, operator) in self.affine.iter().flatten().zip(["Mul", "Add"]) {
            let Some(name) = input(*slot) else { continue };
            let mut operand = emit.cast(name, emit.element);
            if let Some(shape) = &self.affine_shape {
                operand = emit.reshape(&operand, shape);
            }
            y = emit.call(operator, &[&y, &operand]);
        }
        if self.shape.is_some() {
            y = emit.reshape(&y, extents);
        }
        let one = emit.numbers(&[], &[1.0]);
        let inverse = emit.call("Div", &[&one, &deviation]);
        for (output, value) in node.output.iter().zip([y, mean, inverse, sum]) {
            if !output.is_empty() {
                emit.name(&value, element, output);
            }
        }
    }
}

/// What remains over several axes at once, 1 on the others; `None` for an axis that is not there.
fn outer(axes: &[usize], extents: &[usize], masks: &[Vec<bool>]) -> Option<(Vec<usize>, Vec<bool>)> {
    if axes.iter().any(|axis| *axis >= extents.len()) {
        return None;
    }
    let mut mask = vec![true];
    let mut shape = vec![1; extents.len()];
    for (axis, extent) in shape.iter_mut().enumerate().filter(|(axis, _)| axes.contains(axis)) {
        let own = masks.get(axis)?;
        mask = mask.iter().flat_map(|outer| own.iter().map(move |inner| *outer && *inner)).collect();
        *extent = own.len();
    }
    Some((shape, mask))
}
