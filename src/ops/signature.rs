//! Signatures: how the axes of an operator's inputs and outputs correspond, as data with a text form.
//!
//! `n C h w, O C k l, O -> n O p q`. A letter is an axis or a part of one; the same letter everywhere is the same
//! axis. Capital letters may shrink, small ones may not; `( )` nests (row-major), `+` concatenates, `1` broadcasts,
//! `_` says nothing about a tensor (all its axes are locked). Letters are words: `C`, `s0`, `Heads`.
//!
//! Invariants: a capital is a promise (see README.md beside this file); extents that no single axis tells are declared
//! in `Letter::extent`.

use std::fmt;

use crate::axes::Extent;

/// An axis, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// An axis of extent 1 that stands for any extent (broadcasting).
    One,
    /// A letter, by its index in `Signature::letters`.
    Letter(usize),
    /// A concatenation, in order.
    Sum(Vec<Term>),
    /// A row-major nesting, outermost first.
    Product(Vec<Term>),
}

/// What channels are to a product of two activations, as attention consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The products side by side: a batch axis of both operands.
    Heads,
    /// What every one of them is over: queries and keys where they are contracted, values where they are passed on.
    HeadDimensions,
}

/// A letter and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its spelling.
    pub name: String,
    /// Why it may not shrink; `None` for capitals.
    pub fixed: Option<String>,
    /// True if the letter may shrink all the same where approximations are allowed: statistics are then taken over what
    /// remains of it.
    pub approximate: bool,
    /// What the letter is in an attention product, if it is a part of one.
    pub part: Option<Part>,
    /// Its extent, needed where no single input axis tells it.
    pub extent: Option<Extent>,
}

/// The axes of one tensor, or `None` if nothing is said about them.
pub type TensorTerms = Option<Vec<Term>>;

/// How the axes of one operator call correspond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// One entry per input slot; slots beyond the list are `None`.
    pub inputs: Vec<TensorTerms>,
    /// One entry per output slot.
    pub outputs: Vec<TensorTerms>,
    /// The letters.
    pub letters: Vec<Letter>,
    /// The input slot that scales each channel (the gamma of a normalisation), if there is one.
    pub scale: Option<usize>,
    /// Input slots that hold running statistics, which are state and not parameters.
    pub statistics: &'static [usize],
    /// The input slots of scale and zero point, where the output is (input 0 - zero point) × scale.
    pub quantisation: Option<[usize; 2]>,
    /// Input slots of a body, and axes of them, that the body does not return as they were; `None` = not even the rank.
    pub changing: Vec<(usize, Option<usize>)>,
}

impl Signature {
    /// Reads the text form; letters starting with a small letter are locked because of `why`.
    ///
    /// # Errors
    /// A sentence naming the first thing that is no signature.
    pub fn parse(text: &str, why: &str) -> Result<Self, String> {
        let mut signature = Signature::default();
        let (inputs, outputs) = text.split_once("->").ok_or_else(|| format!("no `->` in `{text}`"))?;
        for (side, target) in [(inputs, 0), (outputs, 1)] {
            for tensor in side.split(',') {
                let terms = signature.tensor(tensor.trim(), why)?;
                if target == 0 {
                    signature.inputs.push(terms);
                } else {
                    signature.outputs.push(terms);
                }
            }
        }
        Ok(signature)
    }

    /// Declares the extent of a letter, which need not occur.
    #[must_use]
    pub fn with(mut self, name: &str, extent: Extent) -> Self {
        if let Some(letter) = self.letters.iter_mut().find(|l| l.name == name) {
            letter.extent = Some(extent);
        }
        self
    }

    /// Gives another reason for one small letter.
    #[must_use]
    pub fn because(mut self, name: &str, why: impl Into<String>) -> Self {
        if let Some(letter) = self.letters.iter_mut().find(|l| l.name == name && l.fixed.is_some()) {
            letter.fixed = Some(why.into());
        }
        self
    }

    /// Names the input slot that scales each channel.
    #[must_use]
    pub fn scaled_by(mut self, slot: usize) -> Self {
        self.scale = Some(slot);
        self
    }

    /// Names the input slots that hold running statistics.
    #[must_use]
    pub fn with_statistics(mut self, slots: &'static [usize]) -> Self {
        self.statistics = slots;
        self
    }

    /// Lets the small letters called so shrink where approximations are allowed: their reason is that statistics are
    /// taken over them, and nothing else.
    #[must_use]
    pub fn approximately(mut self, names: &[&str]) -> Self {
        for letter in self.letters.iter_mut().filter(|l| l.fixed.is_some() && names.contains(&l.name.as_str())) {
            letter.approximate = true;
        }
        self
    }

    /// Says what the letters called so are in an attention product.
    #[must_use]
    pub fn with_part(mut self, part: Part, names: &[&str]) -> Self {
        for letter in self.letters.iter_mut().filter(|l| names.contains(&l.name.as_str())) {
            letter.part = Some(part);
        }
        self
    }

    /// Says what the letter that a term is, if it is one, is in an attention product.
    pub fn mark(&mut self, term: &Term, part: Part) {
        if let Term::Letter(index) = term
            && let Some(letter) = self.letters.get_mut(*index)
        {
            letter.part = Some(part);
        }
    }

    /// A new letter that may shrink.
    pub fn free(&mut self, name: impl Into<String>, extent: Option<Extent>) -> Term {
        self.letters.push(Letter { name: name.into(), fixed: None, approximate: false, part: None, extent });
        Term::Letter(self.letters.len() - 1)
    }

    /// A new letter that may not shrink.
    pub fn fixed(&mut self, name: impl Into<String>, extent: Option<Extent>, why: impl Into<String>) -> Term {
        let fixed = Some(why.into());
        self.letters.push(Letter { name: name.into(), fixed, approximate: false, part: None, extent });
        Term::Letter(self.letters.len() - 1)
    }

    /// The extent declared for the letter that a term is, if it is one.
    pub fn extent_of(&self, term: &Term) -> Option<&Extent> {
        match term {
            Term::Letter(index) => self.letters.get(*index).and_then(|l| l.extent.as_ref()),
            _ => None,
        }
    }

    /// Locks the letter that a term is, if it is one, and spells it small.
    pub fn fix(&mut self, term: &Term, why: impl Into<String>) {
        if let Term::Letter(index) = term
            && let Some(letter) = self.letters.get_mut(*index)
        {
            letter.name = letter.name.to_lowercase();
            letter.fixed = Some(why.into());
        }
    }

    /// As [`Signature::fix`], but only as long as approximations are not allowed.
    pub fn fix_unless_approximate(&mut self, term: &Term, why: impl Into<String>) {
        let before = match term {
            Term::Letter(index) => self.letters.get(*index).is_none_or(|letter| letter.fixed.is_some()),
            _ => return,
        };
        self.fix(term, why);
        if let Term::Letter(index) = term
            && let Some(letter) = self.letters.get_mut(*index)
        {
            // A letter that something else fixes stays fixed.
            letter.approximate = !before;
        }
    }

    fn tensor(&mut self, text: &str, why: &str) -> Result<TensorTerms, String> {
        if text == "_" {
            return Ok(None);
        }
        let mut tokens = tokens(text);
        tokens.reverse();
        let mut terms = Vec::new();
        while let Some(token) = tokens.last() {
            if token == ")" {
                return Err(format!("a `)` without `(` in `{text}`"));
            }
            terms.push(self.sum(&mut tokens, why, text)?);
        }
        Ok(Some(terms))
    }

    fn sum(&mut self, tokens: &mut Vec<String>, why: &str, text: &str) -> Result<Term, String> {
        let mut parts = vec![self.single(tokens, why, text)?];
        while tokens.last().is_some_and(|t| t == "+") {
            tokens.pop();
            parts.push(self.single(tokens, why, text)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Term::Sum(parts) })
    }

    fn single(&mut self, tokens: &mut Vec<String>, why: &str, text: &str) -> Result<Term, String> {
        match tokens.pop().as_deref() {
            None | Some(")" | "+") => Err(format!("a letter is missing in `{text}`")),
            Some("1") => Ok(Term::One),
            Some("(") => {
                let mut factors = Vec::new();
                loop {
                    match tokens.last().map(String::as_str) {
                        None => return Err(format!("a `(` without `)` in `{text}`")),
                        Some(")") => {
                            tokens.pop();
                            return Ok(Term::Product(factors));
                        }
                        Some(_) => factors.push(self.sum(tokens, why, text)?),
                    }
                }
            }
            Some(name) => {
                if let Some(index) = self.letters.iter().position(|l| l.name == name) {
                    return Ok(Term::Letter(index));
                }
                let free = name.starts_with(char::is_uppercase);
                Ok(if free { self.free(name, None) } else { self.fixed(name, None, why) })
            }
        }
    }

    fn show(&self, term: &Term, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match term {
            Term::One => write!(f, "1"),
            Term::Letter(index) => write!(f, "{}", self.letters.get(*index).map_or("?", |l| l.name.as_str())),
            Term::Sum(parts) => parts.iter().enumerate().try_for_each(|(i, part)| {
                if i > 0 {
                    write!(f, "+")?;
                }
                self.show(part, f)
            }),
            Term::Product(factors) => {
                write!(f, "(")?;
                for (i, factor) in factors.iter().enumerate() {
                    if i > 0 {
                        write!(f, " ")?;
                    }
                    self.show(factor, f)?;
                }
                write!(f, ")")
            }
        }
    }

    fn show_tensor(&self, terms: &TensorTerms, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(terms) = terms else { return write!(f, "_") };
        for (i, term) in terms.iter().enumerate() {
            if i > 0 {
                write!(f, " ")?;
            }
            self.show(term, f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, input) in self.inputs.iter().enumerate() {
            if i > 0 {
                write!(f, ", ")?;
            }
            self.show_tensor(input, f)?;
        }
        write!(f, " -> ")?;
        for (i, output) in self.outputs.iter().enumerate() {
            if i > 0 {
                write!(f, ", ")?;
            }
            self.show_tensor(output, f)?;
        }
        Ok(())
    }
}

fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut word = String::new();
    for character in text.chars() {
        if matches!(character, '(' | ')' | '+') || character.is_whitespace() {
            if !word.is_empty() {
                tokens.push(std::mem::take(&mut word));
            }
            if !character.is_whitespace() {
                tokens.push(character.to_string());
            }
        } else {
            word.push(character);
        }
    }
    if !word.is_empty() {
        tokens.push(word);
    }
    tokens
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn text_survives_the_round_trip() {
        for text in [
            "n C h w, O C k l, O -> n O p q",
            "n (G C) h w, (G O) C k l -> n (G O) p q",
            "n A h, n B h -> n A+B h",
            "n (C r s) h w, _ -> n C (h r) (w s)",
            "d (g+A B) 1 -> _, B",
            " -> A",
        ] {
            assert_eq!(Signature::parse(text, "why").unwrap().to_string(), text);
        }
    }

    #[test]
    fn small_letters_are_locked() {
        let signature = Signature::parse("n C -> n C", "batch").unwrap();
        assert_eq!(signature.letters[0].fixed.as_deref(), Some("batch"));
        assert_eq!(signature.letters[1].fixed, None);
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        for text in ["n C", "n (C -> n", "n ) -> n", "n + -> n"] {
            assert!(Signature::parse(text, "").is_err(), "{text}");
        }
    }
}
