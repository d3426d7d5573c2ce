//! Sources of samples: files and folders of data, read sample by sample.
//!
//! Invariants: only what is asked for is read; nothing of a file is believed before it is checked against what the file
//! really holds; Python objects are refused, never unpickled.

mod array;
mod arrays;
mod files;
mod folder;
mod labels;
mod npy;
mod npz;
mod pictures;
mod preprocess;
mod scaled;
mod tensors;
mod test_data;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Source;
use crate::engine::inputs::{InputDeclaration, declared_inputs};
use crate::proto::onnx::ModelProto;
use crate::{Error, Result};
use array::Array;
use arrays::Arrays;
use files::Files;

pub use labels::{read_labels, read_samples};
pub use preprocess::{Channels, Layout, Numbers, Preprocess, Resize};
pub use scaled::Scaled;

/// How data is read.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// The folder for what has to be decompressed before it can be read sample by sample.
    pub temporary: PathBuf,
    /// The most bytes that may be decompressed there. A small file can declare, or become, almost any size.
    pub most_temporary_bytes: u64,
    /// How pictures become an input. Without it, a `preprocess.toml` beside them says so.
    pub preprocess: Option<Preprocess>,
}

impl SourceOptions {
    /// The usual options: up to 8 GiB in the folder `temporary`.
    pub fn new(temporary: impl Into<PathBuf>) -> Self {
        Self { temporary: temporary.into(), most_temporary_bytes: 8 << 30, preprocess: None }
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
    Format { endings: &["safetensors"], names: tensors::names, array: tensors::array },
];

/// Opens the samples at `path` for `model`: a file of arrays named after the graph inputs, whose first axis counts
/// samples; a folder of such files; folders `test_data_set_N` as ONNX models come with; or a folder of pictures.
///
/// # Errors
/// When nothing there can be read, or an input has no array. What is wrong with a single sample shows when it is read.
pub fn open(path: impl AsRef<Path>, model: &ModelProto, options: &SourceOptions) -> Result<Box<dyn Source>> {
    let path = path.as_ref();
    let inputs = declared_inputs(model)?;
    let files = Arc::new(Files::new(options));
    if path.is_dir() {
        return open_folder(path, &inputs, &files, options);
    }
    match format_of(path) {
        Some(format) => Ok(Box::new(open_file(path, format, &inputs, &files)?)),
        None => Err(unknown(path)),
    }
}

/// The first kind of data that a folder holds.
fn open_folder(
    path: &Path,
    inputs: &[InputDeclaration],
    files: &Arc<Files>,
    options: &SourceOptions,
) -> Result<Box<dyn Source>> {
    let paths = folder::entries(path)?;
    if let Some(source) = test_data::open_folders(path, &paths, inputs)? {
        return Ok(Box::new(source));
    }
    if let Some(source) = folder::open(&paths, inputs, files)? {
        return Ok(Box::new(source));
    }
    if let Some(source) = pictures::open_folder(path, inputs, options.preprocess.as_ref())? {
        return Ok(Box::new(source));
    }
    Err(Error::input("no data in this folder").file(path).help(readable()))
}

/// The arrays of one file that the inputs need.
fn open_file(path: &Path, format: &Format, inputs: &[InputDeclaration], files: &Arc<Files>) -> Result<Arrays> {
    let at = |e: Error| e.file(path);
    let selection = arrays::select(&(format.names)(path)?, inputs).map_err(at)?;
    let open = |(array, input): &(String, String)| Ok((input.clone(), (format.array)(path, array, files)?));
    let opened = selection.pairs.iter().map(open).collect::<Result<Vec<_>>>()?;
    Ok(Arrays::new(opened, selection.notes).map_err(at)?.of_file(path))
}

/// The format that the ending of a file name stands for.
fn format_of(path: &Path) -> Option<&'static Format> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    FORMATS.iter().find(|format| format.endings.contains(&ending.as_str()))
}

fn unknown(path: &Path) -> Error {
    let what = match std::fs::metadata(path) {
        Ok(_) => "not a kind of data that can be read".to_string(),
        Err(e) => format!("cannot open the data: {e}"),
    };
    Error::input(what).file(path).help(readable())
}

/// What can be read, for an error.
fn readable() -> String {
    let endings: Vec<&str> = FORMATS.iter().flat_map(|format| format.endings).copied().collect();
    format!(
        "give a file that ends in one of {endings:?}, or a folder of such files, of test_data_set_* or of pictures ({:?})",
        pictures::ENDINGS
    )
}
