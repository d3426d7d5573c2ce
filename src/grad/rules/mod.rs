//! The rules, one file per family. A rule emits nodes and gives the gradients of its node's inputs, by slot.

pub(super) mod activation;
pub(super) mod arithmetic;
pub(super) mod conv;
pub(super) mod linear;
pub(super) mod normalise;
pub(super) mod pool;
pub(super) mod rearrange;
pub(super) mod reduce;
