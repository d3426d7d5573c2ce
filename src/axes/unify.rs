//! Solving: unification with refinement over axis expressions.
//!
//! - `unify(a, b)`: the two axes are one. Atom/atom: merge. Atom/other: define the atom as the other. Sum/anything: cut
//!   the other side at the sum's borders. Product/product: align the factors from the right.
//! - `cut(e, n)`: a left part of extent n and the rest (borders of Split, Slice, Concat).
//! - `factor(e, k)`: lead × trail with extent(trail) = k (Reshape).
//!
//! Invariants: refinement is sound at every step, also when a later step fails: each part unified is a consequence of
//! the equation asked for. On `Err` the caller locks both sides, which satisfies any equation. Work is bounded: every
//! step pairs off a positive extent, and `MAX_PIECES` bounds the pieces of one call.

use super::extent::Extent;
use super::space::{Expr, Shape, Space};

/// The most pieces one call may cut an axis into; beyond it the axis is better locked than shredded.
const MAX_PIECES: usize = 8192;

/// Why two axes cannot be brought together; a sentence for the reason of the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The extents differ.
    Extent,
    /// No common cut or factorisation exists.
    Ragged,
    /// An extent involved is zero or not known.
    Unknown,
    /// More pieces than are worth having.
    TooFine,
}

impl Mismatch {
    /// The sentence.
    pub fn why(self) -> &'static str {
        match self {
            Mismatch::Extent => "axes of different extents meet",
            Mismatch::Ragged => "its channels meet another axis at borders that do not match",
            Mismatch::Unknown => "an extent is zero or not known",
            Mismatch::TooFine => "its channels would fall into too many pieces",
        }
    }
}

type Solved<T> = Result<T, Mismatch>;

impl Space {
    /// Makes two axes one, refining atoms as needed.
    ///
    /// # Errors
    /// A [`Mismatch`] if no refinement does it; the caller then locks both sides.
    pub fn unify(&mut self, a: Expr, b: Expr) -> Solved<()> {
        let mut work = vec![(a, b)];
        let mut steps = 0;
        while let Some((a, b)) = work.pop() {
            steps += 1;
            if steps > MAX_PIECES * 4 {
                return Err(Mismatch::TooFine);
            }
            let (a, b) = (self.find(a), self.find(b));
            if a == b {
                continue;
            }
            if self.extent(a) != self.extent(b) {
                return Err(Mismatch::Extent);
            }
            if self.extent(a).value() == Some(0) {
                return Err(Mismatch::Unknown);
            }
            match (self.shape(a), self.shape(b)) {
                // Extent 1 beside extent 1: a lone atom of extent 1 never shrinks, so nothing is to be learnt.
                _ if self.extent(a).is_one() => {}
                // The younger atom is defined by the older one, so names and groups stay with the first producer.
                (Shape::Atom, Shape::Atom) => self.define(a.max(b), a.min(b)),
                (Shape::Atom, _) => self.define(a, b),
                (_, Shape::Atom) => self.define(b, a),
                (Shape::Product(p), Shape::Product(q)) => self.align(p, q, &mut work)?,
                _ => self.zip(a, b, &mut work)?,
            }
        }
        Ok(())
    }

    /// Product beside product: factors from the right, each split where the other side has a border.
    fn align(&mut self, mut p: Vec<Expr>, mut q: Vec<Expr>, work: &mut Vec<(Expr, Expr)>) -> Solved<()> {
        while let (Some(a), Some(b)) = (p.pop(), q.pop()) {
            let (ea, eb) = (self.extent(a).clone(), self.extent(b).clone());
            if ea == eb {
                work.push((a, b));
            } else if ea.divided_by(&eb).is_some() {
                let (lead, trail) = self.factor(a, &eb)?;
                work.push((trail, b));
                p.push(lead);
            } else if eb.divided_by(&ea).is_some() {
                let (lead, trail) = self.factor(b, &ea)?;
                work.push((trail, a));
                q.push(lead);
            } else {
                return Err(Mismatch::Ragged);
            }
        }
        // Equal extents overall: what is left on either side has extent 1.
        Ok(())
    }

    /// Sum beside anything: walk both from the left, cutting the longer piece.
    fn zip(&mut self, a: Expr, b: Expr, work: &mut Vec<(Expr, Expr)>) -> Solved<()> {
        let mut left: Vec<Expr> = self.terms(a);
        let mut right: Vec<Expr> = self.terms(b);
        left.reverse();
        right.reverse();
        let mut pieces = 0;
        while let (Some(l), Some(r)) = (left.pop(), right.pop()) {
            pieces += 1;
            if pieces > MAX_PIECES {
                return Err(Mismatch::TooFine);
            }
            let (el, er) = (self.extent(l).clone(), self.extent(r).clone());
            if el == er {
                work.push((l, r));
                continue;
            }
            let (Some(nl), Some(nr)) = (el.size(), er.size()) else { return Err(Mismatch::Unknown) };
            if nl < nr {
                let (head, tail) = self.cut(r, nl)?;
                right.push(tail);
                right.push(head);
                left.push(l);
            } else {
                let (head, tail) = self.cut(l, nr)?;
                left.push(tail);
                left.push(head);
                right.push(r);
            }
            // What was cut may have become several terms: flatten before going on.
            for side in [&mut left, &mut right] {
                if let Some(top) = side.pop() {
                    side.extend(self.terms(top).into_iter().rev());
                }
            }
        }
        Ok(())
    }

    /// Cuts an expression into a left part of extent `at` and the rest; `0 < at < extent`.
    ///
    /// # Errors
    /// `Unknown` for symbolic extents and for borders outside the expression.
    pub fn cut(&mut self, expr: Expr, at: usize) -> Solved<(Expr, Expr)> {
        let extent = self.extent(expr).size().ok_or(Mismatch::Unknown)?;
        if at == 0 || at >= extent {
            return Err(Mismatch::Unknown);
        }
        match self.shape(expr) {
            Shape::One => Err(Mismatch::Unknown),
            Shape::Atom => {
                let atom = self.find(expr);
                let left = self.atom(Extent::from(at));
                let right = self.atom(Extent::from(extent - at));
                let sum = self.sum(&[left, right], Extent::from(extent));
                self.define(atom, sum);
                Ok((left, right))
            }
            Shape::Sum(terms) => {
                let mut before = 0;
                for (i, term) in terms.iter().enumerate() {
                    let size = self.extent(*term).size().ok_or(Mismatch::Unknown)?;
                    if at < before + size {
                        let (mut left, mut right) = (terms[..i].to_vec(), Vec::new());
                        if at > before {
                            let (head, tail) = self.cut(*term, at - before)?;
                            left.push(head);
                            right.push(tail);
                            right.extend_from_slice(&terms[i + 1..]);
                        } else {
                            right.extend_from_slice(&terms[i..]);
                        }
                        let left = self.sum(&left, Extent::from(at));
                        let right = self.sum(&right, Extent::from(extent - at));
                        return Ok((left, right));
                    }
                    before += size;
                }
                Err(Mismatch::Unknown)
            }
            Shape::Product(factors) => self.cut_product(&factors, at, extent),
        }
    }

    /// Cuts the outer factor; where the border falls inside one of its blocks, that block is cut in turn.
    fn cut_product(&mut self, factors: &[Expr], at: usize, extent: usize) -> Solved<(Expr, Expr)> {
        let (Some(outer), Some(inner)) = (factors.first().copied(), factors.get(1..)) else {
            return Err(Mismatch::Unknown);
        };
        let rest = self.product(inner).ok_or(Mismatch::Unknown)?;
        let block = self.extent(rest).size().ok_or(Mismatch::Unknown)?;
        let blocks = self.extent(outer).size().ok_or(Mismatch::Unknown)?;
        let (whole, within) = (at / block, at % block);
        let (mut left, mut right) = (Vec::new(), Vec::new());
        let mut remaining = outer;
        if whole > 0 {
            let (head, tail) = self.cut(outer, whole)?;
            left.push(self.product(&[head, rest]).ok_or(Mismatch::Unknown)?);
            remaining = tail;
        }
        if within > 0 {
            let after = blocks - whole - 1;
            if after > 0 {
                remaining = self.cut(remaining, 1)?.1;
            }
            let (head, tail) = self.cut(rest, within)?;
            left.push(head);
            right.push(tail);
            if after > 0 {
                right.push(self.product(&[remaining, rest]).ok_or(Mismatch::Unknown)?);
            }
        } else {
            right.push(self.product(&[remaining, rest]).ok_or(Mismatch::Unknown)?);
        }
        let left = self.sum(&left, Extent::from(at));
        let right = self.sum(&right, Extent::from(extent - at));
        Ok((left, right))
    }

    /// Writes an expression as lead × trail, where trail has extent `k`.
    ///
    /// # Errors
    /// `Ragged` where no factorisation exists, `Extent` where `k` does not divide the extent.
    pub fn factor(&mut self, expr: Expr, k: &Extent) -> Solved<(Expr, Expr)> {
        let extent = self.extent(expr).clone();
        if extent == *k {
            return Ok((self.one(), expr));
        }
        if k.is_one() {
            return Ok((expr, self.one()));
        }
        let lead_extent = extent.divided_by(k).ok_or(Mismatch::Extent)?;
        match self.shape(expr) {
            Shape::One => Err(Mismatch::Extent),
            Shape::Atom => {
                let atom = self.find(expr);
                let lead = self.atom(lead_extent);
                let trail = self.atom(k.clone());
                let product = self.product(&[lead, trail]).ok_or(Mismatch::Unknown)?;
                self.define(atom, product);
                Ok((lead, trail))
            }
            Shape::Product(factors) => self.factor_product(factors, k),
            Shape::Sum(terms) => self.factor_sum(expr, &terms, k, &lead_extent),
        }
    }

    fn factor_product(&mut self, mut factors: Vec<Expr>, k: &Extent) -> Solved<(Expr, Expr)> {
        let mut trail = Vec::new();
        let mut needed = k.clone();
        while !needed.is_one() {
            let factor = factors.pop().ok_or(Mismatch::Ragged)?;
            let extent = self.extent(factor).clone();
            if let Some(left) = needed.divided_by(&extent) {
                trail.push(factor);
                needed = left;
            } else if extent.divided_by(&needed).is_some() {
                let (outer, inner) = self.factor(factor, &needed)?;
                trail.push(inner);
                factors.push(outer);
                needed = Extent::one();
            } else {
                return Err(Mismatch::Ragged);
            }
        }
        trail.reverse();
        let lead = self.product(&factors).ok_or(Mismatch::Unknown)?;
        let trail = self.product(&trail).ok_or(Mismatch::Unknown)?;
        Ok((lead, trail))
    }

    /// A sum is factored term by term, and the trails are one. Where a term does not divide, the sum is cut into
    /// blocks of k that are all one: the lead then consists of single blocks, none of which can go.
    fn factor_sum(&mut self, expr: Expr, terms: &[Expr], k: &Extent, lead: &Extent) -> Solved<(Expr, Expr)> {
        let mut trail: Option<Expr> = None;
        let mut leads = Vec::new();
        if terms.iter().all(|t| self.extent(*t).divided_by(k).is_some()) {
            for term in terms {
                let (outer, inner) = self.factor(*term, k)?;
                if let Some(trail) = trail {
                    self.unify(trail, inner)?;
                }
                trail = Some(inner);
                leads.push(outer);
            }
        } else {
            let (blocks, block) = (lead.size().ok_or(Mismatch::Unknown)?, k.size().ok_or(Mismatch::Unknown)?);
            if blocks > MAX_PIECES {
                return Err(Mismatch::TooFine);
            }
            let mut rest = expr;
            for i in 0..blocks {
                let head = if i + 1 < blocks {
                    let (head, tail) = self.cut(rest, block)?;
                    rest = tail;
                    head
                } else {
                    rest
                };
                if let Some(trail) = trail {
                    self.unify(trail, head)?;
                }
                trail = Some(head);
                leads.push(self.one());
            }
        }
        let lead = self.sum(&leads, lead.clone());
        Ok((lead, trail.ok_or(Mismatch::Unknown)?))
    }
}
