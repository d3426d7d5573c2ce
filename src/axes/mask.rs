//! From atoms to axes: keep-masks and index maps, evaluated over an expression.
//!
//! Invariants: `Sum` concatenates, `Product` takes the outer AND (row-major), a locked atom or one without a mask keeps
//! everything. The result has exactly the extent of the expression.

use super::space::{Expr, Shape, Space};

/// Gives the keep-mask of an atom, or `None` if the atom keeps everything.
pub trait Masks {
    /// The mask of `atom` (an undefined atom), of its extent.
    fn mask(&self, atom: Expr) -> Option<&[bool]>;
}

impl Masks for std::collections::BTreeMap<Expr, Vec<bool>> {
    fn mask(&self, atom: Expr) -> Option<&[bool]> {
        self.get(&atom).map(Vec::as_slice)
    }
}

impl Space {
    /// The keep-mask of an axis, or `None` if the axis keeps everything (always so for symbolic extents).
    pub fn mask(&self, expr: Expr, masks: &dyn Masks) -> Option<Vec<bool>> {
        if !self.atoms(expr).into_iter().any(|a| masks.mask(a).is_some_and(|m| m.iter().any(|keep| !keep))) {
            return None;
        }
        self.full_mask(expr, masks)
    }

    fn full_mask(&self, expr: Expr, masks: &dyn Masks) -> Option<Vec<bool>> {
        let extent = self.extent(expr).size()?;
        match self.shape(expr) {
            Shape::One => Some(vec![true]),
            Shape::Atom => match masks.mask(self.resolve(expr)) {
                Some(mask) if mask.len() == extent => Some(mask.to_vec()),
                _ => Some(vec![true; extent]),
            },
            Shape::Sum(terms) => {
                let mut mask = Vec::with_capacity(extent);
                for term in terms {
                    mask.extend(self.full_mask(term, masks)?);
                }
                Some(mask)
            }
            Shape::Product(factors) => {
                let mut mask = vec![true];
                for factor in factors {
                    let inner = self.full_mask(factor, masks)?;
                    mask = mask.iter().flat_map(|outer| inner.iter().map(move |i| *outer && *i)).collect();
                }
                Some(mask)
            }
        }
    }

    /// Calls `visit(position, index)` for every position of the axis that belongs to channel `index` of `atom`.
    ///
    /// A position of a product that nests the atom in itself is visited once per mention.
    pub fn positions(&self, expr: Expr, atom: Expr, visit: &mut dyn FnMut(usize, usize)) {
        let atom = self.resolve(atom);
        if let Some(places) = self.places(expr, atom) {
            for (position, index) in places {
                visit(position, index);
            }
        }
    }

    /// (position, index) pairs of `atom` in `expr`; `None` where an extent is symbolic and the atom absent.
    fn places(&self, expr: Expr, atom: Expr) -> Option<Vec<(usize, usize)>> {
        match self.shape(expr) {
            Shape::One => Some(Vec::new()),
            Shape::Atom if self.resolve(expr) == atom => Some((0..self.extent(atom).size()?).map(|i| (i, i)).collect()),
            Shape::Atom => Some(Vec::new()),
            Shape::Sum(terms) => {
                let mut places = Vec::new();
                let mut before = 0;
                for term in terms {
                    places.extend(self.places(term, atom)?.into_iter().map(|(p, i)| (p + before, i)));
                    before += self.extent(term).size()?;
                }
                Some(places)
            }
            Shape::Product(factors) => {
                let sizes: Option<Vec<usize>> = factors.iter().map(|f| self.extent(*f).size()).collect();
                let sizes = sizes?;
                let mut places = Vec::new();
                for (at, factor) in factors.iter().enumerate() {
                    let inner: usize = sizes[at + 1..].iter().product();
                    let outer: usize = sizes[..at].iter().product();
                    for (p, i) in self.places(*factor, atom)? {
                        for o in 0..outer {
                            let base = (o * sizes[at] + p) * inner;
                            places.extend((base..base + inner).map(|position| (position, i)));
                        }
                    }
                }
                Some(places)
            }
        }
    }

    /// How a person reads the expression: `a`, `(a b)`, `a+b`; `name` names the atoms.
    pub fn text(&self, expr: Expr, name: &dyn Fn(Expr) -> String) -> String {
        match self.shape(expr) {
            Shape::One => "1".to_owned(),
            Shape::Atom => name(self.resolve(expr)),
            Shape::Sum(terms) => terms.iter().map(|t| self.text(*t, name)).collect::<Vec<_>>().join("+"),
            Shape::Product(factors) => {
                let parts: Vec<String> = factors
                    .iter()
                    .map(|f| {
                        let text = self.text(*f, name);
                        if text.contains('+') { format!("({text})") } else { text }
                    })
                    .collect();
                format!("({})", parts.join(" "))
            }
        }
    }
}
