//! ONNX files as they are. Knows bytes, nothing of graphs.

#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
#[rustfmt::skip]
pub mod onnx;
