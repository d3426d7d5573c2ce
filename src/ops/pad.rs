//! Pad: [.., C, ..] -> [.., B+C+A, ..], where B and A are what is padded; negative pads crop.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Pad.html>. `pads` is an attribute below operator set 11 (`paddings` in
//! set 1), an input from there on; set 18 adds `axes`. Only padding with a constant has channels of its own: reflected,
//! repeated or wrapped ones depend on others, so those axes are locked.

use super::follow::{entries, follow, part, sum, unknown};
use super::slice::below;
use super::{Change, Edit, NodeView, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;

/// Padding and cropping.
pub(super) struct Pad;

impl Rule for Pad {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let shape = node.shape(0)?;
        let mut signature = Signature::default();
        let mut input = super::follow::letters(&mut signature, "C", shape);
        let mut output = input.clone();
        let is_constant = node.string("mode", "constant") == "constant";
        for (axis, begin, end) in pads(node)? {
            let extent = node.extent(0, axis)?;
            let (Some(from), Some(to)) = (input.get_mut(axis), output.get_mut(axis)) else { continue };
            let numbers = begin.as_ref().and_then(Extent::value).zip(end.as_ref().and_then(Extent::value));
            match (numbers, extent.value()) {
                (Some((0, 0)), _) => {}
                (Some((begin, end)), Some(n)) if is_constant => {
                    let kept = begin.min(0).checked_add(end.min(0)).and_then(|crop| n.checked_add(crop));
                    let kept = kept.filter(|k| *k > 0).ok_or_else(|| Refusal::new("it has an empty tensor"))?;
                    let may_shrink = !node.is_locked(0, axis);
                    let mut piece = |prefix: &str, extent: i64| {
                        let extent = Extent::known(extent);
                        let why = "the padded axis is locked";
                        match may_shrink {
                            true => part(&mut signature, &format!("{prefix}{axis}"), extent),
                            false => signature.fixed(format!("{}{axis}", prefix.to_lowercase()), Some(extent), why),
                        }
                    };
                    let mut whole = |before: i64, centre: &Term, after: i64, names: [&str; 2]| {
                        let before = (before > 0).then(|| piece(names[0], before));
                        let after = (after > 0).then(|| piece(names[1], after));
                        sum(before.into_iter().chain([centre.clone()]).chain(after).collect())
                    };
                    let (crop, pad) = (["X", "Y"], ["B", "E"]);
                    // The axis itself is the centre, unless something is cropped from it.
                    let centre = from.clone();
                    *from = whole(begin.saturating_neg(), &centre, end.saturating_neg(), crop);
                    *to = whole(begin, &centre, end, pad);
                    if kept != n {
                        resize(&mut signature, &centre, kept);
                    }
                }
                _ => {
                    let why = match is_constant {
                        true => "its padding is not known before the model runs",
                        false => "it is padded with copies of its own elements",
                    };
                    let known = numbers.and_then(|(b, e)| b.checked_add(e));
                    let padded = match known {
                        Some(pad) => node.symbolic(|s| s.plus(&extent, &Extent::known(pad))),
                        None => unknown(node, axis),
                    };
                    *from = signature.fixed(format!("a{axis}"), Some(extent), why);
                    *to = signature.fixed(format!("p{axis}"), Some(padded), why);
                }
            }
        }
        signature.inputs = vec![Some(input)];
        signature.outputs = vec![Some(output)];
        Ok(signature)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let pads = pads(before)?;
        let (mut begins, mut ends) = (Vec::new(), Vec::new());
        for (axis, begin, end) in &pads {
            let extent = before.extent(0, *axis)?.value();
            let begin = begin.as_ref().and_then(Extent::value);
            let end = end.as_ref().and_then(Extent::value);
            let (read, made) = (change.input_kept.get(&(0, *axis)), change.output_kept.get(&(0, *axis)));
            let (Some(n), Some(b), Some(e)) = (extent, begin, end) else {
                begins.push(begin);
                ends.push(end);
                continue;
            };
            // Padded parts are counted in the output, cropped ones in the input.
            let made_extent = n.saturating_add(b).saturating_add(e);
            let in_made = |from: i64, to: i64| made.map_or(to - from, |k| below(k, to) - below(k, from));
            let in_read = |from: i64, to: i64| read.map_or(to - from, |k| below(k, to) - below(k, from));
            begins.push(Some(if b > 0 { in_made(0, b) } else { -in_read(0, b.saturating_neg()) }));
            ends.push(Some(if e > 0 {
                in_made(made_extent.saturating_sub(e), made_extent)
            } else {
                -in_read(n.saturating_add(e), n)
            }));
        }
        begins.extend(ends);
        let name = if before.ints("paddings").is_some() { "paddings" } else { "pads" };
        if begins.iter().all(Option::is_none) {
            return Ok(Vec::new());
        }
        follow(change.after, name, 1, &begins)
    }
}

/// (axis, begin, end) for every axis that the pads name; `None` = computed when the model runs.
#[allow(clippy::type_complexity)]
fn pads(node: &NodeView) -> Refused<Vec<(usize, Option<Extent>, Option<Extent>)>> {
    let rank = node.rank(0)?;
    let name = if node.ints("paddings").is_some() { "paddings" } else { "pads" };
    let every = || (0..rank).filter_map(|a| i64::try_from(a).ok()).collect::<Vec<i64>>();
    let (axes, computed) = match node.list("axes", 3) {
        Ok(axes) => (axes.unwrap_or_else(every), false),
        // Without knowing which axes are padded, any of them may be.
        Err(_) => (every(), true),
    };
    let nothing = vec![None; axes.len() * 2];
    let list = match entries(node, name, 1) {
        _ if computed => nothing,
        Err(_) => nothing,
        Ok(list) => list.ok_or_else(|| Refusal::new("`pads` is missing"))?,
    };
    if list.len() != axes.len() * 2 {
        return Err(Refusal::new(format!("it has {} pads for {} axes", list.len(), axes.len())));
    }
    let (begins, ends) = list.split_at(axes.len());
    let mut pads: Vec<(usize, Option<Extent>, Option<Extent>)> = Vec::with_capacity(axes.len());
    for ((axis, begin), end) in axes.iter().zip(begins).zip(ends) {
        let axis = super::normalise_axis(*axis, rank)?;
        if pads.iter().any(|p| p.0 == axis) {
            return Err(Refusal::new(format!("axis {axis} is padded twice")));
        }
        pads.push((axis, begin.clone(), end.clone()));
    }
    Ok(pads)
}

/// Gives a letter another extent.
fn resize(signature: &mut Signature, letter: &Term, extent: i64) {
    if let Term::Letter(index) = letter
        && let Some(letter) = signature.letters.get_mut(*index)
    {
        letter.extent = Some(Extent::known(extent));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::patch;
    use super::*;

    #[test]
    fn pads_shrink_with_their_channels() {
        let model = |n: usize, line: &str| format!("in x [1,{n},8]\n{line}\nout y");
        let run = |line: &str| {
            // Of 2 + 4 + 3 channels made, one, two and two are kept.
            let (read, made): (&[u32], &[u32]) = (&[1, 2], &[1, 3, 4, 6, 8]);
            patch(&model(4, line), &model(2, line), "[1,5,8]", &[((0, 1), read)], &[((0, 1), made)]).unwrap()
        };
        assert_eq!(run("y = Pad(x, {0,2,1,0,3,1})"), [Edit::Constant(1, vec![0, 1, 1, 0, 2, 1])]);
        assert_eq!(run("opset 18\ny = Pad(x, {2,3}, _, {1})"), [Edit::Constant(1, vec![1, 2])]);
        assert_eq!(run("opset 10\ny = Pad(x, pads=[0,2,1,0,3,1])"), [Edit::Ints("pads", vec![0, 1, 1, 0, 2, 1])]);
    }

    #[test]
    fn crops_shrink_with_what_they_cut_off() {
        let model = |n: usize| format!("in x [1,{n}]\ny = Pad(x, {{0,-3,0,1}})\nout y");
        let edits = patch(&model(8), &model(5), "[1,5]", &[((0, 1), &[0, 3, 4, 5, 7])], &[((0, 1), &[0, 1, 2, 4, 5])]);
        assert_eq!(edits, Ok(vec![Edit::Constant(1, vec![0, -1, 0, 1])]));
    }
}
