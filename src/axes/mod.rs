//! The axis algebra: what every axis of every tensor consists of, and how axes are made one.
//!
//! Explained with examples in docs/axes.md. Invariants are stated at [`Space`]; `tests/axes.rs` checks the algebra on
//! random expressions: masks evaluated before and after refinement agree.

mod extent;
mod mask;
mod space;
mod unify;

pub use extent::{Extent, Symbol, Symbols};
pub use mask::Masks;
pub use space::{Expr, LockId, Shape, Space};
pub use unify::Mismatch;
