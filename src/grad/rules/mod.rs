//! The rules, one file per family. A rule emits nodes and gives the gradients of its node's inputs, by slot.

pub(super) mod activation;
pub(super) mod arithmetic;
pub(super) mod attention;
pub(super) mod blocks;
mod cells;
pub(super) mod conv;
pub(super) mod curves;
pub(super) mod einsum;
pub(super) mod fused;
pub(super) mod linear;
pub(super) mod local;
mod matrices;
pub(super) mod normalise;
pub(super) mod pad;
pub(super) mod pool;
pub(super) mod quantise;
pub(super) mod rearrange;
pub(super) mod recurrent;
pub(super) mod reduce;
pub(super) mod resize;
pub(super) mod rotary;
mod sample;
pub(super) mod sampling;
pub(super) mod scatter;
pub(super) mod selection;
pub(super) mod transforms;
pub(super) mod transposed;
