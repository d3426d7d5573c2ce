//! Gradients: reverse-mode differentiation from graph to graph. The backward pass is an ONNX model of its own, made of
//! operators that any engine runs.
//!
//! Spec: the operators as <https://onnx.ai/onnx/operators/> defines them; one small rule per operator says what its
//! inputs get from what its outputs get. Invariants: a gradient is given whole or not at all: what lies behind an
//! operator without a rule gets none, and is named; a value that several nodes read gets the sum of what they say;
//! extents of the batch axis are taken when the model runs.

mod backward;
mod context;
mod facts;
mod rules;
mod step;
mod table;

pub use backward::{Backward, Stop, backward};
pub use facts::{Fact, Facts, facts_of_run, measure};
pub use table::{GRADIENTS, Row};

/// The gradients of a node's inputs, by slot; `None` for what needs none or has no formula. The error is the reason why there are none.
type Gradients = std::result::Result<Vec<Option<String>>, String>;
