//! Structured pruning of multi-task ONNX models with a dependency graph, exact by verification.

pub mod axes;
pub mod error;
pub mod kept;
pub mod proto;

pub use error::{Error, ErrorKind, Result};
