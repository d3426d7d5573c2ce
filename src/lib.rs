//! Structured pruning of multi-task ONNX models with a dependency graph, exact by verification.

pub mod engine;
pub mod error;
pub mod kept;
pub mod proto;
pub mod verify;

pub use error::{Error, ErrorKind, Result};
