//! Einsum: the equation is the signature. Sums of products over letters, so that every axis may shrink.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Einsum.html>. An ellipsis stands for axes that broadcast; without `->`
//! the output has the ellipsis and then, in order, the letters that occur once. A letter that one operand has twice
//! takes a diagonal; it is locked, because its two axes are one set of channels only if they were before.

use std::collections::BTreeMap;

use super::elementwise::align;
use super::{Extents, NodeView, Part, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;

/// A sum of products as an equation says.
pub(super) struct Einsum;

impl Rule for Einsum {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let equation = Equation::read(node)?;
        let mut signature = Signature::default();
        let (rests, rest_of_output) = align(node, &mut signature, &equation.rest, "Rest")?;
        if !rest_of_output.is_empty() && !equation.output.contains(&Axis::Rest) {
            return Err(Refusal::new("its equation drops an ellipsis"));
        }
        let mut letters: BTreeMap<char, (Term, Extent)> = BTreeMap::new();
        for (letter, extent) in &equation.extents {
            let name =
                if letter.is_uppercase() { format!("{letter}{letter}") } else { letter.to_uppercase().to_string() };
            let term = if equation.is_diagonal(*letter) {
                let why = "the diagonal of an operand is taken";
                signature.fixed(name.to_lowercase(), Some(extent.clone()), why)
            } else {
                signature.free(name, Some(extent.clone()))
            };
            if let Some(part) = equation.part(node, *letter) {
                signature.mark(&term, part);
            }
            letters.insert(*letter, (term, extent.clone()));
        }
        for (slot, (operand, rest)) in equation.operands.iter().zip(&rests).enumerate() {
            let shape = node.shape(slot)?;
            let mut terms = Vec::new();
            for axis in operand {
                match axis {
                    Axis::Rest => terms.extend(rest.iter().cloned()),
                    Axis::Letter(letter) => {
                        let (term, extent) = letters.get(letter).ok_or_else(wrong)?;
                        let own = shape.get(terms.len()).ok_or_else(wrong)?;
                        terms.push(if own.is_one() && !extent.is_one() { Term::One } else { term.clone() });
                    }
                }
            }
            signature.inputs.push(Some(terms));
        }
        let mut output = Vec::new();
        for axis in &equation.output {
            match axis {
                Axis::Rest => output.extend(rest_of_output.iter().cloned()),
                Axis::Letter(letter) => output.push(letters.get(letter).ok_or_else(wrong)?.0.clone()),
            }
        }
        signature.outputs = vec![Some(output)];
        Ok(signature)
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        let equation = Equation::read(node).ok()?;
        if equation.operands.len() < 2 {
            return Some(Extent::known(0));
        }
        let summed = equation.extents.iter().filter(|(l, _)| !equation.output.contains(&Axis::Letter(**l)));
        Extent::product(outputs.first()?.as_ref()?.iter().chain(summed.map(|(_, extent)| extent)))
    }
}

/// One axis of an operand as the equation spells it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Axis {
    /// The ellipsis: any number of axes.
    Rest,
    Letter(char),
}

struct Equation<'a> {
    operands: Vec<Vec<Axis>>,
    output: Vec<Axis>,
    /// The extents that each operand's ellipsis stands for.
    rest: Vec<&'a Extents>,
    /// The extent of each letter: the one that is not 1, if there is one.
    extents: BTreeMap<char, Extent>,
}

fn wrong() -> Refusal {
    Refusal::new("its equation does not fit its operands")
}

impl<'a> Equation<'a> {
    fn read(node: &'a NodeView) -> Refused<Self> {
        let text = node.string("equation", "");
        let (left, right) = match text.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (text.as_str(), None),
        };
        let operands = left.split(',').map(axes).collect::<Refused<Vec<_>>>()?;
        if operands.len() != node.input_count() {
            return Err(wrong());
        }
        let mut equation = Equation { operands, output: Vec::new(), rest: Vec::new(), extents: BTreeMap::new() };
        for slot in 0..equation.operands.len() {
            equation.measure(slot, node.shape(slot)?)?;
        }
        equation.output = match right {
            Some(right) => axes(right)?,
            None => equation.implicit_output(),
        };
        let known = |axis: &Axis| matches!(axis, Axis::Letter(l) if !equation.extents.contains_key(l));
        let repeated = |(i, axis): (usize, &Axis)| equation.output.iter().take(i).any(|a| a == axis);
        if equation.output.iter().any(known) || equation.output.iter().enumerate().any(repeated) {
            return Err(wrong());
        }
        Ok(equation)
    }

    /// Learns the extents of letters and ellipsis from one operand.
    fn measure(&mut self, slot: usize, shape: &'a Extents) -> Refused<()> {
        let operand = self.operands.get(slot).ok_or_else(wrong)?;
        let letters = operand.iter().filter(|a| **a != Axis::Rest).count();
        let has_rest = operand.contains(&Axis::Rest);
        let rest = shape.len().checked_sub(letters).filter(|rest| has_rest || *rest == 0).ok_or_else(wrong)?;
        let mut at = 0;
        let mut own: &Extents = &[];
        for axis in operand {
            match axis {
                Axis::Rest => {
                    own = shape.get(at..at + rest).ok_or_else(wrong)?;
                    at += rest;
                }
                Axis::Letter(letter) => {
                    let extent = shape.get(at).ok_or_else(wrong)?;
                    let known = self.extents.entry(*letter).or_insert_with(|| extent.clone());
                    if known.is_one() {
                        *known = extent.clone();
                    } else if known != extent && !extent.is_one() {
                        return Err(Refusal::new(format!("axes called `{letter}` are not known to be equally long")));
                    }
                    at += 1;
                }
            }
        }
        self.rest.push(own);
        Ok(())
    }

    fn implicit_output(&self) -> Vec<Axis> {
        let all = || self.operands.iter().flatten();
        let rest = all().any(|a| *a == Axis::Rest).then_some(Axis::Rest);
        let once = self.extents.keys().map(|l| Axis::Letter(*l)).filter(|l| all().filter(|a| *a == l).count() == 1);
        rest.into_iter().chain(once).collect()
    }

    /// What a letter is where two activations are multiplied: a batch axis of both, or not.
    fn part(&self, node: &NodeView, letter: char) -> Option<Part> {
        if self.operands.len() != 2 || (0..2).any(|slot| node.constant(slot).is_some()) {
            return None;
        }
        let has = |axes: &Vec<Axis>| axes.contains(&Axis::Letter(letter));
        let is_batch = self.operands.iter().all(has) && has(&self.output);
        Some(if is_batch { Part::Heads } else { Part::HeadDimensions })
    }

    fn is_diagonal(&self, letter: char) -> bool {
        self.operands.iter().any(|o| o.iter().filter(|a| **a == Axis::Letter(letter)).count() > 1)
    }
}

/// One operand of an equation.
fn axes(text: &str) -> Refused<Vec<Axis>> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let text = text.replacen("...", ".", 1);
    text.chars()
        .map(|c| match c {
            '.' => Ok(Axis::Rest),
            c if c.is_ascii_alphabetic() => Ok(Axis::Letter(c)),
            c => Err(Refusal::new(format!("its equation has a `{c}`"))),
        })
        .collect::<Refused<Vec<_>>>()
        .and_then(|axes| if axes.iter().filter(|a| **a == Axis::Rest).count() > 1 { Err(wrong()) } else { Ok(axes) })
}
