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

/// What remains of every tensor that gets smaller, keyed by tensor name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Initializers and `Constant` outputs, by their name in the original model.
    pub constants: BTreeMap<String, KeptAxes>,
    /// Activations (outputs of nodes), by their name in the original model.
    pub activations: BTreeMap<String, KeptAxes>,
}

impl Kept {
    /// True when nothing gets smaller.
    pub fn is_empty(&self) -> bool {
        self.constants.is_empty() && self.activations.is_empty()
    }
}
