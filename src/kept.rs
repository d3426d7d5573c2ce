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
}

/// What stands before the names of tensors inside a body, so that bodies side by side may use one name: the prefix of
/// the graph around it, the first output of the node that holds it, and the attribute and number under which it does.
pub fn prefix(outer: &str, node_output: &str, attribute: &str, number: usize) -> String {
    let number = if number == 0 { String::new() } else { number.to_string() };
    format!("{outer}{node_output}.{attribute}{number}/")
}

impl Kept {
    /// True when nothing gets smaller.
    pub fn is_empty(&self) -> bool {
        self.constants.is_empty() && self.activations.is_empty()
    }
}
