//! Kept: which indices of which axes of which tensors remain. The one fact that rewriting and verification share.
//!
//! Invariants: indices are strictly increasing and below the original extent; an axis that keeps everything is `None`;
//! a tensor that keeps everything on every axis is absent.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The indices that one axis keeps, strictly increasing.
pub type Indices = Arc<[u32]>;

/// The kept indices of one tensor, axis by axis (length = rank; `None` = the whole axis stays).
pub type KeptAxes = Vec<Option<Indices>>;

/// What remains of every tensor that gets smaller, keyed by tensor name; inside bodies by [`prefix`] and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Initializers and `Constant` outputs, by their name in the original model.
    pub constants: BTreeMap<String, KeptAxes>,
    /// Activations (outputs of nodes), by their name in the original model.
    pub activations: BTreeMap<String, KeptAxes>,
    /// The original extents of the axes that get shorter, for activations inside bodies, where no engine can ask.
    pub extents: BTreeMap<String, Vec<Option<u32>>>,
    /// What stands for zero in those quantised activations that get smaller and whose zero is not stored as 0.
    pub zeros: BTreeMap<String, Zero>,
}

/// The stored number that stands for zero in a quantised tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Zero {
    /// This number.
    Number(i64),
    /// What the activation of this name, one number, holds when the model runs.
    Activation(String),
}

/// What stands before the names of tensors inside a body, so that bodies side by side may use one name: the prefix of
/// the graph around it, the first output of the node that holds it, and the attribute and number under which it does.
pub fn prefix(outer: &str, node_output: &str, attribute: &str, number: usize) -> String {
    let number = if number == 0 { String::new() } else { number.to_string() };
    format!("{outer}{node_output}.{attribute}{number}/")
}

impl Kept {
    /// What two cuts leave together: the indices of `later` are those of what this cut has left.
    #[must_use]
    pub fn followed_by(&self, later: &Kept) -> Kept {
        let mut both = self.clone();
        let merge = |own: &mut BTreeMap<String, KeptAxes>, later: &BTreeMap<String, KeptAxes>| {
            for (name, axes) in later {
                match own.get_mut(name) {
                    Some(own) => own.iter_mut().zip(axes).for_each(|(own, later)| compose(own, later.as_ref())),
                    None => _ = own.insert(name.clone(), axes.clone()),
                }
            }
        };
        merge(&mut both.constants, &later.constants);
        merge(&mut both.activations, &later.activations);
        for (name, extents) in &later.extents {
            let own = both.extents.entry(name.clone()).or_insert_with(|| vec![None; extents.len()]);
            own.iter_mut().zip(extents).for_each(|(own, later)| *own = own.or(*later));
        }
        both.zeros.extend(later.zeros.iter().map(|(name, zero)| (name.clone(), zero.clone())));
        both
    }

    /// True when nothing gets smaller.
    pub fn is_empty(&self) -> bool {
        self.constants.is_empty() && self.activations.is_empty()
    }
}

fn compose(own: &mut Option<Indices>, later: Option<&Indices>) {
    let Some(later) = later else { return };
    *own = Some(match own.as_ref() {
        None => later.clone(),
        Some(own) => later.iter().filter_map(|index| own.get(usize::try_from(*index).ok()?).copied()).collect(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cuts_are_one() {
        let cut = |indices: &[u32]| Some(Indices::from(indices));
        let kept = |axes: KeptAxes| Kept { constants: BTreeMap::from([("w".to_owned(), axes)]), ..Kept::default() };
        let (first, second) = (kept(vec![cut(&[1, 3, 5, 7]), None]), kept(vec![cut(&[0, 2]), cut(&[4])]));
        assert_eq!(first.followed_by(&second), kept(vec![cut(&[1, 5]), cut(&[4])]));
        assert_eq!(first.followed_by(&Kept::default()), first);
        assert_eq!(Kept::default().followed_by(&second), second);
    }
}
