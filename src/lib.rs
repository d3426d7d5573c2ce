//! Structured pruning of multi-task ONNX models with a dependency graph, exact by verification.

pub mod axes;
pub mod coupling;
pub mod error;
pub mod graph;
pub mod kept;
pub mod ops;
pub mod proto;

pub mod text;

pub use error::{Error, ErrorKind, Result};
