//! Writing: a model and what is kept of its initializers become a file, streamed and put in place as a whole.
//!
//! Invariants: without slices and external data the bytes are those of `encode_to_vec`; the output is never held in
//! memory as a whole; on any error the folder is as it was. The target may be the input: its mapping outlives the
//! rename.

use std::collections::BTreeMap;
use std::path::Path;

use super::layout::{Layout, Placement};
use super::map::Pages;
use super::onnx::{ModelProto, TensorProto};
use super::slice::Slice;
use super::stream;
use super::target::Target;
use crate::{Error, Result};

/// The largest file that protobuf's own readers accept: <https://protobuf.dev/programming-guides/proto-limits/>.
pub const PROTOBUF_LIMIT: u64 = i32::MAX as u64;

/// What is written.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The model with the initializers as they were before slicing. External tensors must have their `raw_data` loaded.
    pub model: ModelProto,
    /// What remains of initializers, by their index in `graph.initializer`. Replaces their shape and data.
    pub slices: BTreeMap<usize, Slice>,
    /// The files that tensors lie in; what has been written is given back to them.
    pub pages: Pages,
}

impl Output {
    /// The whole model in memory, with every slice cut: what a reader of the written file sees.
    ///
    /// # Errors
    /// A slice that does not fit its tensor.
    pub fn materialise(&self) -> Result<ModelProto> {
        let mut model = self.model.clone();
        let Some(graph) = model.graph.as_mut() else { return Ok(model) };
        for (index, slice) in &self.slices {
            let Some(tensor) = graph.initializer.get_mut(*index) else { continue };
            let dims = slice.dims_after().into_iter().map(|d| i64::try_from(d).unwrap_or(i64::MAX)).collect();
            let old = std::mem::take(tensor);
            *tensor = TensorProto {
                dims,
                data_type: old.data_type,
                name: old.name,
                doc_string: old.doc_string,
                metadata_props: old.metadata_props,
                raw_data: Some(slice.materialize()?),
                ..Default::default()
            };
        }
        Ok(model)
    }
}

/// Where the weights go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExternalStyle {
    /// All into the model file.
    Inline,
    /// Initializers of 1024 bytes and more into `<file name>.data` beside the model, and so the tensors that were
    /// outside before.
    External,
    /// As in the input; like `External` when the model file would exceed the limit.
    #[default]
    Auto,
}

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// Where the weights go.
    pub external: ExternalStyle,
    /// The largest model file in bytes.
    pub inline_limit: u64,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { external: ExternalStyle::Auto, inline_limit: PROTOBUF_LIMIT }
    }
}

/// Writes the model, and its data file if it needs one. Returns the length of both in bytes.
///
/// Errors: a target that cannot be written, a full disk, a model file above the limit, slices that do not fit their
/// tensors.
pub fn write(output: &Output, path: &Path, options: &WriteOptions) -> Result<u64> {
    let target = Target::new(path)?;
    let plan =
        |placement| Layout::new(&output.model, &output.slices, placement, &target.data_name).map_err(|e| e.file(path));
    let mut layout = plan(match options.external {
        ExternalStyle::Inline => Placement::Inline,
        ExternalStyle::External => Placement::All,
        ExternalStyle::Auto => Placement::Keep,
    })?;
    if options.external == ExternalStyle::Auto && stream::model_len(&layout) > options.inline_limit {
        layout = plan(Placement::All)?;
    }
    let model_len = stream::model_len(&layout);
    if model_len > options.inline_limit {
        let what =
            format!("the model file would be {model_len} bytes, no more than {} can be read", options.inline_limit);
        return Err(Error::input(what).file(path).help(match options.external {
            ExternalStyle::Inline => "write the weights to a data file",
            _ => "turn large constants inside nodes into initializers first, they cannot go to a data file",
        }));
    }
    let failed = |error| target.failed(error);
    let in_file = |error: Error| error.file(path);
    let data = if layout.data.tensors.is_empty() {
        None
    } else {
        target.data_path()?;
        let data = target.create()?;
        stream::write_data(&layout.data.tensors, data.as_file(), &output.pages, &failed).map_err(in_file)?;
        Some(data)
    };
    let model = target.create()?;
    stream::write_model(&layout, model.as_file(), &output.pages, &failed).map_err(in_file)?;
    let written = model.as_file().metadata().map_err(failed)?.len();
    if written != model_len {
        return Err(Error::input(format!("wrote {written} bytes of {model_len}"))
            .file(path)
            .help("report this as a bug"));
    }
    target.commit(model, data)?;
    Ok(model_len.saturating_add(layout.data.len))
}
