//! If, Loop and Scan: what goes into a body and what comes out of it.
//!
//! Specs: <https://onnx.ai/onnx/operators/onnx__If.html>, <https://onnx.ai/onnx/operators/onnx__Loop.html>,
//! <https://onnx.ai/onnx/operators/onnx__Scan.html>. Scan before operator set 9 has a batch axis and is refused.
//!
//! A tensor that both branches return, or that a body takes and returns, is one tensor: its axes are those of both. Masks
//! then agree too, whichever branch runs and however often a body does. An axis whose extents differ is locked on both
//! sides; a loop may grow an axis, a branch may have another one. What a scan iterates over is locked.

use super::{NodeView, Refusal, Refused, Rule, Signature, Term, normalise_axis};
use crate::axes::Extent;
use crate::graph::Passage;

const GROWS: &str = "its extent changes from one iteration to the next";
const ITERATION: &str = "a body runs over it";

/// Two branches, one of which runs.
pub(super) struct If;

impl Rule for If {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let count = node.outputs;
        if node.node.passage != Passage::Join || node.node.returned.len() != 2 * count {
            return Err(Refusal::new("its branches cannot be followed"));
        }
        let first = node.node.returned.start;
        let is_then_first =
            node.node.proto.attribute.iter().find(|a| a.g.is_some()).map(|a| a.name()) == Some("then_branch");
        let taken = match (first, node.known_integers(0).as_deref()) {
            (1, Some([condition])) => Some(if (*condition != 0) == is_then_first { 0 } else { 1 }),
            (1, _) => None,
            _ => return Err(Refusal::new("it has no condition, or several")),
        };
        let mut page = Page::new(node.input_count());
        for index in 0..count {
            let slots = [first + index, first + count + index];
            let output = match taken {
                Some(branch) => page.taken(node, [slots[branch], slots[1 - branch]], index),
                None => page.joined(node, slots, index, "the branches return different extents"),
            };
            page.signature.outputs.push(output);
        }
        Ok(page.signature)
    }
}

/// True if every body of such a node takes no inputs and returns just the node's outputs, in their order, so that one
/// can be left out everywhere at once.
pub fn returns_by_position(domain: &str, op_type: &str) -> bool {
    matches!(domain, "" | "ai.onnx") && op_type == "If"
}

/// A body that runs until a condition fails, with states that it hands on.
pub(super) struct Loop;

impl Rule for Loop {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let given = node.node.proto.input.len();
        let states = given.checked_sub(2).ok_or_else(|| Refusal::new("it has less than two inputs"))?;
        let mut page = Page::new(node.input_count());
        match node.node.passage {
            Passage::Entry if node.outputs == given => {
                page.signature.outputs = vec![None, None];
                for slot in 2..given {
                    let state = page.tensor(node, slot, &format!("C{slot}_"));
                    page.signature.outputs.push(state);
                }
                Ok(page.signature)
            }
            Passage::Exit => {
                let returned = node.node.returned.clone();
                let scanned = node.outputs.checked_sub(states);
                let scanned = scanned.filter(|n| returned.start == given && returned.len() == 1 + states + n);
                let scanned = scanned.ok_or_else(mismatch)?;
                for index in 0..states {
                    page.state(node, 2 + index, returned.start + 1 + index, index);
                }
                let trips = node.fresh("trips");
                for index in 0..scanned {
                    let slot = returned.start + 1 + states + index;
                    page.collected(node, slot, 0, Some(trips.clone()), states + index)?;
                }
                (0..states).for_each(|index| page.unseen(node, returned.end + 2 + index));
                Ok(page.signature)
            }
            _ => Err(mismatch()),
        }
    }
}

/// A body that runs over an axis, with states that it hands on.
pub(super) struct Scan;

impl Rule for Scan {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        if node.opset() < 9 {
            return Err(Refusal::new("Scan before operator set 9 has a batch axis, which is not followed"));
        }
        let given = node.node.proto.input.len();
        let scanned = usize::try_from(node.int("num_scan_inputs", 0)).unwrap_or(0);
        let states = given.checked_sub(scanned).filter(|_| scanned > 0);
        let states = states.ok_or_else(|| Refusal::new("it has fewer inputs than it scans"))?;
        let mut page = Page::new(node.input_count());
        match node.node.passage {
            Passage::Entry if node.outputs == given => {
                for slot in 0..states {
                    let state = page.tensor(node, slot, &format!("C{slot}_"));
                    page.signature.outputs.push(state);
                }
                for (number, slot) in (states..given).enumerate() {
                    let mut terms = page.tensor(node, slot, &format!("C{slot}_"));
                    if let Some(terms) = &mut terms {
                        let axis = axis(node, "scan_input_axes", number, terms.len())?;
                        page.signature.fix(&terms.remove(axis), ITERATION);
                    }
                    page.signature.outputs.push(terms);
                }
                Ok(page.signature)
            }
            Passage::Exit => {
                let returned = node.node.returned.clone();
                let collected = node.outputs.checked_sub(states);
                let collected = collected.filter(|n| returned.start == given && returned.len() == states + n);
                let collected = collected.ok_or_else(mismatch)?;
                for index in 0..states {
                    page.state(node, index, returned.start + index, index);
                }
                let own = returned.end;
                let length = match node.shape(own + states) {
                    Ok(shape) => shape.get(axis(node, "scan_input_axes", 0, shape.len())?).cloned(),
                    Err(_) => None,
                };
                for index in 0..collected {
                    let slot = returned.start + states + index;
                    let rank = node.rank(slot).map_or(1, |rank| rank + 1);
                    let axis = axis(node, "scan_output_axes", index, rank)?;
                    page.collected(node, slot, axis, length.clone(), states + index)?;
                }
                (0..given).for_each(|slot| page.unseen(node, own + slot));
                (states..given).for_each(|slot| page.unseen(node, slot));
                Ok(page.signature)
            }
            _ => Err(mismatch()),
        }
    }
}

fn mismatch() -> Refusal {
    Refusal::new("its body does not fit its inputs and outputs, or cannot be followed")
}

/// Entry `number` of a list of axes that may be left out.
fn axis(node: &NodeView, name: &str, number: usize, rank: usize) -> Refused<usize> {
    normalise_axis(node.ints(name).and_then(|axes| axes.get(number)).copied().unwrap_or(0), rank)
}

/// A signature on the way.
struct Page {
    signature: Signature,
}

impl Page {
    fn new(inputs: usize) -> Self {
        Self { signature: Signature { inputs: vec![None; inputs], ..Default::default() } }
    }

    /// Describes one input by letters of its own; `None` if its rank is not known.
    fn tensor(&mut self, node: &NodeView, slot: usize, letters: &str) -> Option<Vec<Term>> {
        let rank = node.rank(slot).ok()?;
        let terms: Vec<Term> = (0..rank).map(|axis| self.signature.free(format!("{letters}{axis}"), None)).collect();
        *self.signature.inputs.get_mut(slot)? = Some(terms.clone());
        Some(terms)
    }

    /// Describes an input that is nothing to this node, so that nothing is locked by it.
    fn unseen(&mut self, node: &NodeView, slot: usize) {
        self.tensor(node, slot, &format!("U{slot}_"));
    }

    /// Describes an input that becomes the output and one that could have, which stays like it where it was like it.
    fn taken(&mut self, node: &NodeView, slots: [usize; 2], index: usize) -> Option<Vec<Term>> {
        let output = self.tensor(node, slots[0], &format!("C{index}_"))?;
        let (Ok(taken), Ok(other)) = (node.shape(slots[0]), node.shape(slots[1])) else { return Some(output) };
        let like = |(axis, extent): (usize, &Extent)| {
            let same = taken.len() == other.len() && taken.get(axis) == Some(extent);
            output.get(axis).filter(|_| same).cloned()
        };
        let like: Vec<Option<Term>> = other.iter().enumerate().map(like).collect();
        let letter = |(axis, term): (usize, Option<Term>)| {
            term.unwrap_or_else(|| self.signature.free(format!("O{index}_{axis}"), None))
        };
        let terms = like.into_iter().enumerate().map(letter).collect();
        *self.signature.inputs.get_mut(slots[1])? = Some(terms);
        Some(output)
    }

    /// Describes two inputs of which one becomes the output.
    fn joined(&mut self, node: &NodeView, slots: [usize; 2], index: usize, why: &str) -> Option<Vec<Term>> {
        let (a, b) = match (node.shape(slots[0]), node.shape(slots[1])) {
            (Ok(a), Ok(b)) if a.len() == b.len() => (a, b),
            (a, b) => {
                let why = if a.is_ok() && b.is_ok() {
                    "tensors of different ranks become one"
                } else {
                    "a rank is not known"
                };
                for (slot, shape) in slots.into_iter().zip([a, b]) {
                    let letter = |axis| self.signature.fixed(format!("r{slot}_{axis}"), None, why);
                    let terms = shape.ok().map(|shape| (0..shape.len()).map(letter).collect());
                    *self.signature.inputs.get_mut(slot)? = terms;
                }
                return None;
            }
        };
        let (mut first, mut second, mut output) = (Vec::new(), Vec::new(), Vec::new());
        for (axis, (x, y)) in a.iter().zip(b).enumerate() {
            if x == y && x.value() != Some(0) {
                let letter = self.signature.free(format!("C{index}_{axis}"), None);
                first.push(letter.clone());
                second.push(letter.clone());
                output.push(letter);
            } else {
                first.push(self.signature.fixed(format!("a{index}_{axis}"), None, why));
                second.push(self.signature.fixed(format!("b{index}_{axis}"), None, why));
                output.push(self.signature.fixed(format!("c{index}_{axis}"), Some(node.fresh("joined")), why));
            }
        }
        *self.signature.inputs.get_mut(slots[0])? = Some(first);
        *self.signature.inputs.get_mut(slots[1])? = Some(second);
        Some(output)
    }

    /// A state: what the body takes, what it returns, and the output.
    fn state(&mut self, node: &NodeView, taken: usize, returned: usize, index: usize) {
        let output = self.joined(node, [taken, returned], index, GROWS);
        match (&output, node.shape(taken), node.shape(returned)) {
            (Some(_), Ok(before), Ok(after)) => {
                let differing = before.iter().zip(after).enumerate().filter(|(_, (x, y))| x != y);
                self.signature.changing.extend(differing.map(|(axis, _)| (taken, Some(axis))));
            }
            (_, Ok(_), _) => self.signature.changing.push((taken, None)),
            _ => {}
        }
        self.signature.outputs.push(output);
    }

    /// What a body returns each time, stacked along `axis`.
    fn collected(
        &mut self,
        node: &NodeView,
        slot: usize,
        axis: usize,
        length: Option<Extent>,
        index: usize,
    ) -> Refused<()> {
        let mut output = self.tensor(node, slot, &format!("C{index}_"));
        if let Some(terms) = &mut output {
            let length = length.unwrap_or_else(|| node.fresh("length"));
            let letter = self.signature.fixed(format!("t{index}"), Some(length), ITERATION);
            if axis > terms.len() {
                return Err(mismatch());
            }
            terms.insert(axis, letter);
        }
        self.signature.outputs.push(output);
        Ok(())
    }
}
