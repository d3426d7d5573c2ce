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
