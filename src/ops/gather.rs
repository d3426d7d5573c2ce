//! Gather: data [.., A, ..], indices [I..] -> [.., I.., ..]; GatherElements.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Gather.html>. Constant indices are runs of neighbours: the axis is cut at
//! the borders of the runs and the output is the runs in the order read. Indices computed when the model runs may pick
//! anything, so they lock the axis (an embedding keeps its words); the other axes pass.

use std::collections::BTreeSet;

use super::follow::{part, sum};
use super::{Change, Edit, Integers, NodeView, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;

/// Picking slices of a tensor by index.
pub(super) struct Gather;

/// Picking elements along one axis.
pub(super) struct GatherElements;

/// The most pieces into which constant indices may cut an axis.
const MAX_PIECES: usize = 128;

impl Rule for Gather {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let shape = node.shape(0)?;
        let axis = node.axis("axis", 0, shape.len())?;
        let extent = node.extent(0, axis)?;
        let mut signature = Signature::default();
        let mut data = super::follow::letters(&mut signature, "A", shape);
        let picked: Vec<Term>;
        let indices;
        match constant_indices(node, &extent)? {
            Some((list, scalar)) => {
                let (whole, read) = pieces(&mut signature, &extent, &list, scalar);
                picked = if scalar { Vec::new() } else { vec![read] };
                if let Some(term) = data.get_mut(axis) {
                    *term = whole;
                }
                indices = None;
            }
            None => {
                let why = match node.known_integers(1).is_some() {
                    true => "it is selected by a table of indices",
                    false => "it is selected by computed indices",
                };
                if let Some(term) = data.get_mut(axis) {
                    *term = signature.fixed(format!("a{axis}"), Some(extent), why);
                }
                // A table of indices is never sliced itself; an index tensor's own axes pass through.
                picked = match (node.constant(1).is_some(), node.shape(1)?) {
                    (true, shape) => {
                        let fix = |(i, e): (usize, &Extent)| signature.fixed(format!("i{i}"), Some(e.clone()), why);
                        shape.iter().enumerate().map(fix).collect()
                    }
                    (false, shape) => super::follow::letters(&mut signature, "I", shape),
                };
                indices = Some(picked.clone());
            }
        }
        let mut output: Vec<Term> = data.iter().take(axis).cloned().collect();
        output.extend(picked);
        output.extend(data.iter().skip(axis + 1).cloned());
        signature.inputs = vec![Some(data), indices];
        signature.outputs = vec![Some(output)];
        Ok(signature)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let axis = before.axis("axis", 0, before.rank(0)?)?;
        let Some(kept) = change.input_kept.get(&(0, axis)) else { return Ok(Vec::new()) };
        let Some((old, scalar)) = constant_indices(before, &before.extent(0, axis)?)? else {
            return Err(Refusal::new("its indices are not known"));
        };
        let position = |index: &i64| {
            let index = u32::try_from(*index).ok()?;
            kept.binary_search(&index).ok().and_then(|p| i64::try_from(p).ok())
        };
        let new: Vec<i64> = old.iter().filter_map(position).collect();
        if scalar && new.is_empty() {
            return Err(Refusal::new("the index that it picks is gone"));
        }
        // Spellings such as -1 stay where they still mean the same.
        let extent = i64::try_from(kept.len()).unwrap_or(i64::MAX);
        let spelled = change.after.known_integers(1);
        let meaning = spelled.map(|l| l.iter().map(|i| if *i < 0 { i.saturating_add(extent) } else { *i }).collect());
        Ok(match new.as_slice() {
            _ if meaning.as_ref() == Some(&new) => Vec::new(),
            [only] if scalar => vec![Edit::Scalar(1, *only)],
            _ => vec![Edit::Constant(1, new)],
        })
    }

    fn evaluate(&self, node: &NodeView) -> Option<Vec<Option<Integers>>> {
        let data = node.integers(0)?;
        let axis = node.axis("axis", 0, data.dims.len()).ok()?;
        let indices = node.integers(1)?;
        let extent = i64::try_from(*data.dims.get(axis)?).ok()?;
        let list: Option<Vec<usize>> = indices
            .known()?
            .into_iter()
            .map(|i| usize::try_from(if i < 0 { i.saturating_add(extent) } else { i }).ok())
            .collect();
        let picked = data.select(axis, &list?)?;
        let mut dims = data.dims.get(..axis)?.to_vec();
        dims.extend(&indices.dims);
        dims.extend(data.dims.get(axis + 1..)?);
        Some(vec![picked.reshaped(dims)])
    }
}

impl Rule for GatherElements {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let (data, indices) = (node.shape(0)?, node.shape(1)?);
        if data.len() != indices.len() {
            return Err(Refusal::new("the ranks of data and indices differ"));
        }
        let axis = node.axis("axis", 0, data.len())?;
        let mut signature = Signature::default();
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for (i, (e, picked)) in data.iter().zip(indices).enumerate() {
            if i != axis && e == picked {
                let letter = signature.free(format!("A{i}"), Some(e.clone()));
                from.push(letter.clone());
                to.push(letter);
            } else {
                let why = "its elements are selected by index";
                from.push(signature.fixed(format!("a{i}"), Some(e.clone()), why));
                to.push(signature.fixed(format!("i{i}"), Some(picked.clone()), why));
            }
        }
        signature.inputs = vec![Some(from), Some(to.clone())];
        signature.outputs = vec![Some(to)];
        Ok(signature)
    }
}

/// Known indices of rank 0 or 1, counted from the front where the extent is known, and whether they are a scalar.
fn constant_indices(node: &NodeView, extent: &Extent) -> Refused<Option<(Vec<i64>, bool)>> {
    let Some(integers) = node.integers(1) else { return Ok(None) };
    let Some(mut list) = integers.known().filter(|_| integers.dims.len() < 2) else { return Ok(None) };
    if let Some(n) = extent.value() {
        for index in &mut list {
            *index = if *index < 0 { index.saturating_add(n) } else { *index };
            if *index < 0 || *index >= n {
                return Err(Refusal::new(format!("an index lies outside an axis of extent {n}")));
            }
        }
    }
    Ok(Some((list, integers.dims.is_empty())))
}

/// The axis as the pieces that the indices cut it into, and the pieces in the order in which they are read.
fn pieces(signature: &mut Signature, extent: &Extent, list: &[i64], scalar: bool) -> (Term, Term) {
    let runs = runs(list);
    let Some((n, borders)) = extent.value().and_then(|n| Some((n, borders(&runs, n)?))) else {
        let why = match scalar {
            true => "one index of it is picked",
            false => "indices that are no few runs of neighbours select it",
        };
        let whole = signature.fixed("a", Some(extent.clone()), why);
        return (whole, signature.fixed("p", Some(Extent::from(list.len())), why));
    };
    let mut parts = Vec::new();
    let ends = borders.iter().skip(1).chain([&n]);
    for (number, (start, end)) in borders.iter().zip(ends).enumerate() {
        parts.push((*start, *end, part(signature, &format!("P{number}"), Extent::known(end - start))));
    }
    let mut read = Vec::new();
    for (first, last) in &runs {
        read.extend(parts.iter().filter(|(start, end, _)| first <= start && end - 1 <= *last).map(|p| p.2.clone()));
    }
    (sum(parts.into_iter().map(|p| p.2).collect()), sum(read))
}

/// Maximal runs of ascending neighbours: (first, last).
fn runs(list: &[i64]) -> Vec<(i64, i64)> {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for index in list {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*index) => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    runs
}

/// Where the axis is cut, starting with 0; `None` if that would shred it or leave nothing that could shrink.
fn borders(runs: &[(i64, i64)], extent: i64) -> Option<BTreeSet<i64>> {
    if runs.is_empty() || runs.len() > MAX_PIECES / 2 {
        return None;
    }
    let ends = runs.iter().flat_map(|(first, last)| [*first, last.saturating_add(1)]);
    let borders: BTreeSet<i64> = ends.chain([0]).filter(|b| *b < extent).collect();
    (borders.len() <= MAX_PIECES).then_some(borders)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::patch;
    use super::*;

    fn run(line: &str, kept: &[u32]) -> Refused<Vec<Edit>> {
        let model = |n: usize| format!("in x [n,{n}]\n{line}\nout y");
        patch(&model(8), &model(kept.len()), "[n,?]", &[((0, 1), kept)], &[])
    }

    #[test]
    fn indices_become_positions_among_the_kept() {
        let edits = run("y = Gather(x, {4,5,6,7,0,1}, axis=1)", &[1, 3, 4, 6]);
        assert_eq!(edits, Ok(vec![Edit::Constant(1, vec![2, 3, 0])]));
        assert_eq!(run("y = Gather(x, {0,1,0,1}, axis=1)", &[1, 2]), Ok(vec![Edit::Constant(1, vec![0, 0])]));
        assert_eq!(run("y = Gather(x, {0,1}, axis=1)", &[0, 1, 5]), Ok(Vec::new()));
        assert_eq!(run("y = Gather(x, {-1}, axis=1)", &[0, 1, 7]), Ok(Vec::new()));
    }

    #[test]
    fn a_scalar_stays_a_scalar() {
        let scalar = |kept: &[u32]| run("s = Shape(w[1,4])\ni = Size(v[5])\ny = Gather(x, i, axis=1)", kept);
        assert_eq!(scalar(&[0, 5, 7]), Ok(vec![Edit::Scalar(1, 1)]));
        assert!(scalar(&[0, 4, 7]).is_err());
    }
}
