//! Reductions over axes. Sums, and norms that are sums, take a channel that is zero as they take one that is gone; a
//! mean does once it is rescaled; everything else locks what it reduces. The other axes pass through.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__ReduceSum.html> and the pages beside it. The axes are an attribute before
//! operator set 13 (ReduceSum) or 18 (the others) and an input since; none given means all of them, unless
//! `noop_with_empty_axes`.

use super::arithmetic::extreme;
use super::elementwise::align;
use super::{Change, Edit, Integers, NodeView, Refusal, Refused, Rule, Signature, Term, normalise_axis};
use crate::axes::{Extent, Symbols};

/// A reduction.
pub(super) enum Reduce {
    /// Exact over axes that shrink, and not evaluated on shapes: sums of squares, norms, logarithms of sums.
    Additive,
    /// The sum.
    Sum,
    /// The mean: exact after multiplying with kept / original.
    Mean,
    /// The product.
    Product,
    /// The largest entry.
    Max,
    /// The smallest entry.
    Min,
    /// Anything else over locked axes.
    Locking,
}

impl Rule for Reduce {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let axes = axes(node)?;
        let locks = !matches!(self, Reduce::Additive | Reduce::Sum | Reduce::Mean);
        reduction(node, &axes, locks.then_some("a reduction that is no sum runs over it"))
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        if !matches!(self, Reduce::Mean) {
            return Ok(Vec::new());
        }
        let mut factor = 1.0;
        for axis in axes(before)? {
            // Symbolic extents do not shrink.
            if let (Some(old), Some(new)) = (before.extent(0, axis)?.value(), change.after.extent(0, axis)?.value()) {
                factor *= new as f64 / old as f64;
            }
        }
        Ok(if factor == 1.0 { Vec::new() } else { vec![Edit::Scale(0, factor)] })
    }

    fn evaluate(&self, node: &NodeView) -> Option<Vec<Option<Integers>>> {
        let input = node.integers(0).filter(|i| i.dims.len() <= 1)?;
        // A vector whose axis is left alone.
        if axes(node).ok()?.len() != input.dims.len() {
            return Some(vec![Some(input.clone())]);
        }
        let entries: Option<Vec<&Extent>> = input.values.iter().map(Option::as_ref).collect();
        let value = entries.and_then(|entries| node.symbolic(|symbols| self.compute(symbols, &entries)));
        let keep = node.int("keepdims", 1) != 0;
        Some(vec![Some(Integers {
            dims: if keep { vec![1; input.dims.len()] } else { Vec::new() },
            values: vec![value],
        })])
    }
}

impl Reduce {
    fn compute(&self, symbols: &mut Symbols, entries: &[&Extent]) -> Option<Extent> {
        match self {
            Reduce::Sum => Some(entries.iter().fold(Extent::known(0), |sum, e| symbols.plus(&sum, e))),
            Reduce::Product => Some(entries.iter().fold(Extent::one(), |product, e| symbols.times(&product, e))),
            Reduce::Max => extreme(symbols, entries, true),
            Reduce::Min => extreme(symbols, entries, false),
            Reduce::Additive | Reduce::Mean | Reduce::Locking => None,
        }
    }
}

/// ArgMax, ArgMin: the index of an entry, which means nothing once entries before it are gone.
pub(super) struct ArgExtreme;

impl Rule for ArgExtreme {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let axis = node.axis("axis", 0, node.rank(0)?)?;
        reduction(node, &[axis], Some("entries along it are counted"))
    }
}

/// The axes that a call reduces, counted from the front, sorted.
fn axes(node: &NodeView) -> Refused<Vec<usize>> {
    let rank = node.rank(0)?;
    if node.node.attribute("axes").is_some_and(|axes| axes.ints.is_empty()) {
        return Err(Refusal::new("its list of axes is empty, which some programs take for all and others for none"));
    }
    let given = node.list("axes", 1)?.unwrap_or_default();
    if given.is_empty() {
        return Ok(if node.int("noop_with_empty_axes", 0) != 0 { Vec::new() } else { (0..rank).collect() });
    }
    let mut axes = given.iter().map(|a| normalise_axis(*a, rank)).collect::<Refused<Vec<_>>>()?;
    axes.sort_unstable();
    axes.dedup();
    Ok(axes)
}

/// x without `axes`, or with extent 1 there (`keepdims`); locked there if there is a reason.
fn reduction(node: &NodeView, axes: &[usize], locked: Option<&str>) -> Refused<Signature> {
    let mut signature = Signature { inputs: vec![None; node.input_count()], ..Default::default() };
    let (_, terms) = align(node, &mut signature, &[node.shape(0)?], "A")?;
    let keep = node.int("keepdims", 1) != 0;
    let mut output = Vec::new();
    for (axis, term) in terms.iter().enumerate() {
        if !axes.contains(&axis) {
            output.push(term.clone());
            continue;
        }
        if let Some(why) = locked {
            signature.fix(term, why);
        }
        if keep {
            output.push(Term::One);
        }
    }
    if let Some(input) = signature.inputs.first_mut() {
        *input = Some(terms);
    }
    signature.outputs = vec![Some(output)];
    Ok(signature)
}
