//! Bodies that run repeatedly: what a body is given first need not have the shape of what it is given next.
//!
//! The body's inputs are at first taken to be shaped like what the node is given. Where the body turns out to return
//! another extent, that axis of the input gets an extent of its own, locked, and everything is coupled anew.
//! Invariants: what is known to change only grows, and after a few rounds bodies are not followed at all, so that this
//! ends.

use std::collections::BTreeSet;

use super::Coupling;
use crate::axes::Expr;
use crate::graph::{Node, ValueId};
use crate::ops::Signature;

/// How often a model is coupled before its bodies are given up.
const MAX_ROUNDS: usize = 8;

/// The body inputs that change between iterations, by axis; `None` = even the rank does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changing {
    known: BTreeSet<(ValueId, Option<usize>)>,
    found: BTreeSet<(ValueId, Option<usize>)>,
    is_endless: bool,
}

impl Changing {
    /// True once the bodies are given up.
    pub(super) fn is_endless(&self) -> bool {
        self.is_endless
    }
}

/// Couples until nothing new is found to change.
pub(super) fn settle(couple: impl Fn(Changing) -> Coupling) -> Coupling {
    let mut changing = Changing::default();
    for _ in 0..MAX_ROUNDS {
        let coupling = couple(changing.clone());
        let found = coupling.changing.found.clone();
        let before = changing.known.len();
        changing.known.extend(found);
        if changing.known.len() == before {
            return coupling;
        }
    }
    couple(Changing { is_endless: true, ..changing })
}

impl Coupling {
    /// The axes of a new value, those that change between iterations replaced.
    pub(super) fn with_changing(&mut self, value: ValueId, mut axes: Vec<Expr>) -> Option<Vec<Expr>> {
        if self.changing.known.is_empty() {
            return Some(axes);
        }
        if self.changing.known.contains(&(value, None)) {
            for axis in axes {
                self.lock_axis(axis, None, Some(value), "its rank changes from one iteration to the next");
            }
            return None;
        }
        for (index, axis) in axes.iter_mut().enumerate() {
            if self.changing.known.contains(&(value, Some(index))) {
                let why = "its extent changes from one iteration to the next";
                self.lock_axis(*axis, None, Some(value), why);
                let extent = self.symbols.borrow_mut().fresh("iteration");
                let lock = self.reason(None, Some(value), why);
                *axis = self.space.locked_atom(extent, lock);
            }
        }
        Some(axes)
    }

    /// Notes what a signature says about inputs that do not come back as they were.
    pub(super) fn note_changing(&mut self, node: &Node, signature: &Signature) {
        for (slot, axis) in &signature.changing {
            if let Some(value) = node.inputs.get(*slot).copied().flatten() {
                self.changing.found.insert((value, *axis));
            }
        }
    }
}
