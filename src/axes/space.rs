//! The space of axis expressions: atoms, concatenations and nestings, in one arena.
//!
//! `Expr = Atom(extent) | Sum[Expr…] (concatenation) | Product[Expr…] (row-major nesting)`. An atom is a set of
//! channels that live and die together, index by index. An atom may be *defined* as another expression; every
//! expression that mentions it then sees the refinement.
//!
//! Invariants: an atom is defined once, by an expression of the same extent that does not mention it (equal extents
//! and extents of at least 1 make a cycle impossible); the parts of sums and products have extent at least 1; locks
//! sit on undefined atoms and are handed to whatever an atom becomes. No traversal recurses on the machine stack
//! further than one level per *nesting of definitions* it unfolds, and all of those are iterative.

use super::extent::Extent;

/// An axis expression: a small copyable handle into its [`Space`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Expr(pub(super) u32);

/// Why an atom may not shrink: an index into the caller's own list of reasons; the smallest wins when atoms merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockId(pub u32);

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// An undefined atom, perhaps locked.
    Atom(Option<LockId>),
    /// A concatenation, in order.
    Sum(Box<[Expr]>),
    /// A row-major nesting, outermost first.
    Product(Box<[Expr]>),
    /// A defined atom: look there.
    Defined(Expr),
}

#[derive(Debug)]
struct Entry {
    kind: Kind,
    extent: Extent,
}

/// What an expression is once its definitions are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An undefined atom.
    Atom,
    /// At least two terms, none of them a sum.
    Sum(Vec<Expr>),
    /// At least two factors, none of them a product or of extent 1.
    Product(Vec<Expr>),
    /// Extent 1 without an atom.
    One,
}

/// The arena of all axis expressions of one analysis.
#[derive(Debug, Default)]
pub struct Space {
    entries: Vec<Entry>,
}

impl Space {
    /// A new unlocked atom.
    pub fn atom(&mut self, extent: Extent) -> Expr {
        self.add(Kind::Atom(None), extent)
    }

    /// A new locked atom.
    pub fn locked_atom(&mut self, extent: Extent, lock: LockId) -> Expr {
        self.add(Kind::Atom(Some(lock)), extent)
    }

    /// The expression of extent 1: a product of nothing.
    pub fn one(&mut self) -> Expr {
        self.add(Kind::Product(Box::new([])), Extent::one())
    }

    /// The concatenation of `terms`, whose total extent the caller knows; a single term is returned as it is.
    pub fn sum(&mut self, terms: &[Expr], extent: Extent) -> Expr {
        match terms {
            [only] => *only,
            _ => self.add(Kind::Sum(terms.into()), extent),
        }
    }

    /// The nesting of `factors`, outermost first, or `None` if its extent overflows.
    pub fn product(&mut self, factors: &[Expr]) -> Option<Expr> {
        let factors: Vec<Expr> = factors.iter().copied().filter(|f| !self.extent(*f).is_one()).collect();
        match factors.as_slice() {
            [] => Some(self.one()),
            [only] => Some(*only),
            _ => {
                let extent = Extent::product(factors.iter().map(|f| self.extent(*f)))?;
                Some(self.add(Kind::Product(factors.into()), extent))
            }
        }
    }

    /// The extent of an expression; refinement never changes it.
    pub fn extent(&self, expr: Expr) -> &Extent {
        &self.entries[expr.0 as usize].extent
    }

    /// Follows definitions to the expression that stands for `expr` now.
    pub fn resolve(&self, mut expr: Expr) -> Expr {
        while let Kind::Defined(next) = self.entries[expr.0 as usize].kind {
            expr = next;
        }
        expr
    }

    /// Follows definitions and shortens the way for the next reader (path compression).
    pub(super) fn find(&mut self, expr: Expr) -> Expr {
        let root = self.resolve(expr);
        let mut at = expr;
        while let Kind::Defined(next) = self.entries[at.0 as usize].kind {
            self.entries[at.0 as usize].kind = Kind::Defined(root);
            at = next;
        }
        root
    }

    /// What the expression is now, with nested sums and products flattened and factors of extent 1 dropped.
    pub fn shape(&self, expr: Expr) -> Shape {
        let expr = self.resolve(expr);
        match &self.entries[expr.0 as usize].kind {
            Kind::Atom(_) => Shape::Atom,
            Kind::Sum(_) => Shape::Sum(self.flatten(expr, true)),
            Kind::Product(_) => match self.flatten(expr, false) {
                factors if factors.is_empty() => Shape::One,
                factors if factors.len() == 1 => self.shape(factors[0]),
                factors => Shape::Product(factors),
            },
            Kind::Defined(_) => Shape::Atom,
        }
    }

    /// The terms of a sum, or the expression alone.
    pub fn terms(&self, expr: Expr) -> Vec<Expr> {
        self.flatten(expr, true)
    }

    /// The factors of a product that are larger than 1, or the expression alone.
    pub fn factors(&self, expr: Expr) -> Vec<Expr> {
        self.flatten(expr, false)
    }

    fn flatten(&self, expr: Expr, sums: bool) -> Vec<Expr> {
        let mut flat = Vec::new();
        let mut stack = vec![expr];
        while let Some(e) = stack.pop() {
            let e = self.resolve(e);
            match &self.entries[e.0 as usize].kind {
                Kind::Sum(parts) if sums => stack.extend(parts.iter().rev()),
                // A product that has only one factor larger than 1 is that factor: a sum may hide behind it.
                Kind::Product(parts) if sums => {
                    let mut large = parts.iter().filter(|p| !self.extent(**p).is_one());
                    match (large.next(), large.next()) {
                        (Some(only), None) => stack.push(*only),
                        _ => flat.push(e),
                    }
                }
                Kind::Product(parts) => stack.extend(parts.iter().rev()),
                _ if !sums && self.extent(e).is_one() => {}
                _ => flat.push(e),
            }
        }
        flat
    }

    /// The distinct undefined atoms that the expression mentions, in order of first mention.
    pub fn atoms(&self, expr: Expr) -> Vec<Expr> {
        let mut seen = std::collections::BTreeSet::new();
        let mut atoms = Vec::new();
        let mut stack = vec![expr];
        while let Some(e) = stack.pop() {
            let e = self.resolve(e);
            match &self.entries[e.0 as usize].kind {
                Kind::Sum(parts) | Kind::Product(parts) => stack.extend(parts.iter().rev()),
                _ => {
                    if seen.insert(e) {
                        atoms.push(e);
                    }
                }
            }
        }
        atoms
    }

    /// The lock of an undefined atom.
    pub fn lock_of(&self, atom: Expr) -> Option<LockId> {
        match self.entries[self.resolve(atom).0 as usize].kind {
            Kind::Atom(lock) => lock,
            _ => None,
        }
    }

    /// Locks every atom that the expression mentions and that is not locked yet; true if there was one.
    pub fn lock(&mut self, expr: Expr, lock: LockId) -> bool {
        let mut locked = false;
        for atom in self.atoms(expr) {
            if let Kind::Atom(state @ None) = &mut self.entries[atom.0 as usize].kind {
                *state = Some(lock);
                locked = true;
            }
        }
        locked
    }

    /// True if every atom of the expression is locked already.
    pub fn is_locked(&self, expr: Expr) -> bool {
        let expr = self.resolve(expr);
        match &self.entries[expr.0 as usize].kind {
            Kind::Atom(lock) => lock.is_some(),
            _ => self.atoms(expr).into_iter().all(|a| self.lock_of(a).is_some()),
        }
    }

    /// Defines an undefined atom as `meaning`, an expression of the same extent; its lock goes to the new atoms.
    pub(super) fn define(&mut self, atom: Expr, meaning: Expr) {
        let atom = self.find(atom);
        let meaning = self.find(meaning);
        if atom == meaning {
            return;
        }
        let Kind::Atom(lock) = self.entries[atom.0 as usize].kind else { return };
        self.entries[atom.0 as usize].kind = Kind::Defined(meaning);
        if let Some(lock) = lock {
            if let Kind::Atom(other) = &mut self.entries[meaning.0 as usize].kind {
                // The earlier reason is the nearer one to what a person can act on.
                *other = Some(other.map_or(lock, |o| o.min(lock)));
            } else {
                self.lock(meaning, lock);
            }
        }
    }

    fn add(&mut self, kind: Kind, extent: Extent) -> Expr {
        let id = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push(Entry { kind, extent });
        Expr(id)
    }
}
