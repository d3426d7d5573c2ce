//! Aligning two shapes of the same elements in row-major order: the common refinement of their axes.
//!
//! Walking from the right and then from the left, equal extents are one letter; where one extent divides the other, the
//! longer axis is a nesting and the walk goes on with what remains of it. Between two walks that got stuck a reshape cuts
//! across the axes: those (and only those parts) are locked.
//!
//! Invariants: sound for symbolic extents too, because the trailing (leading) parts of two shapes with equal products
//! decompose an element's position alike, whatever the rest is; extents of 1 take no part (`1`).

use super::{Signature, Term};
use crate::axes::Extent;

const RAGGED: &str = "a reshape cuts across its channels";

/// The terms of both shapes, with their letters added to `signature`.
pub(super) fn align(signature: &mut Signature, input: &[Extent], output: &[Extent]) -> (Vec<Term>, Vec<Term>) {
    let mut pieces = Vec::new();
    let mut sides = [Side::of(input), Side::of(output)];
    for from_right in [true, false] {
        let [a, b] = &mut sides;
        while let (Some(i), Some(j)) = (a.current(from_right), b.current(from_right)) {
            let (x, y) = (a.axes[i].rest.clone(), b.axes[j].rest.clone());
            let (extent, rest_x, rest_y) = if x == y {
                (x, None, None)
            } else if let Some(rest) = x.divided_by(&y) {
                (y, Some(rest), None)
            } else if let Some(rest) = y.divided_by(&x) {
                (x, None, Some(rest))
            } else {
                break;
            };
            pieces.push(Piece { extent, ragged: false });
            a.take(i, pieces.len() - 1, rest_x, from_right);
            b.take(j, pieces.len() - 1, rest_y, from_right);
        }
    }
    for side in &mut sides {
        while let Some(i) = side.current(false) {
            pieces.push(Piece { extent: side.axes[i].rest.clone(), ragged: true });
            side.take(i, pieces.len() - 1, None, false);
        }
    }
    let mut named: Vec<Option<Term>> = vec![None; pieces.len()];
    let [a, b] = sides;
    (a.terms(signature, &pieces, &mut named), b.terms(signature, &pieces, &mut named))
}

/// A letter in the making.
struct Piece {
    extent: Extent,
    ragged: bool,
}

/// One axis: pieces found from the left, what remains, pieces found from the right (rightmost first).
struct Axis {
    left: Vec<usize>,
    rest: Extent,
    right: Vec<usize>,
    done: bool,
}

/// One of the two shapes.
struct Side {
    axes: Vec<Axis>,
}

impl Side {
    fn of(shape: &[Extent]) -> Self {
        let axis = |e: &Extent| Axis { left: Vec::new(), rest: e.clone(), right: Vec::new(), done: e.is_one() };
        Self { axes: shape.iter().map(axis).collect() }
    }

    /// The outermost axis on one side that is not used up.
    fn current(&self, from_right: bool) -> Option<usize> {
        if from_right { self.axes.iter().rposition(|a| !a.done) } else { self.axes.iter().position(|a| !a.done) }
    }

    fn take(&mut self, axis: usize, piece: usize, rest: Option<Extent>, from_right: bool) {
        let axis = &mut self.axes[axis];
        if from_right {
            axis.right.push(piece)
        } else {
            axis.left.push(piece)
        }
        match rest {
            Some(rest) => axis.rest = rest,
            None => axis.done = true,
        }
    }

    /// Names the pieces in the order of reading.
    fn terms(&self, signature: &mut Signature, pieces: &[Piece], named: &mut [Option<Term>]) -> Vec<Term> {
        let mut terms = Vec::with_capacity(self.axes.len());
        for axis in &self.axes {
            let mut factors = Vec::new();
            for index in axis.left.iter().chain(axis.right.iter().rev()) {
                let (Some(piece), Some(name)) = (pieces.get(*index), named.get_mut(*index)) else { continue };
                let number = signature.letters.len();
                let extent = Some(piece.extent.clone());
                let term = name.get_or_insert_with(|| match piece.ragged {
                    true => signature.fixed(format!("a{number}"), extent, RAGGED),
                    false => signature.free(format!("A{number}"), extent),
                });
                factors.push(term.clone());
            }
            terms.push(match factors.as_slice() {
                [] => Term::One,
                [only] => only.clone(),
                _ => Term::Product(factors),
            });
        }
        terms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::axes::Symbols;

    fn text(input: &[Extent], output: &[Extent]) -> String {
        let mut signature = Signature::default();
        let (a, b) = align(&mut signature, input, output);
        signature.inputs = vec![Some(a)];
        signature.outputs = vec![Some(b)];
        signature.to_string()
    }

    fn known(extents: &[i64]) -> Vec<Extent> {
        extents.iter().map(|e| Extent::known(*e)).collect()
    }

    #[test]
    fn known_extents() {
        for (input, output, expected) in [
            (&[2, 3, 4, 5][..], &[2, 60][..], "A0 A1 A2 A3 -> A0 (A1 A2 A3)"),
            (&[2, 7, 24], &[2, 7, 3, 8], "A0 A1 (A2 A3) -> A0 A1 A2 A3"),
            (&[4, 6], &[6, 4], "a0 a1 -> a2 a3"),
            (&[2, 6], &[4, 3], "A0 (A1 A2) -> (A0 A1) A2"),
            (&[5, 4, 6, 7], &[5, 6, 4, 7], "A0 a1 a2 A3 -> A0 a4 a5 A3"),
            (&[1, 9, 1], &[9], "1 A0 1 -> A0"),
            (&[8], &[2, 1, 4, 1], "(A0 A1) -> A0 1 A1 1"),
        ] {
            assert_eq!(text(&known(input), &known(output)), expected, "{input:?} {output:?}");
        }
    }

    #[test]
    fn symbols_match_by_name_then_by_division() {
        let mut symbols = Symbols::default();
        let (n, t, u) = (symbols.named("n"), symbols.named("t"), symbols.named("u"));
        let k = Extent::known;
        let nt = n.times(&t).unwrap_or(Extent::one());
        assert_eq!(text(&[n.clone(), t.clone(), k(12)], &[nt, k(3), k(4)]), "A0 A1 (A2 A3) -> (A0 A1) A2 A3");
        assert_eq!(text(&[n.clone(), k(6), t.clone(), k(5)], &[n, k(6), u, k(5)]), "A0 A1 a2 A3 -> A0 A1 a4 A3");
    }
}
