//! Applying a signature to a node: letters are bound to axes, axes are unified with terms, outputs are built.
//!
//! Invariants: nothing is changed before the signature is known to fit the ranks; a letter is bound once, by the first
//! axis that is this letter alone, and every further occurrence is unified with it; on a mismatch both sides are
//! locked.

use super::{Coupling, Reading, Role, StoredZero};
use crate::axes::{Expr, Extent};
use crate::graph::{Graph, MAIN, NodeId, ValueId};
use crate::ops::{Refusal, Signature, Term, Zero};

impl Coupling {
    pub(super) fn apply(&mut self, graph: &Graph, id: NodeId, signature: &Signature) -> Result<(), Refusal> {
        let node = graph.node(id);
        let mut described: Vec<(ValueId, &Vec<Term>, Vec<Expr>)> = Vec::new();
        let mut undescribed: Vec<ValueId> = Vec::new();
        for (slot, input) in node.inputs.iter().take(node.input_count).enumerate() {
            let Some(value) = input else { continue };
            match signature.inputs.get(slot) {
                Some(Some(terms)) => {
                    let axes = self.axes[value.0 as usize].clone();
                    let axes = axes.ok_or_else(|| Refusal::new(format!("the rank of input {slot} is not known")))?;
                    if axes.len() != terms.len() {
                        return Err(Refusal::new(format!(
                            "input {slot} has rank {}, expected {}",
                            axes.len(),
                            terms.len()
                        )));
                    }
                    described.push((*value, terms, axes));
                }
                _ => undescribed.push(*value),
            }
        }
        // A rule leaves out what is optional, so what it describes has to be there.
        let is_missing = |slot: usize| node.inputs.get(slot).copied().flatten().is_none();
        let needed = signature.inputs.iter().enumerate().filter(|(_, terms)| terms.is_some());
        if let Some((slot, _)) = needed.into_iter().find(|(slot, _)| is_missing(*slot)) {
            return Err(Refusal::new(format!("input {slot} is missing")));
        }
        let mut letters = self.bind(signature, &described)?;
        self.note_zeros(graph, id, signature);
        for value in undescribed {
            self.lock_value(value, Some(id), "it holds a shape, indices or parameters of an operator");
        }
        for (value, terms, axes) in &described {
            for (term, axis) in terms.iter().zip(axes) {
                let expr = self.build(term, &mut letters)?;
                if *term != Term::One {
                    self.make_one(*axis, expr, id, *value);
                }
            }
        }
        for (slot, output) in node.outputs.iter().enumerate() {
            let Some(value) = output else { continue };
            self.axes[value.0 as usize] = match signature.outputs.get(slot) {
                Some(Some(terms)) => {
                    let axes = terms.iter().map(|t| self.build(t, &mut letters)).collect::<Result<Vec<_>, _>>()?;
                    self.with_changing(*value, axes)
                }
                _ => None,
            };
        }
        self.note_changing(node, signature);
        // Behind the outputs, because some letters stand only there (the spatial axes that a window makes).
        for (letter, expr) in signature.letters.iter().zip(&letters.bound) {
            match (&letter.fixed, expr) {
                (Some(why), Some(expr)) if letter.approximate => self.approximate.push((id, *expr, why.clone())),
                (Some(why), Some(expr)) => self.lock_axis(*expr, Some(id), None, why),
                _ => {}
            }
        }
        let bound = signature.letters.iter().zip(&letters.bound);
        let parts: Vec<_> = bound.filter_map(|(letter, expr)| Some(((*expr)?, letter.part?))).collect();
        if !parts.is_empty() {
            self.parts.push(parts);
        }
        for (slot, input) in node.inputs.iter().take(node.input_count).enumerate() {
            let Some(value) = input else { continue };
            let is_read = slot < node.own_count || node.returned.contains(&slot);
            if !is_read || graph.value(*value).constant().is_none() {
                continue;
            }
            if let Some(Some(terms)) = signature.inputs.get(slot) {
                let roles = roles(signature, slot, terms);
                self.readings.push(Reading { node: id, value: *value, roles });
            }
        }
        Ok(())
    }

    /// Notes which stored numbers stand for zero. Where two readers disagree, no index of the value can go.
    fn note_zeros(&mut self, graph: &Graph, id: NodeId, signature: &Signature) {
        let node = graph.node(id);
        let input = |slot: usize| node.inputs.get(slot).copied().flatten();
        for (slot, zero) in &signature.zeros {
            let stored = match zero {
                Zero::Known(number) => Some(StoredZero::Known(*number)),
                Zero::Slot(slot) => input(*slot).map(StoredZero::Computed),
            };
            let (Some(value), Some(stored)) = (input(*slot), stored) else { continue };
            match self.zeros[value.0 as usize] {
                _ if graph.value(value).scope != MAIN && stored != StoredZero::Known(0) => {
                    self.lock_value(value, Some(id), "which stored number is zero is not followed inside a body");
                }
                Some(other) if other != stored => {
                    self.lock_value(value, Some(id), "its readers take different stored numbers for zero");
                }
                _ => self.zeros[value.0 as usize] = Some(stored),
            }
        }
    }

    /// Binds letters to the axes they stand for alone, and works out the extents of the others.
    fn bind(
        &mut self,
        signature: &Signature,
        described: &[(ValueId, &Vec<Term>, Vec<Expr>)],
    ) -> Result<Letters, Refusal> {
        let count = signature.letters.len();
        let mut letters =
            Letters { bound: vec![None; count], extents: signature.letters.iter().map(|l| l.extent.clone()).collect() };
        let pairs = || described.iter().flat_map(|(_, terms, axes)| terms.iter().zip(axes));
        for (term, axis) in pairs() {
            if let Term::Letter(index) = term
                && letters.bound[*index].is_none()
            {
                let extent = self.space.extent(*axis).clone();
                // A declared extent other than the axis's own: the letter broadcasts or is not this axis.
                if letters.extents[*index].as_ref().is_none_or(|declared| *declared == extent) {
                    letters.bound[*index] = Some(*axis);
                    letters.extents[*index] = Some(extent);
                }
            }
        }
        // Compound terms tell the extent of the one letter in them that is still unknown.
        for _ in 0..count {
            let mut progress = false;
            for (term, axis) in pairs() {
                let extent = self.space.extent(*axis).clone();
                progress |= letters.infer(term, &extent);
            }
            if !progress {
                break;
            }
        }
        for (term, axis) in pairs() {
            let expected = letters.extent(term, self);
            let actual = self.space.extent(*axis);
            match expected {
                Some(expected) if expected == *actual => {}
                // Names for one and the same extent, if the model runs at all: unification locks both sides.
                Some(expected) if expected.value().is_none() || actual.value().is_none() => {}
                Some(expected) => {
                    return Err(Refusal::new(format!(
                        "an axis has extent {}, the operator expects {}",
                        self.symbols.borrow().text(actual),
                        self.symbols.borrow().text(&expected)
                    )));
                }
                None => return Err(Refusal::new("an extent cannot be worked out")),
            }
            if actual.value().is_some_and(|n| n < 0) {
                return Err(Refusal::new("an extent is negative"));
            }
        }
        Ok(letters)
    }

    /// The expression of a term; letters bound to nothing become new atoms.
    fn build(&mut self, term: &Term, letters: &mut Letters) -> Result<Expr, Refusal> {
        let overflow = || Refusal::new("an extent overflows");
        match term {
            Term::One => Ok(self.space.one()),
            Term::Letter(index) => match letters.bound[*index] {
                Some(expr) => Ok(expr),
                None => {
                    let extent = letters.extents[*index].clone();
                    let extent = extent.ok_or_else(|| Refusal::new("an extent cannot be worked out"))?;
                    if extent.value().is_some_and(|n| n < 0) {
                        return Err(Refusal::new("an extent is negative"));
                    }
                    let atom = self.space.atom(extent);
                    letters.bound[*index] = Some(atom);
                    Ok(atom)
                }
            },
            Term::Product(factors) => {
                let factors = factors.iter().map(|f| self.build(f, letters)).collect::<Result<Vec<_>, _>>()?;
                if factors.iter().any(|f| self.space.extent(*f).value() == Some(0)) {
                    return Ok(self.space.atom(Extent::known(0)));
                }
                self.space.product(&factors).ok_or_else(overflow)
            }
            Term::Sum(terms) => {
                let mut parts = terms.iter().map(|t| self.build(t, letters)).collect::<Result<Vec<_>, _>>()?;
                // Empty parts, as shape arithmetic has them, are no part of the algebra; an empty whole is an atom.
                parts.retain(|part| self.space.extent(*part).value() != Some(0));
                if parts.is_empty() {
                    return Ok(self.space.atom(Extent::known(0)));
                }
                let mut extent = Extent::known(0);
                for part in &parts {
                    extent = self.symbols.borrow_mut().plus(&extent, self.space.extent(*part));
                }
                Ok(self.space.sum(&parts, extent))
            }
        }
    }

    /// Unifies; where that is impossible, locks both sides.
    fn make_one(&mut self, a: Expr, b: Expr, node: NodeId, value: ValueId) {
        if let Err(mismatch) = self.space.unify(a, b) {
            self.lock_axis(a, Some(node), Some(value), mismatch.why());
            self.lock_axis(b, Some(node), Some(value), mismatch.why());
        }
    }
}

/// What is known of a signature's letters at one node.
struct Letters {
    bound: Vec<Option<Expr>>,
    extents: Vec<Option<Extent>>,
}

impl Letters {
    /// The extent of a term, if all its letters' are known.
    fn extent(&self, term: &Term, coupling: &Coupling) -> Option<Extent> {
        match term {
            Term::One => Some(Extent::one()),
            Term::Letter(index) => self.extents[*index].clone(),
            Term::Product(factors) => {
                factors.iter().try_fold(Extent::one(), |all, f| all.times(&self.extent(f, coupling)?))
            }
            Term::Sum(terms) => terms.iter().try_fold(Extent::known(0), |all, t| {
                let extent = self.extent(t, coupling)?;
                Some(coupling.symbols.borrow_mut().plus(&all, &extent))
            }),
        }
    }

    /// Works out the only unknown letter of a compound term from the axis's extent; true if there was one.
    fn infer(&mut self, term: &Term, extent: &Extent) -> bool {
        match term {
            Term::One => false,
            Term::Letter(index) => {
                let unknown = self.extents[*index].is_none();
                if unknown {
                    self.extents[*index] = Some(extent.clone());
                }
                unknown
            }
            Term::Product(factors) => {
                let mut known = Extent::one();
                let mut unknown = None;
                for factor in factors {
                    match self.plain_extent(factor) {
                        Some(e) => match known.times(&e) {
                            Some(product) => known = product,
                            None => return false,
                        },
                        None if unknown.is_none() => unknown = Some(factor),
                        None => return false,
                    }
                }
                match (unknown, extent.divided_by(&known)) {
                    (Some(factor), Some(rest)) => self.infer(factor, &rest),
                    _ => false,
                }
            }
            Term::Sum(terms) => {
                let Some(mut rest) = extent.value() else { return false };
                let mut unknown = None;
                for part in terms {
                    match self.plain_extent(part) {
                        Some(e) => match e.value().and_then(|v| rest.checked_sub(v)) {
                            Some(left) => rest = left,
                            None => return false,
                        },
                        None if unknown.is_none() => unknown = Some(part),
                        None => return false,
                    }
                }
                unknown.is_some_and(|part| rest > 0 && self.infer(part, &Extent::known(rest)))
            }
        }
    }

    /// The extent of a term without symbolic sums.
    fn plain_extent(&self, term: &Term) -> Option<Extent> {
        match term {
            Term::One => Some(Extent::one()),
            Term::Letter(index) => self.extents[*index].clone(),
            Term::Product(factors) => {
                factors.iter().try_fold(Extent::one(), |all, f| all.times(&self.plain_extent(f)?))
            }
            Term::Sum(terms) => {
                terms.iter().try_fold(0i64, |all, t| all.checked_add(self.plain_extent(t)?.value()?)).map(Extent::known)
            }
        }
    }
}

/// What each axis of a constant input is to the node.
fn roles(signature: &Signature, slot: usize, terms: &[Term]) -> Vec<Role> {
    let mut produced = vec![false; signature.letters.len()];
    for terms in signature.outputs.iter().flatten() {
        terms.iter().for_each(|t| mark(t, &mut produced));
    }
    let contracted = |term: &Term| {
        let mut own = vec![false; produced.len()];
        mark(term, &mut own);
        own.iter().zip(&produced).any(|(own, out)| *own && !*out)
    };
    let contracts: Vec<bool> = terms.iter().map(contracted).collect();
    let is_weight = contracts.iter().any(|c| *c);
    let role = |contracted: bool| match (contracted, is_weight) {
        (true, _) => Role::Contracted,
        (false, true) => Role::Produced,
        (false, false) if signature.scale == Some(slot) => Role::Scale,
        (false, false) if signature.statistics.contains(&slot) => Role::Statistic,
        (false, false) => Role::PerChannel,
    };
    contracts.into_iter().map(role).collect()
}

fn mark(term: &Term, letters: &mut [bool]) {
    match term {
        Term::One => {}
        Term::Letter(index) => {
            if let Some(letter) = letters.get_mut(*index) {
                *letter = true;
            }
        }
        Term::Sum(parts) | Term::Product(parts) => parts.iter().for_each(|p| mark(p, letters)),
    }
}
