//! ONNX files as they are. Knows bytes, nothing of graphs.

mod bits;
pub(crate) mod build;
mod external;
mod layout;
mod map;
mod minifloat;
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
#[rustfmt::skip]
pub mod onnx;
mod pieces;
mod read;
mod slice;
mod stream;
mod target;
pub mod tensor;
pub(crate) mod visit;
mod write;

pub use external::data_locations;
pub use map::Pages;
pub use read::{ModelFile, decode, read};
pub use slice::Slice;
pub use write::{ExternalStyle, Output, PROTOBUF_LIMIT, WriteOptions, write};

/// The version of the default operator set; 1 where the model names none.
pub(crate) fn opset(model: &onnx::ModelProto) -> i64 {
    model.opset_import.iter().find(|o| matches!(o.domain(), "" | "ai.onnx")).map_or(1, |o| o.version())
}
