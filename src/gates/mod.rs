//! Gates: what the loss of every task would feel of each channel, from gradients.
//!
//! The gate z_k of a channel is 1 and multiplies it wherever it is contracted; dL/dz_k is the sum of a · dL/da over all
//! these places and positions. One model holds the forward pass, the losses, and one backward pass for each task; only
//! one number per sample and position of a channel axis leaves the engine. Gradients of the weights that make channels
//! leave it whole and are summed up batch by batch. Invariants: memory does not grow with the number of samples; places
//! that only fill up a batch do not count; sums are in double precision.

mod accumulate;
mod backward;
mod forward;
mod gather;
mod insert;
mod prepare;
mod rows;
mod sums;

pub use gather::{GradientOptions, GradientWish, gather};
pub use sums::{Gradients, GroupGradients, TaskGradients, WeightGradients};
