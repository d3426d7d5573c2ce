//! Sources of samples: files and folders of data, read sample by sample.
//!
//! Invariants: only what is asked for is read; nothing of a file is believed before it is checked against what the file
//! really holds; Python objects are refused, never unpickled.

mod array;
mod arrays;
mod files;
mod npy;
mod npz;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Source;
use crate::engine::inputs::{InputDeclaration, declared_inputs};
use crate::proto::onnx::ModelProto;
use crate::{Error, Result};
use array::Array;
use arrays::Arrays;
use files::Files;

/// How data is read.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// The folder for what has to be decompressed before it can be read sample by sample.
    pub temporary: PathBuf,
    /// The most bytes that may be decompressed there. A small file can declare, or become, almost any size.
    pub most_temporary_bytes: u64,
}

impl SourceOptions {
    /// The usual options: up to 8 GiB in the folder `temporary`.
    pub fn new(temporary: impl Into<PathBuf>) -> Self {
        Self { temporary: temporary.into(), most_temporary_bytes: 8 << 30 }
    }
}

/// A format of files that hold arrays by name.
struct Format {
    /// Endings of file names, in lower case.
    endings: &'static [&'static str],
    /// The names of the arrays in a file.
    names: fn(&Path) -> Result<Vec<String>>,
    /// Opens one of them.
    array: fn(&Path, &str, &Arc<Files>) -> Result<Array>,
}

/// The formats that are read, one row each.
const FORMATS: &[Format] = &[
    Format { endings: &["npz"], names: npz::names, array: npz::array },
    Format { endings: &["npy"], names: npy::names, array: npy::array },
];

/// Opens the samples at `path` for `model`: a file of arrays named after the graph inputs, whose first axis counts
/// samples.
///
/// # Errors
/// When nothing there can be read, or an input has no array. What is wrong with a single sample shows when it is read.
pub fn open(path: impl AsRef<Path>, model: &ModelProto, options: &SourceOptions) -> Result<Box<dyn Source>> {
    let path = path.as_ref();
    let inputs = declared_inputs(model)?;
    let files = Arc::new(Files::new(options));
    match format_of(path) {
        Some(format) => Ok(Box::new(open_file(path, format, &inputs, &files)?)),
        None => Err(unknown(path)),
    }
}

/// The arrays of one file that the inputs need.
fn open_file(path: &Path, format: &Format, inputs: &[InputDeclaration], files: &Arc<Files>) -> Result<Arrays> {
    let at = |e: Error| e.file(path);
    let selection = arrays::select(&(format.names)(path)?, inputs).map_err(at)?;
    let open = |(array, input): &(String, String)| Ok((input.clone(), (format.array)(path, array, files)?));
    let opened = selection.pairs.iter().map(open).collect::<Result<Vec<_>>>()?;
    Arrays::new(opened, selection.notes).map_err(at)
}

/// The format that the ending of a file name stands for.
fn format_of(path: &Path) -> Option<&'static Format> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    FORMATS.iter().find(|format| format.endings.contains(&ending.as_str()))
}

fn unknown(path: &Path) -> Error {
    let endings: Vec<&str> = FORMATS.iter().flat_map(|format| format.endings).copied().collect();
    let what = match std::fs::metadata(path) {
        Ok(_) => "not a kind of data that can be read".to_string(),
        Err(e) => format!("cannot open the data: {e}"),
    };
    Error::input(what).file(path).help(format!("give a file that ends in one of {endings:?}"))
}
