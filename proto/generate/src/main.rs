//! Generates src/proto/onnx.rs from proto/onnx-ml.proto. Run by hand after updating the schema, from the repository root:
//!
//! ```sh
//! cargo run --manifest-path proto/generate/Cargo.toml
//! ```
//!
//! The result is checked in, so that building the program needs neither this crate nor `protoc`. The schema is the file of the same
//! name in <https://github.com/onnx/onnx/tree/main/onnx>.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema_folder = here.join("..");
    let output_folder = here.join("../../src/proto");
    let schema = protox::compile(["onnx-ml.proto"], [schema_folder])?;
    let mut generator = prost_build::Config::new();
    generator.out_dir(output_folder);
    // Weights stay slices of the mapped file instead of copies.
    generator.bytes([".onnx.TensorProto.raw_data"]);
    generator.compile_fds(schema)?;
    Ok(())
}
