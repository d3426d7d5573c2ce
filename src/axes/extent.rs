//! Extents: symbolic non-negative (or, in shape arithmetic, any) integers of the form coefficient × product of symbols.
//!
//! Invariants: symbols are sorted; a zero coefficient has no symbols. Everything that is not a monomial (a sum of
//! unlike terms, a rounded division) becomes a symbol of its own, interned by what it was computed from, so that two
//! branches with the same arithmetic get the same extent.

use std::collections::{HashMap, HashSet};
use std::fmt;

/// A symbol: a `dim_param`, an unknown dimension, or an interned expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbol(u32);

/// A symbolic integer: `coefficient × symbol × symbol …`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extent {
    coefficient: i64,
    symbols: Vec<Symbol>,
}

impl Extent {
    /// The integer `n`.
    pub fn known(n: i64) -> Self {
        Self { coefficient: n, symbols: Vec::new() }
    }

    /// The extent 1.
    pub fn one() -> Self {
        Self::known(1)
    }

    /// A symbol standing alone.
    pub fn symbol(symbol: Symbol) -> Self {
        Self { coefficient: 1, symbols: vec![symbol] }
    }

    /// The value, if it is a plain integer.
    pub fn value(&self) -> Option<i64> {
        self.symbols.is_empty().then_some(self.coefficient)
    }

    /// The value as a size, if it is a plain non-negative integer.
    pub fn size(&self) -> Option<usize> {
        self.value().and_then(|v| usize::try_from(v).ok())
    }

    /// The value with every symbol taken as 1: what one element of each dynamic axis costs.
    pub fn per_symbol(&self) -> i64 {
        self.coefficient
    }

    /// True for the integer 1.
    pub fn is_one(&self) -> bool {
        self.value() == Some(1)
    }

    /// The product, or `None` on overflow.
    pub fn times(&self, other: &Extent) -> Option<Extent> {
        let coefficient = self.coefficient.checked_mul(other.coefficient)?;
        if coefficient == 0 {
            return Some(Extent::known(0));
        }
        let mut symbols = [self.symbols.as_slice(), other.symbols.as_slice()].concat();
        symbols.sort_unstable();
        Some(Extent { coefficient, symbols })
    }

    /// The exact quotient, or `None` where the division leaves a remainder or is not known to be exact.
    pub fn divided_by(&self, other: &Extent) -> Option<Extent> {
        if other.coefficient == 0 || self.coefficient.checked_rem(other.coefficient)? != 0 {
            return None;
        }
        let mut symbols = self.symbols.clone();
        for symbol in &other.symbols {
            let at = symbols.iter().position(|s| s == symbol)?;
            symbols.remove(at);
        }
        Some(Extent { coefficient: self.coefficient.checked_div(other.coefficient)?, symbols })
    }

    /// The product of many, or `None` on overflow.
    pub fn product<'a>(extents: impl IntoIterator<Item = &'a Extent>) -> Option<Extent> {
        extents.into_iter().try_fold(Extent::one(), |a, b| a.times(b))
    }
}

impl From<usize> for Extent {
    fn from(n: usize) -> Self {
        Extent::known(i64::try_from(n).unwrap_or(i64::MAX))
    }
}

/// The symbols of one analysis and what they stand for.
#[derive(Debug, Default)]
pub struct Symbols {
    names: Vec<String>,
    interned: HashMap<(String, Vec<Extent>), Symbol>,
    floats: HashMap<Symbol, f32>,
    // What a symbol is the least of, or the broadcast of.
    lesser: HashMap<Symbol, Vec<Extent>>,
    broadcast: HashMap<Symbol, Vec<Extent>>,
    // Symbols that may be negative, or are no integers at all.
    unbounded: HashSet<Symbol>,
}

impl Symbols {
    /// The symbol called `name` (a `dim_param`, say); the same name gives the same symbol.
    pub fn named(&mut self, name: &str) -> Extent {
        self.computed(name, &[])
    }

    /// A symbol that equals no other.
    pub fn fresh(&mut self, hint: &str) -> Extent {
        Extent::symbol(self.add(hint.to_owned()))
    }

    /// The symbol for `operation(arguments)`; the same operation on the same arguments gives the same symbol.
    pub fn computed(&mut self, operation: &str, arguments: &[Extent]) -> Extent {
        let key = (operation.to_owned(), arguments.to_vec());
        if let Some(symbol) = self.interned.get(&key) {
            return Extent::symbol(*symbol);
        }
        let name = if arguments.is_empty() {
            operation.to_owned()
        } else {
            let list: Vec<String> = arguments.iter().map(|a| self.text(a)).collect();
            // Long names help nobody and grow without bound along a chain of layers.
            let text = format!("{operation}({})", list.join(","));
            if text.len() > 48 { format!("{operation}#{}", self.names.len()) } else { text }
        };
        let symbol = self.add(name);
        if !arguments.iter().all(|a| self.is_size(a)) {
            self.unbounded.insert(symbol);
        }
        self.interned.insert(key, symbol);
        Extent::symbol(symbol)
    }

    /// The symbol of a float constant, so that scales survive the joins and cuts of shape arithmetic. As an extent it
    /// is opaque; equal floats are the same symbol.
    pub fn float(&mut self, value: f32) -> Extent {
        let extent = self.computed(&format!("{value:?}f"), &[]);
        if let [symbol] = extent.symbols.as_slice() {
            self.floats.insert(*symbol, value);
            self.unbounded.insert(*symbol);
        }
        extent
    }

    /// True if the value is known to be no less than 0: extents are, and what is added and multiplied from them.
    pub fn is_size(&self, extent: &Extent) -> bool {
        extent.coefficient >= 0 && extent.symbols.iter().all(|s| !self.unbounded.contains(s))
    }

    /// The float that an entry of shape arithmetic is, if it is one.
    pub fn as_float(&self, extent: &Extent) -> Option<f32> {
        match (extent.coefficient, extent.symbols.as_slice()) {
            (1, [symbol]) => self.floats.get(symbol).copied(),
            _ => None,
        }
    }

    /// `a + b`.
    pub fn plus(&mut self, a: &Extent, b: &Extent) -> Extent {
        if a.value() == Some(0) {
            return b.clone();
        }
        if b.value() == Some(0) {
            return a.clone();
        }
        if a.symbols == b.symbols
            && let Some(coefficient) = a.coefficient.checked_add(b.coefficient)
        {
            return if coefficient == 0 {
                Extent::known(0)
            } else {
                Extent { coefficient, symbols: a.symbols.clone() }
            };
        }
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        self.computed("plus", &[low.clone(), high.clone()])
    }

    /// `a × b`; a symbol of its own on overflow.
    pub fn times(&mut self, a: &Extent, b: &Extent) -> Extent {
        a.times(b).unwrap_or_else(|| self.computed("times", &[a.clone(), b.clone()]))
    }

    /// `floor(a / b)`.
    pub fn floor_divide(&mut self, a: &Extent, b: &Extent) -> Extent {
        if let Some(exact) = a.divided_by(b) {
            return exact;
        }
        match (a.value(), b.value()) {
            (Some(a), Some(b)) if b != 0 => Extent::known(a.checked_div_euclid(b).unwrap_or(0)),
            _ => self.computed("divide", &[a.clone(), b.clone()]),
        }
    }

    /// The lesser of two extents.
    pub fn lesser(&mut self, a: &Extent, b: &Extent) -> Extent {
        match (a.value(), b.value()) {
            _ if a == b => a.clone(),
            (Some(x), Some(y)) => Extent::known(x.min(y)),
            _ => {
                let both = if a < b { [a.clone(), b.clone()] } else { [b.clone(), a.clone()] };
                let result = self.computed("min", &both);
                if let [symbol] = result.symbols.as_slice() {
                    self.lesser.insert(*symbol, both.to_vec());
                }
                result
            }
        }
    }

    /// What extents of at least 1 broadcast to, if they do: those that are not 1 are equal. The lesser of a and
    /// something else adds nothing to a, for where a is 1 it is 1, too.
    pub fn broadcast(&mut self, extents: &[Extent]) -> Extent {
        let known = |map: &HashMap<Symbol, Vec<Extent>>, e: &Extent| match (e.coefficient, e.symbols.as_slice()) {
            (1, [symbol]) => map.get(symbol).cloned().unwrap_or_default(),
            _ => Vec::new(),
        };
        let mut all: Vec<Extent> = Vec::new();
        for extent in extents {
            match known(&self.broadcast, extent) {
                parts if parts.is_empty() => all.push(extent.clone()),
                parts => all.extend(parts),
            }
        }
        all.sort();
        all.dedup();
        let kept: Vec<Extent> =
            all.iter().filter(|e| !known(&self.lesser, e).iter().any(|bound| all.contains(bound))).cloned().collect();
        if let [only] = kept.as_slice() {
            return only.clone();
        }
        let result = self.computed("broadcast", &kept);
        if let [symbol] = result.symbols.as_slice() {
            self.broadcast.insert(*symbol, kept);
        }
        result
    }

    /// How a person reads the extent: `64`, `batch`, `2·batch·time`.
    pub fn text(&self, extent: &Extent) -> String {
        let mut parts: Vec<String> = Vec::new();
        if extent.coefficient != 1 || extent.symbols.is_empty() {
            parts.push(extent.coefficient.to_string());
        }
        parts.extend(extent.symbols.iter().map(|s| self.names.get(s.0 as usize).cloned().unwrap_or_default()));
        parts.join("·")
    }

    fn add(&mut self, name: String) -> Symbol {
        let symbol = Symbol(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        self.names.push(name);
        symbol
    }
}

/// An extent without its symbols' names, for debugging; `Symbols::text` is for people.
impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value() {
            Some(v) => write!(f, "{v}"),
            None => write!(f, "?"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monomials_multiply_and_divide() {
        let mut symbols = Symbols::default();
        let batch = symbols.named("batch");
        let time = symbols.named("time");
        let all = batch.times(&time).and_then(|e| e.times(&Extent::known(64)));
        let all = all.as_ref();
        assert_eq!(all.and_then(|e| e.divided_by(&time)), batch.times(&Extent::known(64)));
        assert_eq!(all.and_then(|e| e.divided_by(&Extent::known(5))), None);
        assert_eq!(all.map(|e| symbols.text(e)), Some("64·batch·time".to_owned()));
    }

    #[test]
    fn equal_arithmetic_gives_equal_extents() {
        let mut symbols = Symbols::default();
        let h = symbols.named("h");
        let two = Extent::known(2);
        assert_eq!(symbols.floor_divide(&h, &two), symbols.floor_divide(&h, &two));
        assert_ne!(symbols.floor_divide(&h, &two), h);
        assert_eq!(symbols.plus(&h, &h), h.times(&two).unwrap_or(Extent::one()));
        assert_ne!(symbols.fresh("x"), symbols.fresh("x"));
    }

    #[test]
    fn what_is_no_longer_broadcasts_to_the_longer() {
        let mut symbols = Symbols::default();
        let (n, t) = (symbols.named("n"), symbols.named("t"));
        let short = symbols.lesser(&Extent::known(64), &t);
        assert_eq!(symbols.broadcast(&[t.clone(), short.clone()]), t);
        let open = symbols.broadcast(&[n.clone(), short]);
        assert_ne!(open, n);
        // What is a part already adds nothing, and the order does not matter.
        assert_eq!(symbols.broadcast(&[open.clone(), n.clone()]), open);
        assert_eq!(symbols.broadcast(&[t.clone(), open]), symbols.broadcast(&[n, t]));
    }
}
