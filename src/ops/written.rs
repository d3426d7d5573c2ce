//! Operators whose signature is a line of text, whatever their attributes say; and operators that lock what they read.
//!
//! A word that ends with `*` stands for as many axes as the tensor has beyond the others, the same number in every
//! tensor: `N* m m -> N* m m` is any stack of square matrices. Inputs that a call leaves out become `_`.

use super::{NodeView, Refusal, Refused, Rule, Signature};
use crate::axes::Extent;

/// A signature as text.
pub(super) struct Written {
    /// The alternatives; the first whose ranks fit holds.
    pub(super) texts: &'static [&'static str],
    /// Why its small letters may not shrink.
    pub(super) why: &'static str,
    /// Letters whose extent is a number: the letter, and where the number stands.
    pub(super) extents: &'static [(&'static str, Number)],
}

/// Where the extent of a letter comes from.
pub(super) enum Number {
    /// Always the same.
    Fixed(i64),
    /// An integer attribute that has a default.
    AttributeOr(&'static str, i64),
    /// An entry of a list attribute.
    Listed(&'static str, usize),
    /// An entry of an integer input: slot, index.
    Entry(usize, usize),
    /// Nothing tells it before the model runs; the number keeps several letters of one node apart.
    Unknown(usize),
}

/// A text without numbers.
pub(super) const fn written(texts: &'static [&'static str], why: &'static str) -> Written {
    Written { texts, why, extents: &[] }
}

impl Rule for Written {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let mut outcome = Err(Refusal::new("no signature is written for it"));
        for text in self.texts {
            outcome = self.read(node, text);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

impl Written {
    fn read(&self, node: &NodeView, text: &str) -> Refused<Signature> {
        let (inputs, outputs) = text.split_once("->").ok_or_else(|| Refusal::new("its signature has no outputs"))?;
        let inputs: Vec<Vec<String>> = inputs.split(',').map(words).collect();
        let outputs: Vec<Vec<String>> = outputs.split(',').map(words).collect();
        let mut repeats = None;
        for (slot, words) in inputs
            .iter()
            .enumerate()
            .filter(|(slot, words)| node.has(*slot) && !matches!(words.as_slice(), [word] if word == "_"))
        {
            let rank = node.rank(slot)?;
            let wrong = || Refusal::new(format!("input {slot} has rank {rank}, which its specification does not know"));
            let starred = words.iter().filter(|word| word.ends_with('*')).count();
            match (starred, rank.checked_sub(words.len() - starred)) {
                (0, Some(0)) => {}
                (1, Some(more)) if *repeats.get_or_insert(more) == more => {}
                _ => return Err(wrong()),
            }
        }
        let repeats = repeats.unwrap_or(0);
        let spell = |words: &[String]| {
            let spelled: Vec<String> = words
                .iter()
                .flat_map(|word| match word.strip_suffix('*') {
                    Some(name) => (0..repeats).map(|i| format!("{name}{i}")).collect(),
                    None => vec![word.clone()],
                })
                .collect();
            spelled.join(" ")
        };
        let there = inputs.iter().enumerate().filter(|(slot, _)| node.has(*slot));
        let told: Vec<String> = there.flat_map(|(_, words)| words.clone()).collect();
        let inputs: Vec<String> = inputs
            .iter()
            .enumerate()
            .map(|(slot, words)| if node.has(slot) { spell(words) } else { "_".to_owned() })
            .collect();
        if node.node.outputs.iter().skip(outputs.len()).any(Option::is_some) {
            return Err(Refusal::new("it gives an output that is not described"));
        }
        let outputs: Vec<String> = outputs.iter().map(|words| spell(words)).collect();
        let text = format!("{} -> {}", inputs.join(", "), outputs.join(", "));
        let mut signature = Signature::parse(&text, self.why)?;
        for (letter, number) in self.extents {
            // An axis that is there tells its extent itself.
            let told = matches!(number, Number::Unknown(_)) && told.iter().any(|word| word == letter);
            if let Some(extent) = number.of(node).filter(|_| !told) {
                signature = signature.with(letter, extent);
            }
        }
        signature.outputs.truncate(node.outputs.max(1));
        Ok(signature)
    }
}

impl Number {
    fn of(&self, node: &NodeView) -> Option<Extent> {
        match self {
            Number::Fixed(n) => Some(Extent::known(*n)),
            Number::AttributeOr(name, default) => Some(Extent::known(node.int(name, *default))),
            Number::Listed(name, index) => node.ints(name).and_then(|l| l.get(*index)).map(|n| Extent::known(*n)),
            Number::Entry(slot, index) => {
                let entry = node.integers(*slot).and_then(|i| i.values.get(*index).cloned().flatten());
                Some(entry.unwrap_or_else(|| super::follow::unknown(node, slot * 16 + index)))
            }
            Number::Unknown(number) => Some(super::follow::unknown(node, 256 + number)),
        }
    }
}

/// The words of a tensor's text; what stands in brackets is one word.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut depth) = (Vec::<String>::new(), 0usize);
    for word in text.split_whitespace() {
        match (words.last_mut(), depth) {
            (Some(last), 1..) => {
                last.push(' ');
                last.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
        depth += word.matches('(').count();
        depth = depth.saturating_sub(word.matches(')').count());
    }
    words
}

/// An operator of which only this is known: why nothing that it reads may shrink, as its row notes it: `nothing: why`.
pub(super) struct Locked(pub(super) &'static str);

impl Rule for Locked {
    fn signature(&self, _node: &NodeView) -> Refused<Signature> {
        Err(Refusal::new(self.0.trim_start_matches("nothing: ")))
    }
}
