//! Structured pruning of multi-task ONNX models with a dependency graph, exact by verification.

pub mod aggregate;
pub mod allocate;
pub mod axes;
pub mod calibration;
pub mod coupling;
pub mod engine;
pub mod error;
pub mod extract;
pub mod fidelity;
pub mod functions;
pub mod gates;
pub mod grad;
pub mod graph;
pub mod groups;
pub mod kept;
pub mod losses;
pub mod masks;
pub mod ops;
pub mod plan_file;
pub mod proto;
pub mod prune;
pub mod repair;
pub mod report;
pub mod rewrite;
pub mod score;
pub mod tasks;
pub mod text;
pub mod verify;

pub use error::{Error, ErrorKind, Result};
